"""The optimiser: AdamW in one group, the schedule of its learning rate, and clipping by the norm.

Nothing here waits for a GPU: norms and decisions stay on it as tensors.

Source: arXiv:2412.15322, Sec. H; MMAudio `runner.py`@974010a.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

_EPS = {"bf16": 1e-6, "fp32": 1e-8}  # by the precision of the forward pass


class OptimiserConfig(Protocol):
    """What of a run's configuration is about the optimiser; `training.config.TrainConfig` has more."""

    @property
    def learning_rate(self) -> float:
        """The base, which the schedule scales."""

    @property
    def betas(self) -> tuple[float, float]:
        """Decay of the first and second moments."""

    @property
    def eps(self) -> float | None:
        """None: by the precision."""

    @property
    def weight_decay(self) -> float:
        """Decoupled from the gradient."""

    @property
    def precision(self) -> Literal["bf16", "fp32"]:
        """Of the forward pass; weights and moments are float32."""


def learning_rate(
    step: int,
    *,
    base: float = 1e-4,
    warmup_steps: int = 1000,
    milestones: Sequence[int] = (240_000, 270_000),
    factor: float = 0.1,
) -> float:
    """The learning rate that step `step` is taken with, the first being 0.

    Args:
        warmup_steps: in which it rises linearly, from base / (warmup_steps + 1).
        milestones: steps, counted from the end of the warm-up, from which on it is `factor` times what
            it was.
    """
    assert step >= 0, f"step {step}, expected 0 or more"
    if step < warmup_steps:
        return base * (step + 1) / (warmup_steps + 1)
    passed = sum(step - warmup_steps >= milestone for milestone in milestones)
    rate = base * factor**passed
    return float(rate)


def adamw(parameters: Iterable[nn.Parameter], config: OptimiserConfig) -> torch.optim.AdamW:
    """Fused AdamW over all parameters that are trained, in one group: norms and biases decay too.

    Its order is theirs. The learning rate is that of the base: `param_groups[0]["lr"]` is set to
    `learning_rate(step)` before each step.
    """
    return torch.optim.AdamW(
        [parameter for parameter in parameters if parameter.requires_grad],
        lr=config.learning_rate,
        betas=config.betas,
        eps=_EPS[config.precision] if config.eps is None else config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def clip_by_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """The norm of all gradients (scalar); they are scaled, in place, to one of at most `max_norm`.

    It is over all parameters and, of sharded ones (DTensor), over all ranks, each of which gets it as a
    plain tensor. Where it is not finite, the gradients are not either afterwards: see `step_unless`.
    """
    meshes: dict[object, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = parameter.grad
            mesh = gradient.device_mesh if isinstance(gradient, DTensor) else None
            meshes.setdefault(mesh, []).append(parameter)
    norms = [_norm(group) for group in meshes.values()]
    if not norms:
        return torch.zeros(())
    total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for group in meshes.values():
        clip_grads_with_norm_(group, max_norm, total, foreach=True)
    return total


def _norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The norm of gradients that are all plain, or all on one mesh; a plain tensor."""
    total = get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    return total.full_tensor() if isinstance(total, DTensor) else total


def step_unless(optimizer: torch.optim.AdamW, bad: Tensor) -> None:
    """Take a step, or none where `bad` (scalar, on the parameters' device) is true; nobody waits for it.

        norm = clip_by_norm(parameters, 1.0)
        step_unless(optimizer, ~norm.isfinite())

    The fused kernels read the flag on the device, as a GradScaler has them do: weights, moments and the
    count of steps, which corrects the moments' bias, stay as they are.

    Args:
        optimizer: fused, as `adamw` makes it; any other raises AssertionError.
    """
    flag = (bad != 0).to(torch.float32).reshape(())
    optimizer.found_inf = flag  # type: ignore[attr-defined]  # as torch.amp.GradScaler gives it
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]
