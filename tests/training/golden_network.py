"""Weights, inputs and expected outputs of the golden file of the network."""

from pathlib import Path
from typing import Any

import torch
from golden_weights import layout, recipe, weights
from safetensors.torch import load_file
from torch import Tensor

FIXTURE = "mmdit_small_16k"


def released_weights(golden: Path, spec: Path, variant: str = "small_16k") -> dict[str, Tensor]:
    """The released layout of a variant, filled by the recipe."""
    return weights(golden, layout(spec, f"mmdit_{variant}"))


def expected(golden: Path) -> dict[str, Tensor]:
    """All tensors of the golden file."""
    return load_file(golden / f"{FIXTURE}.safetensors")


def made(golden: Path, name: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """An input that follows from its name."""
    found: Any = recipe(golden).fixture_input(FIXTURE, name, shape, scale)
    return torch.from_numpy(found)
