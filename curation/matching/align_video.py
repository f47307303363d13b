"""Whether two clips show the same pictures, decided by aligning them in space and in time.

A hash says that two frames look alike; half of all pairs from one room do. What is asked here is whether
they *move* alike. In three steps, on thumbnails `(frames, 32, 32)` of both clips:

1. space: an affine map from the held-out picture into the training picture, from the views whose hashes
   met, refined by maximising the correlation of several frame pairs at once (enhanced correlation
   coefficient; Evangelidis and Psarakis, IEEE TPAMI 30(10), 2008);
2. time: for every offset and rate, the correlation of what is left when each clip's mean picture over
   the common stretch is taken away, and each frame's mean grey: the residual of motion. All of them
   come from three matrices of products between frames;
3. both once more, from the best of these.

Coordinates are in thumbnail pixels, (x, y); an affine map is `(2, 3)`. Inside, time in the training clip
= rate * time in the held-out clip + offset, in frames; outside, `speed` is how much faster the training
clip plays, and an offset holds at the start of the stretch that both share.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.matching.search_kernels import compiled
from curation.media.frames import FPS
from curation.media.video_hash import THUMB_PX, VIEWS, Box, Boxes

VERSION = "align_video/2"  # raised whenever a number or a step here changes
RATES = (1.0, 1 / 1.05, 1 / 0.95, 1 / 1.1, 1 / 0.9, 0.8, 1.25)  # that re-uploads are known to have
_UNLIKELY = 0.03  # by which another rate must be better
_MAX_FRAMES = 30 * FPS  # of a long clip, the stretch around where the hashes met
_MIN_SHARED = 2 * FPS  # frames; shorter stretches agree by accident, except of clips that are shorter
_PAIRS = 5  # frame pairs that decide the map together
_LEVELS = ((2.0, 6), (0.7, 6))  # blur in pixels, and steps of the refinement at it
_MAX_VIEWS = 8  # pairs of views that are looked at, of those in which hashes met
_MAX_STARTS = 3  # maps that are refined, of those the views suggest
_LOOK_ALIKE = 0.35  # correlation of the frames that met; below it they did by accident
_MIN_AREA = 0.2  # of the held-out picture that the training clip must show
STILL = 3.0  # grey levels squared of residual, below which nothing moves


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A frame of each clip whose hashes met, and the views in which they did."""

    heldout_ms: int
    train_ms: int
    heldout_view: int
    train_view: int
    distance: int

    def turned(self) -> "Hit":
        """The same with the sides exchanged."""
        return Hit(
            heldout_ms=self.train_ms,
            train_ms=self.heldout_ms,
            heldout_view=self.train_view,
            train_view=self.heldout_view,
            distance=self.distance,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMatch:
    """How well two clips agree where they agree best."""

    score: float  # correlation of the residuals of motion, -1 to 1
    steady: float  # the same without what drifts slowly
    appearance: float  # correlation of the pictures themselves
    offset_s: float
    start_s: float  # of the stretch that both share, in the held-out clip
    speed: float  # above 1: the training clip plays faster
    mirrored: bool
    map: np.ndarray  # float64 (2, 3), held-out thumbnail to training thumbnail
    area: float  # share of the held-out picture that both show
    shared_s: float  # of the held-out clip
    energy: float  # variance of the weaker residual, grey levels squared

    @property
    def rank(self) -> float:
        """By which the best of several alignments is chosen: what moves alike before what looks so."""
        return self.score if self.energy >= STILL else self.appearance - 1.0

    @property
    def convincing(self) -> bool:
        """Whether another alignment need not be looked for."""
        return self.score > 0.9 and self.energy >= STILL


def align_video(
    heldout: np.ndarray,
    train: np.ndarray,
    hits: Sequence[Hit],
    *,
    boxes: tuple[Boxes, Boxes],
) -> VideoMatch | None:
    """The best alignment of two clips near where their hashes met; None where there is none.

    Args:
        heldout, train: thumbnails, uint8 `(frames, THUMB_PX, THUMB_PX)` at FPS.
        hits: frames that look alike.
        boxes: of the pictures; the thumbnails show them without bars.
    """
    best: VideoMatch | None = None
    for start in _promising(heldout, train, _starts(hits, boxes)):
        found = _align_from(heldout, train, start)
        if found is not None and (best is None or found.rank > best.rank):
            best = found
            if found.convincing:
                break
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """Where an alignment begins."""

    map: np.ndarray
    mirrored: bool
    times_s: tuple[tuple[float, float], ...]  # of frames that look alike, held-out and training


def _starts(hits: Sequence[Hit], boxes: tuple[Boxes, Boxes]) -> list[_Start]:
    """Maps that the hits suggest, those with most hits first."""
    by_views: dict[tuple[int, int], list[Hit]] = {}
    for hit in hits:
        by_views.setdefault((hit.heldout_view, hit.train_view), []).append(hit)
    ranked = sorted(
        by_views.items(), key=lambda item: (-_votes(item[1]), min(h.distance for h in item[1]), item[0])
    )
    # What stands still may have met in any view; most copies show the whole picture.
    chosen = [*ranked[: _MAX_VIEWS - 1], *(((0, 0), found) for (ours, theirs), found in ranked[:1]
              if VIEWS[ours].mirrored == VIEWS[theirs].mirrored)]  # fmt: skip
    starts = []
    for (heldout_view, train_view), found in chosen:
        mirrored = VIEWS[heldout_view].mirrored != VIEWS[train_view].mirrored
        offset_ms = _common_offset(found)
        near = sorted(
            (h for h in found if abs(h.train_ms - h.heldout_ms - offset_ms) <= 500),
            key=lambda h: (h.distance, h.heldout_ms, h.train_ms),
        )
        starts.append(
            _Start(
                map=_map_of_views(heldout_view, train_view, boxes, mirrored=mirrored),
                mirrored=mirrored,
                times_s=tuple((h.heldout_ms / 1000, h.train_ms / 1000) for h in near[:_PAIRS]),
            )
        )
    return starts


def _votes(hits: list[Hit]) -> int:
    return len({(h.heldout_ms, h.train_ms) for h in hits})


def _common_offset(hits: list[Hit]) -> int:
    """The offset in ms that most hits have, within half a second; the nearest hashes decide a draw."""
    offsets = np.array([h.train_ms - h.heldout_ms for h in hits])
    weights = np.array([14.0 - h.distance for h in hits])
    near = np.abs(offsets[:, None] - offsets[None]) <= 500
    return int(offsets[np.argmax(near @ weights)])


def _map_of_views(
    heldout_view: int, train_view: int, boxes: tuple[Boxes, Boxes], *, mirrored: bool
) -> np.ndarray:
    """The map that lays one view over the other; of a mirrored pair, after the held-out is mirrored."""
    from_, to = _in_box(heldout_view, boxes[0]), _in_box(train_view, boxes[1])
    if mirrored:
        from_ = (1 - from_[2], from_[1], 1 - from_[0], from_[3])
    made = np.zeros((2, 3))
    for axis in (0, 1):
        scale = (to[axis + 2] - to[axis]) / (from_[axis + 2] - from_[axis])
        made[axis, axis] = scale
        # edges of pixels lie half a pixel beside their centres
        made[axis, 2] = (to[axis] - from_[axis] * scale) * THUMB_PX - 0.5 + 0.5 * scale
    return made


def _in_box(view: int, boxes: Boxes) -> Box:
    """What a view shows, as shares of the picture without bars."""
    left, top, right, bottom = boxes.region(view)
    box = boxes.picture
    width, height = box[2] - box[0], box[3] - box[1]
    return (
        (left - box[0]) / width, (top - box[1]) / height,
        (right - box[0]) / width, (bottom - box[1]) / height,
    )  # fmt: skip


def _promising(heldout: np.ndarray, train: np.ndarray, starts: list[_Start]) -> list[_Start]:
    """The starts whose frames agree best after a rough refinement, one for each place they lead to."""
    fits = []
    for number, start in enumerate(starts):
        ours = heldout[:, :, ::-1] if start.mirrored else heldout
        pairs = _pairs_of(start, len(heldout), len(train))[:2]
        a, b = ours[pairs[:, 0]].astype(np.float32), train[pairs[:, 1]].astype(np.float32)
        found, fit = _ecc(_blurred(a, _LEVELS[0][0]), _blurred(b, _LEVELS[0][0]), start.map, 4)
        fits.append((-fit, number, found))
    chosen: list[tuple[_Start, np.ndarray]] = []
    for _, number, found in sorted(fits, key=lambda entry: entry[:2]):
        start = starts[number]
        if not any(
            start.mirrored == other.mirrored and np.abs(found - place).max() < 1.0
            for other, place in chosen
        ):
            chosen.append((start, found))
    return [start for start, _ in chosen[:_MAX_STARTS]]


def _pairs_of(start: _Start, ours: int, theirs: int) -> np.ndarray:
    """Numbers of the frames that look alike, int64 `(k, 2)`."""
    return np.array([(_frame(a_s, ours), _frame(b_s, theirs)) for a_s, b_s in start.times_s])


# ---- one alignment --------------------------------------------------------------------------------


def _align_from(heldout: np.ndarray, train: np.ndarray, begin: _Start) -> VideoMatch | None:
    """Space, time, then space by what moves, and time again."""
    if begin.mirrored:
        heldout = heldout[:, :, ::-1]
    ours, ours_from = _stretch(heldout, [t for t, _ in begin.times_s])
    theirs, theirs_from = _stretch(train, [t for _, t in begin.times_s])
    pairs = _pairs_of(begin, len(heldout), len(train)) - (ours_from, theirs_from)
    pairs = np.clip(pairs, 0, (len(ours) - 1, len(theirs) - 1))
    refined, fit = _refine(ours, theirs, pairs, begin.map)
    if fit < _LOOK_ALIKE:
        return None
    # Text or a logo on one of the copies may have drawn the refined map away from the views.
    found, time = _better(ours, theirs, (refined, begin.map))
    if time is not None and time.score > 0.1 and time.energy > STILL:
        moving, _ = _refine(ours, theirs, time.pairs(len(ours), len(theirs)), found, of_motion=True)
        again, later = _better(ours, theirs, (moving,))
        if later is not None and later.score >= time.score:
            found, time = again, later
    if time is None:
        return None
    look = _look(ours, theirs, found, time)
    start = max(0, int(np.ceil(-time.offset / time.rate - 1e-9)))
    there = time.rate * start + time.offset
    return VideoMatch(
        score=look.score,
        steady=look.steady,
        appearance=look.appearance,
        offset_s=round(float(there + theirs_from - start - ours_from) / FPS, 4),
        start_s=(start + ours_from) / FPS,
        speed=round(1 / time.rate, 4),
        mirrored=begin.mirrored,
        map=found,
        area=round(time.area, 4),
        shared_s=round((time.frames - 1) / FPS, 3),
        energy=round(time.energy, 2),
    )


def _better(
    ours: np.ndarray, theirs: np.ndarray, maps: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, "_InTime | None"]:
    """The map under which the motion agrees best, and where in time it does."""
    times = [_in_time(ours, theirs, map_) for map_ in maps]
    scores = [-2.0 if time is None else time.score for time in times]
    best = scores.index(max(scores))
    return maps[best], times[best]


def _frame(time_s: float, frames: int) -> int:
    return min(max(round(time_s * FPS), 0), frames - 1)


def _stretch(thumbs: np.ndarray, times_s: list[float]) -> tuple[np.ndarray, int]:
    """A long clip's frames around these times, as float32, and the number of the first of them."""
    if len(thumbs) <= _MAX_FRAMES:
        return np.ascontiguousarray(thumbs, np.float32), 0
    middle = round(sum(times_s) / len(times_s) * FPS)
    begin = min(max(middle - _MAX_FRAMES // 2, 0), len(thumbs) - _MAX_FRAMES)
    return np.ascontiguousarray(thumbs[begin : begin + _MAX_FRAMES], np.float32), begin


# ---- space ----------------------------------------------------------------------------------------


def _refine(
    ours: np.ndarray,
    theirs: np.ndarray,
    pairs: np.ndarray,
    start: np.ndarray,
    *,
    of_motion: bool = False,
) -> tuple[np.ndarray, float]:
    """The map that makes these frame pairs agree best, and how well they do.

    Args:
        of_motion: without the mean picture of each side: what stands still, as a logo does, has no say.
    """
    pairs = np.unique(pairs, axis=0)
    a, b = ours[pairs[:, 0]], theirs[pairs[:, 1]]
    if of_motion:
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    found, fit = start.astype(np.float64), -1.0
    for blur, steps in _LEVELS:
        found, fit = _ecc(_blurred(a, blur), _blurred(b, blur), found, steps)
    return found, fit


def _blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of `(k, side, side)` by two products of matrices; edges count once."""
    kernel = _blur_matrix(frames.shape[-1], sigma)
    return np.ascontiguousarray(kernel @ frames @ kernel.T)


def _blur_matrix(side: int, sigma: float) -> np.ndarray:
    key = (side, sigma)
    if key not in _BLURS:
        steps = np.arange(side)
        kernel = np.exp(-0.5 * ((steps[:, None] - steps[None]) / sigma) ** 2)
        _BLURS[key] = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return _BLURS[key]


_BLURS: dict[tuple[int, float], np.ndarray] = {}


@compiled
def _ecc(
    ours: np.ndarray, theirs: np.ndarray, start: np.ndarray, steps: int
) -> tuple[np.ndarray, float]:
    """`steps` Gauss-Newton steps of the enhanced correlation coefficient from the map `start`.

    Returns the best map on the way and its correlation; -1 where the pictures do not meet.
    """
    map_, best, best_fit = start.copy(), start.copy(), -1.0
    values = np.empty((ours.shape[1] * ours.shape[2], 8))
    for step in range(steps + 1):
        products, n = _products(ours, theirs, map_, values)
        ww, tt, wt = products[6, 6], products[7, 7], products[6, 7]
        if n < 0.15 * ours.size or ww <= 1e-6 or tt <= 1e-6:
            break
        fit = wt / np.sqrt(ww * tt)
        if fit > best_fit:
            best_fit, best = fit, map_.copy()
        if step == steps:
            break
        hessian = products[:6, :6].copy()
        for c in range(6):
            hessian[c, c] = 1.001 * hessian[c, c] + 1e-6
        gw, gt = products[:6, 6].copy(), products[:6, 7].copy()
        pw, pt = np.linalg.solve(hessian, gw), np.linalg.solve(hessian, gt)
        above, below = ww - (gw * pw).sum(), wt - (gt * pw).sum()
        scale = above / below if below > 1e-9 else wt / tt
        change = scale * pt - pw
        for c in range(3):
            map_[0, c] += change[c]
            map_[1, c] += change[3 + c]
        if not (0.3 < map_[0, 0] < 3.3 and 0.3 < map_[1, 1] < 3.3):
            break
        if abs(map_[0, 1]) > 0.35 or abs(map_[1, 0]) > 0.35:
            break
    return best, best_fit


@compiled
def _products(
    ours: np.ndarray, theirs: np.ndarray, map_: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, int]:
    """Sums over pixels of products of eight values, each without its mean in the frame, and the pixels.

    The values: how the warped picture changes with the six numbers of the map, that picture, ours.

    Args:
        values: room for them, `(side * side, 8)`.
    """
    frames, side, _ = ours.shape
    products, pixels = np.zeros((8, 8)), 0
    total = np.empty(8)
    for k in range(frames):
        n = 0
        total[:] = 0
        for y in range(side):
            for x in range(side):
                u = map_[0, 0] * x + map_[0, 1] * y + map_[0, 2]
                v = map_[1, 0] * x + map_[1, 1] * y + map_[1, 2]
                if u < 0 or v < 0 or u > side - 1.001 or v > side - 1.001:
                    continue
                i, j = int(v), int(u)
                fy, fx = v - i, u - j
                p00, p01 = theirs[k, i, j], theirs[k, i, j + 1]
                p10, p11 = theirs[k, i + 1, j], theirs[k, i + 1, j + 1]
                gx = (1 - fy) * (p01 - p00) + fy * (p11 - p10)
                gy = (1 - fx) * (p10 - p00) + fx * (p11 - p01)
                value = values[n]
                value[0], value[1], value[2] = gx * x, gx * y, gx
                value[3], value[4], value[5] = gy * x, gy * y, gy
                value[6] = (1 - fy) * ((1 - fx) * p00 + fx * p01) + fy * ((1 - fx) * p10 + fx * p11)
                value[7] = ours[k, y, x]
                for c in range(8):
                    total[c] += value[c]
                n += 1
        if n:
            for c in range(0, 8, 2):
                _add_products(values, n, c, products)
            for c in range(8):
                for d in range(8):
                    products[c, d] -= total[c] * total[d] / n
        pixels += n
    return products, pixels


@compiled
def _add_products(values: np.ndarray, n: int, c: int, products: np.ndarray) -> None:
    """Add the products of values c and c + 1 of the first n pixels with all eight.

    The sums are kept apart by name so that they stay in registers.
    """
    a0, a1, a2, a3 = products[c, 0], products[c, 1], products[c, 2], products[c, 3]
    a4, a5, a6, a7 = products[c, 4], products[c, 5], products[c, 6], products[c, 7]
    e = c + 1
    b0, b1, b2, b3 = products[e, 0], products[e, 1], products[e, 2], products[e, 3]
    b4, b5, b6, b7 = products[e, 4], products[e, 5], products[e, 6], products[e, 7]
    for p in range(n):
        a, b = values[p, c], values[p, c + 1]
        v0, v1, v2, v3 = values[p, 0], values[p, 1], values[p, 2], values[p, 3]
        v4, v5, v6, v7 = values[p, 4], values[p, 5], values[p, 6], values[p, 7]
        a0, a1, a2, a3 = a0 + a * v0, a1 + a * v1, a2 + a * v2, a3 + a * v3
        a4, a5, a6, a7 = a4 + a * v4, a5 + a * v5, a6 + a * v6, a7 + a * v7
        b0, b1, b2, b3 = b0 + b * v0, b1 + b * v1, b2 + b * v2, b3 + b * v3
        b4, b5, b6, b7 = b4 + b * v4, b5 + b * v5, b6 + b * v6, b7 + b * v7
    products[c] = np.array((a0, a1, a2, a3, a4, a5, a6, a7))
    products[e] = np.array((b0, b1, b2, b3, b4, b5, b6, b7))


# ---- time -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _InTime:
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
        chosen = both[np.linspace(0, len(both) - 1, min(_PAIRS + 1, len(both))).astype(int)]
        return np.stack([chosen, j[chosen]], axis=1)


def _in_time(ours: np.ndarray, theirs: np.ndarray, map_: np.ndarray) -> _InTime | None:
    """The offset and rate at which the residuals of motion agree best."""
    seen, u, v = _seen(theirs.shape[-1], map_)
    area = len(seen) / theirs[0].size
    if area < _MIN_AREA or min(len(ours), len(theirs)) < 2:
        return None
    a, b = _residuals(_pixels(ours, seen)), _residuals(_sample(theirs, u, v))
    shortest = min(_MIN_SHARED, max(FPS, 2 * min(len(ours), len(theirs)) // 3))
    aa, ab, bb = (np.asarray(m, np.float64) for m in (a @ a.T, a @ b.T, b @ b.T))
    score, offset, rate, frames, energy = _search(aa, ab, bb, np.array(RATES), shortest)
    return _InTime(
        score=float(score), offset=float(offset), rate=float(rate), frames=int(frames),
        energy=float(energy) / len(seen), area=area,
    )  # fmt: skip


def _residuals(pixels: np.ndarray) -> np.ndarray:
    """`(frames, pixels)`, changed to be without the mean of each frame and the mean picture of all."""
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels -= pixels.mean(axis=0)
    return pixels


def _pixels(frames: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A copy of these pixels of every frame, float32 `(frames, places)`."""
    chosen: np.ndarray = frames.reshape(len(frames), -1).take(places, axis=1)
    return chosen


@functools.cache
def _places(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of all pixels, line by line; float64."""
    y, x = np.divmod(np.arange(side * side, dtype=np.float64), side)
    return x, y


def _seen(side: int, map_: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which pixels of the held-out clip the training clip shows, and where: places, columns, rows."""
    x, y = _places(side)
    u = map_[0, 0] * x + map_[0, 1] * y + map_[0, 2]
    v = map_[1, 0] * x + map_[1, 1] * y + map_[1, 2]
    seen = np.flatnonzero((u >= -0.5) & (v >= -0.5) & (u <= side - 0.5) & (v <= side - 0.5))
    return seen, np.clip(u[seen], 0, side - 1.001), np.clip(v[seen], 0, side - 1.001)


@compiled
def _sample(frames: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear samples `(n, places)` of `(n, side, side)` at columns `u` and rows `v`."""
    n, side, _ = frames.shape
    places = np.empty(len(u), np.int64)
    weights = np.empty((4, len(u)), np.float32)
    for p in range(len(u)):
        i, j = int(v[p]), int(u[p])
        fy, fx = v[p] - i, u[p] - j
        places[p] = i * side + j
        weights[0, p], weights[1, p] = (1 - fy) * (1 - fx), (1 - fy) * fx
        weights[2, p], weights[3, p] = fy * (1 - fx), fy * fx
    out = np.empty((n, len(u)), np.float32)
    flat = frames.reshape(n, side * side)
    for k in range(n):
        for p in range(len(u)):
            q = places[p]
            out[k, p] = (
                weights[0, p] * flat[k, q] + weights[1, p] * flat[k, q + 1]
                + weights[2, p] * flat[k, q + side] + weights[3, p] * flat[k, q + side + 1]
            )  # fmt: skip
    return out


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
class _Look:
    """What the aligned frames say once more, all of them side by side."""

    appearance: float
    score: float
    steady: float


def _look(ours: np.ndarray, theirs: np.ndarray, map_: np.ndarray, time: _InTime) -> _Look:
    """Correlation of the mean pictures, and of what moves apart from a slow drift.

    Two days of one street both get brighter: a drift has one pattern in time, whatever it is of.
    """
    i = np.arange(len(ours))
    place = time.rate * i + time.offset
    i = i[(place >= 0) & (place <= len(theirs) - 1)]
    place = place[i]
    j = np.minimum(place.astype(int), max(0, len(theirs) - 2))
    part = (place - j).astype(np.float32)[:, None]
    seen, u, v = _seen(theirs.shape[-1], map_)
    pixels = _sample(theirs, u, v)
    a, b = _pixels(ours[i], seen), pixels[j]
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
    return _Look(pictures, _share(products), _share(products - drifts))


def _share(products: np.ndarray) -> float:
    """Correlation, from the two squares and the product."""
    norm = float(np.sqrt(max(products[0], 0.0) * max(products[1], 0.0)))
    return round(float(products[2]) / norm, 4) if norm > 1e-6 else 0.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return _share(np.array([np.vdot(a, a), np.vdot(b, b), np.vdot(a, b)], np.float64))
