"""Clips that many labels tell apart: `annotations.parquet`, from the clips of a dataset.

Five labels or more, given by people, are rarely the same for two recordings. AudioSet's are what
`matching/annotation.py` compares.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from curation.catalog.store import sql_text
from curation.files import replacing
from curation.manifest import PARQUET

if TYPE_CHECKING:
    import duckdb

FILE = "annotations.parquet"
FEWEST_LABELS = 5
# 59 % of AudioSet starts there, so that it tells nothing. Source: the 2,084,320 segments of AudioSet v1.
USUAL_STARTS_MS = (0, 30_000)


def write_annotations(db: "duckdb.DuckDBPyConnection", folder: Path) -> bool:
    """Write annotations.parquet, if any clip has an unusual start and FEWEST_LABELS labels.

    Columns: source, source_id, start_ms, labels (the md5 of the sorted ones). Whether it was written.
    """
    clips = f"read_parquet({sql_text(folder / 'clips.parquet')})"
    db.execute(
        f"""create temp table annotated as
        select source, source_id, round(start_s * 1000)::bigint as start_ms,
               md5(list_sort(list_distinct(labels))::varchar) as labels
        from {clips}
        where len(labels) >= {FEWEST_LABELS} and start_s is not null and source_id is not null
          and start_ms not in ({", ".join(map(str, USUAL_STARTS_MS))})
          and len(list_distinct(labels)) >= {FEWEST_LABELS}"""
    )
    if not db.execute("select 1 from annotated limit 1").fetchall():
        return False
    with replacing(folder / FILE) as temporary:
        db.execute(
            f"copy (from annotated order by source, source_id, start_ms, labels) "
            f"to {sql_text(temporary)} ({PARQUET})"
        )
    return True
