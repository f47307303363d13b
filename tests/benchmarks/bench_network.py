"""How near a training pass comes to the rate of matrix products, measured: a part of bench_training.py.

    python tests/benchmarks/bench_network.py --threads 1

Forward and backward pass of S-16k, batch 4, float32 on a CPU, against products of matrices (sgemm of
PyTorch and of NumPy; the best counts) of 1024 to 4096 squared and of the network's three main shapes,
and against the plain network of tests/training, module by module, whose loss and gradients must be the
same. All take turns; rates are medians. With one thread, seconds are of the CPU, which bear a busy
machine better; with more they are of the clock; ratios are medians of those within a turn.

Work is what the plain network does, by the specification (183.6 GFLOP a sample): what we leave out
counts as done, so that the share of the best product may be above 1.

Memory is the peak of a process of its own that passes twice, above what it had before it made the
network: weights, gradients, activations. Its malloc gives large blocks back at once; as it is set by
default, it keeps 1 GB of freed ones of either network.

Prints one JSON document.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_vae import in_turns, products

if TYPE_CHECKING:
    from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
GIGA = 1e9
SAMPLE_GFLOP = 183.6  # Source: the research table, S-16k, forward and backward
BATCH, LATENTS, PICTURES, SYNC, TEXT = 4, 250, 64, 192, 77
SQUARES = (1024, 2048, 4096)
# Rows, inputs, outputs: both products of the gated MLP of three taps, and queries, keys, values of all.
MAIN = ((BATCH * LATENTS, 3 * 448, 2 * 1280), (BATCH * LATENTS, 3 * 1280, 448),
        (BATCH * (LATENTS + PICTURES + TEXT), 448, 3 * 448))  # fmt: skip
TARGET, AIM, FASTER, SMALLER, CLOSE = 0.70, 0.85, 1.1, 0.8, 1e-4


def network_of(kind: str) -> "nn.Module":
    """`ours` or `plain`, with the same random weights."""
    sys.path[:0] = [str(HERE.parent / "training"), str(HERE.parent / "features")]
    import torch
    from plain_network import PlainNetwork

    from features.weights.untrained import untrained_state
    from training.model.released import released_layout
    from training.model.variants import VARIANTS
    from training.network import Network, load_released

    variant = VARIANTS["small_16k"]
    shapes = {n: torch.empty(s, device="meta") for n, s in released_layout(variant).items()}
    state = untrained_state(shapes, 0)
    with torch.device("meta"):
        network = Network(variant) if kind == "ours" else PlainNetwork(variant)
    if isinstance(network, Network):
        load_released(network, state, what="random weights")
    else:
        network.load_state_dict(state, assign=True)
    return network


def given() -> "tuple[list[Tensor], dict[str, Tensor], Tensor]":
    """Inputs, which of them are missing, and what the velocity should be."""
    import torch

    rng = torch.Generator().manual_seed(1)
    shapes = [(LATENTS, 20), (PICTURES, 1024), (SYNC, 768), (TEXT, 1024)]
    inputs = [torch.randn(BATCH, *shape, generator=rng) for shape in shapes]
    video, text = torch.tensor([False, False, False, True]), torch.tensor([False, True, False, False])
    masks = {"without_clip": video, "without_sync": video, "without_text": text}
    return (
        [*inputs, torch.rand(BATCH, generator=rng)],
        masks,
        torch.randn(inputs[0].shape, generator=rng),
    )


def passed(network: "nn.Module", inputs: Any) -> float:
    """The loss; gradients are left in the network."""
    latents, masks, target = inputs
    network.zero_grad(set_to_none=True)
    loss = (network(*latents, **masks) - target).square().mean()
    loss.backward()
    return float(loss.detach())


def difference(ours: "nn.Module", plain: "nn.Module", inputs: Any) -> dict[str, float]:
    """Of the loss and of all gradients, relative to the largest value of each tensor."""
    from training.model.released import to_released
    from training.network import Network

    assert isinstance(ours, Network), "the network of the package"
    a, b = passed(ours, inputs), passed(plain, inputs)
    gradients = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    mine = to_released(gradients, ours.variant)
    theirs = {n: p.grad for n, p in plain.named_parameters() if p.grad is not None}
    assert mine.keys() == theirs.keys(), "gradients of the same tensors"
    worst = max(float((mine[n] - g).abs().max() / g.abs().max()) for n, g in theirs.items())
    return {"loss": abs(a - b) / b, "gradients": worst}


def peak_bytes(kind: str) -> int:
    """Of a process of its own; see the module."""
    words = [sys.executable, __file__, "--peak", kind]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def _peak(kind: str) -> int:
    import torch

    inputs = given()
    torch.zeros(1)
    before = _status("VmRSS")
    network = network_of(kind)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # making it may take more
    for _ in range(2):
        passed(network, inputs)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def measure(*, threads: int = 1, turns: int = 5) -> dict[str, Any]:
    """What one process finds; `threads` must be set before NumPy is loaded, as `main` does."""
    import torch

    torch.set_num_threads(threads)
    inputs = given()
    ours, plain = network_of("ours"), network_of("plain")
    differ = difference(ours, plain, inputs)
    gemms = products({(side, side, side) for side in SQUARES} | set(MAIN))
    calls: dict[str, Any] = {name: call for name, (_, call) in gemms.items()}
    calls |= {"ours": lambda: passed(ours, inputs), "plain": lambda: passed(plain, inputs)}
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds = in_turns(calls, turns, clock)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {name: gflop / median[name] for name, (gflop, _) in gemms.items()}
    best = max(rates, key=lambda name: rates[name])
    ratio = statistics.median(p / o for p, o in zip(seconds["plain"], seconds["ours"], strict=True))
    rate = BATCH * SAMPLE_GFLOP / median["ours"]
    peaks = {kind: peak_bytes(kind) for kind in ("ours", "plain")}
    memory = peaks["ours"] / peaks["plain"]
    same = max(differ.values()) <= CLOSE
    return {
        "threads": threads, "batch": BATCH, "turns": turns, "clock": "cpu" if threads == 1 else "wall",
        "gflop": round(BATCH * SAMPLE_GFLOP, 1), "seconds": round(median["ours"], 3),
        "plain_seconds": round(median["plain"], 3), "gflop_per_s": round(rate, 1),
        "peak_gflop_per_s": round(rates[best], 1), "peak_of": best,
        "of_peak": round(rate / rates[best], 3), "plain_of_peak": round(
            BATCH * SAMPLE_GFLOP / median["plain"] / rates[best], 3),
        "plain_over_ours": round(ratio, 3),
        "peak_bytes": peaks, "memory": round(memory, 3), "difference_to_plain": differ,
        "holds": rate / rates[best] >= TARGET and ratio >= FASTER and memory <= SMALLER and same,
        "target": TARGET, "aim": AIM,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5, help="how often everything runs (5)")
    parser.add_argument("--peak", choices=["ours", "plain"], help="print the memory of one alone")
    asked = parser.parse_args()
    if asked.peak:
        print(_peak(asked.peak))
        return 0
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(asked.threads)
    from bench import circumstances

    document = circumstances() | {
        "command": " ".join(["python", "tests/benchmarks/bench_network.py", *sys.argv[1:]]),
        **measure(threads=asked.threads, turns=asked.turns),
        "load_after": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(document, indent=1))
    return 0 if document["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
