"""Short runs of the tiny network on small shards, in this process and in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from small_training import small_config, training_folder
from torch import Tensor

from training.config import TrainConfig
from training.run.asked import Asked
from training.run.loop import train
from training.state.folders import latest, steps_of

ROOT = Path(__file__).resolve().parent.parent.parent


def shards_in(folder: Path, **options: Any) -> Path:
    """Sealed shards of a second a row."""
    training_folder(folder / "shards", **options)
    return folder / "shards"


def short_config(**changes: Any) -> TrainConfig:
    """Thirty steps of two samples; nothing is told or saved on the way."""
    settings = {
        "steps": 30, "batch": 2, "warmup_steps": 3, "milestones": (10, 20), "log_every": 1000,
        "checkpoint_every": 1000, "ema_profile_every": 0,
    }  # fmt: skip
    return small_config(**{**settings, **changes})


def run_of(shards: Path, run: Path, config: TrainConfig, **options: Any) -> dict[str, Any]:
    """Train in this process, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(config, Asked(shards=shards, run=run, **{"device": "cpu", **options}))
    finally:
        torch.set_num_threads(threads)


def state_of(run: Path) -> dict[str, Tensor]:
    """Everything that the newest checkpoint of a run holds."""
    stored = latest(run)
    assert stored is not None, f"{run}: {steps_of(run)}"
    return stored.read(dict.fromkeys(stored.tensors))


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether two states are equal, bit for bit."""
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def lines_of(run: Path, kind: str = "training") -> list[dict[str, Any]]:
    """What the log has of a kind."""
    lines = (run / "stats.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def launched(
    shards: Path,
    run: Path,
    *settings: str,
    ranks: int = 1,
    torchrun: tuple[str, ...] = (),
    program: tuple[str, ...] = ("-m", "training.launch"),
) -> "subprocess.Popen[str]":
    """`python -m training.launch --model tiny-16k` in a process of its own, or torchrun with some."""
    folders = ["--shards", str(shards), "--run-folder", str(run)]
    words = [*program, "--model", "tiny-16k", *folders, "--device", "cpu"]
    for setting in settings:
        words += ["--set", setting]
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *torchrun]
    command = [sys.executable, *(many if ranks > 1 else []), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
