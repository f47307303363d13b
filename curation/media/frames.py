"""Pictures at fixed times, in grey and small: what every hash and thumbnail is made from.

Time runs on the clip's clock, in seconds. The picture at a time is the last one shown by then, so that
frame rates may vary and differ. Pictures come upright and whole, rows before columns.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av
    from av.video.reformatter import VideoReformatter

FPS = 8  # a multiple of the rate at which frames are hashed
_SIDE_PX = 96  # the shorter side keeps at least this many lines, if it has them
_LATE_S = 1e-6  # a frame this late still counts as shown in time: containers round
# Formats whose first plane is luma, a byte a pixel.
_LUMA_FIRST = frozenset(
    (
        "yuv420p",
        "yuvj420p",
        "yuv422p",
        "yuvj422p",
        "yuv444p",
        "yuvj444p",
        "yuv411p",
        "nv12",
        "nv21",
        "gray",
    )
)


class FrameGrid:
    """Takes decoded frames in order and keeps the picture of every 1/FPS s, as uint8 `(h, w)`."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        # One for all frames: to set a scaler up takes longer than to scale.
        self._reformatter = VideoReformatter()
        self._shown: av.VideoFrame | None = None
        self._shown_at_s = 0.0
        self._shape: tuple[int, ...] = ()
        self._num = 0

    def add(self, time_s: float, frame: "av.VideoFrame") -> list[np.ndarray]:
        """The pictures whose times passed when this frame came, most often none or one."""
        pictures = self._until(time_s - _LATE_S)
        self._shown, self._shown_at_s = frame, time_s
        return pictures

    def finish(self, end_s: float | None = None) -> list[np.ndarray]:
        """The pictures until `end_s`; without an end, the last frame is shown at its own time."""
        end_s = self._shown_at_s if end_s is None else end_s
        return self._until(max(end_s, self._shown_at_s + 2 * _LATE_S) - _LATE_S)

    def _until(self, end_s: float) -> list[np.ndarray]:
        if self._shown is None or self._num / FPS >= end_s:
            return []
        picture = small_luma(self._reformatter, self._shown)
        self._shape = self._shape or picture.shape
        if picture.shape != self._shape:  # the size changed within the stream
            rows, columns = (
                np.arange(n) * m // n for n, m in zip(self._shape, picture.shape, strict=True)
            )
            picture = picture[np.ix_(rows, columns)]
        pictures = []
        while self._num / FPS < end_s:
            pictures.append(picture)
            self._num += 1
        return pictures


def small_luma(reformatter: "VideoReformatter", frame: "av.VideoFrame") -> np.ndarray:
    """Every k-th pixel of every k-th line of a frame's luma, upright; uint8.

    What is made of it averages over many pixels, so that skipping costs little (residual correlation
    with averaging all of them 0.98 to 0.9997) and an eighth of the time of scaling.
    """
    step = max(1, min(frame.width, frame.height) // _SIDE_PX)
    if frame.format.name not in _LUMA_FIRST:
        width, height = -(-frame.width // step), -(-frame.height // step)
        frame = reformatter.reformat(
            frame, width=width, height=height, format="gray", interpolation="AREA"
        )
        step = 1
    plane = frame.planes[0]
    lines = np.frombuffer(memoryview(plane), np.uint8, plane.line_size * frame.height)
    lines = lines.reshape(frame.height, -1)
    luma = lines[step // 2 :: step, step // 2 : frame.width : step].copy()
    return np.rot90(luma, round(frame.rotation / 90)) if frame.rotation else luma


class UprightRgb:
    """Turns decoded frames into RGB, upright or as they are; uint8 `(h, w, 3)`, contiguous."""

    def __init__(self, *, turned: bool = True) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._turned = turned

    def __call__(self, frame: "av.VideoFrame") -> np.ndarray:
        """The pixels of a frame, bit for bit those of `frame.to_ndarray(format="rgb24")`."""
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        lines = np.frombuffer(memoryview(plane), np.uint8, plane.line_size * rgb.height)
        lines = lines.reshape(rgb.height, plane.line_size)[:, : 3 * rgb.width]
        pixels = lines.reshape(rgb.height, rgb.width, 3)
        if self._turned and frame.rotation:
            pixels = np.rot90(pixels, round(frame.rotation / 90))
        return np.ascontiguousarray(pixels)


def area_weights(begin: float, end: float, cells: int, side: int) -> np.ndarray:
    """Weights `(cells, side)` that average the stretch [begin, end) of a side into equal cells; float32.

    Args:
        begin, end: as shares of the side.
    """
    edges = np.linspace(begin * side, end * side, cells + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(covered, 0, None)
    shares: np.ndarray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
