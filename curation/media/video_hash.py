"""Perceptual hashes and thumbnails of a clip's pictures.

The hash is pHash: the 8 by 8 lowest frequencies of a 32 by 32 grey picture, each above or below their
median; row by row, highest bit first. Two modes, whose hashes are never compared with each other:

* `reference` equals `imagehash.phash` bit for bit (Pillow's grey and Lanczos, SciPy's DCT);
* `fast` averages luma over areas and does averaging and DCT in one product of matrices.

Each picture is hashed in several views, cut from the picture without its bars, so that crops, mirrored
copies and letterboxes find each other. Flatness is the standard deviation in grey levels of what the
hash sees; below `FLAT` a hash says nothing.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curation.media.frames import FPS, FrameGrid, area_weights

if TYPE_CHECKING:
    import av
    from PIL.Image import Image

VIDEO_VERSIONS = {"fast": "phash64-area/2", "reference": "phash64-imagehash/2"}
HASH_EVERY = 4  # of the grid: two hashes a second of the base views, one of every other
THUMB_PX = 32
FLAT = 4.0  # grey levels; Source: tests/benchmarks/README.md, "Radius"
_HASH_PX = 32  # imagehash.phash: hash_size 8 * highfreq_factor 4
_LOW = 8
_BOX_AFTER = 60 * FPS  # pictures after which the bars of a long clip are decided
_MOVES = 16  # grey levels between the darkest and the brightest that a moving place shows
_MOST_MOVING = 0.85  # of the picture; where more moves, that is no other view
_ZERO = 1e-2  # coefficients are sums over 1,024 grey levels; what rounding leaves of a true zero is less

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the whole
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class View:
    """A part of the picture, as shares of its box; `mirrored` left to right."""

    part: Box
    mirrored: bool = False


def _centre(share: float, height: float | None = None) -> Box:
    x, y = (1 - share) / 2, (1 - (height or share)) / 2
    return (x, y, 1 - x, 1 - y)


def _grid(share: float, places: int) -> tuple[Box, ...]:
    """Parts of that share of both sides, at so many places along each side."""
    steps = [(1 - share) * k / (places - 1) for k in range(places)]
    return tuple((x, y, x + share, y + share) for y in steps for x in steps)


_PARTS: tuple[Box, ...] = (
    _centre(0.9), _centre(0.6), _centre(0.5625, 1.0), _centre(1.0, 0.5625),
    *_grid(0.88, 2), *_grid(0.8, 3)[:4], *_grid(0.8, 3)[5:], *_grid(0.75, 2), *_grid(0.7, 4),
)  # fmt: skip
# The number of a view is its place here. The base views are what other clips' views are looked up in:
# the picture without bars, its middle, all of it with its bars, and where it moves.
VIEWS: tuple[View, ...] = (
    *(View(part) for part in (_WHOLE, _centre(0.8), _WHOLE, _WHOLE)),
    *(View(part) for part in _PARTS),
    *(View(part, mirrored=True) for part in (_WHOLE, _centre(0.8), *_PARTS)),
    View(_WHOLE, mirrored=True),
)  # fmt: skip
BASE_VIEWS = (0, 1, 2, 3)
_WITH_BARS = (2,)
_MOVING = (3, len(VIEWS) - 1)


@dataclass(frozen=True, slots=True)
class Boxes:
    """Parts of the whole picture of a clip."""

    picture: Box  # without bars
    moving: Box  # where anything moves; within the picture

    def views(self) -> list[int]:
        """The views that show something else than the others."""
        skipped: tuple[int, ...] = ()
        if self.picture == _WHOLE:
            skipped += _WITH_BARS
        if _share(self.moving, self.picture) > _MOST_MOVING:
            skipped += _MOVING
        return [view for view in range(len(VIEWS)) if view not in skipped]

    def region(self, view: int) -> Box:
        """The part of the whole picture that a view shows."""
        if view in _WITH_BARS:
            return _WHOLE
        left, top, right, bottom = self.moving if view in _MOVING else self.picture
        a, b, c, d = VIEWS[view].part
        width, height = right - left, bottom - top
        return (left + a * width, top + b * height, left + c * width, top + d * height)


def _share(part: Box, whole: Box) -> float:
    return ((part[2] - part[0]) * (part[3] - part[1])) / ((whole[2] - whole[0]) * (whole[3] - whole[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPrint:
    """What is kept of a clip's pictures; n hashes, m thumbnails."""

    hash_version: str
    hash_ms: np.ndarray  # int32 (n,)
    hash_view: np.ndarray  # uint8 (n,), place in VIEWS
    hash: np.ndarray  # uint64 (n,)
    flatness: np.ndarray  # float32 (n,), grey levels
    boxes: Boxes
    still_share: float  # of successive thumbnails that are one picture
    thumb_fps: float
    thumbs: np.ndarray  # uint8 (m, THUMB_PX, THUMB_PX), without bars


