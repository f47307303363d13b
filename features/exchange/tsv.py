"""The TSV beside a folder of memory-mapped tensors: ids and what is said of each row, line by line.

Read strictly: a line that is cut or swallowed pairs every later caption with the tensors of another row.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from curation.errors import BadMetadata


def read_tsv(path: Path) -> tuple[list[str], list[str]]:
    """The ids and captions, or labels, of a TSV.

    Raises:
        BadMetadata: it cannot be read, lacks a column, or a line has too few or too many cells or
            stray quotes; an id stands twice.
    """
    ids: dict[str, str] = {}
    expected = "tab-separated UTF-8 with a first line that names `id` and `caption` or `label`"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = _lines(path, stream)
            _, columns = next(lines, (1, []))
            said = next((name for name in ("caption", "label") if name in columns), None)
            if "id" not in columns or said is None:
                raise BadMetadata(
                    f"{path}: its columns are {columns}, expected {expected} — give another file"
                )
            places = columns.index("id"), columns.index(said)
            for line, cells in lines:
                name, caption = (cells[place] if place < len(cells) else None for place in places)
                if len(cells) > len(columns):
                    raise _wrong_line(path, line, f"has {len(cells)} cells under {len(columns)} columns")
                if not name or caption is None or name in ids:
                    what = "stands there again" if name in ids else "has an empty cell"
                    raise _wrong_line(path, line, f"id {name!r}, {what}")
                ids[name] = caption
    except (OSError, UnicodeError) as error:
        raise BadMetadata(f"{path}: {error}, expected {expected} — give another file") from error
    return list(ids), list(ids.values())


def _lines(path: Path, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line that is not empty, with its number in the file."""
    reader = csv.reader(stream, delimiter="\t", strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _wrong_line(path, line, str(error)) from error
        if cells:
            yield line, cells


def _wrong_line(path: Path, line: int, what: str) -> BadMetadata:
    return BadMetadata(
        f"{path}: line {line}, {what}, expected each id once with what is said of it, and quotes around "
        "cells with tabs or quotes — the TSV and the tensors are not from one run, or it was edited by "
        "hand: give it as it was written"
    )


def write_tsv(path: Path, header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> None:
    """Write such a TSV; cells with tabs, quotes or ends of lines are quoted."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        plain = csv.writer(stream, delimiter="\t", lineterminator="\n")
        # Python 3.11 does not quote a lone carriage return, at which readers end the line.
        quoted = csv.writer(stream, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(header)
        for row in rows:
            (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
