"""What identity cannot tell about a test set: the upper bound on what may be left in training data."""

from typing import TYPE_CHECKING, Any

from curation.catalog.identity import LIKELY_ID
from curation.catalog.lists import built_path
from curation.catalog.problems import FILE as PROBLEMS_FILE
from curation.catalog.record import dataset_folder
from curation.catalog.store import sql_text
from curation.decision.policy import CleanConfig, Policy
from curation.matching import overlap
from curation.matching.comparison import Comparison

if TYPE_CHECKING:
    import duckdb

LOCAL = "local"  # the source of files of one's own


def unidentified_rows(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> dict[str, int]:
    """Input rows without a source id, by source."""
    counts: dict[str, int] = {}
    for dataset in sorted({selection.dataset for selection in comparison.trains}):
        path = sql_text(built_path(comparison.manifests, dataset))
        rows = db.execute(
            f"select source, count(*) from read_parquet({path}) "
            f"where source_id is null and {comparison.is_input(dataset)} group by 1 order by 1"
        ).fetchall()
        for source, n in rows:
            counts[source] = counts.get(source, 0) + n
    return counts


def local_rows(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> bool:
    """Whether an input row is a file of one's own, of the source `local`."""
    return any(
        _count(
            db,
            f"""select count(*) from (
                select 1 from read_parquet({sql_text(built_path(comparison.manifests, dataset))})
                where source = '{LOCAL}' and {comparison.is_input(dataset)} limit 1)""",
        )
        for dataset in sorted({selection.dataset for selection in comparison.trains})
    )


def respelled_items(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> dict[int, int]:
    """Test items, by number of the test set, whose id an input row spells with other capitals.

    One of the two was changed by somebody's spreadsheet, or they are two recordings: nobody can tell.
    """
    db.execute(
        f"""create temp table spellings as
        select test, source, source_id, lower(source_id) as folded, count(*) as items from heldout
        where source in ({", ".join(sql_text(source) for source in LIKELY_ID)}) group by all"""
    )
    inputs = " union all ".join(
        f"""select source, source_id from read_parquet(
                {sql_text(built_path(comparison.manifests, dataset))})
            where {comparison.is_input(dataset)}"""
        for dataset in sorted({selection.dataset for selection in comparison.trains})
    )
    return dict(
        db.execute(
            f"""select test, sum(items)::bigint from spellings h
            where exists (select 1 from ({inputs}) t where lower(t.source_id) = h.folded
                          and t.source = h.source and t.source_id <> h.source_id)
            group by test"""
        ).fetchall()
    )


def unknown(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    index: int,
    test: dict[str, Any],
    unidentified: dict[str, int],
    respelled: int,
    *,
    has_local: bool,
) -> dict[str, Any]:
    """The unknown of test set number `index`, whose entry in the matrix is `test`.

    An unidentified test item may be in any training row; a file of one's own (source `local`), which
    never had an id, in any other such file alone, since whether it is a copy of somebody's upload is for
    its content to tell. An unidentified training row may be any one
    recording of its source, and the test items of that recording: n rows, those of the n recordings
    with most items. `respelled` items may be in a row that spells their id otherwise. What was found
    and stays, and pairs that `--match start` cannot judge, are added.
    """
    failed = _failed_rows(db, comparison, index)
    bound = _unidentified_items(db, index, has_local) + _possible_items(db, index, unidentified)
    bound += respelled + failed
    if config.policy == Policy.REPORT:
        rules = ", ".join(sql_text(rule) for rule in config.rules)
        bound += _count(
            db,
            "select count(distinct heldout_clip_id) from evidence "
            f"where test = {index} and rule in ({rules})",
        )
    if config.match == "start":
        bound += _count(
            db,
            f"""select count(distinct heldout_clip_id) from pairs
            where test = {index} and via is null and ({overlap.chosen(comparison)})
              and (heldout_start_ms is null or train_start_ms is null)""",
        )
    cells = [test["overlap"][selection.key] for selection in comparison.trains]
    return {
        "unidentified_test_items": test["unidentified"],
        "unidentified_train_rows": sum(unidentified.values()),
        "respelled_test_items": respelled,
        "failed_test_rows": failed,
        "leaked_test_items_at_most": min(test["size"] + failed, bound),
        "train_rows_on_published_lists": sum(cell["published_list_bound"] for cell in cells),
        "published_lists_applied": config.use_published,
        "suspected_test_items": 0 if config.use_annotations else _suspected_items(db, index),
    }


def _unidentified_items(db: "duckdb.DuckDBPyConnection", index: int, has_local: bool) -> int:
    """Test items without an id that may be in a training row for all that ids can tell."""
    local = "" if has_local else f"and source <> '{LOCAL}'"
    return _count(db, f"select count(*) from heldout where test = {index} and source_id is null {local}")


def _suspected_items(db: "duckdb.DuckDBPyConnection", index: int) -> int:
    """Test items that a training row may be a re-upload of, by its labels; no bound, a suspicion."""
    return _count(
        db,
        "select count(distinct heldout_clip_id) from evidence "
        f"where test = {index} and rule = 'same_annotation' and not train_is_item",
    )


def _failed_rows(db: "duckdb.DuckDBPyConnection", comparison: Comparison, index: int) -> int:
    """Rows of the test set's dataset that build could not take, and entries of its list that name no
    clip: each may be an item that nothing was compared with."""
    test = comparison.tests[index]
    path = sql_text(dataset_folder(comparison.manifests, test.dataset) / PROBLEMS_FILE)
    return _count(
        db,
        f"""select count(*) from read_parquet({path}) where verdict = 'failed'
            or (verdict = 'unresolved' and origin.file = {sql_text(test.name)})""",
    )


def _possible_items(db: "duckdb.DuckDBPyConnection", index: int, unidentified: dict[str, int]) -> int:
    """Test items of the recordings that so many unidentified rows of each source may be."""
    return sum(
        _count(
            db,
            f"""select coalesce(sum(items), 0) from (
                select count(*) as items from heldout
                where test = {index} and source = {sql_text(source)} and source_id is not null
                group by source_id order by items desc limit {n})""",
        )
        for source, n in unidentified.items()
    )


def _count(db: "duckdb.DuckDBPyConnection", sql: str) -> int:
    (count,) = db.execute(sql).fetchone() or (0,)
    return int(count)
