"""What others published about overlaps of a dataset: `evidence.parquet`, from its card."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from curation.catalog.cards import Card
from curation.catalog.clips import check_select
from curation.catalog.revoked import is_revoked
from curation.catalog.store import card_sql, sql_text
from curation.files import replacing
from curation.manifest import PARQUET

if TYPE_CHECKING:
    import duckdb

FILE = "evidence.parquet"


def write_evidence(
    db: "duckdb.DuckDBPyConnection", card: Card, folder: Path, *, revoked: Collection[str]
) -> dict[str, int]:
    """Write evidence.parquet; for each list that has some, how many entries have no readable id.

    Args:
        revoked: recordings that nothing is said of any more.
    """

    db.execute(
        "create temp table published (name varchar, rule varchar, heldout varchar[], source varchar, "
        "source_id varchar, start_s double, group_id bigint, partner varchar, "
        "citation varchar)"
    )
    unread: dict[str, int] = {}
    for evidence in card.evidence:
        common = [evidence.name, evidence.rule, list(evidence.heldout)]
        for group_id, group in enumerate(evidence.groups):
            for source_id in (id_ for id_ in group if f"{evidence.source}:{id_}" not in revoked):
                db.execute(
                    "insert into published values (?, ?, ?, ?, ?, null, ?, null, ?)",
                    [*common, evidence.source, source_id, group_id, evidence.citation],
                )
        if evidence.annotations is not None:  # the dataset stands where else the source of an id does
            db.execute(
                "insert into published values (?, ?, ?, ?, null, null, null, null, ?)",
                [*common, evidence.annotations, evidence.citation],
            )
        if evidence.sql is not None:
            columns = check_select(db, card, evidence.sql, f"evidence {evidence.name!r}")
            start = "start_s" if "start_s" in columns else "null"
            with card_sql(f"{card.folder / 'card.toml'}: evidence {evidence.name!r}"):
                # a table, so that every id is parsed once: as a condition it would be twice
                db.execute(
                    f"""create or replace temp table entries_read as
                    select source, source_id, {start}::double as start_s, count(*) as n
                    from ({evidence.sql}\n)
                    group by all
                    order by all"""
                )
                db.execute(
                    "insert into published select ?, ?, ?, source, source_id, start_s, null, ?, ? "
                    f"from entries_read where source_id is not null and not ({is_revoked(revoked)})",
                    [*common, evidence.partner, evidence.citation],
                )
                lost = db.execute("select sum(n) from entries_read where source_id is null").fetchone()
                if lost and lost[0]:
                    unread[evidence.name] = unread.get(evidence.name, 0) + int(lost[0])
    with replacing(folder / FILE) as temporary:
        db.execute(f"copy published to {sql_text(temporary)} ({PARQUET})")
    return unread
