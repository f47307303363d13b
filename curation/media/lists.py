"""Lists of media, as people write them: a row for each clip, with its file.

CSV, TSV and the like in any encoding, or Parquet. The first line names the columns, in whatever case;
`clip_id` is another name of `id`. A path is as seen from a media folder, or absolute.
"""

import csv
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from curation.catalog.textlines import open_text
from curation.errors import BadMetadata, UsageProblem
from curation.media.locate import MediaFolder, as_text

_DELIMITERS = (",", "\t", ";", "|")
_DOT = re.compile(r"(^|/)(\./)+")
Cells = dict[str, str]  # of a row, by the names of columns


def read_list(path: Path, columns: Sequence[str], *, needed: int = 1, option: str = "") -> list[Cells]:
    """The rows of a list, with those of these columns that it has; "" where a cell says nothing.

    Args:
        columns: the first `needed` of them must be there.
        option: with which the list was given, for messages.

    Raises:
        UsageProblem: there is no such list, or it lacks a column.
        BadMetadata: it cannot be read.
    """
    asked = _Asked(f"{option} {path}".strip(), columns, needed)
    if not path.is_file():
        raise UsageProblem(
            f"{asked.given}: no such file, expected a list with {_quoted(columns[:needed])} among the "
            "names of its columns — check the path"
        )
    read = _parquet_cells if path.suffix.lower() == ".parquet" else _text_cells
    try:
        return read(path, asked)
    except OSError as error:
        raise BadMetadata(f"{asked.given}: {error}, expected a list — check the file") from error


@dataclass(frozen=True, slots=True)
class _Asked:
    """What somebody wants of a list."""

    given: str  # what it is called in messages
    columns: Sequence[str]
    needed: int

    def places(self, header: Iterable[str]) -> dict[str, int]:
        """Where the columns are, by their names."""
        names = [name.strip().lower() for name in header]
        if "id" not in names:
            names = ["id" if name == "clip_id" else name for name in names]
        if twice := [name for name in self.columns if names.count(name) > 1]:
            raise UsageProblem(
                f"{self.given}: {_quoted(twice)} stands over several columns, expected one of each name "
                "— name the others otherwise"
            )
        if missing := [name for name in self.columns[: self.needed] if name not in names]:
            known = f" (and, where known, {', '.join(self.columns[self.needed :])})"
            raise UsageProblem(
                f"{self.given}: columns {', '.join(names) or 'none'}, expected "
                f"{_quoted(self.columns[: self.needed])} among them{known} — name {_quoted(missing)}"
            )
        return {name: names.index(name) for name in self.columns if name in names}


def _quoted(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _text_cells(path: Path, asked: _Asked) -> list[Cells]:
    with open_text(path) as text:
        first = text.readline()
        delimiter = max(_DELIMITERS, key=first.count)
        rows = csv.reader(chain([first], text), delimiter=delimiter, strict=True)
        try:
            header = next(rows, [])
            places = asked.places(header)
            cells = []
            for row in rows:
                if any(row[len(header) :]):
                    raise csv.Error(f"{len(row)} cells under {len(header)} names")
                if any(row):
                    found = {name: row[at] for name, at in places.items() if at < len(row)}
                    cells.append({name: found.get(name, "").strip() for name in places})
            return cells
        except csv.Error as error:
            raise BadMetadata(
                f"{asked.given}: line {rows.line_num}: {error}, expected a line for each clip, with "
                f"quotes around cells that hold {delimiter!r} or quotes — mend it"
            ) from error


def _parquet_cells(path: Path, asked: _Asked) -> list[Cells]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            header = file.schema_arrow.names
            places = asked.places(header)
            listed = file.read(columns=[header[at] for at in places.values()])
    except pa.ArrowException as error:
        raise BadMetadata(
            f"{asked.given}: not Parquet: {error}, expected a list — check the file"
        ) from error
    cells = (map(_cell, listed[header[at]].to_pylist()) for at in places.values())
    return [dict(zip(places, row, strict=True)) for row in zip(*cells, strict=True)]


def _cell(value: Any) -> str:
    if isinstance(value, list):  # of captions, the first
        value = value[0] if value else None
    return "" if value is None else str(value).strip()


def below(paths: Iterable[str | None], folder: MediaFolder) -> list[str | None]:
    """Paths of a list as seen from a folder; those that lead elsewhere stay as they are."""
    places = (folder.root.resolve(), folder.root, Path(os.path.relpath(folder.root)))
    roots = tuple(dict.fromkeys(f"{as_text(place.as_posix()).rstrip('/')}/" for place in places))
    return [path and _below(as_text(path), roots, folder) for path in paths]


def _below(path: str, roots: Iterable[str], folder: MediaFolder) -> str:
    path = _DOT.sub(r"\1", path)
    if path in folder.media:
        return path
    return path.removeprefix(next((root for root in roots if path.startswith(root)), ""))
