"""Rows of fingerprints that lie there already, for clips that are as they were."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from curation.errors import BadManifest
from curation.media.fingerprint import CLIPS, CONTENT, ContentFile, Row, read_part
from curation.tasks import Task, part_folders, read_record
from curation.verdict import Reason

# Other limits may let such a clip through.
_BY_LIMITS = frozenset((Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.DECODER_CRASHED, Reason.TOO_LONG))


class Former:
    """The rows that lie there of the clips of a task, from parts of this or another layout."""

    def __init__(self, stage: Path, task: Task, noted: Callable[[str], dict[str, list[Any]]]) -> None:
        self._rows: dict[str, tuple[Any, int, Path, dict[str, Any]]] = {}
        self._content: dict[Path, ContentFile] = {}
        self._notes: dict[Path, dict[str, list[Any]]] = {}
        for folder in part_folders(stage):
            index, _, count = folder.name.partition("-of-")
            both = min(int(count), task.count)
            if int(index) % both != task.index % both:
                continue
            record = read_record(folder)
            if record.get("about") == task.inputs["about"]:
                self._add(folder, record, noted(folder.name))

    def _add(self, folder: Path, record: dict[str, Any], notes: dict[str, list[Any]]) -> None:
        try:
            _, table = read_part(folder / CLIPS)
            self._content[folder] = ContentFile(folder / CONTENT)
        except (BadManifest, OSError, ValueError):
            return  # damaged: its clips are decoded again
        self._notes[folder] = notes
        for place, clip_id in enumerate(table["clip_id"].to_pylist()):
            self._rows[clip_id] = (table, place, folder, record["limits"])

    def find(self, clip: Row, limits: dict[str, Any]) -> tuple[Row, list[Any] | None] | None:
        """The row of a clip that these limits would give too, and what was noted of its file."""
        if clip["clip_id"] not in self._rows:
            return None
        table, place, folder, former_limits = self._rows[clip["clip_id"]]
        if any(table[name][place].as_py() != clip[name] for name in ("start_s", "end_s", "file")):
            return None
        row = {name: _value(table[name][place]) for name in table.column_names}
        if limits != former_limits:
            longest = limits["max_duration_s"]
            if row["reason"] in _BY_LIMITS:
                return None
            if row["status"] == "scanned" and row["duration_s"] > longest:
                return None
        return row, self._notes[folder].get(clip["file"])

    def content(self, clip_id: str) -> Row:
        """The content row of a clip that was scanned."""
        return self._content[self._rows[clip_id][2]].row(clip_id)


def _value(scalar: Any) -> Any:
    """A value of a row; a list as a NumPy array."""
    values = getattr(scalar, "values", None)
    return scalar.as_py() if values is None else values.to_numpy(zero_copy_only=False)
