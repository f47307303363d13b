"""Small states, and ranks that are threads."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.config import PRESETS
from training.state.about import About
from training.state.pieces import Piece
from training.state.pieces import whole as whole_piece
from training.state.stored import Checkpoints

ABOUT = About(
    config=PRESETS["tiny-16k"].document(),
    shards={"shards": "sha256:abc"},
    certificate={"digest": "sha256:def", "name": "clean"},
    datasets={"vggsound": 12, "audiocaps": 3},
)


class Meeting:
    """Ranks that are threads of this process; what each gives, all get."""

    def __init__(self, ranks: int) -> None:
        self._barrier = threading.Barrier(ranks, timeout=20)
        self._given: list[Any] = [None] * ranks

    def of(self, rank: int) -> Callable[[Any], list[Any]]:
        def gather(value: Any) -> list[Any]:
            self._given[rank] = value
            self._barrier.wait()
            everyone = list(self._given)
            self._barrier.wait()
            return everyone

        return gather


def on_ranks(ranks: int, job: Callable[[int, Callable[[Any], list[Any]]], Any]) -> list[Any]:
    """What the job gave on each rank, or raised."""
    meeting, found = Meeting(ranks), [None] * ranks

    def run(rank: int) -> None:
        try:
            found[rank] = job(rank, meeting.of(rank))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def state(step: int, *, values: int = 50) -> dict[str, Tensor]:
    """All of a small run at a step; another one at each."""
    generator = torch.Generator().manual_seed(step)
    return {
        "weights/a": torch.randn(7, values, generator=generator),
        "weights/b": torch.randn(5, generator=generator),
        "exp_avg/a": torch.randn(7, values, generator=generator),
        "ema/0.05/a": torch.randn(7, values, generator=generator).to(torch.bfloat16),
        "updates": torch.tensor(2**62 + step),
    }


def whole(tensors: Mapping[str, Tensor]) -> list[Piece]:
    return [whole_piece(name, tensor) for name, tensor in tensors.items()]


def saved(run: Path, *steps: int, keep: int = 9, keep_every: int = 0, about: About = ABOUT) -> Path:
    """A run with checkpoints of these steps."""
    with Checkpoints(run, about=about, keep=keep, keep_every=keep_every) as checkpoints:
        for step in steps:
            checkpoints.save(step, whole(state(step)))
    return run


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Names, types, shapes and bits."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name
