#!/usr/bin/env python
"""Everything that is promised of the speed of training on a CPU, measured one part after another.

    python tests/benchmarks/bench_training.py WORK [--only PART]… [--table]

As bench_features.py: each part is a script of its own, run in a fresh process; what it prints becomes
`results/training_<part>.json` with machine, commit and command, and a line for each promise in
training/README.md. WORK holds the shards that are read (1 GB). Of a GPU, bench_gpu_training.py tells.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_features import Part, Row, run
from bench_network import AIM, CLOSE, FASTER, SMALLER, TARGET


def of_network(found: dict[str, Any]) -> list[Row]:
    """Promises of a forward and backward pass of S-16k, batch 4."""
    title = f"S-16k, batch {found['batch']}, fp32, {found['threads']} threads"
    title = title.replace(" 1 threads", " 1 thread")
    share, ratio, memory = found["of_peak"], found["plain_over_ours"], found["memory"]
    differ = max(found["difference_to_plain"].values())
    return [
        (f"{title}: share of the best matrix product (aim {AIM:g})", share, f"≥ {TARGET:g}",
         share >= TARGET),
        (f"{title}: plain network / ours, seconds", ratio, f"≥ {FASTER:g}", ratio >= FASTER),
        (f"{title}: ours / plain network, memory", memory, f"≤ {SMALLER:g}", memory <= SMALLER),
        (f"{title}: loss and gradients, relative difference to the plain network", differ,
         f"≤ {CLOSE:g}", differ <= CLOSE),
    ]  # fmt: skip


def of_data(found: dict[str, Any]) -> list[Row]:
    """Promises of what feeds the network."""
    worst = max(found["sizes"], key=lambda size: size["waited"])
    cores = max(size["cores"] for size in found["sizes"])
    rate = f"{found['rate']:,.0f} samples/s"
    sizes = "batches of " + ", ".join(str(size["batch"]) for size in found["sizes"])
    return [
        (f"data at {rate}, {sizes}: share of the time that was waited, the most", worst["waited"],
         f"< {found['limit']:g}", worst["waited"] < found["limit"]),
        (f"data at {rate}: cores it takes, the most", cores, "", True),
    ]  # fmt: skip


def parts(work: Path) -> dict[str, Part]:
    """The words of each part, and what is promised of what it prints."""
    networks: dict[str, tuple[list[str], Callable[[dict[str, Any]], list[Row]]]] = {
        f"network_{threads}": (["bench_network.py", "--threads", threads], of_network)
        for threads in ("1", "2")
    }
    return networks | {"data": (["bench_training_data.py", str(work / "shards")], of_data)}


if __name__ == "__main__":
    sys.exit(run("training", (__doc__ or "").splitlines()[0], parts))
