"""The network against golden files, the straightforward implementation, and the paper's counts."""

from pathlib import Path

import pytest
import torch
from golden_network import expected, made, released_weights
from golden_weights import close, layout
from plain_network import plain, repeated
from torch import Tensor
from torch.nn import functional

from curation.errors import BadWeights, UsageProblem
from features.weights.untrained import untrained_state
from training.model.convolution import convolve, gated_mlp, windows
from training.model.images import by_images
from training.model.initial import initial_state
from training.model.layers import Repeat, nearest
from training.model.released import (
    LEGACY,
    from_released,
    released_layout,
    to_released,
    trainable_names,
)
from training.model.variants import VARIANTS, Switches, lengths
from training.network import Network, build_network, load_network, load_released, released_state

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


def shaped(
    name: str, *, num_latents: int = 32, batch: int = 3
) -> tuple[Network, dict[str, Tensor], Inputs]:
    """A network with weights from a seed, they, and inputs for it."""
    variant = VARIANTS[name]
    return made_network(variant, Switches()), *_given(variant, Switches(), num_latents, batch)


def _given(variant, switches: Switches, num_latents: int, batch: int):  # type: ignore[no-untyped-def]
    spec, random = lengths(num_latents, variant), torch.Generator().manual_seed(1)
    shapes = [
        (batch, num_latents, variant.latent_channels),
        (batch, spec.num_clip_frames, 1024),
        (batch, spec.num_sync_features, 768),
        (batch, 77, 1024),
    ]
    inputs = tuple(torch.randn(shape, generator=random) for shape in shapes)
    return state_of(variant, switches), (*inputs, torch.rand(batch, generator=random))


def state_of(variant, switches: Switches) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    shapes = released_layout(variant, fill=switches.fill)
    return untrained_state({k: torch.empty(v, device="meta") for k, v in shapes.items()}, 3)


def made_network(variant, switches: Switches) -> Network:  # type: ignore[no-untyped-def]
    network = Network(variant, switches)
    load_released(network, state_of(variant, switches), what="a test")
    return network


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
    state, (latent, clip, sync, text, t) = _given(variant, switches, num_latents, 3)
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
        state, (latent, *rest) = _given(variant, Switches(), 43, 2)
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


@torch.no_grad()
@pytest.mark.parametrize(
    ("fill", "empty"), [("own", "empty_string_feat"), ("learned", "empty_text_feat"), ("zeros", None)]
)
def test_missing_text_is_filled_as_the_switch_says(fill, empty: str | None) -> None:  # type: ignore[no-untyped-def]
    network = made_network(VARIANTS["tiny_16k"], Switches(fill=fill))
    _, (latent, clip, sync, text, t) = _given(network.variant, Switches(fill=fill), 32, 3)
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
    _, (latent, clip, sync, text, t) = _given(network.variant, Switches(sync="sum"), 32, 1)
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


@pytest.mark.parametrize(("rows", "tokens"), [(192, 345), (192, 250), (24, 24), (88, 125), (16, 9)])
def test_gradients_of_repeated_rows_are_those_of_indexing(rows: int, tokens: int) -> None:
    x = torch.randn(2, rows, 5, dtype=torch.float64, requires_grad=True)
    index, copies = nearest(rows, tokens)
    weight = torch.randn(2, tokens, 5, dtype=torch.float64)
    (plain_gradient,) = torch.autograd.grad((x[:, index] * weight).sum(), x)
    (ours,) = torch.autograd.grad((Repeat.apply(x, index, copies) * weight).sum(), x)
    torch.testing.assert_close(ours, plain_gradient)


@pytest.mark.parametrize("taps", [1, 3, 7])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 10), (2, 33)])
def test_convolutions_agree_with_conv1d(taps: int, batch: int, length: int) -> None:
    random = torch.Generator().manual_seed(taps * 100 + length)
    x, w, b, out = (
        torch.randn(shape, generator=random)
        for shape in [(batch, length, 6), (5, taps, 6), (5,), (batch, length, 5)]
    )

    def run(way, *given: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
        leaves = [tensor.clone().requires_grad_(True) for tensor in given]
        y = way(*leaves)
        return [y.detach(), *torch.autograd.grad((y * out).sum(), leaves)]

    def theirs(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        y = functional.conv1d(x.transpose(1, 2), w.transpose(1, 2), b, padding=taps // 2)
        return y.transpose(1, 2)

    def by_windows(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.linear(windows(x, taps), w.flatten(1), b)

    def as_images(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return by_images(x, w) + b

    for way in (convolve, by_windows, as_images):
        for ours, wanted in zip(run(way, x, w, b), run(theirs, x, w, b), strict=True):
            torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)


def test_gated_mlps_of_our_own_and_by_windows_agree() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 8, generator=random)
    w13, w2 = torch.randn(12, 3, 8, generator=random), torch.randn(8, 3, 6, generator=random)

    def run(dtype: torch.dtype) -> list[Tensor]:
        leaves = [tensor.to(dtype).requires_grad_(True) for tensor in (x, w13, w2)]
        y = gated_mlp(*leaves)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]

    # float64 goes by windows and autograd
    for ours, wanted in zip(run(torch.float32), run(torch.float64), strict=True):
        assert close(ours, wanted.float(), 1e-5)


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
    _, inputs = _given(variant, Switches(), 32, 2)
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
