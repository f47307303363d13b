"""Synchformer's visual encoder: the golden file, the plain oracle, checkpoints, batches."""

from pathlib import Path

import pytest
import torch
from golden_weights import close, layout, weights
from plain_synchformer import PlainSynchformer
from safetensors.torch import load_file
from torch import Tensor

from curation.errors import BadWeights, UsageProblem
from features.encoders import linear, synchformer
from features.encoders.synchformer import TINY, Synchformer, SynchformerConfig, load_synchformer

PREFIX = "vfeat_extractor."
SHALLOW = SynchformerConfig(depth=1)  # of full width
SMALL = SynchformerConfig(width=96, depth=2, num_heads=3)


def random_weights(config: SynchformerConfig) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Synchformer(config).state_dict().items()}
    made = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=rng)
        fan_in = shape[1:].numel() if len(shape) > 1 and "token" not in name else 4
        made[name] = values / fan_in**0.5 + float("norm" in name and name.endswith("weight"))
    return made


def random_segments(clips: int, segments: int) -> Tensor:
    return torch.randn(clips, segments, 16, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def random_frames(clips: int, frames: int) -> Tensor:
    rng = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (clips, frames, 3, 224, 224), dtype=torch.uint8, generator=rng)


@pytest.fixture(scope="module")
def golden(shared_golden: Path) -> dict[str, Tensor]:
    return load_file(shared_golden / "synchformer.safetensors")


@pytest.fixture(scope="module")
def full_weights(shared_golden: Path, shared_spec: Path) -> dict[str, Tensor]:
    return weights(shared_golden, layout(shared_spec, "synchformer_visual"))


@pytest.fixture(scope="module")
def full(full_weights: dict[str, Tensor]) -> Synchformer:
    return load_synchformer(full_weights)


