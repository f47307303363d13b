"""Parts of the blocks: gated MLPs, convolutions, norms of heads, tables of rotation, repeated rows.

Shapes: B batch, N or T tokens, D width, I inputs, O outputs, K taps, h heads, E width of a head.
Source: arXiv:2412.15322; the specification of MMAudio `transformer_layers.py`, `low_level.py`@974010a.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.convolution import convolve, gated_mlp
from training.model.variants import HEAD_WIDTH

_BASE = 10_000.0  # theta of rotary embeddings


class TimeConvolution(nn.Module):
    """A convolution over time with bias; `weight` is (O, K, I)."""

    def __init__(self, inputs: int, outputs: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, taps, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x_bni: Tensor) -> Tensor:
        """(B, N, I) → (B, N, O)."""
        return convolve(x_bni, self.weight, self.bias)


class GatedMlp(nn.Module):
    """w2 (SiLU(w1 x) · (w3 x)) without biases; linear for one tap, else convolutions over time.

    `w13` holds w1 above w3: (2H, D) or (2H, K, D); `w2` is (D, H) or (D, K, H).
    """

    def __init__(self, width: int, hidden: int, taps: int = 1) -> None:
        super().__init__()
        kernel = () if taps == 1 else (taps,)
        self.w13 = nn.Parameter(torch.empty(2 * hidden, *kernel, width))
        self.w2 = nn.Parameter(torch.empty(width, *kernel, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) → (B, N, D); without time (B, D)."""
        weights = (self.w13, self.w2)  # read once: adapters compute them
        w13, w2 = (weight if weight.ndim == 3 else weight[:, None] for weight in weights)
        return gated_mlp(x, w13, w2) if x.ndim == 3 else gated_mlp(x[:, None], w13, w2)[:, 0]


class HeadNorm(nn.Module):
    """RMS norm over a head with a learned scale; the order within a head is that of `rotate`."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HEAD_WIDTH))


def rotation(length: int, *, scale: float = 1.0) -> Tensor:
    """Cosines and sines of rotary embeddings (2, T, E/2), float32.

    Args:
        scale: by which positions count faster than tokens.
    """
    # on the CPU, and then moved: equal tables on every device
    steps = torch.arange(0, HEAD_WIDTH, 2, dtype=torch.float32) / HEAD_WIDTH
    frequencies = 1.0 / (_BASE**steps) * scale
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


class Repeat(torch.autograd.Function):
    """Rows repeated by their nearest neighbour in time: (B, S, D) → (B, N, D).

    The gradient of a row is the sum over its copies, gathered in a fixed order: scattered sums would
    differ from run to run on a GPU.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, copies: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """`index` (N,): the row of each token; `copies` (m, S): the tokens of each row, N for none."""
        ctx.save_for_backward(copies)
        return rows.index_select(1, index)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        (copies,) = ctx.saved_tensors
        padded = functional.pad(gradient, (0, 0, 0, 1))
        total = padded.index_select(1, copies[0])
        for copy in copies[1:]:
            total = total + padded.index_select(1, copy)
        return total, None, None


def nearest(num_rows: int, num_tokens: int) -> tuple[Tensor, Tensor]:
    """For `Repeat`: the row of each token (N,), the tokens of each row (m, S), N where there is none.

    In float32 with the ratio rounded to float32, as "nearest-exact" interpolation on a CPU: exact
    arithmetic gives other rows for two of the 345 tokens of 192 rows.
    """
    ratio = torch.tensor(num_rows, dtype=torch.float32) / torch.tensor(num_tokens, dtype=torch.float32)
    index = ((torch.arange(num_tokens, dtype=torch.float32) + 0.5) * ratio).floor().long()
    index.clamp_(max=num_rows - 1)
    counts = torch.bincount(index, minlength=num_rows)
    begins = counts.cumsum(0) - counts
    most = int(counts.max())
    copies = begins + torch.arange(most)[:, None]
    return index, torch.where(torch.arange(most)[:, None] < counts, copies, num_tokens)
