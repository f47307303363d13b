"""How near the VAE comes to the rate of matrix products, measured: a part of bench.py.

    python tests/benchmarks/bench_vae.py --sr 44100 --threads 1

Encoding eight seconds at full size, random weights, float32 on a CPU, against products of matrices
(sgemm, of PyTorch and of NumPy, the better one counts) of 1024 to 4096 squared and of the shapes of the
network's own convolutions, and against the plain network of tests/features, module by module. All take
turns; rates are medians. With one thread, seconds are of the CPU, which bear a busy machine better;
with more they are of the clock; ratios are medians of those within a turn. Work is counted from
the convolutions of the specification alone: attention, norms and sums cost time and count for nothing.

A process for each number of threads: NumPy takes it when it is loaded. Prints one JSON document.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from features.encoders.vae import Vae

HERE = Path(__file__).resolve().parent
GIGA = 1e9
SQUARES = (1024, 2048, 4096)
FRAMES = {16000: 500, 44100: 690}  # of eight seconds
TARGET, AIM = 0.70, 0.85
CLOSE = 0.999
_SPINS_S = 0.3


def layers(vae: "Vae", frames: int) -> list[tuple[int, int, int]]:
    """Rows, inputs and outputs of each convolution of the encoder as a product, by the specification."""
    from features.encoders.convolution import TimeConvolution

    found = []
    for name, module in vae.encoder.named_modules():
        if isinstance(module, TimeConvolution):
            out_channels, channels, taps = module.weight.shape
            full_rate = name == "conv_in" or name.startswith(("down.0.block", "down.0.downsample.conv1"))
            found.append((frames if full_rate else frames // 2, channels * taps, out_channels))
    return found


def products(shapes: set[tuple[int, int, int]]) -> dict[str, tuple[float, Callable[[], Any]]]:
    """GFLOP and the call of a product of each shape, by both libraries."""
    import numpy as np
    import torch

    made: dict[str, tuple[float, Callable[[], Any]]] = {}
    for rows, inner, columns in sorted(shapes):
        left, right = torch.randn(rows, inner), torch.randn(inner, columns)
        out = torch.empty(rows, columns)
        name, work = f"{rows}x{inner}x{columns}", 2 * rows * inner * columns / GIGA
        arrays = left.numpy(), right.numpy(), out.numpy()
        made[f"torch {name}"] = work, lambda x=left, y=right, z=out: torch.mm(x, y, out=z)
        made[f"numpy {name}"] = work, lambda a=arrays: np.matmul(a[0], a[1], out=a[2])
    return made


def random_state(vae: "Vae") -> dict[str, "Tensor"]:
    """Normal weights, all norms and gains at rest."""
    import torch

    rng = torch.Generator().manual_seed(0)
    at_rest = {"data_mean": 0.0, "data_std": 1.0, "learnable_gain": 0.0}
    return {
        name: torch.full(tensor.shape, at_rest[name.rpartition(".")[2]])
        if name.rpartition(".")[2] in at_rest
        else torch.randn(tensor.shape, generator=rng)
        for name, tensor in vae.state_dict().items()
    }


def in_turns(
    calls: dict[str, Callable[[], Any]], turns: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each call in each turn, after one that does not count.

    Each begins when the threads of the one before sleep: those of NumPy spin for 0.1 s after a product,
    on a core that belongs to the next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            time.sleep(_SPINS_S)
            begun = clock()
            call()
            if turn:
                seconds[name].append(clock() - begun)
    return seconds


def half_precision(vae: "Vae", mel: "Tensor") -> dict[str, float]:
    """Cosines of bf16 to float32; the network is in bf16 afterwards."""
    import torch

    expected = vae.encode(mel)
    found = vae.to(torch.bfloat16).encode(mel)
    names = ("mean", "std")
    return {
        name: float(torch.cosine_similarity(f.double().flatten(), e.double().flatten(), dim=0))
        for name, f, e in zip(names, found, expected, strict=True)
    }


def measure(
    *, sample_rate_hz: int = 44100, threads: int = 1, batch: int = 1, turns: int = 5
) -> dict[str, Any]:
    """What one process finds; `threads` must be set before NumPy is loaded, as `main` does."""
    sys.path.insert(0, str(HERE.parent / "features"))
    import torch
    from plain_vae import plain_vae

    from features.encoders.mel import mel_spectrogram
    from features.encoders.vae import Vae, VaeConfig, load_vae
    from features.spec import SequenceSpec

    torch.set_num_threads(threads)
    with torch.device("meta"):
        empty = Vae(VaeConfig.published(sample_rate_hz))
    frames = FRAMES[sample_rate_hz]
    convolutions = layers(empty, frames)
    work = batch * sum(2 * rows * inner * columns for rows, inner, columns in convolutions) / GIGA
    shapes = {(batch * rows, inner, columns) for rows, inner, columns in convolutions if inner >= 1000}
    gemms = products({(side, side, side) for side in SQUARES} | shapes)
    state = random_state(empty)
    vae, plain = load_vae(sample_rate_hz, state), plain_vae(sample_rate_hz, state)
    del state
    num_samples = SequenceSpec(sample_rate_hz=sample_rate_hz).num_samples
    wave = 0.3 * torch.randn(batch, num_samples, generator=torch.Generator().manual_seed(1))
    mel = mel_spectrogram(wave, sample_rate_hz)
    mel = (mel - mel.mean()) / mel.std()
    calls = {name: call for name, (_, call) in gemms.items()}
    calls |= {"vae": lambda: vae.encode(mel), "plain": lambda: plain.encode(mel)}
    with torch.inference_mode():
        difference = (vae.encode(mel)[0].mT - plain.encode(mel)[0]).abs().max()
        clock = time.process_time if threads == 1 else time.perf_counter
        seconds = in_turns(calls, turns, clock)
        cosines = half_precision(vae, mel)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {name: gflop / median[name] for name, (gflop, _) in gemms.items()}
    best = max(rates, key=lambda name: rates[name])
    # where others use the machine too: the fastest turn of each in place of the median
    fastest = max(gflop / min(seconds[name]) for name, (gflop, _) in gemms.items())
    return {
        "sample_rate_hz": sample_rate_hz, "threads": threads, "batch": batch, "turns": turns,
        "clock": "cpu" if threads == 1 else "wall",
        "gflop": round(work, 2), "seconds": round(median["vae"], 4),
        "plain_seconds": round(median["plain"], 4),
        "gflop_per_s": round(work / median["vae"], 1),
        "peak_gflop_per_s": round(rates[best], 1), "peak_of": best,
        "peak_torch_gflop_per_s": round(max(rates[n] for n in rates if n.startswith("torch")), 1),
        "of_peak": round(work / median["vae"] / rates[best], 3),
        "of_peak_fastest": round(work / min(seconds["vae"]) / fastest, 3),
        "plain_over_ours": round(
            statistics.median(p / o for p, o in zip(seconds["plain"], seconds["vae"], strict=True)), 3
        ),
        "largest_difference_to_plain": float(difference),
        "bf16_cosine": cosines,
        "holds": work / median["vae"] / rates[best] >= TARGET
        and median["vae"] <= median["plain"] and min(cosines.values()) >= CLOSE,
        "target": TARGET, "aim": AIM,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sr", type=int, choices=sorted(FRAMES), default=44100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="clips at once (1)")
    parser.add_argument("--turns", type=int, default=5, help="how often everything runs (5)")
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(given.threads)
    from bench import circumstances

    document = circumstances() | {
        "command": " ".join(["python", "tests/benchmarks/bench_vae.py", *sys.argv[1:]]),
        **measure(sample_rate_hz=given.sr, threads=given.threads, batch=given.batch, turns=given.turns),
        "load_after": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(document, indent=1))
    return 0 if document["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
