"""The vocoders: golden file at 16 kHz, an oracle written out here at 44.1 kHz, layouts and spellings."""

import math
from pathlib import Path

import pytest
import torch
from golden_weights import close, layout, weights
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from curation.errors import BadWeights, UsageProblem
from features.encoders.vocoder import Vocoder, VocoderConfig, load_vocoder
from features.encoders.vocoder_blocks import lowpass_filter
from features.spec import SequenceSpec, audio_spec

RATES = [16000, 44100]
SMALL = 64  # channels before the first of six stages; one is left after the last
BOUND = {16000: torch.tanh, 44100: lambda wave: wave.clamp(-1, 1)}
STAGES = {16000: [(4, 8), (4, 8), (2, 4), (2, 4), (2, 4), (2, 4)],
          44100: [(8, 16), (4, 8), (2, 4), (2, 4), (2, 4), (2, 4)]}  # fmt: skip


def small(rate: int) -> VocoderConfig:
    full = VocoderConfig.published(rate)
    return VocoderConfig(
        sample_rate_hz=rate, strides=full.strides, taps=full.taps, channels=SMALL,
        last_bias=full.last_bias, bound=full.bound,
    )  # fmt: skip


def shapes_of(config: VocoderConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Vocoder(config).state_dict().items()}


def random_weights(config: VocoderConfig) -> dict[str, Tensor]:
    """Without the constant filters."""
    rng = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in shapes_of(config).items():
        values = torch.randn(shape, generator=rng)
        if name.endswith("weight_g"):
            made[name] = 0.8 * (1 + 0.1 * values)
        elif not name.endswith("filter"):
            made[name] = values * 0.1
    return made


def random_mel(rate: int, frames: int, batch: int = 1) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(batch, audio_spec(rate).num_mels, frames, generator=rng)


def written_out_filter() -> Tensor:
    """The twelve taps in float64, the window by the series of the Bessel function."""

    def bessel(x: float) -> float:
        return sum((x / 2) ** (2 * k) / math.factorial(k) ** 2 for k in range(40))

    attenuation = 2.285 * 5 * math.pi * 1.2 + 7.95
    assert attenuation > 50
    beta = 0.1102 * (attenuation - 8.7)
    taps = []
    for n in range(12):
        t = n - 5.5
        window = bessel(beta * math.sqrt(1 - (t / 5.5) ** 2)) / bessel(beta)
        taps.append(0.5 * window * math.sin(math.pi * t / 2) / (math.pi * t / 2))
    return torch.tensor(taps, dtype=torch.float64) / sum(taps)


