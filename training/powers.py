"""Averages over steps with profiles that are powers of the step: their widths, and sums of them.

In such an average at step T, the weights of step t count as t^gamma. Its width sigma_rel is the standard
deviation of that profile, relative to T.

    share in the average        /│  gamma large, sigma_rel small: the last steps alone
                             _/ /│
                     ___----  / _│  gamma small, sigma_rel large
               0 ────────────────T

Source: arXiv:2312.02696 (Karras et al.), Sec. 3 and C.
"""

import math
from collections.abc import Sequence
from typing import Any

from curation.errors import UsageProblem

WIDEST = 1 / math.sqrt(12)  # of the plain mean of all steps; a wider profile would favour the first
_FAR = 0.9  # of a profile that cannot be told from one that has nothing to do with the stored ones


def gamma_of(sigma_rel: float) -> float:
    """The exponent of the profile of a width: 0.05 → 16.97, 0.10 → 6.94.

    Source: arXiv:2312.02696, algorithm 2.

    Raises:
        UsageProblem: the width is not above 0, or above that of the mean of all steps.
    """
    import numpy as np

    if not 0 < sigma_rel <= WIDEST:
        raise UsageProblem(
            f"width {sigma_rel:g}, expected a number above 0 and up to {WIDEST:.4f}, the width of the "
            "mean of all steps — 0.05 and 0.10 are what is tracked"
        )
    inverse = sigma_rel**-2
    gamma = np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max()
    return max(float(gamma), 0.0)


def beta(step: int, gamma: float, *, corrected: bool = True) -> float:
    """How much of the average stays at update `step`, the first being 1.

    Args:
        corrected: the geometric mean of what this update and the next one would keep, as MMAudio's
            tracks do; else as in arXiv:2312.02696, which is what `solve` counts with.
    """
    assert step >= 1, f"update {step}, expected 1 for the first"
    if corrected:
        return float((step / (step + 2)) ** ((1 + gamma) / 2))
    return float((step / (step + 1)) ** (1 + gamma))


def solve(
    steps: Sequence[int], sigmas: Sequence[float], *, sigma_rel: float, step: int | None = None
) -> tuple[list[float], float]:
    """The weights with which stored profiles come nearest to another, and how far off that remains.

    The distance is that of the profiles as functions of the step, in the mean square, relative to the
    wanted one: 0 where it is among the stored ones, 1 where nothing of it can be made.

    Source: arXiv:2312.02696, algorithm 3.

    Raises:
        UsageProblem: see `synthesize`.
    """
    import numpy as np

    if not steps:
        raise UsageProblem(
            "no profiles, expected at least one of averaged weights — train for `ema_profile_every` "
            "steps"
        )
    step = max(steps) if step is None else step
    t = np.asarray(steps, np.float64)
    # Through float32, as the published averages were made.
    gamma = np.asarray([gamma_of(sigma) for sigma in sigmas], np.float32).astype(np.float64)
    wanted = float(np.float32(gamma_of(sigma_rel)))
    _refuse_twice(steps, sigmas, gamma.tolist())
    if not 0 < step <= max(steps):
        raise UsageProblem(
            f"step {step:,}, expected one after 0 and up to {max(steps):,}, the last that is stored — "
            "the averages know nothing of later steps"
        )
    products = _product(t[:, None], gamma[:, None], t[None], gamma[None])
    towards = _product(t, gamma, np.float64(step), wanted)
    weights = np.linalg.solve(products, towards)
    whole = float(_product(np.float64(step), wanted, np.float64(step), wanted))
    missed = math.sqrt(max(0.0, 1 - float(towards @ weights) / whole))
    if missed > _FAR:
        raise UsageProblem(
            f"width {sigma_rel:g} at step {step:,}: {missed:.0%} of its profile cannot be made of those "
            f"of widths {min(sigmas):g} to {max(sigmas):g} at steps {min(steps):,} to {max(steps):,}, "
            f"expected at most {_FAR:.0%} — choose a width nearer to these, or a step that is stored"
        )
    return [float(weight) for weight in weights], missed


def _refuse_twice(steps: Sequence[int], sigmas: Sequence[float], gammas: Sequence[float]) -> None:
    """Raise UsageProblem where a profile is there twice, or was taken before the first step."""
    seen: set[tuple[int, float]] = set()
    for step, sigma, gamma in zip(steps, sigmas, gammas, strict=True):
        if step < 1 or (step, gamma) in seen:
            raise UsageProblem(
                f"a profile of width {sigma:g} at step {step:,}{' that is there twice' * (step > 0)}, "
                "expected one for each width and step from 1 on — leave it out"
            )
        seen.add((step, gamma))


def _product(t_a: Any, gamma_a: Any, t_b: Any, gamma_b: Any) -> Any:
    """The integral over steps of the product of two profiles, each of which has the integral 1."""
    import numpy as np

    power = np.where(t_a < t_b, gamma_b, -gamma_a)
    above = (gamma_a + 1) * (gamma_b + 1) * (t_a / t_b) ** power
    return above / ((gamma_a + gamma_b + 1) * np.maximum(t_a, t_b))
