"""Random weights from a seed: the same everywhere, and of sane magnitude."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from features.weights.untrained import untrained_state


def _shapes(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _digest(state: dict[str, torch.Tensor]) -> str:
    parts = (name.encode() + state[name].numpy().astype("<f4").tobytes() for name in sorted(state))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_bytes_are_those_of_every_machine() -> None:
    """Frozen: other bytes are other weights, under the identity of the former ones."""
    state = untrained_state(
        _shapes(conv__weight=(5, 4, 3), norm__weight=(7,), norm__bias=(7,), gain=()), 0
    )
    assert _digest(state) == "8df7229257e8d17e1e2fb90d11e5c7bd9b1ea038dbcca5d4df859defd9a7856c"


def test_a_value_follows_from_the_recipe_alone() -> None:
    """By another way: whole numbers of 16 bits from PCG64, seeded by sha256."""
    (tensor,) = untrained_state(_shapes(a__weight=(3, 5)), 4).values()
    seed = int.from_bytes(hashlib.sha256(b"4\na.weight\n(3, 5)").digest(), "little")
    words = [int(word) for word in np.random.PCG64(seed).random_raw(4)]
    halves = [word >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)][:15]
    signed = [half - 0x10000 if half > 0x7FFF else half for half in halves]
    expected = [number * 3**0.5 / 5**0.5 / 2**15 for number in signed]
    torch.testing.assert_close(tensor.flatten(), torch.tensor(expected), rtol=1e-6, atol=0)


def test_a_tensor_does_not_depend_on_its_neighbours_or_their_order() -> None:
    shapes = _shapes(**{f"m{i}__weight": (i + 2, 33) for i in range(40)})
    whole = untrained_state(shapes, 1)
    names = list(shapes)
    random.Random(0).shuffle(names)
    some = untrained_state({name: shapes[name] for name in names[:10]}, 1)
    assert list(some) == names[:10]
    assert all(torch.equal(some[name], whole[name]) for name in some)


def test_seed_name_and_shape_each_give_other_values() -> None:
    first = untrained_state(_shapes(a=(4, 6)), 0)["a"]
    assert not torch.equal(first, untrained_state(_shapes(a=(4, 6)), 1)["a"])
    assert not torch.equal(first, untrained_state(_shapes(b=(4, 6)), 0)["b"])
    assert not torch.equal(first.flatten(), untrained_state(_shapes(a=(6, 4)), 0)["a"].flatten())


@pytest.mark.parametrize(
    ("name", "shape", "mean", "deviation"),
    [
        ("layer.weight", (200, 300), 0, 300**-0.5),
        ("conv.weight", (64, 32, 3), 0, 96**-0.5),
        ("norm.weight", (20_000,), 1, 0.1),
        ("norm.bias", (20_000,), 0, 0.1),
        ("conv.weight_g", (20_000, 1, 1), 0.8, 0.08),
        ("conv.parametrizations.weight.original0", (20_000, 1, 1), 0.8, 0.08),
        ("data_mean", (1, 20_000, 1), -5, 0.1),
        ("data_std", (1, 20_000, 1), 2, 0.1),
        ("act.alpha", (20_000,), 0, 0.1),
    ],
)
def test_values_have_the_magnitude_of_their_kind(
    name: str, shape: tuple[int, ...], mean: float, deviation: float
) -> None:
    values = untrained_state({name: torch.empty(shape, device="meta")}, 3)[name]
    assert values.dtype == torch.float32
    assert values.shape == shape
    assert values.mean().item() == pytest.approx(mean, abs=deviation / 20)
    assert values.std().item() == pytest.approx(deviation, rel=0.03)


def test_constants_are_left_to_the_network() -> None:
    assert untrained_state(_shapes(up__filter=(1, 1, 12), mel_basis=(3, 4)), 0) == {}


@pytest.mark.soak
@pytest.mark.shared
def test_weights_of_the_largest_network_are_all_made(shared_spec: Path) -> None:
    lines = (shared_spec / "keys" / "clip_dfn5b_vith14_openclip.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t")[:2] for line in lines]
    shapes = {
        name: torch.empty([] if shape == "-" else [int(n) for n in shape.split(",")], device="meta")
        for name, shape in rows
    }
    state = untrained_state(shapes, 0)
    assert sum(tensor.numel() for tensor in state.values()) == 986_714_881
