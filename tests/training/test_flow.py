"""Paths, losses and samples: closed forms, and the golden file of the network."""

from pathlib import Path

import pytest
import torch
from golden_network import expected, made, released_weights
from golden_weights import close
from straight_network import EMPTY, EMPTY_TEXT, StraightNetwork
from torch import Tensor

from curation.errors import FoleyproofError, UsageProblem
from training.flow import guided, interpolate, loss_per_sample, sample, target, times
from training.network import Network, load_network

INPUTS = ("clip_f", "sync_f", "text_f")


@pytest.fixture(scope="module")
def golden(shared_golden: Path) -> dict[str, Tensor]:
    return expected(shared_golden)


@pytest.fixture(scope="module")
def network(shared_golden: Path, shared_spec: Path) -> Network:
    return load_network("small_16k", released_weights(shared_golden, shared_spec))


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))


def some(batch: int, tokens: int, seed: int) -> Tensor:
    return torch.randn(batch, tokens, 4, generator=torch.Generator().manual_seed(seed))


def test_the_path_is_straight_and_its_velocity_constant(noise: Tensor) -> None:
    x1 = noise.roll(1, 0)
    t = torch.tensor([0.0, 0.25, 1.0])
    x = interpolate(noise, x1, t)
    assert torch.equal(x[0], noise[0])
    assert torch.equal(x[2], x1[2])
    torch.testing.assert_close(x, noise + t[:, None, None] * target(noise, x1))
    torch.testing.assert_close(interpolate(noise, x1, torch.tensor(0.25))[1], x[1])


def test_the_loss_of_a_sample_is_its_own_and_in_float32(noise: Tensor) -> None:
    x1 = noise.roll(1, 0)
    velocity = target(noise, x1) + torch.tensor([0.0, 1.0, -2.0])[:, None, None]
    losses = loss_per_sample(velocity, noise, x1)
    torch.testing.assert_close(losses, torch.tensor([0.0, 1.0, 4.0]), atol=1e-6, rtol=1e-6)
    assert loss_per_sample(velocity.bfloat16(), noise, x1).dtype == torch.float32


def test_times_are_logit_normal() -> None:
    t = times(torch.randn(200_000, generator=torch.Generator().manual_seed(1)))
    assert ((t > 0) & (t < 1)).all()
    # Quartiles of a standard normal are at -0.6745, 0 and 0.6745.
    found = torch.quantile(t, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(found, torch.tensor([0.33751, 0.5, 0.66249]), atol=4e-3, rtol=0)


@pytest.mark.parametrize("num_steps", [1, 2, 25])
def test_eulers_method_is_exact_where_the_data_are_a_point(num_steps: int, noise: Tensor) -> None:
    network = StraightNetwork()
    clip, text = some(3, 6, seed=2), some(3, 7, seed=3)
    found = sample(network, noise, clip, None, text, num_steps=num_steps, cfg_strength=0)
    mean = clip.mean((1, 2)) + text.mean((1, 2))
    torch.testing.assert_close(found, mean[:, None, None].expand_as(noise), atol=1e-5, rtol=0)
    steps = [t for _, t in network.asked]
    assert steps == pytest.approx([step / num_steps for step in range(num_steps)])


def test_eulers_method_nears_the_solution_with_the_number_of_steps(noise: Tensor) -> None:
    network = StraightNetwork(deviation=0.5)
    mean = EMPTY + EMPTY_TEXT
    errors = [
        (sample(network, noise, None, None, None, num_steps=steps) - network.end(noise, mean)).norm()
        for steps in (50, 100)
    ]
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1), "of first order"


def test_guidance_leads_away_from_the_empty_conditions(noise: Tensor) -> None:
    network = StraightNetwork(deviation=0.5)
    clip, text = some(3, 6, seed=2), some(3, 7, seed=3)
    found = sample(network, noise, clip, None, text, cfg_strength=4.5, method="adaptive")
    given = (clip.mean((1, 2)) + text.mean((1, 2)))[:, None, None]
    mean = 4.5 * given - 3.5 * (EMPTY + EMPTY_TEXT)  # the velocity is linear in the mean
    torch.testing.assert_close(found, network.end(noise, mean), atol=1e-4, rtol=0)


def test_a_negative_text_takes_the_place_of_the_empty_one(noise: Tensor) -> None:
    network = StraightNetwork(deviation=0.5)
    text, negative = some(3, 7, seed=3), some(3, 7, seed=4)
    found = sample(network, noise, None, None, text, negative_text=negative, method="adaptive")
    mean = EMPTY + 4.5 * text.mean((1, 2)) - 3.5 * negative.mean((1, 2))
    torch.testing.assert_close(found, network.end(noise, mean[:, None, None]), atol=1e-4, rtol=0)
    for_all = sample(network, noise, None, None, text, negative_text=negative[:1])
    each = sample(network, noise, None, None, text, negative_text=negative[:1].expand(3, 7, 4))
    assert torch.equal(for_all, each)


def test_both_branches_of_guidance_are_one_pass_and_empty_conditions_one_sample(noise: Tensor) -> None:
    network = StraightNetwork()
    sample(network, noise, some(3, 6, seed=2), None, some(3, 7, seed=3), num_steps=4)
    assert [shape for shape, _ in network.asked] == [(6, 5, 2)] * 4
    assert network.asked_conditions == [3, 1], "once each, whatever the number of steps"


