"""When two clips move alike: every offset and rate, from products between frames.

Frames are float32 `(n, side, side)`, theirs seen through a map (align_space.py). Time in the training
clip = rate * time in the held-out clip + offset, in frames.
"""

from dataclasses import dataclass

import numpy as np

from curation.matching.align_space import pixels_at, sample, seen_under
from curation.matching.search_kernels import compiled
from curation.media.frames import FPS

RATES = (1.0, 1 / 1.05, 1 / 0.95, 1 / 1.1, 1 / 0.9, 0.8, 1.25)  # that re-uploads are known to have
_UNLIKELY = 0.03  # by which another rate must be better
_MIN_SHARED = 2 * FPS  # frames; shorter stretches agree by accident, except of clips that are shorter
PAIRS = 5  # frame pairs that decide the map together
_MIN_AREA = 0.2  # of the held-out picture that the training clip must show


@dataclass(frozen=True, slots=True, kw_only=True)
class InTime:
    """Where in time two stretches agree best; offset in frames."""

    score: float
    offset: float
    rate: float
    frames: int
    energy: float
    area: float

    def pairs(self, ours: int, theirs: int) -> np.ndarray:
        """Frame pairs spread over the common stretch."""
        i = np.arange(ours)
        j = np.rint(self.rate * i + self.offset).astype(int)
        both = np.flatnonzero((j >= 0) & (j < theirs))
        chosen = both[np.linspace(0, len(both) - 1, min(PAIRS + 1, len(both))).astype(int)]
        return np.stack([chosen, j[chosen]], axis=1)


