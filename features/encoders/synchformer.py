"""The visual encoder of Synchformer: 8 features for every segment of 16 frames.

MotionFormer with divided attention: within a block every patch attends first to its own position over 8
times, then to the 196 positions of its own time, always with the class token among the keys:

    time   keys of (t, p): class, (0, p) … (7, p)        9
    space  keys of (t, p): class, (t, 0) … (t, 195)    197
    class token: all                                  1569

The class token is kept *behind* the patches of its segment, where it is in nobody's way: queries of
patches and keys of everything are views of one product, and nothing is transposed but the time axis.

Shapes: B clips, S segments, N segments at once, T 8 times, P 196 positions, L 1569 tokens, H heads,
D width; frames are CHW. Source: v-iashin/Synchformer (arXiv:2401.16423), as
hkchengrex/MMAudio@974010a uses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from curation.errors import UsageProblem
from features.encoders.linear import linear, linear_add, linear_gelu
from features.encoders.state_dicts import load_strictly
from features.spec import (
    FEATURES_PER_SEGMENT,
    SEGMENT_FRAMES,
    SEGMENT_STRIDE_FRAMES,
    SYNC_SIDE_PX,
    SYNC_WIDTH,
)

_PREFIX = "vfeat_extractor."  # of the visual encoder in the file of the whole model …
_OTHERS = ("afeat_extractor.", "transformer.", "aproj.", "vproj.")  # … and what else is in it
_PATCH_FRAMES, _PATCH_PX = 2, 16
_SIDE = SYNC_SIDE_PX // _PATCH_PX  # 14 patches
_PLACES = _SIDE * _SIDE
_TIMES = SEGMENT_FRAMES // _PATCH_FRAMES
_PATCHES = _TIMES * _PLACES
_EPS = 1e-6
# Those of one stay in the cache of a CPU, and its bytes depend on no other; a GPU wants many.
_AT_ONCE = {"cpu": 1}
_AT_ONCE_ELSEWHERE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SynchformerConfig:
    """The published network; another width is projected to that of the features at the end."""

    width: int = SYNC_WIDTH
    depth: int = 12
    num_heads: int = 12


TINY = SynchformerConfig(width=64, depth=2, num_heads=1)


def load_synchformer(
    state_dict: Mapping[str, Tensor], *, config: SynchformerConfig | None = None
) -> "Synchformer":
    """The encoder with these weights: eval mode, float32, CPU, no gradients.

    Args:
        state_dict: the 238 tensors, with or without `vfeat_extractor.`, or the whole file of 513.

    Raises:
        BadWeights: tensors are missing, unknown, misshaped or not finite.
    """
    with torch.device("meta"):
        module = Synchformer(config or SynchformerConfig())
    named = visual_names(state_dict)
    return load_strictly(module, named, what="the visual encoder of Synchformer")


def visual_names(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors of the visual encoder as the module names them."""
    if not any(name.startswith(_PREFIX) for name in state_dict):
        return state_dict
    return {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in state_dict.items()
        if not name.startswith(_OTHERS)
    }


class DividedAttention(nn.Module):
    """Multi-head attention of which only the weights are kept in the layout of the file."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)  # q, k, v; head-major inside
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_nld: Tensor, to_nld: Tensor, *, over_time: bool) -> Tensor:
        """`to_nld` plus what was attended to; `to_nld` may be overwritten."""
        n, length, width = tokens_nld.shape
        qkv = linear(tokens_nld, self.qkv.weight, self.qkv.bias).view(n, length, 3, self.num_heads, -1)
        of_class = _attend(qkv[:, _PATCHES:, 0], qkv[:, :, 1], qkv[:, :, 2])
        patches = qkv[:, :_PATCHES].view(n, _TIMES, _PLACES, 3, self.num_heads, -1)
        class_kv = qkv[:, _PATCHES:, None, 1:]  # (N, 1, 1, 2, H, D/H)
        if over_time:
            patches = patches.transpose(1, 2)
        class_kv = class_kv.expand(-1, patches.shape[1], -1, -1, -1, -1)
        kv = torch.cat([class_kv, patches[:, :, :, 1:]], dim=2).flatten(0, 1)
        y = _attend(patches[:, :, :, 0].flatten(0, 1), kv[:, :, 0], kv[:, :, 1])
        y = y.view(n, patches.shape[1], patches.shape[2], width)
        if over_time:
            y = y.transpose(1, 2)
        y = torch.cat([y.reshape(n, _PATCHES, width), of_class.view(n, 1, width)], dim=1)
        return linear_add(y, self.proj.weight, self.proj.bias, to_nld)


class Mlp(nn.Module):
    """Two products with an exact GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens_nld: Tensor, to_nld: Tensor) -> Tensor:
        """`to_nld` plus the result; `to_nld` may be overwritten."""
        hidden = linear_gelu(tokens_nld, self.fc1.weight, self.fc1.bias)
        return linear_add(hidden, self.fc2.weight, self.fc2.bias, to_nld)


