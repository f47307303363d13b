"""The ends of the network: what comes in is projected to its width, and what goes out from it.

Shapes: B batch, N latents, C channels, T tokens, I inputs, D width.
Source: arXiv:2412.15322, Sec. G.2; the specification of MMAudio `networks.py`@974010a.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.layers import GatedMlp, TimeConvolution
from training.model.pointwise import modulate
from training.model.variants import Variant

FINAL_TAPS = 7


class Projection(nn.Module):
    """Features to the width of the network, and a first look at their neighbours in time."""

    def __init__(
        self, inputs: int, variant: Variant, *, taps: int, mlp_taps: int, activation: Any
    ) -> None:
        super().__init__()
        width = variant.width
        self.lift = nn.Linear(inputs, width) if taps == 1 else TimeConvolution(inputs, width, taps)
        self.mlp = GatedMlp(width, variant.hidden, mlp_taps)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, I) → (B, T, D)."""
        lifted = self.lift(x)
        projected: Tensor = self.mlp(lifted if self.activation is None else self.activation(lifted))
        return projected


class TimeEmbedding(nn.Module):
    """Sinusoids of t in [0, 1], and an MLP of them."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.scale = variant.time_scale
        self.first = nn.Linear(variant.time_width, variant.width)
        self.second = nn.Linear(variant.width, variant.width)

    def forward(self, t_b: Tensor) -> Tensor:
        """(B,) → (B, D); `t_b` in float32, as angles reach 10,000."""
        width = self.first.in_features
        steps = torch.arange(0, width, 2, dtype=torch.float32, device=t_b.device) / width
        # in this order: another moves the angles by 1e-4, and with them the velocity by 1e-3
        frequencies = self.scale * (1.0 / (10_000.0**steps))
        angles = t_b.float()[:, None] * frequencies
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1)
        embedded: Tensor = self.second(functional.silu(self.first(sinusoids)))
        return embedded


class Final(nn.Module):
    """To the latents' channels, modulated by the condition of the whole clip.

    Not by that of each frame, as the paper says: so are the released weights.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.modulation = nn.Linear(variant.width, 2 * variant.width)
        self.conv = TimeConvolution(variant.width, variant.latent_channels, FINAL_TAPS)

    def forward(self, latent: Tensor, whole: Tensor) -> Tensor:
        """(B, N, D), SiLU of the condition (B, 1, D) → (B, N, C)."""
        shift, scale = self.modulation(whole).chunk(2, dim=-1)
        velocity: Tensor = self.conv(modulate(latent, shift, scale))
        return velocity
