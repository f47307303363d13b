"""The VAE: golden file at full size, the plain oracle at small sizes, layouts, precision, its point."""

import copy
from pathlib import Path

import pytest
import torch
from golden_weights import close, layout, weights
from plain_vae import PlainVae, plain_vae
from safetensors.torch import load_file
from torch import Tensor

from curation.errors import BadWeights, UsageProblem
from features.encoders.convolution import TimeConvolution
from features.encoders.mel import mel_spectrogram
from features.encoders.vae import Vae, VaeConfig, load_vae
from features.spec import SequenceSpec, audio_spec

RATES = [16000, 44100]
SMALL = 32  # width of a network of the full depth


def shapes_of(config: VaeConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Vae(config).state_dict().items()}


def random_weights(config: VaeConfig, *, scale: float = 1.0, seed: int = 0) -> dict[str, Tensor]:
    """Normal values; `scale` 1 keeps the magnitude of what goes through a plain convolution."""
    rng = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes_of(config).items():
        values = torch.randn(shape, generator=rng)
        if name.endswith("weight"):
            made[name] = values * scale / values[0].numel() ** 0.5
        else:
            made[name] = (0.1 * values).exp() if name == "data_std" else 0.1 * values
    return made


def small(rate: int) -> VaeConfig:
    return VaeConfig(sample_rate_hz=rate, width=SMALL)


def both(rate: int, state: dict[str, Tensor]) -> tuple[Vae, PlainVae]:
    spec = audio_spec(rate)
    sizes = (spec.num_mels, SMALL, spec.latent_channels)
    return load_vae(rate, state, config=small(rate)), plain_vae(rate, state, sizes=sizes)


def random_mel(rate: int, frames: int, batch: int = 1, seed: int = 1) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, audio_spec(rate).num_mels, frames, generator=rng)


