"""Differential equations with steps that adapt: Dormand and Prince's pair of orders 5 and 4.

Every step is taken with both orders; their difference, an estimate of the error, decides whether the
step stands and how long the next one is. The whole batch takes one step, by one norm of the error, and
the last one ends where it should, so nothing is interpolated.

Source: Dormand and Prince 1980, J. Comput. Appl. Math. 6(1), table 2; the first step and the control of
steps: Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, Sec. II.4.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from curation.errors import FoleyproofError

Field = Callable[[Tensor, Tensor], Tensor]  # (t, x) → the velocity at x
# Source: torchdiffeq's defaults, which MMAudio@974010a samples with.
RTOL, ATOL = 1e-7, 1e-9
MAX_EVALUATIONS = 10_000
# Where in a step each stage lies, and how much it takes of the stages before it.
_NODES = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1)
_STAGES: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
_FIFTH = (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)  # what is added
# Order 5 less order 4; its last stage is the first one of the next step.
_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SAFETY, _LEAST, _MOST = 0.9, 0.2, 10.0  # what a step is multiplied by
_POWER = 1 / 5  # the error of a step grows as the fifth power of its length


def integrate(
    field: Field,
    x: Tensor,
    *,
    start: float = 0.0,
    end: float = 1.0,
    rtol: float = RTOL,
    atol: float = ATOL,
    max_evaluations: int = MAX_EVALUATIONS,
) -> Tensor:
    """x at `end` of dx/dt = field(t, x), given x at `start`.

    Args:
        field: gets t as a scalar of the kind of number of x, on its device, and gives a tensor like x.
        end: may lie before `start`, as on the way from data to noise.
        rtol: error of a step, root mean square over all of x, relative to x, and
        atol: absolute.

    Raises:
        FoleyproofError: the field is not finite, or took more than `max_evaluations`.
    """
    if start == end:
        return x
    flow = _Counted(field, max_evaluations)
    slope = flow(start, x)
    t, direction = start, math.copysign(1.0, end - start)
    length = _first_length(flow, x, slope, t=t, span=end - t, rtol=rtol, atol=atol)
    repeated = False
    while t != end:
        later = t + direction * length
        if (later - end) * direction >= 0:
            later = end
        new, last_slope, error = _step(flow, t, later, x, slope)
        size = _rms(error / (atol + rtol * torch.maximum(x.abs(), new.abs())))
        if not math.isfinite(size):
            raise FoleyproofError(
                f"the velocity at t = {later:.4g} is not finite, expected numbers all along the way — "
                "check the weights and the conditions"
            )
        most = 1.0 if repeated else _MOST  # a step that was too long does not grow at once
        factor = most if size == 0 else min(most, max(_LEAST, _SAFETY * size**-_POWER))
        length = abs(later - t) * factor
        repeated = size >= 1
        if not repeated:
            t, x, slope = later, new, last_slope
    return x


class _Counted:
    """A field that gets its time as a tensor, and stops whoever asks for ever."""

    def __init__(self, field: Field, most: int) -> None:
        self._field, self._most, self._times = field, most, 0

    def __call__(self, t: float, x: Tensor) -> Tensor:
        self._times += 1
        if self._times > self._most:
            raise FoleyproofError(
                f"the adaptive method took {self._most:,} evaluations and is at t = {t:.4g}, expected "
                "to be through with fewer — sample with Euler's method, or allow a larger error"
            )
        return self._field(torch.tensor(t, dtype=x.dtype, device=x.device), x)


def _step(
    flow: _Counted, t: float, later: float, x: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x at `later`, the slope there, and an estimate of the error."""
    length = later - t
    slopes = [slope]
    for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
        slopes.append(flow(t + node * length, x + length * _sum(weights, slopes)))
    new = x + length * _sum(_FIFTH, slopes)
    slopes.append(flow(later, new))
    return new, slopes[-1], length * _sum(_ERROR, slopes)


def _sum(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """The slopes by their weights; not as a matrix product, which a GPU may round to TF32."""
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total.add_(slope, alpha=weight)
    return total


def _first_length(
    flow: _Counted, x: Tensor, slope: Tensor, *, t: float, span: float, rtol: float, atol: float
) -> float:
    """A first step whose error is about as large as it may be, by the curvature at the start."""
    scale = atol + rtol * x.abs()
    away, speed = _rms(x / scale), _rms(slope / scale)
    trial = min(0.01 * away / speed if away >= 1e-5 and speed >= 1e-5 else 1e-6, abs(span))
    signed = math.copysign(trial, span)
    ahead = flow(t + signed, x + signed * slope)
    bend = _rms((ahead - slope) / scale) / trial
    steepest = max(speed, bend)
    second = max(1e-6, trial * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** _POWER
    return min(100 * trial, second, abs(span))


def _rms(x: Tensor) -> float:
    """The root mean square, on the host: the next step depends on it."""
    return float(x.square().mean().sqrt())
