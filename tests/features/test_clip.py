"""CLIP: transformers' CLIPModel and open_clip's own passes as oracles, both layouts, precision."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_weights import layout
from torch import Tensor
from torch.nn import functional

from curation.errors import BadWeights, UsageProblem
from features.encoders import clip_layout, linear
from features.encoders.clip import TINY, Clip, ClipConfig, load_clip
from features.encoders.tokens import tokenize

# Full widths, two layers each; fewer words, which is most of the memory.
SHALLOW = ClipConfig(vision_layers=2, text_layers=2, vocabulary=1000)
QUERIES = "text_model.encoder.layers.1.self_attn.q_proj.weight"


def shapes_of(config: ClipConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Clip(config).state_dict().items()}


def random_weights(config: ClipConfig) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in shapes_of(config).items():
        values = torch.randn(shape, generator=rng)
        fan_in = 4 if len(shape) < 2 or "embedding" in name else shape[1:].numel()
        made[name] = values / fan_in**0.5 + float(".ln_" in f".{name}" and name.endswith("weight"))
    return made


def as_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in the other layout."""
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        parts = clip_layout.hugging_face_names(name)
        turned = tensor.t().contiguous() if name in ("text_projection", "visual.proj") else tensor
        made.update(zip(parts, turned.chunk(len(parts)) if len(parts) > 1 else [turned], strict=True))
    return made


def random_frames(num: int) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num, 3, 384, 384), dtype=torch.uint8, generator=rng)


def random_ids(num: int) -> Tensor:
    """As of texts of other lengths: ids, an end, zeros."""
    ids = torch.randint(1, 1000, (num, 77), generator=torch.Generator().manual_seed(2))
    for row in range(1, num):
        ids[row, 7 * row :] = 0
    return ids


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_weights(SHALLOW)


@pytest.fixture(scope="module")
def shallow(state: dict[str, Tensor]) -> Clip:
    return load_clip(state, config=SHALLOW)


@pytest.fixture(scope="module")
def tiny() -> Clip:
    return load_clip(random_weights(TINY), config=TINY)


