"""Decode processes that feed the encoders: clips in, inputs out, in order and bounded.

    requests ──▶ at most `ahead` clips under way or waiting ──▶ (request, prepared), in the same order
                 each is prepared in one of `processes` children, by one thread each

A clip that hangs, takes too much memory or crashes its child costs itself alone: it gets a reason, and
the next clip a new child. What waits for whom is told: `waited_s` of the children for room in the
look-ahead, `starved_s` of the caller for a clip.
"""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace

from curation.media.answer import read_answer
from curation.media.decoder import Child, Pipe, Trade
from curation.tasks import Stopped
from curation.verdict import BY_MACHINE
from features.inputs.answer import read_prepared, request_line
from features.inputs.prepared import InputConfig, Part, Prepared, Request
from features.inputs.room import Layout, Room, Rooms, Views

__all__ = ["Feed", "InputConfig", "Part", "Prepared", "Preparer", "Request", "feed"]
_SIGNALS_S = 0.2  # how long the end of a run may go unseen


class Preparer:
    """One child and the clips it was given; for one thread."""

    def __init__(self, config: InputConfig, rooms: Rooms, stop: threading.Event) -> None:
        self._config, self._rooms, self._layout = config, rooms, Layout(config)
        self._views: Views | None = None
        self._scan = False  # whether a scan was asked for too
        trade = Trade(
            module="features.inputs.child",
            memory_bytes=config.memory_bytes,
            timeout_s=config.timeout_s,
            read=self._read,
            failed=lambda reason, detail: Prepared(reason=reason, detail=detail),
        )
        self._child = Child(trade, stop)

    @property
    def pid(self) -> int | None:
        """The process id of the child, where there is one."""
        return self._child.pid

    def prepare(self, request: Request) -> Prepared:
        """What became of a clip, whatever its file does."""
        room = self._rooms.take()
        self._views = self._layout.views(self._rooms.lend(room))
        try:
            prepared = self._ask(request, room)
            if request.scan and prepared.reason in BY_MACHINE:  # maybe for the scan's sake
                prepared = self._ask(replace(request, scan=False), room)
            if prepared.scan is not None and prepared.scan.reason in BY_MACHINE:
                self._child.close()  # what the other side of the decode left in it
            return prepared
        finally:
            self._views = None

    def _ask(self, request: Request, room: Room) -> Prepared:
        self._scan = request.scan
        return self._child.ask(request_line(request, self._config), (room.file,))

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def _read(self, stream: Pipe) -> Prepared:
        assert self._views is not None, "a clip was asked for"
        prepared = read_prepared(stream, self._views)
        if self._scan:
            prepared.scan = read_answer(stream)
        return prepared


class _Job:
    """A request on its way."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.done = threading.Event()
        self.prepared: Prepared | None = None
        self.error: BaseException | None = None


class Feed(Iterator[tuple[Request, Prepared]]):
    """The clips of one run; ends its children when it is exhausted or closed."""

    def __init__(
        self,
        requests: Iterable[Request],
        config: InputConfig,
        *,
        processes: int,
        stop: threading.Event,
        ahead: int,
    ) -> None:
        self._requests, self._config = iter(requests), config
        self._processes, self._stop, self._ahead = processes, stop, max(ahead, processes)
        self._given_up = threading.Event()
        self._rooms = Rooms(Layout(config).num_bytes)
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.waited_s = 0.0
        self.starved_s = 0.0
        self._answers = self._run()

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> tuple[Request, Prepared]:
        return next(self._answers)

    def close(self) -> None:
        """End the children."""
        self._answers.close()

    def _run(self) -> Generator[tuple[Request, Prepared], None, None]:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._processes)]
        under_way: deque[_Job] = deque()
        try:
            for thread in threads:
                thread.start()
            self._top_up(under_way)
            while under_way:
                job = under_way[0]
                self._await(job)
                under_way.popleft()
                prepared, job.prepared = job.prepared, None
                assert prepared is not None, "it is done"
                self._top_up(under_way)
                answer = job.request, prepared
                del job, prepared
                yield answer
                del answer
        finally:
            self._given_up.set()
            for _ in threads:
                self._waiting.put(None)
            for thread in threads:
                thread.join()
            self._rooms.close()

    def _top_up(self, under_way: deque[_Job]) -> None:
        while len(under_way) < self._ahead:
            request = next(self._requests, None)
            if request is None:
                return
            under_way.append(_Job(request))
            self._waiting.put(under_way[-1])

    def _await(self, job: _Job) -> None:
        begun_s = time.monotonic()
        while not job.done.wait(_SIGNALS_S):
            if self._stop.is_set():
                raise Stopped
        self.starved_s += time.monotonic() - begun_s
        if self._stop.is_set():
            raise Stopped
        if job.error is not None:
            raise job.error

    def _work(self) -> None:
        """Prepare clips in a child of its own until there are no more."""
        with contextlib.closing(Preparer(self._config, self._rooms, self._given_up)) as preparer:
            while (job := self._next()) is not None:
                try:
                    job.prepared = preparer.prepare(job.request)
                except BaseException as error:
                    job.error = error
                job.done.set()

    def _next(self) -> _Job | None:
        begun_s = time.monotonic()
        job = self._waiting.get()
        if job is not None:
            with self._lock:
                self.waited_s += time.monotonic() - begun_s
        return None if self._given_up.is_set() else job


def feed(
    requests: Iterable[Request],
    config: InputConfig,
    *,
    processes: int,
    stop: threading.Event,
    ahead: int,
) -> Feed:
    """The inputs of all clips, in the order of the requests.

    At most `ahead` clips (at least one for each process) are under way or waiting for the caller, 60 MB
    each with pictures; arrays that the caller keeps are memory of their own.

    Raises:
        Stopped: `stop` was set.
    """
    return Feed(requests, config, processes=processes, stop=stop, ahead=ahead)
