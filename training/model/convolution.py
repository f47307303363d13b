"""Convolutions over time of sequences with the channels last, as matrix products.

They are 71 to 73 % of the work of the network. Weights lie as (O, K, I), so that a tap is a plain
matrix, and so are all of them.

    float32 on a CPU    `minimal` for three taps, `shifts` for seven
    a GPU               cuDNN's convolution of images of height 1 whose channels lie last, which is how
                        they lie here: up to three times as fast as windows (results/gpu_training_*.json)
    all else            windows: a row holds what the kernel sees at one time step, tap after tap, and
                        one product has K·I terms

Shapes: B batch, N time steps, I channels in, O channels out, H hidden units, K taps.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.model import minimal, shifts
from training.model.images import by_images
from training.model.pointwise import is_own


def convolve(x_bni: Tensor, weight_oki: Tensor, bias_o: Tensor | None) -> Tensor:
    """The convolution over time, zero padded to equal length: (B, N, I) → (B, N, O)."""
    x, weight, bias = _cast(x_bni, weight_oki, bias_o)
    if is_own(x):
        y: Tensor = _Convolution.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return y
    if takes_images(x) and weight.shape[1] > 1:
        y = by_images(x.contiguous(), weight.contiguous())
        return y if bias is None else y + bias
    return functional.linear(windows(x, weight.shape[1]), weight.flatten(1), bias)


def takes_images(x: Tensor) -> bool:
    """Whether `images` computes it."""
    return x.device.type == "cuda"


def gated_mlp(x_bni: Tensor, w13_hki: Tensor, w2_okh: Tensor) -> Tensor:
    """w2 (SiLU(w1 x) · (w3 x)), w1 above w3 in `w13` (2H, K, I): (B, N, I) → (B, N, O)."""
    x, w13, w2 = _cast(x_bni, w13_hki, w2_okh)
    if is_own(x):
        y: Tensor = _GatedMlp.apply(x, w13, w2)  # type: ignore[no-untyped-call]
        return y
    gate, value = convolve(x, w13, None).chunk(2, dim=-1)
    return convolve(functional.silu(gate) * value, w2, None)


def windows(x_bni: Tensor, taps: int) -> Tensor:
    """What the kernel sees at each time step: (B, N, K·I)."""
    if taps == 1:
        return x_bni
    length, pad = x_bni.shape[1], taps // 2
    padded = functional.pad(x_bni, (0, 0, pad, pad))
    return torch.cat([padded[:, tap : tap + length] for tap in range(taps)], dim=-1)


def _cast(*tensors: Tensor | None) -> list[Any]:
    """In the type that autocast asks for, which our own operators do not hear of."""
    kind = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    dtype = torch.get_autocast_dtype(kind)
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _way(weight: Tensor) -> ModuleType:
    return minimal if weight.shape[1] == minimal.TAPS else shifts


def _laid(way: ModuleType, x_bni: Tensor, taps: int) -> Tensor:
    """The sequences of a batch in one matrix, as this way of computing wants them."""
    rows, inside = way.room(x_bni, x_bni.shape, taps)
    inside.copy_(x_bni)
    laid: Tensor = rows
    return laid


class _Convolution(torch.autograd.Function):
    """`convolve`."""

    @staticmethod
    def forward(ctx: Any, x_bni: Tensor, weight_oki: Tensor, bias_o: Tensor | None) -> Tensor:
        way = _way(weight_oki)
        batch, length, _ = x_bni.shape
        ctx.save_for_backward(x_bni, weight_oki)  # attention keeps its result too
        rows = _laid(way, x_bni, weight_oki.shape[1])
        y: Tensor = way.product(rows, weight_oki, bias_o, batch)
        return y[:, :length]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_bni, weight = ctx.saved_tensors
        (y_bno,) = gradients
        way, taps = _way(weight), weight.shape[1]
        batch, length, _ = y_bno.shape
        y = _laid(way, y_bno, taps)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            way.input_gradient(y, weight, batch)[:, :length] if needs_x else None,
            way.weight_gradient(y, _laid(way, x_bni, taps), taps) if needs_weight else None,
            y.sum(0) if needs_bias else None,
        )


class _GatedMlp(torch.autograd.Function):
    """`gated_mlp`; of the hidden units only what `w13` gives is kept for the gradients."""

    @staticmethod
    def forward(ctx: Any, x_bni: Tensor, w13_hki: Tensor, w2_okh: Tensor) -> Tensor:
        way, taps = _way(w13_hki), w13_hki.shape[1]
        batch, length, _ = x_bni.shape
        rows = _laid(way, x_bni, taps)
        both = way.product(rows, w13_hki, None, batch)[:, :length]
        ctx.save_for_backward(rows, both, w13_hki, w2_okh)
        gate, value = both.chunk(2, dim=-1)
        hidden, inside = way.room(both, gate.shape, taps)
        torch.mul(functional.silu(gate), value, out=inside)
        y: Tensor = way.product(hidden, w2_okh, None, batch)
        return y[:, :length]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, both, w13, w2 = ctx.saved_tensors
        (y_bno,) = gradients
        way, taps = _way(w13), w13.shape[1]
        batch, length, _ = y_bno.shape
        gate, value = both.chunk(2, dim=-1)
        y = _laid(way, y_bno, taps)
        needs_x, needs_w13, needs_w2 = ctx.needs_input_grad
        inner = way.input_gradient(y, w2, batch)[:, :length]
        active = functional.silu(gate)
        of_w2 = None
        if needs_w2:
            hidden, inside = way.room(both, gate.shape, taps)
            torch.mul(active, value, out=inside)
            of_w2 = way.weight_gradient(y, hidden, taps)
            del hidden, inside
        to_both, inside = way.room(both, both.shape, taps)
        torch.mul(inner, active, out=inside[..., gate.shape[-1] :])
        inside[..., : gate.shape[-1]] = torch.ops.aten.silu_backward(inner.mul_(value), gate)
        return (
            way.input_gradient(to_both, w13, batch)[:, :length] if needs_x else None,
            way.weight_gradient(to_both, rows, taps) if needs_w13 else None,
            of_w2,
        )
