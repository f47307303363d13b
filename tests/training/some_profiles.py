"""Small profiles of averaged weights, in memory and as files."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from training.ema import SIGMAS
from training.state.profiles import profile_name

Given = list[tuple[int, float, dict[str, Tensor]]]


def some_profiles(*steps: int, sigmas: tuple[float, ...] = SIGMAS) -> Given:
    generator = torch.Generator().manual_seed(0)
    return [
        (step, sigma, {"a": torch.randn(3, generator=generator), "b.c": torch.ones(2, 2)})
        for step in steps
        for sigma in sigmas
    ]


def write_profiles(folder: Path, profiles: Given) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for step, sigma, tensors in profiles:
        save_file(tensors, folder / profile_name(step, sigma))
    return folder


def same(found: dict[str, Tensor], wanted: dict[str, Tensor], *, atol: float = 1e-6) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=atol, rtol=1e-6)