def in_time(ours: np.ndarray, theirs: np.ndarray, map_: np.ndarray) -> InTime | None:
    """The offset and rate at which the residuals of motion agree best."""
    seen, u, v = seen_under(theirs.shape[-1], map_)
    area = len(seen) / theirs[0].size
    if area < _MIN_AREA or min(len(ours), len(theirs)) < 2:
        return None
    a, b = _residuals(pixels_at(ours, seen)), _residuals(sample(theirs, u, v))
    shortest = min(_MIN_SHARED, max(FPS, 2 * min(len(ours), len(theirs)) // 3))
    aa, ab, bb = (np.asarray(m, np.float64) for m in (a @ a.T, a @ b.T, b @ b.T))
    score, offset, rate, frames, energy = _search(aa, ab, bb, np.array(RATES), shortest)
    return InTime(
        score=float(score), offset=float(offset), rate=float(rate), frames=int(frames),
        energy=float(energy) / len(seen), area=area,
    )  # fmt: skip


def _residuals(pixels: np.ndarray) -> np.ndarray:
    """`(frames, pixels)`, changed to be without the mean of each frame and the mean picture of all."""
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels -= pixels.mean(axis=0)
    return pixels


@compiled
def _search(
    aa: np.ndarray, ab: np.ndarray, bb: np.ndarray, rates: np.ndarray, shortest: int
) -> tuple[float, float, float, int, float]:
    """Every rate and every whole offset, then quarters of a frame around the best.

    Works on products between frames alone. Returns score, offset, rate, frames, energy.
    """
    na, nb = ab.shape
    sums = (_block_sums(aa), _block_sums(ab), _block_sums(bb))
    best, best_rank, best_rate, best_offset = (-1.0, 0, 0.0), -1e9, 1.0, 0.0
    for r in range(len(rates)):
        unlikely = _UNLIKELY if r else 0.0
        for offset in range(int(np.ceil(-rates[r] * (na - 1))), nb):
            at = _agreement(aa, ab, bb, sums, rates[r], float(offset), shortest)
            # as an effect grows with the root of what it was measured on
            rank = (min(at[0], 0.999) - unlikely) * np.sqrt(at[1])
            if at[1] > 0 and rank > best_rank:
                best, best_rank, best_rate, best_offset = at, rank, rates[r], float(offset)
    unlikely = 0.0 if best_rate == rates[0] else _UNLIKELY
    for step in (0.5, 0.25):
        middle = best_offset
        for place in (middle - step, middle + step):
            at = _agreement(aa, ab, bb, sums, best_rate, place, shortest)
            rank = (min(at[0], 0.999) - unlikely) * np.sqrt(at[1])
            if at[1] > 0 and rank > best_rank:
                best, best_rank, best_offset = at, rank, place
    return best[0], best_offset, best_rate, best[1], best[2]


@compiled
def _agreement(
    aa: np.ndarray,
    ab: np.ndarray,
    bb: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray, np.ndarray],
    rate: float,
    offset: float,
    shortest: int,
) -> tuple[float, int, float]:
    """Correlation without the mean pictures at one offset and rate, the frames, and their energy.

    The mean over the common stretch is taken out by sums over blocks of the products; between two
    frames, products are interpolated as the frames would be. No frames: the stretch is too short.
    """
    na, nb = ab.shape
    first = max(0, int(np.ceil(-offset / rate - 1e-9)))
    last = min(na - 1, int(np.floor((nb - 1 - offset) / rate + 1e-9)))
    n = last - first + 1
    if n < shortest:
        return -1.0, 0, 0.0
    xy, yy, xx = 0.0, 0.0, 0.0
    for i in range(first, last + 1):
        place = rate * i + offset
        j = min(int(place), nb - 1)
        f = place - j
        k = min(j + 1, nb - 1)
        xy += (1 - f) * ab[i, j] + f * ab[i, k]
        yy += (1 - f) * (1 - f) * bb[j, j] + f * f * bb[k, k] + 2 * f * (1 - f) * bb[j, k]
        xx += aa[i, i]
    begin = int(rate * first + offset)
    end = min(int(np.ceil(rate * last + offset)), nb - 1)
    m = end - begin + 1
    xy -= _block(sums[1], first, last, begin, end) / m
    xx -= _block(sums[0], first, last, first, last) / n
    yy -= _block(sums[2], begin, end, begin, end) * n / (m * m)
    if xx <= 1e-9 or yy <= 1e-9:
        return 0.0, n, 0.0
    return xy / np.sqrt(xx * yy), n, min(xx, yy) / n


@compiled
def _block_sums(matrix: np.ndarray) -> np.ndarray:
    rows, columns = matrix.shape
    sums = np.zeros((rows + 1, columns + 1))
    for i in range(rows):
        line = 0.0
        for j in range(columns):
            line += matrix[i, j]
            sums[i + 1, j + 1] = sums[i, j + 1] + line
    return sums


@compiled
def _block(sums: np.ndarray, i0: int, i1: int, j0: int, j1: int) -> float:
    """Sum of rows i0 to i1 and columns j0 to j1, the last included."""
    inside: float = sums[i1 + 1, j1 + 1] - sums[i0, j1 + 1] - sums[i1 + 1, j0] + sums[i0, j0]
    return inside


@dataclass(frozen=True, slots=True)
class Look:
    """What the aligned frames say once more, all of them side by side."""

    appearance: float
    score: float
    steady: float


def look(ours: np.ndarray, theirs: np.ndarray, map_: np.ndarray, time: InTime) -> Look:
    """Correlation of the mean pictures, and of what moves apart from a slow drift.

    Two days of one street both get brighter: a drift has one pattern in time, whatever it is of.
    """
    i = np.arange(len(ours))
    place = time.rate * i + time.offset
    i = i[(place >= 0) & (place <= len(theirs) - 1)]
    place = place[i]
    j = np.minimum(place.astype(int), max(0, len(theirs) - 2))
    part = (place - j).astype(np.float32)[:, None]
    seen, u, v = seen_under(theirs.shape[-1], map_)
    pixels = sample(theirs, u, v)
    a, b = pixels_at(ours[i], seen), pixels[j]
    if part.any():
        b += part * (pixels[np.minimum(j + 1, len(theirs) - 1)] - b)
    pictures = _correlation(a.mean(axis=0), b.mean(axis=0))
    a, b = _residuals(a), _residuals(b)
    products = np.array([np.vdot(a, a), np.vdot(b, b), np.vdot(a, b)], np.float64)
    drift = i - i.mean()
    drift = (drift / (np.linalg.norm(drift) + 1e-9)).astype(np.float32)
    drift_a, drift_b = drift @ a, drift @ b
    drifts = np.array(
        [np.vdot(drift_a, drift_a), np.vdot(drift_b, drift_b), np.vdot(drift_a, drift_b)], np.float64
    )
    # what is left of a product when the drift, of length one, is taken out of both of its factors
    return Look(pictures, _share(products), _share(products - drifts))


def _share(products: np.ndarray) -> float:
    """Correlation, from the two squares and the product."""
    norm = float(np.sqrt(max(products[0], 0.0) * max(products[1], 0.0)))
    return round(float(products[2]) / norm, 4) if norm > 1e-6 else 0.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return _share(np.array([np.vdot(a, a), np.vdot(b, b), np.vdot(a, b)], np.float64))
