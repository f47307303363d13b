"""A stage as a list of shard tasks, each done once, by whom and in whatever order.

A task is plain data: its inputs, from which all that it writes follows, and their digest, its key. It
fills a folder that appears whole, with the completion record `task.json` written last. The records are
the truth about what is done: a run that was killed is continued by running it again, and several runs,
also on several machines, may share the work, since each task has a lock of its own.

    <stage>/.lock                  a byte of it is locked for each task that somebody works on
    <stage>/00003-of-00008/        the outputs of a task and its record
    <stage>/00003-of-00008.tmp-task        … being made; whoever has the lock may remove it
"""

import contextlib
import fcntl
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from curation.errors import Locked
from curation.files import digest_of, disk_space, fsync, remove, sha256_file

RECORD = "task.json"
_STAGED, _FORMER = ".tmp-task", ".former.tmp-task"
_SEAL = 1 << 40  # the byte that is locked by whoever looks whether all is done
_SEAL_S = 60.0  # that one waits for another who looks; longer has the one who seals
_SIGNALS_S = 0.1  # how long a signal may go unseen


@dataclass(frozen=True)
class Task:
    """One of `count` parts of a stage, by plain data that JSON can hold."""

    index: int
    count: int
    inputs: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.index:05d}-of-{self.count:05d}"

    @cached_property
    def key(self) -> str:
        """The digest of its inputs: equal keys, equal bytes."""
        return digest_of(self.inputs)


Work = Callable[[Task, Path], dict[str, Any]]  # fills a folder; what it returns goes into the record
# What a worker holds while it works, such as a process of its own; the event says that it shall stop.
Worker = Callable[[threading.Event], AbstractContextManager[Work]]


class Stopped(Exception):
    """The run ends before its work is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which tasks a process does, of `count` that share a stage: those with index % count == index."""

    index: int = 0
    count: int = 1

    def has(self, task: Task) -> bool:
        """Whether it does this one."""
        return task.index % self.count == self.index


ALL = Share()


def one_thread() -> None:
    """Let NumPy, where it is loaded from now on, multiply in one thread: there is a worker a core."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def read_record(folder: Path) -> dict[str, Any]:
    """The completion record of a task's folder, empty where it is not whole."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.get("digest") != digest_of(record):
            return {}
        sizes = {name: entry["bytes"] for name, entry in record["outputs"].items()}
        if any((folder / name).stat().st_size != size for name, size in sizes.items()):
            return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return record


def is_done(stage: Path, task: Task) -> bool:
    """Whether its outputs are there, made from these inputs."""
    return read_record(stage / task.name).get("key") == task.key


def part_folders(stage: Path) -> list[Path]:
    """The folders of finished tasks, of whatever layout, by name."""
    if not stage.is_dir():
        return []
    names = (path for path in stage.iterdir() if "-of-" in path.name and ".tmp-" not in path.name)
    return sorted(path for path in names if (path / RECORD).is_file())


def run(
    stage: Path,
    tasks: Sequence[Task],
    worker: Worker,
    *,
    workers: int = 1,
    share: Share = ALL,
    is_current: Callable[[Task], bool] = lambda task: True,
) -> list[Task]:
    """Do the tasks of this share that are not done.

    Args:
        worker: makes what does them, once for each of the `workers` threads.
        is_current: whether what a finished task was made from is still so, beside its inputs.

    Returns:
        The tasks of the share that another process works on just now.

    Raises:
        NoSpace, NotWritable: nothing is half written.
    """
    mine = [task for task in tasks if share.has(task)]
    with disk_space(stage):
        stage.mkdir(parents=True, exist_ok=True)
    with _Locks(stage) as locks:
        waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        for task in mine:
            waiting.put(task)
        pool = _Pool(stage, waiting, worker, locks, is_current)
        pool.run(max(1, min(workers, len(mine))))
        return sorted(pool.busy, key=lambda task: task.index)


