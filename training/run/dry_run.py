"""What a run would be: settings, size, work, memory, hours, data; no GPU is needed, and no shards."""

import contextlib
from dataclasses import dataclass
from typing import Any

from curation.tables import number
from features.spec import DURATION_S
from training.config import KEYS, PRESETS, TrainConfig, meaning
from training.keys import text_of
from training.model.flops import forward_flops, parts
from training.model.variants import variant_named
from training.run.asked import Asked, is_sealed
from training.run.machine import Machine
from training.run.memory import estimate, hint, sizes_of
from training.run.stats import read_stats
from training.run.work import MFUS, TABLE_A7, Expected, expected_mfu, hours, sample_flops
from training.state.imported import refuse_no_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is planned, and on what.

    Attributes:
        mfu: the share of the peak that is to be reckoned with; None: what is to be expected.
    """

    config: TrainConfig
    asked: Asked
    machine: Machine
    mfu: float | None = None


def document_of(planned: Planned) -> dict[str, Any]:
    """All of it, as --json prints it.

    Raises:
        UsageProblem: the batch cannot be dealt out to the ranks, the shards that are there are not
            such as the run would take, or files to begin with are not there.
    """
    config, machine = planned.config, planned.machine
    for given in (planned.asked.init, planned.asked.adapters):
        if given is not None:
            refuse_no_file(given)
    data, duration_s = _data(config, planned.asked)
    sizes = sizes_of(config)
    return {
        "model": config.model,
        "settings": config.document(),
        "config_digest": config.digest(),
        "parameters": {"all": sizes.all, "trained": sizes.trained},
        "flops": _flops(config, duration_s),
        "machine": {
            "name": machine.name,
            "ranks": machine.ranks,
            "is_gpu": machine.is_gpu,
            "peak_flops": machine.peak_flops,
            "peak_from": machine.peak_from,
            "memory_bytes": machine.memory_bytes,
        },
        "memory": _memory(planned, duration_s),
        "time": _time(planned, duration_s),
        "paper": _paper(config),
        "data": data,
        "notes": list(_notes(config, planned.asked)),
    }


def settings_rows(config: TrainConfig) -> list[tuple[str, str, str]]:
    """The key, value and meaning of each setting; what is not the preset's says what that has."""
    preset = PRESETS[config.model]
    rows = []
    for key in KEYS:
        value, usual = getattr(config, key), getattr(preset, key)
        other = "" if value == usual else f" (the preset has {text_of(usual) or 'nothing'})"
        rows.append((key, text_of(value) or "nothing", meaning(key) + other))
    return rows


def _flops(config: TrainConfig, duration_s: float) -> dict[str, Any]:
    variant = variant_named(config.variant)
    products = parts(variant, duration_s=duration_s, switches=config.switches)
    groups: dict[str, int] = {}
    for product in products:
        groups[product.group] = groups.get(product.group, 0) + product.forward
    sample = sample_flops(config, duration_s=duration_s)
    return {
        "duration_s": duration_s,
        "sample_forward": forward_flops(products),
        "sample_forward_by_group": groups,
        "sample": sample,
        "run": sample * config.batch * config.steps,
    }


def _memory(planned: Planned, duration_s: float) -> dict[str, Any]:
    config, machine = planned.config, planned.machine
    need = estimate(config, ranks=machine.ranks, duration_s=duration_s, on_gpu=machine.is_gpu)
    fits, advice = need.total <= machine.memory_bytes, None
    if not fits:
        advice = hint(
            config, ranks=machine.ranks, memory_bytes=machine.memory_bytes, duration_s=duration_s,
            on_gpu=machine.is_gpu,
        )  # fmt: skip
    return {
        "parts_bytes": need.parts,
        "total_bytes": need.total,
        "there_bytes": machine.memory_bytes,
        "micro_batch": need.micro_batch,
        "passes_per_step": config.batch // machine.ranks // need.micro_batch,
        "fits": fits,
        "hint": advice,
    }


