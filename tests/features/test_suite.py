"""The encoders together: shapes, bytes that depend on nothing else, and how far bf16 is from fp32."""

# ruff: noqa: E501 - the cases are a table: a line each reads better than three

import functools
import hashlib
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from weight_files import saved

import features.encoders.synchformer
import features.weights.published
from curation.errors import BadWeights, UsageProblem, WrongWeights
from features.encoders.synchformer import TINY, Synchformer
from features.extraction.suite import Suite, default_precision, load_suite
from features.spec import SequenceSpec
from features.weights.published import PARTS, WeightChoice, encoder_files
from features.weights.untrained import untrained_state

CAPTIONS = ["a dog barks twice", "", "rain on a tin roof " * 30]


@functools.cache
def _suite(sample_rate_hz: int = 44100, precision: str = "fp32", seed: int = 0) -> Suite:
    weights = WeightChoice(untrained_seed=seed, tiny=True)
    return load_suite(weights, sample_rate_hz=sample_rate_hz, precision=precision)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _waves(count: int, sample_rate_hz: int = 44100, duration_s: float = 8.0) -> Tensor:
    """Noise that grows, with silence at its beginning."""
    samples = SequenceSpec(sample_rate_hz=sample_rate_hz, duration_s=duration_s).num_samples
    generator = torch.Generator().manual_seed(1)
    waves_bs = 0.3 * torch.randn(count, samples, generator=generator) * torch.linspace(-0.3, 1, samples)
    return waves_bs.where(torch.linspace(-0.3, 1, samples) > 0, 0).clamp(-1, 1)


def _frames(count: int, times: int, side_px: int) -> Tensor:
    """Pictures of large coloured fields that move, with noise upon them."""
    generator = torch.Generator().manual_seed(2)
    fields = torch.rand(count, times, 3, 6, 6, generator=generator).mul(200).flatten(0, 1)
    large = functional.interpolate(fields, side_px, mode="bilinear")
    noise = torch.randint(0, 50, large.shape, generator=generator)
    return (large + noise).to(torch.uint8).unflatten(0, (count, times))


def _all(suite: Suite, count: int = 1, times: int = 4) -> dict[str, Tensor]:
    """What every encoder of the suite gives of a little of everything."""
    given = {}
    if "vae" in suite.identity:
        given["mean"], given["std"] = suite.encode_audio(_waves(count, suite.sample_rate_hz))
    if "clip" in suite.identity:
        given["clip"] = suite.encode_clip(_frames(count, times, 384))
        given["text"] = suite.encode_text(CAPTIONS[:count])
    if "synchformer" in suite.identity:
        given["sync"] = suite.encode_sync(_frames(count, 24, 224))
    return given


# ---- shapes and bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize(("sample_rate_hz", "latents"), [(16000, (250, 20)), (44100, (345, 40))])
def test_features_of_eight_seconds_have_their_shapes(
    sample_rate_hz: int, latents: tuple[int, int]
) -> None:
    suite = _suite(sample_rate_hz)
    mean, std = suite.encode_audio(_waves(2, sample_rate_hz))
    clip = suite.encode_clip(_frames(1, 64, 384))
    sync = suite.encode_sync(_frames(1, 200, 224))
    text = suite.encode_text(CAPTIONS)
    assert mean.shape == std.shape == (2, *latents)
    assert clip.shape == (1, 64, 1024)
    assert sync.shape == (1, 192, 768)
    assert text.shape == (3, 77, 1024)
    for features_of_all in (mean, std, clip, sync, text):
        assert features_of_all.dtype == torch.bfloat16
        assert features_of_all.device.type == "cpu"
        assert not features_of_all.requires_grad
        assert torch.isfinite(features_of_all).all()
    assert (std > 0).all()
    torch.testing.assert_close(clip.float().norm(dim=-1), torch.ones(1, 64), rtol=0, atol=0.01)
    torch.testing.assert_close(text.float().norm(dim=-1), torch.ones(3, 77), rtol=0, atol=0.01)


