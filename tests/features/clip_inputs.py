"""Inputs of clips as tests ask for them, and sounds that they are made of."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from curation.media.container import Unscannable
from features.inputs.one_clip import prepare
from features.inputs.prepared import InputConfig, Part, Request
from features.inputs.room import Layout

SHORT = InputConfig(sample_rate_hz=16000, duration_s=1.0)  # 8 and 25 frames, 16,384 samples
WAV: dict[str, Any] = {"video": None, "audio": "pcm_s16le", "samples": "s16"}
LOSSLESS: dict[str, Any] = {"video": "ffv1", "audio": "pcm_s16le", "samples": "s16"}


def parts_of(path: Path, config: InputConfig = SHORT, **options: Any) -> list[Part]:
    """The parts of a clip."""
    layout = Layout(config)
    options = {"clip_id": "x", "path": str(path), **options}
    room = layout.views(np.zeros(layout.num_bytes, np.uint8))
    return prepare(Request(**options), config, room)


def part_of(path: Path, config: InputConfig = SHORT, **options: Any) -> Part:
    """The only part of a clip."""
    (part,) = parts_of(path, config, **options)
    return part


def wave_of(part: Part) -> np.ndarray:
    """The sound of a part that has it."""
    assert part.reason is None, (part.reason, part.detail)
    assert part.wave_s is not None
    return part.wave_s


def write_wav(path: Path, wave_s: np.ndarray, rate_hz: int) -> Path:
    """Mono floats as they are."""
    data = wave_s.astype("<f4").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, rate_hz,
                       rate_hz * 4, 4, 32)  # fmt: skip
    path.write_bytes(head + struct.pack("<4sI", b"data", len(data)) + data)
    return path


def noise(seconds: float, rate_hz: int, *, seed: int = 0, scale: float = 0.1) -> np.ndarray:
    """A sound with every frequency."""
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate_hz))
    return (scale * samples).astype(np.float32)


def refusal(path: Path, config: InputConfig = SHORT, **options: Any) -> tuple[str, str]:
    """The reason and the detail of a clip without a usable part."""
    try:
        part = part_of(path, config, **options)
    except Unscannable as error:
        return error.reason, error.detail
    assert part.reason is not None
    assert part.wave_s is part.clip_tchw is part.sync_tchw is None
    return part.reason, part.detail or ""
