"""What happens to tokens between matrix products: modulation, and queries and keys before attention.

On a CPU in float32 by operators of our own, which keep for the gradients only what they were given, and
pass over it fewer times; elsewhere by plain ones, which a compiler fuses.

Shapes: B batch, T tokens, D width, h heads, E width of a head.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

NORM_EPSILON = 1e-5  # of layer norms
# of the norms of queries and keys: float32's, also where they come in bf16
HEAD_NORM_EPSILON = torch.finfo(torch.float32).eps


def is_own(x: Tensor) -> bool:
    """Whether operators of our own compute it; a compiler sees more in plain ones."""
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    return on_cpu and not torch.compiler.is_compiling()


def modulate(x_btd: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x) (1 + scale) + shift, the norm without weights; the others are (B, T, D) or (B, 1, D)."""
    if is_own(x_btd) and not torch.is_autocast_enabled("cpu"):
        y: Tensor = _Modulate.apply(x_btd, shift, scale)  # type: ignore[no-untyped-call]
        return y
    normal = functional.layer_norm(x_btd, x_btd.shape[-1:], eps=NORM_EPSILON)
    return torch.addcmul(normal + shift, normal, scale)


class _Modulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        normal, mean, factor = torch.native_layer_norm(x, x.shape[-1:], None, None, NORM_EPSILON)
        ctx.save_for_backward(x, mean, factor, scale)
        return torch.addcmul(shift, normal, scale).add_(normal)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, mean, factor, scale = ctx.saved_tensors
        (y,) = gradients
        of_scale = torch.sub(x, mean).mul_(factor).mul_(y)
        to_normal = torch.addcmul(y, y, scale)
        of_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            to_normal, x, x.shape[-1:], mean, factor, None, None, [True, False, False]
        )
        return of_x, _like(y, scale), _like(of_scale, scale)


def _like(gradient: Tensor, given: Tensor) -> Tensor:
    """The gradient of what was given once for all tokens."""
    return gradient if gradient.shape == given.shape else gradient.sum(1, keepdim=True)


def prepared(x: Tensor, weight: Tensor, table: Tensor | None) -> Tensor:
    """Queries and keys (B, T, 2, h, E): RMS norm over a head, and rotation by position.

    Computed in float32, given back as they came.

    Args:
        weight: of the norms (2, 1, E).
        table: cosines and sines (2, T, 1, 1, E/2), see `rotate`; None: positions do not count.
    """
    if is_own(x):
        y: Tensor = _Prepared.apply(x, weight, table)  # type: ignore[no-untyped-call]
        return y
    wide = x.float()
    wide = wide * _factor(wide) * weight
    return (wide if table is None else rotate(wide, table)).to(x.dtype)


def rotate(x: Tensor, table: Tensor, *, back: bool = False) -> Tensor:
    """Turn pairs of (…, E) by their position, or back; the members of a pair lie half a head apart."""
    cos, sin = table[0], -table[1] if back else table[1]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _factor(x: Tensor) -> Tensor:
    return torch.rsqrt(x.square().mean(-1, keepdim=True) + HEAD_NORM_EPSILON)


class _Prepared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, table: Tensor | None) -> Tensor:
        factor = _factor(x)
        ctx.save_for_backward(x, weight, table, factor)
        y = (x * factor).mul_(weight)
        return y if table is None else rotate(y, table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, table, factor = ctx.saved_tensors
        (y,) = gradients
        inner = y if table is None else rotate(y, table, back=True)
        normal = x * factor
        of_weight = (inner * normal).sum((0, 1, 3)).unsqueeze(1)
        to_normal = inner * weight
        mean = (to_normal * normal).mean(-1, keepdim=True)
        return to_normal.sub_(normal.mul_(mean)).mul_(factor), of_weight, None
