"""Who does the tasks of `curate duplicates`: here, or in a process of its own for each worker."""

import contextlib
import ctypes
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import FoleyproofError, WorkerLost
from curation.matching.duplicates import NOTHING_STOPPED, Key, Stopped, align, found_table, jobs
from curation.matching.prints import COLUMNS, Prints
from curation.media.fingerprint import CLIPS, ContentReader, fingerprint_folder, read_part
from curation.tasks import Stopped as RunStopped
from curation.tasks import Task, Work, one_thread

if TYPE_CHECKING:
    import pyarrow as pa

FOUND = "found.parquet"
_SIGNALS_S = 0.2  # how long the end of a run may go unseen
_TOLD_EACH = 32  # pairs after which progress is told
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(slots=True, kw_only=True)
class Finder:
    """What every task needs: the held-out side."""

    manifests: Path
    items: frozenset[Key]
    allowed: dict[str, frozenset[str]] | None
    heldout: Prints | None = None
    stopped: Stopped = NOTHING_STOPPED
    train_clips: int | None = None

    def do(
        self,
        parts: list[tuple[str, str]],
        folder: Path,
        tell: Callable[[float], Any],
        may_go_on: Callable[[], Any] = lambda: None,
    ) -> dict[str, int]:
        """Look for the held-out side in these parts of the fingerprints; write what is found."""
        import pyarrow.parquet as pq

        assert self.heldout is not None, "the held-out side was not loaded"
        train = Prints.joined([self._prints(dataset, name) for dataset, name in parts])
        contents = _Contents(self.manifests)
        wanted = jobs(
            self.heldout,
            train,
            stopped=self.stopped,
            test_items=self.items,
            train_clips=self.train_clips,
        )
        found = []
        for number, job in enumerate(wanted):
            if number % _TOLD_EACH == _TOLD_EACH - 1:
                tell(_TOLD_EACH / len(wanted))
            may_go_on()
            verdict = align(job, contents)
            if verdict is not None:
                found.append((job, *verdict))
        tell(len(wanted) % _TOLD_EACH / len(wanted) if wanted else 1.0)
        pq.write_table(found_table(found), folder / FOUND, compression="zstd", compression_level=1)
        return {"aligned": len(wanted), "found": len(found)}

    def _prints(self, dataset: str, name: str) -> Prints:
        path = fingerprint_folder(self.manifests, dataset) / name / CLIPS
        return Prints.of(only_allowed(read_part(path, list(COLUMNS))[1], self.allowed))


class _Contents(dict[str, ContentReader]):
    """The readers of the datasets that are asked for."""

    def __init__(self, manifests: Path) -> None:
        super().__init__()
        self._manifests = manifests

    def __missing__(self, dataset: str) -> ContentReader:
        self[dataset] = reader = ContentReader(self._manifests, dataset)
        return reader


def only_allowed(table: "pa.Table", allowed: dict[str, frozenset[str]] | None) -> "pa.Table":
    """The rows of clips that are in the comparison."""
    if allowed is None or not len(table):
        return table
    keys = zip(table["dataset"].to_pylist(), table["clip_id"].to_pylist(), strict=True)
    return table.filter([clip_id in allowed.get(dataset, ()) for dataset, clip_id in keys])


@contextlib.contextmanager
def finding(
    finder: Finder, stop: threading.Event, *, apart: bool, tell: Callable[[float], Any]
) -> Iterator[Work]:
    """What does a task: in a process that ends with the block if `apart`, else here."""
    if not apart:
        yield partial(_here, finder, stop, tell)
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, finder), daemon=True)
    one_thread()
    process.start()
    theirs.close()
    try:
        yield partial(_there, ours, stop, tell)
    finally:
        ours.close()
        process.kill()
        process.join()


def _parts(task: Task) -> list[tuple[str, str]]:
    return [(dataset, name) for dataset, name in task.inputs["parts"]]


def _here(
    finder: Finder, stop: threading.Event, tell: Callable[[float], Any], task: Task, folder: Path
) -> dict[str, Any]:
    def may_go_on() -> None:
        if stop.is_set():
            raise RunStopped

    return finder.do(_parts(task), folder, tell, may_go_on)


def _there(
    pipe: Connection, stop: threading.Event, tell: Callable[[float], Any], task: Task, folder: Path
) -> dict[str, Any]:
    try:
        pipe.send((_parts(task), folder))
        while True:
            while not pipe.poll(_SIGNALS_S):
                if stop.is_set():
                    raise RunStopped
            kind, value = pipe.recv()
            if kind == "share":
                tell(value)
            elif kind == "error":
                raise value
            else:
                counts: dict[str, Any] = value
                return counts
    except (EOFError, ConnectionError) as error:
        raise WorkerLost(
            f"{task.name}: the process that worked on it died, most often for want of memory, expected "
            "it to end its work — run the same command again with fewer --workers; what is done is kept"
        ) from error


def _serve(pipe: Connection, finder: Finder) -> None:
    """The process: tasks come, counts go, until nobody is there."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    while True:
        try:
            parts, folder = pipe.recv()
        except EOFError:
            return
        try:
            counts = finder.do(parts, folder, lambda share: pipe.send(("share", share)))
            pipe.send(("done", counts))
        except FoleyproofError as error:
            pipe.send(("error", error))
        except Exception:  # our own bug: its traceback goes where it can be read
            pipe.send(("error", RuntimeError(traceback.format_exc())))
