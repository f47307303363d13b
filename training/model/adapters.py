"""Low-rank adapters: fine-tuning that trains a hundredth of the weights, and can be taken out again.

A matrix W (O, I) of a block becomes W + (alpha / rank) up down, where `down` is (rank, I) and `up` is
(O, rank); of a convolution, I counts all taps. The weights beneath stay as they are. `up` is zero at
first, so that training begins at the weights beneath.

Source: arXiv:2106.09685, Sec. 4.1.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import cache

import torch
from torch import Tensor, nn

from features.encoders.state_dicts import refuse_misfits

_BLOCKS = ("joint_blocks.", "fused_blocks.")
# Of the weight W of a module: "adapted.W.weight" is beneath, ".down" and ".up" are on it.
_PART, _BENEATH, _DOWN, _UP = "adapted.", ".weight", ".down", ".up"


class Adapter(nn.Module):
    """One weight, and what is added to it."""

    def __init__(self, weight: nn.Parameter, rank: int, alpha: float) -> None:
        super().__init__()
        self.weight = weight
        self.down = nn.Parameter(torch.zeros(rank, weight[0].numel()))
        self.up = nn.Parameter(torch.zeros(len(weight), rank))
        self.scale = alpha / rank

    def forward(self) -> Tensor:
        """The weight that is computed with, of the shape of the one beneath."""
        return changed(self.weight, self.down, self.up, scale=self.scale)


def changed(weight: Tensor, down: Tensor, up: Tensor, *, scale: float) -> Tensor:
    """A weight with what its adapter adds."""
    return weight + (torch.mm(up, down) * scale).view(weight.shape)


def add_adapters(network: nn.Module, *, rank: int, alpha: float, seed: int) -> None:
    """Put adapters on all matrices of the blocks; from now on they alone are trained."""
    network.requires_grad_(False)
    for name, module in list(network.named_modules()):
        weights = {kind: w for kind, w in module.named_parameters(recurse=False) if w.ndim > 1}
        if not name.startswith(_BLOCKS) or not weights:
            continue
        module.adapted = nn.ModuleDict()
        for kind, weight in weights.items():
            delattr(module, kind)
            module.adapted[kind] = adapter = Adapter(weight, rank, alpha)
            _begin(adapter.down, f"{seed}\n{name}.{kind}")
        module.__class__ = _with_adapters(type(module), tuple(weights))  # type: ignore[arg-type]


@cache
def _with_adapters(plain: type[nn.Module], kinds: tuple[str, ...]) -> type[nn.Module]:
    """A class of modules whose weights of these names are computed when they are read.

    All modules of a class share one such class, and so what a compiler makes of them:
    `torch.nn.utils.parametrize` makes a class for each module, and compiling gives up at the ninth.
    """

    def weight(kind: str) -> property:
        return property(lambda module: module.adapted[kind]())

    return type(plain.__name__, (plain,), {kind: weight(kind) for kind in kinds})


def _begin(down: Tensor, stream: str) -> None:
    """Kaiming-uniform, as the publication's code has it, from a stream of its own."""
    digest = hashlib.sha256(stream.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    bound = 1 / math.sqrt(down.shape[1])
    with torch.no_grad():
        down.uniform_(-bound, bound, generator=generator)


def adapters(network: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """The adapters of a network, each by the name of the weight it is on."""
    for name, module in network.named_modules():
        if isinstance(module, Adapter):
            yield name.replace(_PART, ""), module


def adapter_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`<weight>.down` and `<weight>.up` of all adapters in the state of a network."""
    return {
        name.replace(_PART, ""): value
        for name, value in state.items()
        if _PART in name and name.endswith((_DOWN, _UP))
    }


def load_adapters(network: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Put trained adapters into a network that has adapters of their rank.

    Raises:
        BadWeights: they are those of another network, or of another rank.
    """
    there = adapter_state(network.state_dict())
    rank = len(next(value for name, value in there.items() if name.endswith(_DOWN)))
    refuse_misfits(
        there, state, what=what,
        advice=f"give adapters of rank {rank}, or --set lora_rank=… with the rank of these; whole "
        "weights go to --init",
    )  # fmt: skip
    for name, value in there.items():
        value.copy_(state[name])


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network without its adapters, by the names it has without them."""
    plain = {}
    for name, value in state.items():
        if _PART not in name:
            plain[name] = value
        elif name.endswith(_BENEATH):
            plain[name.replace(_PART, "").removesuffix(_BENEATH)] = value
    return plain


@torch.no_grad()
def merged(state: Mapping[str, Tensor], *, alpha: float) -> dict[str, Tensor]:
    """The state of a network whose adapters went into its weights, by the names it has without them."""
    plain = plain_state(state)
    for name, down in state.items():
        if _PART in name and name.endswith(_DOWN):
            up = state[name.removesuffix(_DOWN) + _UP]
            beneath = name.replace(_PART, "").removesuffix(_DOWN)
            plain[beneath] = changed(plain[beneath], down, up, scale=alpha / len(down))
    return plain
