"""Convolutions of three taps with two thirds of the multiplications: minimal filtering, F(2, 3).

Two successive outputs of three taps g see four inputs d. Instead of six products there are four:

    m0 = (d0 - d2) g0              m1 = (d1 + d2) (g0 + g1 + g2) / 2
    m3 = (d3 - d1) g2              m2 = (d2 - d1) (g0 - g1 + g2) / 2
    y0 = m1 + m2 + m0,  y1 = m1 - m2 + m3

As each is a matrix product, sums of rows are cheap beside it. The sequences of a batch stand in one
matrix of an even number of rows each, a row of zeros before each; d0 and d2 are its even rows, d1 and d3
its odd ones.

In float32 the result differs from the plain sum in its last bits; in bf16 the sums of inputs would lose
theirs.

Shapes: B batch, N time steps, I channels in, O channels out, R pairs of outputs.
Source: S. Winograd, Arithmetic Complexity of Computations, 1980; arXiv:1509.09308, Sec. 4.
"""

import torch
from torch import Tensor

TAPS = 3


def room(like: Tensor, shape: tuple[int, int, int], taps: int = TAPS) -> tuple[Tensor, Tensor]:
    """Such a matrix for sequences (B, N, W), its zeros written, and the view of the rest (B, N, W)."""
    batch, length, width = shape
    each = _rows_of_each(length)
    rows = like.new_empty((batch * each + 2, width))
    rows[-2:].zero_()
    body = rows[:-2].view(batch, each, width)
    body[:, 0].zero_()
    body[:, length + 1 :].zero_()
    return rows, body[:, 1 : length + 1]


def _rows_of_each(length: int) -> int:
    """A row of zeros, the sequence, and one or two more, up to an even number."""
    return 2 * ((length + 1) // 2 + 1)


def product(rows: Tensor, weight_oki: Tensor, bias_o: Tensor | None, batch: int) -> Tensor:
    """The convolution (B, N + 2 or 3, O); what lies beyond the N-th step means nothing."""
    outer, (plus, minus) = (weight_oki[:, 0].t(), weight_oki[:, 2].t()), _inner(weight_oki)
    return _filtered(rows, outer, (plus.t(), minus.t()), bias_o, batch)


def input_gradient(rows: Tensor, weight_oki: Tensor, batch: int) -> Tensor:
    """The gradient of the input (B, N + 2 or 3, I) from that of the output: the taps reversed."""
    return _filtered(rows, (weight_oki[:, 2], weight_oki[:, 0]), _inner(weight_oki), None, batch)


def _inner(weight_oki: Tensor) -> tuple[Tensor, Tensor]:
    """(g0 + g1 + g2) / 2 and (g0 - g1 + g2) / 2, each (O, I)."""
    first, middle, last = weight_oki.unbind(1)
    ends = torch.add(first, last).mul_(0.5)
    return torch.add(ends, middle, alpha=0.5), ends.sub_(middle, alpha=0.5)


def _filtered(
    rows: Tensor,
    outer: tuple[Tensor, Tensor],
    inner: tuple[Tensor, Tensor],
    bias: Tensor | None,
    batch: int,
) -> Tensor:
    width = outer[0].shape[1]
    even, odd = rows.view(-1, 2, rows.shape[1]).unbind(1)
    pairs = len(even) - 1
    y = rows.new_empty((pairs, 2, width))
    first, second = y.unbind(1)
    plus = odd[:-1] + even[1:]
    # the bias is once in both outputs, as m1 is
    m1 = plus @ inner[0] if bias is None else torch.addmm(bias, plus, inner[0])
    m2 = torch.sub(even[1:], odd[:-1], out=plus) @ inner[1]
    torch.add(m1, m2, out=first)
    torch.sub(m1, m2, out=second)
    first.addmm_(torch.sub(even[:-1], even[1:], out=plus), outer[0])
    second.addmm_(torch.sub(odd[1:], odd[:-1], out=plus), outer[1])
    return y.view(batch, -1, width)


def weight_gradient(output: Tensor, rows: Tensor, taps: int = TAPS) -> Tensor:
    """The gradient of the weight (O, 3, I) from that of the output and from the input."""
    weight = rows.new_empty((output.shape[1], TAPS, rows.shape[1]))
    even, odd = rows.view(-1, 2, rows.shape[1]).unbind(1)
    # a row later than the input's: the first output of a sequence stands with its row of zeros
    flat = output[1:-1].view(-1, 2, output.shape[1])
    first, second = flat.unbind(1)
    left, right = first + second, odd[:-1] + even[1:]
    plus = left.t() @ right
    minus = torch.sub(first, second, out=left).t() @ torch.sub(even[1:], odd[:-1], out=right)
    half = torch.add(plus, minus).mul_(0.5)
    torch.sub(plus, minus, out=weight[:, 1]).mul_(0.5)
    outer = torch.mm(first.t(), torch.sub(even[:-1], even[1:], out=right), out=minus)
    torch.add(half, outer, out=weight[:, 0])
    torch.mm(second.t(), torch.sub(odd[1:], odd[:-1], out=right), out=minus)
    torch.add(half, minus, out=weight[:, 2])
    return weight
