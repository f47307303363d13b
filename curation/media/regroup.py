"""Rows of parts that hold any clips, as parts of few digests each, for whoever needs them in that order.

    00000, 00001, … with rows in the order of ids ──▶ <place>/0, <place>/1, … by the digests of ids

Each file is read once. Of all rows those of one part are held, and a few of each part that is made.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curation.errors import BadManifest
from curation.files import canonical_json, remove
from curation.media.carried import Notes, end_part, note, read_notes
from curation.media.fingerprint import CLIPS, CONTENT, CONTENT_ROWS, part_of, read_part
from curation.tasks import read_record

if TYPE_CHECKING:
    import pyarrow as pa

_CLIP_ROWS = 64  # of a row group of clips.parquet


def num_clips(part: Path) -> int:
    """How many clips a part has; none where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(part / CLIPS).num_rows)
    except (pa.ArrowException, OSError):
        return 0


def regroup(parts: Sequence[Path], place: Path, count: int) -> Iterator[list[Path]]:
    """New parts below `place` with the rows of these, those of each of `count` groups of digests.

    A group has a part for each kind of limits that its rows were made under. A part that is damaged, or
    gone meanwhile, is left out: its clips are decoded again.
    """
    remove(place)
    made: dict[tuple[int, str], _Grown] = {}
    for part in parts:
        record = read_record(part)
        try:
            (_, clips), (_, content) = read_part(part / CLIPS), read_part(part / CONTENT)
            said = {name: record[name] for name in ("about", "limits")}
        except (BadManifest, KeyError, ValueError):
            continue
        noted = read_notes(part)
        in_clips, in_content = (_groups(rows, count) for rows in (clips, content))
        for group in map(int, np.unique(in_clips)):
            key = group, canonical_json(said)
            if key not in made:
                made[key] = _Grown(place / str(len(made)), said, clips.schema, content.schema)
            made[key].add(clips.filter(in_clips == group), content.filter(in_content == group), noted)
    for grown in made.values():
        grown.close()
    for group in sorted({group for group, _ in made}):
        yield [grown.folder for (of, _), grown in made.items() if of == group]


def _groups(rows: "pa.Table", count: int) -> np.ndarray:
    """The group of each row."""
    ids = rows["clip_id"].to_pylist()
    return np.array([part_of(clip_id, count) for clip_id in ids], np.int64)


class _Grown:
    """A part that rows are added to."""

    def __init__(
        self, folder: Path, said: dict[str, Any], clips: "pa.Schema", content: "pa.Schema"
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self._said = folder, said
        self._clips = _Rows(folder / CLIPS, clips, _CLIP_ROWS)
        self._content = _Rows(folder / CONTENT, content, CONTENT_ROWS)
        self._notes: Notes = {}

    def add(self, clips: "pa.Table", content: "pa.Table", noted: Notes) -> None:
        """Take some rows, and what was noted of their files."""
        self._clips.add(clips)
        self._content.add(content)
        for file in clips["file"].to_pylist():
            if file in noted:
                note(self._notes, file, noted[file][:2], noted[file][2])

    def close(self) -> None:
        """Let it be a part like any other."""
        self._clips.close()
        self._content.close()
        end_part(self.folder, self._said, self._notes)


class _Rows:
    """A Parquet file that rows are added to, in row groups of one size."""

    def __init__(self, path: Path, schema: "pa.Schema", group_rows: int) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(
            path, schema, compression="none", use_dictionary=False, write_statistics=False
        )
        self._held, self._group_rows = schema.empty_table(), group_rows

    def add(self, rows: "pa.Table") -> None:
        import pyarrow as pa

        rows = pa.concat_tables([self._held, rows])
        whole = rows.num_rows // self._group_rows * self._group_rows
        if whole:
            self._writer.write_table(rows.slice(0, whole), row_group_size=self._group_rows)
        self._held = rows.slice(whole)

    def close(self) -> None:
        if self._held.num_rows:
            self._writer.write_table(self._held)
        self._writer.close()
