"""The model card of exported weights."""

from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard
from some_checkpoints import ABOUT

from training.config import PRESETS
from training.model.variants import VARIANTS
from training.state.card import Facts, model_card


def about(**changes: Any) -> Facts:
    return Facts(
        file="model.safetensors", variant=VARIANTS["small_44k"], step=300_000, sigma_rel=0.05,
        config_digest="sha256:123", about=replace(ABOUT, config=PRESETS["S-44k"].document(), **changes),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "base", "says", "not_says"),
    [
        (
            about(),
            None,
            ["Certified: the manifest's certificate `sha256:def`", "| vggsound | 12 |", "`sha256:123`"],
            ["Not certified", "CC BY-NC", "random weights", "began with"],
        ),
        (about(certificate=None), None, ["**Not certified.** Nothing says that no clip of a test"], []),
        (about(untrained=True), None, ["**Features of encoders with random weights.**"], []),
        (
            about(init="mmaudio_small_44k.pth", origin="mmaudio"),
            "hkchengrex/MMAudio",
            [
                "began with the weights of `mmaudio_small_44k.pth`",
                "are under CC BY-NC 4.0: not for",
            ],
            [],
        ),
        (
            about(init="from_a_friend.pth", origin="unknown"),
            None,
            ["`from_a_friend.pth`", "is not known here. If they are those released at", "CC BY-NC 4.0"],
            [],
        ),
    ],
)
def test_a_card_says_what_weights_are_and_hubs_read_it(
    facts: Facts, base: str | None, says: list[str], not_says: list[str]
) -> None:
    text = model_card(facts)
    card = ModelCard(text)
    data = card.data.to_dict()
    assert data["license"] == "other"
    assert data.get("base_model") == base
    assert data["datasets"] == ["audiocaps", "vggsound"]
    assert card.text.lstrip().startswith("# small_44k at step 300,000, averaged with width 0.05\n")
    assert "MMAudio takes the same tensors as a network of the name `small_44k`." in text
    assert all(words in text for words in says)
    assert not [words for words in not_says if words in text]


def test_names_of_others_do_not_break_the_card() -> None:
    odd = {'a"b: [c]\n---\n# evil': 3, "no": 1, "x|y": 2}
    card = ModelCard(model_card(about(datasets=odd, init="a`b\n# evil", origin="unknown")))
    assert card.data.to_dict()["datasets"] == sorted(odd)
    assert not [line for line in card.text.splitlines() if line.startswith("# ") and "evil" in line]
    bare = ModelCard(model_card(about(datasets={}, shards={})))
    assert "datasets" not in bare.data.to_dict()
