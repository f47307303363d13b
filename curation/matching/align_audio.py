"""Whether two sounds share a stretch, where it lies in time, and how sure that is.

Compared is what moves: each band's level against its own mean of half a second, so that loudness,
equalisers and microphones fall out, and noise far below the sound does too. The movements of both are
correlated at every offset, for playing speeds and pitches within 5 %, together or apart. At the best
offsets the stretch is sought in which frame after frame agrees, as long as it may be.

How sure that is, its *strength*, is Fisher's z of the correlation in the stretch times the root of the
number of frames that carry it. What chance gives is below 3.5 if the stretch has two seconds, and below
5 if it is shorter (a click or a chirp is soon alike), fits at another offset nearly as well (so do two
drums), or only at another speed or pitch (many were tried). Steady noise, hum and tones do not move, and
so have no strength whatever they share; of rain or of applause only a copy has any.

Sound alone is `review`. It is `auto` only if the evidence is overwhelming: a stretch of AUTO_SHARED_S
or more, of which AUTO_INFORMATIVE_S carry it, correlated by AUTO_SCORE or more, with a strength of
AUTO_STRENGTH, far more than any unrelated pair reached, and no other offset that fits nearly as well, as
it does in loops, beats and alarms.

Where a clip is longer than LONG_S, only a minute of each is compared, where they agree most at an offset
that is known or, if none is, at those at which all of them agrees best, at the same speed.

Time in the training clip = speed * time in the held-out clip + offset_s.
"""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from curation.media import audio_hash
from curation.media.audio_hash import BANDS_PER_OCTAVE, FRAMES_PER_S, local_mean

VERSION = "sound/2"  # raised whenever a threshold or a rule changes
# Source: tests/benchmarks/README.md, "Sound": chosen on one half of the sources, measured on the other.
REVIEW_STRENGTH = 3.5
REVIEW_DOUBTFUL_STRENGTH = 5.0
SHORT_S = 2.0
AUTO_STRENGTH = 10.0
AUTO_SCORE = 0.7
AUTO_SHARED_S = 4.0
AUTO_INFORMATIVE_S = 2.5
_AMBIGUOUS = 0.75  # of the best correlation, reached at another offset

