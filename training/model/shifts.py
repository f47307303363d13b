"""Convolutions of any number of taps as products of one matrix with its shifted self, without copies.

The sequences of a batch stand in one matrix, with p = (K - 1) / 2 rows of zeros before, between and
after them. The rows that a tap sees are that matrix, shifted; K products go into the same sums:

    0 | x[0] x[1] x[2] | 0 | y[0] y[1] y[2] | 0        p = 1
    └──── tap 0 ────────────────────┘
        └──── tap 1 ────────────────────┘
            └──── tap 2 ────────────────────┘

Shapes: B batch, N time steps, I channels in, O channels out, K taps.
"""

import torch
from torch import Tensor


def room(like: Tensor, shape: tuple[int, int, int], taps: int) -> tuple[Tensor, Tensor]:
    """Such a matrix for sequences (B, N, W), its zeros written, and the view of the rest (B, N, W)."""
    batch, length, width = shape
    pad = taps // 2
    rows = like.new_empty((pad + batch * (length + pad), width))
    rows[:pad].zero_()
    body = rows[pad:].view(batch, length + pad, width)
    body[:, length:].zero_()
    return rows, body[:, :length]


def product(rows: Tensor, weight_oki: Tensor, bias_o: Tensor | None, batch: int) -> Tensor:
    """The convolution (B, N + p, O); what lies beyond the N-th step means nothing."""
    outputs, taps, _ = weight_oki.shape
    y, some = _sums(rows, outputs, taps)
    for tap in range(taps):
        seen, matrix = rows[tap : tap + len(some)], weight_oki[:, tap].t()
        if tap:
            some.addmm_(seen, matrix)
        elif bias_o is None:
            torch.mm(seen, matrix, out=some)
        else:
            torch.addmm(bias_o, seen, matrix, out=some)
    return y.view(batch, -1, outputs)


def input_gradient(rows: Tensor, weight_oki: Tensor, batch: int) -> Tensor:
    """The gradient of the input (B, N + p, I) from that of the output, in such a matrix."""
    _, taps, inputs = weight_oki.shape
    x, some = _sums(rows, inputs, taps)
    for tap in range(taps):
        seen, matrix = rows[tap : tap + len(some)], weight_oki[:, taps - 1 - tap]
        if tap:
            some.addmm_(seen, matrix)
        else:
            torch.mm(seen, matrix, out=some)
    return x.view(batch, -1, inputs)


def weight_gradient(output: Tensor, rows: Tensor, taps: int) -> Tensor:
    """The gradient of the weight (O, K, I) from that of the output and from the input."""
    pad = taps // 2
    weight = rows.new_empty((output.shape[1], taps, rows.shape[1]))
    # the output's rows at their places; whatever lies between sequences is zero
    placed = output[pad : len(output) - pad].t()
    for tap in range(taps):
        torch.mm(placed, rows[tap : tap + placed.shape[1]], out=weight[:, tap])
    return weight


def _sums(rows: Tensor, width: int, taps: int) -> tuple[Tensor, Tensor]:
    """Room for the results, and that part of it which is computed: the last gap is not."""
    pad = taps // 2
    sums = rows.new_empty((len(rows) - pad, width))
    return sums, sums[: len(sums) - pad]
