"""What the decoding child says of a clip: a line of JSON, then arrays as plain bytes. No pickle.

The child handles bytes that nobody vouches for and might say anything, so that whoever reads it checks
names, types and sizes first.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import numpy as np

from curation.media.facts import Facts

# what an answer may hold: dtype, and the sizes of all but the first axis (None: any up to 4,096)
ARRAYS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "hash_ms": ("<i4", ()),
    "hash_view": ("|u1", ()),
    "hash": ("<u8", ()),
    "flatness": ("<f4", ()),
    "box": ("<f4", ()),
    "thumbs": ("|u1", (None, None)),
    "audio_ms": ("<i4", ()),
    "audio_item": ("<u4", ()),
    "audio_bands": ("|u1", (None,)),
}
NO_MEMORY = 12  # the exit code of a child that had too little even to answer
_MOST_HEADER_BYTES = 1 << 16
_MOST_BYTES = 1 << 30  # an hour of thumbnails is 30 MB


class BadAnswer(Exception):
    """The child said something that it should not."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """What became of one clip; `values` are the columns of fingerprints that are no lists."""

    status: str
    reason: str | None = None
    detail: str | None = None
    content_digest: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


# of Facts and both prints, with the type that JSON gives
VALUES: dict[str, tuple[type, ...]] = {
    **{
        name: (str,)
        for name in ("video_codec", "audio_codec", "hash_version", "audio_version")
    },
    **{
        name: (int,)
        for name in ("width_px", "height_px", "rotation_deg", "num_frames", "sample_rate_hz", "channels")
    },
    **{
        name: (float, int)
        for name in (
            "duration_s", "fps", "video_start_s", "audio_start_s", "silent_share", "bandwidth_hz",
            "still_share", "thumb_fps",
        )
    },
}  # fmt: skip


def values_of(facts: Facts) -> dict[str, Any]:
    """The facts as columns."""
    return {name: value for name, value in asdict(facts).items() if name in VALUES}


def write_answer(stream: BinaryIO, answer: Answer) -> None:
    """Send an answer."""
    parts = {
        name: np.ascontiguousarray(array, dtype=ARRAYS[name][0]) for name, array in answer.arrays.items()
    }
    header = {
        "status": answer.status,
        "reason": answer.reason,
        "detail": answer.detail,
        "content_digest": answer.content_digest,
        "values": answer.values,
        "arrays": [[name, list(part.shape)] for name, part in parts.items()],
    }
    stream.write(json.dumps(header).encode() + b"\n")
    for part in parts.values():
        stream.write(part.data)
    stream.flush()


def read_answer(stream: Any) -> Answer:
    """Receive an answer.

    Args:
        stream: with `line(most)` and `exactly(n)`.

    Raises:
        BadAnswer: it is none.
    """
    try:
        header = json.loads(stream.line(_MOST_HEADER_BYTES))
        arrays = [_array(stream, name, shape) for name, shape in header["arrays"]]
        answer = Answer(
            status=_text(header["status"]) or "",
            reason=_text(header["reason"]),
            detail=_text(header["detail"]),
            content_digest=_text(header["content_digest"]),
            values=_checked(header["values"]),
            arrays=dict(arrays),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadAnswer(str(error)) from error
    if answer.status not in ("scanned", "failed"):
        raise BadAnswer(f"status {answer.status!r}")
    return answer


def _array(stream: Any, name: str, shape: list[int]) -> tuple[str, np.ndarray]:
    kind, rest = ARRAYS[name]
    if len(shape) != 1 + len(rest) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"{name} of shape {shape}")
    if any(side > 4096 for side in shape[1:]):
        raise ValueError(f"{name} of shape {shape}")
    size = int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize
    if size > _MOST_BYTES:
        raise ValueError(f"{name} of {size} bytes")
    return name, np.frombuffer(stream.exactly(size), kind).reshape(shape)


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r}, expected text")
    return value


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        if value is not None and type(value) not in VALUES[name]:
            raise TypeError(f"{name} is {value!r}")
        if isinstance(value, int) and abs(value) >= 1 << 31:
            raise ValueError(f"{name} is {value}")
    return values
