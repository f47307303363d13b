"""What others published about overlaps of a dataset: `evidence.parquet`, from its card."""

from pathlib import Path
from typing import TYPE_CHECKING

from curation.catalog.cards import Card
from curation.catalog.clips import check_select, first_line
from curation.catalog.store import sql_text
from curation.errors import BadCard
from curation.files import replacing
from curation.manifest import PARQUET

if TYPE_CHECKING:
    import duckdb

FILE = "evidence.parquet"


def write_evidence(db: "duckdb.DuckDBPyConnection", card: Card, folder: Path) -> None:
    """Write evidence.parquet: what others published about overlaps of this dataset."""
    import duckdb

    db.execute(
        "create temp table published (name varchar, rule varchar, heldout varchar[], source varchar, "
        "source_id varchar, start_s double, group_id bigint, partner varchar, "
        "citation varchar)"
    )
    for evidence in card.evidence:
        common = [evidence.name, evidence.rule, list(evidence.heldout)]
        for group_id, group in enumerate(evidence.groups):
            for source_id in group:
                db.execute(
                    "insert into published values (?, ?, ?, ?, ?, null, ?, null, ?)",
                    [*common, evidence.source, source_id, group_id, evidence.citation],
                )
        if evidence.sql is not None:
            columns = check_select(db, card, evidence.sql, f"evidence {evidence.name!r}")
            start = "start_s" if "start_s" in columns else "null"
            try:
                # nulls go afterwards: as a condition, DuckDB would parse every id twice
                db.execute(
                    "insert into published select ?, ?, ?, *, null, ?, ? "
                    f"from (select distinct source, source_id, {start} from ({evidence.sql}\n) "
                    "order by all)",
                    [*common, evidence.partner, evidence.citation],
                )
                db.execute("delete from published where source_id is null")
            except duckdb.Error as error:
                raise BadCard(
                    f"{card.folder / 'card.toml'}: evidence {evidence.name!r}: {first_line(error)}"
                ) from error
    with replacing(folder / FILE) as temporary:
        db.execute(f"copy published to {sql_text(temporary)} ({PARQUET})")
