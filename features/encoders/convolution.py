"""Convolutions over time as one matrix product each, for sequences with the channels last.

A row of the matrix on the left holds what the kernel sees at one time step, tap after tap:

    tap          0        1        2
    row 0    │   0   │  x[0]  │  x[1]  │        kernel of three, zeros beyond the ends
    row 1    │  x[0] │  x[1]  │  x[2]  │

On a CPU the weights are put into the layout of oneDNN's matrix product once, at the first call; that is
the fastest product there is here, and faster than `conv1d` as well, which sorts its weights every time.
Elsewhere, and where PyTorch comes without oneDNN, the product is an ordinary `linear`.

Shapes: B batch, T time steps, C channels in, O channels out, K taps of the kernel (1 or 3).
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.encoders.linear import has_fused

EPSILON = 1e-4  # of every magnitude-preserving normalisation
# For how many rows weights are laid out. Always the same, as the order of sums depends on the layout:
# were it that of the first call, the bytes of all later ones would depend on which came first.
_ROWS = 1024


class TimeConvolution(nn.Module):
    """A convolution of fixed magnitude without bias, of one or three taps, zero padded to equal length.

    `weight` (O, C, K) holds what the checkpoint holds until `fold` replaces it by the effective weight,
    in the same shape. `scale` is a constant that goes before or after the convolution, such as that
    of the activation: it goes into the effective weight too.
    """

    def __init__(self, channels: int, out_channels: int, taps: int, *, scale: float = 1.0) -> None:
        super().__init__()
        assert taps in (1, 3), f"{taps} taps, expected 1 or 3"
        self.weight = nn.Parameter(torch.empty(out_channels, channels, taps))
        self.taps = taps
        self.scale = scale
        self._packed: Tensor | None = None

    @torch.no_grad()
    def fold(self, gain: Tensor | None = None) -> None:
        """Replace the weight by the effective one, times `scale` and a learned gain (scalar).

        Once after loading, in float32. It lies in memory as the product wants it: O, K, C.
        """
        effective = effective_weight(self.weight.float()) * self.scale
        if gain is not None:
            effective = effective * (1 + gain.float())
        self.set_weight(effective)

    def set_weight(self, weight: Tensor) -> None:
        """Take `weight` (O, C, K) as it is."""
        by_tap = weight.transpose(1, 2).contiguous()
        self.weight = nn.Parameter(by_tap.transpose(1, 2), requires_grad=False)
        self._packed = None

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) → (B, T, O); an output of its own, so that it may be written to."""
        return self.product(x_btc if self.taps == 1 else neighbours(x_btc))

    def after_silu(self, x_btc: Tensor) -> Tensor:
        """The same of SiLU(x), which is written to where the product reads it."""
        if self.taps == 1 or x_btc.requires_grad:
            return self.forward(functional.silu(x_btc))
        batch, time, channels = x_btc.shape
        padded = x_btc.new_empty(batch, time + 2, channels)
        padded[:, 0].zero_()
        padded[:, -1].zero_()
        torch.ops.aten.silu.out(x_btc, out=padded[:, 1:-1])
        return self.product(_windows(padded))

    def product(self, rows_btk: Tensor) -> Tensor:
        """(B, T, K·C) → (B, T, O)."""
        matrix = self.weight.transpose(1, 2).flatten(1)  # (O, K·C), a view
        if not _packs(rows_btk, matrix):
            return functional.linear(rows_btk, matrix)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), _ROWS)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows_btk, self._packed, None, "none", [], "")
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to` goes through."""
        self._packed = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # of torch
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # cannot be copied, and is made again


def effective_weight(weight: Tensor) -> Tensor:
    """The weight (O, C, K) in the magnitude that keeps that of the input, by output channel.

    Source: hkchengrex/MMAudio@974010a, from EDM2 (arXiv:2312.02696, equation 47):
    W / (√n · (1e-4 + ‖W‖ / √n)), n being the number of values that an output channel sees.
    """
    num_inputs = weight[0].numel()
    norm = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
    effective: Tensor = weight / (num_inputs**0.5 * EPSILON + norm)
    return effective


def neighbours(x_btc: Tensor) -> Tensor:
    """Each time step with those before and after it, (B, T, 3·C); zeros beyond the ends."""
    return _windows(functional.pad(x_btc, (0, 0, 1, 1)))


def _windows(padded: Tensor) -> Tensor:
    """(B, T + 2, C) → (B, T, 3·C)."""
    batch, time, channels = padded.shape
    overlapping = padded.as_strided(
        (batch, time - 2, 3 * channels), (time * channels, channels, 1), padded.storage_offset()
    )
    return overlapping.contiguous()


def _packs(rows: Tensor, matrix: Tensor) -> bool:
    """Whether oneDNN may do the product with weights in its own layout: in inference on a CPU."""
    return (
        rows.device.type == "cpu"
        and rows.dtype == matrix.dtype
        and not (torch.is_grad_enabled() and (rows.requires_grad or matrix.requires_grad))
        and not torch.is_autocast_enabled("cpu")
        and has_fused(rows.dtype)
    )