@pytest.fixture(scope="module")
def hugging_face(state: dict[str, Tensor]) -> Any:
    """transformers' model with the same weights."""
    from transformers import CLIPConfig, CLIPModel

    same = {"hidden_act": "quick_gelu", "num_hidden_layers": 2, "num_attention_heads": 16,
            "projection_dim": 1024}  # fmt: skip
    config = CLIPConfig(
        projection_dim=1024,
        text_config={**same, "hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 1000},
        vision_config={**same, "hidden_size": 1280, "intermediate_size": 5120, "image_size": 378,
                       "patch_size": 14},
    )  # fmt: skip
    model = CLIPModel(config)
    model.load_state_dict(as_hugging_face(state))
    return model.eval()


def test_pictures_give_what_transformers_gives_for_the_378_pixels(
    shallow: Clip, hugging_face: Any
) -> None:
    frames = random_frames(2)
    with torch.no_grad():
        found = hugging_face.get_image_features(shallow.prepare(frames)[:, :, :378, :378])
    expected = functional.normalize(getattr(found, "pooler_output", found), dim=-1)
    assert (shallow.encode_image(frames) - expected).abs().max() < 1e-5


def test_tokens_of_texts_give_what_transformers_gives(shallow: Clip, hugging_face: Any) -> None:
    ids = random_ids(4)
    with torch.no_grad():
        states = hugging_face.text_model(ids).last_hidden_state
    assert (shallow.encode_text(ids) - functional.normalize(states, dim=-1)).abs().max() < 1e-5


def test_open_clip_gives_the_same_features(state: dict[str, Tensor], shallow: Clip) -> None:
    from features.encoders.clip import _network

    network = _network(SHALLOW).eval()
    network.load_state_dict(state)
    frames, ids = random_frames(1), random_ids(2)
    with torch.no_grad():
        pictures = network.encode_image(shallow.prepare(frames), normalize=True)
        x = network.token_embedding(ids) + network.positional_embedding
        tokens = network.ln_final(network.transformer(x, attn_mask=network.attn_mask))
    assert (shallow.encode_image(frames) - pictures).abs().max() < 1e-5
    assert (shallow.encode_text(ids) - functional.normalize(tokens, dim=-1)).abs().max() < 1e-5


def test_without_fused_products_the_same_comes_out(
    shallow: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, ids = random_frames(1), random_ids(2)
    fused = shallow.encode_image(frames), shallow.encode_text(ids)
    monkeypatch.setattr(linear, "has_fused", lambda dtype: False)
    assert (shallow.encode_image(frames) - fused[0]).abs().max() < 1e-6
    assert (shallow.encode_text(ids) - fused[1]).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_products_are_left_out_where_the_processor_lacks_them(dtype: torch.dtype) -> None:
    """Of an older one, which oneDNN is told to be, in a process of its own."""
    code = (
        "import torch\n"
        "from features.encoders.linear import linear\n"
        f"x, w = torch.ones(4, 8, dtype={dtype}), torch.ones(3, 8, dtype={dtype})\n"
        "print(float(linear(x, w, None).sum()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
    )  # fmt: skip
    assert ran.stdout == "96.0\n", ran.stderr


def test_the_layout_of_hugging_face_gives_the_same_network(state: dict[str, Tensor]) -> None:
    loaded = load_clip(as_hugging_face(state), config=SHALLOW).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.shared
def test_names_and_shapes_are_those_of_the_released_files(shared_spec: Path) -> None:
    shapes = shapes_of(ClipConfig())
    assert {name: tuple(shape) for name, shape in shapes.items()} == layout(
        shared_spec, "clip_dfn5b_vith14_openclip"
    )
    whole = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert {name: tuple(tensor.shape) for name, tensor in as_hugging_face(whole).items()} == layout(
        shared_spec, "clip_dfn5b_vith14_hf"
    )
    assert sum(shape.numel() for shape in shapes.values()) == 986_714_881


def test_the_network_is_the_one_open_clip_has_by_name() -> None:
    import open_clip

    known = open_clip.get_model_config("ViT-H-14-378-quickgelu")
    config = ClipConfig()
    vision, text = known["vision_cfg"], known["text_cfg"]
    assert (known["embed_dim"], known["quick_gelu"]) == (1024, True)
    assert vision == {
        "image_size": config.image_px,
        "layers": config.vision_layers,
        "width": config.vision_width,
        "head_width": config.vision_head_width,
        "patch_size": config.patch_px,
    }
    assert text == {
        "context_length": 77,
        "vocab_size": config.vocabulary,
        "width": config.text_width,
        "heads": config.text_heads,
        "layers": config.text_layers,
    }


def test_tensors_that_only_number_positions_are_left_out() -> None:
    state = random_weights(TINY)
    named = as_hugging_face(state)
    named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    named["vision_model.embeddings.position_ids"] = torch.arange(730)[None]
    assert len(load_clip(named, config=TINY).state_dict()) == len(state)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("missing", "1 tensor missing: ln_final.bias"),
        ("unknown", "1 tensor unknown: visual.surplus"),
        ("misshaped", r"1 tensor misshaped: positional_embedding \(78x64 for 77x64\)"),
        ("nan", "1 tensor not finite: visual.transformer.resblocks.1.mlp.c_fc.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(kind: str, named: str) -> None:
    state = random_weights(TINY)
    if kind == "missing":
        del state["ln_final.bias"]
    elif kind == "unknown":
        state["visual.surplus"] = torch.zeros(1)
    elif kind == "misshaped":
        state["positional_embedding"] = torch.zeros(78, 64)
    else:
        state["visual.transformer.resblocks.1.mlp.c_fc.weight"][0, 0] = torch.nan
    with pytest.raises(BadWeights, match=named):
        load_clip(state, config=TINY)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("missing", f"1 tensor missing: {QUERIES}"),
        ("unknown", "1 tensor unknown: vision_model.surplus"),
        ("misshaped", r"q_proj.weight, .*k_proj.weight, .* have the shapes \(63, 64\), \(64, 64\)"),
        ("nan", "1 tensor not finite: transformer.resblocks.1.attn.in_proj_weight"),
    ],
)
def test_a_checkpoint_of_hugging_face_that_does_not_fit_is_refused(kind: str, named: str) -> None:
    state = as_hugging_face(random_weights(TINY))
    if kind == "missing":
        del state[QUERIES]
    elif kind == "unknown":
        state["vision_model.surplus"] = torch.zeros(1)
    elif kind == "misshaped":
        state[QUERIES] = torch.zeros(63, 64)
    else:
        state[QUERIES][5, 5] = torch.inf
    with pytest.raises(BadWeights, match=named):
        load_clip(state, config=TINY)


def test_prepare_scales_and_normalises_each_colour(tiny: Clip) -> None:
    frames = torch.tensor([0, 127, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 384, 384)
    found = tiny.prepare(frames)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = [[(value / 255 - mean[c]) / std[c] for c in range(3)] for value in (0, 127, 255)]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, :, 5, 7], torch.tensor(expected))
    assert torch.equal(tiny.prepare(frames[None]), found[None])


