"""One step of training: the loss of a batch, its gradients, and their update.

Shapes: B samples, N latents, C channels.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from training.config import TrainConfig
from training.data.batch import Batch
from training.flow import interpolate, loss_per_sample, times
from training.network import Network
from training.optim import clip_by_norm, learning_rate, step_unless
from training.run.distributed import World
from training.run.watch import Taken

LOSS_BINS = 25  # of t, in which losses are told apart. Source: MMAudio `runner.py`@974010a


@dataclass(slots=True, kw_only=True)
class Trained:
    """What a run changes.

    Attributes:
        network: its weights, whole or this rank's shards.
        model: the same as it is called, wrapped for ranks.
        updates: that the optimizer made, also before this run.
    """

    config: TrainConfig
    world: World
    network: Network
    model: nn.Module
    optimizer: torch.optim.AdamW
    updates: int = 0


def losses_of(
    model: Callable[..., Tensor], network: Network, batch: Batch, *, precision: str
) -> tuple[Tensor, Tensor]:
    """The flow matching loss of each sample (B,) and its time (B,), float32.

    Source: arXiv:2412.15322, Sec. 3.1; the specification's sections 8.1 and 8.4.
    """
    x1 = network.normalise(batch.latent_mean.float() + batch.latent_std.float() * batch.noise)
    t = times(batch.z)
    without_video = ~batch.has_video
    mixed = precision == "bf16"
    features = (batch.clip, batch.sync, batch.text)
    clip, sync, text = features if mixed else (one.float() for one in features)
    with torch.autocast(x1.device.type, torch.bfloat16, enabled=mixed):
        velocity = model(
            interpolate(batch.x0, x1, t), clip, sync, text, t,
            without_clip=batch.drop_clip | without_video, without_sync=batch.drop_sync | without_video,
            without_text=batch.drop_text,
        )  # fmt: skip
    return loss_per_sample(velocity, batch.x0, x1), t


class Meter:
    """Losses since they were last told, on the device: their mean, and by time."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, LOSS_BINS, dtype=torch.float64, device=device)
        self._bins = torch.arange(LOSS_BINS, device=device)

    def add(self, losses: Tensor, t: Tensor, counted: Tensor | None = None) -> None:
        """(B,) each; `counted` (B,) bool: those that are."""
        bins = (t * LOSS_BINS).long().clamp_(0, LOSS_BINS - 1)
        # a product, as scattered sums come in another order each time on a GPU
        chosen = (bins[:, None] == self._bins).to(torch.float64)
        if counted is not None:
            chosen = chosen * counted[:, None]
        self._sums += torch.stack([losses.double(), torch.ones_like(losses).double()]) @ chosen

    def told(self, world: World) -> tuple[float, list[float | None]]:
        """The mean of all ranks, and that of each bin of t, None where there was none; begins anew.

        The mean of nothing is NaN.
        """
        total = torch.stack([torch.tensor(one) for one in world.gathered(self._sums.tolist())]).sum(0)
        self._sums.zero_()
        sums, counts = total.tolist()
        by_time = [s / n if n else None for s, n in zip(sums, counts, strict=True)]
        return sum(sums) / sum(counts) if any(counts) else math.nan, by_time


def gradients(trained: Trained, batches: Iterator[Batch], micro_batches: int, meter: Meter) -> Taken:
    """Pass forward and back over the micro-batches of a step; gradients are those of the global mean."""
    config, world = trained.config, trained.world
    samples = config.batch // world.size
    parts: list[tuple[Any, Tensor, Tensor]] = []
    step = -1
    trained.optimizer.zero_grad(set_to_none=True)
    for number in range(micro_batches):
        there = next(batches)
        step, rows = there.step, there.rows
        batch = there.to(world.device)
        with _together(trained.model, is_last=number == micro_batches - 1):
            losses, t = losses_of(trained.model, trained.network, batch, precision=config.precision)
            (losses.sum() / samples).backward()
        losses = losses.detach()
        meter.add(losses, t)
        parts.append((rows, losses, t))
    norm = clip_by_norm((p for p in trained.network.parameters() if p.requires_grad), config.clip_norm)
    return Taken(
        step=step,
        rows=[int(row) for part, _, _ in parts for row in part],
        losses=torch.cat([one for _, one, _ in parts]),
        times=torch.cat([t for _, _, t in parts]),
        norm=norm,
        bad=~torch.isfinite(norm),
    )


@contextlib.contextmanager
def _together(model: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Gradients of ranks are summed with those of the last micro-batch alone."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)
        yield
    elif isinstance(model, DistributedDataParallel) and not is_last:
        with model.no_sync():
            yield
    else:
        yield


def update(trained: Trained, taken: Taken, *, rate: float | None = None) -> float:
    """Move the weights, unless the gradients are not finite; the learning rate.

    Args:
        rate: instead of that of the schedule.
    """
    config = trained.config
    if rate is None:
        rate = learning_rate(
            taken.step, base=config.learning_rate, warmup_steps=config.warmup_steps,
            milestones=config.milestones, factor=config.lr_factor,
        )  # fmt: skip
    trained.optimizer.param_groups[0]["lr"] = rate
    step_unless(trained.optimizer, taken.bad)
    trained.updates += 1
    return rate