def test_ten_seconds_give_more_of_everything() -> None:
    suite, spec = _suite(16000), SequenceSpec(sample_rate_hz=16000, duration_s=10.0)
    mean, _ = suite.encode_audio(_waves(1, 16000, 10.0))
    sync = suite.encode_sync(_frames(1, spec.num_sync_frames, 224))
    clip = suite.encode_clip(_frames(1, spec.num_clip_frames, 384))
    assert mean.shape[1] == spec.num_latents == 313
    assert sync.shape[1] == spec.num_sync_features == 240
    assert clip.shape[1] == spec.num_clip_frames == 80


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_clip_gives_the_same_bytes_alone_and_among_others(precision: str) -> None:
    suite = _suite(precision=precision)
    waves_bs, clip_btchw, sync_btchw = _waves(3), _frames(3, 11, 384), _frames(3, 40, 224)
    together = (*suite.encode_audio(waves_bs), suite.encode_clip(clip_btchw),
                suite.encode_sync(sync_btchw), suite.encode_text(CAPTIONS))  # fmt: skip
    for i in (2, 0, 1):
        row = slice(i, i + 1)
        alone = (*suite.encode_audio(waves_bs[row]), suite.encode_clip(clip_btchw[row]),
                 suite.encode_sync(sync_btchw[row]), suite.encode_text([CAPTIONS[i]]))  # fmt: skip
        for of_one, of_all in zip(alone, together, strict=True):
            assert torch.equal(of_one[0], of_all[i])


def test_another_suite_of_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    first, other = _all(_suite()), _all(_suite(seed=1))
    _suite.cache_clear()
    for name, again in _all(_suite()).items():
        assert torch.equal(first[name], again), name
        assert not torch.equal(first[name], other[name]), name


def test_features_follow_what_goes_in() -> None:
    suite = _suite()
    mean, _ = suite.encode_audio(_waves(2))
    assert not torch.equal(mean[0], mean[1])
    clip = suite.encode_clip(_frames(1, 2, 384))
    assert not torch.equal(clip[0, 0], clip[0, 1])
    text = suite.encode_text(["a dog", "a cat"])
    assert torch.equal(text[0, :2], text[1, :2])  # causal: what comes before the difference
    assert not torch.equal(text[0, 2], text[1, 2])


# ---- precision ------------------------------------------------------------------------------------


def _assert_near(exact: dict[str, Tensor], rounded: dict[str, Tensor]) -> None:
    """Cosine >= 0.999 between each row of each output, and hardly less between its vectors."""
    assert exact.keys() == rounded.keys()
    for name, features_b in exact.items():
        one, other = features_b.float(), rounded[name].float()
        rows = functional.cosine_similarity(one.flatten(1), other.flatten(1))
        vectors = functional.cosine_similarity(one, other, dim=-1)
        assert rows.min() >= 0.999, f"{name}: {rows.min():.6f}"
        assert vectors.min() >= 0.998, f"{name}: {vectors.min():.6f}"


