"""How near Synchformer comes to the rate of matrix products, measured: a part of bench.py.

    python tests/benchmarks/bench_synchformer.py --threads 1

The visual encoder at full size, random weights, float32 on a CPU, against products of matrices (sgemm
of PyTorch, of NumPy, and the fused one of oneDNN that we call; the best counts) of 1024 to 4096
squared and of the shapes of the network's own layers, and against the plain network of tests/features,
module by module. All take turns; rates are medians. With one thread, seconds are of the CPU, which bear
a busy machine better; with more they are of the clock; ratios are medians of those within a turn. Work
is counted from the linear layers of the specification, and only for the tokens that we compute:
attention, norms and activations cost time and count for nothing, nor does what we leave out.

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

from bench_vae import in_turns, products

if TYPE_CHECKING:
    from torch import Tensor

HERE = Path(__file__).resolve().parent
GIGA = 1e9
SQUARES = (1024, 2048, 4096)
TARGET, AIM = 0.70, 0.85
CLOSE = 0.999
WIDTH, TOKENS, PATCHES, TIMES, DEPTH = 768, 1569, 1568, 8, 12
# Rows, inputs, outputs and how often, for one segment.
LAYERS = [
    (PATCHES, 3 * 2 * 16 * 16, WIDTH, 1),  # patches
    (TOKENS, WIDTH, 3 * WIDTH, 2 * DEPTH),  # queries, keys, values of time and of space
    (TOKENS, WIDTH, WIDTH, 2 * DEPTH),
    (TOKENS, WIDTH, 4 * WIDTH, DEPTH),  # perceptron
    (TOKENS, 4 * WIDTH, WIDTH, DEPTH),
    (PATCHES + TIMES, WIDTH, 2 * WIDTH, 1),  # aggregation: keys and values of all, the rest of classes
    (TIMES, WIDTH, WIDTH, 1),
    (TIMES, WIDTH, 4 * WIDTH, 1),
    (TIMES, 4 * WIDTH, WIDTH, 1),
]


def fused_products(shapes: set[tuple[int, int, int]]) -> dict[str, tuple[float, Callable[[], Any]]]:
    """GFLOP and the call of a product of each shape as the encoder makes it, with its bias."""
    import torch

    from features.encoders.linear import linear

    made: dict[str, tuple[float, Callable[[], Any]]] = {}
    for rows, inner, columns in sorted(shapes):
        left, right, bias = torch.randn(rows, inner), torch.randn(columns, inner), torch.randn(columns)
        work = 2 * rows * inner * columns / GIGA
        made[f"fused {rows}x{inner}x{columns}"] = work, lambda x=left, y=right, b=bias: linear(x, y, b)
    return made


def random_state(shapes: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Normal weights that keep the magnitude of what they multiply."""
    import torch

    rng = torch.Generator().manual_seed(0)
    made = {}
    for name, tensor in shapes.items():
        fan_in = tensor.shape[1:].numel() if tensor.ndim > 1 and "token" not in name else 100
        values = torch.randn(tensor.shape, generator=rng) / fan_in**0.5
        made[name] = values + float("norm" in name and name.endswith("weight"))
    return made


def measure(*, threads: int = 1, segments: int = 1, turns: int = 5) -> dict[str, Any]:
    """What one process finds; `threads` must be set before NumPy is loaded, as `main` does."""
    sys.path.insert(0, str(HERE.parent / "features"))
    import torch
    from plain_synchformer import PlainSynchformer

    from features.encoders.synchformer import Synchformer, SynchformerConfig, load_synchformer

    torch.set_num_threads(threads)
    with torch.device("meta"):
        state = Synchformer(SynchformerConfig()).state_dict()
        plain = PlainSynchformer()
    state = random_state(state)
    plain.load_state_dict(state, assign=True)
    plain.eval().requires_grad_(False)
    network = load_synchformer(state)
    work = segments * sum(2 * rows * inner * columns * n for rows, inner, columns, n in LAYERS) / GIGA
    squares = {(side, side, side) for side in SQUARES}
    shapes = squares | {layer[:3] for layer in LAYERS if layer[0] > TIMES}
    gemms = products(shapes) | fused_products(shapes)
    given = torch.randn(1, segments, 16, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    calls = {name: call for name, (_, call) in gemms.items()}
    calls |= {"synchformer": lambda: network(given), "plain": lambda: plain(given)}
    with torch.inference_mode():
        expected = network(given)
        difference = (expected - plain(given)).abs().max() / expected.abs().max()
        clock = time.process_time if threads == 1 else time.perf_counter
        seconds = in_turns(calls, turns, clock)
        half = network.to(torch.bfloat16)
        half_s = statistics.median(in_turns({"half": lambda: half(given)}, turns, clock)["half"])
        cosine = float(torch.cosine_similarity(half(given).float(), expected, dim=-1).min())
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {name: gflop / median[name] for name, (gflop, _) in gemms.items()}
    best = max(rates, key=lambda name: rates[name])
    plain_over_ours = statistics.median(
        p / o for p, o in zip(seconds["plain"], seconds["synchformer"], strict=True)
    )
    rate = work / median["synchformer"]
    return {
        "threads": threads, "segments": segments, "turns": turns,
        "clock": "cpu" if threads == 1 else "wall",
        "gflop": round(work, 2), "seconds": round(median["synchformer"], 4),
        "plain_seconds": round(median["plain"], 4), "bf16_seconds": round(half_s, 4),
        "gflop_per_s": round(rate, 1),
        "peak_gflop_per_s": round(rates[best], 1), "peak_of": best,
        "peaks_gflop_per_s": {
            kind: round(max(rates[name] for name in rates if name.startswith(kind)), 1)
            for kind in ("torch", "numpy", "fused")
        },
        "of_peak": round(rate / rates[best], 3),
        "plain_over_ours": round(plain_over_ours, 3),
        "largest_difference_to_plain": float(difference),
        "bf16_cosine": {"features": cosine},
        "holds": rate / rates[best] >= TARGET and plain_over_ours >= 1 and cosine >= CLOSE,
        "target": TARGET, "aim": AIM,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--segments", type=int, default=1, help="of sixteen frames, together (1)")
    parser.add_argument("--turns", type=int, default=5, help="how often everything runs (5)")
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(given.threads)
    from bench import circumstances

    document = circumstances() | {
        "command": " ".join(["python", "tests/benchmarks/bench_synchformer.py", *sys.argv[1:]]),
        **measure(threads=given.threads, segments=given.segments, turns=given.turns),
        "load_after": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(document, indent=1))
    return 0 if document["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
