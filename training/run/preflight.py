"""A short try of everything that a long run will need, on its own data and device.

Twenty steps that learn one batch by heart, a batch that validates, a checkpoint there and back with the
averages that are kept, how fast and how large it all is. Nothing of it stays.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from curation.errors import FoleyproofError
from curation.files import free_bytes, remove
from curation.progress import note
from curation.tables import number, size_text
from training.config import TrainConfig
from training.data.batches import Batches, share_of
from training.data.throughput import measure
from training.ema import Tracks
from training.run.asked import Asked
from training.run.beginning import begun
from training.run.distributed import World, joined
from training.run.loop import memory_bytes, saying_what_fits
from training.run.machine import peak_of
from training.run.opening import Data, opened_data
from training.run.owners import owned
from training.run.saving import pieces, restore, write_profiles
from training.run.step import Meter, Trained, gradients, update
from training.run.validating import validated, validation_of
from training.run.work import sample_flops
from training.state.about import About
from training.state.folders import held, refuse_no_run, step_folder
from training.state.reading import Stored, opened
from training.state.stored import Checkpoints

STEPS = 20
_WARM = 3  # steps that are not timed
_FOLDER = "preflight"
_KEPT = 3  # checkpoints at once: those that stay, and the one that is written


def preflight(config: TrainConfig, asked: Asked) -> dict[str, Any]:
    """Try the run; what was found, with a summary.

    Raises:
        FoleyproofError: the loss does not fall, is not finite, or a checkpoint does not come back.
    """
    with (
        joined(asked.device, repeatably=config.repeatable) as world,
        _alone(asked.run, world),
        opened_data(config, asked, world) as data,
        saying_what_fits(config, world, duration_s=data.duration_s),
    ):
        trained, tracks, first, about = begun(config, asked, data, world)
        losses, samples_per_s = _learned(trained, tracks, data, first)
        _refuse_no_loss(trained, data)
        size, took_s = _there_and_back(trained, tracks, asked.run / _FOLDER, about)
        flops = sample_flops(config, duration_s=data.duration_s)
        on_gpu = world.device.type == "cuda"
        name = torch.cuda.get_device_name(world.device) if on_gpu else "CPU"
        peak, _ = peak_of(name, world.device, config.precision)
        speed = measure(data.reader, data.mixture, config, rank=world.rank, world=world.size)
    mfu = samples_per_s * flops / (peak * world.size)
    free = free_bytes(asked.run)
    if world.is_first:
        note(speed.sentence(samples_per_s / world.size))
        if free < _KEPT * size:
            note(
                f"{asked.run}: {size_text(free)} free on its disk, {_KEPT} checkpoints take "
                f"{size_text(_KEPT * size)} — give a --run on a larger one"
            )
    summary = (
        f"{config.model}: {STEPS} steps, loss {losses[0]:.4f} to {losses[-1]:.4f} on one batch; "
        f"{samples_per_s:,.1f} samples/s (MFU {100 * mfu:.1f} %), "
        f"{size_text(memory_bytes(world))} a rank; "
        f"checkpoint of {size_text(size)} written and read back in {took_s:.1f} s"
    )
    return {
        "summary": summary, "losses": losses, "samples_per_s": samples_per_s, "mfu": mfu,
        "memory_bytes": memory_bytes(world), "checkpoint_bytes": size, "free_bytes": free,
        "data_samples_per_s_per_rank": speed.samples_per_s,
    }  # fmt: skip


@contextlib.contextmanager
def _alone(run: Path, world: World) -> Iterator[None]:
    """Hold the run; its folder of the try is not there at first, and is taken away in the end."""
    if not world.is_first:
        yield
        return
    refuse_no_run(run)
    with held(run):
        remove(run / _FOLDER)
        try:
            yield
        finally:
            remove(run / _FOLDER)


def _learned(trained: Trained, tracks: Tracks, data: Data, first: int) -> tuple[list[float], float]:
    """The loss of each step on one and the same batch, and samples a second of all ranks."""
    config, world = trained.config, trained.world
    _, count = share_of(config, world.size)
    meter, live = Meter(world.device), owned(trained)
    losses: list[float] = []
    begun_s = time.perf_counter()
    with Batches(
        data.reader, data.mixture, config, rank=world.rank, world=world.size, first_step=first
    ) as batches:
        batch = next(batches)  # stays valid: no other is asked for
        for number in range(STEPS):
            if number == _WARM:
                _synchronise(world)
                begun_s = time.perf_counter()
            taken = gradients(trained, repeat(batch), count, meter)
            # at the full rate: a warm-up would take longer than this try
            update(trained, taken, rate=config.learning_rate)
            tracks.update(live)
            losses.append(meter.told(world)[0])
            if bool(taken.bad):
                raise FoleyproofError(
                    f"step {number} of the try: loss {losses[-1]}, norm of the gradients "
                    f"{float(taken.norm)}, expected finite numbers — see what is in the shards: "
                    "features verify --full; or lower the learning rate"
                )
    _synchronise(world)
    rate = (STEPS - _WARM) * config.batch / (time.perf_counter() - begun_s)
    if not losses[-1] < losses[0]:
        raise FoleyproofError(
            f"{STEPS} steps on one batch: the loss went from {losses[0]:.4f} to {losses[-1]:.4f}, "
            "expected it to fall — a rate this high or this low cannot learn, or too much is frozen: "
            "change learning_rate, freeze or lora_rank"
        )
    return losses, rate


def _synchronise(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def _refuse_no_loss(trained: Trained, data: Data) -> None:
    """Validate on one batch, as the run will."""
    config = trained.config
    few = replace(config, validate_samples=config.batch)
    validation = validation_of(few, data, trained.world)
    if validation is None:
        return
    loss, _, count = validated(trained, validation, data)
    if not count:
        raise FoleyproofError(
            f"validation: the loss of its first {number(len(validation.rows), 'sample')} is {loss}, "
            "expected a finite one — see what is in the shards: features verify --full"
        )


def _there_and_back(trained: Trained, tracks: Tracks, folder: Path, about: About) -> tuple[int, float]:
    """Bytes of a checkpoint, and the seconds to write it, read it and find everything equal."""
    world, begun_s = trained.world, time.perf_counter()
    mine = {piece.name: piece.tensor.detach().to("cpu", copy=True) for piece in pieces(trained, tracks)}
    gather = world.gatherer_for_a_thread()
    variant = trained.config.variant
    then = (lambda stored: write_profiles(folder, variant, stored)) if tracks.averages else None
    with Checkpoints(folder, about=about, keep=1, rank=world.rank, gather=gather) as checkpoints:
        checkpoints.save(1, pieces(trained, tracks), then=then)
        checkpoints.wait()
    world.gathered(None)  # the folder has its name on all machines
    stored: Stored = opened(step_folder(folder, 1))
    stored.verify()
    with torch.no_grad():
        for tensor in (*trained.network.parameters(), *trained.network.buffers()):
            tensor.fill_(0)
    restore(trained, tracks, stored)
    for piece in pieces(trained, tracks):
        if not torch.equal(piece.tensor.cpu(), mine[piece.name]):
            raise FoleyproofError(
                f"{folder}: {piece.name} came back with other values, expected what was saved — its "
                "disk or memory is at fault: give a --run on another disk"
            )
    size = sum((stored.folder / name).stat().st_size for name in stored.files)
    world.gathered(None)
    return size, time.perf_counter() - begun_s
