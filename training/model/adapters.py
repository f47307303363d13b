"""Low-rank adapters: fine-tuning that trains a hundredth of the weights, and can be taken out again.

A matrix W (O, I) of a block becomes W + (alpha / rank) up down, where `down` is (rank, I) and `up` is
(O, rank); of a convolution, I counts all taps. The weights beneath stay as they are. `up` is zero at
first, so that training begins at the weights beneath.

Source: arXiv:2106.09685, Sec. 4.1.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from features.encoders.state_dicts import refuse_misfits

_BLOCKS = ("joint_blocks.", "fused_blocks.")
# as `torch.nn.utils.parametrize` names what is beneath and what is on it
_PART, _BENEATH, _DOWN, _UP = "parametrizations.", ".original", ".0.down", ".0.up"


class Adapter(nn.Module):
    """What is added to one weight."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(rank, weight[0].numel()))
        self.up = nn.Parameter(torch.zeros(len(weight), rank))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that is computed with, of the shape of `weight`."""
        return changed(weight, self.down, self.up, scale=self.scale)


def changed(weight: Tensor, down: Tensor, up: Tensor, *, scale: float) -> Tensor:
    """A weight with what its adapter adds."""
    return weight + (torch.mm(up, down) * scale).view(weight.shape)


def add_adapters(network: nn.Module, *, rank: int, alpha: float, seed: int) -> None:
    """Put adapters on all matrices of the blocks; from now on they alone are trained."""
    network.requires_grad_(False)
    for name, module in list(network.named_modules()):
        if not name.startswith(_BLOCKS):
            continue
        for kind, weight in list(module.named_parameters(recurse=False)):
            if weight.ndim > 1:
                adapter = Adapter(weight, rank, alpha)
                _begin(adapter.down, f"{seed}\n{name}.{kind}")
                parametrize.register_parametrization(module, kind, adapter)
                adapter.requires_grad_(True)


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
            owner, _, rest = name.partition(f".{_PART}")
            yield f"{owner}.{rest.rpartition('.')[0]}", module


def adapter_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`<weight>.down` and `<weight>.up` of all adapters in the state of a network."""
    found = {}
    for name, value in state.items():
        for ending in (_DOWN, _UP):
            if _PART in name and name.endswith(ending):
                found[name.replace(_PART, "").replace(ending, ending.removeprefix(".0"))] = value
    return found


def load_adapters(network: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Put trained adapters into a network that has adapters of their rank.

    Raises:
        BadWeights: they are those of another network, or of another rank.
    """
    refuse_misfits(adapter_state(network.state_dict()), state, what=what)
    for name, adapter in adapters(network):
        adapter.load_state_dict({kind: state[f"{name}.{kind}"].float() for kind in ("down", "up")})


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
