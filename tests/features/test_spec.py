"""The lengths of the features are the known ones."""

import pytest

from curation.errors import UsageProblem
from features.spec import SAMPLE_RATES_HZ, SequenceSpec, audio_spec


# Source: arXiv:2412.15322; MMAudio `sequence_config.py`@974010a and what its own asserts say.
@pytest.mark.parametrize(
    ("rate_hz", "duration_s", "latents", "samples", "clip", "sync"),
    [
        (16000, 8, 250, 128000, 64, 192),
        (44100, 8, 345, 353280, 64, 192),
        (16000, 4, 125, 64000, 32, 88),
        (16000, 10, 313, 160256, 80, 240),
        (44100, 10, 431, 441344, 80, 240),
    ],
)
def test_lengths_are_those_of_the_paper(
    rate_hz: int, duration_s: float, latents: int, samples: int, clip: int, sync: int
) -> None:
    spec = SequenceSpec(sample_rate_hz=rate_hz, duration_s=duration_s)
    assert (spec.num_latents, spec.num_samples) == (latents, samples)
    assert (spec.num_clip_frames, spec.num_sync_features) == (clip, sync)
    assert spec.num_mel_frames * spec.audio.hop_samples == spec.num_samples


@pytest.mark.parametrize("duration_s", [8, 10])
def test_features_of_the_paper_come_24_a_second(duration_s: float) -> None:
    assert SequenceSpec(sample_rate_hz=16000, duration_s=duration_s).sync_features_per_s == 24


def test_segments_are_those_that_a_count_finds() -> None:
    for tenths in range(7, 301):
        spec = SequenceSpec(sample_rate_hz=16000, duration_s=tenths / 10)
        frames = tenths / 10 * 25
        begins = [begin for begin in range(0, int(frames), 8) if begin + 16 <= frames]
        assert spec.num_segments == len(begins), tenths


def test_latents_cover_the_duration_and_no_more() -> None:
    for rate_hz in SAMPLE_RATES_HZ:
        for tenths in range(7, 301):
            spec = SequenceSpec(sample_rate_hz=rate_hz, duration_s=tenths / 10)
            missing = tenths / 10 * rate_hz - spec.num_samples
            assert -spec.audio.samples_per_latent < missing <= 1e-6, tenths


def test_rate_without_a_vae_is_refused() -> None:
    with pytest.raises(UsageProblem, match="48000 Hz, expected one that a VAE exists for"):
        audio_spec(48000)


@pytest.mark.parametrize("duration_s", [0, 0.6, float("nan"), 4000])
def test_duration_that_fills_no_segment_or_is_no_number_is_refused(duration_s: float) -> None:
    with pytest.raises(UsageProblem, match=r"expected 0\.64 to 3600 s"):
        SequenceSpec(sample_rate_hz=16000, duration_s=duration_s)
