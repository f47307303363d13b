"""Every rate, length and dimension of the features, once.

Lengths follow from a duration in seconds; 8 s and 10 s are those of the paper. Audio is counted in
samples, mel frames and latents:

    samples    ├─ hop ─┼─ hop ─┼─ hop ─┼─ hop ─┤
    mel frames │   0   │   1   │   2   │   3   │
    latents    │       0       │       1       │

Source: MMAudio `sequence_config.py`@974010a; arXiv:2412.15322, equations A3 and A4.
"""

import math
from dataclasses import dataclass

from curation.errors import UsageProblem

CLIP_FPS = 8
CLIP_SIDE_PX = 384  # of square pictures
CLIP_WIDTH = 1024
SYNC_FPS = 25  # not 24, which is how many features a second come out of it
SYNC_SIDE_PX = 224
SYNC_WIDTH = 768
SEGMENT_FRAMES = 16  # of Synchformer, each encoded by itself
SEGMENT_STRIDE_FRAMES = 8
FEATURES_PER_SEGMENT = 8  # a feature for every two frames
TEXT_TOKENS = 77
TEXT_WIDTH = 1024
TIME_REDUCTION = 2  # mel frames per latent
DURATION_S = 8.0
PEAK = 0.95  # to which a waveform is normalised
SILENT_PEAK = 1e-6  # at or below which nothing can be normalised


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioSpec:
    """What differs between the two sample rates."""

    sample_rate_hz: int
    fft_samples: int  # also the length of the window
    hop_samples: int
    num_mels: int
    max_hz: float
    latent_channels: int

    @property
    def samples_per_latent(self) -> int:
        """How much sound one latent stands for."""
        return self.hop_samples * TIME_REDUCTION


_AUDIO = {
    16000: AudioSpec(
        sample_rate_hz=16000, fft_samples=1024, hop_samples=256, num_mels=80, max_hz=8000,
        latent_channels=20,
    ),
    44100: AudioSpec(
        sample_rate_hz=44100, fft_samples=2048, hop_samples=512, num_mels=128, max_hz=22050,
        latent_channels=40,
    ),
}  # fmt: skip
SAMPLE_RATES_HZ = tuple(_AUDIO)


def audio_spec(sample_rate_hz: int) -> AudioSpec:
    """The facts of one of the two sample rates.

    Raises:
        UsageProblem: there is no VAE of that rate.
    """
    if sample_rate_hz not in _AUDIO:
        raise UsageProblem(
            f"sample rate {sample_rate_hz} Hz, expected one that a VAE exists for — give 16000 or 44100"
        )
    return _AUDIO[sample_rate_hz]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSpec:
    """All lengths of an example of `duration_s` seconds at one sample rate."""

    sample_rate_hz: int
    duration_s: float = DURATION_S

    def __post_init__(self) -> None:
        audio_spec(self.sample_rate_hz)
        if not SEGMENT_FRAMES / SYNC_FPS <= self.duration_s <= 3600:
            raise UsageProblem(
                f"duration {self.duration_s} s, expected {SEGMENT_FRAMES / SYNC_FPS} to 3600 s: "
                f"Synchformer sees {SEGMENT_FRAMES} frames at a time — give another duration"
            )

    @property
    def audio(self) -> AudioSpec:
        """The facts of its sample rate."""
        return audio_spec(self.sample_rate_hz)

    @property
    def num_latents(self) -> int:
        """N: what covers the duration, rounded up."""
        # in this order, as upstream: another order may round to another whole number
        exact = self.duration_s * self.sample_rate_hz / self.audio.hop_samples / TIME_REDUCTION
        return math.ceil(exact)

    @property
    def num_samples(self) -> int:
        """Of the waveform that gives exactly `num_latents`; 353,280 for 8 s at 44.1 kHz (8.0109 s)."""
        return self.num_latents * self.audio.samples_per_latent

    @property
    def num_mel_frames(self) -> int:
        """Of that waveform."""
        return self.num_latents * TIME_REDUCTION

    @property
    def num_clip_frames(self) -> int:
        """Pictures for CLIP, each a feature."""
        return int(self.duration_s * CLIP_FPS)

    @property
    def num_sync_frames(self) -> int:
        """Pictures for Synchformer."""
        return int(self.duration_s * SYNC_FPS)

    @property
    def num_segments(self) -> int:
        """Of Synchformer; frames that fill no segment are left out."""
        frames = self.duration_s * SYNC_FPS  # may be fractional
        return int((frames - SEGMENT_FRAMES) // SEGMENT_STRIDE_FRAMES) + 1

    @property
    def num_sync_features(self) -> int:
        """Of all segments, one after another; equation A3."""
        return self.num_segments * FEATURES_PER_SEGMENT

    @property
    def sync_features_per_s(self) -> float:
        """24 for 8 s and 10 s; equation A4."""
        return self.num_sync_features / self.duration_s
