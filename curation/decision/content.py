"""What a look at the media cannot tell about a test set: the bound on what may be left in training data.

A pair of clips was compared where both were scanned, have something to compare, and were in the last
`curate duplicates`. Whatever was not compared may be the same: unknown is not clean.
"""

from typing import TYPE_CHECKING, Any

from curation.catalog.lists import Selection, built_path
from curation.catalog.store import fingerprint_files, sql_text
from curation.decision.policy import CleanConfig, Policy
from curation.matching.comparison import Comparison
from curation.matching.near import RULES, Duplicates, scans
from curation.media.video_hash import FLAT

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

NOT_SCANNED = "not_scanned"  # no fingerprints
NOT_COMPARED = "not_compared"  # fingerprints that the last `curate duplicates` did not compare
NOTHING = "nothing_to_compare"  # neither a picture that is more than flat, nor a sound
_RULES = ", ".join(map(sql_text, RULES))


def content_unknown(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    duplicates: Duplicates | None,
    kept: "Path",
) -> dict[int, dict[str, Any]]:
    """The unknown of each test set by content; empty where no media were scanned.

    A test item that was not compared may be in any kept row. A kept row that was not compared may be
    any one recording, and the test items of that recording: n rows, those of the n recordings with most
    items. What is near a kept row and stays (review tier, unless it is acted on) is added.

    Args:
        kept: kept.parquet. Test items that gave way, in the table `leaked`, count no more.
    """
    if not scans(comparison.manifests):
        return {}
    _define_scanned(db, comparison, duplicates)
    _define_items(
        db, comparison, duplicates, shrinks=config.policy in (Policy.PREFER_TRAIN, Policy.DROP_BOTH)
    )
    rows = _kept_rows(db, comparison, duplicates, kept)
    unknown_rows = sum(n for why, n in rows.items() if why)
    db.execute(
        f"""create temp table near_kept as
        select distinct test, heldout_dataset, heldout_clip_id from evidence e
        semi join read_parquet({sql_text(kept)}) k
            on k.dataset = e.train_dataset and k.clip_id = e.train_clip_id
        where rule in ({_RULES})"""
    )
    return {index: _of_test(db, index, rows, unknown_rows) for index in range(len(comparison.tests))}


def _of_test(
    db: "duckdb.DuckDBPyConnection", index: int, rows: dict[str | None, int], unknown_rows: int
) -> dict[str, Any]:
    items = dict(
        db.execute("select why, count(*) from item_states where test = ? group by 1", [index]).fetchall()
    )
    size = sum(items.values())
    unknown_items = size - items.get(None, 0)
    near, possible = db.execute(
        f"""with compared as (
            select recording, exists (select 1 from near_kept n where n.test = s.test
                    and n.heldout_dataset = s.dataset and n.heldout_clip_id = s.clip_id) as is_near
            from item_states s where test = {index} and why is null)
        select (select count(*) from compared where is_near),
               (select coalesce(sum(items), 0)::bigint from (
                    select count(*) as items from compared where not is_near
                    group by recording order by items desc limit {unknown_rows}))"""
    ).fetchone() or (0, 0)
    at_most = unknown_items + near + possible if sum(rows.values()) else 0
    return {
        "scanned_test_items": size - unknown_items,
        "unknown_test_items": unknown_items,
        "scanned_train_rows": sum(rows.values()) - unknown_rows,
        "unknown_train_rows": unknown_rows,
        "near_test_items": near,
        "unknown_reasons": {"test_items": _reasons(items), "train_rows": _reasons(rows)},
        "leaked_test_items_at_most": min(size, at_most),
    }


def _reasons(counts: dict[str | None, int]) -> dict[str, int]:
    return {why: n for why, n in sorted((why, n) for why, n in counts.items() if why)}


def _define_scanned(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, duplicates: Duplicates | None
) -> None:
    """The table `scanned`: clips with fingerprints, and why they cannot be compared (null: they can)."""
    now = scans(comparison.manifests)
    parts = ["select '' as dataset, '' as clip_id, '' as why where false"]
    for dataset in comparison.datasets:
        if dataset in now:
            files = fingerprint_files(comparison.manifests, dataset)
            listed = ", ".join(map(sql_text, files))
            compared = duplicates and duplicates.fingerprints.get(dataset) == now[dataset]
            parts.append(
                f"""select dataset, clip_id, case
                    when status <> 'scanned' then coalesce(reason, 'failed')
                    when reason is not null then reason  -- of a part, which may be anything
                    when not {str(bool(compared)).lower()} then '{NOT_COMPARED}'
                    when coalesce(list_max(flatness), 0) < {FLAT} and coalesce(len(audio_item), 0) = 0
                        then '{NOTHING}' end
                from read_parquet([{listed}], hive_partitioning = false)
                where dataset = {sql_text(dataset)}"""
            )
    db.execute(f"create temp table scanned as {' union all '.join(parts)}")


def _why(compared: str) -> str:
    """SQL: why a row, left joined with `scanned` s, was not compared; null where it was."""
    return f"""case when s.clip_id is null then '{NOT_SCANNED}' when s.why is not null then s.why
        when not ({compared}) then '{NOT_COMPARED}' end"""


def _define_items(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    duplicates: Duplicates | None,
    *,
    shrinks: bool,
) -> None:
    """The table `item_states`: test items that stay, their recording, and why they were not compared."""
    parts = [
        f"""select {index} as test, c.dataset, c.clip_id,
            coalesce(c.source || ':' || c.source_id, c.clip_id) as recording,
            {_why(_compared_items(comparison, duplicates, test))} as why
        from (select * from read_parquet({sql_text(built_path(comparison.manifests, test.dataset))})
              where {test.where()}) c
        left join scanned s on s.dataset = c.dataset and s.clip_id = c.clip_id"""
        for index, test in enumerate(comparison.tests)
    ]
    gone = """where not exists (select 1 from leaked l
        where l.test = i.test and l.heldout_clip_id = i.clip_id)""" if shrinks else ""  # fmt: skip
    db.execute(
        f"create temp table item_states as select i.* from ({' union all '.join(parts)}) i {gone}"
    )


def _compared_items(comparison: Comparison, duplicates: Duplicates | None, test: Selection) -> str:
    """SQL: whether the pairs of a clip of this test set were looked for, maybe for another list."""
    if duplicates is None:
        return "false"
    if duplicates.tests is None:
        return "true"
    conditions = ["false"]
    record = comparison.records[test.dataset]
    for name, digest in duplicates.tests.items():
        dataset, _, rest = name.partition("@")
        if dataset != test.dataset:
            continue
        if dataset == name:  # a list of one's own
            conditions.append("true")
        elif name in record.get("lists", {}):
            if digest in (None, record["lists"][name]["digest"]):
                conditions.append(f"list_contains(lists, {sql_text(name)})")
        else:
            conditions.append(f"split in ({', '.join(map(sql_text, rest.split('+')))})")
    return " or ".join(conditions)


def _kept_rows(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    duplicates: Duplicates | None,
    kept: "Path",
) -> dict[str | None, int]:
    """Kept rows by why they were not compared."""
    looked_for = [
        f"c.dataset = {sql_text(train.dataset)} and {train.where()}"
        for train in comparison.trains
        if duplicates and duplicates.compares_train(train)
    ]
    compared = " or ".join(f"({condition})" for condition in looked_for) or "false"
    return dict(
        db.execute(
            f"""select {_why(compared)} as why, count(*)
            from read_parquet({sql_text(kept)}) c
            left join scanned s on s.dataset = c.dataset and s.clip_id = c.clip_id
            group by 1"""
        ).fetchall()
    )
