"""What the child that prepares clips says of one: a line of JSON; arrays lie in the room it was given.

The child handles bytes that nobody vouches for and might say anything, so that whoever reads it checks
names, types and sizes first.
"""

import json
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np

from curation.media.answer import (
    DIGEST,
    FAILED,
    SAID,
    BadAnswer,
    check_number,
    no_number,
    text_or_none,
    well_formed,
)  # fmt: skip
from curation.verdict import Reason
from features.inputs.prepared import FLAGS, VALUES, InputConfig, Part, Prepared, Request
from features.inputs.room import Views

_REASONS = FAILED | {Reason.NO_SOUND, Reason.TOO_SHORT, Reason.SILENT, Reason.NOT_FINITE, *FLAGS}
_NUMBERS = ("part", "start_sample", "end_sample", "source_rate_hz")
# of an answer: of the clip, and of each part it may have, whose letters may take 12 bytes each in JSON
_CLIP_BYTES, _PART_BYTES = 1 << 18, 1 << 13


def write_prepared(stream: BinaryIO, prepared: Prepared) -> None:
    """Send what became of a clip."""
    parts = []
    for part in prepared.parts:
        row = {name: getattr(part, name) for name in _NUMBERS}
        row |= {"reason": part.reason, "detail": well_formed(part.detail, SAID), "flags": part.flags}
        row |= {"values": part.values, "has_picture": part.clip_tchw is not None}
        parts.append(row)
    header = {
        "reason": prepared.reason,
        "detail": well_formed(prepared.detail),
        "content_digest": prepared.content_digest,
        "parts": parts,
    }
    stream.write(json.dumps(header).encode() + b"\n")
    stream.flush()


def read_prepared(stream: Any, room: Views) -> Prepared:
    """Receive what became of a clip.

    Args:
        stream: with `line(most)`.

    Raises:
        BadAnswer: it is none.
    """
    line = stream.line(_CLIP_BYTES + len(room.waves_ps) * _PART_BYTES)
    try:
        header = json.loads(line, parse_constant=no_number)
        prepared = Prepared(
            reason=_reason(header["reason"]),
            detail=text_or_none(header["detail"]),
            content_digest=text_or_none(header["content_digest"]),
            parts=[_part(row, number, room) for number, row in enumerate(header["parts"])],
        )
        _check(prepared)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadAnswer(f"{type(error).__name__}: {error}"[:SAID]) from error
    return prepared


def _check(prepared: Prepared) -> None:
    if bool(prepared.parts) == (prepared.reason is not None):
        raise ValueError(f"{len(prepared.parts)} parts, reason {prepared.reason!r}")
    digest = prepared.content_digest
    if not (digest is None and prepared.reason) and not DIGEST.fullmatch(digest or ""):
        raise ValueError(f"content_digest {digest!r}")


def _part(row: dict[str, Any], number: int, room: Views) -> Part:
    numbers = {name: row[name] for name in _NUMBERS}
    if any(type(value) is not int or abs(value) >= 1 << 62 for value in numbers.values()):
        raise TypeError(f"{numbers}, expected whole numbers")
    if numbers["part"] != number or number >= len(room.waves_ps):
        raise ValueError(f"part {numbers['part']} at place {number}")
    part = Part(
        **numbers,
        reason=_reason(row["reason"]),
        detail=text_or_none(row["detail"]),
        values=_values(row["values"]),
    )
    part.flags = [str(Reason(flag)) for flag in row["flags"]]
    if not set(part.flags) <= set(FLAGS) or part.flags != sorted(set(part.flags)):
        raise ValueError(f"flags {part.flags}")
    if part.reason is None:
        part.wave_s = room.waves_ps[number]
        if not np.isfinite(part.wave_s).all():
            raise ValueError("a sample is no finite number")
        if row["has_picture"]:
            part.clip_tchw, part.sync_tchw = room.clip_tchw, room.sync_tchw
    return part


def _values(values: dict[str, Any]) -> dict[str, float | None]:
    if set(values) != set(VALUES):
        raise ValueError(f"values {sorted(values)}")
    for name, value in values.items():
        if value is not None and type(value) not in (float, int):
            raise TypeError(f"{name} is {value!r}")
        if value is not None:
            check_number(name, value)
    return {name: None if values[name] is None else float(values[name]) for name in VALUES}


def _reason(value: Any) -> Reason | None:
    if value is None:
        return None
    if value not in _REASONS:
        raise ValueError(f"reason {value!r}")
    return Reason(value)


def request_line(request: Request, config: InputConfig) -> dict[str, Any]:
    """A request as JSON can hold it."""
    return {"request": asdict(request), "config": asdict(config)}
