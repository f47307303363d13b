"""The sound of one clip: mono at one rate, on the clip's clock, handed on in order and without holes.

    file    ──────┬───────────┬──────────────────────┬─────▶ s
                  first        first picture:          end of
                  sample       t = 0 of the clip       the cut
    handed on                  ├── samples, zeros where there are none ──┤

What comes before t = 0 is cut; a gap at the beginning or in the middle is filled with zeros, so that the
n-th sample always belongs to n / rate seconds.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av

_GAP_S = 0.05  # between where a frame should begin and where it says it begins: less is rounding
_HELD_S = 60.0  # of sound kept while no picture came: longer, and the clock begins with the sound
_BLOCK = 2048  # samples of the windows from which the bandwidth is measured
_BLOCKS = 64
_JOINED_S = 1.0  # of sound that is resampled at once

Sink = Callable[[np.ndarray], None]


class SoundTrack:
    """Takes decoded frames of sound with their times in the file and gives samples on the clip's clock."""

    def __init__(self, sink: Sink, rate_hz: int) -> None:
        self._sink, self._rate_hz = sink, rate_hz
        self._zero_s: float | None = None  # in the file, of the clip's clock
        self._held: list[tuple[float, np.ndarray]] = []  # time in the file and samples, until then
        self._resampler: av.AudioResampler | None = None
        self._anchor_s = 0.0  # in the file, of the first sample since the resampler began
        self._out = 0  # samples that came out of it since
        self._in = 0  # samples that went in since
        self._stop: int | None = None  # place on the clip's clock where the clip ends
        self._next = 0  # place on the clip's clock of the next sample for the sink
        self.end_s: float | None = None  # in the file, of the last sample
        self.begin_s: float | None = None  # … of the first
        self.spectrum = SpectrumSamples()

    @property
    def duration_s(self) -> float:
        """How much sound was handed on."""
        return self._next / self._rate_hz

    def starts_at(self, zero_s: float, length_s: float | None = None) -> None:
        """Say where in the file the clip's clock begins, and how long the clip is; what was held goes on."""
        self._zero_s = zero_s
        self._stop = None if length_s is None else round(length_s * self._rate_hz)
        held, self._held = self._held, []
        for begin_s, wave in held:
            self._place(begin_s, wave)

    def add(self, frame: "av.AudioFrame", begin_s: float | None) -> None:
        """Take the next decoded frame.

        Args:
            begin_s: its presentation time in the file; None where the file does not tell.
        """
        rate = frame.sample_rate
        expected_s = self._anchor_s + self._in / rate
        if begin_s is None:
            begin_s = expected_s if self._resampler else self.end_s or 0.0
        if self._resampler is None or not -_GAP_S < begin_s - expected_s < _GAP_S:
            self._begin(begin_s)
        if self.begin_s is None:
            self.begin_s = begin_s
        frame.pts = None  # how long a sound lasts is told by its samples
        try:
            self._resample(frame)
        except ValueError:  # the format changed within the file
            self._begin(begin_s)
            self._resample(frame)
        self._in += frame.samples
        self.end_s = self._anchor_s + self._in / rate
        if self.spectrum.wants(frame):
            self.spectrum.add(frame)

    def finish(self) -> None:
        """Hand on what is still inside."""
        self._flush()
        if self._zero_s is None and self._held:
            self.starts_at(self._held[0][0])

    def _begin(self, begin_s: float) -> None:
        import av

        self._flush()
        self._resampler = av.AudioResampler(
            format="flt", layout="mono", rate=self._rate_hz, frame_size=int(_JOINED_S * self._rate_hz)
        )
        self._anchor_s, self._out, self._in = begin_s, 0, 0

    def _resample(self, frame: "av.AudioFrame | None") -> None:
        assert self._resampler is not None, "no frame came yet"
        for part in self._resampler.resample(frame):
            wave = part.to_ndarray().reshape(-1)
            begin_s = self._anchor_s + self._out / self._rate_hz
            self._out += len(wave)
            self._hand_on(begin_s, wave)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._resample(None)
            self._resampler = None

    def _hand_on(self, begin_s: float, wave: np.ndarray) -> None:
        if self._zero_s is not None:
            self._place(begin_s, wave)
            return
        self._held.append((begin_s, wave))
        if begin_s - self._held[0][0] > _HELD_S:
            self.starts_at(self._held[0][0])

    def _place(self, begin_s: float, wave: np.ndarray) -> None:
        assert self._zero_s is not None, "samples have no place before the clock has begun"
        place = round((begin_s - self._zero_s) * self._rate_hz)
        if self._stop is not None:
            wave = wave[: max(0, self._stop - place)]
            place = min(place, self._stop)
        if place > self._next:
            self._silence(place - self._next)
        wave = wave[max(0, self._next - place) :]
        if len(wave):
            self._next += len(wave)
            self._sink(wave)

    def _silence(self, samples: int) -> None:
        """Zeros, a minute at a time."""
        while samples > 0:
            step = min(samples, 60 * self._rate_hz)
            self._sink(np.zeros(step, np.float32))
            self._next += step
            samples -= step


