"""The vocoders that turn log-mel spectrograms into sound: BigVGAN at 16 kHz, BigVGAN-v2 at 44.1 kHz.

Shapes: B batch, M mels, T mel frames, C channels, S samples = T · hop.
Source: NVIDIA/BigVGAN (arXiv:2206.04658), as hkchengrex/MMAudio@974010a uses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from features.encoders.state_dicts import load_strictly
from features.encoders.vocoder_blocks import (
    Activation,
    Convolution,
    NormedConvolution,
    PeriodicBlock,
    UpConvolution,
)
from features.spec import audio_spec

_OUTER_TAPS = 7  # of the first and the last convolution
_WRAPPER = "generator"
# what newer versions of PyTorch call the two parts of a normalised weight
_SPELLINGS = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VocoderConfig:
    """How large the network is; what goes in and comes out follows from the sample rate."""

    sample_rate_hz: int
    strides: tuple[int, ...]  # of each stage; their product is the hop of the spectrogram
    taps: tuple[int, ...]  # of the transposed convolution of each stage
    channels: int = 1536  # before the first stage; each halves them
    block_taps: tuple[int, ...] = (3, 7, 11)  # of the blocks of every stage
    dilations: tuple[int, ...] = (1, 3, 5)  # within every block
    last_bias: bool  # whether the last convolution has one
    bound: str  # "tanh" or "clamp": how samples are kept within ±1

    @classmethod
    def published(cls, sample_rate_hz: int) -> Self:
        """The network of the published weights.

        Raises:
            UsageProblem: there is none of that rate.
        """
        old = audio_spec(sample_rate_hz).sample_rate_hz == 16000
        return cls(
            sample_rate_hz=sample_rate_hz,
            strides=(4, 4, 2, 2, 2, 2) if old else (8, 4, 2, 2, 2, 2),
            taps=(8, 8, 4, 4, 4, 4) if old else (16, 8, 4, 4, 4, 4),
            last_bias=old,
            bound="tanh" if old else "clamp",
        )

    @classmethod
    def tiny(cls, sample_rate_hz: int) -> Self:
        """Two stages of one block, 64 channels, for tests and demos; inputs and outputs are alike."""
        stride = audio_spec(sample_rate_hz).hop_samples // 16
        return replace(
            cls.published(sample_rate_hz),
            strides=(stride, 16),
            taps=(2 * stride, 32),
            channels=64,
            block_taps=(3,),
            dilations=(1,),
        )


class Vocoder(nn.Module):
    """Log-mel (B, M, T) → sound (B, S) within ±1.

    Names and shapes of the parameters are those of the published files until `fold`.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.conv_pre = Convolution(audio_spec(config.sample_rate_hz).num_mels, channels, _OUTER_TAPS)
        ups: list[nn.Module] = []
        blocks: list[nn.Module] = []
        for stride, taps in zip(config.strides, config.taps, strict=True):
            ups.append(nn.ModuleList([UpConvolution(channels, taps, stride)]))  # nested in the files
            channels //= 2
            blocks += [PeriodicBlock(channels, size, config.dilations) for size in config.block_taps]
        self.ups = nn.ModuleList(ups)
        self.resblocks = nn.ModuleList(blocks)
        self.activation_post = Activation(channels)
        self.conv_post = Convolution(channels, 1, _OUTER_TAPS, bias=config.last_bias)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv_pre(mel)
        per_stage = len(self.config.block_taps)
        for stage, up in enumerate(self.ups.children()):
            (upsample,) = up.children()
            x = upsample(x)
            blocks = self.resblocks[stage * per_stage : (stage + 1) * per_stage]
            total = blocks[0](x)
            for block in blocks[1:]:
                total += block(x)
            x = total / per_stage
        wave: Tensor = self.conv_post(self.activation_post(x)).squeeze(1)
        return wave.tanh() if self.config.bound == "tanh" else wave.clamp(-1.0, 1.0)

    def fold(self) -> Self:
        """Make one weight of each direction and magnitude, once."""
        for module in self.modules():
            if isinstance(module, NormedConvolution):
                module.fold()
        return self


def load_vocoder(
    sample_rate_hz: int, state_dict: Mapping[str, Any], *, config: VocoderConfig | None = None
) -> Vocoder:
    """The vocoder with the weights of a published file (`best_netG.pt`, `bigvgan_generator.pt`).

    Args:
        state_dict: bare, or under the key `generator`; weights normalised in either spelling of
            PyTorch, or folded already. The constant filters may be absent.
        config: None: the full network.

    Raises:
        UsageProblem: there is no vocoder of that rate.
        BadWeights: entries are missing, unknown, misshaped or not finite.
    """
    config = config or VocoderConfig.published(sample_rate_hz)
    with torch.device("meta"):
        vocoder = Vocoder(config)
    named = published_names(state_dict)
    return load_strictly(
        vocoder, named, what=f"the vocoder of {sample_rate_hz} Hz", constant=("filter",)
    ).fold()


def published_names(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The entries as the module names them."""
    entries = state_dict.get(_WRAPPER, state_dict)
    named: dict[str, Any] = {}
    for name, tensor in entries.items():
        name = name.removeprefix(f"{_WRAPPER}.")
        for newer, classic in _SPELLINGS.items():
            if name.endswith(f".{newer}"):
                name = name.removesuffix(newer) + classic
        stem, _, last = name.rpartition(".")
        if last == "weight" and isinstance(tensor, Tensor) and tensor.dim() == 3:  # folded already
            named[f"{stem}.weight_v"] = tensor
            named[f"{stem}.weight_g"] = torch.linalg.vector_norm(
                tensor.float(), dim=(1, 2), keepdim=True
            )
        else:
            named[name] = tensor
    return named
