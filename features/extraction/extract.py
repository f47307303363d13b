"""Extraction: every clip of a manifest with media becomes rows of shards, or a reject with a reason.

    <out>/extract.json             what was asked for, written first; another configuration is refused
    <out>/text/<task>/             features of captions
    <out>/clips/<task>/            rows of clips, with and without picture, and rejects
    <out>/clips/<task>.files.json  what the files were; see `notes.py`
    <out>/index.parquet, …         written when all tasks are done; see `store/seal.py`

Completion records are the truth about what is done, whichever runner did it: processes of this machine,
several runs that share the tasks, or actors of Ray.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

from curation.errors import ConfigDiffers, NoSpace, UsageProblem
from curation.files import free_bytes
from curation.progress import note
from curation.ray_engine import Engine
from curation.tables import number, size_text
from curation.tasks import ALL, Share, Task, Work, is_done, read_record, run, sealing, still_busy
from features.extraction import begun
from features.extraction.job import Effort, Facts, Job
from features.extraction.local import LocalDevices
from features.extraction.notes import Notes
from features.extraction.plan import Need, Plan
from features.extraction.remote import actor_size, remote_device
from features.extraction.riding import Arrived, Ride
from features.store import index
from features.store.rows import Counts
from features.store.seal import PATIENCE_S, Sealed, seal
from features.weights.published import prepare

Progress = Callable[..., Any]
DeviceWork = Callable[[dict[str, Any], Path], Facts]
DeviceWorker = Callable[[Event], AbstractContextManager[DeviceWork]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Who does the work."""

    devices: Sequence[str]  # of this machine, one for each worker
    engine: Engine | None = None  # a cluster of Ray that works instead
    workers: int | None = None  # of Ray; None: as many as the cluster has room for
    share: Share = ALL

    def text(self) -> str:
        """Who they are, for people."""
        if self.engine is None:
            return f"{number(len(self.devices), 'worker')} on {', '.join(dict.fromkeys(self.devices))}"
        return f"actors of Ray on {self.devices[0].partition(':')[0]}"


@dataclass(slots=True, kw_only=True)
class Extracted:
    """What became of all clips, as far as tasks are done."""

    counts: Counts
    tasks: int  # over clips and captions, in all
    done: int
    sealed: Sealed | None  # None: other shares are still to be done
    effort: Effort  # of this run
    fingerprints: Arrived | None  # that were made on the same decode; None: none were asked for
    elapsed_s: float
    workers: int


