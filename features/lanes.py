"""Decoded clips as batches of encoders, cut by the order of rows inside a task.

Rows with picture and rows of sound alone are encoded, and written, apart: each kind is a lane. What was
carried over from a former run waits in its lane for its turn, and is not encoded again.

Shape suffixes: B clips, T frames, C channels, H W, S samples.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from curation.verdict import Reason
from features.prepared import Part, Prepared, Request
from features.shard_file import Kind

Row = dict[str, Any]
_CARRIED_AT_ONCE = 64  # rows that need no encoder, before they are written


@dataclass(slots=True, kw_only=True)
class Entry:
    """A row that is to be: what the index says of it, and either a part to encode or its tensors."""

    row: Row
    part: Part | None = None
    tensors: Mapping[str, torch.Tensor] | None = None  # bf16, of a former run


@dataclass(slots=True, kw_only=True)
class Batch:
    """Rows of one lane, in order."""

    kind: Kind
    entries: list[Entry]
    wave_bs: torch.Tensor  # float32; of the entries with a part, as the following
    clip_btchw: torch.Tensor | None  # uint8
    sync_btchw: torch.Tensor | None  # uint8
    clips: int  # with a file, that came in since the batch before


@dataclass(slots=True)
class Cutter:
    """Cuts what was decoded into batches; notes what was rejected, and what each file was."""

    sizes: Mapping[Kind, int]
    row_of: Callable[[Request, Prepared, Part], Row]  # what the index says of a part
    reject_of: Callable[[Request, int | None, Reason, str | None], Row]
    rejects: list[Row] = field(default_factory=list)
    content: dict[int, str | None] = field(default_factory=dict)  # digest of the file, by request
    _lanes: dict[Kind, list[Entry]] = field(default_factory=lambda: {"av": [], "audio": []})
    _clips: int = 0

    def batches(self, decoded: Iterable[tuple[Request, Prepared | list[Entry]]]) -> Iterator[Batch]:
        """All rows, each lane in the order of `decoded`; its last batches are smaller.

        Args:
            decoded: clips in the order of rows; a list of entries is a clip that is carried over.
        """
        for request, prepared in decoded:
            self._clips += bool(request.path)
            if isinstance(prepared, list):
                entries = prepared
            else:
                self.content[request.number] = prepared.content_digest
                entries = self._entries(request, prepared)
            for entry in entries:
                kind: Kind = "av" if entry.row["has_video"] else "audio"
                self._lanes[kind].append(entry)
                if self._is_full(kind):
                    yield self._cut(kind)
        for kind in self._lanes:
            if self._lanes[kind]:
                yield self._cut(kind)

    def _entries(self, request: Request, prepared: Prepared) -> list[Entry]:
        if prepared.reason is not None:
            self.rejects.append(self.reject_of(request, None, prepared.reason, prepared.detail))
            return []
        entries = []
        for part in prepared.parts:
            if part.reason is not None:
                self.rejects.append(self.reject_of(request, part.part, part.reason, part.detail))
            else:
                entries.append(Entry(row=self.row_of(request, prepared, part), part=part))
        return entries

    def _is_full(self, kind: Kind) -> bool:
        lane = self._lanes[kind]
        new = sum(entry.tensors is None for entry in lane)
        return new >= self.sizes[kind] or (not new and len(lane) >= _CARRIED_AT_ONCE)

    def _cut(self, kind: Kind) -> Batch:
        entries, self._lanes[kind] = self._lanes[kind], []
        clips, self._clips = self._clips, 0
        parts = [entry.part for entry in entries if entry.part is not None]
        batch = Batch(
            kind=kind,
            entries=entries,
            wave_bs=_stacked([part.wave_s for part in parts]),
            clip_btchw=_stacked([part.clip_tchw for part in parts]) if kind == "av" else None,
            sync_btchw=_stacked([part.sync_tchw for part in parts]) if kind == "av" else None,
            clips=clips,
        )
        for entry in entries:
            entry.part = None  # was copied
        return batch

    def clips_left(self) -> int:
        """Clips with a file that came in after the last batch was cut, all of them rejected."""
        clips, self._clips = self._clips, 0
        return clips


def _stacked(arrays: "list[np.ndarray | None]") -> torch.Tensor:
    there = [array for array in arrays if array is not None]
    assert len(there) == len(arrays), "a row with picture has all of it"
    return torch.from_numpy(np.stack(there)) if there else torch.empty(0)
