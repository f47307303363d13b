"""Decoded clips as batches of encoders, cut by the order of rows inside a task.

Rows with picture and rows of sound alone are encoded, and written, apart: each kind is a lane. What was
carried over from a former run waits in its lane for its turn, and is not encoded again.

Pages of memory that were never used cost more than what is copied into them. So what was decoded goes
straight into buffers of a whole batch, which are used again when their batch is written.

Shape suffixes: B clips, T frames, C channels, H W, S samples.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from curation.verdict import Reason
from features.inputs.prepared import Part, Prepared, Request
from features.store.shard_file import Kind

Row = dict[str, Any]
_TYPES = {"float32": torch.float32, "uint8": torch.uint8}
_CARRIED_AT_ONCE = 64  # rows that need no encoder, before they are written


@dataclass(slots=True, kw_only=True)
class Entry:
    """A row that is to be: what the index says of it, and its tensors where they are carried over."""

    row: Row
    # gives bf16 of a former run, read when its turn comes; None: to be encoded
    tensors: Callable[[], Mapping[str, torch.Tensor]] | None = None


@dataclass(slots=True, kw_only=True)
class Buffer:
    """Room for the inputs of a batch."""

    wave_bs: torch.Tensor  # float32
    clip_btchw: torch.Tensor | None = None  # uint8
    sync_btchw: torch.Tensor | None = None  # uint8

    def put(self, place: int, part: Part) -> None:
        """Copy the inputs of a row."""
        for mine, theirs in (
            (self.wave_bs, part.wave_s),
            (self.clip_btchw, part.clip_tchw),
            (self.sync_btchw, part.sync_tchw),
        ):
            if mine is not None:
                assert theirs is not None, "a row has all inputs of its kind"
                mine[place].numpy()[:] = theirs


class Buffers:
    """Buffers that are free, and new ones where there are none; they outlive the tasks of a process."""

    def __init__(self, sizes: Mapping[Kind, int]) -> None:
        self._sizes = sizes
        self._free: dict[Kind, deque[Buffer]] = {"av": deque(), "audio": deque()}

    def take(self, kind: Kind, part: Part) -> Buffer:
        """One for rows like `part`."""
        with contextlib.suppress(IndexError):
            return self._free[kind].popleft()
        arrays = {"wave_bs": part.wave_s}
        if kind == "av":
            arrays |= {"clip_btchw": part.clip_tchw, "sync_btchw": part.sync_tchw}
        return Buffer(
            **{
                name: torch.empty((self._sizes[kind], *array.shape), dtype=_TYPES[array.dtype.name])
                for name, array in arrays.items()
                if array is not None
            }
        )

    def give_back(self, kind: Kind, buffer: Buffer) -> None:
        """Let a buffer be used again."""
        self._free[kind].append(buffer)


@dataclass(slots=True, kw_only=True)
class Batch:
    """Rows of one lane, in order; the first `num_new` places of the buffer are theirs."""

    kind: Kind
    entries: list[Entry]
    num_new: int  # entries that are to be encoded
    buffer: Buffer | None  # None: there are none
    clips: int  # with a file, that came in since the batch before


@dataclass(slots=True)
class _Lane:
    """Rows of one kind that wait for their batch."""

    entries: list[Entry] = field(default_factory=list)
    num_new: int = 0
    buffer: Buffer | None = None


@dataclass(slots=True)
class Cutter:
    """Cuts what was decoded into batches; notes what was rejected, and what each file was."""

    sizes: Mapping[Kind, int]
    buffers: Buffers
    row_of: Callable[[Request, Prepared, Part], Row]  # what the index says of a part
    reject_of: Callable[[Request, int | None, Reason, str | None], Row]
    rejects: list[Row] = field(default_factory=list)
    content: dict[int, str | None] = field(default_factory=dict)  # digest of the file, by request
    _lanes: dict[Kind, _Lane] = field(default_factory=lambda: {"av": _Lane(), "audio": _Lane()})
    _clips: int = 0

    def batches(self, decoded: Iterable[tuple[Request, Prepared | list[Entry]]]) -> Iterator[Batch]:
        """All rows, each lane in the order of `decoded`; its last batches are smaller.

        Args:
            decoded: clips in the order of rows; a list of entries is a clip that is carried over.
        """
        for request, prepared in decoded:
            self._clips += bool(request.path)
            if isinstance(prepared, list):
                rows: list[tuple[Entry, Part | None]] = [(entry, None) for entry in prepared]
            else:
                self.content[request.number] = prepared.content_digest
                rows = list(self._rows(request, prepared))
            for entry, part in rows:
                kind: Kind = "av" if entry.row["has_video"] else "audio"
                self._take(kind, entry, part)
                if self._is_full(kind):
                    yield self._cut(kind)
        for kind in self._lanes:
            if self._lanes[kind].entries:
                yield self._cut(kind)

    def clips_left(self) -> int:
        """Clips with a file that came in after the last batch was cut, all of them rejected."""
        clips, self._clips = self._clips, 0
        return clips

    def _rows(self, request: Request, prepared: Prepared) -> Iterator[tuple[Entry, Part]]:
        if prepared.reason is not None:
            self.rejects.append(self.reject_of(request, None, prepared.reason, prepared.detail))
        for part in prepared.parts:
            if part.reason is not None:
                self.rejects.append(self.reject_of(request, part.part, part.reason, part.detail))
            else:
                yield Entry(row=self.row_of(request, prepared, part)), part

    def _take(self, kind: Kind, entry: Entry, part: Part | None) -> None:
        lane = self._lanes[kind]
        lane.entries.append(entry)
        if part is not None:
            lane.buffer = lane.buffer or self.buffers.take(kind, part)
            lane.buffer.put(lane.num_new, part)
            lane.num_new += 1

    def _is_full(self, kind: Kind) -> bool:
        lane = self._lanes[kind]
        carried_alone = not lane.num_new and len(lane.entries) >= _CARRIED_AT_ONCE
        return lane.num_new >= self.sizes[kind] or carried_alone

    def _cut(self, kind: Kind) -> Batch:
        lane, self._lanes[kind] = self._lanes[kind], _Lane()
        return Batch(
            kind=kind,
            entries=lane.entries,
            num_new=lane.num_new,
            buffer=lane.buffer,
            clips=self.clips_left(),
        )
