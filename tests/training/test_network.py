"""The network against golden files, the straightforward implementation, and the paper's counts."""

from pathlib import Path

import pytest
import torch
from golden_network import expected, made, released_weights
from golden_weights import close, layout
from made_networks import made_network, shaped, state_of, weights_and_inputs
from plain_network import plain
from torch import Tensor
from torch.nn import functional

from curation.errors import BadWeights, UsageProblem
from training.model.initial import initial_state
from training.model.layers import nearest
from training.model.released import (
    LEGACY,
    from_released,
    released_layout,
    to_released,
    trainable_names,
)
from training.model.variants import VARIANTS, Switches
from training.network import Network, build_network, load_network, released_state

RELEASED = ["small_16k", "small_44k", "medium_44k", "large_44k", "large_44k_v2"]
TRAINABLE = dict(
    zip(RELEASED, [157_204_756, 157_330_216, 621_727_016, 1_029_923_240, 1_030_496_680], strict=True)
)
ALL = dict(
    zip(RELEASED, [157_283_644, 157_409_144, 621_805_944, 1_030_002_168, 1_030_575_608], strict=True)
)
Inputs = tuple[Tensor, ...]


@pytest.fixture(scope="module")
def golden(shared_golden: Path) -> dict[str, Tensor]:
    return expected(shared_golden)


@pytest.fixture(scope="module")
def network(shared_golden: Path, shared_spec: Path) -> Network:
    return load_network("small_16k", released_weights(shared_golden, shared_spec))


def test_variants_have_the_published_sizes() -> None:
    for name in RELEASED:
        with torch.device("meta"):
            network = Network(VARIANTS[name])
        assert sum(p.numel() for p in network.parameters()) == TRAINABLE[name]
        assert sum(p.numel() for p in network.state_dict().values()) == ALL[name]


@pytest.mark.shared
@pytest.mark.parametrize("name", RELEASED)
def test_layout_is_that_of_the_released_files(name: str, shared_spec: Path) -> None:
    ours, theirs = released_layout(VARIANTS[name]), layout(shared_spec, f"mmdit_{name}")
    assert list(ours.items()) == list(theirs.items()), "in their order"


@pytest.mark.shared
def test_trained_tensors_come_in_the_order_of_the_optimizer(shared_golden: Path) -> None:
    import json

    published = json.loads((shared_golden / "param_groups_small_16k.json").read_text())
    (group,) = published["groups"]
    assert trainable_names(VARIANTS["small_16k"]) == group["names"]


@pytest.mark.shared
def test_what_is_loaded_is_saved_exactly(
    network: Network, shared_golden: Path, shared_spec: Path
) -> None:
    given, back = released_weights(shared_golden, shared_spec), released_state(network)
    assert list(back) == list(layout(shared_spec, "mmdit_small_16k"))
    assert all(torch.equal(back[name], given[name]) for name in given)


@pytest.mark.shared
@torch.no_grad()
def test_velocities_are_those_of_the_golden_file(
    network: Network, golden: dict[str, Tensor], shared_golden: Path
) -> None:
    latent, clip, sync, text, t = (golden[n] for n in ("latent", "clip_f", "sync_f", "text_f", "t"))
    assert close(network(latent, clip, sync, text, t), golden["flow"], 2e-4)
    assert close(network(latent, None, None, None, t), golden["flow_empty"], 2e-4)
    assert close(network(latent, None, None, text, t), golden["flow_empty_negtext"], 2e-4)
    short = (
        made(shared_golden, "latent4s", (1, 125, 20)),
        made(shared_golden, "clip4s", (1, 32, 1024), 1 / 32),
        made(shared_golden, "sync4s", (1, 88, 768)),
    )
    assert close(network(*short, text[:1], 0.5), golden["flow_4s"], 2e-4)


