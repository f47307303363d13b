"""The parts of the VAE, all of them made to keep the magnitude of what goes through them.

Sequences have the channels last, so that convolutions are matrix products and norms run over what lies
together in memory. Inside the VAE a block owns its input and may write to it.

Shapes: B batch, T time steps, C channels.
Source: the VAE of hkchengrex/MMAudio@974010a; its primitives are those of EDM2 (arXiv:2312.02696,
appendix B).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.encoders.convolution import EPSILON, TimeConvolution

SILU_GAIN = 1 / 0.596  # after SiLU, so that what is normal keeps its magnitude
BRANCH_SHARE = 0.3  # of a branch in the sum with what it branched off
_SUM_NORM = ((1 - BRANCH_SHARE) ** 2 + BRANCH_SHARE**2) ** 0.5
SKIP_WEIGHT = (1 - BRANCH_SHARE) / _SUM_NORM
BRANCH_WEIGHT = BRANCH_SHARE / _SUM_NORM
LARGEST = 256.0  # magnitude of what leaves a block


def pixel_norm(x: Tensor) -> Tensor:
    """Every time step scaled to a root mean square of 1 over the channels, the last axis; (…, C)."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    factor = (norm * x.shape[-1] ** -0.5 + EPSILON).reciprocal()
    normal: Tensor = x * factor.to(x.dtype)
    return normal


def clamp(x: Tensor) -> Tensor:
    """The output of a block within ±256; written to."""
    return x.clamp_(-LARGEST, LARGEST)


class ResidualBlock(nn.Module):
    """Two convolutions beside the normalised input; (B, T, C) → (B, T, O)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = TimeConvolution(channels, out_channels, 3, scale=SILU_GAIN)
        self.conv2 = TimeConvolution(out_channels, out_channels, 3, scale=SILU_GAIN * BRANCH_WEIGHT)
        self.nin_shortcut = (
            TimeConvolution(channels, out_channels, 1) if channels != out_channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_norm(x)
        branch = self.conv2.after_silu(self.conv1.after_silu(x))
        skip: Tensor = x if self.nin_shortcut is None else self.nin_shortcut(x)
        return branch.add_(skip, alpha=SKIP_WEIGHT)


class Attention(nn.Module):
    """Every time step looks at all; one head, normalised queries, keys and values; (B, T, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = TimeConvolution(channels, 3 * channels, 1)
        self.proj_out = TimeConvolution(channels, channels, 1, scale=BRANCH_WEIGHT)

    def part(self) -> None:
        """Bring the folded rows into the order query, key, value: a checkpoint has them in turn."""
        rows, channels, _ = self.qkv.weight.shape
        in_turn = self.qkv.weight.view(rows // 3, 3, channels)
        self.qkv.set_weight(in_turn.transpose(0, 1).reshape(rows, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, channels = x.shape
        parts = pixel_norm(self.qkv(x).view(batch, time, 3, 1, channels))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B, 1, T, C)
        seen = functional.scaled_dot_product_attention(query, key, value).squeeze(1)
        out: Tensor = self.proj_out(seen)
        return out.add_(x, alpha=SKIP_WEIGHT)


class Downsample(nn.Module):
    """Half the time steps; (B, T, C) → (B, T // 2, C).

    The mean of two steps is taken first: it commutes with a convolution of one tap, which then has half
    the work.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = TimeConvolution(channels, channels, 1)
        self.conv2 = TimeConvolution(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, channels = x.shape
        pairs = x[:, : time // 2 * 2].reshape(batch, time // 2, 2, channels)
        out: Tensor = self.conv2(self.conv1(pairs.mean(dim=2)))
        return out


class Upsample(nn.Module):
    """Every time step twice, then a convolution; (B, T, C) → (B, 2 · T, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TimeConvolution(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x.repeat_interleave(2, dim=1))
        return out


class Middle(nn.Module):
    """Where the sequence is shortest and widest: block, attention, block; (B, T, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return clamp(self.block_2(self.attn_1(self.block_1(x))))