class _Pool:
    """Threads that take tasks from a queue until it is empty or one of them fails."""

    def __init__(
        self,
        stage: Path,
        waiting: "queue.SimpleQueue[Task]",
        worker: Worker,
        locks: "_Locks",
        is_current: Callable[[Task], bool],
    ) -> None:
        self._stage, self._waiting, self._worker = stage, waiting, worker
        self._locks, self._is_current = locks, is_current
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self.busy: list[Task] = []

    def run(self, workers: int) -> None:
        # Ends are waited for by events: a join that a signal interrupts takes its thread for ended.
        ends = [threading.Event() for _ in range(workers)]
        threads = [threading.Thread(target=self._work, args=(end,), daemon=True) for end in ends]
        try:
            for thread in threads:
                thread.start()
            for end in ends:
                while not end.wait(_SIGNALS_S):
                    pass
        finally:  # also by a signal: what they hold must end before we do
            self._stop.set()
            for thread, end in zip(threads, ends, strict=True):
                while not end.wait(_SIGNALS_S) and thread.ident is not None:
                    pass
        if self._errors:
            raise self._errors[0]

    def _work(self, end: threading.Event) -> None:
        try:
            with contextlib.ExitStack() as held:
                work: Work | None = None
                while not self._stop.is_set():
                    try:
                        task = self._waiting.get_nowait()
                    except queue.Empty:
                        return
                    with self._locks.of(task.index) as locked:
                        if not locked:
                            self.busy.append(task)
                            continue
                        _settle(self._stage, task)
                        if is_done(self._stage, task) and self._is_current(task):
                            continue
                        work = work or held.enter_context(self._worker(self._stop))
                        _do(self._stage, task, work)
        except Stopped:
            pass
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()
        finally:
            end.set()


def _do(stage: Path, task: Task, work: Work) -> None:
    """Fill the folder of a task and let it take its place."""
    target = stage / task.name
    staged, former = (target.with_name(target.name + end) for end in (_STAGED, _FORMER))
    with disk_space(target):
        staged.mkdir()
        facts = work(task, staged)
        names = sorted(path.name for path in staged.iterdir())
        record = {
            **facts,
            "key": task.key,
            "outputs": {
                name: {"sha256": sha256_file(staged / name), "bytes": (staged / name).stat().st_size}
                for name in names
            },
        }
        text = json.dumps({**record, "digest": digest_of(record)}, sort_keys=True, ensure_ascii=False)
        (staged / RECORD).write_text(text + "\n", encoding="utf-8")
        for name in (*names, RECORD):
            fsync(staged / name)
        fsync(staged)
        if target.exists():
            target.rename(former)
        staged.rename(target)
        fsync(stage)
    remove(former)


def _settle(stage: Path, task: Task) -> None:
    """Clear what somebody left who was killed; the folder that was being replaced comes back."""
    target = stage / task.name
    staged, former = (target.with_name(target.name + end) for end in (_STAGED, _FORMER))
    remove(staged)
    if former.is_dir() and not target.exists():
        former.rename(target)
    remove(former)


@contextlib.contextmanager
def sealing(stage: Path, tasks: Sequence[Task]) -> Iterator[bool]:
    """Whether all tasks are done, which the block may then write down; one process at a time does.

    Who comes while another looks waits and looks too: the other may have looked before the last task
    was done. Folders of other layouts, and what is left of killed runs, go when the block has ended.
    """
    with _Locks(stage) as locks, locks.of(_SEAL, patience_s=_SEAL_S) as locked:
        done = locked and all(is_done(stage, task) for task in tasks)
        yield done
        if done:
            _clear(stage, {task.name for task in tasks})


def _clear(stage: Path, names: set[str]) -> None:
    for path in sorted(stage.iterdir()):
        if "-of-" in path.name and path.name.partition(".")[0] not in names:
            remove(path)


def still_busy(stage: Path, busy: Sequence[Task]) -> None:
    """Raise Locked where another process has not finished these tasks by now."""
    if left := [task for task in busy if not is_done(stage, task)]:
        raise Locked(
            f"{stage}: another process works on {len(left)} of its parts ({left[0].name}, …), expected "
            "all to be done — wait until it ends and run the same command again"
        )


class _Locks:
    """Locks on single bytes of one file: they hold across machines, and end with the process."""

    def __init__(self, stage: Path) -> None:
        self._path = stage / ".lock"

    def __enter__(self) -> "_Locks":
        with disk_space(self._path):
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._handle)

    @contextlib.contextmanager
    def of(self, index: int, *, patience_s: float = 0.0) -> Iterator[bool]:
        """Hold the lock of a task; False where another process has it, and keeps it for so long."""
        until_s = time.monotonic() + patience_s
        while not self._taken(index):
            if time.monotonic() >= until_s:
                yield False
                return
            time.sleep(_SIGNALS_S)
        try:
            yield True
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, index)

    def _taken(self, index: int) -> bool:
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
        except (BlockingIOError, PermissionError):
            return False
        return True


def write_sealed(target: Path, value: dict[str, Any]) -> None:
    """Write a record with its digest; for whoever holds the lock of the stage."""
    staged = target.with_name(target.name + _STAGED)
    document = {**value, "digest": digest_of(value)}
    with disk_space(target):
        text = json.dumps(document, sort_keys=True, ensure_ascii=False, indent=1)
        staged.write_text(text + "\n", encoding="utf-8")
        fsync(staged)
        os.replace(staged, target)
        fsync(target.parent)