@pytest.mark.shared
@torch.no_grad()
def test_parts_are_those_of_the_golden_file(network: Network, golden: dict[str, Tensor]) -> None:
    assert close(network.t_embed(golden["t"]), golden["t_emb"], 1e-5)
    conditions = network.conditions(
        golden["clip_f"], golden["sync_f"], golden["text_f"], num_latents=250
    )
    assert close(conditions.clip[:1], golden["cond_clip_f"], 1e-5)
    assert close(conditions.text[:1], golden["cond_text_f"], 1e-5)
    assert conditions.sync is not None
    assert close(conditions.sync[:, nearest(192, 250)[0]], golden["cond_sync_f"], 1e-5)
    pooled = [
        network.clip_cond_proj(conditions.clip.mean(1)),
        network.text_cond_proj(conditions.text.mean(1)),
    ]
    assert close(pooled[0], golden["clip_f_c"], 1e-5)
    assert close(pooled[1], golden["text_f_c"], 1e-5)
    assert close(network.unnormalise(golden["unnorm_in"]), golden["unnorm_out"], 1e-6)
    assert close(network.normalise(golden["unnorm_out"]), golden["unnorm_in"], 1e-5)


@pytest.mark.shared
def test_loss_and_gradients_are_those_of_the_golden_file(
    shared_golden: Path, shared_spec: Path, golden: dict[str, Tensor]
) -> None:
    network = load_network("small_16k", released_weights(shared_golden, shared_spec))
    network.requires_grad_(True)
    shape = (2, 250, 20)
    x0, mean, noise = (made(shared_golden, name, shape) for name in ("x0", "a_mean", "a_randn"))
    x1 = network.normalise(mean + golden["train_a_std"] * noise)
    t = golden["t"]
    dropped = torch.tensor([False, True])
    velocity = network(
        (1 - t)[:, None, None] * x0 + t[:, None, None] * x1, golden["clip_f"], golden["sync_f"],
        golden["text_f"], t, without_clip=dropped, without_sync=dropped, without_text=~dropped,
    )  # fmt: skip
    losses = (velocity - (x1 - x0)).square().mean((1, 2))
    assert close(losses, golden["train_loss_per_sample"], 2e-4)
    losses.mean().backward()
    gradients = to_released(
        {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, network.variant
    )
    assert len(gradients) == 248
    for name, wanted in golden.items():
        if name.startswith("grad."):
            assert close(gradients[name.removeprefix("grad.")], wanted, 2e-4), name
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert close(total[None], golden["grad_total_norm"], 1e-3)


SWITCHES = [
    Switches(),
    Switches(fill="learned"),
    Switches(fill="zeros"),
    Switches(sync="sum"),
    Switches(rope="default"),
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("num_latents", [32, 79])
def test_velocities_and_gradients_agree_with_the_plain_network(
    switches: Switches, num_latents: int
) -> None:
    variant = VARIANTS["tiny_16k"]
    network = made_network(variant, switches)
    state, (latent, clip, sync, text, t) = weights_and_inputs(variant, switches, num_latents, 3)
    oracle = plain(state, variant, switches)
    masks = {
        "without_clip": torch.tensor([True, False, True]),
        "without_sync": torch.tensor([True, False, False]),
        "without_text": torch.tensor([False, True, True]),
    }
    found = network(latent, clip, sync, text, t, **masks)
    wanted = oracle(latent, clip, sync, text, t, **masks)
    assert close(found, wanted, 1e-5)
    found.square().mean().backward()
    wanted.square().mean().backward()
    ours = to_released({n: p.grad for n, p in network.named_parameters() if p.grad is not None}, variant)
    theirs = {n: p.grad for n, p in oracle.named_parameters() if p.grad is not None}
    if switches.fill == "zeros":  # the plain one multiplies by zero
        theirs = {n: g for n, g in theirs.items() if n in ours}
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert close(ours[name], gradient, 1e-4), name


@pytest.mark.parametrize("name", ["tiny_16k", "tiny_44k"])
def test_both_projection_families_agree_with_the_plain_network(name: str) -> None:
    from dataclasses import replace

    for v2 in (False, True):
        variant = replace(VARIANTS[name], v2=v2)
        state, (latent, *rest) = weights_and_inputs(variant, Switches(), 43, 2)
        network = made_network(variant, Switches())
        with torch.no_grad():
            assert close(network(latent, *rest), plain(state, variant)(latent, *rest), 1e-5)


@torch.no_grad()
def test_a_stream_of_none_is_a_stream_that_all_samples_lack() -> None:
    network, _, (latent, clip, sync, text, t) = shaped("tiny_16k")
    everyone = torch.ones(3, dtype=torch.bool)
    some = network(
        latent, clip, sync, text, t, without_clip=everyone, without_sync=everyone, without_text=everyone
    )
    assert close(network(latent, None, None, None, t), some, 1e-6)
    alone = network(latent[:1], None, None, None, float(t[0]))
    assert close(alone, some[:1], 1e-6)


def test_training_begins_with_the_published_distributions() -> None:
    variant = VARIANTS["small_16k"]
    state = to_released(initial_state(variant, seed=1), variant)
    assert list(state) == trainable_names(variant)
    for name, value in state.items():
        zero = any(
            part in name
            for part in (
                "adaLN",
                "final_layer.conv",
                "sync_pos",
                "empty_",
                "t_embed.mlp.0.b",
                "t_embed.mlp.2.b",
            )
        )
        if zero or (name.endswith("bias") and state[name[:-4] + "weight"].ndim == 2):
            assert not value.any(), name
        elif "_norm" in name:
            assert (value == 1).all(), name
        elif "t_embed" in name:
            assert value.std().item() == pytest.approx(0.02, rel=0.05)
            assert value.abs().max() > 0.06, "normal, not uniform"
        elif value.ndim == 2:
            bound = (6 / sum(value.shape)) ** 0.5
            assert 0.98 * bound < value.abs().max() <= bound, name
        elif value.ndim == 3:
            bound = (value.shape[1] * value.shape[2]) ** -0.5
            assert 0.98 * bound < value.abs().max() <= bound, name
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_a_new_network_says_zero_and_follows_its_seed() -> None:
    variant = VARIANTS["tiny_16k"]
    network = build_network(variant, seed=5)
    network.empty_string_feat.zero_()
    _, inputs = weights_and_inputs(variant, Switches(), 32, 2)
    assert not network(*inputs).any()
    again, other = initial_state(variant, seed=5), initial_state(variant, seed=6)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, again[name])
    assert not torch.equal(again["clip_cond_proj.weight"], other["clip_cond_proj.weight"])


def test_checkpoints_of_other_networks_are_refused() -> None:
    variant = VARIANTS["tiny_16k"]
    state = state_of(variant, Switches())
    with pytest.raises(UsageProblem, match="small_16k, small_44k"):
        load_network("small", state)
    old = state | {name: torch.zeros(3) for name in LEGACY}
    assert load_network("tiny_16k", old).variant == variant
    for wrong, match in (
        ({"clip_cond_proj.bias": None}, "1 tensor missing: clip_cond_proj.bias"),
        ({"more": torch.zeros(1)}, "1 tensor unknown: more"),
        ({"clip_cond_proj.bias": torch.zeros(3)}, "misshaped"),
        ({"clip_cond_proj.bias": torch.full((64,), torch.nan)}, "not finite"),
    ):
        changed = {k: v for k, v in (state | wrong).items() if v is not None}
        with pytest.raises(BadWeights, match=match):
            load_network("tiny_16k", changed)


def test_layouts_are_inverse_for_some_of_the_tensors_too() -> None:
    variant = VARIANTS["tiny_16k"]
    state = state_of(variant, Switches())
    some = {name: value for name, value in state.items() if name.startswith("joint_blocks.1.")}
    back = to_released(from_released(some), variant)
    assert set(back) == set(some)
    assert all(torch.equal(back[name], some[name]) for name in some)


def test_bfloat16_stays_close_to_float32() -> None:
    network, _, inputs = shaped("tiny_16k", num_latents=79)
    with torch.no_grad():
        exact = network(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(*inputs)
    cosine = functional.cosine_similarity(exact.flatten(), rounded.float().flatten(), dim=0)
    assert cosine >= 0.999
