"""The parts of the vocoders: convolutions with normalised weights, and activations without aliasing.

Shapes: B batch, C channels, S samples.
Source: NVIDIA/BigVGAN (arXiv:2206.04658), as hkchengrex/MMAudio@974010a uses it; snake
(arXiv:2006.08195).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

FILTER_TAPS = 12
_CUTOFF = 0.25  # of the sample rate
_HALF_WIDTH = 0.3  # of the band between what passes and what does not
_SMALLEST = 1e-9  # added to what is divided by
_PAD_UP = FILTER_TAPS // 2 - 1  # at both ends
_CROP_UP = 2 * _PAD_UP + FILTER_TAPS // 2 - 1  # at both ends of what is twice as long
_PAD_DOWN = (FILTER_TAPS // 2 - 1, FILTER_TAPS // 2)


class NormedConvolution(nn.Module):
    """A convolution whose weight is a direction times a magnitude, by index of axis 0, until `fold`.

    The names are those of the published files; after `fold` there is one `weight` in place of two.
    """

    weight: Tensor

    def __init__(self, shape: tuple[int, int, int], bias_channels: int | None) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.empty(shape[0], 1, 1))
        self.weight_v = nn.Parameter(torch.empty(shape))
        self.bias = None if bias_channels is None else nn.Parameter(torch.empty(bias_channels))

    @torch.no_grad()
    def fold(self) -> None:
        """Make the one weight, once, after loading."""
        norm = torch.linalg.vector_norm(self.weight_v, dim=(1, 2), keepdim=True)
        weight = self.weight_v * (self.weight_g / norm.clamp_min(torch.finfo(norm.dtype).tiny))
        del self.weight_g, self.weight_v
        self.weight = nn.Parameter(weight, requires_grad=False)


class Convolution(NormedConvolution):
    """(B, C, S) → (B, O, S), zero padded."""

    def __init__(
        self, channels: int, out_channels: int, taps: int, *, dilation: int = 1, bias: bool = True
    ) -> None:
        super().__init__((out_channels, channels, taps), out_channels if bias else None)
        self.dilation = dilation
        self.padding = (taps - 1) * dilation // 2

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv1d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)


class UpConvolution(NormedConvolution):
    """(B, C, S) → (B, C / 2, S · stride)."""

    def __init__(self, channels: int, taps: int, stride: int) -> None:
        super().__init__((channels, channels // 2, taps), channels // 2)
        self.stride = stride
        self.padding = (taps - stride) // 2

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv_transpose1d(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding
        )


def lowpass_filter() -> Tensor:
    """The filter (1, 1, 12) that halves the band: a sinc in a Kaiser window, of sum 1."""
    half = FILTER_TAPS // 2
    attenuation = 2.285 * (half - 1) * math.pi * 4 * _HALF_WIDTH + 7.95  # 51 dB
    beta = 0.1102 * (attenuation - 8.7)  # Kaiser's formula for more than 50 dB
    window = torch.kaiser_window(
        FILTER_TAPS, periodic=False, beta=beta, dtype=torch.float32, device="cpu"
    )
    time = torch.arange(-half, half, device="cpu") + 0.5
    taps = 2 * _CUTOFF * window * torch.sinc(2 * _CUTOFF * time)
    return (taps / taps.sum()).view(1, 1, FILTER_TAPS)


class SnakeBeta(nn.Module):
    """x + sin²(a·x) / b by channel, the logarithms of a and b being stored; writes to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha.exp()[:, None]
        share = (self.beta.exp()[:, None] + _SMALLEST).reciprocal()
        wave = (x * alpha).sin_()
        return x.addcmul_(wave.square_(), share)


class _Filter(nn.Module):
    """Holds a filter under the name it has in the files."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", lowpass_filter())


class _Upsample(_Filter):
    """Twice the rate; (B, C, S) → (B, C, 2·S)."""

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = functional.pad(x, (_PAD_UP, _PAD_UP), mode="replicate")
        kernel = (2 * self.filter).expand(channels, -1, -1)
        x = functional.conv_transpose1d(x, kernel, stride=2, groups=channels)
        return x[..., _CROP_UP:-_CROP_UP]


class _Downsample(nn.Module):
    """Half the rate; (B, C, 2·S) → (B, C, S)."""

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = _Filter()

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = functional.pad(x, _PAD_DOWN, mode="replicate")
        return functional.conv1d(
            x, self.lowpass.filter.expand(channels, -1, -1), stride=2, groups=channels
        )


class Activation(nn.Module):
    """Snake at twice the sample rate, so that what it makes above the band does not fold back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = SnakeBeta(channels)
        self.upsample = _Upsample()
        self.downsample = _Downsample()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.downsample(self.act(self.upsample(x)))
        return out


class PeriodicBlock(nn.Module):
    """Pairs of convolutions behind activations, the first dilated; each pair is added to its input."""

    def __init__(self, channels: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            Convolution(channels, channels, taps, dilation=dilation) for dilation in dilations
        )
        self.convs2 = nn.ModuleList(Convolution(channels, channels, taps) for _ in dilations)
        self.activations = nn.ModuleList(Activation(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.activations[::2], self.convs1, self.activations[1::2], self.convs2, strict=True)
        for before_first, first, before_second, second in pairs:
            x = x + second(before_second(first(before_first(x))))
        return x
