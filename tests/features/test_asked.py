"""What `features extract` asks of machines: devices, decoders and the size of actors."""

from types import SimpleNamespace

import pytest

from curation.errors import UsageProblem
from curation.ray_actors import ActorSize
from curation.ray_engine import Engine
from features.extraction.asked import Asked, devices_of, job_of
from features.extraction.remote import actor_size
from features.inputs.prepared import InputConfig
from features.weights.published import WeightChoice


def engine_of(*machines: tuple[float, float]) -> Engine:
    """A connection to machines with so many CPUs and GPUs each."""
    nodes = [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in machines]
    return Engine(SimpleNamespace(nodes=lambda: nodes))


def asked(*devices: str, threads: int = 2, decoders: int | None = None) -> Asked:
    return Asked(
        weights=WeightChoice(untrained_seed=0, tiny=True),
        inputs=InputConfig(sample_rate_hz=16000),
        precision="fp32",
        batch=2,
        shard_rows=3,
        devices=devices or None,
        workers=None,
        threads=threads,
        decoders=decoders,
    )


@pytest.mark.parametrize(
    ("machines", "decoders", "size", "room"),
    [
        ([(64, 8)], 8, ActorSize(num_cpus=8, num_gpus=1), 8),
        ([(0, 0), (96, 8), (64, 8)], 8, ActorSize(num_cpus=8, num_gpus=1), 16),
        ([(4, 8)], 1, ActorSize(num_cpus=0.5, num_gpus=1), 8),
        ([(16, 0), (16, 0)], 1, ActorSize(num_cpus=3), 10),
        ([(2, 0), (1, 0)], 1, ActorSize(num_cpus=2), 1),
    ],
)
def test_actors_are_as_large_as_lets_each_gpu_or_each_few_cores_have_one(
    machines: list[tuple[float, float]], decoders: int, size: ActorSize, room: int
) -> None:
    engine = engine_of(*machines)
    job = job_of(asked(), devices_of(asked(), engine), engine)
    assert job.decoders == decoders
    assert actor_size(job, engine) == size
    assert engine.room(size) == room


def test_decoders_that_were_asked_for_count_in_the_size() -> None:
    engine = engine_of((16, 0))
    job = job_of(asked(threads=1, decoders=3), ["cpu"], engine)
    assert actor_size(job, engine) == ActorSize(num_cpus=4)


def test_decoders_that_were_asked_for_leave_no_gpu_idle() -> None:
    engine = engine_of((64, 8))
    job = job_of(asked(decoders=16), ["cuda:0"], engine)
    assert (job.decoders, engine.room(actor_size(job, engine))) == (16, 8)


@pytest.mark.parametrize("devices", [("cuda:0", "cuda:1"), ("cuda:1",), ("cpu", "cpu")])
def test_actors_take_no_list_of_devices(devices: tuple[str, ...]) -> None:
    with pytest.raises(UsageProblem, match="with --engine ray: each actor sees one device"):
        devices_of(asked(*devices), engine_of((64, 8)))
