"""The fingerprints of many clips as flat arrays: what candidates are looked for in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from curation.media.video_hash import BASE_VIEWS, FLAT, Boxes

if TYPE_CHECKING:
    import pyarrow as pa


# of clips.parquet, what is read for it
COLUMNS = (
    "dataset", "clip_id", "status", "box", "hash_ms", "hash_view", "hash", "flatness",
    "audio_ms", "audio_item",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Prints:
    """n clips, with what their pictures and sound are looked up by.

    Frames too flat to say anything are left out. Clips are numbered in the order of `keys`.
    """

    keys: list[tuple[str, str]]  # dataset and clip_id of each clip
    boxes: np.ndarray  # float64 (n, 8), picture and moving part; NaN where there is no picture
    frame_clip: np.ndarray  # int32, number of the clip
    frame_ms: np.ndarray  # int32
    frame_view: np.ndarray  # uint8
    frame_hash: np.ndarray  # uint64
    item_clip: np.ndarray  # int32
    item_ms: np.ndarray  # int32
    item: np.ndarray  # uint32

    @classmethod
    def of(cls, table: "pa.Table") -> Self:
        """The prints of the scanned clips of a table with COLUMNS; without sound where it lacks that."""
        import pyarrow.compute as pc

        table = table.filter(pc.equal(table["status"], "scanned"))
        frame_clip, flatness = _flat(table, "flatness")
        seen = flatness >= FLAT
        has_sound = "audio_item" in table.column_names
        nothing = (np.zeros(0, np.int32), np.zeros(0, np.uint32))
        item_clip, item = _flat(table, "audio_item") if has_sound else nothing
        boxes = np.full((len(table), 8), np.nan)
        box_clip, edges = _flat(table, "box")
        boxes[np.unique(box_clip)] = edges.reshape(-1, 8)
        return cls(
            keys=list(zip(table["dataset"].to_pylist(), table["clip_id"].to_pylist(), strict=True)),
            boxes=boxes,
            frame_clip=frame_clip[seen],
            frame_ms=_flat(table, "hash_ms")[1][seen],
            frame_view=_flat(table, "hash_view")[1][seen],
            frame_hash=_flat(table, "hash")[1][seen],
            item_clip=item_clip,
            item_ms=_flat(table, "audio_ms")[1] if has_sound else np.zeros(0, np.int32),
            item=item,
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The clips of all of them, in order."""
        firsts = np.cumsum([0, *(len(part.keys) for part in parts)]).tolist()

        def column(name: str, dtype: type) -> np.ndarray:
            return np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)])

        def numbers(name: str) -> np.ndarray:
            moved = (getattr(part, name) + np.int32(n) for part, n in zip(parts, firsts, strict=False))
            return np.concatenate([np.zeros(0, np.int32), *moved])

        return cls(
            keys=[key for part in parts for key in part.keys],
            boxes=np.concatenate([np.zeros((0, 8)), *(part.boxes for part in parts)]),
            frame_clip=numbers("frame_clip"),
            frame_ms=column("frame_ms", np.int32),
            frame_view=column("frame_view", np.uint8),
            frame_hash=column("frame_hash", np.uint64),
            item_clip=numbers("item_clip"),
            item_ms=column("item_ms", np.int32),
            item=column("item", np.uint32),
        )

    def base(self) -> Self:
        """The same with the frames of the base views alone."""
        chosen = self.frames(BASE_VIEWS)
        frames = ("frame_clip", "frame_ms", "frame_view", "frame_hash")
        return replace(self, **{name: getattr(self, name)[chosen] for name in frames})

    def without_sound(self) -> Self:
        """The same without items."""
        nothing = np.zeros(0, np.int32)
        return replace(self, item_clip=nothing, item_ms=nothing, item=np.zeros(0, np.uint32))

    def boxes_of(self, clip: int) -> Boxes:
        """The parts of the picture of a clip."""
        edges = [float(edge) for edge in self.boxes[clip]]
        return Boxes((edges[0], edges[1], edges[2], edges[3]), (edges[4], edges[5], edges[6], edges[7]))

    def frames(
        self, views: Sequence[int] | None = None, *, without: np.ndarray | None = None
    ) -> np.ndarray:
        """Positions of the frames in these views (None: in all) whose hashes are none of `without`."""
        chosen = np.ones(len(self.frame_hash), bool)
        if views is not None:
            chosen &= np.isin(self.frame_view, views)
        if without is not None and len(without):
            chosen &= ~np.isin(self.frame_hash, without)
        return np.flatnonzero(chosen)


def _flat(table: "pa.Table", name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists as one array, and the number of the clip of each element."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    clips = np.repeat(np.arange(len(table), dtype=np.int32), lengths.astype(np.int64))
    return clips, column.flatten().to_numpy(zero_copy_only=False)
