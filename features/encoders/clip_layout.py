"""The two layouts of CLIP's weights: open_clip's, which the network uses, and Hugging Face's.

Norms, embeddings and perceptrons have other names, and these tensors another form:

    open_clip                                     Hugging Face
    transformer.resblocks.i.…                     text_model.encoder.layers.i.…
    visual.transformer.resblocks.i.…              vision_model.encoder.layers.i.…
    ….attn.in_proj_{weight,bias}                  ….self_attn.{q,k,v}_proj.…, one after another
    text_projection, visual.proj                  {text,visual}_projection.weight, transposed
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from curation.errors import BadWeights
from curation.tables import number

_STEMS = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",  # sic
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_TRANSPOSED = ("text_projection", "visual.proj")
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_POSITION_IDS = "embeddings.position_ids"  # 0, 1, 2 … in files of older versions
_FIRST = 3  # names in a message


def is_hugging_face(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are named in Hugging Face's way."""
    return any(name.startswith(("text_model.", "vision_model.")) for name in state_dict)


def as_open_clip(state_dict: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """The tensors under open_clip's names, `expected` being those of the network; others as they are.

    Raises:
        BadWeights: tensors are missing, or the parts of one do not fit together.
    """
    parts_of = {name: hugging_face_names(name) for name in expected}
    missing = [part for parts in parts_of.values() for part in parts if part not in state_dict]
    if missing:
        more = f", and {len(missing) - _FIRST:,} more" if len(missing) > _FIRST else ""
        raise BadWeights(
            f"CLIP: {number(len(missing), 'tensor')} missing: {', '.join(missing[:_FIRST])}{more}. It "
            f"holds {number(len(state_dict), 'tensor')} in the layout of Hugging Face, expected all — "
            "give the whole checkpoint; features weights lists them"
        )
    used = {part for parts in parts_of.values() for part in parts}
    rest = {name: tensor for name, tensor in state_dict.items() if name not in used}
    converted = {name: tensor for name, tensor in rest.items() if not name.endswith(_POSITION_IDS)}
    for name, parts in parts_of.items():
        tensors = [state_dict[part] for part in parts]
        converted[name] = _joined(parts, tensors) if len(parts) > 1 else tensors[0]
        if name in _TRANSPOSED:
            converted[name] = converted[name].t().contiguous()
    return converted


def hugging_face_names(name: str) -> tuple[str, ...]:
    """What a tensor of open_clip is called by Hugging Face: one name, or those of q, k and v."""
    if not (match := _BLOCK.fullmatch(name)):
        if name in _STEMS:
            return (_STEMS[name],)
        stem, _, leaf = name.rpartition(".")
        return (f"{_STEMS[stem]}.{leaf}",)
    visual, number_, inside = match.groups()
    block = f"{'vision' if visual else 'text'}_model.encoder.layers.{number_}"
    if inside.startswith("attn.in_proj_"):
        kind = inside.removeprefix("attn.in_proj_")
        return tuple(f"{block}.self_attn.{part}_proj.{kind}" for part in "qkv")
    stem, _, leaf = inside.rpartition(".")
    return (f"{block}.{_IN_BLOCK[stem]}.{leaf}",)


def _joined(names: tuple[str, ...], tensors: list[Tensor]) -> Tensor:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise BadWeights(
            f"CLIP: {', '.join(names)} have the shapes {', '.join(map(str, sorted(shapes)))}, expected "
            "one for all three — give the checkpoint of this network; features weights lists them"
        )
    return torch.cat(tensors)
