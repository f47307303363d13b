"""What is kept of a clip's sound: levels of narrow bands in short frames, and items to look up.

A wave is mono float at RATE_HZ, full scale 1. Twenty frames a second, each the loudness of 48 bands an
eighth of an octave wide (120 Hz to 7.7 kHz), so that another playing speed is a shift along frequency
and a stretch along time. `matching.align_audio` decides with the bands; an item is 32 signs of
how they move within a second, much the same in two copies at every moment and quite the same at some,
and proposes what to compare.
"""

import functools
from dataclasses import dataclass

import numpy as np

AUDIO_VERSION = "bands48/1"
RATE_HZ = 16000
FRAMES_PER_S = 20
BANDS = 48
BANDS_PER_OCTAVE = 8
LOWEST_HZ = 120.0
STEP_DB = 0.4  # of a band's level; level 0 is FLOOR_DB or less
FLOOR_DB = -100.0
_HOP = RATE_HZ // FRAMES_PER_S
_WINDOW = 2048  # 128 ms
_BLOCK_S = 30  # of sound that is taken at once
_ROWS = 32  # frames transformed at once: what stays in the cache is four times as fast
_ACTIVE_DB = -70.0  # RMS of 0.1 s; Source: tests/benchmarks/README.md, "Sound"
_ACTIVE_SHARE = 0.3
_ACTIVE_S = 1.0  # a short sound in a long silence is a sound

_LOUD_DB = 45.0  # below the clip's loud frames there is nothing
_BAND_DB = 30.0  # nor so far below a band's own loud frames
_HALF = 4  # frames on either side that make up the mean from which a movement starts
_LIMIT_DB = 12.0

PATCH = 20  # frames that an item looks at
_ITEM_BLOCK = 512  # frames whose items share a floor: a long recording is like many clips
_MOVES = 20.0  # dB² of an item's 32 coefficients together


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPrint:
    """What is kept of a clip's sound; k items, T frames. Silence has neither items nor frames."""

    audio_version: str
    silent_share: float  # of the 0.1 s windows
    item_ms: np.ndarray  # int32 (k,), the middle of the stretch an item looks at
    item: np.ndarray  # uint32 (k,)
    bands: np.ndarray  # uint8 (T, BANDS), frame t begins at t / FRAMES_PER_S s and lies in the wave


