"""CLIP ViT-H/14 of DFN-5B: one feature for a picture, one for every token of a caption.

The network and the layout of its weights are open_clip's "ViT-H-14-378-quickgelu"; the passes through it
are written here, for inference: products and attention without the copies that nn.MultiheadAttention
makes, QuickGELU in one pass, and in the last layer of the picture only what its class token needs.

Pictures are 384 pixels wide, of which the 27 x 27 patches of 14 pixels see the first 378. The text
feature is that of every one of the 77 positions, padding included, before pooling and projection.

Shapes: B pictures or texts, H heads, L tokens, D width, T 77; pictures are CHW.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from curation.errors import UsageProblem
from features.encoders.clip_layout import as_open_clip, is_hugging_face
from features.encoders.linear import linear, linear_add, quick_gelu_mlp
from features.encoders.state_dicts import load_strictly
from features.spec import CLIP_SIDE_PX, CLIP_WIDTH, TEXT_TOKENS, TEXT_WIDTH

# of red, green, blue, in 0 … 1; Source: open_clip 3.3.0, `OPENAI_DATASET_MEAN` and `OPENAI_DATASET_STD`
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """The published network. Source: open_clip 3.3.0, "ViT-H-14-378-quickgelu".

    Outputs have CLIP_WIDTH and TEXT_WIDTH whatever the widths inside: text of another width goes through
    the text projection, which has no use otherwise.
    """

    vision_width: int = 1280
    vision_layers: int = 32
    vision_head_width: int = 80
    text_width: int = TEXT_WIDTH
    text_layers: int = 24
    text_heads: int = 16
    patch_px: int = 14
    image_px: int = 378  # nominal; the pictures are CLIP_SIDE_PX
    vocabulary: int = 49408


TINY = ClipConfig(
    vision_width=64, vision_layers=2, vision_head_width=64, text_width=64, text_layers=2, text_heads=1
)


def load_clip(state_dict: Mapping[str, Tensor], *, config: ClipConfig | None = None) -> "Clip":
    """The encoder with these weights: eval mode, float32, CPU, no gradients.

    Args:
        state_dict: in the layout of open_clip or of Hugging Face.

    Raises:
        BadWeights: tensors are missing, unknown, misshaped or not finite.
    """
    with torch.device("meta"):
        module = Clip(config or ClipConfig())
    return load_strictly(module, open_clip_names(state_dict, module), what="CLIP")


def open_clip_names(state_dict: Mapping[str, Tensor], module: "Clip") -> Mapping[str, Tensor]:
    """The tensors as the module names them, whichever layout they come in."""
    return as_open_clip(state_dict, module.state_dict()) if is_hugging_face(state_dict) else state_dict


@functools.cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD as (3, 1, 1) on a device."""
    with torch.inference_mode(False):  # what is made in inference mode could not be used outside of it
        mean, std = (torch.tensor(values).view(3, 1, 1).to(device) for values in (MEAN, STD))
        return mean, std