LONG_S = 120.0
_LONG = round(LONG_S * FRAMES_PER_S)
_REACH = 30 * FRAMES_PER_S  # frames on either side of where two long clips agree most
_SEEN = 3600 * FRAMES_PER_S  # frames that are looked at to see where that is
_LAG = 2  # frames on either side over which a level's rise is taken, to see where clips agree
_RISE = 400.0  # steps² of level that are added to what could agree, so that stillness does not
_HINT = (-2, 0, 2)  # frames by which a known offset may be off
_COARSE = 4  # offsets that are tried if none is known
_COMMON = 0.5  # of the mean over all bands is taken out: rhythm alone is no match
_LOCAL = 10  # frames on either side over which energy is compared
_LEAST = 12.0  # dB² a frame that are added to its energy, so that stillness agrees with nothing
_DRIFT = 0.3  # a stretch goes on while frames agree better than this
_MIN_FRAMES = 20  # overlaps below a second are not looked at
_PIECE = 400  # frames of a long held-out clip that are sought at a time
_PEAKS = 8
_TAPE = 0.95  # of a strength is left where speed and pitch changed together
_APART = 0.9  # and where only one did
_STEP = 0.025
_SPEEDS = (0.95, 0.975, 1.025, 1.05)
_HYPOTHESES = (
    (1.0, 1.0), *((s, s) for s in _SPEEDS), *((s, 1.0) for s in _SPEEDS), *((1.0, p) for p in _SPEEDS),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioMatch:
    """How two sounds agree in the best stretch; a score of 0 and no seconds where they share none."""

    score: float  # correlation of the movements in the stretch, 0 to 1
    strength: float
    offset_s: float
    start_s: float  # of the stretch, in the held-out clip
    shared_s: float  # its length, in the held-out clip
    informative_s: float  # the seconds that carry the correlation, were they all alike
    speed: float  # seconds of the training clip for one of the held-out clip
    pitch: float  # of the training clip, where the held-out clip has 1
    ambiguous: bool  # another offset agrees almost as well: loops, beats, alarms

    @property
    def tier(self) -> str | None:
        """What sound alone says: `auto`, `review`, or nothing."""
        changed = abs(self.speed - 1) > 0.015 or abs(self.pitch - 1) > 0.03
        doubtful = self.shared_s < SHORT_S or self.ambiguous or changed
        if self.strength < (REVIEW_DOUBTFUL_STRENGTH if doubtful else REVIEW_STRENGTH):
            return None
        overwhelming = (
            self.strength >= AUTO_STRENGTH
            and self.score >= AUTO_SCORE
            and self.shared_s >= AUTO_SHARED_S
            and self.informative_s >= AUTO_INFORMATIVE_S
            and not self.ambiguous
        )
        return "auto" if overwhelming else "review"


NO_MATCH = AudioMatch(
    score=0.0, strength=0.0, offset_s=0.0, start_s=0.0, shared_s=0.0, informative_s=0.0,
    speed=1.0, pitch=1.0, ambiguous=False,
)  # fmt: skip


def align_audio(heldout: np.ndarray, train: np.ndarray, *, offset_s: float | None = None) -> AudioMatch:
    """The best common stretch of two sounds, given as `AudioPrint.bands`, uint8 `(T, BANDS)`.

    Where one is longer than LONG_S, `shared_s` is at most a minute, and `ambiguous` says nothing of
    what lies farther away.

    Args:
        offset_s: time in the training clip minus time in the held-out clip, where that is known, as of
            `SoundPairs`. It counts for long clips alone: then a pair takes as long as one of a minute
            does. Without it their movements are correlated as a whole first, in about a second for two
            clips of an hour, which finds no short stretch at another speed.
    """
    if max(len(heldout), len(train)) <= _LONG:
        return align_movements(movements(heldout), movements(train))
    if min(len(heldout), len(train)) < _MIN_FRAMES:
        return NO_MATCH
    offsets = _coarse(heldout, train) if offset_s is None else [round(offset_s * FRAMES_PER_S)]
    matches = [_within(heldout, train, offset) for offset in offsets]
    return max(matches, key=lambda match: match.strength, default=NO_MATCH)


def movements(bands: np.ndarray) -> np.ndarray:
    """What `align_movements` compares, of uint8 `(T, BANDS)`; float32 `(BANDS, T)`."""
    return audio_hash.movements(bands, common=_COMMON)


def align_movements(heldout: np.ndarray, train: np.ndarray) -> AudioMatch:
    """Like `align_audio`, of `movements` that were made before; for long ones it takes long."""
    if min(heldout.shape[1], train.shape[1]) < _MIN_FRAMES:
        return NO_MATCH
    peaks = _peaks(heldout, train)
    stretch = max(_stretches(heldout, train, peaks), key=lambda s: s.strength)
    if stretch.strength <= 0:
        return NO_MATCH
    stretch = _refined(heldout, train, stretch)
    return _match(heldout, train, stretch)


# ---- long clips -----------------------------------------------------------------------------------


def _within(heldout: np.ndarray, train: np.ndarray, offset: int) -> AudioMatch:
    """The best stretch within a minute of where two clips agree most at about this offset."""
    middle = _where_alike(heldout, train, offset)
    if middle is None:
        return NO_MATCH
    ours, theirs = max(0, middle - _REACH), max(0, middle + offset - _REACH)
    match = align_movements(
        movements(heldout[ours : middle + _REACH]), movements(train[theirs : middle + offset + _REACH])
    )
    if not match.strength:
        return match
    return dataclasses.replace(
        match,
        offset_s=round(match.offset_s + (theirs - match.speed * ours) / FRAMES_PER_S, 3),
        start_s=round(match.start_s + ours / FRAMES_PER_S, 3),
    )


def _where_alike(heldout: np.ndarray, train: np.ndarray, offset: int) -> int | None:
    """The frame of the held-out clip in the middle of what agrees most; None: nowhere both are.

    What is compared are the rises of every other band's level, which needs no pass over the clip before.
    """
    best, middle = 0.0, None
    for moved in (offset + hint for hint in _HINT):
        begin, end = max(0, -moved), min(len(heldout), len(train) - moved)
        if end - begin < _MIN_FRAMES:
            continue
        step = -(-(end - begin) // _SEEN)
        x = _rises(heldout[begin:end], step)
        y = _rises(train[begin + moved : end + moved], step)
        possible = np.sqrt(np.einsum("tb,tb->t", x, x) * np.einsum("tb,tb->t", y, y)) + _RISE
        summed = np.concatenate([[0.0], np.cumsum(np.einsum("tb,tb->t", x, y) - _DRIFT * possible)])
        rise = summed - np.minimum.accumulate(summed)
        last = int(np.argmax(rise))
        first = int(np.argmin(summed[: last + 1]))
        if middle is None or rise[last] > best:
            best, middle = float(rise[last]), begin + step * (first + last) // 2
    return middle


def _rises(bands: np.ndarray, step: int) -> np.ndarray:
    """How much louder each other band becomes around every `step`th frame; float32 `(T, bands)`."""
    few = bands[:, ::2]
    later, before = few[2 * _LAG :: step], few[: -2 * _LAG : step]
    rises: np.ndarray = later.astype(np.float32) - before
    rises -= np.float32(_COMMON) * rises.mean(axis=1, keepdims=True)
    return rises


def _coarse(heldout: np.ndarray, train: np.ndarray) -> list[int]:
    """Offsets in frames at which all of two clips agrees best at the same speed, apart by a second."""
    ours, theirs = movements(heldout), movements(train)
    size = fast_length(len(heldout) + len(train))
    spectrum = np.zeros(size // 2 + 1, np.complex64)
    for own, other in zip(ours, theirs, strict=True):  # one by one: an hour is large
        spectrum += np.fft.rfft(other, size) * np.fft.rfft(own, size).conj()
    heights, offsets = _heights(np.fft.irfft(spectrum, size), ours.shape[1], theirs.shape[1])
    best = []
    for _ in range(_COARSE):
        place = int(np.argmax(heights))
        best.append(int(offsets[place]))
        heights[max(0, place - FRAMES_PER_S) : place + FRAMES_PER_S + 1] = -np.inf
    return best


# ---- correlation at every offset ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class _Peak:
    height: float
    offset: int  # frames of the train clip minus frames of the warped held-out clip
    speed: float
    pitch: float


@dataclass(frozen=True, slots=True)
class _Stretch:
    strength: float
    score: float
    carried: float  # frames that carry the movement
    begin: int  # in frames of the warped held-out clip
    end: int
    offset: int
    speed: float
    pitch: float


def _peaks(heldout: np.ndarray, train: np.ndarray) -> list[_Peak]:
    """The highest correlations over all offsets and hypotheses."""
    found: list[_Peak] = []
    size = fast_length(int(min(heldout.shape[1], _PIECE) / 0.93) + train.shape[1] + 2)
    spectrum = np.fft.rfft(train, size, axis=1)
    for speed, pitch in _HYPOTHESES:
        warped = warp(heldout, speed, pitch)
        for begin in range(0, max(1, warped.shape[1] - _PIECE // 2), _PIECE * 3 // 4):
            piece = warped[:, begin : begin + _PIECE]
            offsets, heights = _correlation(piece, spectrum, size, train.shape[1])
            for _ in range(2):
                best = int(np.argmax(heights))
                found.append(_Peak(float(heights[best]), int(offsets[best]) - begin, speed, pitch))
                heights[max(0, best - 3) : best + 4] = -np.inf
    return sorted(found, reverse=True)[:_PEAKS]


def _correlation(
    piece: np.ndarray, spectrum: np.ndarray, size: int, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets, and the products summed at each over the root of how many frames overlap."""
    own = piece.shape[1]
    products = np.fft.irfft((spectrum * np.fft.rfft(piece, size, axis=1).conj()).sum(axis=0), size)
    heights, offsets = _heights(products, own, frames)
    return offsets, heights


def _heights(products: np.ndarray, own: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Summed products over the root of how many frames overlap, and their offsets."""
    least = min(_MIN_FRAMES, own - 1, frames - 1)
    offsets = np.arange(least - own, frames - least + 1)
    overlap = np.minimum(own, frames - offsets) - np.maximum(0, -offsets)
    return products[offsets % len(products)] / np.sqrt(np.maximum(overlap, _MIN_FRAMES)), offsets


def warp(moved: np.ndarray, speed: float, pitch: float) -> np.ndarray:
    """The movements as they would be if the sound played so much faster, and were so much higher."""
    shifted: np.ndarray = moved
    if speed != 1:
        places = np.arange(int((moved.shape[1] - 1) / speed) + 1) * speed
        left = np.minimum(places.astype(np.int64), max(0, moved.shape[1] - 2))
        part = (places - left).astype(np.float32)
        right = np.minimum(left + 1, moved.shape[1] - 1)
        shifted = moved[:, left] * (1 - part) + moved[:, right] * part
    if pitch != 1:
        shifted = _shift_matrix(len(moved), pitch) @ shifted
    return shifted


@functools.lru_cache(maxsize=256)
def _shift_matrix(bands: int, pitch: float) -> np.ndarray:
    """Takes band b from b minus the shift, between two bands where it falls between them."""
    places = np.arange(bands) - BANDS_PER_OCTAVE * np.log2(pitch)
    weights: np.ndarray = np.clip(1 - np.abs(places[:, None] - np.arange(bands)), 0, None)
    weights[(places < 0) | (places > bands - 1)] = 0
    return weights.astype(np.float32)


def fast_length(least: int) -> int:
    """The smallest length from `least` on that FFTs do fast: 2, 3, 5, 9 or 15 times a power of two."""
    return min(odd << max(0, (-(-least // odd) - 1).bit_length()) for odd in (1, 3, 5, 9, 15))


# ---- the stretch that agrees ----------------------------------------------------------------------


def _stretches(heldout: np.ndarray, train: np.ndarray, peaks: list[_Peak]) -> list[_Stretch]:
    energy = local_mean(train * train, _LOCAL)
    warped: dict[tuple[float, float], tuple[np.ndarray, np.ndarray]] = {}
    stretches = []
    for peak in peaks:
        key = (peak.speed, peak.pitch)
        if key not in warped:
            moved = warp(heldout, *key)
            warped[key] = (moved, local_mean(moved * moved, _LOCAL))
        stretches.append(_stretch(*warped[key], train, energy, peak))
    return stretches


def _stretch(
    moved: np.ndarray, moved_energy: np.ndarray, train: np.ndarray, energy: np.ndarray, peak: _Peak
) -> _Stretch:
    """The run of frames whose agreement above _DRIFT adds up to most, at the offset of a peak."""
    begin, end = max(0, -peak.offset), min(moved.shape[1], train.shape[1] - peak.offset)
    here, there = slice(begin, end), slice(begin + peak.offset, end + peak.offset)
    agree = np.einsum("bt,bt->t", moved[:, here], train[:, there])
    possible = np.sqrt(moved_energy[:, here] * energy[:, there]).sum(axis=0) + _LEAST
    summed = np.concatenate([[0.0], np.cumsum(agree - _DRIFT * possible)])
    last = int(np.argmax(summed - np.minimum.accumulate(summed)))
    first = int(np.argmin(summed[: last + 1]))
    run = agree[first:last]
    if not len(run):
        return _Stretch(0.0, 0.0, 0.0, begin, begin, peak.offset, peak.speed, peak.pitch)
    x, y = moved[:, here][:, first:last], train[:, there][:, first:last]
    most = np.sqrt(np.einsum("bt,bt->b", x, x) * np.einsum("bt,bt->b", y, y)).sum() + _LEAST * len(run)
    score = float(run.sum() / most)
    carried = float(run.sum() ** 2 / (run**2).sum())
    strength = float(np.arctanh(score) * np.sqrt(carried)) * _prior(peak.speed, peak.pitch)
    return _Stretch(
        strength, score, carried, begin + first, begin + last, peak.offset, peak.speed, peak.pitch
    )


def _prior(speed: float, pitch: float) -> float:
    """What is taken off a strength because so many speeds and pitches were tried."""
    if abs(speed - 1) < _STEP and abs(pitch - 1) < _STEP:
        return 1.0
    return _TAPE if abs(speed - pitch) < _STEP / 2 else _APART


def _refined(heldout: np.ndarray, train: np.ndarray, stretch: _Stretch) -> _Stretch:
    """The stretch at the speed, between those tried, at which most of it agrees."""
    step = _STEP / 2
    while step * (stretch.end - stretch.begin) > 0.75:  # frames by which its ends would drift apart
        tried = [stretch]
        for speed in (stretch.speed - step, stretch.speed + step):
            tape = stretch.pitch == stretch.speed  # both change together
            pitch = speed if tape else stretch.pitch
            middle = (stretch.begin + stretch.end) / 2
            moved = round(middle + stretch.offset - middle * stretch.speed / speed)
            peaks = [_Peak(0.0, moved + d, speed, pitch) for d in (-1, 0, 1)]
            tried += _stretches(heldout, train, peaks)
        stretch = max(tried, key=lambda s: s.strength)
        step /= 2
    return stretch


def _match(heldout: np.ndarray, train: np.ndarray, stretch: _Stretch) -> AudioMatch:
    warped = warp(heldout, stretch.speed, stretch.pitch)[:, stretch.begin : stretch.end]
    size = fast_length(warped.shape[1] + train.shape[1])
    products = np.fft.irfft(
        (np.fft.rfft(train, size, axis=1) * np.fft.rfft(warped, size, axis=1).conj()).sum(axis=0), size
    )
    at = stretch.begin + stretch.offset
    near = products[[(at - 1) % size, at % size, (at + 1) % size]]
    bend = float(near[0] - 2 * near[1] + near[2])
    part = float(np.clip(0.5 * (near[0] - near[2]) / bend, -0.5, 0.5)) if bend < 0 else 0.0
    distance = np.abs((np.arange(size) - at + size // 2) % size - size // 2)
    other = products[distance >= FRAMES_PER_S // 2].max(initial=0)
    # frame n of the warped held-out clip is its frame n * faster
    faster = stretch.speed
    return AudioMatch(
        score=round(stretch.score, 4),
        strength=round(stretch.strength, 3),
        offset_s=round((stretch.offset + part) / FRAMES_PER_S, 3),
        start_s=round(stretch.begin * faster / FRAMES_PER_S, 3),
        shared_s=round((stretch.end - stretch.begin) * faster / FRAMES_PER_S, 3),
        informative_s=round(stretch.carried / FRAMES_PER_S, 3),
        speed=round(1 / faster, 5),
        pitch=round(stretch.pitch, 5),
        ambiguous=bool(other >= _AMBIGUOUS * near[1]),
    )
