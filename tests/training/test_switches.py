"""The paper's switches do what they say; rows of conditions follow the latents."""

from pathlib import Path

import pytest
import torch
from golden_weights import close
from made_networks import made_network, weights_and_inputs
from plain_network import repeated
from torch import Tensor

from training.model.layers import nearest
from training.model.variants import VARIANTS, Switches, lengths


@torch.no_grad()
@pytest.mark.parametrize(
    ("fill", "empty"), [("own", "empty_string_feat"), ("learned", "empty_text_feat"), ("zeros", None)]
)
def test_missing_text_is_filled_as_the_switch_says(fill, empty: str | None) -> None:  # type: ignore[no-untyped-def]
    network = made_network(VARIANTS["tiny_16k"], Switches(fill=fill))
    _, (latent, clip, sync, text, t) = weights_and_inputs(network.variant, Switches(fill=fill), 32, 3)
    own = torch.zeros(77, 1024) if empty is None else network.state_dict()[empty]
    given = network(latent, clip, sync, own.expand(3, -1, -1), t)
    assert close(network(latent, clip, sync, None, t), given, 1e-6)
    assert not close(network(latent, clip, sync, text, t), given, 1e-2)


@torch.no_grad()
def test_aligned_rotation_counts_the_same_time_in_both_streams() -> None:
    """Figure A5: only then does a latent agree best with the picture of its own time."""
    from training.model.layers import rotation
    from training.model.pointwise import rotate

    def affinity(scale: float) -> Tensor:
        latents, pictures = rotation(250), rotation(64, scale=scale)
        ones = torch.ones(1, 1, 64)
        a = rotate(ones.expand(250, 1, 64), latents[:, :, None])[:, 0]
        b = rotate(ones.expand(64, 1, 64), pictures[:, :, None])[:, 0]
        return a @ b.t()

    best = affinity(250 / 64).argmax(1)
    times = (torch.arange(250) * 64 / 250).clamp(max=63)  # the last picture serves to the end
    assert ((best - times).abs() <= 0.5 + 1e-6).all()
    assert (affinity(1.0).argmax(1)[:64] == torch.arange(64)).all(), "the default counts tokens"


@torch.no_grad()
def test_sum_with_visual_makes_latents_deaf_to_frames_but_not_to_pictures() -> None:
    network = made_network(VARIANTS["tiny_16k"], Switches(sync="sum"))
    _, (latent, clip, sync, text, t) = weights_and_inputs(network.variant, Switches(sync="sum"), 32, 1)
    conditions = network.conditions(clip, sync, text, num_latents=32)
    assert conditions.sync is None
    assert conditions.clip.shape[1] == sync.shape[1], "pictures come to the rate of the synchronisation"
    parts = (
        network.clip_input_proj(clip),
        network.sync_input_proj((sync.unflatten(1, (-1, 8)) + network.sync_pos_emb).flatten(1, 2)),
    )
    assert close(conditions.clip, repeated(parts[0], sync.shape[1]) + parts[1], 1e-6)
    assert not close(
        network(latent, clip, sync + 1, text, t), network(latent, clip, sync, text, t), 1e-3
    )


@pytest.mark.parametrize(("num_latents", "variant", "clip", "sync"), [
    (250, "small_16k", 64, 192), (345, "small_44k", 64, 192), (125, "small_16k", 32, 88),
    (313, "small_16k", 80, 240), (431, "small_44k", 80, 240), (32, "tiny_16k", 8, 16),
])  # fmt: skip
def test_lengths_of_empty_conditions_follow_the_latents(
    num_latents: int, variant: str, clip: int, sync: int
) -> None:
    spec = lengths(num_latents, VARIANTS[variant])
    assert (spec.num_clip_frames, spec.num_sync_features) == (clip, sync)


@pytest.mark.shared
def test_rows_of_latents_are_the_nearest_exact_ones(shared_golden: Path) -> None:
    import json

    published = json.loads((shared_golden / "nearest_exact_index.json").read_text())
    assert len(published) >= 6
    for pair, wanted in published.items():
        source, target = (int(n) for n in pair.replace("->", " ").replace("_", " ").split()[-2:])
        assert nearest(source, target)[0].tolist() == wanted, pair