@pytest.mark.parametrize("sample_rate_hz", [16000, 44100])
def test_bf16_is_near_fp32_in_every_output(sample_rate_hz: int) -> None:
    _assert_near(_all(_suite(sample_rate_hz), 2), _all(_suite(sample_rate_hz, "bf16"), 2))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("part", "sample_rate_hz"), [("vae", 16000), ("vae", 44100), ("synchformer", 44100), ("clip", 44100)]
)
def test_bf16_is_near_fp32_at_full_size(part: str, sample_rate_hz: int) -> None:
    torch.set_num_threads(2)
    fp32, bf16 = (
        _all(load_suite(WeightChoice(untrained_seed=0), sample_rate_hz=sample_rate_hz,
                        precision=precision, parts=(part,)), times=1)
        for precision in ("fp32", "bf16")
    )  # fmt: skip
    _assert_near(fp32, bf16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("sample_rate_hz", [16000, 44100])
def test_a_gpu_gives_what_a_cpu_gives(sample_rate_hz: int) -> None:
    weights = WeightChoice(untrained_seed=0, tiny=True)
    suites = [load_suite(weights, sample_rate_hz=sample_rate_hz, device=d) for d in ("cpu", "cuda")]
    assert [suite.precision for suite in suites] == ["fp32", "bf16"]
    _assert_near(*(_all(suite, count=2) for suite in suites))


def test_the_default_precision_is_that_of_the_device() -> None:
    assert default_precision("cpu") == "fp32"
    assert default_precision("cuda:1") == "bf16"


# ---- which weights --------------------------------------------------------------------------------


def test_identity_says_what_the_encoders_are() -> None:
    assert _suite().identity == dict.fromkeys(PARTS, "untrained:0:tiny")


def test_a_part_that_is_not_asked_for_is_not_built() -> None:
    weights = WeightChoice(untrained_seed=0, tiny=True)
    suite = load_suite(weights, sample_rate_hz=16000, parts=("vae",))
    assert suite.identity == {"vae": "untrained:0:tiny"}
    suite.encode_audio(_waves(1, 16000))
    for call in (lambda: suite.encode_text([""]), lambda: suite.encode_clip(_frames(1, 1, 384))):
        with pytest.raises(AssertionError, match="the suite was loaded without CLIP"):
            call()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "mps"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    said = rf"device {device}: not there, expected cpu or one of the .* — give others with --devices"
    with pytest.raises(UsageProblem, match=said):
        load_suite(WeightChoice(untrained_seed=0, tiny=True), sample_rate_hz=16000, device=device)


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(UsageProblem, match="precision fp16, expected one of fp32, bf16"):
        load_suite(WeightChoice(untrained_seed=0, tiny=True), sample_rate_hz=16000, precision="fp16")


def test_no_encoder_touches_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    _all(load_suite(WeightChoice(untrained_seed=5, tiny=True), sample_rate_hz=16000))


# ---- from a file, through all of it ---------------------------------------------------------------

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@pytest.fixture
def from_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], Suite]:
    """Loads Synchformer, in its tiny size, from a published file with changed tensors."""
    monkeypatch.setattr(features.encoders.synchformer, "SynchformerConfig", lambda: TINY)

    def load(change: Change) -> Suite:
        with torch.device("meta"):
            shapes = Synchformer(TINY).state_dict()
        state = {f"vfeat_extractor.{name}": t for name, t in untrained_state(shapes, 0).items()}
        content = saved(change(state))
        files = encoder_files(44100)
        md5 = hashlib.md5(content).hexdigest()
        file = replace(files["synchformer"], md5=md5, num_values=len(content) // 4)
        monkeypatch.setattr(
            features.weights.published, "encoder_files", lambda _: files | {"synchformer": file}
        )
        monkeypatch.setattr(
            "features.extraction.suite.encoder_files", lambda _: files | {"synchformer": file}
        )
        (tmp_path / file.name).write_bytes(content)
        weights = WeightChoice(folder=tmp_path)
        return load_suite(weights, sample_rate_hz=44100, parts=("synchformer",))

    return load


def test_a_published_file_gives_what_its_tensors_give(from_file: Callable[[Change], Suite]) -> None:
    suite = from_file(lambda state: {**state, "transformer.off_head.bias": torch.zeros(21)})
    assert suite.identity["synchformer"].startswith("sha256:")
    frames = _frames(1, 24, 224)
    assert torch.equal(suite.encode_sync(frames), _suite().encode_sync(frames))


def _without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if "norm1.bias" not in name}


def _changed(name: str, tensor: Callable[[Tensor], Tensor]) -> Change:
    key = f"vfeat_extractor.{name}"
    return lambda state: {**state, key: tensor(state[key])}


BAD: dict[str, tuple[Change, str]] = {
    "missing": (_without, r"3 tensors missing: blocks\.0\.norm1\.bias, blocks\.1\.norm1\.bias, spatial"),
    "extra": (
        lambda state: {**state, "vfeat_extractor.blocks.2.norm1.bias": torch.zeros(64)},
        r"1 tensor unknown: blocks\.2\.norm1\.bias",
    ),
    "misshaped": (_changed("norm.weight", lambda t: t[:60]), r"1 tensor misshaped: norm\.weight \(60 for 64\)"),
    "NaN": (_changed("blocks.1.mlp.fc1.weight", lambda t: t.index_fill(0, torch.tensor(3), float("nan"))),
            r"1 tensor not finite: blocks\.1\.mlp\.fc1\.weight"),
    "whole numbers": (_changed("norm.bias", lambda t: t.int()), r"1 tensor of another type: norm\.bias \(int32\)"),
    "double": (_changed("norm.bias", lambda t: t.double()), r"of another type: norm\.bias \(float64\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_checkpoint_of_another_network_is_refused_with_its_names(
    case: str, from_file: Callable[[Change], Suite]
) -> None:
    change, message = BAD[case]
    with pytest.raises(BadWeights, match=message) as caught:
        from_file(change)
    assert not isinstance(caught.value, WrongWeights)