def synthetic_sound(rate: int) -> Tensor:
    """Pink noise in bursts of other loudness, and a tone that rises; one clip of eight seconds."""
    num = SequenceSpec(sample_rate_hz=rate).num_samples
    rng = torch.Generator().manual_seed(5)
    time = torch.arange(num) / rate
    spectrum = torch.fft.rfft(torch.randn(num, generator=rng)) / torch.arange(1, num // 2 + 2).sqrt()
    pink = torch.fft.irfft(spectrum, num)
    loudness = (torch.rand(32, generator=rng) ** 2).repeat_interleave(num // 32 + 1)[:num]
    wave = 0.7 * loudness * pink / pink.abs().max() + 0.2 * torch.sin(
        2 * torch.pi * (200 + 100 * time) * time
    )
    return wave.clamp(-1, 1)[None]


def cosine(found: Tensor, expected: Tensor) -> float:
    return float(torch.cosine_similarity(found.double().flatten(), expected.double().flatten(), dim=0))


@pytest.fixture(scope="module")
def golden(shared_golden: Path) -> dict[str, Tensor]:
    return load_file(shared_golden / "vae_16k.safetensors")


@pytest.fixture(scope="module")
def golden_vae(shared_golden: Path, shared_spec: Path) -> Vae:
    """The full network of 16 kHz with the weights of the golden file."""
    return load_vae(16000, weights(shared_golden, layout(shared_spec, "vae_16k")))


@pytest.mark.slow
@pytest.mark.shared
def test_full_network_gives_what_the_golden_file_holds(
    golden_vae: Vae, golden: dict[str, Tensor]
) -> None:
    with torch.inference_mode():
        mean, std = golden_vae.encode(golden["mel"])
        _, logvar = golden_vae.posterior(golden["mel"])
        decoded = golden_vae.decode(golden["z"].mT)
        reconstruction = golden_vae.decode(mean)
    assert close(mean.mT, golden["mean"], 1e-5)  # ten times closer than asked for
    assert close(std.mT, golden["std"], 1e-5)
    assert close(logvar.mT, golden["logvar"], 1e-5)
    assert close(decoded, golden["decoded"], 1e-5)
    assert close(reconstruction, golden["reconstruction"], 3e-5)


@pytest.mark.slow
@pytest.mark.shared
def test_golden_file_without_normalisation(golden_vae: Vae, golden: dict[str, Tensor]) -> None:
    kept = golden_vae.data_mean, golden_vae.data_std
    golden_vae.data_mean, golden_vae.data_std = torch.zeros_like(kept[0]), torch.ones_like(kept[1])
    try:
        with torch.inference_mode():
            assert close(golden_vae.encode(golden["mel"])[0].mT, golden["mean_nonorm"], 1e-5)
            assert close(golden_vae.decode(golden["z"].mT), golden["decoded_nonorm"], 1e-5)
    finally:
        golden_vae.data_mean, golden_vae.data_std = kept


@pytest.mark.slow
@pytest.mark.shared
def test_effective_weights_are_those_of_the_golden_file(
    golden_vae: Vae, golden: dict[str, Tensor]
) -> None:
    assert close(golden_vae.encoder.conv_in.weight[:4], golden["conv_in_eff_head"], 1e-6)


@pytest.mark.shared
@pytest.mark.parametrize(("rate", "name", "parameters"), [
    (16000, "vae_16k", 171_657_218), (44100, "vae_44k", 305_479_682),
])  # fmt: skip
def test_layout_is_that_of_the_released_file(
    shared_spec: Path, rate: int, name: str, parameters: int
) -> None:
    shapes = shapes_of(VaeConfig.published(rate))
    assert shapes == layout(shared_spec, name)
    with torch.device("meta"):
        assert sum(p.numel() for p in Vae(VaeConfig.published(rate)).parameters()) == parameters


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("frames", "batch"), [(64, 2), (2, 1), (18, 3)])
def test_both_ways_are_what_the_plain_network_gives(rate: int, frames: int, batch: int) -> None:
    vae, plain = both(rate, random_weights(small(rate), scale=1.7))
    mel = random_mel(rate, frames, batch)
    mean, std = vae.encode(mel)
    expected_mean, expected_std, _ = plain.encode(mel)
    assert mean.shape == (batch, frames // 2, audio_spec(rate).latent_channels)
    assert close(mean.mT, expected_mean, 1e-5)
    assert close(std.mT, expected_std, 1e-5)
    assert close(vae.decode(mean), plain.decode(expected_mean), 1e-5)


def test_the_ways_of_the_product_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, _ = both(44100, random_weights(small(44100)))
    mel = random_mel(44100, 40, 2)
    packed, _ = vae.encode(mel)
    with_gradient, _ = vae.encode(mel.clone().requires_grad_())
    monkeypatch.setattr("features.encoders.convolution.has_fused", lambda dtype: False)
    ordinary, _ = vae.encode(mel)
    assert close(packed, ordinary, 1e-5)
    assert close(with_gradient.detach(), ordinary, 1e-5)
    assert with_gradient.requires_grad


def test_gradients_pass_through_both_ways() -> None:
    vae, plain = both(16000, random_weights(small(16000)))
    grads = []
    for way in (
        lambda mel: vae.decode(vae.encode(mel)[0]),
        lambda mel: plain.decode(plain.encode(mel)[0]),
    ):
        mel = random_mel(16000, 16).requires_grad_()
        way(mel).square().mean().backward()
        assert mel.grad is not None
        grads.append(mel.grad)
    assert close(grads[0], grads[1], 1e-4)


def test_a_clip_is_the_same_alone_and_in_a_batch_up_to_rounding() -> None:
    vae, _ = both(16000, random_weights(small(16000)))
    mel = random_mel(16000, 64, 3)
    together, _ = vae.encode(mel)
    for i in range(3):
        assert close(vae.encode(mel[i : i + 1])[0][0], together[i], 1e-5)


def test_the_same_call_gives_the_same_bytes() -> None:
    vae, _ = both(16000, random_weights(small(16000)))
    mel = random_mel(16000, 64, 2)
    first, _ = vae.encode(mel)
    again, _ = copy.deepcopy(vae).encode(mel)
    assert torch.equal(first, vae.encode(mel)[0])
    assert torch.equal(first, again)


def test_bytes_do_not_depend_on_what_was_computed_first() -> None:
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(512, 512, 3, generator=rng)
    x = torch.randn(1, 300, 512, generator=rng)
    outputs = []
    for first in (1, 8, 300):
        conv = TimeConvolution(512, 512, 3)
        conv.set_weight(weight)
        conv(x[:, :first])
        outputs.append(conv(x))
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[2])


@pytest.mark.parametrize("rate", RATES)
def test_a_loud_end_gives_no_extreme_latents(rate: int) -> None:
    """What the magnitude-preserving design is for: the same weights without it give them.

    The last frames are twenty times as loud. Without the design they are forty times as large as the
    others wherever attention has not spread them over all; with it nothing is seen of them in magnitude.
    """
    state = random_weights(small(rate)) | {"encoder.learnable_gain": torch.zeros(())}
    spec = audio_spec(rate)
    vae, _ = both(rate, state)
    ordinary = plain_vae(
        rate, state, sizes=(spec.num_mels, SMALL, spec.latent_channels), preserving=False
    )
    mel = random_mel(rate, 1000)
    loud = mel.clone()
    loud[..., -24:] *= 20
    with torch.inference_mode():
        even, ours, theirs_even, theirs = (
            latents.square().mean(dim=1).sqrt()[0]  # by time step
            for latents in (
                vae.encode(mel)[0].mT, vae.encode(loud)[0].mT,
                ordinary.encode(mel)[0], ordinary.encode(loud)[0],
            )
        )  # fmt: skip
    assert theirs_even.max() < 2.5  # the weights as such are tame
    assert theirs[-12:].max() > 20
    assert ours[-12:].max() < 2
    assert ours.max() < 1.1 * even.max()


def test_magnitudes_of_weights_change_nothing() -> None:
    # large ones, beside which the constant that keeps from dividing by zero is not seen
    mel = random_mel(16000, 64)
    (expected, _), (found, _) = (
        both(16000, random_weights(small(16000), scale=scale))[0].encode(mel)
        for scale in (100.0, 1000.0)
    )
    assert close(found, expected, 1e-3)


@pytest.mark.parametrize("rate", RATES)
def test_half_precision_stays_close_to_float32(rate: int) -> None:
    state = random_weights(VaeConfig(sample_rate_hz=rate, width=96))
    vae = load_vae(rate, state, config=VaeConfig(sample_rate_hz=rate, width=96))
    mel = mel_spectrogram(synthetic_sound(rate), rate)
    with torch.inference_mode():
        mean, std = vae.encode(mel)
        decoded = vae.decode(mean)
        vae.to(torch.bfloat16)
        half_mean, half_std = vae.encode(mel)
        half_decoded = vae.decode(mean)
    assert half_mean.dtype == half_std.dtype == half_decoded.dtype == torch.float32
    assert vae.data_mean.dtype == torch.float32
    for found, expected in ((half_mean, mean), (half_std, std), (half_decoded, decoded)):
        assert not torch.equal(found, expected)
        assert cosine(found, expected) >= 0.999


def test_autocast_is_as_close() -> None:
    vae, _ = both(16000, random_weights(small(16000)))
    mel = mel_spectrogram(synthetic_sound(16000), 16000)
    with torch.inference_mode():
        mean, std = vae.encode(mel)
        with torch.autocast("cpu", torch.bfloat16):
            half_mean, half_std = vae.encode(mel)
    assert half_mean.dtype == torch.float32
    assert cosine(half_mean, mean) >= 0.999
    assert cosine(half_std, std) >= 0.999


@pytest.mark.parametrize("rate", RATES)
def test_tiny_network_has_inputs_and_outputs_of_the_full_one(rate: int) -> None:
    spec = SequenceSpec(sample_rate_hz=rate)
    config = VaeConfig.tiny(rate)
    vae = load_vae(rate, random_weights(config), config=config)
    mean, std = vae.encode(random_mel(rate, spec.num_mel_frames))
    assert mean.shape == std.shape == (1, spec.num_latents, spec.audio.latent_channels)
    assert vae.decode(mean).shape == (1, spec.audio.num_mels, spec.num_mel_frames)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("encoder.mid.attn_1.qkv.weight"), "1 tensor missing: encoder.mid.attn_1.qkv"),
        (lambda s: s.pop("data_mean"), "missing: data_mean"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 tensor unknown: extra"),
        (
            lambda s: s.update({"decoder.conv_in.weight": torch.zeros(2, 2, 3)}),
            "misshaped: decoder.conv_in",
        ),
        (lambda s: s["encoder.conv_in.weight"].fill_(float("nan")), "not finite: encoder.conv_in"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(spoil, message) -> None:  # type: ignore[no-untyped-def]
    state = random_weights(small(16000))
    spoil(state)
    with pytest.raises(BadWeights, match=message):
        load_vae(16000, state, config=small(16000))


def test_loading_leaves_the_state_dict_as_it_is() -> None:
    state = random_weights(small(16000))
    before = {name: tensor.clone() for name, tensor in state.items()}
    load_vae(16000, state, config=small(16000)).encode(random_mel(16000, 8))
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_there_is_no_vae_of_another_rate() -> None:
    with pytest.raises(UsageProblem, match="sample rate 22050 Hz"):
        load_vae(22050, {})
