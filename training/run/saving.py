"""What a run is, as the pieces of a checkpoint, and back from them: weights, moments, averages.

Of weights that every rank has whole, each rank writes its share; of sharded ones, each its shards. All
are read by any number of ranks, sharded or not.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from features.weights.checkpoint_files import write_safetensors
from training.ema import Tracks
from training.model.adapters import adapter_state
from training.model.released import to_released
from training.model.variants import variant_named
from training.run.owners import first_row, owned
from training.run.step import Trained
from training.state.exported import said_of_adapters
from training.state.folders import PROFILES
from training.state.pieces import FIRST_MOMENTS, SECOND_MOMENTS, WEIGHTS, Piece, averages, whole
from training.state.profiles import profile_name
from training.state.reading import Stored

UPDATES, AVERAGED = "counts/updates", "counts/averaged"  # of the optimizer, and of the averages
_MOMENTS = {"exp_avg": FIRST_MOMENTS, "exp_avg_sq": SECOND_MOMENTS}


def _piece(name: str, tensor: Tensor) -> Piece:
    """Of a tensor as this rank has it."""
    tensor = tensor.detach()
    if isinstance(tensor, DTensor):
        shape, begin = tuple(tensor.shape), first_row(tensor)
        return Piece(name=name, tensor=tensor.to_local(), shape=shape, offset=begin)
    return whole(name, tensor)


def _moments(trained: Trained, names: Mapping[str, Any]) -> Iterator[Piece]:
    """Of the trained parameters among `names`, in the order of the network."""
    state = trained.optimizer.state
    for name, parameter in trained.network.named_parameters():
        if parameter.requires_grad and name in names:
            for kind, prefix in _MOMENTS.items():
                yield _piece(prefix + name, state[parameter][kind])


def pieces(trained: Trained, tracks: Tracks) -> Iterator[Piece]:
    """All that this rank writes."""
    mine = owned(trained)
    yield from (_piece(WEIGHTS + name, tensor) for name, tensor in mine.items())
    if trained.optimizer.state:
        yield from _moments(trained, mine)
    yield from _averages(tracks, mine)
    if trained.world.is_first:
        for name, count in ((UPDATES, trained.updates), (AVERAGED, tracks.step)):
            yield _piece(name, torch.tensor(count))


def _averages(tracks: Tracks, mine: Mapping[str, Tensor]) -> Iterator[Piece]:
    """Of plain tensors, which have the rows of the network's."""
    for sigma, tensors in tracks.averages.items():
        for name, average in tensors.items():
            like = mine[name]
            begin = first_row(like) if isinstance(like, DTensor) else 0
            yield Piece(
                name=averages(sigma) + name, tensor=average, shape=tuple(like.shape), offset=begin
            )


def restore(trained: Trained, tracks: Tracks, stored: Stored) -> None:
    """Everything as it was saved.

    Raises:
        BadWeights: it is of another network, or of other settings.
    """
    counts = stored.read({UPDATES: None, AVERAGED: None})
    trained.updates, tracks.step = int(counts[UPDATES]), int(counts[AVERAGED])
    state = trained.network.state_dict()
    wanted = [_piece(WEIGHTS + name, tensor) for name, tensor in state.items()]
    if trained.updates:
        begin_moments(trained)
        wanted += _moments(trained, state)
    stored.read_into([*wanted, *_averages(tracks, owned(trained))])


def begin_moments(trained: Trained) -> None:
    """Room for the moments, as AdamW makes it in its first step."""
    for group in trained.optimizer.param_groups:
        for parameter in group["params"]:
            trained.optimizer.state[parameter] = {
                "step": torch.tensor(float(trained.updates), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


def write_profiles(run: Path, variant: str, stored: Stored) -> None:
    """The averages of a checkpoint as profiles, in the layout of released weights; see `training.ema`.

    Those of adapters have the names that `--adapters` reads.
    """
    step = int(stored.read({AVERAGED: None})[AVERAGED])
    adapters = said_of_adapters(stored.about) if stored.about.config["lora_rank"] else {}
    for sigma in stored.about.config["ema_sigmas"]:
        names = stored.begins(averages(sigma))
        found = stored.read(dict.fromkeys(names.values()))
        tensors = {name: found[kept] for name, kept in names.items()}
        released = to_released(tensors, variant_named(variant)) or adapter_state(tensors)
        about = {"step": str(step), "sigma_rel": f"{sigma:g}", "variant": variant, **adapters}
        write_safetensors(run / PROFILES / profile_name(step, sigma), released, about)
