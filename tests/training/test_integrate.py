"""Adaptive integration: closed forms, and scipy's solver of the same pair."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from curation.errors import FoleyproofError
from training.integrate import _ERROR, _FIFTH, _NODES, _STAGES, integrate


def decay(t: Tensor, x: Tensor) -> Tensor:
    return -x


def turn(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[..., 1], -x[..., 0]], dim=-1)


def pendulum(t: Tensor, x: Tensor) -> Tensor:
    """Driven, so that time matters, and not linear."""
    return torch.stack([x[..., 1], -x[..., 0].sin() + 0.3 * (2 * t).cos()], dim=-1)


def stiffening(t: Tensor, x: Tensor) -> Tensor:
    """Calm, then fast from t = 1/2 on: steps that were long enough are refused there."""
    return torch.stack([x[..., 1], -(1 + 2000 * torch.sigmoid(400 * (t - 0.5))) * x[..., 0]], dim=-1)


FIELDS = [decay, turn, pendulum, stiffening]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.__name__)
@pytest.mark.parametrize(("rtol", "atol"), [(1e-7, 1e-9), (1e-3, 1e-6)])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0), (-2.0, 3.0)])
def test_agrees_with_scipy_to_the_number_of_evaluations(field, rtol, atol, start, end) -> None:  # type: ignore[no-untyped-def]
    first = np.array([1.0, 0.3])
    counted = 0

    def ours(t: Tensor, x: Tensor) -> Tensor:
        nonlocal counted
        counted += 1
        assert t.dtype == torch.float64
        return field(t, x)

    def theirs(t: float, x: np.ndarray) -> np.ndarray:
        return field(torch.tensor(t, dtype=torch.float64), torch.from_numpy(x.copy())).numpy()

    peer = solve_ivp(theirs, (start, end), first, method="RK45", rtol=rtol, atol=atol)
    found = integrate(ours, torch.from_numpy(first), start=start, end=end, rtol=rtol, atol=atol)
    np.testing.assert_allclose(found.numpy(), peer.y[:, -1], rtol=1e-9, atol=1e-12)
    assert counted == peer.nfev


def test_a_turn_comes_back_within_the_tolerance() -> None:
    x = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    back = integrate(turn, x, end=2 * math.pi)
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
def test_the_error_follows_the_tolerance(rtol: float) -> None:
    x = torch.ones(3, dtype=torch.float64)
    error = (integrate(decay, x, rtol=rtol, atol=0.0) - math.exp(-1)).abs().max()
    assert error < 3 * rtol


def test_the_way_back_ends_where_the_way_began() -> None:
    x = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(1))
    there = integrate(pendulum, x)
    torch.testing.assert_close(integrate(pendulum, there, start=1.0, end=0.0), x, rtol=1e-5, atol=1e-5)


def test_float32_reaches_its_own_precision_in_few_evaluations() -> None:
    counted = 0

    def counting(t: Tensor, x: Tensor) -> Tensor:
        nonlocal counted
        counted += 1
        assert t.dtype == torch.float32
        return -x

    found = integrate(counting, torch.ones(1000))
    torch.testing.assert_close(found, torch.full((1000,), math.exp(-1)), rtol=2e-6, atol=0)
    assert counted < 200, "rounding must not be taken for an error that shorter steps would mend"


def test_order_five_is_exact_for_polynomials_of_degree_four_in_time() -> None:
    def slope(t: Tensor, x: Tensor) -> Tensor:
        return (5 * t**4).expand_as(x)

    found = integrate(slope, torch.zeros(1, dtype=torch.float64), rtol=1.0, atol=1.0)
    torch.testing.assert_close(found, torch.ones(1, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_coefficients_fulfil_the_conditions_of_their_orders() -> None:
    """Hairer, Nørsett and Wanner, Sec. II.1: those of quadrature, and that rows sum to their nodes."""
    for node, row in zip(_NODES, _STAGES, strict=True):
        assert sum(row) == pytest.approx(node, abs=1e-14)
    fifth = (*_FIFTH, 0.0)
    fourth = [a - b for a, b in zip(fifth, _ERROR, strict=True)]
    nodes = (*_NODES, 1.0)
    for order, weights in ((5, fifth), (4, fourth)):
        for power in range(order):
            moment = sum(w * c**power for w, c in zip(weights, nodes, strict=True))
            assert moment == pytest.approx(1 / (power + 1), abs=1e-14)


def test_the_whole_batch_takes_one_step() -> None:
    shapes: set[tuple[int, ...]] = set()

    def field(t: Tensor, x: Tensor) -> Tensor:
        assert t.shape == ()
        shapes.add(tuple(x.shape))
        return -x

    integrate(field, torch.ones(7, 5, 2))
    assert shapes == {(7, 5, 2)}


def test_no_way_is_no_evaluation() -> None:
    def never(t: Tensor, x: Tensor) -> Tensor:
        raise AssertionError("was asked")

    x = torch.ones(2)
    assert integrate(never, x, start=0.5, end=0.5) is x


def test_the_start_is_left_as_it_was() -> None:
    x = torch.ones(3)
    integrate(decay, x)
    assert torch.equal(x, torch.ones(3))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_field_that_is_not_finite_ends_it(value: float) -> None:
    def field(t: Tensor, x: Tensor) -> Tensor:
        return torch.where(t > 0.5, value, 1.0).to(x.dtype).expand_as(x)

    with pytest.raises(FoleyproofError, match=r"velocity at t = 0\.\d+ is not finite, expected numbers"):
        integrate(field, torch.zeros(2))


def test_a_field_that_is_not_finite_at_the_start_ends_it() -> None:
    with pytest.raises(FoleyproofError, match="is not finite"):
        integrate(lambda t, x: x * float("nan"), torch.ones(2))


def test_who_never_arrives_gives_up() -> None:
    def jumping(t: Tensor, x: Tensor) -> Tensor:
        return torch.sin(1e6 * t).expand_as(x) * 1e6

    with pytest.raises(
        FoleyproofError, match=r"took 500 evaluations and is at t = .* sample with Euler"
    ):
        integrate(jumping, torch.zeros(2, dtype=torch.float64), max_evaluations=500)
