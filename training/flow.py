"""Flow matching: the path between noise and latents, the loss along it, and sampling.

A straight line joins noise x0, at t = 0, to a normalised latent x1, at t = 1; the network learns its
velocity. Sampling follows the learned velocity from noise to latents.

    noise x0 ────── x_t = (1 - t) x0 + t x1 ──────▶ latent x1
    t = 0             velocity x1 - x0                 t = 1

Shapes: B batch, N latents, C channels.
Source: arXiv:2412.15322, Sec. 3.1 and equation 1; the time's distribution arXiv:2403.03206, Sec. 3.1.
"""

import itertools
from collections.abc import Callable
from typing import Literal, Protocol, Self, TypeVar, get_args

import torch
from torch import Tensor

from curation.errors import UsageProblem
from curation.tables import number
from training.integrate import integrate

Method = Literal["euler", "adaptive"]
# Source: MMAudio `demo.py`@974010a.
NUM_STEPS = 25
CFG_STRENGTH = 4.5


class Conditions(Protocol):
    """What a network made of video and text."""

    def expand(self, batch: int) -> Self:
        """Those of one sample for `batch` of them."""

    def joined(self, other: Self) -> Self:
        """Two batches as one."""


_Conditions = TypeVar("_Conditions", bound=Conditions)


class VelocityNetwork(Protocol[_Conditions]):
    """What is asked of a network that is sampled; `training.network.Network` is one."""

    def conditions(
        self, clip: Tensor | None, sync: Tensor | None, text: Tensor | None, *, num_latents: int
    ) -> _Conditions:
        """What a velocity needs of video and text; of one sample where all are None."""

    def velocity(self, latent: Tensor, t: Tensor | float, conditions: _Conditions) -> Tensor:
        """(B, N, C) at time t, one for all."""


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The point x_t (B, N, C) between noise x0 and latent x1; t is (B,), or one for all."""
    t = _aligned(t, x0)
    return (1 - t) * x0 + t * x1


def target(x0: Tensor, x1: Tensor) -> Tensor:
    """The velocity (B, N, C) of the straight path from noise x0 to latent x1."""
    return x1 - x0


def loss_per_sample(velocity: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    """Mean square difference (B,) in float32 of a velocity from that of the path, over N and C."""
    difference = velocity.float() - target(x0.float(), x1.float())
    return difference.square().mean(dim=(1, 2))


def times(z: Tensor) -> Tensor:
    """Logit-normal times in (0, 1) of standard normals."""
    return z.sigmoid()


@torch.no_grad()
def sample(
    network: VelocityNetwork[_Conditions],
    noise: Tensor,
    clip: Tensor | None,
    sync: Tensor | None,
    text: Tensor | None,
    *,
    negative_text: Tensor | None = None,
    num_steps: int = NUM_STEPS,
    cfg_strength: float = CFG_STRENGTH,
    method: Method = "euler",
) -> Tensor:
    """Latents (B, N, C) in normalised space, of the kind of number of `noise`.

    Args:
        noise: (B, N, C) standard normals.
        clip: (B, T, 1024); None: the empty condition. So with
        sync: (B, S, 768), and
        text: (B, 77, 1024).
        negative_text: (B, 77, 1024), or (1, 77, 1024) for all: takes the place of the empty text in
            what guidance leads away from.
        num_steps: equal steps of Euler's method, each one evaluation of the network; the adaptive
            method chooses its own.
        cfg_strength: w of w v(conditions) + (1 - w) v(empty); below 1, the conditions alone.
        method: "euler", or "adaptive": Dormand-Prince with the tolerances of `integrate`.

    Raises:
        UsageProblem: `noise` has another shape, conditions are of another number of samples, there are
            no steps, or no such method.
        FoleyproofError: the adaptive method met values that are not finite, or gave up.
    """
    _refuse(noise, num_steps, method)
    _refuse_batches(len(noise), clip=clip, sync=sync, text=text, negative_text=negative_text)
    velocity = guided(
        network, noise.shape, clip, sync, text, negative_text=negative_text, cfg_strength=cfg_strength
    )
    # Sums of many small steps want float32 also where the network takes and gives bfloat16.
    start = noise.to(torch.promote_types(noise.dtype, torch.float32))

    def field(t: Tensor, x: Tensor) -> Tensor:
        return velocity(t, x.to(noise.dtype)).to(x.dtype)

    end = integrate(field, start) if method == "adaptive" else _euler(field, start, num_steps)
    return end.to(noise.dtype)


def guided(
    network: VelocityNetwork[_Conditions],
    shape: torch.Size,
    clip: Tensor | None,
    sync: Tensor | None,
    text: Tensor | None,
    *,
    negative_text: Tensor | None = None,
    cfg_strength: float = CFG_STRENGTH,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The velocity (B, N, C) under guidance as a function of (t, x_t); see `sample` for the rest.

    Conditions are computed here, once, the empty ones for one sample. With guidance, each evaluation is
    one pass of the network over 2B samples.
    """
    batch, num_latents, _ = shape
    given = network.conditions(clip, sync, text, num_latents=num_latents).expand(batch)
    if cfg_strength < 1:
        return lambda t, x: network.velocity(x, t, given)

    empty = network.conditions(None, None, negative_text, num_latents=num_latents).expand(batch)
    both = given.joined(empty)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        towards, away = network.velocity(torch.cat([x, x]), t, both).chunk(2)
        return cfg_strength * towards + (1 - cfg_strength) * away

    return velocity


def _euler(field: Callable[[Tensor, Tensor], Tensor], x: Tensor, num_steps: int) -> Tensor:
    """x at t = 1, of x at t = 0."""
    grid = torch.linspace(0, 1, num_steps + 1, dtype=torch.float32, device=x.device)
    for t, later in itertools.pairwise(grid):
        x = x + (later - t) * field(t, x)
    return x


def _aligned(t: Tensor, x: Tensor) -> Tensor:
    """Times (B,) as (B, 1, 1), which meet each sample of x; one time as it is."""
    return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t


def _refuse(noise: Tensor, num_steps: int, method: str) -> None:
    """Raise UsageProblem where there is nothing to sample; see `sample`."""
    if noise.ndim != 3 or not noise.is_floating_point():
        raise UsageProblem(
            f"noise of shape {tuple(noise.shape)} and {noise.dtype}, expected (batch, latents, "
            "channels) of floating point — give standard normals of the shape of the latents"
        )
    if method not in get_args(Method):
        raise UsageProblem(
            f"method {method!r}, expected one of {', '.join(get_args(Method))} — choose one of them"
        )
    if num_steps < 1:
        raise UsageProblem(
            f"num_steps {num_steps}, expected at least 1 — 25 steps are what the paper samples with"
        )


def _refuse_batches(batch: int, **conditions: Tensor | None) -> None:
    """Raise UsageProblem where a condition is neither for one sample nor for as many as there are."""
    for name, given in conditions.items():
        if given is not None and len(given) not in (1, batch):
            raise UsageProblem(
                f"{name} of {number(len(given), 'sample')} for noise of {batch:,}, expected as many, or "
                "one for all — give both for the same samples"
            )