def written_out_activation(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Sample by sample from the sums: zeros between samples, ends repeated; (C, S) in float64."""
    taps, num = written_out_filter(), x.shape[-1]
    padded = torch.cat([x[:, :1].expand(-1, 5), x, x[:, -1:].expand(-1, 5)], dim=1)
    doubled = torch.zeros(x.shape[0], 2 * padded.shape[1] + 10, dtype=torch.float64)
    for i in range(padded.shape[1]):
        doubled[:, 2 * i : 2 * i + 12] += 2 * padded[:, i : i + 1] * taps
    doubled = doubled[:, 15 : 15 + 2 * num]
    a, b = alpha.double().exp()[:, None], beta.double().exp()[:, None]
    doubled = doubled + torch.sin(a * doubled) ** 2 / (b + 1e-9)
    padded = torch.cat([doubled[:, :1].expand(-1, 5), doubled, doubled[:, -1:].expand(-1, 6)], dim=1)
    return torch.stack([(padded[:, 2 * m : 2 * m + 12] * taps).sum(dim=1) for m in range(num)], dim=1)


def written_out_vocoder(rate: int, state: dict[str, Tensor], mel: Tensor) -> Tensor:
    """The whole generator in float64 from the entries of a state dict, a clip (M, T) → (S,)."""

    def weight(name: str) -> Tensor:
        v = state[f"{name}.weight_v"].double()
        return state[f"{name}.weight_g"].double() * v / v.flatten(1).norm(dim=1)[:, None, None]

    def conv(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        w, bias = weight(name), state.get(f"{name}.bias")
        pad = (w.shape[-1] - 1) * dilation // 2
        padded = functional.pad(x, (pad, pad))
        taps = [padded[:, k * dilation : k * dilation + x.shape[1]] for k in range(w.shape[-1])]
        out = sum(w[:, :, k] @ tap for k, tap in enumerate(taps))
        return out if bias is None else out + bias.double()[:, None]

    def activation(name: str, x: Tensor) -> Tensor:
        return written_out_activation(x, state[f"{name}.act.alpha"], state[f"{name}.act.beta"])

    x = conv("conv_pre", mel.double())
    for stage, (stride, taps) in enumerate(STAGES[rate]):
        w, pad = weight(f"ups.{stage}.0"), (taps - stride) // 2
        longer = torch.zeros(w.shape[1], (x.shape[1] - 1) * stride + taps, dtype=torch.float64)
        for i in range(x.shape[1]):
            longer[:, i * stride : i * stride + taps] += torch.einsum("c,cok->ok", x[:, i], w)
        x = longer[:, pad : longer.shape[1] - pad] + state[f"ups.{stage}.0.bias"].double()[:, None]
        blocks = []
        for block in range(3):
            y, prefix = x, f"resblocks.{3 * stage + block}"
            for j, dilation in enumerate((1, 3, 5)):
                z = activation(f"{prefix}.activations.{2 * j}", y)
                z = conv(f"{prefix}.convs1.{j}", z, dilation)
                y = y + conv(f"{prefix}.convs2.{j}", activation(f"{prefix}.activations.{2 * j + 1}", z))
            blocks.append(y)
        x = sum(blocks) / 3
    return BOUND[rate](conv("conv_post", activation("activation_post", x)))[0]


@pytest.mark.slow
@pytest.mark.shared
def test_full_network_gives_what_the_golden_file_holds(shared_golden: Path, shared_spec: Path) -> None:
    golden = load_file(shared_golden / "bigvgan_16k.safetensors")
    vocoder = load_vocoder(16000, weights(shared_golden, layout(shared_spec, "bigvgan_16k")))
    with torch.inference_mode():
        wave = vocoder(golden["mel"])
        first = vocoder.resblocks[0].activations[0]
        activated = first(golden["act_in"])
    assert close(wave, golden["wave"][:, 0], 2e-5)  # ten times closer than asked for
    assert close(activated, golden["act_out"], 1e-6)
    assert torch.equal(first.upsample.filter, golden["up_filter"])
    assert torch.equal(first.downsample.lowpass.filter, golden["down_filter"])


@pytest.mark.shared
@pytest.mark.parametrize(("rate", "name", "parameters"), [
    (16000, "bigvgan_16k", 112_231_250), (44100, "bigvgan_v2_44k", 122_184_529),
])  # fmt: skip
def test_layout_is_that_of_the_released_file(
    shared_spec: Path, rate: int, name: str, parameters: int
) -> None:
    assert shapes_of(VocoderConfig.published(rate)) == layout(shared_spec, name)
    with torch.device("meta"):
        assert sum(p.numel() for p in Vocoder(VocoderConfig.published(rate)).parameters()) == parameters


@pytest.mark.parametrize("rate", RATES)
def test_sound_is_what_the_written_out_sums_give(rate: int) -> None:
    state = random_weights(small(rate))
    mel = random_mel(rate, 3, batch=2)
    wave = load_vocoder(rate, state, config=small(rate))(mel)
    assert wave.shape == (2, 3 * audio_spec(rate).hop_samples)
    assert close(wave[1].double(), written_out_vocoder(rate, state, mel[1]), 1e-5)


def test_filter_is_a_sinc_in_a_kaiser_window() -> None:
    torch.testing.assert_close(
        lowpass_filter().double().flatten(), written_out_filter(), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("rate", RATES)
def test_every_spelling_of_a_file_gives_the_same_sound(rate: int) -> None:
    state = random_weights(small(rate))
    mel = random_mel(rate, 3)
    expected = load_vocoder(rate, state, config=small(rate))(mel)

    newer = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in state.items()
    }
    with_filters = state | {
        name: lowpass_filter() for name in shapes_of(small(rate)) if name.endswith("filter")
    }
    wrapped = {"generator": state, "steps": 7}
    prefixed = {f"generator.{name}": tensor for name, tensor in state.items()}
    for spelling in (newer, with_filters, wrapped, {"generator": newer}, prefixed):
        assert torch.equal(load_vocoder(rate, spelling, config=small(rate))(mel), expected)


@pytest.mark.parametrize("rate", RATES)
def test_weights_that_are_folded_already_are_taken(rate: int) -> None:
    state = random_weights(small(rate))
    folded = {}
    for name, tensor in state.items():
        if name.endswith("weight_v"):
            norm = tensor.flatten(1).norm(dim=1)[:, None, None]
            folded[name.removesuffix("_v")] = tensor * state[name.removesuffix("v") + "g"] / norm
        elif not name.endswith("weight_g"):
            folded[name] = tensor
    mel = random_mel(rate, 3)
    expected = load_vocoder(rate, state, config=small(rate))(mel)
    assert close(load_vocoder(rate, folded, config=small(rate))(mel), expected, 1e-5)


def test_weights_of_zero_give_silence_not_nan() -> None:
    state = {name: torch.zeros_like(tensor) for name, tensor in random_weights(small(44100)).items()}
    assert bool((load_vocoder(44100, state, config=small(44100))(random_mel(44100, 2)) == 0).all())


@pytest.mark.parametrize("rate", RATES)
def test_sound_stays_within_one(rate: int) -> None:
    wave = load_vocoder(rate, random_weights(small(rate)), config=small(rate))(
        1000 * random_mel(rate, 4)
    )
    assert wave.abs().max() <= 1


@pytest.mark.parametrize("rate", RATES)
def test_tiny_network_has_inputs_and_outputs_of_the_full_one(rate: int) -> None:
    spec = SequenceSpec(sample_rate_hz=rate)
    config = VocoderConfig.tiny(rate)
    with torch.inference_mode():
        wave = load_vocoder(rate, random_weights(config), config=config)(
            random_mel(rate, spec.num_mel_frames)
        )
    assert wave.shape == (1, spec.num_samples)
    assert bool(torch.isfinite(wave).all())


def test_loading_leaves_the_state_dict_as_it_is() -> None:
    state = random_weights(small(16000))
    before = {name: tensor.clone() for name, tensor in state.items()}
    load_vocoder(16000, state, config=small(16000))(random_mel(16000, 2))
    assert list(state) == list(before)
    assert all(torch.equal(state[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("ups.0.0.weight_g"), "1 tensor missing: ups.0.0.weight_g"),
        (lambda s: s.update({"conv_post.bias": torch.zeros(1)}), "1 tensor unknown: conv_post.bias"),
        (lambda s: s.update({"conv_pre.bias": torch.zeros(3)}), "misshaped: conv_pre.bias"),
        (lambda s: s["conv_pre.bias"].fill_(float("inf")), "not finite: conv_pre.bias"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(spoil, message) -> None:  # type: ignore[no-untyped-def]
    state = random_weights(small(44100))
    spoil(state)
    with pytest.raises(BadWeights, match=message):
        load_vocoder(44100, state, config=small(44100))


def test_there_is_no_vocoder_of_another_rate() -> None:
    with pytest.raises(UsageProblem, match="sample rate 22050 Hz"):
        load_vocoder(22050, {})
