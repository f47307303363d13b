"""The blocks: three streams that attend to each other, and the latents alone.

A block is modulated by conditions: of the latents, one for each frame (c_ext), of other streams one for
the whole clip (c_global). SiLU of both is taken once for all blocks. The frame's conditions are as many
as features of synchronisation, fewer than latents: adaLN runs on them and its result is repeated, which
is exact, as it works row by row.

Shapes: B batch, N latents, T tokens, D width, S rows of conditions, h heads, E width of a head.
Source: arXiv:2412.15322, Sec. 3 and G; the specification of MMAudio `transformer_layers.py`@974010a.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.layers import GatedMlp, HeadNorm, Repeat, TimeConvolution
from training.model.pointwise import modulate, prepared
from training.model.variants import HEAD_WIDTH, Variant

_TAPS = 3


class Frames(NamedTuple):
    """How rows of conditions become those of latents; see `layers.nearest`."""

    rows: Tensor  # (N,)
    copies: Tensor  # (m, S)


class Heads(nn.Module):
    """Queries, keys and values of a stream; the rows of `qkv` lie by (kind, head, unit)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = HeadNorm()
        self.k_norm = HeadNorm()

    def forward(self, x_btd: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, D) → queries and keys (B, T, 2, h, E), normalised and turned; values (B, T, h, E).

        Args:
            table: of the rotation (2, T, 1, 1, E/2); None: positions do not count.
        """
        qkv: Tensor = self.qkv(x_btd).unflatten(-1, (3, -1, HEAD_WIDTH))
        weight = torch.stack([self.q_norm.weight, self.k_norm.weight])[:, None]
        return prepared(qkv[:, :, :2], weight, table), qkv[:, :, 2]


def attend(both: Tensor, value: Tensor) -> Tensor:
    """Attention of all tokens to all: (B, T, 2, h, E), (B, T, h, E) → (B, T, D)."""
    query, key, value = (part.transpose(1, 2) for part in (*both.unbind(2), value))
    mixed = functional.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2)


class Stream(nn.Module):
    """What one stream has of its own in a block."""

    def __init__(self, variant: Variant, *, taps: int, pre_only: bool = False) -> None:
        """`pre_only`: it gives queries, keys and values, and is not updated."""
        super().__init__()
        width = variant.width
        self.pre_only = pre_only
        self.attn = Heads(width)
        self.modulation = nn.Linear(width, width * (2 if pre_only else 6))
        if not pre_only:
            self.linear1 = nn.Linear(width, width) if taps == 1 else TimeConvolution(width, width, taps)
            self.ffn = GatedMlp(width, variant.hidden, taps)

    def modulations(self, condition_bsd: Tensor, frames: Frames | None) -> list[Tensor]:
        """shift, scale and gate twice, or the first two; for each token or for all (B, 1, D)."""
        parts = self.modulation(condition_bsd).chunk(2 if self.pre_only else 6, dim=-1)
        # each by itself: of shifts nothing is kept for the gradients
        return [part if frames is None else Repeat.apply(part, *frames) for part in parts]  # type: ignore[no-untyped-call]

    def heads(
        self, x_btd: Tensor, modulations: list[Tensor], table: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys, and values; see `Heads`."""
        heads: tuple[Tensor, Tensor] = self.attn(modulate(x_btd, *modulations[:2]), table)
        return heads

    def update(self, x_btd: Tensor, mixed_btd: Tensor, modulations: list[Tensor]) -> Tensor:
        """The stream after attention and its MLP."""
        _, _, gate, shift, scale, gate_mlp = modulations
        x = torch.addcmul(x_btd, gate, self.linear1(mixed_btd))
        return torch.addcmul(x, gate_mlp, self.ffn(modulate(x, shift, scale)))


class JointBlock(nn.Module):
    """Latents, CLIP and text, each with weights of its own, in one attention."""

    def __init__(self, variant: Variant, *, last: bool) -> None:
        """`last`: CLIP and text end here."""
        super().__init__()
        self.last = last
        self.latent_block = Stream(variant, taps=_TAPS)
        self.clip_block = Stream(variant, taps=_TAPS, pre_only=last)
        self.text_block = Stream(variant, taps=1, pre_only=last)

    def forward(
        self,
        latent: Tensor,
        clip: Tensor,
        text: Tensor,
        framewise: Tensor,
        whole: Tensor,
        frames: Frames | None,
        tables: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The three streams (B, N | T | 77, D).

        Args:
            framewise: SiLU of the latents' conditions (B, S, D); `frames` says which is whose.
            whole: SiLU of the clip's condition (B, 1, D).
            tables: of the rotation of latents and CLIP.
        """
        streams = [self.latent_block, self.clip_block, self.text_block]
        tokens = [latent, clip, text]
        modulations = [
            streams[0].modulations(framewise, frames),
            streams[1].modulations(whole, None),
            streams[2].modulations(whole, None),
        ]
        heads = [
            stream.heads(x, m, table)
            for stream, x, m, table in zip(streams, tokens, modulations, [*tables, None], strict=True)
        ]
        both, value = (torch.cat(parts, dim=1) for parts in zip(*heads, strict=True))
        mixed = attend(both, value).split([x.shape[1] for x in tokens], dim=1)
        updated = [
            x if stream.pre_only else stream.update(x, o, m)
            for stream, x, o, m in zip(streams, tokens, mixed, modulations, strict=True)
        ]
        return updated[0], updated[1], updated[2]


class FusedBlock(Stream):
    """The latents alone."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant, taps=_TAPS)

    def forward(self, latent: Tensor, framewise: Tensor, frames: Frames | None, table: Tensor) -> Tensor:
        """(B, N, D)."""
        modulations = self.modulations(framewise, frames)
        mixed = attend(*self.heads(latent, modulations, table))
        return self.update(latent, mixed, modulations)
