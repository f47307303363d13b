"""From the words of `features extract` to a plan, a job and the machines for it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curation.errors import UsageProblem
from curation.ray_engine import Engine
from features.extraction.job import Job
from features.extraction.remote import decoders_of
from features.inputs.prepared import InputConfig
from features.weights.published import WeightChoice

MEDIA = Path("media")
_AUDIO_CLIPS = 4  # for each clip with picture that a batch has: sounds are small


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked of extract, as typed; None: whatever fits."""

    weights: WeightChoice
    inputs: InputConfig
    precision: Literal["fp32", "bf16"] | None
    batch: int  # clips with picture that are encoded at once
    shard_rows: int
    devices: Sequence[str] | None
    workers: int | None
    threads: int
    decoders: int | None


def job_of(asked: Asked, devices: Sequence[str], engine: Engine | None = None) -> Job:
    """What all tasks have in common, on devices of one kind."""
    from features.extraction.suite import default_precision

    if engine is None:
        decoders = max(1, len(os.sched_getaffinity(0)) // len(devices))
    else:
        decoders = decoders_of(engine, devices[0])
    return Job(
        sample_rate_hz=asked.inputs.sample_rate_hz,
        weights=asked.weights,
        precision=asked.precision or default_precision(devices[0]),
        device=devices[0],
        threads=asked.threads,
        decoders=asked.decoders or decoders,
        video_batch=asked.batch,
        audio_batch=asked.batch * _AUDIO_CLIPS,
        inputs=asked.inputs,
        shard_rows=asked.shard_rows,
    )


def devices_of(asked: Asked, engine: Engine | None) -> list[str]:
    """A device for each worker of this machine; of Ray, whose actors see one each, its kind.

    Raises:
        UsageProblem: there is no such device, or devices are of several kinds, or of several actors.
    """
    import torch

    num_gpus = torch.cuda.device_count() if engine is None else engine.num_gpus
    named = list(asked.devices or ())
    if engine is not None and (len(named) > 1 or not {*named} <= {"cpu", "cuda", "cuda:0"}):
        raise UsageProblem(
            f"--devices {','.join(named)} with --engine ray: each actor sees one device, expected cpu "
            "or cuda — give one of them; --workers says how many actors work"
        )
    if not named:
        if engine is not None:
            return ["cuda:0" if num_gpus else "cpu"]
        named = [f"cuda:{number}" for number in range(num_gpus)] or ["cpu"]
    kinds = {name.partition(":")[0] for name in named}
    known = {"cpu", "cuda", *(f"cuda:{number}" for number in range(num_gpus))}
    if len(kinds) > 1 or not set(named) <= known or (kinds == {"cuda"} and not num_gpus):
        raise UsageProblem(
            f"--devices {','.join(named)}: expected cpu, or some of the {num_gpus} GPUs here, as "
            "cuda:0,cuda:1: which kind it is decides the last bits — give others"
        )
    if engine is not None:
        return named[:1]
    cores = len(os.sched_getaffinity(0))
    by_itself = len(named) if kinds == {"cuda"} else max(1, cores // asked.threads)
    return [named[number % len(named)] for number in range(asked.workers or by_itself)]


def media_folders(given: Sequence[Path]) -> list[Path]:
    """The media folders, `./media` where none is given.

    Raises:
        UsageProblem: there is none.
    """
    if given or MEDIA.is_dir():
        return list(given) or [MEDIA]
    raise UsageProblem(
        "there is no folder ./media, expected one with the video or sound files of the manifest — say "
        "where they are: the same command with --media DIR"
    )
