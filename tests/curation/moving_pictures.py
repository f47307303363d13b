"""Made pictures that move, their prints, and brute force for what their hashes meet."""

from fractions import Fraction

import av
import numpy as np
from PIL import Image

from curation.matching.align_video import Hit
from curation.media.video_hash import BASE_VIEWS, FLAT, FrameHasher, VideoPrint


def print_of(pictures: list[np.ndarray], *, fps: float = 25, mode: str = "fast") -> VideoPrint:
    """The print of RGB pictures that are shown one after the other."""
    hasher = FrameHasher(mode)
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        hasher.add(number / fps, frame)
    made = hasher.finish(len(pictures) / fps)
    assert made is not None
    return made


def scene(seed: int, frames: int = 50, size: tuple[int, int] = (120, 160)) -> list[np.ndarray]:
    """A textured picture over which a patch moves."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    ground = np.asarray(small.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    made = []
    for k in range(frames):
        picture = ground.copy()
        x = 5 + 2 * k % (size[1] - 45)
        picture[30:70, x : x + 40] = 255 - picture[30:70, x : x + 40]
        made.append(picture)
    return made


def wandering(seed: int, frames: int = 100, size: tuple[int, int] = (144, 192)) -> list[np.ndarray]:
    """A textured picture over which three patches wander at random, each its own way."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    ground = np.asarray(small.resize((size[1], size[0]), Image.Resampling.BICUBIC)).copy()
    return [_with_patches(ground, path) for path in _paths(rng, frames, size)]


def other_motion(seed: int, motion: int, frames: int = 100) -> list[np.ndarray]:
    """The picture of `wandering(seed)` with other wanderings: the same room, another event."""
    size = (144, 192)
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    ground = np.asarray(small.resize((size[1], size[0]), Image.Resampling.BICUBIC)).copy()
    return [_with_patches(ground, path) for path in _paths(np.random.default_rng(motion), frames, size)]


def _paths(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Corners of three patches in every frame, int64 (frames, 3, 2)."""
    steps = np.cumsum(rng.normal(0, 6, (frames // 5 + 2, 3, 2)), axis=0) + rng.uniform(0, 100, (1, 3, 2))
    at = np.linspace(0, len(steps) - 1.001, frames)
    low, part = at.astype(int), (at % 1)[:, None, None]
    smooth = (1 - part) * steps[low] + part * steps[low + 1]
    room = np.array(size) - 40
    folded = np.abs((smooth + room) % (2 * room) - room)  # reflected at the edges
    return folded.astype(int)


def _with_patches(ground: np.ndarray, corners: np.ndarray) -> np.ndarray:
    picture = ground.copy()
    for number, (y, x) in enumerate(corners):
        picture[y : y + 36, x : x + 36] = (40 + 90 * number) ^ (picture[y : y + 36, x : x + 36] // 4)
    return picture


def hits_of(heldout: VideoPrint, train: VideoPrint, radius: int = 10) -> list[Hit]:
    """All pairs of frames that meet, one of them in a base view; by comparing all with all."""
    found = set()
    for ours, theirs, swapped in ((heldout, train, False), (train, heldout, True)):
        a, b = (
            np.flatnonzero(ours.flatness >= FLAT),
            np.flatnonzero((theirs.flatness >= FLAT) & np.isin(theirs.hash_view, BASE_VIEWS)),
        )
        distance = np.bitwise_count(ours.hash[a][:, None] ^ theirs.hash[b][None])
        for i, j in zip(*np.nonzero(distance <= radius), strict=True):
            x, y = a[i], b[j]
            ends = [(int(p.hash_ms[k]), int(p.hash_view[k])) for p, k in ((ours, x), (theirs, y))]
            first, second = ends[::-1] if swapped else ends
            found.add((first, second, int(distance[i, j])))
    return [
        Hit(heldout_ms=a[0], train_ms=b[0], heldout_view=a[1], train_view=b[1], distance=d)
        for a, b, d in sorted(found)
    ]