def _time(planned: Planned, duration_s: float) -> list[dict[str, Any]]:
    """At what is expected, and at round shares of the peak; nothing where no peak is known."""
    config, machine = planned.config, planned.machine
    if machine.peak_flops is None:
        return []
    flops = sample_flops(config, duration_s=duration_s)
    if planned.mfu is None:
        stats = read_stats(planned.asked.run)
        expected = expected_mfu(config, stats, machine.name, on_gpu=machine.is_gpu)
    else:
        expected = Expected(mfu=planned.mfu, why="as --mfu says")
    rows = [expected, *(Expected(mfu=mfu, why="") for mfu in MFUS if mfu != expected.mfu)]
    found = []
    for row in rows:
        taken = hours(
            config, flops=flops, peak_flops=machine.peak_flops, ranks=machine.ranks, mfu=row.mfu
        )
        found.append(
            {
                "mfu": row.mfu,
                "why": row.why,
                "samples_per_s": config.steps * config.batch / taken / 3600,
                "hours": taken,
                "gpu_hours": taken * machine.ranks,
            }
        )
    return found


def _paper(config: TrainConfig) -> dict[str, Any] | None:
    row = TABLE_A7.get(config.variant)
    if row is None:
        return None
    return {
        "table": "A7",
        "machine": f"{row.gpus} x H100",
        "mfu": row.mfu,
        "samples_per_s": row.samples_per_s,
        "hours": row.hours,
        "gpu_hours": row.gpu_hours,
    }


def _data(config: TrainConfig, asked: Asked) -> tuple[dict[str, Any], float]:
    """The shards, and the seconds of an example; those of the paper where none are there."""
    if not is_sealed(asked.shards):
        return {"shards": str(asked.shards), "there": False}, DURATION_S
    from features.store.shard_file import spec_of
    from training.data.held_back import split_rows
    from training.data.mixture import Mixture
    from training.data.opening import Opened, open_shards

    with contextlib.ExitStack() as opened:
        training = open_shards(asked.shards, config, allow_untrained=asked.allow_untrained)
        opened.enter_context(training.reader)
        validation: Opened | None = None
        if asked.val_shards is not None:
            validation = open_shards(
                asked.val_shards, config, allow_untrained=asked.allow_untrained, like=training.reader
            )
            opened.enter_context(validation.reader)
        split = split_rows(
            training.reader, config.held_back, validation=validation.reader if validation else None
        )
        mixture = Mixture.read(training.reader, config, split.training_rows)
        found = {
            "shards": str(asked.shards),
            "there": True,
            "rows": len(training.reader),
            "left_out_rows": split.left_out,
            "validation_rows": min(len(split.validation_rows), config.validate_samples),
            "epoch_samples": len(mixture),
            "epochs": config.steps * config.batch / len(mixture),
            "mixture": list(mixture.lines()),
            "notes": [*training.notes, *(validation.notes if validation else ())],
        }
        return found, spec_of(training.reader.about).duration_s


def _notes(config: TrainConfig, asked: Asked) -> list[str]:
    """What somebody who reads the settings may not have meant."""
    notes = []
    if (config.lora_rank or "final" in config.freeze) and asked.init is None:
        notes.append("a run that trains so little begins with weights: give it --init FILE")
    late = [
        milestone for milestone in config.milestones if config.warmup_steps + milestone >= config.steps
    ]
    if late:
        first = config.warmup_steps + late[0]
        notes.append(
            f"the learning rate does not fall any more: {number(config.steps, 'step')} end before the "
            f"milestone at step {first:,}, which --set milestones=… would move"
        )
    if config.steps <= config.warmup_steps:
        notes.append(
            f"the learning rate never reaches {config.learning_rate:g}: it rises for "
            f"{number(config.warmup_steps, 'step')}, which --set warmup_steps=… would change"
        )
    if config.ema_profile_every > config.steps:
        notes.append(
            f"no average is kept before the end: --set ema_profile_every={max(config.steps // 10, 1)}"
        )
    return notes
