"""Whether tensors are those of the network that a file of weights is published for.

By number, names and shapes, without a value being read; where there is no such network here, by the
numbers of tensors and values of the table.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from curation.errors import BadWeights, WrongWeights
from curation.tables import number
from features.encoders.state_dicts import refuse_misfits
from features.weights.table import (
    CLIP,
    SYNCHFORMER,
    VAE_16K,
    VAE_44K,
    VOCODER_16K,
    VOCODER_44K,
    WeightFile,
)

State = Mapping[str, Tensor]


class _Network(NamedTuple):
    """A network on the meta device, and the tensors of a file under its names."""

    module: nn.Module
    named: Callable[[State], State]
    constant: tuple[str, ...] = ()  # may be absent from the file


def refuse_layout(path: Path, file: WeightFile, tensors: State) -> None:
    """Raise WrongWeights where the tensors read from `path` are not those of the published file."""
    bare = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    make = _NETWORKS.get(file.name)
    if make is None:
        _refuse_numbers(path, file, bare)
        return
    with torch.device("meta"):
        network = make()
    try:
        refuse_misfits(
            network.module.state_dict(), network.named(bare), what=file.title, constant=network.constant
        )
    except BadWeights as error:
        raise WrongWeights(f"{path}: {error}") from error


def _refuse_numbers(path: Path, file: WeightFile, tensors: State) -> None:
    values = sum(tensor.numel() for tensor in tensors.values())
    if (len(tensors), values) != (file.num_tensors, file.num_values):
        raise WrongWeights(
            f"{path}: {file.title}: {number(len(tensors), 'tensor')} with {number(values, 'value')}, "
            f"expected {number(file.num_tensors, 'tensor')} with {number(file.num_values, 'value')} — "
            "give the checkpoint of this network; `features weights` lists them"
        )


def _vae(sample_rate_hz: int) -> _Network:
    from features.encoders.vae import Vae, VaeConfig

    return _Network(Vae(VaeConfig.published(sample_rate_hz)), lambda state: state)


def _vocoder(sample_rate_hz: int) -> _Network:
    from features.encoders.vocoder import Vocoder, VocoderConfig, published_names

    return _Network(Vocoder(VocoderConfig.published(sample_rate_hz)), published_names, ("filter",))


def _synchformer() -> _Network:
    from features.encoders.synchformer import Synchformer, SynchformerConfig, visual_names

    return _Network(Synchformer(SynchformerConfig()), visual_names)


def _clip() -> _Network:
    from features.encoders.clip import Clip, ClipConfig, open_clip_names

    module = Clip(ClipConfig())
    return _Network(module, lambda state: open_clip_names(state, module))


_NETWORKS: dict[str, Callable[[], _Network]] = {
    VAE_16K: lambda: _vae(16000),
    VAE_44K: lambda: _vae(44100),
    SYNCHFORMER: _synchformer,
    CLIP: _clip,
    VOCODER_16K: lambda: _vocoder(16000),
    VOCODER_44K: lambda: _vocoder(44100),
}
