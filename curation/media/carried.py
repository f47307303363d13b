"""Rows of fingerprints that lie there already, for clips that are as they were."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from curation.errors import BadManifest
from curation.files import sha256_file
from curation.media.fingerprint import CLIPS, CONTENT, Contents, Row, read_part
from curation.tasks import RECORD, Task, part_folders, read_record, write_sealed
from curation.verdict import BY_MACHINE, Reason

Notes = dict[str, list[Any]]  # of files: size, time of the last change in ns, digest


def read_notes(part: Path) -> Notes:
    """What was noted of the files that a part was made from; empty where it was of another part."""
    outputs = read_record(part).get("outputs", {})
    try:
        noted = json.loads(part.with_name(f"{part.name}.files.json").read_bytes())
        notes: Notes = noted["files"]
        return notes if noted[CLIPS] == outputs[CLIPS]["sha256"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_notes(part: Path, clips: Path, notes: Notes) -> None:
    """Note the files of a part whose clips.parquet lies at `clips`, ready to take its place."""
    noted = {CLIPS: sha256_file(clips), "files": notes}
    write_sealed(part.with_name(f"{part.name}.files.json"), noted)


def end_part(part: Path, said: dict[str, Any], notes: Notes) -> None:
    """Write the completion record and the notes of a part that no task makes."""
    outputs = {
        name: {"sha256": sha256_file(part / name), "bytes": (part / name).stat().st_size}
        for name in (CLIPS, CONTENT)
    }
    write_sealed(part / RECORD, {**said, "outputs": outputs})
    write_notes(part, part / CLIPS, notes)


def note(notes: Notes, file: str, stamp: list[int] | None, digest: str | None) -> None:
    """Add what a file was when a clip of it was decoded."""
    said = [*(stamp or (None, None)), digest]
    changed = notes.setdefault(file, said) != said  # between two clips of one file
    notes[file] = [None, None, None] if changed else said


class Lying:
    """The parts that lie in a stage before a run, of whatever layouts."""

    def __init__(self, stage: Path) -> None:
        self._stage = stage
        self._names = {folder.name for folder in part_folders(stage)}
        self._counts = {int(name.partition("-of-")[2]) for name in self._names}

    def of(self, task: Task) -> list[Path]:
        """Those that may hold clips of a task, by name; its own too, which may have come since."""
        names = {task.name}
        for count in self._counts:
            both = min(count, task.count)
            sharing = (Task(index, count, {}).name for index in range(task.index % both, count, both))
            names.update(name for name in sharing if name in self._names)
        return [self._stage / name for name in sorted(names)]


class Former:
    """The rows that lie there of the clips of a task, from parts of this or another layout."""

    def __init__(
        self, parts: Sequence[Path], about: dict[str, Any], noted: Callable[[Path], Notes]
    ) -> None:
        """Read those parts that were made in the same way."""
        self._rows: dict[str, tuple[Any, int, Path, dict[str, Any]]] = {}
        self._contents = Contents()
        self._notes: dict[Path, Notes] = {}
        for folder in parts:
            record = read_record(folder)
            if record.get("about") == about:
                self._add(folder, record, noted(folder))

    def _add(self, folder: Path, record: dict[str, Any], notes: Notes) -> None:
        try:
            _, table = read_part(folder / CLIPS)
            self._contents.open(folder / CONTENT)
        except (BadManifest, OSError, ValueError):
            return  # damaged: its clips are decoded again
        self._notes[folder] = notes
        for place, clip_id in enumerate(table["clip_id"].to_pylist()):
            self._rows[clip_id] = (table, place, folder, record["limits"])

    def clips(self) -> list[Row]:
        """All clips that have a row, with clip_id, start_s, end_s and file."""
        names = ("clip_id", "start_s", "end_s", "file")
        rows = self._rows.values()
        return [{name: table[name][place].as_py() for name in names} for table, place, *_ in rows]

    def find(self, clip: Row, limits: dict[str, Any]) -> tuple[Row, list[Any] | None] | None:
        """The row of a clip that another scan would give too, and what was noted of its file."""
        if clip["clip_id"] not in self._rows:
            return None
        table, place, folder, former_limits = self._rows[clip["clip_id"]]
        if any(table[name][place].as_py() != clip[name] for name in ("start_s", "end_s", "file")):
            return None
        row = {name: _value(table[name][place]) for name in table.column_names}
        if row["reason"] in BY_MACHINE:
            return None
        if limits != former_limits:
            longest = limits["max_duration_s"]
            if row["reason"] == Reason.TOO_LONG:
                return None
            if row["status"] == "scanned" and row["duration_s"] > longest:
                return None
        return row, self._notes[folder].get(clip["file"])

    def content(self, clip_id: str) -> Row:
        """The content row of a clip that was scanned."""
        return self._contents.row(self._rows[clip_id][2] / CONTENT, clip_id)


def _value(scalar: Any) -> Any:
    """A value of a row; a list as a NumPy array."""
    values = getattr(scalar, "values", None)
    return scalar.as_py() if values is None else values.to_numpy(zero_copy_only=False)
