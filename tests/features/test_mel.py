"""Log-mel spectrograms: golden file, and the definition written out in NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import close
from safetensors.torch import load_file

from curation.errors import UsageProblem
from features.encoders.mel import mel_spectrogram
from features.spec import SequenceSpec, audio_spec


def slaney_filterbank(rate: int, fft: int, mels: int, low: float, high: float) -> np.ndarray:
    """Triangles on Slaney's scale, linear to 1 kHz and logarithmic above, each of area one; (M, F)."""

    def to_mel(hz: np.ndarray) -> np.ndarray:
        above = 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
        return np.where(hz < 1000, hz * 3 / 200, above)

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))

    edges = to_hz(np.linspace(*to_mel(np.array([low, high])), mels + 2))
    frequencies = np.arange(fft // 2 + 1) * rate / fft
    bank = np.zeros((mels, len(frequencies)))
    for m in range(mels):
        left, centre, right = edges[m : m + 3]
        up, down = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
        bank[m] = np.maximum(0, np.minimum(up, down)) * 2 / (right - left)
    return bank


def by_definition(wave: np.ndarray, rate: int) -> np.ndarray:
    """Frame after frame in float64, by the sum of a Fourier transform; (M, T)."""
    fft, hop, mels, high = {16000: (1024, 256, 80, 8000), 44100: (2048, 512, 128, 22050)}[rate]
    pad = (fft - hop) // 2
    padded = np.pad(np.clip(wave.astype(np.float64), -1, 1), pad, mode="reflect")
    time = np.arange(fft)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * time / fft)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(fft // 2 + 1), time) / fft)
    frames = [padded[at : at + fft] * window for at in range(0, len(padded) - fft + 1, hop)]
    magnitude = np.sqrt(np.abs(waves @ np.array(frames).T) ** 2 + 1e-9)
    mel = np.maximum(slaney_filterbank(rate, fft, mels, 0, high) @ magnitude, 1e-5)
    return np.log10(mel) if rate == 16000 else np.log(mel)


def noise(num_samples: int, loudness: float = 0.3) -> torch.Tensor:
    return torch.randn(1, num_samples, generator=torch.Generator().manual_seed(3)) * loudness


@pytest.mark.shared
def test_spectrogram_is_that_of_the_golden_file(shared_golden: Path) -> None:
    golden = load_file(shared_golden / "mel_16k.safetensors")
    mel = mel_spectrogram(golden["wave"], 16000)
    assert close(mel, golden["logmel"], 1e-3)
    assert close(
        mel[:1], golden["logmel"][:1], 1e-5
    )  # the other is silence with rounding errors in part


@pytest.mark.shared
def test_oracle_has_the_filterbank_of_the_golden_file(shared_golden: Path) -> None:
    golden = load_file(shared_golden / "mel_16k.safetensors")
    assert close(
        torch.from_numpy(slaney_filterbank(16000, 1024, 80, 0, 8000)), golden["mel_basis"], 1e-5
    )


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("loudness", [0.3, 3.0])
def test_spectrogram_is_what_the_definition_says(rate: int, loudness: float) -> None:
    wave = noise(12 * audio_spec(rate).hop_samples, loudness)
    expected = torch.from_numpy(by_definition(wave[0].numpy(), rate))
    assert close(mel_spectrogram(wave, rate)[0].double(), expected, 1e-5)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_silence_is_the_logarithm_of_the_floor(rate: int) -> None:
    # the root of 1e-9 times the area of a filter lies above the floor in no filter of either rate
    mel = mel_spectrogram(torch.zeros(1, 20 * audio_spec(rate).hop_samples), rate)
    expected = torch.from_numpy(by_definition(np.zeros(20 * audio_spec(rate).hop_samples), rate))
    torch.testing.assert_close(mel[0].double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_eight_seconds_give_two_frames_for_every_latent(rate: int) -> None:
    spec = SequenceSpec(sample_rate_hz=rate)
    mel = mel_spectrogram(noise(spec.num_samples).expand(2, -1), rate)
    assert mel.shape == (2, spec.audio.num_mels, 2 * spec.num_latents)
    assert mel.dtype == torch.float32
    assert torch.equal(mel[0], mel[1])


def test_autocast_changes_nothing() -> None:
    wave = noise(8192)
    with torch.autocast("cpu", torch.bfloat16):
        mel = mel_spectrogram(wave, 16000)
    assert torch.equal(mel, mel_spectrogram(wave, 16000))


def test_a_first_call_in_inference_mode_leaves_later_ones_differentiable() -> None:
    with torch.inference_mode():
        mel_spectrogram(noise(8192), 44100)
    wave = noise(8192).requires_grad_()
    mel_spectrogram(wave, 44100).sum().backward()
    assert wave.grad is not None
    assert bool(torch.isfinite(wave.grad).all())


def test_another_rate_is_refused() -> None:
    with pytest.raises(UsageProblem, match="sample rate 48000 Hz"):
        mel_spectrogram(noise(8192), 48000)
