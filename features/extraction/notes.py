"""What files were when a task was made from them, noted beside the task in `<task>.files.json`.

By its size and time a file is known to be as it was; where these differ, by its digest. The notes hold
times, and name the sha256 of the rows that they are about: a run may be killed between notes and part.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from curation.errors import ManifestChanged
from curation.files import digest_of, sha256_file
from curation.tasks import Task, read_record, write_sealed
from curation.verdict import BY_MACHINE
from features.extraction.plan import ROW
from features.store.index import CLIP_KEY, REJECTS_FILE, ROWS, ROWS_FILE, read_table
from features.store.recorded import checked

Stamp = list[int]  # size in bytes, time of the last change in ns
_MAY_CHANGE = ("captions", "file")  # of a row that is carried over all the same


class Notes:
    """The notes of a stage over clips."""

    def __init__(self, stage: Path, paths: Callable[[Task], list[str | None]]) -> None:
        self._stage, self._paths = stage, paths

    def is_current(self, task: Task) -> bool:
        """Whether all files of a finished task are as they were, and none failed by the machine."""
        record = read_record(self._stage / task.name)
        if not BY_MACHINE.isdisjoint(record.get("counts", {}).get("rejected", ())):
            return False
        noted = self._read(task, record)
        if noted is None:
            return False
        stamps = [stamp_of(path) for path in self._paths(task)]
        return [note and note[:2] for note in noted["files"]] == stamps

    def carried(self, task: Task, inputs: Mapping[str, Any]) -> list[str | None]:
        """For each row the digest of its file, where rows of the former part can be carried over."""
        paths = self._paths(task)
        record = read_record(self._stage / task.name)
        noted = self._read(task, record) if record else None
        if noted is None or noted["inputs"] != _steady(inputs) or not self._is_whole(task, record):
            return [None] * len(paths)
        return [_digest_if_same(path, note) for path, note in zip(paths, noted["files"], strict=True)]

    def lost(self, task: Task) -> list[str]:
        """Clips with rows in the former part of a task whose files are gone, as dataset/clip_id.

        Raises:
            ManifestChanged: its table is damaged.
        """
        paths = self._paths(task)
        if None not in paths or not read_record(self._stage / task.name):
            return []
        table = read_table(self._stage / task.name / ROWS_FILE, ROWS, CLIP_KEY)
        there = set(zip(*(table[name].to_pylist() for name in CLIP_KEY), strict=True))
        places = [ROW.index(name) for name in CLIP_KEY]
        gone = [row for row, path in zip(task.inputs["rows"], paths, strict=True) if path is None]
        keys = (tuple(row[place] for place in places) for row in gone)
        return ["/".join(key) for key in keys if key in there]

    def write(
        self,
        task: Task,
        inputs: Mapping[str, Any],
        folder: Path,
        stamps: Sequence[Stamp | None],
        digests: Sequence[str | None],
    ) -> None:
        """Note the files of a task whose new part lies in `folder`, ready to take its place.

        Args:
            stamps: of the files before they were read.
        """
        files = [
            None if before is None or stamp_of(path) != before else [*before, digest]
            for path, before, digest in zip(self._paths(task), stamps, digests, strict=True)
        ]
        noted = {ROWS_FILE: sha256_file(folder / ROWS_FILE), "inputs": _steady(inputs), "files": files}
        write_sealed(self._stage / f"{task.name}.files.json", noted)

    def stamps(self, task: Task) -> list[Stamp | None]:
        """Of the files of a task, as they are now."""
        return [stamp_of(path) for path in self._paths(task)]

    def _is_whole(self, task: Task, record: Mapping[str, Any]) -> bool:
        """Whether the tables of a part are those that were written."""
        try:
            for name in (ROWS_FILE, REJECTS_FILE):
                checked(self._stage / task.name / name, record["outputs"][name])
        except ManifestChanged:
            return False
        return True

    def _read(self, task: Task, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """The notes of a part; None where they are of another."""
        try:
            noted = json.loads((self._stage / f"{task.name}.files.json").read_bytes())
            same = noted[ROWS_FILE] == record["outputs"][ROWS_FILE]["sha256"]
            whole = noted["digest"] == digest_of(noted) and len(noted["files"]) == len(self._paths(task))
            return noted if same and whole else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def stamp_of(path: str | None) -> Stamp | None:
    """By what a file is known to be as it was; None where there is none."""
    if path is None:
        return None
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _steady(inputs: Mapping[str, Any]) -> str:
    """The digest of all that decides the tensors of a task, beside the files."""
    keep = [place for place, name in enumerate(ROW) if name not in _MAY_CHANGE]
    rows = [[row[place] for place in keep] for row in inputs["rows"]]
    return digest_of({**inputs, "rows": rows})


def _digest_if_same(path: str | None, note: Sequence[Any] | None) -> str | None:
    stamp = stamp_of(path)
    if path is None or stamp is None or note is None:
        return None
    digest: str | None = note[2]
    if digest is None or list(note[:2]) == stamp:
        return digest
    try:
        return digest if f"sha256:{sha256_file(Path(path))}" == digest else None
    except OSError:
        return None
