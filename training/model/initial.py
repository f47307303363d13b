"""The weights that training begins with.

Each released tensor has a stream of its own, seeded by (seed, name): a network has the same weights
whatever else is made before it, on however many ranks.

Source: the specification's section 7.11.
"""

import hashlib
import math

import torch
from torch import Tensor

from training.model.released import FROZEN, from_released, released_layout
from training.model.variants import Fill, Variant

_TIME_DEVIATION = 0.02
_ZERO = ("adaLN_modulation.1.weight", "final_layer.conv.weight", "sync_pos_emb", "empty_clip_feat",
         "empty_sync_feat", "empty_text_feat")  # fmt: skip


def initial_state(variant: Variant, *, seed: int, fill: Fill = "own") -> dict[str, Tensor]:
    """All that is trained, float32, under the names and in the layout of `released.from_released`.

    Linear weights are Xavier-uniform with zero biases; convolutions are uniform within
    1 / sqrt(inputs · taps), weights and biases; the time embedding is normal; what modulates, the last
    convolution, positions and empty conditions are zero, so that the first velocity is zero.
    """
    shapes = released_layout(variant, fill=fill)
    made = {name: _value(name, shapes, seed) for name in shapes if name not in FROZEN}
    return from_released(made)


def _value(name: str, shapes: dict[str, tuple[int, ...]], seed: int) -> Tensor:
    shape = shapes[name]
    value = torch.zeros(shape)
    if name.endswith(_ZERO):
        return value
    if name.endswith("_norm.weight"):
        return value.fill_(1.0)
    generator = torch.Generator()
    digest = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
    generator.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    if name.endswith(".bias"):
        weight = shapes[name.removesuffix("bias") + "weight"]
        if len(weight) != 3 or name == "final_layer.conv.bias":
            return value
        bound = 1 / math.sqrt(weight[1] * weight[2])
        return value.uniform_(-bound, bound, generator=generator)
    if name.startswith("t_embed.mlp"):
        return value.normal_(0.0, _TIME_DEVIATION, generator=generator)
    if len(shape) == 3:
        bound = 1 / math.sqrt(shape[1] * shape[2])  # Kaiming-uniform with a = sqrt(5)
    else:
        bound = math.sqrt(6 / (shape[0] + shape[1]))  # Xavier
    return value.uniform_(-bound, bound, generator=generator)
