"""Whether data come fast enough, said before a run begins: a short trial of its own first batches."""

import time
from dataclasses import dataclass

import numpy as np

from curation.tables import size_text
from features.shards import ShardReader
from features.store.shard_file import ITEM_BYTES, columns_of, spec_of
from training.config import TrainConfig
from training.data.batches import Batches
from training.data.mixture import Mixture

_MARGIN = 0.99  # waiting for data is to be less than a hundredth of the time


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What one rank's data came to, while all ranks of a machine tried at once."""

    sample_bytes: float  # that shards give for a sample, the mean of an epoch
    samples_per_s: float

    @property
    def bytes_per_s(self) -> float:
        """That were read."""
        return self.sample_bytes * self.samples_per_s

    def limits(self, needed_samples_per_s: float) -> bool:
        """Whether a network that fast would wait for data."""
        return self.samples_per_s * _MARGIN < needed_samples_per_s

    def sentence(self, needed_samples_per_s: float) -> str:
        """What was measured beside what a rank needs, with a warning where that is more."""
        needed = self.sample_bytes * needed_samples_per_s
        said = (
            f"data: {size_text(round(self.sample_bytes))} a sample, {_rate(self.bytes_per_s)} measured "
            f"({self.samples_per_s:,.0f} samples/s), {_rate(needed)} needed for "
            f"{needed_samples_per_s:,.0f} samples/s"
        )
        if not self.limits(needed_samples_per_s):
            return said
        return (
            f"{said}: data will be the limit — put the shards on a faster disk or into memory that is "
            "free, or give the process more cores"
        )


def measure(
    reader: ShardReader,
    mixture: Mixture,
    config: TrainConfig,
    *,
    rank: int = 0,
    world: int = 1,
    first_step: int = 0,
    seconds: float = 1.0,
) -> Throughput:
    """Make the first batches of a run for about so long, and throw them away."""
    with Batches(reader, mixture, config, rank=rank, world=world, first_step=first_step) as batches:
        next(batches)  # what comes once, such as the order of an epoch, is not what is asked
        samples, begun, taken = 0, time.perf_counter(), 0.0
        while taken < seconds:
            samples += len(next(batches).rows)
            taken = time.perf_counter() - begun
    return Throughput(sample_bytes=mean_sample_bytes(reader, mixture), samples_per_s=samples / taken)


def mean_sample_bytes(reader: ShardReader, mixture: Mixture) -> float:
    """What shards give for a sample, the mean of an epoch: rows without pictures give less."""
    spec = spec_of(reader.about)
    size = {
        kind: ITEM_BYTES * sum(int(np.prod(shape)) for shape in columns_of(kind, spec).values())
        for kind in ("av", "audio", "text")
    }
    entries = sum(part.entries * (size[part.kind] + size["text"]) for part in mixture.parts)
    return entries / len(mixture)


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e9:.2f} GB/s"
