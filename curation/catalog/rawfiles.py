"""Raw metadata files into DuckDB tables, whatever a spreadsheet or a mirror did to them.

Accepted where it means the same: UTF-8 with or without BOM, UTF-16, Latin-1 (as cp1252); LF or
CRLF; another separator; columns in another order under a header; fewer comment lines. Everything
else ends with the file, the line and what was expected. Each table has the columns the card names,
as text, plus `file` and `row` (counted from 1, without comments and header).
"""

import codecs
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curation.catalog.cards import RawFile
from curation.catalog.store import sql_name, sql_text
from curation.errors import BadMetadata
from curation.files import remove

if TYPE_CHECKING:
    import duckdb

_HEAD_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 24
_DELIMITERS = (",", ", ", "\t", ";", "|")
_CSV_LINE = re.compile(r"(?:CSV Error on )?[Ll]ine:? (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one copy of a CSV file is really written."""

    delimiter: str
    skip: int  # lines before the first row
    names: tuple[str, ...]  # all columns in the file's order


def load(db: "duckdb.DuckDBPyConnection", file: RawFile, raw: Path) -> int:
    """Append the file to the temporary table `file.table`; its number of rows, 0 where it is absent.

    Raises:
        BadMetadata: the file is not what the card describes.
    """
    db.execute(f"create temp table if not exists {sql_name(file.table)} as {_nothing(file)}")
    path = raw / file.path
    if not path.is_file():
        return 0
    with _utf8(path) as readable:
        _refuse_pages(readable, file)
        select = _json(readable, file) if file.format == "json" else _csv(readable, file)
        rows = _insert(db, file, path, select)
    if rows == 0:
        raise BadMetadata(f"{path}: has no rows, expected {_expected(file)} — get the file again")
    return rows


def _insert(db: "duckdb.DuckDBPyConnection", file: RawFile, path: Path, select: str) -> int:
    import duckdb

    try:
        # Into a table, not a view: numbering a scan is serial, and here the rest stays parallel.
        (rows,) = db.execute(
            f"insert into {sql_name(file.table)} "
            f"select *, {sql_text(file.path)} as file, row_number() over () as row from ({select})"
        ).fetchone() or (0,)
    except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
        line = _CSV_LINE.search(str(error))
        first = str(error).splitlines()[0].removeprefix("Invalid Input Error: ")
        where = f"line {line[1]}: " if line and "Line" not in first else ""
        raise BadMetadata(
            f"{path}: {where}{first}; expected {_expected(file)} — the file may be cut off or "
            "damaged, get it again"
        ) from error
    return int(rows)


def _expected(file: RawFile) -> str:
    return f"{len(file.columns)} columns ({', '.join(file.columns)})"


def _nothing(file: RawFile) -> str:
    types = file.columns if isinstance(file.columns, dict) else dict.fromkeys(file.columns, "varchar")
    columns = ", ".join(f"null::{kind} as {sql_name(name)}" for name, kind in types.items())
    return f"select {columns}, ''::varchar as file, 0::bigint as row limit 0"


@contextmanager
def _utf8(path: Path) -> Iterator[Path]:
    """`path`, or a copy of it in UTF-8 that lasts as long as the block."""
    encoding = _encoding(path)
    if encoding == "utf-8":
        yield path
        return
    copy = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        try:
            with (
                path.open(encoding=encoding, newline="") as text,
                copy.open("w", encoding="utf-8", newline="") as out,
            ):
                while chunk := text.read(_CHUNK_BYTES):
                    out.write(chunk)
        except UnicodeDecodeError as error:
            raise BadMetadata(f"{path}: not {encoding} text ({error}) — get it again") from error
        yield copy
    finally:
        remove(copy)


def _encoding(path: Path) -> str:
    """What the bytes of `path` are written in; cp1252, else Latin-1, where they are not Unicode."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        if not head:
            raise BadMetadata(f"{path}: is empty, expected metadata — get the file again")
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if head[1:200:2].count(0) > len(head[1:200:2]) // 2:
            return "utf-16-le"
        if head[0:200:2].count(0) > len(head[0:200:2]) // 2:
            return "utf-16-be"
        decoder = codecs.getincrementaldecoder("utf-8")()
        undefined = False
        chunk = head
        while chunk:
            # isascii is some twenty times faster than decoding, and nearly all metadata is ASCII
            if not chunk.isascii() or decoder.getstate()[0]:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    undefined = True
                    break
            chunk = stream.read(_CHUNK_BYTES)
    if not undefined and not decoder.getstate()[0]:
        return "utf-8"
    try:
        with path.open(encoding="cp1252", newline="") as text:
            while text.read(_CHUNK_BYTES):
                pass
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _refuse_pages(path: Path, file: RawFile) -> None:
    with path.open("rb") as stream:
        head = stream.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise BadMetadata(
            f"{path}: line 1: a web page, expected {file.format} with {_expected(file)} — "
            "the download answered with an error page, get the file again"
        )


def _json(path: Path, file: RawFile) -> str:
    assert isinstance(file.columns, dict), "checked by load_card"
    columns = ", ".join(f"{sql_text(name)}: {sql_text(kind)}" for name, kind in file.columns.items())
    # One object may be the whole file, far above DuckDB's default of 16 MB.
    size = path.stat().st_size + 1024
    return (
        f"select * from read_json({sql_text(path)}, columns = {{{columns}}}, "
        f"maximum_object_size = {size})"
    )


def _csv(path: Path, file: RawFile) -> str:
    dialect = _dialect(path, file)
    columns = ", ".join(f"{sql_text(name)}: 'varchar'" for name in dialect.names)
    wanted = ", ".join(sql_name(name) for name in file.columns)
    return (
        f"select {wanted} from read_csv({sql_text(path)}, auto_detect = false, header = false, "
        f"delim = {sql_text(dialect.delimiter)}, quote = '\"', escape = '\"', "
        f"skip = {dialect.skip}, columns = {{{columns}}})"
    )


def _dialect(path: Path, file: RawFile) -> Dialect:
    """Separator, lines to skip and column order, from the first lines of the file."""
    with path.open("rb") as stream:
        text = stream.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    lines = text.splitlines()
    comments = 0
    while comments < len(lines) and lines[comments].lstrip('"').startswith("#"):
        comments += 1
    if comments == len(lines):
        raise BadMetadata(f"{path}: has no rows, expected {_expected(file)} — get the file again")
    line = lines[comments]
    wanted = [name.lower() for name in file.columns]
    candidates = dict.fromkeys((file.delimiter, *_DELIMITERS))
    for delimiter in candidates:
        cells = [cell.strip().strip('"').strip() for cell in _cells(line, delimiter)]
        found = [cell.lower() for cell in cells]
        if set(wanted) <= set(found) and len(set(found)) == len(found):
            names = {name.lower(): name for name in file.columns}
            order = tuple(names.get(name, name or f"column{i}") for i, name in enumerate(found))
            return Dialect(delimiter=delimiter, skip=comments + 1, names=order)
        if not file.header and len(cells) == len(wanted):
            return Dialect(delimiter=delimiter, skip=comments, names=tuple(file.columns))
    cells = _cells(line, file.delimiter)
    what = "a header with " if file.header else ""
    raise BadMetadata(
        f"{path}: line {comments + 1}: {len(cells)} columns ({line[:80]!r}), "
        f"expected {what}{_expected(file)} — get the published file"
    )


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line, quotes kept; a quoted cell may hold the delimiter."""
    end = re.escape(delimiter)
    return re.findall(rf'(?:^|{end})("(?:[^"]|"")*"|.*?)(?={end}|$)', line)
