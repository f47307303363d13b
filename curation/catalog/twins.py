"""Ids that somebody's spreadsheet changed: spellings that differ by case alone, and cut-off ids.

Written to `twins.parquet` over everything that is built: each row is a clip, or a row that build
failed, whose id is doubtful, with the likely true id where another dataset or list has it. Clips
with a `case_twin` stay as they are; rows with a `truncated_id` were failed as `bad_id` and stay so.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from curation.catalog.cards import Card
from curation.catalog.identity import ID_SYNTAX, LIKELY_ID
from curation.catalog.lists import built_path
from curation.catalog.record import read_record
from curation.catalog.store import built_datasets, sql_text, work_connection
from curation.files import replacing
from curation.manifest import PARQUET
from curation.verdict import Reason

if TYPE_CHECKING:
    import duckdb

FILE = "twins.parquet"
_SHORTEST_PREFIX = 6  # characters of a cut-off id that still say something: 64^6 is 7 * 10^10
_NUM_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """What twins.parquet holds."""

    counts: dict[str, int] = field(default_factory=dict)  # clips or rows by reason
    # some of them: reason, dataset, id, likely true id or "?"
    first: list[tuple[str, str, str, str]] = field(default_factory=list)


def find_twins(manifests: Path, cards: dict[str, Card]) -> Twins:
    """Write twins.parquet over all that is built."""
    built = [name for name in built_datasets(manifests) if name in cards]
    if not built:
        return Twins()
    with work_connection(manifests) as db:
        files = ", ".join(sql_text(built_path(manifests, name)) for name in built)
        db.execute(
            f"""create temp view spelled as
            select dataset, clip_id, source, source_id from read_parquet([{files}],
                union_by_name = true, hive_partitioning = false)
            where source in ({", ".join(sql_text(source) for source in LIKELY_ID)})"""
        )
        _define_doubtful(db, manifests, built)
        trusted = [name for name in built if _is_known_copy(db, cards[name], manifests)]
        db.execute(
            "create temp table changed as select unnest($names) as place",
            {"names": [name for name in built if name not in trusted]},
        )
        _define_case_twins(db)
        _define_truncated(db)
        with replacing(manifests / FILE) as temporary:
            db.execute(
                f"""copy (select * from (from case_twins union all from truncated)
                    order by reason, dataset, clip_id, source_id, likely_id)
                to {sql_text(temporary)} ({PARQUET})"""
            )
        found = "(from case_twins union all from truncated)"
        counts = db.execute(f"select reason, count(*) from {found} group by 1 order by 1").fetchall()
        first = db.execute(
            "select distinct reason, dataset, source_id, coalesce(likely_id, '?') "
            f"from {found} order by all limit {_NUM_SHOWN}"
        ).fetchall()
        return Twins(counts=dict(counts), first=first)


def _is_known_copy(db: "duckdb.DuckDBPyConnection", card: Card, manifests: Path) -> bool:
    """Whether every raw file the clips come from is a copy the card knows by digest."""
    digests = read_record(manifests, card.dataset)["inputs"]["raw"]
    known = {file.path for file in card.files if digests.get(file.path) in file.sha256.values()}
    # a column of few values: eight milliseconds for AudioSet
    path = sql_text(built_path(manifests, card.dataset))
    files = db.execute(f"select distinct origin.file from read_parquet({path})").fetchall()
    return {file for (file,) in files} <= known


def _define_doubtful(db: "duckdb.DuckDBPyConnection", manifests: Path, built: list[str]) -> None:
    """Ids that only a list or a failed row has."""
    files = ", ".join(sql_text(manifests / name / "problems.parquet") for name in built)
    db.execute(
        f"""create temp table doubtful as
        select dataset, clip_id, reason, origin.file as place, source_id
        from read_parquet([{files}], hive_partitioning = false)
        where reason in ('{Reason.UNRESOLVED_ENTRY}', '{Reason.BAD_ID}')"""
    )


def _define_case_twins(db: "duckdb.DuckDBPyConnection") -> None:
    """Clips whose id has another spelling; the likely one is spelled so in more places.

    A place that is a copy nobody knows has half a vote: that is where ids were changed.
    """
    listed = f"select source_id from doubtful where reason = '{Reason.UNRESOLVED_ENTRY}'"
    everything = f"(select source_id from spelled union all {listed})"
    # A copy known by its digest has its ids as published: only others, and lists, can have changed
    # some. Hashes first: eight bytes a row, and no strings kept.
    (changed,) = db.execute("select count(*) from changed").fetchone() or (0,)
    db.execute(
        "create temp table suspects as select hash(lower(source_id)) as hash from "
        + (
            f"{everything} group by 1 having min(hash(source_id)) <> max(hash(source_id))"
            if changed
            else f"({listed}) group by 1"
        )
    )
    likely = LIKELY_ID["youtube"]
    db.execute(
        f"""create temp table case_twins as
        with folded as (
            select lower(source_id) as folded from (
                select source_id, dataset in (select place from changed) as suspect from spelled
                where hash(lower(source_id)) in (select hash from suspects)
                union all select source_id, true from ({listed}))
            group by 1 having min(source_id) <> max(source_id) and bool_or(suspect)
        ),
        places as (
            select lower(source_id) as folded, source_id, dataset as place from spelled
            where lower(source_id) in (select folded from folded)
            union select lower(source_id), source_id, place from doubtful
            where lower(source_id) in (select folded from folded)
        ),
        votes as (
            select folded, source_id, list_sort(list(place)) as places,
                   (sum(if(place in (select place from changed), 1, 2)),
                    regexp_full_match(source_id, '{likely}')::int) as vote
            from places group by 1, 2
        ),
        best as (
            select folded, max(vote) as vote,
                   case when count(*) filter (where vote = top) = 1
                        then any_value(source_id) filter (where vote = top) end as likely_id,
                   any_value(places) filter (where vote = top) as seen_in
            from (select *, max(vote) over (partition by folded) as top from votes) group by 1
        )
        select s.dataset, s.clip_id, s.source_id, '{Reason.CASE_TWIN}' as reason,
               best.likely_id, best.seen_in
        from spelled s join best on best.folded = lower(s.source_id)
        where best.likely_id is null or s.source_id <> best.likely_id"""
    )


def _define_truncated(db: "duckdb.DuckDBPyConnection") -> None:
    """Failed rows whose id is the beginning of exactly one known id.

    Joined on the shortest prefix: a join on `starts_with` alone compares every row with every id.
    """
    db.execute(
        f"""create temp table truncated as
        select d.dataset, d.clip_id, d.source_id, '{Reason.TRUNCATED_ID}' as reason,
               any_value(s.source_id) as likely_id, list_sort(list(distinct s.dataset)) as seen_in
        from (select distinct dataset, clip_id, source_id from doubtful
              where reason = '{Reason.BAD_ID}' and length(source_id) >= {_SHORTEST_PREFIX}
                and regexp_full_match(source_id, '[A-Za-z0-9_-]+')
                and not regexp_full_match(source_id, '{ID_SYNTAX["youtube"]}')) d
        join spelled s on substr(s.source_id, 1, {_SHORTEST_PREFIX})
                          = substr(d.source_id, 1, {_SHORTEST_PREFIX})
                      and starts_with(s.source_id, d.source_id)
        group by d.dataset, d.clip_id, d.source_id
        having count(distinct s.source_id) = 1"""
    )
