"""Actors of Ray: what runs on the other machines, and who gives it tasks; see `ray_engine.py`.

An actor that dies with its machine, or is killed, costs the task it was at: its folder is emptied, and
another actor does it again.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import FoleyproofError, WorkerLost
from curation.files import disk_space, remove
from curation.tasks import Stopped

_TRIES = 4  # of a task whose actors die
_LOOKS_S = 0.2  # how often the end of the run, and of the work, is looked for
_TELLS_S = 2.0  # how often an actor is asked how far it is
_START_S = 300.0  # that a cluster may need to find room for an actor

Told = int | dict[str, float]  # of work that is done: numbers that add up
Tell = Callable[[Any], Any]  # hears `Told`
# As `Work` and `Worker` of tasks, of which these are two; what is given need not be a task.
RemoteWork = Callable[[Any, Path], dict[str, Any]]
RemoteWorker = Callable[[threading.Event], AbstractContextManager[RemoteWork]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSize:
    """What one actor needs."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0


ONE_CPU = ActorSize()


class Actor:
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


class Crew:
    """The actors of one kind: those that somebody gives work, and those that are free for it."""

    def __init__(
        self,
        ray: Any,
        make: Callable[[Tell], RemoteWorker],
        size: ActorSize,
        tell: Tell,
    ) -> None:
        self.ray, self.size, self.tell = ray, size, tell
        self.at_work: set[Any] = set()  # they began; several threads add and discard
        self._free: deque[Any] = deque()
        self._make = ray.put(make)  # lives as long as this reference to it; actors get what is behind it
        self._kind = ray.remote(
            num_cpus=size.num_cpus,
            num_gpus=size.num_gpus,
            max_restarts=0,  # which task it was at is known here alone
            max_concurrency=2,  # the work, and questions
        )(Actor)

    def asked_for(self) -> Any:
        """An actor that begins once there is room for it."""
        return self._kind.remote(self._make)

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

    def no_room(self, why: str) -> WorkerLost:
        """What to say where an actor cannot begin."""
        return WorkerLost(
            f"no room for an actor with {self.size.num_cpus:g} CPUs and {self.size.num_gpus:g} GPUs "
            f"({why}), expected it on one machine of the cluster — give fewer --threads or --decoders, "
            "or a cluster with room"
        )

    def close(self) -> None:
        """End all of them."""
        for actor in (*self._free, *self.at_work):
            self.end(actor)


class Remote:
    """An actor, and another where it dies; for one thread."""

    def __init__(self, crew: Crew, stop: threading.Event) -> None:
        self._ray, self._crew, self._stop = crew.ray, crew, stop
        self._actor: Any = None
        self._told: list[Told] = []  # of the task at hand, by the present actor

    def work(self, given: Any, folder: Path) -> dict[str, Any]:
        """Have the task done, by as many actors one after another as it takes.

        Of Ray's errors two are no loss: what our code raised there, a mistake of ours, passes as it is,
        and an actor that can never begin is not asked for again. All others, whoever is asked what, say
        that the actor is gone: with its process, its machine or its answer, or ended for its memory.
        """
        errors = self._ray.exceptions
        for tried in range(1, _TRIES + 1):
            try:
                facts, error = self._once(given, folder)
            except (errors.RayTaskError, errors.UnserializableException):
                raise
            except errors.ActorUnschedulableError as never:
                self.close()
                raise self._crew.no_room(first_line(never)) from never
            except errors.RayError as lost:
                self.close()
                for told in self._told:  # it is to be done again
                    self._crew.tell(_taken_back(told))
                if tried == _TRIES:
                    raise WorkerLost(
                        f"{folder}: {tried} actors died at it ({first_line(lost)}), "
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
        self._told = []
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
                    self._told.append(told)
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
                raise crew.no_room(f"waited {_START_S:.0f} s")
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


def _taken_back(told: Told) -> Told:
    return -told if isinstance(told, int) else {name: -value for name, value in told.items()}


def first_line(error: BaseException) -> str:
    """Of what an error says."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
