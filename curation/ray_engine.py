"""Ray: the tasks of a stage done by actors on many machines, instead of by threads of this process.

Ray only carries the work. This process holds the locks, asks which tasks are done and writes their
records, as for any other runner (see `tasks.py`); each of its threads has an actor that fills the folder
of a task. All machines must see the stage and what it is made from at the same paths: a shared file
system.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from curation.errors import FoleyproofError, UsageProblem
from curation.ray_actors import (
    ONE_CPU,
    ActorSize,
    Crew,
    Remote,
    RemoteWork,
    RemoteWorker,
    Tell,
    first_line,
)

_LISTENS_S = 10.0  # that the head of a cluster may take to answer


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
            f"--address {address or 'auto'}: no Ray cluster there ({first_line(error)}), "
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
        self._crews: list[Crew] = []

    def room(self, size: ActorSize = ONE_CPU) -> int:
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
        size: ActorSize = ONE_CPU,
        tell: Tell = lambda told: None,
    ) -> RemoteWorker:
        """A worker whose work is done by an actor, which lives until the connection ends.

        Args:
            make: pickled and called in the actor; what it makes works there.
            tell: told here what the work there tells.
        """

        crew = Crew(self._ray, make, size, tell)
        self._crews.append(crew)

        @contextmanager
        def worker(stop: threading.Event) -> Iterator[RemoteWork]:
            remote = Remote(crew, stop)
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