class SpectrumSamples:
    """Short stretches from all of a sound at its own rate, whatever its length, to look at its spectrum."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._open: list[np.ndarray] = []
        self._open_samples = 0
        self._every = 4  # of so many blocks one is kept
        self._skip = 0  # samples until the next one begins
        self.rate_hz = 0

    def wants(self, frame: "av.AudioFrame") -> bool:
        """Whether the next frame has samples to look at; most have none."""
        if self._skip >= frame.samples:
            self._skip -= frame.samples
            return False
        return True

    def add(self, frame: "av.AudioFrame") -> None:
        """Take a frame that is wanted."""
        if frame.sample_rate != self.rate_hz:  # it changed within the file: the latest counts
            self._blocks, self._open, self._open_samples = [], [], 0
            self.rate_hz = frame.sample_rate
        wave = mono(frame)[self._skip :]
        self._skip = 0
        while len(wave):
            taken = wave[: _BLOCK - self._open_samples]
            self._open.append(taken)
            self._open_samples += len(taken)
            wave = wave[len(taken) :]
            if self._open_samples == _BLOCK:
                self._close()
                gap = min((self._every - 1) * _BLOCK, len(wave))
                self._skip = (self._every - 1) * _BLOCK - gap
                wave = wave[gap:]

    def _close(self) -> None:
        self._blocks.append(np.concatenate(self._open))
        self._open, self._open_samples = [], 0
        if len(self._blocks) == 2 * _BLOCKS:
            self._blocks, self._every = self._blocks[::2], self._every * 2

    def wave(self) -> np.ndarray:
        """Exactly 64 stretches, evenly spaced, one after another; of a very short sound all of it."""
        if not self._blocks:
            return np.concatenate([np.zeros(0, np.float32), *self._open])
        chosen = np.linspace(0, len(self._blocks) - 1, _BLOCKS).astype(int)
        return np.concatenate([self._blocks[i] for i in chosen])


def mono(frame: "av.AudioFrame") -> np.ndarray:
    """The mean of the channels at their own rate, float32 of full scale 1."""
    if frame.format.name == "fltp" and len(frame.planes) <= 2:  # most of all sounds, without a detour
        planes = [np.frombuffer(plane, np.float32, frame.samples) for plane in frame.planes]
        return planes[0].copy() if len(planes) == 1 else (planes[0] + planes[1]) * np.float32(0.5)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    wave = samples.astype(np.float32)
    if samples.dtype.kind != "f":
        wave -= 128 if samples.dtype == np.uint8 else 0
        wave /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    return wave.mean(axis=0, dtype=np.float32) if len(wave) > 1 else wave[0]
