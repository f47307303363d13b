"""The devices of other machines, by actors of Ray."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curation.ray_engine import ActorSize
from features.job import Facts, Job

Work = Callable[[dict[str, Any], Path], Facts]


def actor_size(job: Job) -> ActorSize:
    """What an actor needs of its machine: its decoders beside a GPU, else threads for its encoders."""
    if job.device.startswith("cuda"):
        return ActorSize(num_cpus=job.decoders, num_gpus=1)
    return ActorSize(num_cpus=job.threads)


def remote_device(
    told: dict[str, Any], tell: Callable[[Any], Any]
) -> Callable[[threading.Event], AbstractContextManager[Work]]:
    """What owns a device in an actor, and is asked as a process of this machine is."""

    @contextmanager
    def device(stop: threading.Event) -> Iterator[Work]:
        from features.encoding import TaskEncoder

        yield TaskEncoder(Job.from_json(told), lambda effort: tell(asdict(effort))).work

    return device