@pytest.fixture(scope="module")
def full_pass(full: Synchformer, golden: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Features, and the tokens after the last block, segment by segment."""
    tokens: list[Tensor] = []
    hook = full.blocks[-1].register_forward_hook(lambda _module, _given, out: tokens.append(out))
    features = full(full.segments(golden["frames_u8"][None]))
    hook.remove()
    return features, tokens


@pytest.fixture(scope="module")
def shallow() -> tuple[Synchformer, PlainSynchformer]:
    state = random_weights(SHALLOW)
    plain = PlainSynchformer(depth=1)
    plain.load_state_dict(state)
    return load_synchformer(state, config=SHALLOW), plain.eval()


@pytest.mark.shared
def test_features_are_those_of_the_golden_file(
    full_pass: tuple[Tensor, list[Tensor]], golden: dict[str, Tensor]
) -> None:
    features, _ = full_pass
    assert features.shape == (1, 16, 768)
    assert close(features, golden["features"].flatten(1, 2), 5e-4)


@pytest.mark.shared
def test_tokens_after_twelve_blocks_are_those_of_the_golden_file(
    full_pass: tuple[Tensor, list[Tensor]], golden: dict[str, Tensor]
) -> None:
    _, (tokens, _) = full_pass
    first = torch.cat([tokens[:, -1:], tokens[:, :3]], dim=1)  # the class token lies last
    assert close(first, golden["tokens_after_blocks_first4"], 5e-4)


@pytest.mark.shared
@pytest.mark.slow
def test_in_bf16_every_feature_keeps_its_direction(
    full_weights: dict[str, Tensor],
    full_pass: tuple[Tensor, list[Tensor]],
    golden: dict[str, Tensor],
) -> None:
    half = load_synchformer(full_weights).to(torch.bfloat16)
    segments = half.segments(golden["frames_u8"][None])
    assert segments.dtype == torch.bfloat16
    found = half(segments)
    assert torch.cosine_similarity(found.float(), full_pass[0], dim=-1).min() >= 0.999


@pytest.mark.shared
def test_names_and_shapes_are_those_of_the_released_file(shared_spec: Path) -> None:
    with torch.device("meta"):
        network = Synchformer(SynchformerConfig())
    found = {PREFIX + name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == layout(shared_spec, "synchformer_visual")
    assert sum(tensor.numel() for tensor in network.parameters()) == 122_440_704


@pytest.mark.shared
def test_the_whole_file_is_accepted_and_names_may_lack_the_prefix(
    full_weights: dict[str, Tensor], shared_spec: Path
) -> None:
    shapes = layout(shared_spec, "synchformer_full_avbench")
    whole = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()} | full_weights
    assert len(whole) == 513
    bare = {name.removeprefix(PREFIX): tensor for name, tensor in full_weights.items()}
    for state in (whole, bare):
        loaded = load_synchformer(state).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in bare.items())


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("missing", "1 tensor missing: blocks.1.mlp.fc1.bias"),
        ("unknown", "1 tensor unknown: blocks.2.mlp.fc1.bias"),
        ("foreign", "1 tensor unknown: surplus.weight"),
        ("misshaped", r"1 tensor misshaped: temp_embed \(1x9x64 for 1x8x64\)"),
        ("nan", "1 tensor not finite: blocks.0.timeattn.qkv.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(prefix: str, kind: str, named: str) -> None:
    state = random_weights(TINY)
    if kind == "missing":
        del state["blocks.1.mlp.fc1.bias"]
    elif kind == "unknown":
        state["blocks.2.mlp.fc1.bias"] = torch.zeros(256)
    elif kind == "misshaped":
        state["temp_embed"] = torch.zeros(1, 9, 64)
    elif kind == "nan":
        state["blocks.0.timeattn.qkv.weight"][3, 5] = torch.nan
    state = {prefix + name: tensor for name, tensor in state.items()}
    if kind == "foreign":
        state["surplus.weight"] = torch.zeros(1)
    with pytest.raises(BadWeights, match=named):
        load_synchformer(state, config=TINY)


def test_the_plain_network_gives_the_same(shallow: tuple[Synchformer, PlainSynchformer]) -> None:
    fast, plain = shallow
    segments = random_segments(1, 2)
    with torch.no_grad():
        assert close(fast(segments), plain(segments), 2e-6)


def test_without_fused_products_the_same_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network, segments = load_synchformer(random_weights(SMALL), config=SMALL), random_segments(1, 2)
    fused = network(segments)
    monkeypatch.setattr(linear, "has_fused", lambda dtype: False)
    assert close(network(segments), fused, 5e-6)


@pytest.mark.parametrize("at_once", [1, 2, 3, 6, 64])
def test_how_many_segments_go_together_does_not_matter(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, segments = load_synchformer(random_weights(SMALL), config=SMALL), random_segments(3, 3)
    alone = torch.cat([network(segments[i : i + 1, j : j + 1]) for i in range(3) for j in range(3)])
    monkeypatch.setitem(synchformer._AT_ONCE, "cpu", at_once)
    assert close(network(segments), alone.view(3, 24, 768), 5e-6)


def test_on_a_cpu_the_bytes_of_a_clip_depend_on_no_other_clip() -> None:
    network, segments = load_synchformer(random_weights(TINY), config=TINY), random_segments(3, 2)
    together = network(segments)
    assert all(torch.equal(network(segments[i : i + 1])[0], together[i]) for i in range(3))


def test_input_is_left_as_it_was_and_nothing_has_a_gradient() -> None:
    network, segments = load_synchformer(random_weights(TINY), config=TINY), random_segments(1, 1)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    before = segments.clone()
    assert not network(segments).requires_grad
    assert torch.equal(segments, before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_tiny_network_has_the_shapes_of_the_real_one() -> None:
    network = load_synchformer(random_weights(TINY), config=TINY)
    frames = random_frames(2, 41)
    features = network(network.segments(frames))
    assert features.shape == (2, 32, 768)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize(
    ("frames", "segments"), [(16, 1), (23, 1), (24, 2), (100, 11), (200, 24), (250, 30)]
)
def test_segments_are_sixteen_frames_with_a_stride_of_eight(frames: int, segments: int) -> None:
    network = load_synchformer(random_weights(TINY), config=TINY)
    given = random_frames(1, frames)[:, :, :, :8, :8]
    found = network.segments(given)
    assert found.shape == (1, segments, 16, 3, 8, 8)
    expected = torch.stack([given[:, 8 * s : 8 * s + 16] for s in range(segments)], dim=1)
    assert torch.equal(found, (expected.float() / 255 - 0.5) / 0.5)
    assert found.untyped_storage().nbytes() == 4 * given.numel()  # overlapping views, not copies


def test_fewer_frames_than_a_segment_are_refused() -> None:
    network = load_synchformer(random_weights(TINY), config=TINY)
    with pytest.raises(UsageProblem, match="15 frames, expected 16 or more"):
        network.segments(random_frames(1, 15))


def test_segments_of_another_shape_are_refused() -> None:
    network = load_synchformer(random_weights(TINY), config=TINY)
    for shape in [(1, 16, 3, 224, 224), (1, 2, 16, 3, 224, 256), (1, 2, 8, 3, 224, 224)]:
        with pytest.raises(UsageProblem, match=r"segments of shape .*expected \(clips, segments, 16, 3"):
            network(torch.zeros(()).expand(shape))
