"""Averages: the golden trajectory, ema-pytorch, and what an average is by its definition."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ema_pytorch import PostHocEMA
from safetensors.torch import load_file
from some_profiles import Given, same
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from training.ema import SIGMAS, Tracks, beta, gamma_of, synthesize
from training.powers import solve

EVERY = 20  # steps between the profiles of the golden file


@pytest.fixture(scope="module")
def golden(shared_golden: Path) -> dict[str, Tensor]:
    return load_file(shared_golden / "ema.safetensors")


def tracked(trajectory: Tensor, *, corrected: bool) -> tuple[Tensor, Given]:
    """The averages at every step (steps, tracks, values), and the profiles of every 20th."""
    weights = {"weight": trajectory[0].clone()}
    tracks = Tracks(weights, corrected=corrected)
    every, profiles = [], []
    for step, values in enumerate(trajectory, 1):
        weights["weight"].copy_(values)
        tracks.update(weights)
        every.append(torch.stack([tracks.averages[sigma]["weight"] for sigma in SIGMAS]))
        if step % EVERY == 0:
            profiles += [(step, s, {"weight": tracks.averages[s]["weight"].clone()}) for s in SIGMAS]
    return torch.stack(every), profiles


@pytest.mark.shared
def test_exponents_and_decays_are_those_of_the_golden_file(golden: dict[str, Tensor]) -> None:
    gammas = torch.tensor([gamma_of(float(f"{s:.4g}")) for s in golden["sigma_rels"].tolist()])
    torch.testing.assert_close(gammas, golden["gammas"], rtol=1e-7, atol=0)
    for name, corrected in (("betas", True), ("betas_nocorr", False)):
        betas = torch.tensor(
            [[beta(k, gamma_of(s), corrected=corrected) for s in SIGMAS] for k in range(1, 201)]
        )
        torch.testing.assert_close(betas, golden[name], rtol=1e-6, atol=1e-7)


@pytest.mark.shared
@pytest.mark.parametrize(("suffix", "corrected"), [("", True), ("_nocorr", False)])
def test_tracks_are_those_of_the_golden_file_at_every_step(
    suffix: str, corrected: bool, golden: dict[str, Tensor]
) -> None:
    found, _ = tracked(golden["trajectory"], corrected=corrected)
    torch.testing.assert_close(found, golden["ema_tracks" + suffix], atol=1e-6, rtol=0)


@pytest.mark.shared
@pytest.mark.parametrize(("suffix", "corrected"), [("", True), ("_nocorr", False)])
@pytest.mark.parametrize(
    ("sigma", "step", "name"),
    [
        *((sigma, 200, f"synth_sigma{sigma:g}_step200") for sigma in (0.05, 0.1, 0.08, 0.15)),
        (0.08, 100, "synth_sigma0.08_step100_ALLCKPT"),  # later profiles count, too
    ],
)
def test_averages_made_afterwards_are_those_of_the_golden_file(
    sigma: float, step: int, name: str, suffix: str, corrected: bool, golden: dict[str, Tensor]
) -> None:
    _, profiles = tracked(golden["trajectory"], corrected=corrected)
    found = synthesize(profiles, sigma, step)
    torch.testing.assert_close(found["weight"], golden[name + suffix], atol=1e-6, rtol=0)
    backwards = synthesize(profiles[::-1], sigma, step)
    same(backwards, found)


@pytest.mark.shared
@pytest.mark.parametrize("sigma", [0.05, 0.08, 0.15])
def test_weights_of_the_solver_are_those_of_the_golden_file(
    sigma: float, golden: dict[str, Tensor]
) -> None:
    steps = golden["solve_t"].tolist()
    sigmas = [0.05] * 10 + [0.10] * 10
    weights, _ = solve(steps, sigmas, sigma_rel=sigma, step=200)
    wanted = golden[f"solve_weights_sigma{sigma:g}_t200"]
    torch.testing.assert_close(torch.tensor(weights), wanted, atol=1e-6, rtol=0)


def test_a_width_is_the_standard_deviation_of_its_profile() -> None:
    t = (np.arange(1_000_000) + 0.5) / 1_000_000
    for sigma in (0.02, 0.05, 0.1, 0.2, 0.28, 1 / math.sqrt(12)):
        share = t ** gamma_of(sigma)
        share /= share.sum()
        mean = (share * t).sum()
        assert math.sqrt((share * (t - mean) ** 2).sum()) == pytest.approx(sigma, rel=1e-6)


def test_tracks_without_correction_weigh_steps_by_their_power() -> None:
    """By its definition: step t counts as t^gamma, as the sum of all weights ever given shows."""
    steps = 400
    one_hot = torch.eye(steps)
    tracks = Tracks({"share": one_hot[0]}, corrected=False)
    for step in range(steps):
        tracks.update({"share": one_hot[step]})
    for sigma in SIGMAS:
        share = tracks.averages[sigma]["share"].double()
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        power = gamma_of(sigma)
        wanted = (t / steps) ** (power + 1) - ((t - 1) / steps) ** (power + 1)
        # The first update counts its weights as if they had been there since step 0; one step of lag.
        shifted = ((t + 1) / (steps + 1)) ** (power + 1) - (t / (steps + 1)) ** (power + 1)
        torch.testing.assert_close(share[1:], shifted[1:], atol=1e-7, rtol=1e-4)
        assert (share - wanted).abs().sum() < 3 * power / steps


def test_the_solver_finds_the_nearest_sum_of_profiles() -> None:
    """Least squares over profiles as functions of the step, on a fine grid."""
    steps, sigmas = [20, 20, 40, 40, 60, 60], [0.05, 0.10] * 3
    t = (np.arange(120_000) + 0.5) / 2_000

    def profile(step: int, sigma: float) -> np.ndarray:
        power = gamma_of(sigma)
        return np.where(t < step, (power + 1) / step * (np.minimum(t, step) / step) ** power, 0.0)

    stored = np.stack([profile(*one) for one in zip(steps, sigmas, strict=True)], axis=1)
    for sigma, step in ((0.08, 60), (0.15, 60), (0.05, 40), (0.08, 50)):
        wanted = profile(step, sigma)
        weights, missed = solve(steps, sigmas, sigma_rel=sigma, step=step)
        nearest = np.linalg.lstsq(stored, wanted, rcond=None)[0]
        np.testing.assert_allclose(weights, nearest, atol=3e-3)
        rest = np.linalg.norm(stored @ weights - wanted) / np.linalg.norm(wanted)
        assert missed == pytest.approx(rest, abs=2e-3)


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.08, 0.15])
def test_agrees_with_ema_pytorch(sigma: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    peer = PostHocEMA(
        network, sigma_rels=SIGMAS, update_every=1, checkpoint_every_num_steps=10,
        checkpoint_folder=str(tmp_path / "ema_ckpts"), checkpoint_dtype=torch.float32,
    )  # fmt: skip
    tracks, profiles = Tracks(network.state_dict(), corrected=False), []
    for step in range(1, 61):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
            network(torch.randn(8, 4))  # moves the buffers
        peer.update()
        tracks.update(network.state_dict())
        for own, other in zip(SIGMAS, peer.ema_models, strict=True):
            theirs = other.ema_model.state_dict()
            same(tracks.averages[own], {n: t for n, t in theirs.items() if t.is_floating_point()})
        if step % 10 == 0:
            profiles += [
                (step, s, {n: t.clone() for n, t in tracks.averages[s].items()}) for s in SIGMAS
            ]
    made = peer.synthesize_ema_model(sigma_rel=sigma, step=60).ema_model.state_dict()
    wanted = {name: tensor for name, tensor in made.items() if tensor.is_floating_point()}
    same(synthesize(profiles, sigma, 60), wanted)
    stored = synthesize(tmp_path, sigma)  # of its files, where the count of batches is a float, too
    same({name: stored[name] for name in wanted}, wanted)


def test_tracks_average_floats_of_any_kind_in_float32_and_leave_the_rest() -> None:
    tensors = {
        "weight": torch.ones(3, dtype=torch.bfloat16),
        "buffer": torch.ones(2),
        "count": torch.tensor(3),
    }
    tracks = Tracks(tensors)
    tracks.update(tensors)
    for averages in tracks.averages.values():
        assert {name: tensor.dtype for name, tensor in averages.items()} == {
            "weight": torch.float32,
            "buffer": torch.float32,
        }


def test_updates_write_in_place_and_leave_the_weights_alone() -> None:
    weights = {"a": nn.Parameter(torch.zeros(3))}
    tracks = Tracks(weights)
    places = [averages["a"].data_ptr() for averages in tracks.averages.values()]
    tracks.update(weights)
    with torch.no_grad():
        weights["a"].add_(1)
    tracks.update(weights)
    assert [averages["a"].data_ptr() for averages in tracks.averages.values()] == places
    assert torch.equal(weights["a"].detach(), torch.ones(3))
    assert not tracks.averages[0.05]["a"].requires_grad
    assert 0 < tracks.averages[0.05]["a"][0] < 1


def test_averages_of_a_part_of_the_tensors_are_that_part_of_the_averages() -> None:
    generator = torch.Generator().manual_seed(0)
    names = ["a", "b", "c"]
    tracks = {part: Tracks(dict.fromkeys(part, torch.zeros(2))) for part in ("abc", "ac", "b", "")}
    for _ in range(5):
        weights = {name: torch.randn(2, generator=generator) for name in names}
        for one in tracks.values():
            one.update(weights)
    for sigma in SIGMAS:
        shared = {**tracks["ac"].averages[sigma], **tracks["b"].averages[sigma]}
        for name, tensor in tracks["abc"].averages[sigma].items():
            assert torch.equal(shared[name], tensor)


def test_no_widths_are_no_averages() -> None:
    tracks = Tracks({"a": torch.zeros(2)}, sigmas=())
    tracks.update({"a": torch.ones(2)})
    assert tracks.averages == {}


def test_an_update_waits_for_no_device() -> None:
    """Tensors without values: whatever would look at one on the host raises."""
    with FakeTensorMode():
        weights = {"a": torch.zeros(3, device="cuda"), "b": torch.zeros(3, device="cuda")}
        tracks = Tracks(weights)
        for _ in range(3):
            tracks.update(weights)
        assert tracks.averages[0.05]["a"].device.type == "cuda"
