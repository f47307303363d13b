"""The optimiser: the golden schedule, torch's own clipping and AdamW, and steps that are not taken."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import sharded_steps
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from training.optim import adamw, clip_by_norm, learning_rate, step_unless

BF16 = SimpleNamespace(
    learning_rate=1e-4, betas=(0.9, 0.95), eps=None, weight_decay=1e-6, precision="bf16"
)


def with_gradients(seed: int = 0, *, device: str = "cpu") -> list[nn.Parameter]:
    torch.manual_seed(seed)
    shapes = ((4, 3), (7,), (), (2, 3, 5))
    parameters = [nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, device=device)
    return parameters


@pytest.mark.shared
def test_the_learning_rate_is_that_of_the_golden_schedule(shared_golden: Path) -> None:
    golden = json.loads((shared_golden / "lr_schedule.json").read_text())
    short = [learning_rate(step, warmup_steps=10, milestones=(40, 60)) for step in range(80)]
    assert short == pytest.approx(golden["step_warm10_ms40_60"], rel=1e-12)
    constant = [learning_rate(step, warmup_steps=10, milestones=()) for step in range(80)]
    assert constant == pytest.approx(golden["constant_warm10_ms40_60"], rel=1e-12)
    used = golden["default_config_lr_used_at_iteration"]
    assert {step: learning_rate(int(step)) for step in used} == pytest.approx(used, rel=1e-12)


def test_the_learning_rate_needs_no_warm_up() -> None:
    assert learning_rate(0, base=0.5, warmup_steps=0, milestones=(1,), factor=0.5) == 0.5
    assert learning_rate(1, base=0.5, warmup_steps=0, milestones=(1,), factor=0.5) == 0.25


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 1e6])
def test_clipping_is_that_of_torch(max_norm: float) -> None:
    ours, theirs = with_gradients(), with_gradients()
    norm = clip_by_norm(ours, max_norm)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(theirs, max_norm))
    assert norm.shape == ()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0)


def test_clipping_passes_over_what_has_no_gradient() -> None:
    parameters = with_gradients()
    alone = [parameters[0]]
    for parameter in parameters[1:]:
        parameter.grad = None
    assert torch.equal(clip_by_norm(iter(parameters), 1.0), clip_by_norm(with_gradients()[:1], 1.0))
    alone[0].grad = None
    assert clip_by_norm(parameters, 1.0) == 0


def test_the_optimiser_is_adamw_with_one_group_of_what_is_trained() -> None:
    parameters = with_gradients()
    parameters[1].requires_grad_(False)
    optimiser = adamw(iter(parameters), BF16)
    (group,) = optimiser.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in (parameters[0], *parameters[2:])]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.9, 0.95), 1e-6)
    assert group["fused"] is True


@pytest.mark.parametrize(
    ("precision", "eps", "expected"), [("bf16", None, 1e-6), ("fp32", None, 1e-8), ("bf16", 1e-3, 1e-3)]
)
def test_epsilon_follows_the_precision(precision: str, eps: float | None, expected: float) -> None:
    config = SimpleNamespace(**{**vars(BF16), "precision": precision, "eps": eps})
    assert adamw(with_gradients(), config).param_groups[0]["eps"] == expected


def test_steps_are_those_of_adamw_as_published() -> None:
    """Loshchilov and Hutter, algorithm 2, in float64."""
    (parameter,) = with_gradients()[:1]
    config = SimpleNamespace(**{**vars(BF16), "learning_rate": 0.1, "weight_decay": 0.01})
    optimiser = adamw([parameter], config)
    theta = parameter.detach().double()
    first = second = torch.zeros_like(theta)
    for step in range(1, 6):
        gradient = torch.randn(theta.shape)
        parameter.grad = gradient.clone()
        step_unless(optimiser, torch.tensor(False))
        g = gradient.double()
        first, second = 0.9 * first + 0.1 * g, 0.95 * second + 0.05 * g * g
        moved = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-6)
        theta = theta - 0.1 * 0.01 * theta - 0.1 * moved
    torch.testing.assert_close(parameter.detach().double(), theta, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_step_with_gradients_that_are_not_finite_changes_nothing(
    steps_before: int, value: float
) -> None:
    parameters = with_gradients()
    optimiser = adamw(parameters, BF16)
    for _ in range(steps_before):
        optimiser.step()
    weights = [p.detach().clone() for p in parameters]
    before = [{k: v.clone() for k, v in optimiser.state[p].items()} for p in parameters]
    parameters[3].grad[0, 0, 0] = value
    norm = clip_by_norm(parameters, 1.0)
    step_unless(optimiser, ~norm.isfinite())
    for parameter, weight, former in zip(parameters, weights, before, strict=True):
        assert torch.equal(parameter, weight)
        for name, tensor in optimiser.state[parameter].items():
            assert torch.equal(tensor, former.get(name, torch.zeros_like(tensor))), name


def test_after_a_step_not_taken_the_next_is_as_if_it_had_never_been_tried() -> None:
    tried, straight = with_gradients(), with_gradients()
    bad, good = adamw(tried, BF16), adamw(straight, BF16)
    for seed, is_bad in ((1, False), (2, True), (3, False)):
        for parameter, gradient in zip(tried, with_gradients(seed), strict=True):
            parameter.grad = gradient.grad * (float("nan") if is_bad else 1.0)
        step_unless(bad, torch.tensor(is_bad))
        if not is_bad:
            for parameter, gradient in zip(straight, with_gradients(seed), strict=True):
                parameter.grad = gradient.grad
            good.step()
    assert all(torch.equal(one, other) for one, other in zip(tried, straight, strict=True))
    assert not hasattr(bad, "found_inf"), "steps of others are as ever"


def test_optimisers_that_cannot_leave_a_step_out_say_so() -> None:
    plain = torch.optim.AdamW(with_gradients(), fused=False, foreach=True)
    with pytest.raises(AssertionError, match="found_inf"):
        step_unless(plain, torch.tensor(True))
    assert not hasattr(plain, "found_inf")


def test_nobody_waits_for_the_device() -> None:
    """Tensors without values: whatever would look at one on the host raises."""
    with FakeTensorMode():
        parameters = with_gradients(device="cuda")
        optimiser = adamw(parameters, BF16)
        norm = clip_by_norm(parameters, 1.0)
        step_unless(optimiser, ~norm.isfinite())
        assert norm.device.type == "cuda"
        with pytest.raises(RuntimeError, match="local_scalar"):
            norm.item()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_leaves_the_step_out_without_being_waited_for() -> None:
    parameters = with_gradients(device="cuda")
    optimiser = adamw(parameters, BF16)
    optimiser.step()
    weights = [p.detach().clone() for p in parameters]
    parameters[0].grad[0, 0] = float("nan")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step_unless(optimiser, ~clip_by_norm(parameters, 1.0).isfinite())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(one, other) for one, other in zip(parameters, weights, strict=True))


@pytest.mark.slow
def test_two_ranks_with_sharded_weights_step_as_one(tmp_path: Path) -> None:
    """Also averages of the parts of each rank; the third step is bad on one rank, and taken on none."""
    script = [sys.executable, "-W", "error", sharded_steps.__file__]
    ranks = [
        subprocess.Popen([*script, tmp_path / "two", str(rank), "2"], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    sharded_steps.main(tmp_path / "one", 0, 1)
    for process in ranks:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    one, two = torch.load(tmp_path / "one"), torch.load(tmp_path / "two")
    assert one.keys() == two.keys()
    assert one["norm 2"].isnan()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6, equal_nan=True, msg=name)
