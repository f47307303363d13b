"""What the decoding child says of a clip: a line of JSON, then arrays as plain bytes. No pickle.

The child handles bytes that nobody vouches for and might say anything, so that whoever reads it checks
names, types and sizes first.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import numpy as np

from curation.media.facts import Facts
from curation.verdict import Reason

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
# those that come together; of each, those of equal length
_TOGETHER = (
    (("hash_ms", "hash_view", "hash", "flatness", "box", "thumbs"), 4),
    (("audio_ms", "audio_item", "audio_bands"), 2),
)
_BOX = 8  # numbers: two boxes
# why a clip may fail, by what a child says of it
FAILED: frozenset[str | None] = frozenset((
    Reason.NOT_MEDIA, Reason.DAMAGED, Reason.NO_STREAMS, Reason.TOO_LONG, Reason.TOO_LARGE,
    Reason.OUT_OF_MEMORY, Reason.DECODER_CRASHED,
))  # fmt: skip
_REASONS: dict[str, frozenset[str | None]] = {
    "scanned": frozenset((None, Reason.PARTLY_DAMAGED)),
    "failed": FAILED,
}
DIGEST = re.compile("sha256:[0-9a-f]{64}")
_MOST_HEADER_BYTES = 1 << 16
SAID = 500  # letters of what was wrong
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
        "detail": well_formed(answer.detail),
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
    line = stream.line(_MOST_HEADER_BYTES)
    try:
        header = json.loads(line, parse_constant=no_number)
        answer = Answer(
            status=text_or_none(header["status"]) or "",
            reason=text_or_none(header["reason"]),
            detail=text_or_none(header["detail"]),
            content_digest=text_or_none(header["content_digest"]),
            values=_checked(header["values"]),
        )
        _check(answer)
        shapes = {name: _shape(name, shape) for name, shape in header["arrays"]}
        _check_arrays(answer.status, shapes, len(header["arrays"]))
        for name, shape in shapes.items():
            answer.arrays[name] = _array(stream, name, shape)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadAnswer(f"{type(error).__name__}: {error}"[:SAID]) from error
    return answer


def _check(answer: Answer) -> None:
    if answer.status not in _REASONS or answer.reason not in _REASONS[answer.status]:
        raise ValueError(f"status {answer.status!r}, reason {answer.reason!r}")
    if answer.content_digest is not None and not DIGEST.fullmatch(answer.content_digest):
        raise ValueError(f"content_digest {answer.content_digest!r}")
    if answer.status == "failed" and answer.values:
        raise ValueError("values of a clip that failed")


def _check_arrays(status: str, shapes: dict[str, tuple[int, ...]], told: int) -> None:
    if len(shapes) != told or (status == "failed" and shapes):
        raise ValueError("arrays told twice, or of a clip that failed")
    for names, equal in _TOGETHER:
        there = [name for name in names if name in shapes]
        if there and len(there) != len(names):
            raise ValueError(f"{', '.join(there)} without the others of {', '.join(names)}")
        if len({shapes[name][0] for name in there[:equal]}) > 1:
            raise ValueError(f"{', '.join(there[:equal])} of different lengths")
    if "box" in shapes and (shapes["box"] != (_BOX,) or shapes["thumbs"][1] != shapes["thumbs"][2]):
        raise ValueError(f"box of shape {shapes['box']}, thumbs of shape {shapes['thumbs']}")


def _shape(name: str, shape: list[int]) -> tuple[int, ...]:
    kind, rest = ARRAYS[name]
    if len(shape) != 1 + len(rest) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"{name} of shape {shape}")
    if any(side > 4096 for side in shape[1:]):
        raise ValueError(f"{name} of shape {shape}")
    size = int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize
    if size > _MOST_BYTES:
        raise ValueError(f"{name} of {size} bytes")
    return tuple(shape)


def _array(stream: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(ARRAYS[name][0])
    array = np.frombuffer(stream.exactly(math.prod(shape) * kind.itemsize), kind).reshape(shape)
    if kind.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds what is no number")
    return array


def no_number(word: str) -> float:
    """For `json.loads`: raises where it says NaN or infinity."""
    raise ValueError(f"{word} is no number")


def well_formed(text: str | None, most: int | None = None) -> str | None:
    """Text that may quote bytes which are none; at most so many letters."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()[:most]


def text_or_none(value: Any) -> str | None:
    """A value that is text or null; raises TypeError or ValueError where it is neither."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r}, expected text")
    if value is not None:
        value.encode()  # raises where it is no text that can be written
    return value


def check_number(name: str, value: float) -> None:
    """Raise ValueError where a number is not finite or far too large."""
    if not (math.isfinite(value) and abs(value) < 1 << 31):
        raise ValueError(f"{name} is {value}")


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        if value is not None and type(value) not in VALUES[name]:
            raise TypeError(f"{name} is {value!r}")
        if isinstance(value, str):
            text_or_none(value)
        elif value is not None:
            check_number(name, value)
    return values