class Clip(nn.Module):
    """Pictures → (B, 1024), token ids → (B, 77, 1024), each feature of length 1."""

    visual: Any  # open_clip's modules, which are not typed
    transformer: Any
    token_embedding: Any
    ln_final: Any

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        network = _network(config)
        self.config = config
        self.positional_embedding = network.positional_embedding
        self.text_projection = network.text_projection
        self.logit_scale = network.logit_scale
        self.visual = network.visual
        self.transformer = network.transformer
        self.token_embedding = network.token_embedding
        self.ln_final = network.ln_final

    @torch.no_grad()
    def prepare(self, frames_chw: Tensor) -> Tensor:
        """uint8 (…, 3, 384, 384) → normalised, in the precision of the network, on the same device."""
        mean, std = _statistics(frames_chw.device)
        frames = frames_chw.to(torch.float32).div_(255).sub_(mean).div_(std)
        return frames.to(self.visual.class_embedding.dtype)

    @torch.no_grad()
    def encode_image(self, frames_bchw: Tensor) -> Tensor:
        """(B, 1024), of uint8 pictures or of what `prepare` made of them.

        Raises:
            UsageProblem: the pictures have another shape.
        """
        expected = (3, CLIP_SIDE_PX, CLIP_SIDE_PX)
        if frames_bchw.ndim != 4 or frames_bchw.shape[1:] != expected:
            raise UsageProblem(
                f"pictures of shape {tuple(frames_bchw.shape)}, expected (pictures, "
                f"{', '.join(map(str, expected))}) — resize them with features.inputs.frames"
            )
        if frames_bchw.dtype == torch.uint8:
            frames_bchw = self.prepare(frames_bchw)
        visual = self.visual
        x = visual.ln_pre(self._embedded(frames_bchw.to(visual.class_embedding.dtype)))
        for block in visual.transformer.resblocks[:-1]:
            x = _through(block, x, x)
        x = _through(visual.transformer.resblocks[-1], x, x[:, :1])
        x = visual.ln_post(x[:, 0]) @ visual.proj
        return functional.normalize(x, dim=-1)

    @torch.no_grad()
    def encode_text(self, ids_bt: Tensor) -> Tensor:
        """(B, 77, 1024) of ids as `tokens.tokenize` gives them; positions see those before them only.

        Raises:
            UsageProblem: the ids have another shape.
        """
        if ids_bt.ndim != 2 or ids_bt.shape[1] != TEXT_TOKENS:
            raise UsageProblem(
                f"token ids of shape {tuple(ids_bt.shape)}, expected (texts, {TEXT_TOKENS}) — make them "
                "with features.encoders.tokens.tokenize"
            )
        x = self.token_embedding(ids_bt) + self.positional_embedding
        for block in self.transformer.resblocks:
            x = _through(block, x, x, is_causal=True)
        x = self.ln_final(x)
        if x.shape[-1] != TEXT_WIDTH:
            x = x @ self.text_projection
        return functional.normalize(x, dim=-1)

    def _embedded(self, frames_bchw: Tensor) -> Tensor:
        """(B, 730, D): class token and patches, with what tells their place."""
        side, patch = self.config.image_px // self.config.patch_px, self.config.patch_px
        seen = frames_bchw[:, :, : side * patch, : side * patch]
        patches = seen.view(len(seen), 3, side, patch, side, patch)
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3, 5).flatten(1, 2)
        visual = self.visual
        x = patches @ visual.conv1.weight.flatten(1).t()
        of_class = visual.class_embedding.expand(len(x), 1, -1)
        return torch.cat([of_class, x], dim=1).add_(visual.positional_embedding)


def _network(config: ClipConfig) -> Any:
    """open_clip's modules with the names and shapes of the weights; nothing is fetched."""
    import open_clip  # it imports torchvision and timm: seconds

    return open_clip.CLIP(
        embed_dim=CLIP_WIDTH,
        quick_gelu=True,
        vision_cfg={
            "image_size": config.image_px,
            "layers": config.vision_layers,
            "width": config.vision_width,
            "head_width": config.vision_head_width,
            "patch_size": config.patch_px,
        },
        text_cfg={
            "context_length": TEXT_TOKENS,
            "vocab_size": config.vocabulary,
            "width": config.text_width,
            "heads": config.text_heads,
            "layers": config.text_layers,
        },
    )


def _through(block: Any, x_bld: Tensor, kept_bld: Tensor, *, is_causal: bool = False) -> Tensor:
    """The tokens `kept_bld`, the first of `x_bld` or all, after a layer in which they attend to `x_bld`.

    Overwrites `kept_bld`.
    """
    attn, mlp = block.attn, block.mlp
    b, length, width = kept_bld.shape
    normal = block.ln_1(x_bld)
    heads = (attn.num_heads, attn.head_dim)
    weight, bias = attn.in_proj_weight, attn.in_proj_bias
    if length == x_bld.shape[1]:
        q, k, v = linear(normal, weight, bias).view(b, length, 3, *heads).unbind(2)
    else:
        q = linear(normal[:, :length], weight[:width], bias[:width]).view(b, length, *heads)
        k, v = linear(normal, weight[width:], bias[width:]).view(b, -1, 2, *heads).unbind(2)
    y = functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=is_causal
    )
    y = y.transpose(1, 2).reshape(b, length, width)
    kept_bld = linear_add(y, attn.out_proj.weight, attn.out_proj.bias, kept_bld)
    fc, proj = mlp.c_fc, mlp.c_proj
    return quick_gelu_mlp(block.ln_2(kept_bld), fc.weight, fc.bias, proj.weight, proj.bias, kept_bld)
