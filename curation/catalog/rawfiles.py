"""Raw metadata files into DuckDB tables, whatever a spreadsheet or a mirror did to them.

Accepted where it means the same: UTF-8 with or without BOM, UTF-16, Latin-1 (as cp1252); LF, CRLF,
CR and any mixture; another separator; columns in another order under a header; fewer comment lines.
Everything else ends with the file, the line and what was expected. Each table has the columns the
card names, as text, plus `file` and `row` (counted from 1, without comments and header).
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curation.catalog.cards import Card, RawFile
from curation.catalog.encoding import COMMENT, utf8_of
from curation.catalog.store import card_sql, sql_name, sql_text
from curation.catalog.textlines import insert_lines
from curation.errors import BadMetadata

if TYPE_CHECKING:
    import duckdb

_HEAD_BYTES = 1 << 16
_ROWS_MIB = 128  # beside a JSON object, for the rows made of it
_DELIMITERS = (",", ", ", "\t", ";", "|")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SAMPLE_LINES = 50  # enough to tell separators apart
# DuckDB's messages about a line of CSV, in fewer words
_CSV_LINE = re.compile(r"CSV Error on Line: (\d+)")
_CSV_FAULTS = (
    (re.compile(r"Expected Number of Columns: \d+ Found: (\d+)"), "{} columns"),
    (re.compile(r"unterminated quote()"), "a quote in the wrong place, or one that never ends"),
    (re.compile(r"Maximum line size of (\d+)"), "longer than {} bytes"),
)


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
    path = raw / file.path
    with card_sql(f"{raw.parent.name}/card.toml: columns of {file.name}"):
        db.execute(f"create temp table if not exists {sql_name(file.table)} as {_nothing(file)}")
    if not path.is_file():
        return 0
    if file.format == "parquet":
        return _insert(db, file, path, _parquet(path, file))
    if file.ragged:
        refuse_pages(path, file)
        return insert_lines(db, file, path)
    with utf8_of(path) as readable:
        refuse_pages(readable, file)
        if file.format == "json":
            rows = _load_json(db, file, path, readable)
        else:
            rows = _insert(db, file, path, _csv(readable, file))
    if rows == 0 or (isinstance(file.columns, dict) and not _filled(db, file, rows)):
        raise BadMetadata(f"{path}: has no rows, expected {_expected(file)} — get the file again")
    return rows


def _filled(db: "duckdb.DuckDBPyConnection", file: RawFile, rows: int) -> bool:
    """Whether the last `rows` objects, of a JSON file, have every key of the card, and content."""
    assert isinstance(file.columns, dict), "checked by load_card"
    table, found, sizes = sql_name(file.table), [], []
    for name, kind in file.columns.items():
        key = sql_name(name)
        found.append(f"count({key}) > 0")
        size = f"cardinality({key})" if kind.startswith("map(") else f"len({key})"
        many = kind.startswith("map(") or kind.endswith("]")
        sizes.append(f"count({key}) filter ({size} > 0)" if many else f"count({key})")
    row = db.execute(
        f"select {' and '.join(found)} and {' + '.join(sizes)} > 0 "
        f"from {table} where rowid >= (select count(*) from {table}) - ?",
        [rows],
    ).fetchone()
    return row is not None and bool(row[0])


def _insert(db: "duckdb.DuckDBPyConnection", file: RawFile, path: Path, select: str) -> int:
    import duckdb

    try:
        # Into a table, not a view: numbering a scan is serial, and here the rest stays parallel.
        (rows,) = db.execute(
            f"insert into {sql_name(file.table)} "
            f"select *, {sql_text(file.path)} as file, row_number() over () as row from ({select})"
        ).fetchone() or (0,)
    except duckdb.PermissionException as error:
        raise BadMetadata(
            f"{path}: a link that leaves the folder of its dataset, expected a file — copy it there, "
            "best with: curate fetch --from DIR"
        ) from error
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.BinderException) as error:
        raise BadMetadata(
            f"{path}: {_fault(str(error))}; expected {_expected(file)} — the file may be cut off or "
            "damaged, get it again"
        ) from error
    return int(rows)


def _fault(message: str) -> str:
    """Line and cause out of DuckDB's message, which names a path that may be a copy's."""
    if line := _CSV_LINE.search(message):
        for pattern, words in _CSV_FAULTS:
            if found := pattern.search(message):
                return f"line {line[1]}: {words.format(found[1])}"
    first = message.splitlines()[0].removeprefix("Invalid Input Error: ")
    return re.sub(r' in file "[^"]*",?', "", first).rstrip(". ")


def _expected(file: RawFile) -> str:
    names = ", ".join(file.columns)
    if file.format == "json":
        return f"JSON objects with {names}"
    return f"{len(file.columns)} column{'s' if len(file.columns) > 1 else ''} ({names})"


def _nothing(file: RawFile) -> str:
    types = file.columns if isinstance(file.columns, dict) else dict.fromkeys(file.columns, "varchar")
    columns = ", ".join(f"null::{kind} as {sql_name(name)}" for name, kind in types.items())
    return f"select {columns}, ''::varchar as file, 0::bigint as row limit 0"


def refuse_pages(path: Path, file: RawFile) -> None:
    """Raise BadMetadata where a file is a web page, as of an error or a login."""
    with path.open("rb") as stream:
        head = stream.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise BadMetadata(
            f"{path}: line 1: a web page, expected {_expected(file)} — "
            "the download answered with an error page, get the file again"
        )


def _parquet(path: Path, file: RawFile) -> str:
    columns = ", ".join(f"{sql_name(name)}::varchar as {sql_name(name)}" for name in file.columns)
    return f"select {columns} from read_parquet({sql_text(path)})"


def memory_mib(card: Card, raw: Path) -> int:
    """What DuckDB asks for to read the largest JSON file of a card, which may be one object.

    The text twice and its tree in twice that, each rounded up to a power of two; a good part of it is
    never touched.
    """
    sizes = [raw / file.path for file in card.files if file.format == "json"]
    largest = max((path.stat().st_size for path in sizes if path.is_file()), default=0)
    return (4 << (largest >> 20).bit_length()) + _ROWS_MIB


def _load_json(db: "duckdb.DuckDBPyConnection", file: RawFile, path: Path, readable: Path) -> int:
    """Append the objects of `readable`: one, one a line, or those of an array."""
    if _begins_with_object(readable):
        # As a rule it is one object, and may be hundreds of megabytes: as text it takes half the time
        # and memory of read_json_objects, and where there are more objects it fails.
        with suppress(BadMetadata):
            return _insert(db, file, path, _objects(file, "content", f"read_text({sql_text(readable)})"))
    # far above DuckDB's default of 16 MB
    size = readable.stat().st_size + 1024
    source = f"read_json_objects({sql_text(readable)}, maximum_object_size = {size})"
    return _insert(db, file, path, _objects(file, "json", source))


def _begins_with_object(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(_HEAD_BYTES).lstrip().startswith(b"{")


def _objects(file: RawFile, column: str, source: str) -> str:
    """A SELECT of the card's columns from objects as text.

    Objects first, types after: read_json takes eight times as long over one large object.
    """
    assert isinstance(file.columns, dict), "checked by load_card"
    name, kind = next(iter(file.columns.items()))
    made = f"from_json({column}, {sql_text(json.dumps(kind if file.whole else file.columns))})"
    selected = f"{made} as {sql_name(name)}" if file.whole else f"unnest({made})"
    return f"select {selected} from {source}"


def _csv(path: Path, file: RawFile) -> str:
    dialect = _dialect(path, file)
    columns = ", ".join(f"{sql_text(name)}: 'varchar'" for name in dialect.names)
    wanted = ", ".join(sql_name(name) for name in file.columns)
    # padding and quoted line ends together are for one thread only
    short = ", null_padding = true, parallel = false" if file.short_lines else ""
    return (
        f"select {wanted} from read_csv({sql_text(path)}, auto_detect = false, header = false, "
        f"delim = {sql_text(dialect.delimiter)}, quote = '\"', escape = '\"', "
        f"skip = {dialect.skip}, columns = {{{columns}}}{short})"
    )


def _dialect(path: Path, file: RawFile) -> Dialect:
    """Separator, lines to skip and column order, from the first lines of the file."""
    with path.open("rb") as stream:
        text = stream.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    lines = _LINE_END.split(text)
    comments = 0
    while comments < len(lines) and COMMENT.match(lines[comments]):
        comments += 1
    if not any(lines[comments:]):
        raise BadMetadata(f"{path}: has no rows, expected {_expected(file)} — get the file again")
    line = lines[comments]
    wanted = [name.lower() for name in file.columns]
    candidates = dict.fromkeys((file.delimiter, *_DELIMITERS))
    for delimiter in candidates:
        cells = [cell.strip().strip('"').strip() for cell in _cells(line, delimiter)]
        found = [cell.lower() for cell in cells]
        named = [name for name in found if name]  # a spreadsheet's index column has none
        if set(wanted) <= set(named) and len(set(named)) == len(named):
            names = {name.lower(): name for name in file.columns}
            order = tuple(names.get(name, name or f"column{i}") for i, name in enumerate(found))
            return Dialect(delimiter=delimiter, skip=comments + 1, names=order)
    # Without a header: the separator that gives most lines as many cells as there are columns.
    sample = lines[comments : comments + _SAMPLE_LINES]
    fits = {d: sum(len(_cells(row, d)) == len(wanted) for row in sample) for d in candidates}
    delimiter = max(fits, key=lambda candidate: fits[candidate])
    if not file.header and fits[delimiter]:
        return Dialect(delimiter=delimiter, skip=comments, names=tuple(file.columns))
    cells = _cells(line, file.delimiter)
    what = "a header with " if file.header else ""
    raise BadMetadata(
        f"{path}: line {comments + 1}: {len(cells)} column{'s' if len(cells) != 1 else ''} "
        f"({line[:80]!r}), "
        f"expected {what}{_expected(file)} — get the published file"
    )


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line, quotes kept; a quoted cell may hold the delimiter."""
    end = re.escape(delimiter)
    return re.findall(rf'{end}("(?:[^"]|"")*"|.*?)(?={end}|$)', delimiter + line)
