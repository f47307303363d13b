"""A run from its first step, or the next one, to its last.

A step is known to have gone well only when the next one is on its way; see `watch`. What is saved, told
or validated is of steps that are known.
"""

import contextlib
import json
import logging
import os
import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from curation.errors import FoleyproofError
from curation.files import write_json
from curation.progress import note
from training.config import TrainConfig
from training.data.batches import Batches, share_of
from training.data.throughput import measure
from training.run.asked import Asked
from training.run.assembly import rehearse
from training.run.beginning import begun
from training.run.distributed import World, joined, speaking
from training.run.machine import gpu_named, peak_of
from training.run.memory import hint
from training.run.opening import Data, opened_data
from training.run.owners import owned
from training.run.report import Report
from training.run.saving import pieces, write_profiles
from training.run.signals import Wishes, listening
from training.run.step import Meter, gradients, update
from training.run.validating import validated, validation_of
from training.run.watch import Watch, refuse_bad
from training.run.work import expected_mfu, sample_flops
from training.state.about import of_code
from training.state.folders import held, refuse_no_run, steps_of
from training.state.stored import Checkpoints

logger = logging.getLogger(__name__)
_LONG = 500  # steps that are worth a second's trial of data and device before them
_NO_MEMORY = re.compile(r"can't allocate memory|Cannot allocate memory|not enough memory")  # on a CPU
_WARM = 5  # steps before a trace


def train(config: TrainConfig, asked: Asked) -> dict[str, Any]:
    """Train to the last step; what the run came to.

    Raises:
        FoleyproofError: with the exit code of the command; what was saved is whole.
        KeyboardInterrupt: a signal ended it; a checkpoint was saved.
    """
    with (
        listening() as wishes,
        joined(asked.device, repeatably=config.repeatable) as world,
        contextlib.ExitStack() as stack,
    ):
        if world.is_first:
            refuse_no_run(asked.run)
            stack.enter_context(held(asked.run))
        data = stack.enter_context(opened_data(config, asked, world))
        with saying_what_fits(config, world, duration_s=data.duration_s):
            return _run(config, asked, data, world, wishes)


def _run(config: TrainConfig, asked: Asked, data: Data, world: World, wishes: Wishes) -> dict[str, Any]:
    begun_s = time.monotonic()
    trained, tracks, first, about = begun(config, asked, data, world)
    if world.is_first:
        _say_what_was_tried(asked.run, config, first)
        told_of = {**about.document(), **of_code(), "config_digest": config.digest()}
        write_json(asked.run / "config.json", told_of)
    report = _report(config, asked, data, world, first=first)
    validation = validation_of(config, data, world)
    live, meter, watch = owned(trained), Meter(world.device), Watch(world)
    size, count = share_of(config, world.size)
    rehearse(trained, data.reader.allocate(size))
    flags = None
    saved = first if first in steps_of(asked.run) else -1  # what was taken over is not saved yet
    with (
        report,
        Checkpoints(
            asked.run, about=about, keep=config.keep_checkpoints, keep_every=config.keep_every,
            rank=world.rank, gather=world.gatherer_for_a_thread(),
        ) as checkpoints,
        Batches(
            data.reader, data.mixture, config, rank=world.rank, world=world.size, first_step=first
        ) as batches,
        _trace(asked, world, first) as traced,
    ):  # fmt: skip

        def settled(*, saves: bool = True) -> bool:
            """Read the flags of the last step, once: the averages follow it; whether to go on.

            Args:
                saves: where that was asked for.
            """
            nonlocal flags
            found = watch.read()
            if found is None:
                return flags is None or not flags.is_asked_to_stop
            flags = found
            if found.is_bad:
                trained.updates -= 1
                save(found.step)
                checkpoints.wait()
                raise refuse_bad(watch, world, asked.run, data.clips)
            tracks.update(live)
            if found.has_not_saved:
                checkpoints.wait()
            if found.is_asked_to_save and saves:
                save(found.step + 1)
            return not found.is_asked_to_stop

        def save(done: int, *, profiles: bool = False, keep: bool = True) -> None:
            nonlocal saved
            saved = done if keep else saved
            then = (
                (lambda stored: write_profiles(asked.run, config.variant, stored)) if profiles else None
            )
            with report.aside():
                checkpoints.save(done, pieces(trained, tracks), keep=keep, then=then)

        rate = 0.0
        for step in range(first, config.steps):
            # ---- the pass of this step is on its way before the last one is looked at
            taken = gradients(trained, batches, count, meter)
            if not settled():
                break
            rate = update(trained, taken)
            asked_for = wishes.taken()
            watch.note(taken, stop=asked_for.stop, save=asked_for.save, not_saved=checkpoints.has_failed)
            traced()
            done = step + 1

            # ---- what is due after this step, also where a signal ends the run: who goes on from here
            # would not come back to it. Only then anybody waits for the step
            is_last = done == config.steps
            profiles = bool(config.ema_sigmas) and _is_due(done, config.ema_profile_every, is_last)
            keeps = _is_due(done, config.checkpoint_every, is_last)
            validates = validation is not None and _is_due(done, config.validate_every, is_last)
            tells = _is_due(done, config.log_every, is_last)
            if not (profiles or keeps or validates or tells):
                continue
            goes_on = settled(saves=False)
            assert flags is not None, f"step {step} was noted"
            if tells:
                loss, by_time = meter.told(world)
                report.interval(
                    done, loss=loss, loss_by_t=by_time, learning_rate=rate, gradient_norm=flags.norm,
                    waited_s=batches.waited_s, memory_bytes=memory_bytes(world),
                )  # fmt: skip
            if validation is not None and validates:
                with report.aside():
                    loss, by_time, count = validated(trained, validation, data)
                report.validation(done, loss=loss, loss_by_t=by_time, num_samples=count)
            keeps = keeps or flags.is_asked_to_save or not goes_on
            if keeps or profiles:
                save(done, profiles=profiles, keep=keeps)
            if not goes_on:
                break

        # ---- a signal may have come in the last step
        settled()
        done = first if flags is None else flags.step + 1
        if done > saved:
            save(done)
        checkpoints.wait()
        interrupted = flags is not None and flags.is_asked_to_stop and done < config.steps
    if interrupted:
        if world.is_first:
            note(f"{asked.run}: saved at step {done:,}; the same command goes on from there")
        raise KeyboardInterrupt
    took_s = time.monotonic() - begun_s
    summary = (
        f"{config.model}: {done:,} steps = {first:,} before + {done - first:,} in {took_s:.0f} s; "
        f"checkpoint of step {done:,}"
    )
    return {
        "summary": summary, "steps": done, "steps_before": first, "seconds": took_s,
        "overfits": report.overfits,
    }  # fmt: skip