def test_pictures_may_be_given_as_bytes_or_prepared(tiny: Clip) -> None:
    frames = random_frames(2)
    assert torch.equal(tiny.encode_image(frames), tiny.encode_image(tiny.prepare(frames)))


def test_the_last_six_rows_and_columns_are_not_seen(tiny: Clip) -> None:
    frames = random_frames(1)
    changed = frames.clone()
    changed[:, :, 378:] = changed[:, :, :, 378:] = 0
    assert torch.equal(tiny.encode_image(changed), tiny.encode_image(frames))
    changed[:, :, 377] = 0
    assert not torch.equal(tiny.encode_image(changed), tiny.encode_image(frames))


def test_a_token_sees_only_what_is_before_it(tiny: Clip) -> None:
    ids = tokenize(["a dog barks"])
    changed = ids.clone()
    changed[0, 40] = 400
    before, after = tiny.encode_text(ids), tiny.encode_text(changed)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


def test_tiny_network_has_the_shapes_of_the_real_one(tiny: Clip) -> None:
    pictures, texts = tiny.encode_image(random_frames(2)), tiny.encode_text(tokenize(["", "two words"]))
    assert pictures.shape == (2, 1024)
    assert texts.shape == (2, 77, 1024)
    for features in (pictures, texts):
        assert not features.requires_grad
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(features.shape[:-1]))


def test_input_and_weights_are_left_as_they_were(tiny: Clip) -> None:
    frames, ids = tiny.prepare(random_frames(1)), random_ids(1)
    before = [tensor.clone() for tensor in (frames, ids, *tiny.state_dict().values())]
    tiny.encode_image(frames)
    tiny.encode_text(ids)
    after = (frames, ids, *tiny.state_dict().values())
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_other_shapes_are_refused(tiny: Clip) -> None:
    for shape in [(2, 3, 378, 378), (3, 384, 384), (2, 384, 384, 3)]:
        with pytest.raises(UsageProblem, match=r"expected \(pictures, 3, 384, 384\)"):
            tiny.encode_image(torch.zeros(shape))
    for shape in [(77,), (2, 76)]:
        with pytest.raises(UsageProblem, match=r"expected \(texts, 77\)"):
            tiny.encode_text(torch.zeros(shape, dtype=torch.int64))


def test_in_bf16_every_feature_keeps_its_direction(state: dict[str, Tensor], shallow: Clip) -> None:
    half = load_clip(state, config=SHALLOW).to(torch.bfloat16)
    frames, ids = random_frames(2), random_ids(4)
    assert half.prepare(frames).dtype == torch.bfloat16
    for found, expected in [
        (half.encode_image(frames), shallow.encode_image(frames)),
        (half.encode_text(ids), shallow.encode_text(ids)),
    ]:
        assert torch.cosine_similarity(found.float(), expected, dim=-1).min() >= 0.999


@pytest.mark.soak
@pytest.mark.parametrize("part", ["text", "picture"])
def test_in_bf16_every_feature_keeps_its_direction_through_all_layers(part: str) -> None:
    config = (
        ClipConfig(vision_layers=1) if part == "text" else ClipConfig(text_layers=1, vocabulary=1000)
    )
    network = load_clip(random_weights(config), config=config)
    if part == "text":
        given = tokenize(["", "rain on a tin roof, then thunder far away"])
        expected = network.encode_text(given)
        found = network.to(torch.bfloat16).encode_text(given)
    else:
        given = random_frames(1)
        expected = network.encode_image(given)
        found = network.to(torch.bfloat16).encode_image(given)
    assert torch.cosine_similarity(found.float(), expected, dim=-1).min() >= 0.999