class Extraction:
    """One run over a plan."""

    def __init__(
        self,
        plan: Plan,
        job: Job,
        out: Path,
        progress: Progress,
        *,
        scan: Path | None = None,
        hashing: Progress = lambda *told: None,
    ) -> None:
        """What is to be done.

        Args:
            scan: the manifests whose fingerprints are made on the same decode; None: none are.
            hashing: told of files of weights that are read or converted.
        """
        self._hashing = hashing
        self.plan, self.job, self.out, self._progress = plan, job, out, progress
        self._clips, self._text = out / index.CLIPS, out / index.TEXT
        self._notes = Notes(self._clips, plan.paths)
        self._ride = None if scan is None else Ride(scan, out, sorted(plan.manifest.cards), job.inputs)
        self._lock = Lock()
        self.effort = Effort()
        self.devices: LocalDevices | None = None  # while it runs on this machine
        self._label, self._done, self._total = "", 0, 0
        self._current: set[int] = set()  # tasks over clips whose files are known to be as they were

    # ---- what there is to do ----------------------------------------------------------------------

    def left(self, share: Share = ALL) -> tuple[list[Task], list[Task]]:
        """Tasks over captions and over clips that are not done, or not from the files as they are."""
        texts, clips = (
            [task for task in tasks if share.has(task)]
            for tasks in (self.plan.text_tasks, self.plan.clip_tasks)
        )
        return [task for task in texts if not is_done(self._text, task)], [
            task for task in clips if not (is_done(self._clips, task) and self._is_current(task))
        ]

    def _is_current(self, task: Task) -> bool:
        """As `Notes.is_current`; the files of a task that is are looked at once a run."""
        with self._lock:
            if task.index in self._current:
                return True
        if not self._notes.is_current(task):
            return False
        with self._lock:
            self._current.add(task.index)
        return True

    def need(self, texts: Sequence[Task], clips: Sequence[Task]) -> Need:
        """Room that these tasks take on the disk, beside what lies there."""
        return self.plan.need(self.job.inputs.sequence, clips, texts, former=self._former_bytes)

    def _former_bytes(self, task: Task) -> int:
        """Of the part that a task over clips will replace."""
        files = (path for path in (self._clips / task.name).glob("*") if path.is_file())
        return sum(path.stat().st_size for path in files)

    def check_media(self) -> None:
        """Raise UsageProblem where not a single clip has a file: the folder is another one."""
        media = self.plan.media
        if media.found == 0:
            places = ", ".join(str(folder.root) for folder in media.folders)
            raise UsageProblem(
                f"{places}: holds {number(media.num_files, 'media file')}, none of which is of one of "
                f"the {number(self.plan.manifest.table.num_rows, 'clip')} of {self.plan.manifest.name}, "
                f"expected file names as in the cards of its datasets{self.plan.one_name()} — give "
                "another --media, or --media-list"
            )

    def _check_lost(self, tasks: Sequence[Task]) -> None:
        """Raise ConfigDiffers where rows lie here of clips whose files are gone: they would go too."""
        if lost := [clip for task in tasks for clip in self._notes.lost(task)]:
            raise ConfigDiffers(
                f"{self.out}: holds rows of {number(len(lost), 'clip')} whose files are gone ({lost[0]}"
                f"{', …' if len(lost) > 1 else ''}), expected all files it was made from — give also "
                "the --media that has them, or another --out"
            )

    def check_room(self, need: Need) -> None:
        """Raise NoSpace where the disk cannot take what is expected, and say where it might not."""
        free = free_bytes(self.out)
        if need.expected > free:
            raise NoSpace(
                f"{self.out}: {size_text(free)} are free, expected room for {size_text(need.expected)} "
                "of shards — free some, or give an --out on a larger disk"
            )
        if need.at_most > free:
            note(
                f"{self.out}: {size_text(free)} are free, and shards take up to "
                f"{size_text(need.at_most)} if all sounds are long; should the disk fill up, free some "
                "and run the same command again"
            )

    # ---- doing it ---------------------------------------------------------------------------------

    def run(self, machines: Machines) -> Extracted:
        """Do the tasks of a share, and seal where they were the last.

        Raises:
            ConfigDiffers: the folder was begun with another configuration, or from files that are gone.
            UsageProblem: no clip has a file in the media folders.
            NoSpace: there is too little room, or the disk filled up; nothing is half written.
            Locked: another process works on the same tasks.
            WorkerLost: the process of a device died, or actors did again and again.
        """
        begun_s = time.monotonic()
        origin = begun.of_plan(self.out, self.plan)
        begun.check(self.out, origin)
        self.check_media()
        texts, clips = self.left(machines.share)
        self._check_lost(clips)
        self.check_room(self.need(texts, clips))
        begun.begin(self.out, origin, changes=bool(texts or clips))
        workers = 0
        if texts or clips:
            prepare(self.job.weights, self.job.sample_rate_hz, progress=self._hashing)
            with self._devices(machines) as (worker, workers):
                busy_texts, busy_clips = self._stages(worker, workers, machines.share, texts, clips)
            still_busy(self._clips, busy_clips)
            still_busy(self._text, busy_texts)
        mine = [task for task in self.plan.clip_tasks if machines.share.has(task)]
        return Extracted(
            counts=self._counts(),
            tasks=len(self.plan.text_tasks) + len(self.plan.clip_tasks),
            done=self._num_done(),
            sealed=self._sealed(),
            effort=self.effort,
            elapsed_s=time.monotonic() - begun_s,
            workers=workers,
            fingerprints=None if self._ride is None else self._ride.arrive(mine),
        )

    def _stages(
        self,
        worker: DeviceWorker,
        workers: int,
        share: Share,
        texts: list[Task],
        clips: list[Task],
    ) -> tuple[list[Task], list[Task]]:
        """Captions first: the encoder of text is one of those that the clips need.

        Returns those tasks over captions, and over clips, that other processes work on.
        """
        self._begin_stage("captions", sum(len(task.inputs["captions"]) for task in texts))
        busy_texts = run(
            self._text, self.plan.text_tasks, self._texts_by(worker), workers=workers, share=share
        )
        files = sum(path is not None for task in clips for path in self.plan.paths(task))
        self._begin_stage("clips", files)
        busy_clips = run(
            self._clips,
            self.plan.clip_tasks,
            self._clips_by(worker),
            workers=workers,
            share=share,
            is_current=self._is_current,
        )
        return busy_texts, busy_clips

    def _begin_stage(self, label: str, total: int) -> None:
        with self._lock:
            self._label, self._done, self._total = label, 0, total
            if total:
                self._progress(label, 0, total)

    def _texts_by(self, worker: DeviceWorker) -> Callable[[Event], AbstractContextManager[Work]]:
        @contextmanager
        def texts(stop: Event) -> Iterator[Work]:
            with worker(stop) as work:
                yield lambda task, folder: work(task.inputs, folder)

        return texts

    def _clips_by(self, worker: DeviceWorker) -> Callable[[Event], AbstractContextManager[Work]]:
        @contextmanager
        def clips(stop: Event) -> Iterator[Work]:
            with worker(stop) as work:
                yield partial(self._clip_task, work)

        return clips

    def _clip_task(self, work: DeviceWork, task: Task, folder: Path) -> Facts:
        inputs = task.inputs
        carried = self._notes.carried(task, inputs)
        stamps = self._notes.stamps(task)
        former = self._clips / task.name
        request = {
            **inputs,
            "paths": self.plan.paths(task),
            "carried": carried,
            "former": str(former.absolute()) if any(carried) else None,
        }
        if self._ride is not None:
            request["scan"] = self._ride.asked(task)
        facts = work(request, folder)
        self._notes.write(task, inputs, folder, stamps, facts.pop("content"))
        return facts

    @contextmanager
    def _devices(self, machines: Machines) -> Iterator[tuple[DeviceWorker, int]]:
        """What lends devices, and how many of them there are."""
        if machines.engine is None:
            jobs = [replace(self.job, device=device) for device in machines.devices]
            with LocalDevices(jobs, self.told) as self.devices:
                yield self.devices.lend, len(jobs)
            return
        size = actor_size(self.job, machines.engine)
        make = partial(remote_device, self.job.as_json())
        yield (
            machines.engine.worker(make, size=size, tell=lambda told: self.told(Effort(**told))),
            machines.workers or machines.engine.room(size),
        )

    def told(self, effort: Effort) -> None:
        """Hear what a device did, from whatever thread, and show it."""
        with self._lock:
            self.effort.add(effort)
            self._done += effort.clips + effort.texts
            label = self._label
            if self.effort.busy_s and self._label == "clips":
                label += f" ({waits(self.effort)})"
            self._progress(label, self._done, self._total)

    # ---- the end ------------------------------------------------------------------------

    def _sealed(self) -> Sealed | None:
        """Seal, where all is done."""
        for stage, tasks in ((self._text, self.plan.text_tasks), (self._clips, self.plan.clip_tasks)):
            with sealing(stage, tasks) as done:
                if not done:
                    return None
        self._progress("index")
        return seal(self.out, patience_s=PATIENCE_S)

    def _counts(self) -> Counts:
        counts = Counts()
        for task in self.plan.clip_tasks:
            if is_done(self._clips, task):
                counts.add(read_record(self._clips / task.name)["counts"])
        counts.check()
        return counts

    def _num_done(self) -> int:
        stages = ((self._text, self.plan.text_tasks), (self._clips, self.plan.clip_tasks))
        return sum(is_done(stage, task) for stage, tasks in stages for task in tasks)


def waits(effort: Effort) -> str:
    """Who waits for whom, in shares of the time that encoders had."""
    encoders, decoders = (
        100 * seconds / effort.busy_s if effort.busy_s else 0.0
        for seconds in (effort.encoder_wait_s, effort.decoder_wait_s)
    )
    return f"encoders wait {encoders:.0f} %, decoders {decoders:.0f} %"
