"""Which frames the image encoders see, and how they are made small.

Shapes: T frames, C channels, H W. Pixels are uint8 throughout, as in the reference: PyTorch's kernel for
bytes rounds between its two passes, so that floats would give other pixels.

**Which ones.** A clock ticks at 0, 1/r, 2/r … for each rate r; at each tick the first frame is taken
whose presentation time is at it or later, so that frames of slow videos come several times:

    video at 15 fps     a         b         c         d
                        0         0.067     0.133     0.2
    ticks at 25 fps     0     0.04   0.08   0.12   0.16   0.20
    taken               a     b      c      c      d      d

Ticks are accumulated by addition, whose rounding is part of what the reference gives.
Source: the frame reading of hkchengrex/MMAudio@974010a, at 8 and 25 fps.
"""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from curation.media.frames import UprightRgb
from curation.media.one_pass import Enough
from features.spec import CLIP_FPS, CLIP_SIDE_PX, SYNC_FPS, SYNC_SIDE_PX

Frame = Any  # av.VideoFrame, which only curation.media knows
_CLOSE_S = 1e-6  # between a time and the same one computed from whole numbers
_STEP, _BLOCK = 4, 3  # of the pixels compared for stillness: every 4th, means over 3 by 3 of them
_MOVES = 0.5  # grey levels that a mean pixel changes by; as in curation.media.video_hash


def clip_frame(frame_hwc: np.ndarray) -> torch.Tensor:
    """A picture for CLIP, uint8 `(3, 384, 384)`: squeezed to a square, bicubic with antialiasing."""
    return _resized(frame_hwc, CLIP_SIDE_PX, CLIP_SIDE_PX)


def sync_frame(frame_hwc: np.ndarray) -> torch.Tensor:
    """A picture for Synchformer, uint8 `(3, 224, 224)`: the middle, its shorter side made 224."""
    height, width = frame_hwc.shape[:2]
    longer = int(SYNC_SIDE_PX * max(height, width) / min(height, width))
    high, wide = (longer, SYNC_SIDE_PX) if height > width else (SYNC_SIDE_PX, longer)
    whole = _resized(frame_hwc, high, wide)
    top, left = round((high - SYNC_SIDE_PX) / 2), round((wide - SYNC_SIDE_PX) / 2)  # half to even
    return whole[:, top : top + SYNC_SIDE_PX, left : left + SYNC_SIDE_PX]


def _resized(frame_hwc: np.ndarray, height: int, width: int) -> torch.Tensor:
    # Channels last, as the pixels lie: the kernel is up to three times faster so, to the same bytes.
    picture_bchw = torch.from_numpy(frame_hwc).permute(2, 0, 1)[None]
    return interpolate(picture_bchw, size=(height, width), mode="bicubic", antialias=True)[0]


class FrameClock:
    """Ticks at one rate."""

    def __init__(self, fps: int, wanted: int | None = None) -> None:
        self._step_s, self._tick_s = 1.0 / fps, 0.0
        self._left = wanted
        self.num_taken = 0

    @property
    def is_full(self) -> bool:
        """Whether no more are wanted."""
        return self._left == 0

    def take(self, time_s: float, *, late: bool = True) -> int:
        """How often the frame of that time is taken: ticks at it or before.

        Args:
            late: whether a tick at that very time counts.
        """
        begun = self.num_taken
        while self._left != 0 and (self._tick_s < time_s or (late and self._tick_s == time_s)):
            self._tick_s += self._step_s
            self.num_taken += 1
            self._left = None if self._left is None else self._left - 1
        return self.num_taken - begun


class FrameTaker:
    """Takes decoded frames in order, and puts those that are wanted where they are wanted."""

    def __init__(self, clip_tchw: np.ndarray, sync_tchw: np.ndarray, *, until_s: float | None) -> None:
        """Where frames go.

        Args:
            clip_tchw: uint8 `(T, 3, 384, 384)`, filled at 8 fps.
            sync_tchw: uint8 `(T, 3, 224, 224)`, filled at 25 fps.
            until_s: as the reference: times are the file's own, none after this is seen, frames are not
                turned and the last one does not stand. None: times count from the first frame.
        """
        self._clip, self._sync = torch.from_numpy(clip_tchw), torch.from_numpy(sync_tchw)
        self._clip_tchw = clip_tchw
        self._clip_clock = FrameClock(CLIP_FPS, len(clip_tchw))
        self._sync_clock = FrameClock(SYNC_FPS, len(sync_tchw))
        self._until_s = until_s
        self._rgb = UprightRgb(turned=until_s is None)
        self._first_pts: int | None = None
        self._latest: Any = None

    def add(self, time_s: float, frame: Frame) -> None:
        """Take the next frame.

        Raises:
            Enough: no more are wanted.
        """
        time_s = self._exact(time_s, frame)
        if self._until_s is not None and time_s > self._until_s:
            raise Enough
        self._take(frame, self._clip_clock.take(time_s), self._sync_clock.take(time_s))
        self._latest = frame
        if self._clip_clock.is_full and self._sync_clock.is_full:
            raise Enough

    def finish(self, end_s: float | None) -> None:
        """Let the last frame stand until the pictures end, on the clip's clock."""
        if self._until_s is None and end_s is not None and self._latest is not None:
            ends = end_s - _CLOSE_S
            clocks = self._clip_clock, self._sync_clock
            self._take(self._latest, *(clock.take(ends, late=False) for clock in clocks))
        self._latest = None

    @property
    def num_missing(self) -> tuple[int, int]:
        """Frames at 8 and at 25 fps that were wanted and did not come."""
        return (
            len(self._clip) - self._clip_clock.num_taken,
            len(self._sync) - self._sync_clock.num_taken,
        )

    def still_share(self) -> float:
        """Of successive frames at 8 fps, the share that are one picture."""
        return still_share(self._clip_tchw[: self._clip_clock.num_taken])

    def _exact(self, time_s: float, frame: Frame) -> float:
        """The same time without the rounding of a difference: it may not decide which frame is taken."""
        pts, base = frame.pts, frame.time_base
        if pts is None or base is None:
            return time_s
        if self._first_pts is None:
            self._first_pts = pts if self._until_s is None else 0
        exact = float(pts - self._first_pts) * base.numerator / base.denominator
        return exact if abs(exact - time_s) < _CLOSE_S else time_s

    def _take(self, frame: Frame, for_clip: int, for_sync: int) -> None:
        if not for_clip and not for_sync:
            return
        frame_hwc = self._rgb(frame)
        if for_clip:
            end = self._clip_clock.num_taken
            self._clip[end - for_clip : end] = clip_frame(frame_hwc)
        if for_sync:
            end = self._sync_clock.num_taken
            self._sync[end - for_sync : end] = sync_frame(frame_hwc)


def still_share(clip_tchw: np.ndarray) -> float:
    """Of successive frames, the share in which a mean pixel of a small green picture hardly changes."""
    if len(clip_tchw) < 2:
        return 1.0
    green = clip_tchw[:, 1, _STEP // 2 :: _STEP, _STEP // 2 :: _STEP]
    frames, height, width = green.shape
    blocks = green[:, : height // _BLOCK * _BLOCK, : width // _BLOCK * _BLOCK].astype(np.int32)
    shape = (frames, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    small = blocks.reshape(shape).sum(axis=(2, 4))
    changed = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2)) / _BLOCK**2
    return round(float((changed < _MOVES).mean()), 4)
