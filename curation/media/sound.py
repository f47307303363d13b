"""The sound of one clip: mono at one rate, on the clip's clock, handed on in order and without holes.

    file    ──────┬───────────┬──────────────────────┬─────▶ s
                  first        first picture:          end of
                  sample       t = 0 of the clip       the cut
    handed on                  ├── samples, zeros where there are none ──┤

What comes before t = 0 is cut; a gap at the beginning or in the middle is filled with zeros, so that the
n-th sample always belongs to n / rate seconds. Sound that is wanted as it comes begins with its first
sample, and nothing is cut or filled.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
    """Takes decoded frames of sound with their times in the file, gives samples on the clip's clock."""

    def __init__(
        self,
        sink: Sink,
        rate_hz: int | None,
        *,
        tell_rate: Callable[[int], None] | None = None,
        as_it_comes: bool = False,
    ) -> None:
        """Where samples go.

        Args:
            rate_hz: of the samples; None: that of the first frame.
            tell_rate: is told that rate, before the first samples.
        """
        self._sink, self._rate_hz, self._tell_rate = sink, rate_hz or 0, tell_rate
        self._as_it_comes = as_it_comes
        self.zero_s: float | None = None  # in the file, of the clip's clock
        self._held: list[tuple[float, np.ndarray]] = []  # time in the file and samples, until then
        self._resampler: av.AudioResampler | None = None
        self._in_hz = 0  # the rate in the file
        self._joined: list[np.ndarray] = []  # samples at that rate that wait to be resampled
        self._waiting = 0  # how many
        self._anchor_s = 0.0  # in the file, of the first sample since the resampler began
        self._in = 0  # samples of the file since
        self._out = 0  # samples that came out of it since
        self._length_s: float | None = None  # of the clip, from where its clock begins
        self._next = 0  # place on the clip's clock of the next sample for the sink
        self.end_s: float | None = None  # in the file, of the last sample
        self.begin_s: float | None = None  # … of the first
        self.gave_up_waiting = False  # whether the clock began because no picture came for so long
        self.spectrum = SpectrumSamples()

    @property
    def duration_s(self) -> float:
        """How much sound was handed on."""
        return self._next / self._rate_hz if self._rate_hz else 0.0

    def starts_at(self, zero_s: float, length_s: float | None = None) -> None:
        """Say where in the file the clip's clock begins, and how long it is; what was held goes on."""
        self.zero_s, self._length_s = zero_s, length_s
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
            begin_s = expected_s if self._in else self.end_s or 0.0
        if rate != self._in_hz or not -_GAP_S < begin_s - expected_s < _GAP_S:
            self._begin(rate, begin_s)
        if self.begin_s is None:
            self.begin_s = begin_s
        wave = mono(frame)
        self._joined.append(wave)
        self._waiting += len(wave)
        self._in += len(wave)
        self.end_s = self._anchor_s + self._in / rate
        if self._waiting >= rate * _JOINED_S:
            self._resample()

    def finish(self) -> None:
        """Hand on what is still inside."""
        self._flush()
        if self.zero_s is None and self._held:
            self.starts_at(self._held[0][0])

    def _begin(self, rate: int, begin_s: float) -> None:
        import av

        self._flush()
        if not self._rate_hz:
            self._rate_hz = rate
        if self._tell_rate is not None:
            self._tell_rate(self._rate_hz)
            self._tell_rate = None
        if rate != self._rate_hz:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
        self._in_hz, self._anchor_s, self._out, self._in = rate, begin_s, 0, 0

    def _resample(self) -> None:
        """Bring what was joined to our rate; joined, because each frame costs more than its samples."""
        import av

        wave = np.concatenate(self._joined)
        self._joined, self._waiting = [], 0
        self.spectrum.add(wave, self._in_hz)
        if self._resampler is None:
            self._pass(wave)
            return
        frame = av.AudioFrame.from_ndarray(wave[None], format="flt", layout="mono")
        frame.sample_rate = self._in_hz
        for part in self._resampler.resample(frame):
            self._pass(part.to_ndarray().reshape(-1))

    def _pass(self, wave: np.ndarray) -> None:
        begin_s = self._anchor_s + self._out / self._rate_hz
        self._out += len(wave)
        self._hand_on(begin_s, wave)

    def _flush(self) -> None:
        if self._joined:
            self._resample()
        if self._resampler is not None:
            for part in self._resampler.resample(None) if self._in else ():
                self._pass(part.to_ndarray().reshape(-1))
            self._resampler = None

    def _hand_on(self, begin_s: float, wave: np.ndarray) -> None:
        if self.zero_s is not None:
            self._place(begin_s, wave)
            return
        self._held.append((begin_s, wave))
        if begin_s - self._held[0][0] > _HELD_S:
            self.gave_up_waiting = True
            self.starts_at(self._held[0][0])

    def _place(self, begin_s: float, wave: np.ndarray) -> None:
        assert self.zero_s is not None, "samples have no place before the clock has begun"
        place = round((begin_s - self.zero_s) * self._rate_hz)
        if self._as_it_comes:
            place = self._next
        if self._length_s is not None:
            stop = round(self._length_s * self._rate_hz)
            wave = wave[: max(0, stop - place)]
            place = min(place, stop)
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
    """Short stretches of a sound at its own rate, evenly spaced, to look at its spectrum."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._rest = np.zeros(0, np.float32)
        self._every = 4  # of so many blocks one is kept
        self._skip = 0  # samples until the next one begins
        self.rate_hz = 0

    def add(self, wave: np.ndarray, rate_hz: int) -> None:
        """Take the next samples."""
        if rate_hz != self.rate_hz:  # it changed within the file: the latest counts
            self._blocks, self._rest, self.rate_hz = [], wave[:0], rate_hz
        wave = np.concatenate([self._rest, wave])
        begin = self._skip
        while begin + _BLOCK <= len(wave):
            self._blocks.append(wave[begin : begin + _BLOCK].copy())
            if len(self._blocks) == 2 * _BLOCKS:
                self._blocks, self._every = self._blocks[::2], self._every * 2
            begin += self._every * _BLOCK
        self._skip = max(0, begin - len(wave))
        self._rest = wave[begin:]

    def wave(self) -> np.ndarray:
        """Exactly 64 stretches, evenly spaced, one after another; of a very short sound all of it."""
        if not self._blocks:
            return self._rest
        chosen = np.linspace(0, len(self._blocks) - 1, _BLOCKS).astype(int)
        return np.concatenate([self._blocks[i] for i in chosen])


def mono(frame: "av.AudioFrame") -> np.ndarray:
    """The mean of the channels at their own rate, float32 of full scale 1."""
    planes: Any = frame.planes
    if frame.format.name == "fltp" and len(planes) <= 2:  # most of all sounds, without a detour
        left = np.frombuffer(planes[0], np.float32, frame.samples)
        if len(planes) == 1:
            return left.copy()
        right = np.frombuffer(planes[1], np.float32, frame.samples)
        both: np.ndarray = (left + right) * np.float32(0.5)
        return both
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    wave = samples.astype(np.float32)
    if samples.dtype.kind != "f":
        wave -= 128 if samples.dtype == np.uint8 else 0
        wave /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    mixed: np.ndarray = wave.sum(axis=0) / np.float32(len(wave))
    return mixed
