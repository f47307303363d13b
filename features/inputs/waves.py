"""The waveform the audio encoder sees: windows of a sound, normalised, at the encoder's rate.

A sound comes in pieces at its own rate, mono, full scale 1. Windows of it are kept, all of it is
measured, so that memory follows the windows and not the length. Shapes: S samples.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from curation.media.one_pass import Enough
from features.spec import PEAK

Window = tuple[int, int]  # first sample and the one after the last
# Windowed sinc with a Kaiser window; Source: the feature extraction of hkchengrex/MMAudio@974010a.
_HALF_WIDTH, _ROLLOFF, _BETA = 64, 0.9475937167399596, 14.769656459379492
_LARGEST_KERNEL = 1 << 22  # numbers; above, as for 44,099 Hz, each sample's own weights are made instead
_AT_ONCE = 4096  # samples whose weights are made at once
_SILENT_DB = -70.0  # RMS of 0.1 s; as in curation.media.audio_hash
_WINDOWS_PER_S = 10


class SoundTaker:
    """Takes the samples of one clip in order, keeps windows of them and measures all."""

    def __init__(self, plan: Callable[[int], Sequence[Window]], *, hear_all: bool) -> None:
        """What is kept.

        Args:
            plan: the windows, in order of their ends, of a sound at the rate it is given.
            hear_all: whether what follows the last window counts: the peak is that of all.
        """
        self._plan, self._hear_all = plan, hear_all
        self.windows: Sequence[Window] = ()
        self._kept: list[list[np.ndarray]] = []
        self.rate_hz = 0
        self.num_heard = 0
        self.peak = 0.0
        self.is_finite = True

    def begin(self, rate_hz: int) -> None:
        """Learn the rate, before the first samples."""
        self.rate_hz = rate_hz
        self.windows = self._plan(rate_hz)
        self._kept = [[] for _ in self.windows]

    def add(self, wave_s: np.ndarray) -> None:
        """Take the next samples.

        Raises:
            Enough: no more are wanted.
        """
        begin = self.num_heard
        self.num_heard += len(wave_s)
        peak = float(np.abs(wave_s).max()) if len(wave_s) else 0.0
        self.is_finite = self.is_finite and math.isfinite(peak)
        self.peak = max(self.peak, peak)
        for (start, end), kept in zip(self.windows, self._kept, strict=True):
            if start < self.num_heard and begin < end:
                kept.append(wave_s[max(0, start - begin) : end - begin].copy())
        if not self._hear_all and all(end <= self.num_heard for _, end in self.windows):
            raise Enough

    def window(self, number: int) -> np.ndarray:
        """What there is of a window, float32 `(S,)`."""
        return np.concatenate([np.zeros(0, np.float32), *self._kept[number]])


def source_samples(num_samples: int, rate_hz: int, source_hz: int) -> int:
    """Samples of the source from which at least so many can be resampled, and come out as from all."""
    reach = math.ceil(_HALF_WIDTH / _ROLLOFF * max(1.0, source_hz / rate_hz)) + 1
    return math.ceil(num_samples * source_hz / rate_hz) + reach


def num_resampled(num_samples: int, source_hz: int, rate_hz: int) -> int:
    """How many samples come out of so many."""
    return -(-num_samples * rate_hz // source_hz)


def normalised(wave_s: np.ndarray, peak: float) -> np.ndarray:
    """The wave with 0.95 where `peak` was."""
    louder: np.ndarray = np.float32(PEAK) * wave_s / np.float32(peak)
    return louder


def resampled(wave_s: np.ndarray, source_hz: int, rate_hz: int) -> np.ndarray:
    """The wave at another rate, float32 `(S,)`."""
    if source_hz == rate_hz:
        return wave_s
    shared = math.gcd(source_hz, rate_hz)
    old, new = source_hz // shared, rate_hz // shared
    reach = math.ceil(_HALF_WIDTH * old / (min(old, new) * _ROLLOFF))
    if new * (old + 2 * reach) > _LARGEST_KERNEL:
        return _resampled_each(wave_s, old, new, reach)
    from torchaudio.functional import resample

    wave = resample(
        torch.from_numpy(wave_s),
        source_hz,
        rate_hz,
        lowpass_filter_width=_HALF_WIDTH,
        rolloff=_ROLLOFF,
        resampling_method="sinc_interp_kaiser",
        beta=_BETA,
    )
    return np.asarray(wave.numpy())


def _resampled_each(wave_s: np.ndarray, old: int, new: int, reach: int) -> np.ndarray:
    """The same for rates without common divisors, whose kernel would take gigabytes in `resample`.

    Of each period of `old` samples it makes only the weights that are not zero, in the same steps of 32
    bits: their rounding moves samples by up to a thousandth of their distance, which is heard as 1e-5.
    """
    wave = torch.from_numpy(np.pad(wave_s, (reach, reach + 1)))
    cut_off, beta = min(old, new) * _ROLLOFF, torch.tensor(_BETA)
    around = torch.arange(-reach, reach + 1)
    num = num_resampled(len(wave_s), old, new)
    parts = []
    for begin in range(0, num, _AT_ONCE):
        place = torch.arange(begin, min(num, begin + _AT_ONCE))
        taps = (place * old // new)[:, None] + around
        in_period = taps - (place // new * old)[:, None]
        turns = ((-(place % new) / new)[:, None] + in_period.float() / old) * cut_off
        turns.clamp_(-_HALF_WIDTH, _HALF_WIDTH)
        taper = torch.i0(beta * torch.sqrt(1 - (turns / _HALF_WIDTH) ** 2)) / torch.i0(beta)
        turns *= math.pi
        weights = torch.where(turns == 0, 1.0, turns.sin() / turns) * (taper * (cut_off / old))
        parts.append((weights * wave[taps + reach]).sum(dim=1))
    return np.asarray(torch.cat(parts).numpy())


def silent_share(wave_s: np.ndarray, rate_hz: int) -> float:
    """Of the 0.1 s windows, the share whose RMS about their mean is below -70 dB of full scale."""
    size = max(1, rate_hz // _WINDOWS_PER_S)
    wave_s = wave_s[: max(1, len(wave_s) // size) * size]
    windows = wave_s.reshape(-1, min(size, len(wave_s))) if len(wave_s) else wave_s.reshape(0, 1)
    if not len(windows):
        return 1.0
    loud = windows.var(axis=1) > 10 ** (_SILENT_DB / 10)
    return round(1 - float(loud.mean()), 4)
