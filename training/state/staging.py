"""Memory that pieces are copied to, laid out as their file will be, so that training can go on.

It is used again by each save. Copies from a GPU are queued behind the work that was launched before
them, and what is launched after them waits for them, on the GPU; the host waits for nothing. Who reads
the memory waits for their arrival.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from training.state.pieces import Piece
from training.state.rank_file import Entry, encode_header, laid_out

# Pinned memory comes in powers of two: one block for all would take up to twice as much.
_BLOCK_BYTES = 256 << 20


class Staged:
    """Copies that are there, or on their way."""

    def __init__(self, entries: list[Entry], blocks: list[Tensor], device: torch.device | None) -> None:
        """Of copies that were queued on a GPU, `device`, or are there."""
        self.entries = entries
        self._blocks, self._device = blocks, device
        self._arrived = None
        if device is not None:
            self._arrived = torch.cuda.Event(blocking=True)
            self._arrived.record(torch.cuda.current_stream(device))

    def contents(self) -> list[memoryview]:
        """The bytes of the file, in parts; waits until the copies have arrived."""
        if self._device is not None and self._arrived is not None:
            # a thread begins on the first GPU, where waiting would make a context of its own
            torch.cuda.set_device(self._device)
            self._arrived.synchronize()
        header = memoryview(encode_header(self.entries))
        return [header, *(block.numpy().data for block in self._blocks)]


class Staging:
    """Blocks of memory, pinned where a GPU copies to them."""

    def __init__(self, *, block_bytes: int = _BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes
        self._blocks: list[Tensor] = []

    def take(self, pieces: Iterable[Piece]) -> Staged:
        """Copy pieces; what was staged before must have been written."""
        laid = laid_out(pieces)
        entries = [entry for entry, _ in laid]
        device = next((p.tensor.device for _, p in laid if p.tensor.is_cuda), None)
        total = sum(entry.num_bytes for entry in entries)
        self._provide(total, pinned=device is not None)
        for entry, piece in laid:
            self._copy(piece.tensor, entry.begin_bytes)
        return Staged(entries, self._used(total), device)

    def _provide(self, total: int, *, pinned: bool) -> None:
        """Have so many bytes; those of a former save stay where they are enough."""
        there = sum(map(len, self._blocks))
        if there >= total and (not pinned or all(block.is_pinned() for block in self._blocks)):
            return
        self._blocks = []  # freed before others are taken
        sizes = [self._block_bytes] * (total // self._block_bytes)
        sizes += [rest] if (rest := total % self._block_bytes) else []
        self._blocks = [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for size in sizes]

    def _copy(self, tensor: Tensor, begin: int) -> None:
        values = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        while len(values):
            number, place = divmod(begin, self._block_bytes)
            room = self._blocks[number][place : place + len(values)]
            room.copy_(values[: len(room)], non_blocking=True)
            values, begin = values[len(room) :], begin + len(room)

    def _used(self, total: int) -> list[Tensor]:
        used = []
        for block in self._blocks:
            if total > 0:
                used.append(block[:total])
            total -= len(block)
        return used
