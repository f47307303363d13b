"""How released checkpoints name and lay out the tensors of the network, and the way between the layouts.

| | released | here | why |
|---|---|---|---|
| convolutions | (O, I, K) | (O, K, I) | products over time need no sorting |
| w1, w3 of a gated MLP | two tensors | `w13`, one above the other | one product |
| qkv | rows by (head, unit, kind) | rows by (kind, head, unit) | queries, keys, values are views |
| units of a head of q, k | pairs side by side | pairs half a head apart | no strides to turn |

Moments of the optimizer and averages of weights have the same layouts. Nothing is computed: each value
goes to another place and back.

Source: the specification of MMAudio `networks.py`@974010a; `mmaudio_<variant>.pth`.
"""

import re
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from training.model.variants import (
    CLIP_WIDTH,
    HEAD_WIDTH,
    SEGMENT,
    SYNC_WIDTH,
    TEXT_WIDTH,
    TOKENS,
    Fill,
    Variant,
)

LEGACY = ("t_embed.freqs", "latent_rot", "clip_rot")  # tables in older files
FROZEN = ("latent_mean", "latent_std", "empty_string_feat")
Shape = tuple[int, ...]
_STACKED = re.compile(r"\.w([13])\.weight$")
_PAIRS = torch.arange(HEAD_WIDTH).view(-1, 2).t().flatten()  # of a released head, in our order
_BACK = _PAIRS.argsort()
_RENAMED = [
    (re.compile(r"^(\w+_input_proj)\.0\."), r"\1.lift."),
    (re.compile(r"^(\w+_input_proj)\.[12]\."), r"\1.mlp."),
    (re.compile(r"\.adaLN_modulation\.1\."), ".modulation."),
    (re.compile(r"^t_embed\.mlp\.0\."), "t_embed.first."),
    (re.compile(r"^t_embed\.mlp\.2\."), "t_embed.second."),
    (re.compile(r"\.w2\.weight$"), ".w2"),
    (_STACKED, ".w13"),
]


def released_layout(variant: Variant, *, fill: Fill = "own") -> dict[str, Shape]:
    """Names and shapes of a released checkpoint, in its order."""
    return dict(_tensors(variant, fill))


def trainable_names(variant: Variant, *, fill: Fill = "own") -> list[str]:
    """The released names of all that is trained, in the order of the optimizer's state."""
    return [name for name in released_layout(variant, fill=fill) if name not in FROZEN]


def _tensors(variant: Variant, fill: Fill) -> Iterator[tuple[str, Shape]]:
    width, channels = variant.width, variant.latent_channels
    yield "sync_pos_emb", (1, 1, SEGMENT, SYNC_WIDTH)
    yield "latent_mean", (1, 1, channels)
    yield "latent_std", (1, 1, channels)
    yield "empty_string_feat", (TOKENS, TEXT_WIDTH)
    yield "empty_clip_feat", (1, CLIP_WIDTH)
    yield "empty_sync_feat", (1, SYNC_WIDTH)
    if fill == "learned":
        yield "empty_text_feat", (TOKENS, TEXT_WIDTH)
    second = 2 if variant.v2 else 1  # v2 has an activation between the two
    for name, inputs, taps, place, mlp_taps in (
        ("audio", channels, 7, 2, 7),
        ("clip", CLIP_WIDTH, 1, second, 3),
        ("sync", SYNC_WIDTH, 7, 2, 3),
        ("text", TEXT_WIDTH, 1, second, 1),
    ):
        yield from _affine(f"{name}_input_proj.0", width, inputs, taps)
        yield from _mlp(f"{name}_input_proj.{place}", variant, mlp_taps)
    yield from _affine("clip_cond_proj", width, width)
    yield from _affine("text_cond_proj", width, width)
    yield from _mlp("global_cond_mlp", variant, 1)
    yield from _affine("final_layer.adaLN_modulation.1", 2 * width, width)
    yield from _affine("final_layer.conv", channels, width, 7)
    yield from _affine("t_embed.mlp.0", width, variant.time_width)
    yield from _affine("t_embed.mlp.2", width, width)
    for number in range(variant.num_joint):
        last = number == variant.num_joint - 1
        for name, taps in (("latent", 3), ("clip", 3), ("text", 1)):
            pre_only = last and name != "latent"
            yield from _stream(f"joint_blocks.{number}.{name}_block", variant, taps, pre_only)
    for number in range(variant.num_fused):
        yield from _stream(f"fused_blocks.{number}", variant, 3, pre_only=False)


