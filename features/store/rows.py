"""What the tables of a task say of a part of a clip, and the sums of a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.tables import number
from features.inputs.prepared import VALUES, Part, Prepared
from features.store import index
from features.store.shard_file import Kind

Row = dict[str, Any]


def index_row(inputs: Mapping[str, Any], prepared: Prepared, part: Part) -> Row:
    """A row of `rows.parquet`, but for its place.

    Args:
        inputs: the row of the task, by the names of `plan.ROW`.
    """
    return {
        **{name: inputs[name] for name in ("dataset", "clip_id", "split", "captions")},
        "part": part.part,
        "start_sample": part.start_sample,
        "end_sample": part.end_sample,
        "source_rate_hz": part.source_rate_hz,
        "has_video": part.clip_tchw is not None,
        "caption_digest": index.caption_digest(inputs["captions"]),
        "key_digest": index.key_digest(
            inputs["dataset"], inputs["clip_id"], inputs["source"], inputs["source_id"]
        ),
        "content_digest": prepared.content_digest,
        "flags": sorted(str(flag) for flag in part.flags),
        **{name: part.values.get(name) for name in VALUES},
    }


def reject_row(inputs: Mapping[str, Any], part: int | None, reason: str, detail: str | None) -> Row:
    """A row of `rejects.parquet`; part None: the whole clip."""
    return {
        **{name: inputs[name] for name in ("dataset", "clip_id", "file")},
        "part": part,
        "reason": str(reason),
        "detail": detail,
    }


def write_tables(folder: Path, rows: Sequence[Row], rejects: Sequence[Row]) -> None:
    """Write the tables of a task, sorted by key; of one clip, the reject of the whole comes first."""
    for name, listed, schema in (
        (index.ROWS_FILE, rows, index.ROWS),
        (index.REJECTS_FILE, rejects, index.REJECTS),
    ):
        index.write_table(folder / name, index.table_of(sorted(listed, key=_key), schema))


def _key(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["dataset"], row["clip_id"], -1 if row["part"] is None else row["part"]


@dataclass(slots=True)
class Counts:
    """What became of clips and of their parts; kept + rejected are all clips."""

    clips: int = 0
    kept: int = 0  # with at least one row
    rejected: dict[str, int] = field(default_factory=dict)  # clips without a row, by reason
    rows: dict[Kind, int] = field(default_factory=dict)
    parts_rejected: dict[str, int] = field(default_factory=dict)  # of clips that have other rows
    flags: dict[str, int] = field(default_factory=dict)  # rows

    @classmethod
    def of(
        cls, clips: Sequence[Mapping[str, Any]], rows: Sequence[Row], rejects: Sequence[Row]
    ) -> "Counts":
        """The sums of a task."""
        counts = cls(clips=len(clips))
        kept = {(row["dataset"], row["clip_id"]) for row in rows}
        counts.kept = len(kept)
        gone = set()
        for reject in sorted(rejects, key=_key):
            clip = (reject["dataset"], reject["clip_id"])
            if clip in kept:
                _count(counts.parts_rejected, reject["reason"])
            elif clip not in gone:  # its first reason stands for it
                _count(counts.rejected, reject["reason"])
                gone.add(clip)
        for row in rows:
            kind: Kind = "av" if row["has_video"] else "audio"
            counts.rows[kind] = counts.rows.get(kind, 0) + 1
            for flag in row["flags"]:
                _count(counts.flags, flag)
        counts.check()
        return counts

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add those of a task, as its record has them."""
        self.clips += facts["clips"]
        self.kept += facts["kept"]
        for name in ("rejected", "rows", "parts_rejected", "flags"):
            mine = getattr(self, name)
            for key, n in sorted(facts[name].items()):
                mine[key] = mine.get(key, 0) + n

    def check(self) -> None:
        """Raise AssertionError unless clips = kept + rejected."""
        total = self.kept + sum(self.rejected.values())
        assert self.clips == total, f"{self.clips} clips came in, {total} are accounted for: {self}"

    def sentence(self) -> str:
        """The sum of clips, e.g. "43 clips = 41 with rows + 2 rejected (no_media 2)"."""
        line = f"{number(self.clips, 'clip')} = {self.kept:,} with rows"
        if self.rejected:
            listed = ", ".join(f"{reason} {n:,}" for reason, n in sorted(self.rejected.items()))
            line += f" + {sum(self.rejected.values()):,} rejected ({listed})"
        return line


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
