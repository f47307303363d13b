"""The devices of other machines, by actors of Ray."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curation.ray_actors import ActorSize
from curation.ray_engine import Engine
from features.extraction.job import Facts, Job

Work = Callable[[dict[str, Any], Path], Facts]


def decoders_of(engine: Engine, device: str) -> int:
    """How many decoders each actor has: beside a GPU its share of the cores, on the poorest machine.

    Encoders on a CPU take seconds a clip, where a decoder takes less than one.
    """
    return max(1, int(_cores_a_gpu(engine))) if device.startswith("cuda") else 1


def actor_size(job: Job, engine: Engine) -> ActorSize:
    """What an actor needs of its machine: cores for its decoders, and a GPU or cores for its encoders.

    None asks for more cores than leaves an actor to every GPU, or than the largest machine has: too many
    decoders share them.
    """
    if job.device.startswith("cuda"):
        return ActorSize(num_cpus=min(job.decoders, _cores_a_gpu(engine)), num_gpus=1)
    wanted = job.decoders + job.threads
    largest = max((machine.num_cpus for machine in engine.machines()), default=wanted)
    return ActorSize(num_cpus=min(wanted, largest))


def _cores_a_gpu(engine: Engine) -> float:
    """Cores for each GPU, on the machine with the fewest; parts of one as Ray counts them."""
    machines = [machine for machine in engine.machines() if machine.num_gpus]
    cores = min((machine.num_cpus / machine.num_gpus for machine in machines), default=1.0)
    return math.floor(cores) if cores >= 1 else math.floor(cores * 10_000) / 10_000


def remote_device(
    told: dict[str, Any], tell: Callable[[Any], Any]
) -> Callable[[threading.Event], AbstractContextManager[Work]]:
    """What owns a device in an actor, and is asked as a process of this machine is."""

    @contextmanager
    def device(stop: threading.Event) -> Iterator[Work]:
        from features.extraction.encoding import TaskEncoder

        yield TaskEncoder(Job.from_json(told), lambda effort: tell(asdict(effort))).work

    return device