def _affine(name: str, outputs: int, inputs: int, taps: int = 1) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs) if taps == 1 else (outputs, inputs, taps)
    yield f"{name}.bias", (outputs,)


def _mlp(name: str, variant: Variant, taps: int) -> Iterator[tuple[str, Shape]]:
    kernel = () if taps == 1 else (taps,)
    for weight in ("w1", "w2", "w3"):
        shape = (variant.hidden, variant.width)
        yield f"{name}.{weight}.weight", (*(shape if weight != "w2" else shape[::-1]), *kernel)


def _stream(name: str, variant: Variant, taps: int, pre_only: bool) -> Iterator[tuple[str, Shape]]:
    width = variant.width
    yield from _affine(f"{name}.attn.qkv", 3 * width, width)
    yield f"{name}.attn.q_norm.weight", (HEAD_WIDTH,)
    yield f"{name}.attn.k_norm.weight", (HEAD_WIDTH,)
    if not pre_only:
        yield from _affine(f"{name}.linear1", width, width, taps)
        yield from _mlp(f"{name}.ffn", variant, taps)
    yield from _affine(f"{name}.adaLN_modulation.1", width * (2 if pre_only else 6), width)


def internal_name(released: str) -> str:
    """The name of the tensor here that a released one is, or is a part of."""
    for pattern, ours in _RENAMED:
        released = pattern.sub(ours, released)
    return released


def from_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of our names and layout from released ones; of a gated MLP, w1 and w3 come together."""
    ours: dict[str, Tensor] = {}
    for name in _ordered(state):
        value, mine = _turned(name, state[name], _rows_in, _PAIRS), internal_name(name)
        ours[mine] = torch.cat([ours[mine], value]) if mine in ours else value.contiguous()
    return ours


def _ordered(state: Mapping[str, Tensor]) -> list[str]:
    """The names, w1 before w3."""
    return sorted(state, key=lambda name: (_STACKED.sub("", name), name))


def to_released(state: Mapping[str, Tensor], variant: Variant) -> dict[str, Tensor]:
    """Released names and layout of tensors of ours, in the released order; of all, or of some."""
    released: dict[str, Tensor] = {}
    for name in released_layout(variant, fill="learned"):
        mine = internal_name(name)
        if mine in state:
            value = _part(name, state[mine])
            released[name] = _turned(name, value, _rows_out, _BACK).contiguous()
    return released


def _part(released: str, value: Tensor) -> Tensor:
    found = _STACKED.search(released)
    return value.chunk(2)[0 if found[1] == "1" else 1] if found else value


def _turned(released: str, value: Tensor, rows: Callable[[Tensor], Tensor], order: Tensor) -> Tensor:
    """A value in the other layout; the name says what it is."""
    if ".attn.qkv." in released:
        return rows(value)
    if released.endswith(("q_norm.weight", "k_norm.weight")):
        return value[order.to(value.device)]
    if released.endswith(".weight") and value.ndim == 3:
        return value.transpose(1, 2)  # the last two axes change places, both ways
    return value


def _rows_in(value: Tensor) -> Tensor:
    """Rows of qkv by (head, unit, kind) into rows by (kind, head, unit)."""
    query, key, rest = value.unflatten(0, (-1, HEAD_WIDTH, 3)).unbind(2)
    order = _PAIRS.to(value.device)
    return torch.stack([query[:, order], key[:, order], rest]).flatten(0, 2)


def _rows_out(value: Tensor) -> Tensor:
    query, key, rest = value.unflatten(0, (3, -1, HEAD_WIDTH))
    order = _BACK.to(value.device)
    return torch.stack([query[:, order], key[:, order], rest], dim=2).flatten(0, 2)
