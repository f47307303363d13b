"""How metadata is written: CSV with either line end, JSON, captions, and where damage goes."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from curation.corpus.world import Row, World

_WHO = ("A dog", "A man", "A child", "An engine", "A crowd of people", "A horse", "Water", "A bell")
_WHAT = ("makes noise", "is heard twice", "goes by", "starts and stops", "grows louder", "fades away")
_WHERE = ("in the distance", "near a road", "while birds chirp", "indoors", "and wind blows", "at night")
LF, CRLF = "\n", "\r\n"


def sentence(world: World) -> str:
    return " ".join(world.random.choice(words) for words in (_WHO, _WHAT, _WHERE))


def csv_text(
    rows: Iterable[Sequence[Any]], *, header: str = "", end: str = CRLF, delimiter: str = ","
) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator=end, delimiter=delimiter).writerows(rows)
    return (header + end if header else "") + out.getvalue()


def with_damage(world: World, path: str, text: str, end: str) -> str:
    """`text` with the damaged lines of that file in its middle."""
    lines = text.split(end)
    middle = len(lines) // 2
    return end.join([*lines[:middle], *world.damaged.get(path, []), *lines[middle:]])


def by_id(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.source_id or "", row.start_s or 0))


def shuffled(world: World, rows: Iterable[Row]) -> list[Row]:
    rows = list(rows)
    world.random.shuffle(rows)
    return rows


def whole_seconds(time_s: float | None) -> int:
    assert time_s is not None, "the row has no time"
    assert time_s == int(time_s), f"{time_s} s is not written in whole seconds"
    return int(time_s)


def json_text(value: Any) -> str:
    return json.dumps(value, indent=4)
