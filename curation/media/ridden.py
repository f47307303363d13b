"""Fingerprints that were made beside somebody else's decoding, and how they come to a scan.

    <spool>/<dataset>/                       clips.parquet, content.parquet, task.json, at first, and
    <spool>/<dataset>.files.json             what the files were
    fingerprints/<dataset>/00017-of-00128/   afterwards, by the digests of ids as the parts of a scan

These parts hold some clips of a dataset. A scan takes them for parts of another layout: it carries the
rows over, decodes the other clips, and removes them. A dataset whose scan is finished is left alone.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from curation.catalog.record import dataset_folder
from curation.catalog.store import scan_record
from curation.files import fsync, remove
from curation.media.answer import Answer
from curation.media.carried import Former, Notes, end_part, note, read_notes, write_notes
from curation.media.decoder import DecoderConfig
from curation.media.fingerprint import (
    CLIPS,
    PartWriter,
    Row,
    fingerprint_folder,
    part_of,
    read_part,
)
from curation.media.regroup import num_clips, regroup
from curation.media.scan import about, limits_of, rows_of
from curation.tasks import Task, Work, part_folders, read_record, run
from curation.verdict import BY_MACHINE

_CLIPS_EACH = 256  # of a part
_AT_ONCE = 1 << 14  # rows of which more than their ids is held; some 20 KB each
_MOST_GROUPS = 128  # of which two files are open at a time
_STAGED = ".tmp-task"
_GROUPED = "grouped.tmp-task"


def unscanned(manifests: Path, datasets: Sequence[str]) -> list[str]:
    """Of these datasets those that are built, and of which there is no finished scan."""
    return [
        name
        for name in datasets
        if (dataset_folder(manifests, name) / "clips.parquet").is_file()
        and not scan_record(manifests, name)
    ]


class Spool:
    """Takes what a scan says of clips, in the order of (dataset, clip_id); appears whole."""

    def __init__(self, folder: Path, config: DecoderConfig) -> None:
        self._folder, self._limits, self._mode = folder, limits_of(config), config.mode
        self._staged = folder.with_name(folder.name + _STAGED)
        remove(self._staged)
        self._staged.mkdir(parents=True)
        self._writers = ExitStack()
        self._dataset: str | None = None
        self._writer: PartWriter | None = None
        self._notes: Notes = {}

    def add(self, clip: Row, stamp: list[int] | None, answer: Answer) -> None:
        """Take the next clip; what its machine was short of, it may have the next time.

        Args:
            clip: dataset, clip_id, start_s, end_s and file.
            stamp: of the file before it was read: size, and time of the last change in ns.
        """
        if answer.content_digest is None or answer.reason in BY_MACHINE:
            return
        if clip["dataset"] != self._dataset:
            self._end_dataset()
            self._dataset, self._notes = clip["dataset"], {}
            place = self._staged / clip["dataset"]
            place.mkdir()
            self._writer = self._writers.enter_context(PartWriter(place, self._about()))
        assert self._writer is not None, "it was just made"
        self._writer.add(*rows_of(answer, clip))
        note(self._notes, clip["file"], stamp, answer.content_digest)

    def close(self) -> None:
        """Let it take its place."""
        self._end_dataset()
        remove(self._folder)
        fsync(self._staged)
        os.rename(self._staged, self._folder)

    def _about(self) -> dict[str, Any]:
        assert self._dataset is not None, "a clip came"
        return about(self._dataset, self._mode)

    def _end_dataset(self) -> None:
        if self._dataset is None:
            return
        self._writers.close()
        said = {"about": self._about(), "limits": self._limits}
        end_part(self._staged / self._dataset, said, self._notes)


class _Overtaken(Exception):
    """A scan made the part that was to be filled."""


def take_in(manifests: Path, dataset: str, spools: Sequence[Path], config: DecoderConfig) -> int | None:
    """Put the rows of a dataset among its fingerprints; how many, None where others work there too.

    Spools are in the order of ids, parts in that of digests. So the rows go first into groups of parts,
    as many as can be held: each spool is read once, however many there are, and then each group.

    Args:
        spools: what `Spool` wrote, in one folder that is ours alone; they may hold other datasets.
    """
    if not unscanned(manifests, [dataset]):
        return 0
    stage, made = fingerprint_folder(manifests, dataset), about(dataset, config.mode)
    parts = [part for spool in spools if read_record(part := spool / dataset).get("about") == made]
    if not (clips := sum(num_clips(part) for part in parts)):
        return 0
    shared = {"about": made, "limits": limits_of(config), "rides": True}
    count = _num_parts(stage, clips)
    groups = min(_power_of_two(-(-clips // _AT_ONCE)), _MOST_GROUPS)  # divides `count`
    taken, place = 0, spools[0].with_name(_GROUPED)
    try:
        for group in regroup(parts, place, groups):
            tasks = _tasks(group, count, shared)
            if run(stage, tasks, partial(_worker, stage, Former(group, made, read_notes))):
                return None
            taken += sum(len(task.inputs["rows"]) for task in tasks)
    except _Overtaken:
        return None
    except FileNotFoundError:
        if unscanned(manifests, [dataset]):
            raise
        # A scan has ended, which has all clips now, and has cleared what was being made.
    finally:
        remove(place)
    return taken


def _told(part: Path) -> Iterator[list[Any]]:
    """The clips of a part."""
    names = ["clip_id", "start_s", "end_s", "file", "content_digest"]
    _, table = read_part(part / CLIPS, names)
    for row in table.to_pylist():
        yield [row[name] for name in names]


def _num_parts(stage: Path, clips: int) -> int:
    """A power of two; more than in other layouts, since of two rows of a clip the last counts."""
    wanted = _power_of_two(-(-clips // _CLIPS_EACH))
    for folder in part_folders(stage):
        count = int(folder.name.partition("-of-")[2])
        wanted = max(wanted, count if read_record(folder).get("rides") else 2 * count)
    return wanted


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _tasks(group: Sequence[Path], count: int, shared: Mapping[str, Any]) -> list[Task]:
    """Those that fill parts with the rows of a group."""
    by_part: dict[int, list[list[Any]]] = {}
    for part in group:
        for row in _told(part):
            by_part.setdefault(part_of(row[0], count), []).append(row)
    return [Task(index, count, {**shared, "rows": rows}) for index, rows in sorted(by_part.items())]


@contextmanager
def _worker(stage: Path, spooled: Former, stop: Event) -> Iterator[Work]:
    yield partial(_fill, stage, spooled)


def _fill(stage: Path, spooled: Former, task: Task, folder: Path) -> dict[str, Any]:
    """Write the clips of a task, and those of other runs that lie in its place.

    Raises:
        _Overtaken: a part of a scan lies there, which that scan takes for done.
    """
    if (lies := read_record(stage / task.name)) and not lies.get("rides"):
        raise _Overtaken
    said = {name: task.inputs[name] for name in ("about", "limits", "rides")}
    lying = Former([stage / task.name], said["about"], read_notes)
    sources = {clip["clip_id"]: (lying, clip) for clip in lying.clips()}
    names = ("clip_id", "start_s", "end_s", "file")
    for row in task.inputs["rows"]:
        sources[row[0]] = spooled, dict(zip(names, row[:4], strict=True))
    notes: Notes = {}
    with PartWriter(folder, said["about"]) as writer:
        for clip_id, (former, clip) in sorted(sources.items(), key=lambda entry: entry[0]):
            found = former.find(clip, said["limits"])
            if found is None:
                continue
            row, noted = found
            writer.add(row, former.content(clip_id) if row["status"] == "scanned" else None)
            note(notes, clip["file"], noted and noted[:2], row["content_digest"])
    write_notes(stage / task.name, folder / CLIPS, notes)
    return said