class FrameHasher:
    """Makes the print of one clip from its decoded frames, given in the order of their times."""

    def __init__(self, mode: str = "fast") -> None:
        self._mode = mode
        self._grid = FrameGrid()
        self._luma: list[np.ndarray] = []
        self._pictures: list[Image] = []  # in the reference mode: grey, upright, as large as they are
        self._shown: av.VideoFrame | None = None
        self._num = 0
        self._boxes: Boxes | None = None
        self._parts: list[tuple[np.ndarray, ...]] = []  # ms, view, hash, flatness of each stretch
        self._thumbs: list[np.ndarray] = []

    def add(self, time_s: float, frame: "av.VideoFrame") -> None:
        """Take the next frame; most are looked at only to see that they are not needed."""
        self._take(self._grid.add(time_s, frame))
        if self._mode == "reference":
            self._shown = frame  # the pictures that come next are of this one

    def finish(self, end_s: float | None = None) -> VideoPrint | None:
        """The print; None where no frame came.

        Args:
            end_s: when the last frame stops being shown.
        """
        self._take(self._grid.finish(end_s))
        self._flush()
        if not self._thumbs or self._boxes is None:
            return None
        thumbs = np.concatenate(self._thumbs)
        ms, view, hashes, flatness = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return VideoPrint(
            hash_version=VIDEO_VERSIONS[self._mode],
            hash_ms=ms,
            hash_view=view,
            hash=hashes,
            flatness=flatness,
            boxes=self._boxes,
            still_share=_still_share(thumbs),
            thumb_fps=float(FPS),
            thumbs=thumbs,
        )

    def _take(self, luma: list[np.ndarray]) -> None:
        for picture in luma:
            if self._mode == "reference" and self._num % HASH_EVERY == 0:
                assert self._shown is not None, "a picture without a frame"
                self._pictures.append(_grey_picture(self._shown))
            self._luma.append(picture)
            self._num += 1
            if len(self._luma) == _BOX_AFTER:
                self._flush()

    def _flush(self) -> None:
        """Hash what was collected, so that an hour takes no more memory than a minute."""
        if not self._luma:
            return
        luma = np.stack(self._luma)
        if self._boxes is None:
            self._boxes = find_boxes(luma)
        numbers = np.arange(self._num - len(luma), self._num)
        self._thumbs.append(_thumbnails(luma, self._boxes.picture))
        hashed = numbers % HASH_EVERY == 0
        seldom = numbers % (2 * HASH_EVERY) == 0
        views = self._boxes.views()
        for chosen, shown in (
            (hashed, [view for view in views if view in BASE_VIEWS]),
            (seldom, [view for view in views if view not in BASE_VIEWS]),
        ):
            if self._mode == "reference":
                pictures = [p for p, c in zip(self._pictures, chosen[hashed], strict=True) if c]
                coefficients = _coefficients_of_pictures(pictures, shown, self._boxes)
            else:
                coefficients = _coefficients(luma[chosen], shown, self._boxes)
            times_ms = (numbers[chosen] * (1000 // FPS)).astype(np.int32)
            self._parts.append((
                np.repeat(times_ms, len(shown)),
                np.tile(np.array(shown, np.uint8), len(times_ms)),
                bits_of(coefficients).reshape(-1),
                _flatness(coefficients).reshape(-1),
            ))  # fmt: skip
        self._luma, self._pictures = [], []


# ---- the fast mode --------------------------------------------------------------------------------


def _coefficients(pictures: np.ndarray, views: list[int], boxes: Boxes) -> np.ndarray:
    """Low frequencies of every view; float32 `(frames, views, 8, 8)`, vertical before horizontal."""
    frames, height, width = pictures.shape
    regions = list(dict.fromkeys(boxes.region(view) for view in views))
    across = np.concatenate([_frequencies(r[0], r[2], width) for r in regions])  # (regions * 8, width)
    down = np.stack([_frequencies(r[1], r[3], height) for r in regions])
    wide = pictures.reshape(-1, width).astype(np.float32) @ across.T
    wide = wide.reshape(frames, height, len(regions), _LOW)
    # one product for each region: (8, height) @ (height, frames * 8)
    narrow = down @ wide.transpose(2, 1, 0, 3).reshape(len(regions), height, -1)
    narrow = narrow.reshape(len(regions), _LOW, frames, _LOW).transpose(2, 0, 1, 3)
    coefficients: np.ndarray = narrow[:, [regions.index(boxes.region(view)) for view in views]]
    signs = np.where(np.arange(_LOW) % 2, -1, 1).astype(np.float32)  # of a mirrored cosine
    coefficients[:, [VIEWS[view].mirrored for view in views]] *= signs
    coefficients[np.abs(coefficients) < _ZERO] = 0
    return coefficients


@functools.lru_cache(maxsize=256)
def _frequencies(begin: float, end: float, side: int) -> np.ndarray:
    """Averaging and DCT of a stretch of a side, as one matrix `(8, side)`."""
    k, n = np.arange(_LOW)[:, None], np.arange(_HASH_PX)
    cosines = 2 * np.cos(np.pi * k * (2 * n + 1) / (2 * _HASH_PX))
    frequencies: np.ndarray = cosines.astype(np.float32) @ area_weights(begin, end, _HASH_PX, side)
    return frequencies


def bits_of(coefficients: np.ndarray) -> np.ndarray:
    """uint64 hashes of `(…, 8, 8)` coefficients: a bit is set where one is above their median."""
    flat = coefficients.reshape(-1, _LOW * _LOW)
    ordered = np.partition(flat, (31, 32), axis=1)
    median = (ordered[:, 31] + ordered[:, 32]) / 2
    bits = np.packbits(flat > median[:, None], axis=1)
    hashes: np.ndarray = bits.view(">u8").astype(np.uint64).reshape(coefficients.shape[:-2])
    return hashes


def _flatness(coefficients: np.ndarray) -> np.ndarray:
    """Standard deviation, in grey levels, of the low frequencies apart from their mean; float32."""
    # Parseval for an unnormalised DCT-II, in which the constant of an axis counts twice
    weights = np.full((_LOW, _LOW), 1 / (2 * _HASH_PX**2) ** 2, np.float32)
    weights[0] /= 2
    weights[:, 0] /= 2
    weights[0, 0] = 0
    flatness: np.ndarray = np.sqrt((coefficients**2 * weights).sum(axis=(-2, -1))).astype(np.float32)
    return flatness


# ---- the reference mode ---------------------------------------------------------------------------


def _grey_picture(frame: "av.VideoFrame") -> "Image":
    """The upright frame in Pillow's grey; imagehash converts before it resizes."""
    image: Image = frame.to_image().convert("L")  # type: ignore[no-untyped-call]
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _coefficients_of_pictures(pictures: "list[Image]", views: list[int], boxes: Boxes) -> np.ndarray:
    """Like `_coefficients`, by Pillow and SciPy; float64."""
    from PIL import Image, ImageOps
    from scipy.fft import dct

    small = np.empty((len(pictures), len(views), _HASH_PX, _HASH_PX), np.uint8)
    for i, picture in enumerate(pictures):
        mirrored = ImageOps.mirror(picture)
        for j, view in enumerate(views):
            image = mirrored if VIEWS[view].mirrored else picture
            left, top, right, bottom = boxes.region(view)
            if VIEWS[view].mirrored:
                left, right = 1 - right, 1 - left
            edges = (
                round(left * image.width), round(top * image.height),
                max(round(right * image.width), round(left * image.width) + 1),
                max(round(bottom * image.height), round(top * image.height) + 1),
            )  # fmt: skip
            if edges != (0, 0, image.width, image.height):
                image = image.crop(edges)
            small[i, j] = np.asarray(image.resize((_HASH_PX, _HASH_PX), Image.Resampling.LANCZOS))
    low = dct(dct(small.astype(np.float64), axis=2), axis=3)[..., :_LOW, :_LOW]
    return np.ascontiguousarray(low)


def phash(images: "list[Image]") -> np.ndarray:
    """uint64 hashes, equal to those of `imagehash.phash`, of images of any size and mode."""
    grey = [image.convert("L") for image in images]
    return bits_of(_coefficients_of_pictures(grey, [0], Boxes(_WHOLE, _WHOLE))[:, 0])


# ---- boxes and thumbnails -------------------------------------------------------------------------


def find_boxes(pictures: np.ndarray) -> Boxes:
    """The parts of uint8 pictures `(frames, h, w)` without bars, and where they move.

    A line at an edge is part of a bar if three quarters of it have one grey that never changes; a logo
    may stand on the rest. Natural walls and skies are not that even. A picture in a picture is where it
    moves, as long as what is around it stands still.
    """
    high, low = pictures.max(axis=0), pictures.min(axis=0)
    change = high - low
    still = change <= 6
    middle = (high.astype(np.float32) + low) / 2
    top, bottom = _inside(still, middle)
    left, right = _inside(still[top:bottom].T, middle[top:bottom].T)
    height, width = still.shape
    picture = (left / width, top / height, right / width, bottom / height)
    inner = change[top:bottom, left:right]
    moves = inner > max(_MOVES, 0.25 * float(np.percentile(inner, 95)))
    above, below = _extent(moves.mean(axis=1) > 0.05)
    first, last = _extent(moves.mean(axis=0) > 0.05)
    edges = (left + first, top + above, left + last, top + below)
    moving = (edges[0] / width, edges[1] / height, edges[2] / width, edges[3] / height)
    return Boxes(picture, moving)


def _extent(chosen: np.ndarray) -> tuple[int, int]:
    """From the first line that is chosen to the last; all of them where that is hardly anything."""
    lines = np.flatnonzero(chosen)
    if len(lines) == 0 or lines[-1] + 1 - lines[0] < len(chosen) // 4:
        return 0, len(chosen)
    return int(lines[0]), int(lines[-1]) + 1


def _inside(still: np.ndarray, middle: np.ndarray) -> tuple[int, int]:
    """The first line that is no bar, and the one after the last; all of them where little is left."""
    even = still & (np.abs(middle - np.median(middle, axis=1, keepdims=True)) <= 3)
    is_bar = even.mean(axis=1) >= 0.75
    if is_bar.all():
        return 0, len(is_bar)
    begin, end = int(np.argmin(is_bar)), len(is_bar) - int(np.argmin(is_bar[::-1]))
    return (begin, end) if end - begin >= len(is_bar) // 4 else (0, len(is_bar))


def _thumbnails(pictures: np.ndarray, box: Box) -> np.ndarray:
    """uint8 `(frames, THUMB_PX, THUMB_PX)` of what is in the box."""
    frames, height, width = pictures.shape
    across, down = (
        area_weights(box[0], box[2], THUMB_PX, width),
        area_weights(box[1], box[3], THUMB_PX, height),
    )
    wide = (pictures.reshape(-1, width).astype(np.float32) @ across.T).reshape(frames, height, THUMB_PX)
    thumbs: np.ndarray = np.rint(down @ wide).astype(np.uint8)
    return thumbs


def _still_share(thumbs: np.ndarray) -> float:
    if len(thumbs) < 2:
        return 1.0
    change = np.abs(np.diff(thumbs.astype(np.int16), axis=0)).mean(axis=(1, 2))
    return round(float((change < 0.5).mean()), 4)
