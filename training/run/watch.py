"""Whether steps went well, asked one step later, so that nobody waits for a GPU.

    launched   │ pass 7 │ flags 7 │ update 7 │ pass 8 │      │ averages 7 │ flags 8 │ update 8 │ …
    the host                                          └ reads flags 7

A step whose gradients are not finite updates nothing (`optim.step_unless`), on the device; by the time
the host hears of it, the next pass is on its way, and no average has moved. So what stays is the state
before the bad step.

Shapes: B samples of this rank.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from curation.errors import FoleyproofError
from curation.files import write_json
from training.run.distributed import World, speaking

_REMEMBERED = 8  # steps whose losses and norms are told of
_TOLD = 3  # clips named in a message


class Flags(NamedTuple):
    """What a step came to."""

    step: int
    norm: float  # of the gradients, before they were cut
    is_bad: bool  # not finite: nothing was updated
    is_asked_to_stop: bool  # by a signal to any rank
    is_asked_to_save: bool
    has_not_saved: bool  # the last checkpoint failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a rank computed in a step; all on its device."""

    step: int
    rows: Sequence[int]  # of the index (B,)
    losses: Tensor  # (B,)
    times: Tensor  # (B,)
    norm: Tensor
    bad: Tensor


class Watch:
    """The flags of steps on their way to the host."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._on_gpu = world.device.type == "cuda"
        self._told = torch.empty(5, pin_memory=self._on_gpu)
        self._arrived = torch.cuda.Event() if self._on_gpu else None
        self._pending: int | None = None
        self.remembered: deque[Taken] = deque(maxlen=_REMEMBERED)

    def note(self, taken: Taken, *, stop: bool, save: bool, not_saved: bool) -> None:
        """Send the flags of a step; those of the step before must have been read."""
        assert self._pending is None, f"step {self._pending} was not read"
        self.remembered.append(taken)
        asked = torch.tensor([float(stop), float(save), float(not_saved)])
        asked = asked.to(self._world.device, non_blocking=True)
        flags = torch.cat([taken.norm.reshape(1).float(), taken.bad.reshape(1).float(), asked])
        if self._world.size > 1:
            # the norm is the same everywhere; of NaN no maximum says anything, but `bad` does
            with speaking():
                dist.all_reduce(flags[1:], dist.ReduceOp.MAX)
        self._told.copy_(flags, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()
        self._pending = taken.step

    def read(self) -> Flags | None:
        """The flags of the last step, once; waits until they are there."""
        if self._pending is None:
            return None
        if self._arrived is not None:
            self._arrived.synchronize()
        step, self._pending = self._pending, None
        norm, *flags = self._told.tolist()
        return Flags(step, norm, *map(bool, flags))


def refuse_bad(
    watch: Watch, world: World, run: Path, named: Callable[[Sequence[int]], list[str]]
) -> FoleyproofError:
    """The error of a step that was not finite; the samples of all ranks are written beside the log.

    Args:
        named: the clips of rows of the index.
    """
    steps = [_facts(taken, named) for taken in watch.remembered]
    everyone = world.gathered(steps)
    last = [sample for rank in everyone for sample in rank[-1]["samples"]]
    number = steps[-1]["step"]
    target = run / f"not-finite-{number:08d}.json"
    if world.is_first:
        document = [{"rank": rank, "steps": told} for rank, told in enumerate(everyone)]
        write_json(target, {"step": number, "ranks": document})
    bad = [sample for sample in last if not _is_finite(sample["loss"])]
    some = "; ".join(f"{s['clip']} (loss {s['loss']}, t {s['t']:.3f})" for s in (bad or last)[:_TOLD])
    whose = (
        f"the loss of {len(bad)} of {len(last)} samples is not finite: {some}"
        if bad
        else f"all {len(last)} losses are finite, the gradients are not (among the clips: {some})"
    )
    return FoleyproofError(
        f"step {number}: {whose}; norm of the gradients {steps[-1]['norm']}, expected finite numbers — "
        f"nothing was updated in this step; all its clips are in {target}: see what is in them with "
        "`features verify --full`, leave them out of the manifest, or lower the learning rate, and "
        "start the same command again, which goes on before this step"
    )


def _facts(taken: Taken, named: Callable[[Sequence[int]], list[str]]) -> dict[str, Any]:
    """A step as JSON has it; numbers that are not finite as text."""
    clips = named(taken.rows)
    samples = [
        {"clip": clip, "loss": _told(loss), "t": t}
        for clip, loss, t in zip(clips, taken.losses.tolist(), taken.times.tolist(), strict=True)
    ]
    return {"step": taken.step, "norm": _told(float(taken.norm)), "samples": samples}


def _told(value: float) -> float | str:
    return value if _is_finite(value) else str(value)


def _is_finite(value: float | str) -> bool:
    return isinstance(value, float) and value - value == 0
