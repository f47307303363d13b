"""Random weights that follow from a seed, for tests and demos: equal bytes on every machine.

Each tensor has a stream of its own, PCG64 seeded by the sha256 of (seed, name, shape), of which 16 bits
make a value: whole numbers and one product in float32, no logarithm that libraries round differently.
Values are uniform. Their scales keep the activations of every network here near one: matrices by the
number of inputs, scales of norms near one, biases small. Nothing can be learned from such features;
shards and readers say that they are untrained.
"""

import hashlib
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

_STEPS = 1 << 15  # of a signed value of 16 bits
_UNIFORM = math.sqrt(3)  # the half width of a uniform distribution of variance one
_SMALL = 0.1
_VALUES_PER_WORD = 4
# (mean, deviation) of tensors that are no matrices, by the last part of their name. A log-mel
# spectrogram has values about -5 +- 2; `weight_g` and `original0` are the lengths of a weight's rows.
_NAMED = {
    "data_mean": (-5.0, _SMALL), "data_std": (2.0, _SMALL), "latent_mean": (0.0, _SMALL),
    "latent_std": (1.0, _SMALL), "weight_g": (0.8, 0.08), "original0": (0.8, 0.08),
}  # fmt: skip
_CONSTANT = ("filter", "mel_basis", "hann_window")  # follow from the architecture; left to the module


def untrained_state(shapes: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """float32 tensors of the names and shapes of `shapes`, such as a state dict on the meta device."""
    names = [name for name in shapes if name.rpartition(".")[2] not in _CONSTANT]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        made = pool.map(lambda name: _tensor(name, tuple(shapes[name].shape), seed), names)
        return dict(zip(names, made, strict=True))


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    mean, deviation = _scale(name, shape)
    values = _uniform(f"{seed}\n{name}\n{shape}", math.prod(shape), deviation)
    if mean:
        values += np.float32(mean)
    return torch.from_numpy(values).reshape(shape)


def _scale(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and deviation of the values of a tensor."""
    leaf = name.rpartition(".")[2]
    if leaf in _NAMED:
        return _NAMED[leaf]
    if len(shape) > 1:
        return 0.0, 1 / math.sqrt(math.prod(shape[1:]))
    return (1.0, _SMALL) if leaf == "weight" else (0.0, _SMALL)


def _uniform(stream: str, count: int, deviation: float) -> NDArray[np.float32]:
    """`count` values about zero with this deviation."""
    seed = int.from_bytes(hashlib.sha256(stream.encode()).digest(), "little")
    words = np.random.PCG64(seed).random_raw(-(-count // _VALUES_PER_WORD))
    steps = words.astype("<u8", copy=False).view("<i2")[:count]
    values = steps.astype(np.float32)
    values *= np.float32(deviation * _UNIFORM / _STEPS)
    return values
