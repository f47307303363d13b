"""Rows of tensors out of the files of a checkpoint, read straight into memory by several threads.

Any rows of any tensor, from any number of files. (Maps of files are slow on network disks, and end the
process where a file is shorter than it was.)
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor

from curation.errors import ManifestChanged
from curation.files import disk_space
from training.state.pieces import Piece, Shape, rows_of
from training.state.rank_file import Entry

THREADS = 4
_AT_ONCE_BYTES = 1 << 30  # what the system reads at a time is below 2 GiB
_AHEAD_BYTES = 1 << 30  # that are being read, or wait to be moved


class Part(NamedTuple):
    """Where rows of a tensor lie."""

    path: Path
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A tensor of a checkpoint, whole, and the parts that it is stored in."""

    dtype: torch.dtype
    shape: Shape
    parts: tuple[Part, ...]

    @property
    def row_bytes(self) -> int:
        """Of one row; 0 where there are none."""
        rows = rows_of(self.shape)
        return sum(part.entry.num_bytes for part in self.parts) // rows if rows else 0


class Job(NamedTuple):
    """Bytes of a file and the memory they are for."""

    path: Path
    begin_bytes: int
    memory: memoryview


class Reading:
    """Tensors that are being filled, by threads; all are when the block ends."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._threads = ThreadPoolExecutor(THREADS)
        self._handles: dict[Path, int] = {}
        self._pending: deque[tuple[list[Future[None]], Tensor, Tensor]] = deque()
        self._ahead_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._stack, self._threads:
            while self._pending:
                self._settle()

    def fill(self, piece: Piece, kept: Kept) -> None:
        """Have the rows of a piece read, into memory of its own where they are to go elsewhere."""
        target = piece.tensor.detach()
        direct = not target.is_cuda and target.is_contiguous()
        values = target if direct else torch.empty(target.shape, dtype=target.dtype)
        jobs = [
            self._threads.submit(_fill, self._opened(job.path), job)
            for job in _jobs(values, piece.offset, kept)
        ]
        self._pending.append((jobs, target, values))
        self._ahead_bytes += values.nbytes
        while self._ahead_bytes > _AHEAD_BYTES:
            self._settle()

    def _settle(self) -> None:
        """Wait for the oldest piece, and move its values to where they go."""
        jobs, target, values = self._pending.popleft()
        self._ahead_bytes -= values.nbytes
        for job in jobs:
            job.result()
        if values is not target:
            target.copy_(values)

    def _opened(self, path: Path) -> int:
        if path not in self._handles:
            with existing(path):
                handle = os.open(path, os.O_RDONLY)
            self._stack.callback(os.close, handle)
            self._handles[path] = handle
        return self._handles[path]


def _jobs(values: Tensor, offset: int, kept: Kept) -> Iterator[Job]:
    """What is to be read where, so that `values` are the rows of a tensor from `offset` on."""
    if not values.numel():
        return
    memory = values.reshape(-1).view(torch.uint8).numpy().data
    end = offset + rows_of(tuple(values.shape))
    for path, entry in kept.parts:
        first = max(offset, entry.offset)
        last = min(end, entry.offset + rows_of(entry.shape))
        if first < last:
            begin = entry.begin_bytes + (first - entry.offset) * kept.row_bytes
            place, size = (first - offset) * kept.row_bytes, (last - first) * kept.row_bytes
            yield Job(path, begin, memory[place : place + size])


def _fill(handle: int, job: Job) -> None:
    done = 0
    while done < len(job.memory):
        part = job.memory[done : done + _AT_ONCE_BYTES]
        count = os.preadv(handle, [part], job.begin_bytes + done)
        if not count:
            raise wrong(job.path, f"ends before byte {job.begin_bytes + len(job.memory):,}")
        done += count


@contextlib.contextmanager
def existing(path: Path) -> Iterator[None]:
    """A file that is missing is a damaged checkpoint; one that may not be read is not."""
    try:
        yield
    except PermissionError:
        with disk_space(path):
            raise
    except OSError as error:
        raise wrong(path, f"cannot be read ({error.strerror})") from error


def wrong(path: Path, what: str) -> ManifestChanged:
    return ManifestChanged(
        f"{path}: {what}; expected the file as a run wrote it — copy it anew, or remove the folder "
        f"{path.parent} to go on from the checkpoint before it"
    )
