"""How much a run computes, how long that takes, and how long it took the paper."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from training.config import TrainConfig
from training.model.flops import parts, training_flops
from training.model.variants import variant_named

# What steps reached, by width: on one H200 (results/gpu_training_*.json), and on two cores of a CPU in
# fp32 (results/training_network_2.json). Of other widths it is a guess.
_ON_GPU, _ON_CPU = {448: 0.376, 896: 0.398}, {448: 0.91}
_OTHERS = 0.3
_MEASURED_OF = {448: "S-16k", 896: "L-44k"}  # by width
_MEASURED = ("small_16k", "large_44k")
_LIKE_IT = ("H100", "H200", "NVIDIA H200")  # of the same rate
MFUS = (0.4, 0.5)  # at which hours are always told
_STEPS, _BATCH, _H100_FLOPS = 300_000, 512, 989.4e12  # of the paper's runs


def sample_flops(config: TrainConfig, *, duration_s: float = 8.0) -> int:
    """Operations of a sample, forward and backward, by `model.flops`."""
    return training_flops(
        parts(variant_named(config.variant), duration_s=duration_s, switches=config.switches),
        frozen=config.freeze,
        adapters_alone=config.lora_rank > 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A row of the paper's Table A7: H100 were used, for 300,000 steps of 512 samples each."""

    gpus: int
    hours: int
    variant: str

    @property
    def gpu_hours(self) -> int:
        """Of all GPUs together."""
        return self.gpus * self.hours

    @property
    def samples_per_s(self) -> float:
        """On all GPUs."""
        return _STEPS * _BATCH / (self.hours * 3600)

    @property
    def mfu(self) -> float:
        """The share of the peak that follows, if nothing but training was done in these hours."""
        work = training_flops(parts(variant_named(self.variant)))
        return work * self.samples_per_s / (_H100_FLOPS * self.gpus)


# Source: arXiv:2412.15322, Table A7; of the v2 network nothing is published.
TABLE_A7 = {
    "small_16k": Published(gpus=2, hours=22, variant="small_16k"),
    "small_44k": Published(gpus=2, hours=26, variant="small_44k"),
    "medium_44k": Published(gpus=8, hours=21, variant="medium_44k"),
    "large_44k": Published(gpus=8, hours=38, variant="large_44k"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A share of the peak (MFU), and why it is expected."""

    mfu: float
    why: str


def expected_mfu(
    config: TrainConfig, stats: list[dict[str, Any]], device: str, *, on_gpu: bool = True
) -> Expected:
    """What a run is expected to reach: what it reached on this device so far, else what others did.

    Args:
        stats: lines of the run's stats.jsonl.
        device: by the name it has there.
    """
    measured, here = [], False
    for line in stats:
        if line["kind"] == "begin":
            here = line.get("device") == device
        elif here and line["kind"] == "training" and line.get("mfu_percent"):
            measured.append(line["mfu_percent"] / 100)
    if measured:
        return Expected(mfu=median(measured), why="the median of what this run has reached so far")
    width = variant_named(config.variant).width
    known = (_ON_GPU if on_gpu else _ON_CPU).get(width)
    if known is None:
        return Expected(mfu=_OTHERS, why="a guess: of networks this wide nothing was measured")
    where = "one H200" if on_gpu else "two cores of a CPU"
    is_same = (config.variant in _MEASURED) and (not on_gpu or device in _LIKE_IT)
    why = f"{'' if is_same else 'assumed: '}{_MEASURED_OF[width]} was measured on {where}"
    why += "; the paper's runs reached 18 to 25 %" if on_gpu else ""
    if config.activation_checkpointing:  # of four parts of the work, one is not counted in MFU
        return Expected(mfu=known * 3 / 4, why=f"{why}; less, as blocks are computed twice")
    return Expected(mfu=known, why=why)


def hours(config: TrainConfig, *, flops: int, peak_flops: float, ranks: int, mfu: float) -> float:
    """Of all steps, at this share of the peak."""
    return config.steps * config.batch * flops / (peak_flops * ranks * mfu) / 3600
