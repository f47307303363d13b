"""Ray: the tasks of a stage done by actors on many machines, instead of by threads of this process.

Ray only carries the work. This process holds the locks, asks which tasks are done and writes their
records, as for any other runner (see `tasks.py`); each of its threads has an actor that fills the folder
of a task. All machines must see the stage and what it is made from at the same paths: a shared file
system. An actor that dies with its machine, or is killed, costs the task it was at: its folder is
emptied, and another actor does it again.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import FoleyproofError, UsageProblem, WorkerLost
from curation.files import disk_space, remove
from curation.tasks import Stopped

_TRIES = 4  # of a task whose actors die
_LOOKS_S = 0.2  # how often the end of the run, and of the work, is looked for
_TELLS_S = 2.0  # how often an actor is asked how far it is
_LISTENS_S = 10.0  # that the head of a cluster may take to answer
_START_S = 300.0  # that a cluster may need to find room for an actor

Tell = Callable[[Any], Any]  # told of work that is done, in whatever form a stage counts it
# As `Work` and `Worker` of tasks, of which these are two; what is given need not be a task.
RemoteWork = Callable[[Any, Path], dict[str, Any]]
RemoteWorker = Callable[[threading.Event], AbstractContextManager[RemoteWork]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSize:
    """What one actor needs."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one machine of a cluster has, whoever uses it just now."""

    num_cpus: float
    num_gpus: float

    def room(self, size: ActorSize) -> int:
        """How many actors of that size it holds: an actor lies on one machine."""
        pairs = ((self.num_cpus, size.num_cpus), (self.num_gpus, size.num_gpus))
        return int(min(has // wanted for has, wanted in pairs if wanted))


@contextmanager
def cluster(address: str | None) -> Iterator["Engine"]:
    """A connection to a Ray cluster.

    Args:
        address: of its head, as `ray start` prints it; `auto` or None: the one this machine is part of.

    Raises:
        FoleyproofError: Ray is not installed.
        UsageProblem: there is no cluster at the address.
    """
    ray = _ray()
    on_end = signal.getsignal(signal.SIGTERM)
    try:
        _look_for(address)
        ray.init(
            address=address or "auto",
            log_to_driver=False,
            configure_logging=False,
            include_dashboard=None,
            namespace=f"foleyproof-{os.getpid()}",
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise UsageProblem(
            f"--address {address or 'auto'}: no Ray cluster there ({_first(error)}), "
            "expected the address that `ray start --head` printed — start one, or leave --engine out"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_end)  # Ray's own would end us as if all were done
    engine = Engine(ray)
    try:
        with redirect_stdout(sys.stderr):  # where Ray's own words on actors that died would go to data
            yield engine
    finally:
        engine.close()
        ray.shutdown()


def _look_for(address: str | None) -> None:
    """Raise OSError where nobody listens: Ray would look for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=_LISTENS_S).close()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise FoleyproofError(
            "--engine ray: Ray is not installed here, expected it on every machine — run: "
            "pip install 'foleyproof[ray]', or leave --engine out for the processes of this machine"
        ) from error
    return ray


class Engine:
    """A cluster that we are connected to."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._crews: list[_Crew] = []

    def room(self, size: ActorSize = ActorSize()) -> int:
        """How many actors of that size the machines of the cluster hold, but at least one."""
        return max(1, sum(machine.room(size) for machine in self.machines()))

    @property
    def num_gpus(self) -> int:
        """Of all machines."""
        return int(sum(machine.num_gpus for machine in self.machines()))

    def machines(self) -> list[Machine]:
        """Those that are up."""
        up = (node["Resources"] for node in self._ray.nodes() if node["Alive"])
        return [Machine(num_cpus=has.get("CPU", 0.0), num_gpus=has.get("GPU", 0.0)) for has in up]

    def worker(
        self,
        make: Callable[[Tell], RemoteWorker],
        *,
        size: ActorSize = ActorSize(),
        tell: Tell = lambda told: None,
    ) -> RemoteWorker:
        """A worker whose work is done by an actor, which lives until the connection ends.

        Args:
            make: pickled and called in the actor; what it makes works there.
            tell: told here what the work there tells.
        """

        crew = _Crew(self._ray, make, size, tell)
        self._crews.append(crew)

        @contextmanager
        def worker(stop: threading.Event) -> Iterator[RemoteWork]:
            remote = _Remote(crew, stop)
            try:
                yield remote.work
            except BaseException:
                remote.close()
                raise
            remote.leave()

        return worker

    def close(self) -> None:
        """End all actors."""
        for crew in self._crews:
            crew.close()


class _Actor:
    """What runs on the other machine; one task at a time, and a thread that answers questions."""

    def __init__(self, make: Callable[[Tell], RemoteWorker]) -> None:
        self._told: deque[Any] = deque()  # written by the work, emptied by questions
        self._stack = ExitStack()
        self._make = make
        self._work: RemoteWork | None = None

    def pid(self) -> int:
        """Of its process; an answer says that it began."""
        return os.getpid()

    def told(self) -> list[Any]:
        """What was told since this was asked last."""
        return [self._told.popleft() for _ in range(len(self._told))]

    def work(self, given: Any, folder: str) -> tuple[dict[str, Any] | None, FoleyproofError | None]:
        """What goes into the record of a task, or the error that the user should see."""
        try:
            with disk_space(Path(folder)):
                if self._work is None:
                    worker = self._make(self._told.append)
                    self._work = self._stack.enter_context(worker(threading.Event()))
                return self._work(given, Path(folder)), None
        except FoleyproofError as error:  # of Ray's own errors only a traceback would come back
            return None, error


class _Crew:
    """The actors of one kind: those that somebody gives work, and those that are free for it."""

    def __init__(
        self,
        ray: Any,
        make: Callable[[Tell], RemoteWorker],
        size: ActorSize,
        tell: Tell,
    ) -> None:
        self.ray, self.make, self.size, self.tell = ray, make, size, tell
        self.at_work: set[Any] = set()  # they began; several threads add and discard
        self._free: deque[Any] = deque()

    def asked_for(self) -> Any:
        """An actor that begins once there is room for it."""
        kind = self.ray.remote(
            num_cpus=self.size.num_cpus,
            num_gpus=self.size.num_gpus,
            max_restarts=0,  # which task it was at is known here alone
            max_concurrency=2,  # the work, and questions
        )(_Actor)
        return kind.remote(self.make)

    def take(self) -> Any:
        """A free actor; None: there is none."""
        try:
            actor = self._free.pop()
        except IndexError:
            return None
        self.at_work.add(actor)
        return actor

    def leave(self, actor: Any) -> None:
        """Let others have an actor."""
        self._free.append(actor)
        self.at_work.discard(actor)

    def end(self, actor: Any) -> None:
        """End an actor, and all processes it started."""
        self.at_work.discard(actor)
        self.ray.kill(actor)

    def close(self) -> None:
        """End all of them."""
        for actor in (*self._free, *self.at_work):
            self.end(actor)


class _Remote:
    """An actor, and another where it dies; for one thread."""

    def __init__(self, crew: _Crew, stop: threading.Event) -> None:
        self._ray, self._crew, self._stop = crew.ray, crew, stop
        self._actor: Any = None

    def work(self, given: Any, folder: Path) -> dict[str, Any]:
        """Have the task done, by as many actors one after another as it takes."""
        for tried in range(1, _TRIES + 1):
            try:
                facts, error = self._once(given, folder)
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.WorkerCrashedError) as lost:
                self.close()
                if tried == _TRIES:
                    raise WorkerLost(
                        f"{folder}: {tried} actors died at it ({_first(lost)}), "
                        "expected one to end — look at memory and the logs of Ray, and run the same "
                        "command again; what is done is kept"
                    ) from lost
                for path in folder.iterdir():
                    remove(path)
                continue
            if error is not None:
                raise error
            assert facts is not None, "an actor answers with facts or an error"
            return facts
        raise AssertionError("the last try returns or raises")

    def _once(self, given: Any, folder: Path) -> tuple[dict[str, Any] | None, FoleyproofError | None]:
        actor = self._actor or self._started()
        answer = actor.work.remote(given, str(folder.resolve()))
        asked_s = time.monotonic()
        while True:
            ready, _ = self._ray.wait([answer], timeout=_LOOKS_S)
            if self._stop.is_set():
                self.close()
                raise Stopped
            if ready or time.monotonic() - asked_s > _TELLS_S:
                for told in self._ray.get(actor.told.remote()):
                    self._crew.tell(told)
                asked_s = time.monotonic()
            if ready:
                found: tuple[dict[str, Any] | None, FoleyproofError | None] = self._ray.get(answer)
                return found

    def _started(self) -> Any:
        """An actor that is free, or a new one; where there is no room, whichever comes first.

        As long as others work, one waits: they come free when no task is left but those that wait.
        """
        crew = self._crew
        self._actor = crew.take()
        if self._actor is not None:
            return self._actor
        self._actor = crew.asked_for()
        begins = self._actor.pid.remote()
        idle_s = time.monotonic()
        while not self._ray.wait([begins], timeout=_LOOKS_S)[0]:
            if self._stop.is_set():
                self.close()
                raise Stopped
            if (free := crew.take()) is not None:
                self.close()
                self._actor = free
                return free
            if crew.at_work:
                idle_s = time.monotonic()
            elif time.monotonic() - idle_s > _START_S:
                self.close()
                raise WorkerLost(
                    f"no room for an actor with {crew.size.num_cpus:g} CPUs and "
                    f"{crew.size.num_gpus:g} GPUs within {_START_S:.0f} s, expected it on one machine "
                    "of the cluster — give fewer --threads or --decoders, or a cluster with room"
                )
        crew.at_work.add(self._actor)
        self._ray.get(begins)
        return self._actor

    def leave(self) -> None:
        """Let another thread have the actor."""
        actor, self._actor = self._actor, None
        if actor is not None:
            self._crew.leave(actor)

    def close(self) -> None:
        """End the actor, and all processes it started."""
        actor, self._actor = self._actor, None
        if actor is not None:
            self._crew.end(actor)


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
