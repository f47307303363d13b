"""From a manifest and its media to tasks: consecutive rows, and the captions they need.

A task's inputs are plain data from which all its bytes follow. They are made when somebody asks, so
that a million clips stay a table of Arrow; rows are in the order of (dataset, clip_id), and a task is
always the same rows, whichever of them have media by now.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from curation.media.locate import SOUND_SUFFIXES
from curation.progress import note
from curation.tasks import Task
from features.extraction.job import Job
from features.extraction.media import Media, find_media, looked_for
from features.source import MANIFESTS, Manifest, read_manifest, warnings
from features.spec import SequenceSpec
from features.store.index import clip_captions
from features.store.shard_file import ITEM_BYTES, Kind, columns_of
from features.weights.published import identity_of

Progress = Callable[..., Any]
NO_CAPTION = ""  # row 0 of the text
_INDEX_BYTES = 400  # a row of the index, of a task's rows and its captions, about
# what a row of a task says, in this order
ROW = (
    "dataset", "clip_id", "split", "role", "source", "source_id", "start_s", "end_s", "captions", "file",
    "sound_only",
)  # fmt: skip


class PlannedTask(Task):
    """A task whose inputs are made from the plan each time they are asked for."""

    _make: Callable[[int], dict[str, Any]]
    # as equal as their plans: nobody makes all inputs to compare them
    __eq__, __hash__ = object.__eq__, object.__hash__

    def __init__(self, index: int, count: int, make: Callable[[int], dict[str, Any]]) -> None:
        for name, value in (("index", index), ("count", count), ("_make", make)):
            object.__setattr__(self, name, value)

    @property
    def inputs(self) -> dict[str, Any]:  # a field of Task, here made anew
        """What all that the task writes follows from."""
        return self._make(self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Room on the disk, in bytes."""

    expected: int  # a row of each clip with media, a row of each caption
    at_most: int  # long sounds cut into as many parts as may be


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is to be extracted."""

    manifest: Manifest
    media: Media
    about: dict[str, Any]  # what decides the bytes, beside clips and media
    certificate: dict[str, Any] | None  # what shards say of it
    shard_rows: int
    max_parts: int

    @cached_property
    def captions(self) -> list[str]:
        """Unique captions of clips with media, "" first and then sorted."""
        found = {NO_CAPTION}
        table = self.manifest.table.select(["captions", "labels"])
        step = 1 << 14
        for begin in range(0, table.num_rows, step):
            rows = table.slice(begin, step).to_pylist()
            for row, file in zip(rows, self.media.files[begin : begin + step], strict=True):
                if file is not None:
                    found.update(said_of(row))
        return sorted(found)  # "" is before all others

    @cached_property
    def clip_tasks(self) -> Sequence[Task]:
        """Tasks over the rows of the manifest."""
        count = -(-self.manifest.table.num_rows // self.shard_rows)
        return [PlannedTask(index, count, self._clip_inputs) for index in range(count)]

    @cached_property
    def text_tasks(self) -> Sequence[Task]:
        """Tasks over the captions."""
        count = -(-len(self.captions) // self.shard_rows)
        return [PlannedTask(index, count, self._text_inputs) for index in range(count)]

    def _clip_inputs(self, index: int) -> dict[str, Any]:
        rows = []
        begin = index * self.shard_rows
        files = self.media.files[begin : begin + self.shard_rows]
        table = self.manifest.table.slice(begin, self.shard_rows)
        for row, file in zip(table.to_pylist(), files, strict=True):
            card = self.manifest.cards[row["dataset"]]
            said = {
                **row,
                "role": card.roles.get(row["split"], row["split"]),
                "captions": said_of(row),
                "file": file,
                "sound_only": card.sound_only,
            }
            rows.append([said[name] for name in ROW])
        return {**self._shared(), "rows": rows}

    def _text_inputs(self, index: int) -> dict[str, Any]:
        begin = index * self.shard_rows
        return {**self._shared(), "captions": self.captions[begin : begin + self.shard_rows]}

    def _shared(self) -> dict[str, Any]:
        return {"about": self.about, "certificate": self.certificate}

    def paths(self, task: Task) -> list[str | None]:
        """Where the files of a task's rows are, for whoever decodes them."""
        begin = task.index * self.shard_rows
        files = self.media.files[begin : begin + self.shard_rows]
        return [None if file is None else self.media.real_path(file) for file in files]

    def one_name(self) -> str:
        """A name that is looked for and one that is there, where there are any."""
        table = self.manifest.table
        wanted = None
        if table.num_rows:
            row = table.slice(0, 1).to_pylist()[0]
            wanted = looked_for(self.manifest.cards[row["dataset"]], row)
        there = next((name for folder in self.media.folders for name in folder.media), None)
        said = [] if wanted is None else [f"looked for {wanted}"]
        said += [] if there is None else [f"found {there}"]
        return f" ({', '.join(said)})" if said else ""

    def need(
        self,
        spec: SequenceSpec,
        tasks: Sequence[Task],
        text_tasks: Sequence[Task],
        *,
        former: Callable[[Task], int] = lambda task: 0,
    ) -> Need:
        """What the shards of these tasks take beside what lies there.

        Args:
            former: bytes of the part that a task replaces. It goes when the new one is whole, so that
                only the largest counts as if it stayed.
        """
        expected = at_most = twice = 0
        for task in tasks:
            replaced = former(task)
            one = self._task_need(spec, task)
            expected += max(0, one.expected - replaced)
            at_most += max(0, one.at_most - replaced)
            twice = max(twice, replaced)
        texts = sum(len(task.inputs["captions"]) for task in text_tasks) * row_bytes("text", spec)
        return Need(expected=expected + twice + texts, at_most=at_most + twice + texts)

    def _task_need(self, spec: SequenceSpec, task: Task) -> Need:
        """What the part of a task takes."""
        expected = more = 0
        begin = task.index * self.shard_rows
        files = self.media.files[begin : begin + self.shard_rows]
        rows = self.manifest.table.select(["dataset", "start_s"]).slice(begin, self.shard_rows)
        for row, file in zip(rows.to_pylist(), files, strict=True):
            expected += _INDEX_BYTES
            if file is None:
                continue
            card = self.manifest.cards[row["dataset"]]
            has_video = not (card.sound_only or Path(file).suffix.lower() in SOUND_SUFFIXES)
            one = row_bytes("av" if has_video else "audio", spec)
            expected += one
            if card.sound_only and row["start_s"] is None:
                more += one * (self.max_parts - 1)
        return Need(expected=expected, at_most=expected + more)


