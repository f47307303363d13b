"""Frames and sound of a clip as the reference takes them, written from its description alone."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torchaudio
from torchvision.transforms import v2


def plain_sound(path: Path) -> tuple[np.ndarray, int]:
    """The mean of the channels of all that is decoded."""
    pieces, rate_hz = [], 0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray()
            if not frame.format.is_planar:
                samples = samples.reshape(-1, len(frame.layout.channels)).T
            if samples.dtype == np.int16:
                samples = samples.astype(np.float32) / 32768
            pieces.append(samples)
            rate_hz = frame.sample_rate
    return np.concatenate(pieces, axis=1).mean(axis=0), rate_hz


def plain_resampled(wave_s: np.ndarray, source_hz: int, rate_hz: int) -> np.ndarray:
    """The windowed sinc with the reference's parameters."""
    wave = torchaudio.functional.resample(
        torch.from_numpy(wave_s), source_hz, rate_hz, lowpass_filter_width=64,
        rolloff=0.9475937167399596, resampling_method="sinc_interp_kaiser", beta=14.769656459379492,
    )  # fmt: skip
    return np.asarray(wave)


def plain_frames(path: Path, fps: int, wanted: int, transform: Any) -> torch.Tensor:
    """Frames shown in [0, 8] s, each at the first time at or after the tick."""
    taken, tick_s, done = [], 0.0, False
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            for frame in packet.decode():
                if frame.time < 0:
                    continue
                if frame.time > 8.0:
                    done = True
                    break
                while frame.time >= tick_s:
                    taken.append(frame.to_ndarray(format="rgb24"))
                    tick_s += 1 / fps
            if done:
                break
    assert len(taken) >= wanted
    return torch.stack([transform(torch.from_numpy(f).permute(2, 0, 1)) for f in taken[:wanted]])


BICUBIC: dict[str, Any] = {"interpolation": v2.InterpolationMode.BICUBIC, "antialias": True}
FOR_CLIP = v2.Resize((384, 384), **BICUBIC)
FOR_SYNC = v2.Compose([v2.Resize(224, **BICUBIC), v2.CenterCrop(224)])
