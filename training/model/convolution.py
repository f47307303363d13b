"""Convolutions over time of sequences with the channels last, as matrix products.

They are 71 to 73 % of the work of the network. Weights lie as (O, K, I), so that both ways of computing
them see plain matrices:

    windows   a row holds what the kernel sees at one time step, tap after tap; one product of K·I terms
    shifts    the sequences of a batch stand in one matrix, with p = (K - 1) / 2 rows of zeros before,
              between and after them; the rows that a tap sees are that matrix, shifted, so that K
              products into the same sums need no copy at all:

                  0 | x[0] x[1] x[2] | 0 | y[0] y[1] y[2] | 0        p = 1
                  └──── tap 0 ────────────────────┘
                      └──── tap 1 ────────────────────┘
                          └──── tap 2 ────────────────────┘

The second is for float32 on a CPU, where sums in memory cost next to nothing beside the products; a GPU
gets windows, which its compiler writes in one kernel.

Shapes: B batch, N time steps, I channels in, O channels out, H hidden units, K taps, p = (K - 1) / 2.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def convolve(x_bni: Tensor, weight_oki: Tensor, bias_o: Tensor | None) -> Tensor:
    """The convolution over time, zero padded to equal length: (B, N, I) → (B, N, O)."""
    x, weight, bias = _cast(x_bni, weight_oki, bias_o)
    if _is_shifted(x):
        y: Tensor = _Shifted.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return y
    return functional.linear(windows(x, weight.shape[1]), weight.flatten(1), bias)


def gated_mlp(x_bni: Tensor, w13_hki: Tensor, w2_okh: Tensor) -> Tensor:
    """w2 (SiLU(w1 x) · (w3 x)), w1 above w3 in `w13` (2H, K, I): (B, N, I) → (B, N, O)."""
    x, w13, w2 = _cast(x_bni, w13_hki, w2_okh)
    if _is_shifted(x):
        y: Tensor = _ShiftedMlp.apply(x, w13, w2)  # type: ignore[no-untyped-call]
        return y
    gate, value = convolve(x, w13, None).chunk(2, dim=-1)
    return convolve(functional.silu(gate) * value, w2, None)


def windows(x_bni: Tensor, taps: int) -> Tensor:
    """What the kernel sees at each time step: (B, N, K·I)."""
    if taps == 1:
        return x_bni
    length, pad = x_bni.shape[1], (taps - 1) // 2
    padded = functional.pad(x_bni, (0, 0, pad, pad))
    return torch.cat([padded[:, tap : tap + length] for tap in range(taps)], dim=-1)


def _is_shifted(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


def _cast(*tensors: Tensor | None) -> list[Any]:
    """In the type that autocast asks for, which our own operators do not hear of."""
    kind = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    dtype = torch.get_autocast_dtype(kind)
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _gapped(x_bni: Tensor, pad: int) -> Tensor:
    """The sequences in one matrix with zeros before, between and after them: (p + B (N + p), I)."""
    batch, length, width = x_bni.shape
    rows, inside = _empty(x_bni, batch, length, width, pad)
    inside.copy_(x_bni)
    return rows


def _empty(like: Tensor, batch: int, length: int, width: int, pad: int) -> tuple[Tensor, Tensor]:
    """Such a matrix whose zeros are written, and the view (B, N, I) of what is not."""
    rows = like.new_empty((pad + batch * (length + pad), width))
    rows[:pad].zero_()
    body = rows[pad:].view(batch, length + pad, width)
    body[:, length:].zero_()
    return rows, body[:, :length]


def _products(gapped: Tensor, weight_oki: Tensor, bias_o: Tensor | None, batch: int) -> Tensor:
    """The convolution of all rows but the last gap: (B, N + p, O); in gaps is what means nothing."""
    outputs, taps, _ = weight_oki.shape
    pad = (taps - 1) // 2
    body = len(gapped) - pad
    y = gapped.new_empty((body, outputs))
    some = y[: body - pad]
    for tap in range(taps):
        seen = gapped[tap : tap + len(some)]
        matrix = weight_oki[:, tap].t()
        if tap:
            some.addmm_(seen, matrix)
        elif bias_o is None:
            torch.mm(seen, matrix, out=some)
        else:
            torch.addmm(bias_o, seen, matrix, out=some)
    return y.view(batch, body // batch, outputs)


def _input_gradient(gapped: Tensor, weight_oki: Tensor, batch: int) -> Tensor:
    """The gradient of the input from that of the output, as `_products` with the taps reversed."""
    _, taps, inputs = weight_oki.shape
    pad = (taps - 1) // 2
    body = len(gapped) - pad
    x = gapped.new_empty((body, inputs))
    some = x[: body - pad]
    for tap in range(taps):
        seen = gapped[tap : tap + len(some)]
        matrix = weight_oki[:, taps - 1 - tap]
        if tap:
            some.addmm_(seen, matrix)
        else:
            torch.mm(seen, matrix, out=some)
    return x.view(batch, body // batch, inputs)


def _weight_gradient(output: Tensor, gapped: Tensor, taps: int) -> Tensor:
    """The gradient of the weight (O, K, I); both matrices with zeros between the sequences."""
    pad = (taps - 1) // 2
    weight = gapped.new_empty((output.shape[1], taps, gapped.shape[1]))
    # rows of the output at their places; beyond the first and the last gap all are zeros
    rows = output[pad : len(output) - pad].t()
    for tap in range(taps):
        torch.mm(rows, gapped[tap : tap + rows.shape[1]], out=weight[:, tap])
    return weight


class _Shifted(torch.autograd.Function):
    """`convolve` by shifts."""

    @staticmethod
    def forward(ctx: Any, x_bni: Tensor, weight_oki: Tensor, bias_o: Tensor | None) -> Tensor:
        batch, length, _ = x_bni.shape
        gapped = _gapped(x_bni, (weight_oki.shape[1] - 1) // 2)
        ctx.save_for_backward(gapped, weight_oki)
        ctx.with_bias = bias_o is not None
        return _products(gapped, weight_oki, bias_o, batch)[:, :length]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gapped, weight = ctx.saved_tensors
        (y_bno,) = gradients
        batch, length, _ = y_bno.shape
        taps = weight.shape[1]
        y = _gapped(y_bno, (taps - 1) // 2)
        needs_x, needs_weight, _ = ctx.needs_input_grad
        return (
            _input_gradient(y, weight, batch)[:, :length] if needs_x else None,
            _weight_gradient(y, gapped, taps) if needs_weight else None,
            y.sum(0) if ctx.with_bias else None,
        )


class _ShiftedMlp(torch.autograd.Function):
    """`gated_mlp` by shifts; of the hidden units only what `w13` gives is kept for the gradients."""

    @staticmethod
    def forward(ctx: Any, x_bni: Tensor, w13_hki: Tensor, w2_okh: Tensor) -> Tensor:
        batch, length, _ = x_bni.shape
        pad = (w13_hki.shape[1] - 1) // 2
        gapped = _gapped(x_bni, pad)
        both = _products(gapped, w13_hki, None, batch)[:, :length]
        ctx.save_for_backward(gapped, both, w13_hki, w2_okh)
        gate, value = both.chunk(2, dim=-1)
        hidden, inside = _empty(both, batch, length, gate.shape[-1], pad)
        torch.mul(functional.silu(gate), value, out=inside)
        return _products(hidden, w2_okh, None, batch)[:, :length]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gapped, both, w13, w2 = ctx.saved_tensors
        (y_bno,) = gradients
        batch, length, _ = y_bno.shape
        taps = w13.shape[1]
        pad = (taps - 1) // 2
        gate, value = both.chunk(2, dim=-1)
        width = gate.shape[-1]
        y = _gapped(y_bno, pad)
        inner = _input_gradient(y, w2, batch)[:, :length]
        active = functional.silu(gate)
        hidden, inside = _empty(both, batch, length, width, pad)
        torch.mul(active, value, out=inside)
        w2_gradient = _weight_gradient(y, hidden, taps)
        both_gradient, inside = _empty(both, batch, length, 2 * width, pad)
        torch.mul(inner, active, out=inside[..., width:])
        inside[..., :width] = torch.ops.aten.silu_backward(inner * value, gate)
        return (
            _input_gradient(both_gradient, w13, batch)[:, :length] if ctx.needs_input_grad[0] else None,
            _weight_gradient(both_gradient, gapped, taps),
            w2_gradient,
        )
