"""Rows of fingerprints that lie there already, for clips that are as they were."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from curation.errors import BadManifest
from curation.media.fingerprint import CLIPS, CONTENT, Contents, Row, read_part
from curation.tasks import Task, part_folders, read_record
from curation.verdict import Reason

# What a machine was short of, it may have the next time: such a clip is tried again by each run.
BY_MACHINE = frozenset((Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.DECODER_CRASHED))


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
        self, parts: list[Path], about: dict[str, Any], noted: Callable[[Path], dict[str, list[Any]]]
    ) -> None:
        self._rows: dict[str, tuple[Any, int, Path, dict[str, Any]]] = {}
        self._contents = Contents()
        self._notes: dict[Path, dict[str, list[Any]]] = {}
        for folder in parts:
            record = read_record(folder)
            if record.get("about") == about:
                self._add(folder, record, noted(folder))

    def _add(self, folder: Path, record: dict[str, Any], notes: dict[str, list[Any]]) -> None:
        try:
            _, table = read_part(folder / CLIPS)
            self._contents.open(folder / CONTENT)
        except (BadManifest, OSError, ValueError):
            return  # damaged: its clips are decoded again
        self._notes[folder] = notes
        for place, clip_id in enumerate(table["clip_id"].to_pylist()):
            self._rows[clip_id] = (table, place, folder, record["limits"])

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
