"""The VAE, module by module as the specification says it: the oracle of the tests and of the benchmark.

Sequences have the time last, (B, C, T), as `conv1d` wants them; every step is a module of its own. The
weights are folded once after loading, as the specification asks. The same network can be had as it would
be without the magnitude-preserving design: weights as they are, no norms, plain sums and SiLU.
"""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


def pixel_norm(x: Tensor, dim: int = 1) -> Tensor:
    """x / (eps + ‖x‖ / √n) over the channels."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    return x / (1e-4 + norm / x.shape[dim] ** 0.5).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    return functional.silu(x) / 0.596


def mp_sum(skip: Tensor, branch: Tensor, t: float = 0.3) -> Tensor:
    return ((1 - t) * skip + t * branch) / ((1 - t) ** 2 + t**2) ** 0.5


class MpConv(nn.Module):
    def __init__(self, channels: int, out_channels: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, channels, taps))

    def fold(self) -> None:
        fan_in = self.weight[0].numel()
        norm = self.weight.flatten(1).norm(dim=1)[:, None, None]
        self.weight = nn.Parameter(
            self.weight / (fan_in**0.5 * (1e-4 + norm / fan_in**0.5)), requires_grad=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv1d(x, self.weight, padding=self.weight.shape[-1] // 2)


class Part(nn.Module):
    """What is different without the magnitude-preserving design."""

    preserving = True

    def norm(self, x: Tensor) -> Tensor:
        return pixel_norm(x) if self.preserving else x

    def silu(self, x: Tensor) -> Tensor:
        return mp_silu(x) if self.preserving else functional.silu(x)

    def add(self, skip: Tensor, branch: Tensor) -> Tensor:
        return mp_sum(skip, branch) if self.preserving else skip + branch


class Block(Part):
    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = MpConv(channels, out_channels, 3)
        self.conv2 = MpConv(out_channels, out_channels, 3)
        self.nin_shortcut = MpConv(channels, out_channels, 1) if channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        branch = self.conv2(self.silu(self.conv1(self.silu(x))))
        return self.add(x if self.nin_shortcut is None else self.nin_shortcut(x), branch)


class Attention(Part):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = MpConv(channels, 3 * channels, 1)
        self.proj_out = MpConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, time = x.shape
        y = self.norm(self.qkv(x).view(batch, channels, 3, time))
        query, key, value = y[:, :, 0], y[:, :, 1], y[:, :, 2]
        share = torch.softmax(query.transpose(1, 2) @ key / channels**0.5, dim=-1)  # (B, T, T)
        return self.add(x, self.proj_out(value @ share.transpose(1, 2)))


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = MpConv(channels, channels, 1)
        self.conv2 = MpConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(functional.avg_pool1d(self.conv1(x), 2))


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = MpConv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2, mode="nearest-exact"))


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = Block(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = Block(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x))).clamp(-256, 256)


class Level(nn.Module):
    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(*pair) for pair in itertools.pairwise(channels))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x).clamp(-256, 256)
        return x


class Encoder(Part):
    def __init__(self, mels: int, d: int, latents: int) -> None:
        super().__init__()
        self.learnable_gain = nn.Parameter(torch.zeros(()))
        self.conv_in = MpConv(mels, d, 3)
        self.down = nn.ModuleList([Level(d, d, d), Level(d, 2 * d, 2 * d), Level(2 * d, 4 * d, 4 * d)])
        self.down[0].downsample = Down(d)
        self.mid = Middle(4 * d)
        self.conv_out = MpConv(4 * d, 2 * latents, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down[0].downsample(self.down[0](self.conv_in(x)))
        x = self.mid(self.down[2](self.down[1](x)))
        return self.conv_out(self.silu(x)) * (1 + self.learnable_gain)


class Decoder(Part):
    def __init__(self, mels: int, d: int, latents: int) -> None:
        super().__init__()
        self.learnable_gain = nn.Parameter(torch.zeros(()))
        self.conv_in = MpConv(latents, 4 * d, 3)
        self.mid = Middle(4 * d)
        self.up = nn.ModuleList(
            [Level(2 * d, d, d, d), Level(4 * d, 2 * d, 2 * d, 2 * d), Level(4 * d, 4 * d, 4 * d, 4 * d)]
        )
        self.up[1].upsample = Up(2 * d)
        self.conv_out = MpConv(d, mels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up[2](self.mid(self.conv_in(x)))
        x = self.up[0](self.up[1].upsample(self.up[1](x)))
        return self.conv_out(self.silu(x)) * (1 + self.learnable_gain)


class PlainVae(nn.Module):
    """Spectrograms (B, M, T) and latents (B, E, N), as the specification has them."""

    SIZES = {16000: (80, 384, 20), 44100: (128, 512, 40)}  # noqa: RUF012 - mels, width, latent channels

    def __init__(self, sample_rate_hz: int, *, sizes: tuple[int, int, int] | None = None) -> None:
        super().__init__()
        mels, d, latents = sizes or self.SIZES[sample_rate_hz]
        self.encoder = Encoder(mels, d, latents)
        self.decoder = Decoder(mels, d, latents)
        self.register_buffer("data_mean", torch.zeros(1, mels, 1))
        self.register_buffer("data_std", torch.ones(1, mels, 1))

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, std, logvar, each (B, E, N)."""
        mean, logvar = self.encoder((mel - self.data_mean) / self.data_std).chunk(2, dim=1)
        logvar = logvar.clamp(-30, 20)
        return mean, torch.exp(0.5 * logvar), logvar

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(latent) * self.data_std + self.data_mean


def plain_vae(
    sample_rate_hz: int,
    state_dict: Mapping[str, Tensor],
    *,
    sizes: tuple[int, int, int] | None = None,
    preserving: bool = True,
) -> PlainVae:
    """The oracle with the weights of a checkpoint; `sizes`: mels, width, latent channels."""
    with torch.device("meta"):
        vae = PlainVae(sample_rate_hz, sizes=sizes)
    vae.load_state_dict(dict(state_dict), assign=True)
    for module in vae.modules():
        if isinstance(module, MpConv) and preserving:
            module.fold()
        if isinstance(module, Part):
            module.preserving = preserving
    return vae.eval().requires_grad_(False)