def _say_what_was_tried(run: Path, config: TrainConfig, first: int) -> None:
    """Say that a run was begun here with other settings, and ended before it had a checkpoint."""
    try:
        former = json.loads((run / "config.json").read_text(encoding="utf-8"))["config_digest"]
    except (OSError, ValueError, LookupError):
        return
    if former != config.digest() and not steps_of(run) and not first:
        note(f"{run}: was begun with other settings and left no checkpoint; it begins anew")


def _is_due(done: int, every: int, is_last: bool) -> bool:
    return every > 0 and (is_last or done % every == 0)


def _report(config: TrainConfig, asked: Asked, data: Data, world: World, *, first: int) -> Report:
    """What tells of the run; before a long one, data and an unknown device are tried for a second."""
    on_gpu = world.device.type == "cuda"
    name = torch.cuda.get_device_name(world.device) if on_gpu else "CPU"
    flops = sample_flops(config, duration_s=data.duration_s)
    peak, is_long = None, config.steps - first >= _LONG
    if is_long or (config.precision == "bf16" and gpu_named(name) is not None):
        peak = world.told(peak_of(name, world.device, config.precision) if world.is_first else None)
        assert peak is not None, "the first rank measured"
    if is_long:
        assert peak is not None
        share = expected_mfu(config, [], name, on_gpu=on_gpu).mfu
        found = measure(
            data.reader, data.mixture, config, rank=world.rank, world=world.size, first_step=first
        )
        if world.is_first:
            note(found.sentence(share * peak[0] / flops))
    return Report(
        asked.run, config, resumed_step=first, flops_per_sample=flops,
        peak_flops=None if peak is None else peak[0], ranks=world.size, device=name,
        is_first=world.is_first,
    )  # fmt: skip


def memory_bytes(world: World) -> int:
    """The most that this rank has needed so far: of its GPU, or of the machine."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def saying_what_fits(config: TrainConfig, world: World, *, duration_s: float) -> Iterator[None]:
    """Turn "out of memory" into our error, with settings that would fit; and lost ranks into theirs."""
    try:
        with speaking():
            yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if "deterministic" in str(error):
            raise FoleyproofError(
                f"{str(error).splitlines()[0][:200]}, expected ways to sum in the same order each "
                "time — give --set repeatable=false: the run then goes on, but not bit for bit"
            ) from error
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not _NO_MEMORY.search(str(error)):
            raise
        on_gpu = world.device.type == "cuda"
        if on_gpu:
            there = torch.cuda.get_device_properties(world.device).total_memory
        else:
            there = _physical_bytes() // world.size
        fits = hint(
            config, ranks=world.size, memory_bytes=there, duration_s=duration_s, on_gpu=on_gpu,
            failed=True,
        )  # fmt: skip
        raise FoleyproofError(
            f"out of memory on rank {world.rank} ({str(error).splitlines()[0][:200]}), expected the "
            f"batch to fit — {fits}; the run goes on from its last checkpoint"
        ) from error


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextlib.contextmanager
def _trace(asked: Asked, world: World, first: int) -> Iterator[Any]:
    """What is called after each step; with --profile it writes a trace of some."""
    if not asked.profile_steps:
        yield lambda: None
        return
    from torch.profiler import profile, schedule

    folder: Path = asked.run / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"steps-{first + _WARM}-rank-{world.rank}.json"
    plan = schedule(wait=_WARM - 1, warmup=1, active=asked.profile_steps, repeat=1)
    with profile(
        schedule=plan,
        on_trace_ready=lambda found: found.export_chrome_trace(str(target)),
        acc_events=True,  # else it warns of what one cycle has no use for
    ) as traced:
        yield traced.step
    if world.is_first and target.is_file():
        note(f"{target}: trace, for chrome://tracing or ui.perfetto.dev")
