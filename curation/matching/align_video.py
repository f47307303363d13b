"""Whether two clips show the same pictures, decided by aligning them in space and in time.

A hash says that two frames look alike; half of all pairs from one room do. What is asked here is whether
they *move* alike. In three steps, on thumbnails `(frames, 32, 32)` of both clips:

1. space (align_space.py): an affine map from the held-out picture into the training picture, from the
   views whose hashes met, refined by maximising the correlation of several frame pairs at once;
2. time (align_time.py): for every offset and rate, the correlation of what is left when each clip's mean
   picture over the common stretch is taken away, and each frame's mean grey: the residual of motion. All
   of them come from three matrices of products between frames;
3. both once more, from the best of these.

Coordinates are in thumbnail pixels, (x, y); an affine map is `(2, 3)`. Inside, time in the training clip
= rate * time in the held-out clip + offset, in frames; outside, `speed` is how much faster the training
clip plays, and an offset holds at the start of the stretch that both share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.matching.align_space import LEVELS, blurred, ecc, refine
from curation.matching.align_time import PAIRS, InTime, in_time, look
from curation.media.frames import FPS
from curation.media.video_hash import THUMB_PX, VIEWS, Box, Boxes

VERSION = "align_video/2"  # raised whenever a number or a step here changes
_MAX_FRAMES = 30 * FPS  # of a long clip, the stretch around where the hashes met
_MAX_VIEWS = 8  # pairs of views that are looked at, of those in which hashes met
_MAX_STARTS = 3  # maps that are refined, of those the views suggest
_LOOK_ALIKE = 0.35  # correlation of the frames that met; below it they did by accident
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
                times_s=tuple((h.heldout_ms / 1000, h.train_ms / 1000) for h in near[:PAIRS]),
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
        found, fit = ecc(blurred(a, LEVELS[0][0]), blurred(b, LEVELS[0][0]), start.map, 4)
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
    refined, fit = refine(ours, theirs, pairs, begin.map)
    if fit < _LOOK_ALIKE:
        return None
    # Text or a logo on one of the copies may have drawn the refined map away from the views.
    found, time = _better(ours, theirs, (refined, begin.map))
    if time is not None and time.score > 0.1 and time.energy > STILL:
        moving, _ = refine(ours, theirs, time.pairs(len(ours), len(theirs)), found, of_motion=True)
        again, later = _better(ours, theirs, (moving,))
        if later is not None and later.score >= time.score:
            found, time = again, later
    if time is None:
        return None
    seen = look(ours, theirs, found, time)
    start = max(0, int(np.ceil(-time.offset / time.rate - 1e-9)))
    there = time.rate * start + time.offset
    return VideoMatch(
        score=seen.score,
        steady=seen.steady,
        appearance=seen.appearance,
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
) -> tuple[np.ndarray, InTime | None]:
    """The map under which the motion agrees best, and where in time it does."""
    times = [in_time(ours, theirs, map_) for map_ in maps]
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
