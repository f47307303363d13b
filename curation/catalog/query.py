"""One SELECT of a person over the views, answered in batches and written in one of FORMATS.

The connection reads the manifests and nothing else, and what it runs cannot write: the text must be
one SELECT, it runs as a subquery, where DuckDB refuses data-modifying CTEs, and its plan must hold
no function that runs another statement.
"""

import contextlib
import csv
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.store import (
    aside,
    first_line,
    interruptible,
    lock,
    open_manifests,
    parsed,
    runs_others,
    single_select,
)
from curation.errors import BadManifest, UsageProblem
from curation.files import disk_space, outside, replacing, says_full
from curation.tables import number, render

if TYPE_CHECKING:
    import duckdb

FORMATS = ("table", "csv", "jsonl", "parquet")
_MEMORY_MIB = 1024
_BATCH_ROWS = 10_000
_GROUP_ROWS = 122_880  # of Parquet, as DuckDB writes it
_SHOWN_ROWS = 1_000  # of a table for people, whose widths need all of them


@dataclass(slots=True)
class Answer:
    """What a SELECT gives; the rows can be read once."""

    columns: list[tuple[str, str]]  # name, unique, and DuckDB type
    _db: "duckdb.DuckDBPyConnection"
    _asked: str  # what the person wrote
    _sql: str  # what is run
    num_rows: int = 0  # read so far

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [name for name, _ in self.columns]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows as Python values."""
        with _refusals(self._asked):
            cursor = aside(self._db, lambda: self._db.execute(self._sql))
            while batch := aside(self._db, lambda: cursor.fetchmany(_BATCH_ROWS)):
                self.num_rows += len(batch)
                yield from batch

    def write_parquet(self, target: Path) -> None:
        """Write all rows to `target`, in row groups of one size."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with _refusals(self._asked), contextlib.ExitStack() as stack:
            reader = self._db.sql(self._sql).to_arrow_reader(_GROUP_ROWS)
            stack.callback(reader.close)  # else, after an error in it, closing the connection hangs
            writer = stack.enter_context(pq.ParquetWriter(target, reader.schema, compression="zstd"))
            held = pa.Table.from_batches([], reader.schema)
            while batch := aside(self._db, lambda: next(reader, None)):
                self.num_rows += batch.num_rows
                held = pa.concat_tables([held, pa.Table.from_batches([batch])])
                whole = held.num_rows - held.num_rows % _GROUP_ROWS
                if whole:
                    writer.write_table(held.slice(0, whole), row_group_size=_GROUP_ROWS)
                    held = held.slice(whole)
            if held.num_rows:
                writer.write_table(held)


@contextlib.contextmanager
def answer(sql: str, manifests: Path) -> Iterator[Answer]:
    """The answer to one SELECT over the views of `open_manifests`.

    Raises:
        UsageProblem: nothing is built; or it is not one SELECT, or DuckDB refuses it.
        BadManifest: a built file cannot be read.
    """
    with _refusals(sql):
        parsed(sql)
    if not single_select(sql):
        raise UsageProblem(
            f"{_shown(sql)}: expected exactly one SELECT, nothing else — the views are listed by: "
            'curate sql "show tables"'
        )
    wrapped = f"from (\n{sql.rstrip().rstrip(';')}\n)"
    with contextlib.closing(open_manifests(manifests)) as db, disk_space(manifests):
        db.execute(f"set memory_limit = '{_MEMORY_MIB}MiB'")
        db.execute("set python_enable_replacements = false")  # no Python variable is a table
        lock(db)
        with _refusals(sql):
            if runs_others(db, sql.rstrip().rstrip(";")):
                raise UsageProblem(
                    f"{_shown(sql)}: calls a function that runs other statements, expected a SELECT "
                    "without it"
                )
            described = db.execute(f"describe {wrapped}").fetchall()
        yield Answer([(str(row[0]), str(row[1])) for row in described], db, sql, wrapped)


