"""Small media made on the fly: a moving pattern and a rising tone, in any container and codec."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

MS = Fraction(1, 1000)


def make_media(
    path: Path,
    *,
    video: str | None = "libx264",
    size: tuple[int, int] = (64, 48),
    fps: int = 10,
    seconds: float = 2.0,
    pixels: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    audio: str | None = "aac",
    rate_hz: int = 44100,
    layout: str = "stereo",
    samples: str = "fltp",
    sound_begins_s: float = 0.0,
    container: dict[str, str] | None = None,
    codec: dict[str, str] | None = None,
    seed: int = 0,
    rotated: int = 0,
) -> Path:
    """Write a clip to `path`.

    Args:
        times_ms: presentation time of each picture; without it they are evenly spaced.
        samples: the sample format the encoder takes.
        seed: another number, another picture and tone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as out:
        pictures: Any = None
        sound: Any = None
        if video:
            pictures = out.add_stream(video, rate=fps)
            pictures.width, pictures.height = size
            pictures.pix_fmt, pictures.options = pixels, codec or {}
            pictures.time_base = pictures.codec_context.time_base = MS
            if rotated:
                pictures.set_display_rotation(rotated)
        if audio:
            sound = out.add_stream(audio, rate=rate_hz, layout=layout)
        if pictures is not None:
            times_ms = times_ms or [1000 * i // fps for i in range(int(seconds * fps))]
            for number, time_ms in enumerate(times_ms):
                frame = av.VideoFrame.from_ndarray(_picture(size, number, seed), format="rgb24")
                frame = frame.reformat(format=pixels)
                frame.pts, frame.time_base = time_ms, MS
                out.mux(pictures.encode(frame))
            out.mux(pictures.encode(None))
        if sound is not None:
            _add_sound(out, sound, seconds, rate_hz, layout, samples, sound_begins_s, seed)
    return path


def _picture(size: tuple[int, int], number: int, seed: int) -> np.ndarray:
    """A gradient with a bright square that moves right by a pixel each time."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    grey = ((x * (3 + seed) + y * 2) % 160).astype(np.uint8)
    left = (5 + seed * 7 + number) % max(1, width - 12)
    grey[height // 4 : height // 4 + 12, left : left + 12] = 235
    return np.repeat(grey[..., None], 3, axis=2)


def _add_sound(
    out: Any,
    sound: Any,
    seconds: float,
    rate_hz: int,
    layout: str,
    samples: str,
    begins_s: float,
    seed: int,
) -> None:
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    channels = len(av.AudioLayout(layout).channels)
    wave = np.stack([tone(time_s, seed)] * channels).astype(np.float32)
    for begin in range(0, wave.shape[1], 1024):
        part: Any = wave[:, begin : begin + 1024]
        if samples == "s16":
            part = (part.T.reshape(1, -1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format=samples, layout=layout)
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        frame.pts = begin + round(begins_s * rate_hz)
        out.mux(sound.encode(frame))
    out.mux(sound.encode(None))


def tone(time_s: np.ndarray, seed: int = 0) -> np.ndarray:
    """What the clips sound like."""
    return 0.4 * np.sin(2 * np.pi * (300 + 40 * seed + 150 * time_s) * time_s)