class SoundHasher:
    """Makes the print of one clip from its sound, given in pieces of any length."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)
        self._bands: list[np.ndarray] = []
        self._active = 0
        self._windows = 0
        self._unheard = np.zeros(0, np.float32)

    def add(self, wave_s: np.ndarray) -> None:
        """Take the next samples, of any number."""
        wave = np.asarray(wave_s, np.float32).reshape(-1)
        for begin in range(0, len(wave), _BLOCK_S * RATE_HZ):
            self._add(_finite(wave[begin : begin + _BLOCK_S * RATE_HZ]))

    def _add(self, wave: np.ndarray) -> None:
        self._listen(np.concatenate([self._unheard, wave]))
        self._rest = np.concatenate([self._rest, wave])
        frames = (len(self._rest) - _WINDOW) // _HOP + 1
        if frames > 0:
            self._bands.append(_levels(self._rest, frames))
            self._rest = self._rest[frames * _HOP :]

    def _listen(self, wave: np.ndarray) -> None:
        windows = wave[: len(wave) // (RATE_HZ // 10) * (RATE_HZ // 10)].reshape(-1, RATE_HZ // 10)
        power = windows.var(axis=1)  # about the mean: a constant is silent
        self._active += int((power > 10 ** (_ACTIVE_DB / 10)).sum())
        self._windows += len(windows)
        self._unheard = wave[windows.size :]

    def finish(self) -> AudioPrint:
        """The print of all that was given."""
        if self._unheard.size and self._windows == 0:  # shorter than one window
            self._listen(np.pad(self._unheard, (0, RATE_HZ // 10 - len(self._unheard))))
        share = self._active / self._windows if self._windows else 0.0
        heard = share >= _ACTIVE_SHARE or self._active / 10 >= _ACTIVE_S
        bands = np.concatenate([np.zeros((0, BANDS), np.uint8), *(self._bands if heard else [])])
        item_ms, item = items_of(bands)
        return AudioPrint(
            audio_version=AUDIO_VERSION,
            silent_share=round(1 - share, 4),
            item_ms=item_ms,
            item=item,
            bands=bands,
        )


def fingerprint(wave_s: np.ndarray) -> AudioPrint:
    """The print of a whole wave, mono at RATE_HZ; what is not finite counts as silence."""
    hasher = SoundHasher()
    hasher.add(wave_s)
    return hasher.finish()


def _finite(wave: np.ndarray) -> np.ndarray:
    finite: np.ndarray = np.nan_to_num(wave, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(finite, -8, 8, out=finite)


def _levels(wave: np.ndarray, frames: int) -> np.ndarray:
    """uint8 `(frames, BANDS)`: level of each band above FLOOR_DB in steps of STEP_DB."""
    windows = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW)[: frames * _HOP : _HOP]
    power = np.empty((frames, BANDS), np.float32)
    for begin in range(0, frames, _ROWS):
        rows = slice(begin, begin + _ROWS)
        spectrum = np.fft.rfft(windows[rows] * _taper(), axis=1)
        np.matmul(spectrum.real**2 + spectrum.imag**2, _filters(), out=power[rows])
    steps = (10 * np.log10(power + np.float32(1e-12)) - FLOOR_DB) / STEP_DB
    levels: np.ndarray = np.clip(np.rint(steps), 0, 255)
    return levels.astype(np.uint8)


@functools.cache
def _taper() -> np.ndarray:
    """Hann window, scaled so that a sine of full scale has power 1 in its bin."""
    window: np.ndarray = np.hanning(_WINDOW + 1)[:-1]
    window = window / (window.sum() / 2)
    return window.astype(np.float32)


@functools.cache
def _filters() -> np.ndarray:
    """Triangles on a logarithmic axis, at least a bin wide; float32 `(bins, BANDS)`."""
    hz = np.arange(_WINDOW // 2 + 1) * RATE_HZ / _WINDOW
    centres = LOWEST_HZ * 2 ** (np.arange(BANDS) / BANDS_PER_OCTAVE)
    width = np.maximum(centres * (2 ** (1 / BANDS_PER_OCTAVE) - 1), RATE_HZ / _WINDOW)
    return np.clip(1 - np.abs(hz[:, None] - centres) / width, 0, None).astype(np.float32)


# ---- movements ------------------------------------------------------------------------------------


def movements(bands: np.ndarray, *, common: float) -> np.ndarray:
    """How each band's level leaves its own mean of the moment, in dB; float32 `(BANDS, T)`.

    Loudness, equalisers and microphones fall out of it. Levels far below those of the clip, or of their
    band, are raised to a floor first, so that noise there does not move.

    Args:
        bands: uint8 `(T, BANDS)`, of a clip.
        common: share of the mean over all bands that is taken out.
    """
    if not len(bands):
        return np.zeros((bands.shape[1], 0), np.float32)
    levels = np.ascontiguousarray(bands.T, np.float32) * np.float32(STEP_DB)
    own, whole = _loud(levels, 0.95)[:, None], _loud(levels.max(axis=0), 0.9)
    levels = np.maximum(levels, np.maximum(own - _BAND_DB, whole - _LOUD_DB))
    moved: np.ndarray = levels - local_mean(levels, _HALF)
    moved -= np.float32(common) * moved.mean(axis=0)
    return np.clip(moved, -_LIMIT_DB, _LIMIT_DB, out=moved)


def _loud(levels: np.ndarray, share: float) -> np.ndarray:
    """The level below which this share of the frames lies, float32."""
    place = int(share * (levels.shape[-1] - 1))
    level: np.ndarray = np.partition(levels, place, axis=-1)[..., place]
    return level


def local_mean(values: np.ndarray, half: int) -> np.ndarray:
    """Mean over the frames up to `half` away, fewer at the ends; float32, time along the last axis."""
    frames = values.shape[-1]
    summed = np.zeros((*values.shape[:-1], frames + 1), np.float64)
    np.cumsum(values, axis=-1, out=summed[..., 1:])
    begin = np.maximum(np.arange(frames) - half, 0)
    end = np.minimum(np.arange(frames) + half + 1, frames)
    mean: np.ndarray = (summed[..., end] - summed[..., begin]) / (end - begin)
    return mean.astype(np.float32)


# ---- items ----------------------------------------------------------------------------------------


def items_of(bands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`ms` int32 and `item` uint32 of a clip's bands `(T, BANDS)`, one a frame, in order of time.

    A bit says whether the sound rises or falls, fast or slowly, in a wave along frequency: bits 2 l and
    2 l + 1 are the fast and the slow rise of l + 1 half waves over all bands. The item of a moment at
    which nothing moves is 0; a clip in which nothing ever does has no items.
    """
    codes = [
        _codes(movements(bands[begin : begin + _ITEM_BLOCK + PATCH - 1], common=1.0))
        for begin in range(0, max(0, len(bands) - PATCH + 1), _ITEM_BLOCK)
    ]
    item = np.concatenate([np.zeros(0, np.uint32), *codes])
    if not item.any():
        item = item[:0]
    ms = (np.arange(len(item)) + PATCH // 2) * (1000 // FRAMES_PER_S)
    return ms.astype(np.int32), item


def _codes(moved: np.ndarray) -> np.ndarray:
    waves, rises = _item_filters()
    windows = np.lib.stride_tricks.sliding_window_view(waves @ moved, PATCH, axis=1)
    coefficients = (windows @ rises.T).transpose(1, 0, 2).reshape(windows.shape[1], -1)
    codes: np.ndarray = (coefficients > 0) @ (1 << np.arange(coefficients.shape[1], dtype=np.uint64))
    codes[np.einsum("nb,nb->n", coefficients, coefficients) < _MOVES] = 0
    return codes.astype(np.uint32)


@functools.cache
def _item_filters() -> tuple[np.ndarray, np.ndarray]:
    """Waves along frequency `(16, BANDS)` and rises along time `(2, PATCH)`, of unit length, float32."""
    halves = np.arange(1, 17)[:, None]
    waves = np.cos(np.pi * halves * (np.arange(BANDS) + 0.5) / BANDS)
    rises = np.zeros((2, PATCH))
    for row, length in zip(rises, (8, PATCH), strict=True):
        time = np.arange(length) - length / 2 + 0.5
        begin = (PATCH - length) // 2
        row[begin : begin + length] = np.hanning(length + 2)[1:-1] * np.sin(2 * np.pi * time / length)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    rises /= np.linalg.norm(rises, axis=1, keepdims=True)
    return waves.astype(np.float32), rises.astype(np.float32)


# ---- probe facts ----------------------------------------------------------------------------------


def bandwidth_hz(wave: np.ndarray, rate: int) -> float:
    """The highest frequency at which there is sound, in Hz; 0 for silence.

    There is sound where the loudest of the frames are less than 75 dB below the loudest frequency and
    above what rounding to 16 bits leaves. Encoders and resamplers cut much lower than that.

    Args:
        wave: mono float, full scale 1, at its own `rate`.
    """
    wave = np.asarray(wave, np.float32).reshape(-1)
    if not len(wave):
        return 0.0
    size = 2048
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    begins = np.unique(np.linspace(0, len(wave) - size, 64).astype(int))
    windows = np.stack([_finite(wave[begin : begin + size]) for begin in begins])
    spectrum = np.abs(np.fft.rfft(windows * _taper(), axis=1)) ** 2
    loudest = np.partition(spectrum, -max(1, len(begins) // 16), axis=0)[-max(1, len(begins) // 16)]
    smooth = np.convolve(loudest, np.full(5, 0.2), mode="same")
    audible = np.flatnonzero(smooth > max(smooth.max() * 10**-7.5, 10**-11.5))
    return round(float(audible[-1] * rate / size), 1) if len(audible) else 0.0