def row_bytes(kind: Kind, spec: SequenceSpec) -> int:
    """What a row takes in its shard."""
    return sum(math.prod(shape) for shape in columns_of(kind, spec).values()) * ITEM_BYTES


def said_of(row: dict[str, Any]) -> list[str]:
    """The captions of a row of the manifest, or what stands for them."""
    return clip_captions(row["captions"], row["labels"])


def make_plan(
    manifest: Path,
    media: Sequence[Path],
    media_list: Path | None,
    job: Job,
    out: Path,
    hashing: Progress = lambda *told: None,
    progress: Progress = lambda *told: None,
    manifests: Path = MANIFESTS,
) -> Plan:
    """What there is to extract.

    Args:
        hashing: told of files of weights that are read for the first time.
        manifests: where datasets lie that do not lie beside the manifest.

    Raises:
        UsageProblem: a folder, a list or a file of weights is missing.
        BadManifest, ManifestChanged, BadMetadata: manifest or list are not what they should be.
        WrongWeights: a file of weights is not the published one.
    """
    progress(f"reading {manifest.name}")
    read = read_manifest(manifest, manifests)
    for line in warnings(read, manifests):
        note(line)
    progress("looking for files")
    found = find_media(read, media, media_list=media_list, without=out)
    encoders = identity_of(job.weights, job.sample_rate_hz, progress=hashing)
    return Plan(
        manifest=read,
        media=found,
        about=about(job, encoders),
        certificate=_said_of(read.certificate),
        shard_rows=job.shard_rows,
        max_parts=job.inputs.max_parts,
    )


def _said_of(certificate: dict[str, Any] | None) -> dict[str, Any] | None:
    """What every shard says of the certificate: its digest, and what was kept out of training."""
    if certificate is None:
        return None
    config = certificate.get("config", {})
    said = {name: config.get(name) for name in ("tests", "policy", "match", "match_content")}
    return {"digest": certificate["digest"], **said}


def about(job: Job, encoders: dict[str, str]) -> dict[str, Any]:
    """What decides the bytes of shards, beside the clips and their files."""
    kind = job.device.partition(":")[0]
    return {
        "sample_rate_hz": job.sample_rate_hz,
        "duration_s": job.inputs.duration_s,
        "encoders": encoders,
        "preprocessing": job.inputs.about(),
        "precision": job.precision,
        "device": kind,
        "threads": job.threads if kind == "cpu" else None,
        "batch": {"av": job.video_batch, "audio": job.audio_batch},
        "shard_rows": job.shard_rows,
    }