@contextlib.contextmanager
def _refusals(sql: str) -> Iterator[None]:
    """Turn what DuckDB says of somebody's SELECT into `UsageProblem`."""
    import duckdb
    import pyarrow as pa

    try:
        with interruptible():
            yield
    except (duckdb.IOException, duckdb.SerializationException) as error:
        if says_full(error):
            raise
        raise BadManifest(
            f"a built file cannot be read ({first_line(error)}), expected Parquet as build wrote it — "
            "rebuild it with: curate build"
        ) from error
    except duckdb.OutOfMemoryException as error:
        if says_full(error):
            raise
        raise UsageProblem(
            f"{_shown(sql)}: needs more than {_MEMORY_MIB} MiB of memory ({first_line(error)}), "
            "expected less — ask for fewer columns, or add a limit"
        ) from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        # Through Arrow's stream, what DuckDB says comes as an OSError without a number.
        if says_full(error) or getattr(error, "errno", None) is not None:
            raise
        if "interrupt" in str(error).lower():
            raise KeyboardInterrupt from error
        quoted = ' ("overlaps" is a word of SQL and needs its quotes)' if "overlaps" in sql else ""
        raise UsageProblem(
            f"{_shown(sql)}: {first_line(error)}; expected a SELECT over the views{quoted} — they are "
            'listed by: curate sql "show tables"'
        ) from error


def _shown(sql: str) -> str:
    """The SELECT in one line, cut where it is long."""
    line = " ".join(sql.split())
    return repr(line if len(line) <= 60 else line[:59] + "…")


def csv_lines(found: Answer) -> Iterator[str]:
    """The rows as CSV with a header; lists and structs as JSON, nothing for null."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="")
    for row in itertools.chain([found.names], found.rows()):
        writer.writerow(["" if value is None else _cell(value) for value in row])
        yield out.getvalue()
        out.seek(0)
        out.truncate()


def jsonl_lines(found: Answer) -> Iterator[str]:
    """The rows as JSON objects, one a line."""
    for row in found.rows():
        yield _json(dict(zip(found.names, row, strict=True)))


def json_lines(found: Answer) -> Iterator[str]:
    """One JSON document with the rows as objects, in pieces; its last key is the summary."""
    columns = [{"name": name, "type": kind} for name, kind in found.columns]
    yield f'{{"command": "sql",\n "columns": {_json(columns)},\n "rows": ['
    for index, line in enumerate(jsonl_lines(found)):
        yield f"{', ' if index else '  '}{line}"
    yield f' ],\n "summary": {_json(summary(found))}}}'


def table_lines(found: Answer) -> Iterator[str]:
    """The first rows as an aligned table; the others are read and counted."""
    shown: list[list[str | None]] = []
    for row in found.rows():
        if len(shown) < _SHOWN_ROWS:
            shown.append([value if value is None else _cell(value) for value in row])
    yield render(found.names, shown)


LINES: dict[str, Callable[[Answer], Iterable[str]]] = {
    "table": table_lines, "csv": csv_lines, "jsonl": jsonl_lines,
}  # fmt: skip


def write(found: Answer, format: str, target: Path, manifests: Path) -> None:
    """Write the answer to `target` in one of FORMATS, whole or not at all.

    Raises:
        UsageProblem: `target` lies among the manifests, which no answer may replace.
    """
    outside(target, manifests, option="--out")
    with replacing(target) as temporary:
        if format == "parquet":
            found.write_parquet(temporary)
            return
        with temporary.open("w", encoding="utf-8", newline="") as out:
            for line in LINES[format](found):
                out.write(line + "\n")


def summary(found: Answer, *, format: str = "", target: Path | None = None) -> str:
    """How many rows there are, and where."""
    total = number(found.num_rows, "row")
    if format == "table":
        shown = min(found.num_rows, _SHOWN_ROWS)
        total += f" = {shown:,} shown + {found.num_rows - shown:,} not shown"
    return total + (f" in {target}" if target else "")


def _cell(value: Any) -> str:
    """A value as text: as DuckDB would print numbers and times, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return _json(value) if isinstance(value, list | tuple | dict | bytes) else str(value)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):  # a third of the speed
        return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: no NaN, no bytes; what JSON has no type for becomes text."""
    from decimal import Decimal

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
