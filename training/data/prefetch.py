"""A thread that works ahead of a loop, in a ring of buffers that are filled again and again.

free ──▶ thread fills ──▶ ready ──▶ the loop has it ──▶ free, when the loop asks for the next
"""

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Generic, Self, TypeVar

from curation.closing import Closing
from curation.errors import FoleyproofError, ManifestChanged

Plan = TypeVar("Plan")
Buffers = TypeVar("Buffers")
Filled = TypeVar("Filled")


class Prefetch(Closing, Generic[Plan, Buffers, Filled]):
    """An iterator over what `fill` makes of each plan, in their order; a thread fills ahead.

    What it gives is valid until the next is asked for. An error in the thread is raised by `next`, in
    the place of what it should have made, and again by each `next` after it. The thread ends when the
    plans do, after an error, by `close`, and when the iterator is gone.

    Attributes:
        waited_s: how long `next` has taken, altogether.
    """

    def __init__(
        self,
        plans: Iterable[Plan],
        fill: Callable[[Plan, Buffers], Filled],
        ring: Sequence[Buffers],
    ) -> None:
        self.waited_s = 0.0
        self._in_use: Buffers | None = None
        self._failed: BaseException | None = None
        self._free: SimpleQueue[Buffers | None] = SimpleQueue()
        self._ready: SimpleQueue[tuple[Buffers, Filled] | BaseException] = SimpleQueue()
        for buffers in ring:
            self._free.put(buffers)
        stop = threading.Event()
        # of the iterator itself the thread knows nothing, so that it can go while the thread runs
        thread = threading.Thread(
            target=_work,
            args=(plans, fill, self._free, self._ready, stop),
            name="prefetch",
            daemon=True,
        )
        self._end = weakref.finalize(self, _end, thread, self._free, stop)
        thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Filled:
        if self._failed is not None:
            raise self._failed
        if not self._end.alive:
            raise StopIteration
        begun = time.perf_counter()
        if self._in_use is not None:
            self._free.put(self._in_use)
            self._in_use = None
        found = self._ready.get()
        self.waited_s += time.perf_counter() - begun
        if isinstance(found, BaseException):
            self.close()
            if not isinstance(found, _NoMore):
                self._failed = found
                raise found
            raise StopIteration
        self._in_use, filled = found
        return filled

    def close(self) -> None:
        """End the thread; it finishes what it fills at the moment."""
        self._end()

    def leave(self, error: BaseException | None) -> None:
        """Close it."""
        self.close()


class _NoMore(Exception):
    """The plans have ended."""


def _work(
    plans: Iterable[Plan],
    fill: Callable[[Plan, Buffers], Filled],
    free: "SimpleQueue[Buffers | None]",
    ready: "SimpleQueue[tuple[Buffers, Filled] | BaseException]",
    stop: threading.Event,
) -> None:
    """What the thread does."""
    try:
        for plan in plans:
            buffers = free.get()
            if buffers is None or stop.is_set():
                return
            ready.put((buffers, fill(plan, buffers)))
        ready.put(_NoMore())
    except FoleyproofError as error:
        ready.put(error)
    except OSError as error:
        ready.put(_unreadable(error))
    except BaseException as error:  # the boundary of a worker: the loop is told of our mistakes too
        ready.put(error)


def _unreadable(error: OSError) -> ManifestChanged:
    """What is said of a shard that the system does not give."""
    changed = ManifestChanged(
        f"{error.filename or 'a file of the shards'}: cannot be read ({error.strerror or error}), "
        "expected it to stay as it was when training began — bring it back and start the same command "
        "again, which goes on from the last checkpoint"
    )
    changed.__cause__ = error
    return changed


def _end(thread: threading.Thread, free: "SimpleQueue[Buffers | None]", stop: threading.Event) -> None:
    stop.set()
    free.put(None)
    if thread is not threading.current_thread():  # where the last reference was the thread's own
        thread.join()
