"""Scan: every clip of a dataset decoded once, and what is left of it written as fingerprints.

Clips go into tasks by the digest of their ids. A row is carried over from what lies there, of whatever
number of tasks, if its clip, its file's bytes and what decides the bytes of a fingerprint are unchanged.
Which bytes a file has is told by its size and time, noted beside each part in `<part>.files.json`; where
these differ, by its digest. Those notes hold times, and are outside the promise of equal bytes. They
name the sha256 of the clips.parquet they are of: a run may be killed between notes and part.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from curation.catalog.store import SCAN
from curation.files import sha256_file
from curation.media import fingerprint
from curation.media.answer import Answer
from curation.media.audio_hash import AUDIO_VERSION
from curation.media.carried import Former, Lying, Notes, note, read_notes, write_notes
from curation.media.decoder import Decoder, DecoderConfig, decoding
from curation.media.fingerprint import CLIPS, PartWriter, Row, fingerprint_folder, part_of, row_of
from curation.media.locate import MediaFolder, as_text
from curation.media.video_hash import VIDEO_VERSIONS
from curation.ray_engine import Engine
from curation.tasks import (
    ALL,
    Share,
    Task,
    Work,
    Worker,
    is_done,
    read_record,
    run,
    sealing,
    write_sealed,
)
from curation.verdict import BY_MACHINE, Reason

_MOST_TASKS = 64  # of a small dataset: enough to keep the cores of a machine busy …
_FEWEST_CLIPS = 8  # … with this many clips each
_CLIPS_EACH = 256  # of a large one


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """The clips of one dataset and their files, sorted by clip_id."""

    dataset: str
    clip_ids: Sequence[str]
    start_s: Sequence[float | None]
    end_s: Sequence[float | None]
    files: Sequence[str | None]  # paths below the media folder, as text


@dataclass(slots=True)
class Counts:
    """What became of clips; scanned + failed are all."""

    clips: int = 0
    scanned: int = 0
    partly_damaged: int = 0  # of those scanned
    failed: dict[str, int] = field(default_factory=dict)

    def add(self, facts: dict[str, Any]) -> None:
        """Add those of a part, as its record has them."""
        self.clips += facts["clips"]
        self.scanned += facts["scanned"]
        self.partly_damaged += facts["partly_damaged"]
        for reason, n in sorted(facts["failed"].items()):
            self.failed[reason] = self.failed.get(reason, 0) + n

    def check(self) -> None:
        """Raise AssertionError unless clips = scanned + failed."""
        assert self.clips == self.scanned + sum(self.failed.values()), f"{self} does not add up"


@dataclass(slots=True, kw_only=True)
class Scanned:
    """What became of a dataset: the counts of the tasks that are done."""

    dataset: str
    counts: Counts
    tasks: int  # in all
    done: int
    busy: list[Task]  # of our share, that another process works on
    sealed: bool  # whether all tasks are done, and scan.json is written
    changed: bool  # whether scan.json is another than before


def about(dataset: str, mode: str) -> dict[str, Any]:
    """What decides the bytes of a fingerprint, beside the media and the limits."""
    return {
        "dataset": dataset,
        "format": fingerprint.FORMAT,
        "hash_version": VIDEO_VERSIONS[mode],
        "audio_version": AUDIO_VERSION,
    }


def tasks_of(clips: Clips, config: DecoderConfig) -> list[Task]:
    """The tasks of a dataset: a power of two, so that what was cut otherwise is found again."""
    num = len(clips.clip_ids)
    wanted = max(min(_MOST_TASKS, num // _FEWEST_CLIPS), -(-num // _CLIPS_EACH), 1)
    count = 1 << (wanted - 1).bit_length()
    rows: list[list[list[Any]]] = [[] for _ in range(count)]
    for row in zip(clips.clip_ids, clips.start_s, clips.end_s, clips.files, strict=True):
        rows[part_of(row[0], count)].append(list(row))
    shared = {"about": about(clips.dataset, config.mode), "limits": limits_of(config)}
    return [Task(index, count, {**shared, "rows": rows[index]}) for index in range(count)]


def limits_of(config: DecoderConfig) -> dict[str, Any]:
    """What a clip may ask for, as the record of a part says it."""
    return {
        "max_duration_s": config.max_duration_s,
        "timeout_s": config.timeout_s,
        "memory_bytes": config.memory_bytes,
    }


def scan(
    manifests: Path,
    clips: Clips,
    media: MediaFolder,
    config: DecoderConfig,
    *,
    workers: int = 1,
    share: Share = ALL,
    engine: Engine | None = None,
    progress: Callable[[int], Any] = lambda clips: None,
) -> Scanned:
    """Bring the fingerprints of a dataset up to date.

    Args:
        engine: a cluster of Ray whose actors work; None: threads of this process.
        progress: told of clips that are done, how many more.
    """
    stage = fingerprint_folder(manifests, clips.dataset)
    tasks = tasks_of(clips, config)
    scanner = _Scanner(stage, media, config, progress)
    worker: Worker = scanner.worker
    if engine is not None:
        there = replace(media, root=media.root.absolute())
        worker = engine.worker(partial(_elsewhere, stage.absolute(), there, config), tell=progress)
    busy = run(stage, tasks, worker, workers=workers, share=share, is_current=scanner.is_current)
    counts = Counts()
    done = [task for task in tasks if is_done(stage, task)]
    for task in done:
        counts.add(read_record(stage / task.name)["counts"])
    counts.check()
    with sealing(stage, tasks) as sealed:
        changed = sealed and _seal(stage, clips.dataset, tasks)
    return Scanned(
        dataset=clips.dataset, counts=counts, tasks=len(tasks), done=len(done), busy=busy, sealed=sealed,
        changed=changed,
    )  # fmt: skip


def _elsewhere(
    stage: Path, media: MediaFolder, config: DecoderConfig, tell: Callable[[int], Any]
) -> Worker:
    """What does the tasks in an actor of another machine."""
    return _Scanner(stage, media, config, tell).worker


def _seal(stage: Path, dataset: str, tasks: list[Task]) -> bool:
    """Write down that all is done; whether it is news."""
    counts, parts = Counts(), []
    for task in tasks:
        record = read_record(stage / task.name)
        counts.add(record["counts"])
        parts.append({"name": task.name, "key": record["key"], "outputs": record["outputs"]})
    inputs = tasks[0].inputs
    document = {
        "format": fingerprint.FORMAT,
        "dataset": dataset,
        "about": inputs["about"],
        "limits": inputs["limits"],
        "counts": asdict(counts),
        "parts": parts,
    }
    try:
        former = (stage / SCAN).read_bytes()
    except OSError:
        former = b""
    write_sealed(stage / SCAN, document)
    return former != (stage / SCAN).read_bytes()


class _Scanner:
    """Does the tasks of one dataset."""

    def __init__(
        self, stage: Path, media: MediaFolder, config: DecoderConfig, progress: Callable[[int], Any]
    ) -> None:
        self._stage, self._media, self._config, self._progress = stage, media, config, progress
        self._lying = Lying(stage)

    @contextmanager
    def worker(self, stop: threading.Event) -> Iterator[Work]:
        """One decoding child and what gives it clips."""
        with decoding(self._config, stop) as decoder:
            yield partial(self._work, decoder)

    def is_current(self, task: Task) -> bool:
        """Whether every file of a finished task is as it was, and none failed by the machine."""
        part = self._stage / task.name
        if not BY_MACHINE.isdisjoint(read_record(part)["counts"]["failed"]):
            return False
        noted = read_notes(part)
        for _, _, _, file in task.inputs["rows"]:
            if file is not None and (file not in noted or noted[file][:2] != self._stamp(file)):
                return False
        self._progress(len(task.inputs["rows"]))
        return True

    def _work(self, decoder: Decoder, task: Task, folder: Path) -> dict[str, Any]:
        counts = Counts()
        notes: Notes = {}
        former = Former(self._lying.of(task), task.inputs["about"], read_notes)
        with PartWriter(folder, task.inputs["about"]) as writer:
            for clip_id, start_s, end_s, file in task.inputs["rows"]:
                clip = {
                    "dataset": task.inputs["about"]["dataset"],
                    "clip_id": clip_id,
                    "start_s": start_s,
                    "end_s": end_s,
                    "file": file,
                }
                stamp = None if file is None else self._stamp(file)
                row, content = self._carried(former, clip, stamp) or self._decoded(decoder, clip)
                if file is not None:
                    note(notes, file, stamp, row["content_digest"])
                writer.add(row, content)
                _count(counts, row)
                self._progress(1)
        write_notes(self._stage / task.name, folder / CLIPS, notes)
        return {"about": task.inputs["about"], "limits": task.inputs["limits"], "counts": asdict(counts)}

    def _carried(
        self, former: "Former", clip: Row, stamp: list[int] | None
    ) -> tuple[Row, Row | None] | None:
        """The rows of a clip that is as it was; None where it must be decoded."""
        if clip["file"] is None or stamp is None:
            return None
        found = former.find(clip, limits_of(self._config))
        if found is None:
            return None
        row, noted = found
        if noted is None or noted[:2] != stamp:
            try:
                digest = f"sha256:{sha256_file(Path(self._media.real_path(clip['file'])))}"
            except OSError:
                return None
        else:
            digest = noted[2]
        if row["content_digest"] is None or row["content_digest"] != digest:
            return None
        return row, former.content(clip["clip_id"]) if row["status"] == "scanned" else None

    def _decoded(self, decoder: Decoder, clip: Row) -> tuple[Row, Row | None]:
        if clip["file"] is None:
            missing = Answer(
                status="failed", reason=Reason.NO_MEDIA, detail="no file of it in the folder"
            )
            return row_of(missing, clip)
        path = self._media.real_path(clip["file"])
        return rows_of(decoder.scan(path, start_s=clip["start_s"], end_s=clip["end_s"]), clip)

    def _stamp(self, file: str) -> list[int] | None:
        try:
            stat = os.stat(self._media.real_path(file))
        except OSError:
            return None
        return [stat.st_size, stat.st_mtime_ns]


def rows_of(answer: Answer, clip: Row) -> tuple[Row, Row | None]:
    """As `fingerprint.row_of`, of what a decoder said."""
    if answer.detail is not None:  # it may quote a name or bytes of the file
        answer.detail = as_text(answer.detail)
    return row_of(answer, clip)


def _count(counts: Counts, row: Row) -> None:
    counts.clips += 1
    if row["status"] == "scanned":
        counts.scanned += 1
        counts.partly_damaged += row["reason"] == Reason.PARTLY_DAMAGED
    else:
        reason = str(row["reason"])
        counts.failed[reason] = counts.failed.get(reason, 0) + 1
