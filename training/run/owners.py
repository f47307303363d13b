"""Which rank keeps what, so that ranks share averages and checkpoints instead of repeating them.

Where each rank has all weights, names are dealt out by size; of weights that are sharded, each rank
keeps its shards.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor

from training.run.step import Trained


def dealt(sizes: Mapping[str, int], ranks: int) -> dict[str, int]:
    """The rank of each name; the largest goes first, to the rank that has least."""
    loads = [0] * ranks
    owner: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        rank = loads.index(min(loads))
        owner[name] = rank
        loads[rank] += sizes[name]
    return owner


def owned(trained: Trained) -> dict[str, Tensor]:
    """Of the network's state, what this rank keeps: tensors that are its own, and its shards."""
    state = trained.network.state_dict()
    whole = {n: t.numel() for n, t in state.items() if not isinstance(t, DTensor)}
    owner = dealt(whole, trained.world.size)
    return {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, DTensor) or owner[name] == trained.world.rank
    }


def first_row(tensor: DTensor) -> int:
    """Where this rank's shard begins on the first axis: all shards but the last ones are of one size."""
    rows, ranks = tensor.shape[0], tensor.device_mesh.size()
    each = -(-rows // ranks)
    begin = min(tensor.device_mesh.get_local_rank() * each, rows)
    held = tensor.to_local().shape[0]
    assert held == min(each, rows - begin), f"a shard of {held} rows, expected {min(each, rows - begin)}"
    return begin
