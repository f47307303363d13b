"""Averages that are made after training, and those that cannot be."""

import pytest
import torch
from some_profiles import Given, same, some_profiles
from torch import Tensor

from curation.errors import BadWeights, UsageProblem
from training.ema import gamma_of, synthesize


def test_a_stored_profile_comes_back_as_it_is() -> None:
    profiles = some_profiles(10, 20, 30)
    same(synthesize(profiles, 0.1, 20), profiles[3][2])
    same(synthesize(profiles, 0.05, None), profiles[4][2])
    same(synthesize(profiles[:1], 0.05, 10), profiles[0][2])


@pytest.mark.parametrize("sigma", [0.0, -0.05, float("nan"), float("inf"), 0.29, 5.0])
def test_widths_that_no_profile_has_are_refused(sigma: float) -> None:
    with pytest.raises(UsageProblem, match=r"expected a number above 0 and up to 0\.2887"):
        gamma_of(sigma)
    with pytest.raises(UsageProblem, match=r"expected a number above 0 and up to 0\.2887"):
        synthesize(some_profiles(10), sigma, 10)


@pytest.mark.parametrize(
    ("profiles", "sigma", "step", "message"),
    [
        ([], 0.05, 10, "no profiles, expected at least one"),
        (some_profiles(10), 0.05, 11, r"step 11, expected one after 0 and up to 10, the last"),
        (some_profiles(10), 0.05, 0, r"step 0, expected one after 0"),
        (some_profiles(100, 200), 0.05, 30, r"100% of its profile cannot be made of those of widths"),
        (some_profiles(100), 0.001, 100, r"width 0.001 at step 100: 9\d% .* nearer to these"),
        (some_profiles(10, 10), 0.05, 10, "width 0.05 at step 10 that is there twice, expected one for"),
        (some_profiles(0), 0.05, 10, "a profile of width 0.05 at step 0, expected .* from 1 on"),
    ],
)
def test_averages_out_of_reach_are_refused(
    profiles: Given, sigma: float, step: int, message: str
) -> None:
    with pytest.raises(UsageProblem, match=message):
        synthesize(profiles, sigma, step)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a": torch.ones(3)}, r"profile 1 \(step 10, width 0.1\): b.c missing"),
        ({"a": torch.ones(3), "b.c": torch.ones(2, 2), "d": torch.ones(1)}, "d unknown"),
        ({"a": torch.ones(4), "b.c": torch.ones(2, 2)}, r"a of shape \(4,\) for \(3,\), .* profile 0"),
        ({"a": torch.full((3,), torch.nan), "b.c": torch.ones(2, 2)}, r"1 tensor .* not finite \(a\)"),
    ],
)  # fmt: skip
def test_profiles_of_other_tensors_are_refused(changed: dict[str, Tensor], message: str) -> None:
    first, (step, sigma, _) = some_profiles(10)
    with pytest.raises(BadWeights, match=message):
        synthesize([first, (step, sigma, changed)], 0.08, 10)


def test_a_rough_average_is_made_and_said(caplog: pytest.LogCaptureFixture) -> None:
    synthesize(some_profiles(20, 40, 60), 0.08, 50)
    assert "of it is missed" in caplog.text
    caplog.clear()
    synthesize(some_profiles(20, 40, 60), 0.08, 60)
    assert not caplog.text
