"""The VAE between log-mel spectrograms and latents, at 16 kHz and 44.1 kHz; weights as published.

Its convolutions have weights of a fixed magnitude and its sums keep the magnitude of what they add, so
that no time step can grow beyond the others, the last one included.

In bf16, `vae.to(torch.bfloat16)` runs the convolutions and what lies between them in bf16; norms,
(un)normalisation of the spectrogram and the standard deviation stay in float32, and so do what goes in
and what comes out.

Shapes: B batch, T mel frames (even), N = T / 2 latents, M mels, E latent channels, C channels.
Source: hkchengrex/MMAudio `ext/autoencoder`@974010a, by a description of it; arXiv:2412.15322.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from features.encoders.convolution import TimeConvolution
from features.encoders.state_dicts import load_strictly
from features.encoders.vae_blocks import (
    SILU_GAIN,
    Downsample,
    Middle,
    ResidualBlock,
    Upsample,
    clamp,
)
from features.spec import audio_spec

_LOGVAR_RANGE = (-30.0, 20.0)
_HALVED = (
    0  # the level after which the encoder halves the time steps; the decoder doubles them after the next
)
_WIDTHS = {16000: 384, 44100: 512}


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeConfig:
    """How large the network is; what goes in and comes out follows from the sample rate."""

    sample_rate_hz: int
    width: int  # channels of level 0
    multipliers: tuple[int, ...] = (1, 2, 4)  # channels of each level, in widths
    encoder_blocks: int = 2  # of each level
    decoder_blocks: int = 3

    @property
    def num_mels(self) -> int:
        """Channels of the spectrogram."""
        return audio_spec(self.sample_rate_hz).num_mels

    @property
    def latent_channels(self) -> int:
        """E."""
        return audio_spec(self.sample_rate_hz).latent_channels

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @classmethod
    def published(cls, sample_rate_hz: int) -> Self:
        """The network of the published weights.

        Raises:
            UsageProblem: there is none of that rate.
        """
        rate = audio_spec(sample_rate_hz).sample_rate_hz
        return cls(sample_rate_hz=rate, width=_WIDTHS[rate])

    @classmethod
    def tiny(cls, sample_rate_hz: int) -> Self:
        """Two levels of one block, 64 channels, for tests and demos; inputs and outputs are alike."""
        return replace(
            cls.published(sample_rate_hz),
            width=64,
            multipliers=(1, 1),
            encoder_blocks=1,
            decoder_blocks=1,
        )


class _Level(nn.Module):
    """Blocks of one width, with a change of the number of time steps after them where there is one."""

    def __init__(self, channels: int, out_channels: int, blocks: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(out_channels if i else channels, out_channels) for i in range(blocks)
        )
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = clamp(block(x))
        for change in (self.downsample, self.upsample):
            x = x if change is None else change(x)
        return x


class Encoder(nn.Module):
    """Normalised spectrogram (B, T, M) → mean and logarithm of the variance (B, N, 2·E)."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = config.widths
        before = (widths[0], *widths[:-1])
        self.learnable_gain = nn.Parameter(torch.zeros(()))
        self.conv_in = TimeConvolution(config.num_mels, widths[0], 3)
        levels = [
            _Level(*channels, config.encoder_blocks) for channels in zip(before, widths, strict=True)
        ]
        levels[_HALVED].downsample = Downsample(widths[_HALVED])
        self.down = nn.ModuleList(levels)
        self.mid = Middle(widths[-1])
        self.conv_out = TimeConvolution(widths[-1], 2 * config.latent_channels, 3, scale=SILU_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out.after_silu(self.mid(x))


class Decoder(nn.Module):
    """Latents (B, N, E) → normalised spectrogram (B, T, M)."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = config.widths
        before = (*widths[1:], widths[-1])
        self.learnable_gain = nn.Parameter(torch.zeros(()))
        self.conv_in = TimeConvolution(config.latent_channels, widths[-1], 3)
        self.mid = Middle(widths[-1])
        levels = [
            _Level(*channels, config.decoder_blocks) for channels in zip(before, widths, strict=True)
        ]
        levels[_HALVED + 1].upsample = Upsample(widths[_HALVED + 1])
        self.up = nn.ModuleList(levels)  # in ascending order, run through from the end
        self.conv_out = TimeConvolution(widths[0], config.num_mels, 3, scale=SILU_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out.after_silu(x)


class Vae(nn.Module):
    """Both ways; names and shapes of the parameters are those of the published files until `fold`."""

    data_mean: Tensor
    data_std: Tensor

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder: Decoder | None = Decoder(config)  # None: dropped, it is not needed to encode
        self.register_buffer("data_mean", torch.zeros(1, config.num_mels, 1))
        self.register_buffer("data_std", torch.ones(1, config.num_mels, 1))

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of latents, each (B, N, E) in float32, of a log-mel (B, M, T)."""
        mean, logvar = self.posterior(mel)
        return mean, torch.exp(0.5 * logvar)

    def posterior(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance, each (B, N, E) in float32."""
        normal = ((mel.float() - self.data_mean) / self.data_std).transpose(1, 2)
        moments = self.encoder(normal.to(self.dtype).contiguous()).float()
        mean, logvar = moments.chunk(2, dim=-1)
        return mean.contiguous(), logvar.clamp(*_LOGVAR_RANGE)

    def decode(self, latent: Tensor) -> Tensor:
        """The log-mel (B, M, T) in float32 of latents (B, N, E)."""
        assert self.decoder is not None, "the VAE was left without its decoder"
        normal: Tensor = self.decoder(latent.to(self.dtype).contiguous()).float()
        return normal.transpose(1, 2) * self.data_std + self.data_mean

    @property
    def dtype(self) -> torch.dtype:
        """In which the convolutions run."""
        return self.encoder.conv_in.weight.dtype

    def fold(self) -> Self:
        """Make the effective weights, once; from then on the names in the state dict mean these."""
        assert self.decoder is not None, "the VAE was left without its decoder"
        for half in (self.encoder, self.decoder):
            for module in half.modules():
                if isinstance(module, TimeConvolution):
                    module.fold(half.learnable_gain if module is half.conv_out else None)
            half.mid.attn_1.part()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to` goes through: the statistics change the device, never the type."""
        statistics = self.data_mean, self.data_std
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # of torch
        if not self.data_mean.is_meta and not statistics[0].is_meta:
            self.data_mean, self.data_std = (kept.to(self.data_mean.device) for kept in statistics)
        return self


def load_vae(
    sample_rate_hz: int, state_dict: Mapping[str, Tensor], *, config: VaeConfig | None = None
) -> Vae:
    """The VAE with the weights of a published file (`v1-16.pth`, `v1-44.pth`), float32, for inference.

    Args:
        state_dict: all parameters, and `data_mean` and `data_std`, (1, M, 1) each.
        config: None: the full network.

    Raises:
        UsageProblem: there is no VAE of that rate.
        BadWeights: entries are missing, unknown, misshaped or not finite.
    """
    config = config or VaeConfig.published(sample_rate_hz)
    with torch.device("meta"):
        vae = Vae(config)
    return load_strictly(vae, state_dict, what=f"the VAE of {sample_rate_hz} Hz").fold()
