"""What build could not take as it stood: `problems.parquet`, one row each, with a reason.

The verdict is that of verdict.py: a row of the dataset is `failed`, `dropped` or, reported, `kept`; an
entry of a named list that is no clip of the dataset is `unresolved`.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from curation.catalog.cards import Card
from curation.catalog.clips import named_by_entry
from curation.catalog.identity import LIKELY_ID
from curation.catalog.revoked import is_revoked
from curation.catalog.store import sql_text
from curation.files import replacing
from curation.manifest import PARQUET, PROBLEM_COLUMNS
from curation.verdict import Reason

if TYPE_CHECKING:
    import duckdb

FILE = "problems.parquet"


def write_problems(
    db: "duckdb.DuckDBPyConnection",
    card: Card,
    folder: Path,
    seen: int,
    kept: int,
    *,
    revoked: Collection[str],
) -> dict[str, int]:
    """Write problems.parquet; how many rows for each reason.

    Args:
        revoked: recordings whose absence from a list is no problem.
    """
    clips = f"read_parquet({sql_text(folder / 'clips.parquet')})"
    detail = """'id ' || coalesce(source_id, 'null') || ', ' || coalesce(start_s::varchar, '?')
        || ' to ' || coalesce(end_s::varchar, '?') || ' s, split ' || coalesce(split, 'null')"""
    parts = [
        "select null::varchar as clip_id, null::varchar as source_id, '' as stage, '' as reason, "
        "'' as verdict, '' as detail, "
        "null::struct(file varchar, row bigint) as origin where false"
    ]
    if kept < seen:
        tables = db.execute("select table_name from duckdb_tables() where temporary").fetchall()
        rows = "unique_rows" if ("unique_rows",) in tables else "card_rows"
        parts.append(
            f"select clip_id, source_id, 'build', reason, "
            f"if(reason = '{Reason.REVOKED}', 'dropped', 'failed'), {detail}, origin "
            f"from {rows} where reason is not null"
        )
    for source, syntax in LIKELY_ID.items():
        parts.append(
            f"select clip_id, source_id, 'build', '{Reason.UNLIKELY_ID}', 'kept', "
            f"{detail}, origin from {clips} "
            f"where source = '{source}' and not regexp_full_match(source_id, '{syntax}')"
        )
    if db.execute("select 1 from entries limit 1").fetchall():
        parts.append(
            f"""select null, source_id, 'lists', '{Reason.UNRESOLVED_ENTRY}', 'unresolved',
            e.list || ' names ' || coalesce(e.source || ':' || e.source_id, 'no id')
            || coalesce(' at ' || e.start_ms / 1000 || ' s', '') || ', which is no clip of the dataset',
            {{'file': e.list, 'row': null::bigint}}
        from entries e
        where not coalesce({is_revoked(revoked)}, false)
          and not exists (select 1 from {clips} c where {named_by_entry(card)})"""
        )
    db.execute(f"create temp table problems as {' union all '.join(parts)}")
    columns = ", ".join(
        sql_text(card.dataset) + " as dataset" if name == "dataset" else f"({name})::{kind} as {name}"
        for name, kind in PROBLEM_COLUMNS
    )
    with replacing(folder / FILE) as temporary:
        db.execute(
            f"copy (select {columns} from problems order by stage, reason, origin.file, origin.row, "
            f"detail) to {sql_text(temporary)} ({PARQUET})"
        )
    return dict(db.execute("select reason, count(*) from problems group by 1 order by 1").fetchall())