class Block(nn.Module):
    """Attention over time, then over space, then the perceptron, each of normalised tokens."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = DividedAttention(width, num_heads)
        self.timeattn = DividedAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width)
        self.norm3 = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x_nld: Tensor) -> Tensor:
        """The tokens after this block; `x_nld` may be overwritten."""
        x_nld = self.timeattn(self.norm3(x_nld), x_nld, over_time=True)
        x_nld = self.attn(self.norm1(x_nld), x_nld, over_time=False)
        x_nld = self.mlp(self.norm2(x_nld), x_nld)
        return x_nld


class Aggregation(nn.Module):
    """A transformer layer over [its class token; 196 tokens] of one time, of which the class is kept.

    Only what the class token needs is computed: keys and values of all, the rest of one.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.self_attn = nn.MultiheadAttention(width, num_heads)  # for the layout of its weights
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)

    def forward(self, tokens_npd: Tensor) -> Tensor:
        """(N T, 196, D) → (N T, D)."""
        n, _, width = tokens_npd.shape
        x = torch.cat([self.cls_token.expand(n, -1, -1), tokens_npd], dim=1)
        x = self.norm1(x)
        weight, bias = self.self_attn.in_proj_weight, self.self_attn.in_proj_bias
        heads = (self.self_attn.num_heads, width // self.self_attn.num_heads)
        q = linear(x[:1, :1], weight[:width], bias[:width])  # the same for all
        kv = linear(x, weight[width:], bias[width:]).view(n, -1, 2, *heads)
        y = _attend(q.view(1, 1, *heads).expand(n, -1, -1, -1), kv[:, :, 0], kv[:, :, 1])
        out = self.self_attn.out_proj
        y = self.cls_token[0] + linear(y.reshape(n, width), out.weight, out.bias)
        hidden = linear_gelu(self.norm2(y), self.linear1.weight, self.linear1.bias)
        return linear_add(hidden, self.linear2.weight, self.linear2.bias, y)


class PatchEmbedding(nn.Module):
    """A convolution that is a product: patches do not overlap."""

    def __init__(self, width: int, *, is_3d: bool) -> None:
        super().__init__()
        square = (_PATCH_PX, _PATCH_PX)
        size = (_PATCH_FRAMES, *square)
        self.proj: nn.Conv2d | nn.Conv3d
        self.proj = nn.Conv3d(3, width, size, size) if is_3d else nn.Conv2d(3, width, square, square)


class Synchformer(nn.Module):
    """(B, S, 16, 3, 224, 224) normalised → (B, 8 S, 768); see `segments` for what makes the input."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width = config.width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + _PLACES, width))
        self.temp_embed = nn.Parameter(torch.empty(1, _TIMES, width))
        self.patch_embed = PatchEmbedding(width, is_3d=False)  # in the file, without a use
        self.patch_embed_3d = PatchEmbedding(width, is_3d=True)
        self.blocks = nn.ModuleList(Block(width, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.spatial_attn_agg = Aggregation(width, config.num_heads)
        if width != SYNC_WIDTH:
            self.output_proj = nn.Linear(width, SYNC_WIDTH, bias=False)

    @torch.no_grad()
    def forward(self, segments_bstchw: Tensor) -> Tensor:
        """The features of every segment, those of a clip one after another.

        Raises:
            UsageProblem: the input has another shape.
        """
        expected = (SEGMENT_FRAMES, 3, SYNC_SIDE_PX, SYNC_SIDE_PX)
        if segments_bstchw.ndim != 6 or segments_bstchw.shape[2:] != expected:
            raise UsageProblem(
                f"segments of shape {tuple(segments_bstchw.shape)}, expected (clips, segments, "
                f"{', '.join(map(str, expected))}) — cut them with Synchformer.segments"
            )
        b, s = segments_bstchw.shape[:2]
        at_once = _AT_ONCE.get(segments_bstchw.device.type, _AT_ONCE_ELSEWHERE)
        features = self.cls_token.new_empty(b, s, FEATURES_PER_SEGMENT, SYNC_WIDTH)
        clips_at_once = max(1, at_once // max(1, s))
        for i in range(0, b, clips_at_once):
            for j in range(0, s, at_once):
                here = (slice(i, i + clips_at_once), slice(j, j + at_once))
                part = segments_bstchw[here]
                features[here] = self._aggregated(self.tokens(part)).view(
                    *part.shape[:2], -1, SYNC_WIDTH
                )
        return features.view(b, s * FEATURES_PER_SEGMENT, SYNC_WIDTH)

    @torch.no_grad()
    def segments(self, frames_btchw: Tensor) -> Tensor:
        """uint8 (B, T, 3, 224, 224) → (B, S, 16, 3, 224, 224), normalised, overlapping views.

        Trailing frames that fill no segment are left out.

        Raises:
            UsageProblem: there are fewer frames than one segment has.
        """
        if frames_btchw.shape[1] < SEGMENT_FRAMES:
            raise UsageProblem(
                f"{frames_btchw.shape[1]} frames, expected {SEGMENT_FRAMES} or more: Synchformer sees "
                f"{SEGMENT_FRAMES} frames at a time — give a longer clip"
            )
        frames = frames_btchw.to(torch.float32).div_(255).sub_(0.5).div_(0.5).to(self.cls_token.dtype)
        return frames.unfold(1, SEGMENT_FRAMES, SEGMENT_STRIDE_FRAMES).movedim(-1, 2)

    @torch.no_grad()
    def tokens(self, segments_bstchw: Tensor) -> Tensor:
        """The tokens after the blocks, (B S, 1569, D), patches time-major and the class token last."""
        x = self._embedded(segments_bstchw.to(self.cls_token.dtype))
        for block in self.blocks:
            x = block(x)
        return x

    def _embedded(self, segments_bstchw: Tensor) -> Tensor:
        """Patches and class token with what tells their place and time."""
        b, s = segments_bstchw.shape[:2]
        x = segments_bstchw.reshape(
            b, s, _TIMES, _PATCH_FRAMES, 3, _SIDE, _PATCH_PX, _SIDE, _PATCH_PX
        )  # within a patch, the order of the convolution's weight: channel, frame, row, column
        x = x.permute(0, 1, 2, 5, 7, 4, 3, 6, 8).reshape(b * s, _PATCHES, -1)
        weight, bias = self.patch_embed_3d.proj.weight, self.patch_embed_3d.proj.bias
        places, of_class = self.pos_embed[0, 1:], self.pos_embed[:, :1]
        table = (self.temp_embed[0, :, None] + places).flatten(0, 1)
        tokens = x.new_empty(b * s, _PATCHES + 1, table.shape[1])
        torch.add(linear(x, weight.flatten(1), bias), table, out=tokens[:, :_PATCHES])
        tokens[:, _PATCHES:] = self.cls_token + of_class
        return tokens

    def _aggregated(self, tokens_nld: Tensor) -> Tensor:
        """(N, 1569, D) → (N T, 768)."""
        x = self.norm(tokens_nld[:, :_PATCHES]).view(-1, _PLACES, tokens_nld.shape[2])
        y: Tensor = self.spatial_attn_agg(x)
        return y if y.shape[1] == SYNC_WIDTH else functional.linear(y, self.output_proj.weight)


def _attend(q_nlhd: Tensor, k_nmhd: Tensor, v_nmhd: Tensor) -> Tensor:
    """(N, L, H, D/H) attention; the heads of a row lie together, before and after."""
    y = functional.scaled_dot_product_attention(
        q_nlhd.transpose(1, 2), k_nmhd.transpose(1, 2), v_nmhd.transpose(1, 2)
    )
    return y.transpose(1, 2)
