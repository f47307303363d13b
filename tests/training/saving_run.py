"""A run that does nothing but save: `saving_run.py RUN RANKS STEPS`; says each step that is complete.

It goes on from the newest checkpoint that loads, which must be the state of its step.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from some_checkpoints import ABOUT, on_ranks, same, state
from torch import Tensor

from training.state.folders import held, latest
from training.state.pieces import Piece
from training.state.stored import Checkpoints

VALUES = 40_000  # of a row: 3.4 MB in all


def pieces_of(tensors: dict[str, Tensor], rank: int, ranks: int) -> list[Piece]:
    """A rank's rows of each tensor; scalars are the first one's."""
    pieces = []
    for name, tensor in tensors.items():
        if not tensor.shape and rank:
            continue
        rows = -(-len(tensor) // ranks) if tensor.shape else 1
        part = tensor[rank * rows : (rank + 1) * rows] if tensor.shape else tensor
        shape = tuple(tensor.shape)
        first = min(rank * rows, len(tensor)) if tensor.shape else 0
        pieces.append(Piece(name=name, tensor=part, shape=shape, offset=first))
    return pieces


def main(run: Path, ranks: int, steps: int) -> None:
    torch.set_num_threads(1)
    with held(run):
        stored = latest(run)
        begun = 0 if stored is None else stored.step
        if stored is not None:
            same(stored.read(dict.fromkeys(stored.tensors)), state(begun, values=VALUES))

        def save(rank: int, gather: Callable[[Any], list[Any]]) -> None:
            with Checkpoints(run, about=ABOUT, keep=2, rank=rank, gather=gather) as checkpoints:
                for step in range(begun + 1, begun + steps + 1):
                    checkpoints.save(step, pieces_of(state(step, values=VALUES), rank, ranks))
                    checkpoints.wait()
                    if rank == 0:
                        print(step, flush=True)

        print(f"from {begun}", flush=True)
        failed = [error for error in on_ranks(ranks, save) if error is not None]
        if failed:
            raise failed[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
