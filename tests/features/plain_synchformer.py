"""The visual encoder of Synchformer as its description reads: the oracle of the fast one.

Module by module, with modules of torch, `cat`, `repeat` and batched attention; nothing is arranged for
speed. Shapes: B batch of segments, L tokens (class token first), T 8 times, P 196 positions, D 768.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DividedAttention(nn.Module):
    """Attention within groups of patch tokens and the class key; the class query sees all keys."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_bld: Tensor, *, over: str, num_times: int) -> Tensor:
        b, length, width = x_bld.shape
        qkv = self.qkv(x_bld).reshape(b, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, width of a head)
        of_class = functional.scaled_dot_product_attention(q[:, :, :1], k, v)
        q, grouped_k, grouped_v = (self._grouped(part[:, :, 1:], over, num_times) for part in (q, k, v))
        groups = q.shape[2]
        k, v = (
            torch.cat([part[:, :, :1, None].expand(-1, -1, groups, -1, -1), grouped], dim=3)
            for part, grouped in ((k, grouped_k), (v, grouped_v))
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        if over == "time":
            y = y.transpose(2, 3)
        y = torch.cat([of_class, y.flatten(2, 3)], dim=2)
        return self.proj(y.transpose(1, 2).reshape(b, length, width))

    def _grouped(self, x: Tensor, over: str, num_times: int) -> Tensor:
        """(B, heads, T P, width) → (B, heads, groups, members, width)."""
        x = x.unflatten(2, (num_times, -1))
        return x.transpose(2, 3) if over == "time" else x


class Block(nn.Module):
    """Attention over time, over space, and a perceptron, each on normalised tokens and added."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = DividedAttention(width, num_heads)
        self.timeattn = DividedAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.norm3 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x_bld: Tensor, num_times: int) -> Tensor:
        x_bld = x_bld + self.timeattn(self.norm3(x_bld), over="time", num_times=num_times)
        x_bld = x_bld + self.attn(self.norm1(x_bld), over="space", num_times=num_times)
        hidden = functional.gelu(self.mlp["fc1"](self.norm2(x_bld)))
        return x_bld + self.mlp["fc2"](hidden)


class Aggregation(nn.TransformerEncoderLayer):
    """A standard layer over [class token; 196 tokens] of every time."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(
            width, num_heads, 4 * width, 0.0, functional.gelu, 1e-6, batch_first=True, norm_first=True
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))


class PlainSynchformer(nn.Module):
    """(B, S, 16, 3, 224, 224) normalised → (B, 8 S, 768); loads the 238 entries without their prefix."""

    def __init__(self, *, depth: int = 12, width: int = 768, num_heads: int = 12) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 197, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, 8, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 16, 16)})
        self.patch_embed_3d = nn.ModuleDict({"proj": nn.Conv3d(3, width, (2, 16, 16), (2, 16, 16))})
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.spatial_attn_agg = Aggregation(width, num_heads)

    def tokens(self, frames_btchw: Tensor) -> Tensor:
        """(B, 16, 3, 224, 224) → (B, 1569, D), after the blocks."""
        patches = self.patch_embed_3d["proj"](frames_btchw.transpose(1, 2))  # (B, D, 8, 14, 14)
        num_times = patches.shape[2]
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).mT], dim=1)
        of_patches = self.pos_embed[:, 1:].repeat(1, num_times, 1)
        of_patches = of_patches + self.temp_embed.repeat_interleave(196, dim=1)
        x = x + torch.cat([self.pos_embed[:, :1], of_patches], dim=1)
        for block in self.blocks:
            x = block(x, num_times)
        return x

    def forward(self, segments_bstchw: Tensor) -> Tensor:
        x = self.tokens(segments_bstchw.flatten(0, 1))
        x = self.norm(x[:, 1:]).reshape(-1, 196, x.shape[-1])  # every time by itself
        layer = self.spatial_attn_agg
        x = torch.cat([layer.cls_token.expand(len(x), -1, -1), x], dim=1)
        return layer(x)[:, 0].reshape(len(segments_bstchw), -1, x.shape[-1])