def test_below_one_guidance_costs_nothing_and_at_one_it_changes_nothing(noise: Tensor) -> None:
    network = StraightNetwork(deviation=0.5)
    text = some(3, 7, seed=3)
    alone = sample(network, noise, None, None, text, num_steps=4, cfg_strength=0.5)
    assert network.asked_conditions == [3]
    assert {shape for shape, _ in network.asked} == {(3, 5, 2)}
    with_one = sample(network, noise, None, None, text, num_steps=4, cfg_strength=1.0)
    torch.testing.assert_close(alone, with_one, atol=1e-6, rtol=1e-6)


def test_samples_of_a_batch_do_not_meet(noise: Tensor) -> None:
    text = some(3, 7, seed=3)
    network = StraightNetwork(deviation=0.5)
    together = sample(network, noise, None, None, text)
    alone = [sample(network, noise[i : i + 1], None, None, text[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=1e-6)


def test_steps_are_added_in_float32_where_the_network_works_in_bfloat16(noise: Tensor) -> None:
    class Tiny(StraightNetwork):
        def velocity(self, latent: Tensor, t: Tensor | float, conditions: object) -> Tensor:
            assert latent.dtype == torch.bfloat16
            return torch.full_like(latent, 0.01)  # times 1/1000, bfloat16 would lose it

    start = torch.ones(1, 4, 2, dtype=torch.bfloat16)
    found = sample(Tiny(), start, None, None, None, num_steps=1000)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.full_like(start, 1.01))


def test_samples_carry_no_gradient(noise: Tensor) -> None:
    text = some(3, 7, seed=3).requires_grad_()
    assert not sample(StraightNetwork(), noise, None, None, text).requires_grad


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_steps": 0}, "num_steps 0, expected at least 1"),
        ({"method": "heun"}, "'heun', expected one of euler, adaptive"),
        ({"noise": torch.zeros(5, 2)}, r"shape \(5, 2\) .* expected \(batch, latents, channels\)"),
        ({"noise": torch.zeros(1, 5, 2, dtype=torch.int64)}, "int64, expected .* floating point"),
        ({"text": torch.zeros(2, 7, 4)}, "text of 2 samples for noise of 3, expected as many"),
        ({"negative_text": torch.zeros(4, 7, 4)}, "negative_text of 4 samples for noise of 3"),
    ],
)
def test_what_cannot_be_sampled_is_refused(
    changed: dict[str, object], message: str, noise: Tensor
) -> None:
    given = {"noise": noise, "clip": None, "sync": None, "text": None, **changed}
    with pytest.raises(UsageProblem, match=message):
        sample(StraightNetwork(), **given)  # type: ignore[arg-type]


def test_velocities_that_are_not_finite_end_the_adaptive_method(noise: Tensor) -> None:
    network = StraightNetwork(deviation=float("nan"))
    with pytest.raises(FoleyproofError, match="is not finite, expected numbers"):
        sample(network, noise, None, None, None, method="adaptive")


@pytest.mark.shared
@torch.no_grad()
def test_one_guided_step_is_that_of_the_golden_file(network: Network, golden: dict[str, Tensor]) -> None:
    latent, inputs, t = golden["latent"], [golden[name] for name in INPUTS], torch.tensor(0.3)
    assert close(guided(network, latent.shape, *inputs)(t, latent), golden["ode_cfg45_t03"], 1e-3)
    first = [given[:1] for given in inputs]
    alone = guided(network, latent[:1].shape, *first, cfg_strength=0.0)(t, latent[:1])
    assert close(alone, golden["ode_cfg0"][:1], 1e-3)


@pytest.mark.shared
@torch.no_grad()
def test_velocity_with_a_negative_text_is_that_of_the_golden_file(
    network: Network, golden: dict[str, Tensor]
) -> None:
    empty = network.conditions(None, None, golden["text_f"][1:], num_latents=250)
    found = network.velocity(golden["latent"][1:], golden["t"][1:], empty)
    assert close(found, golden["flow_empty_negtext"][1:], 2e-4)


@pytest.mark.shared
@torch.no_grad()
def test_losses_are_those_of_the_golden_file(
    network: Network, golden: dict[str, Tensor], shared_golden: Path
) -> None:
    x0, mean, drawn = (made(shared_golden, name, (2, 250, 20)) for name in ("x0", "a_mean", "a_randn"))
    x1 = network.normalise(mean + golden["train_a_std"] * drawn)
    assert close(x1, golden["train_x1"], 1e-6)
    x = interpolate(x0, x1, golden["t"])
    assert close(x, golden["train_xt"], 1e-6)
    without_video = torch.tensor([False, True])
    velocity = network(
        x, *(golden[name] for name in INPUTS), golden["t"],
        without_clip=without_video, without_sync=without_video, without_text=~without_video,
    )  # fmt: skip
    assert close(loss_per_sample(velocity, x0, x1), golden["train_loss_per_sample"], 2e-4)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("num_steps", "relative"), [(5, 1e-3), pytest.param(25, 5e-3, marks=pytest.mark.soak)]
)
def test_samples_are_those_of_the_golden_file(
    num_steps: int, relative: float, network: Network, golden: dict[str, Tensor]
) -> None:
    inputs = [golden[name][:1] for name in INPUTS]
    found = sample(network, golden["latent"][:1], *inputs, num_steps=num_steps)
    assert close(found, golden[f"euler{num_steps}_cfg45"], relative)
