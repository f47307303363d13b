"""Weights and inputs of the golden files, made again from names by the recipe that lies beside them."""

import csv
import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor


@functools.cache
def recipe(golden: Path) -> ModuleType:
    """`gen_weights.py` of the folder with the golden files."""
    found = importlib.util.spec_from_file_location("gen_weights", golden / "gen_weights.py")
    assert found is not None, golden
    assert found.loader is not None, golden
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def layout(spec: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released checkpoint, of `keys/<name>.tsv` in the folder with the spec."""
    with (spec / "keys" / f"{name}.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {
        row["key"]: tuple(int(size) for size in row["shape"].split(",") if size not in ("-", ""))
        for row in rows
    }


def weights(golden: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every entry but the constants, by its name."""
    made = recipe(golden).state_dict(shapes)
    return {name: torch.from_numpy(values) for name, values in made.items()}


def close(found: Tensor, expected: Tensor, relative: float) -> bool:
    """|a - b| ≤ 1e-6 + r · max|b|, which is how the tolerances are meant."""
    assert found.shape == expected.shape, f"{tuple(found.shape)} for {tuple(expected.shape)}"
    return bool((found - expected).abs().max() <= 1e-6 + relative * expected.abs().max())
