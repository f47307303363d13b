"""Group leakage: what test and training clips share though they are other stretches or recordings.

The same video at other times, the same uploader, the same caption. It is counted and never removed:
whether it matters depends on what a score is meant to say.
"""

from typing import TYPE_CHECKING, Any

from curation.catalog.lists import Selection, built_path
from curation.catalog.store import sql_text
from curation.matching.comparison import Comparison

if TYPE_CHECKING:
    import duckdb

KINDS = ("other_time", "uploader", "caption")
# Letters and digits alone, so that case, blanks and full stops make no other caption.
_PLAIN = r"trim(regexp_replace(lower(caption), '[^\pL\pN]+', ' ', 'g'))"


def groups(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, tests: dict[str, Any]
) -> dict[str, Any]:
    """For each test and training set, test items and training rows of each of KINDS.

    A count is null where a whole side does not tell: has no uploader, no caption, or no id. Needs the
    tables of `overlap.find`.

    Args:
        tests: what `matrix` found.
    """
    _define_test_words(db, comparison)
    found: dict[str, Any] = {test.key: {} for test in comparison.tests}
    for selection in comparison.trains:
        _define_train_words(db, comparison, selection)
        for index, test in enumerate(comparison.tests):
            tells = tests[test.key]["overlap"][selection.key]["test_items"]["interval"] is not None
            found[test.key][selection.key] = {
                "other_time": _other_time(db, index, selection) if tells else None,
                "uploader": _shared_words(db, index, selection, "uploader"),
                "caption": _shared_words(db, index, selection, "caption"),
            }
    return found


def _words(clips: str) -> str:
    """Every uploader and every plain caption of these rows, one a row."""
    return f"""
        select dataset, clip_id, 'uploader' as kind, source || ':' || uploader as word
        from {clips} where uploader is not null
        union all
        select distinct dataset, clip_id, 'caption', {_PLAIN}
        from (select dataset, clip_id, unnest(captions) as caption from {clips})
        where {_PLAIN} <> ''"""


def _define_test_words(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> None:
    parts = []
    for index, test in enumerate(comparison.tests):
        path = sql_text(built_path(comparison.manifests, test.dataset))
        words = _words(f"(from read_parquet({path}) where {test.where()})")
        parts.append(f"select {index} as test, * from ({words})")
    db.execute(f"create temp table test_words as {' union all '.join(parts)}")


def _define_train_words(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, selection: Selection
) -> None:
    path = sql_text(built_path(comparison.manifests, selection.dataset))
    words = _words(f"(from read_parquet({path}) where {selection.where()})")
    db.execute(f"create or replace temp table train_words as {words}")


def _shared_words(
    db: "duckdb.DuckDBPyConnection", index: int, selection: Selection, kind: str
) -> dict[str, int] | None:
    row = db.execute(
        """with tests as (from test_words where test = $test and kind = $kind),
        trains as (
            from train_words t where kind = $kind and not exists (
                select 1 from items i
                where i.test = $test and i.dataset = t.dataset and i.clip_id = t.clip_id))
        select (select count(*) from tests), (select count(*) from trains),
               (select count(distinct clip_id) from tests where word in (select word from trains)),
               (select count(distinct clip_id) from trains where word in (select word from tests))""",
        {"test": index, "kind": kind},
    ).fetchone() or (0, 0, 0, 0)
    return {"test_items": row[2], "train_items": row[3]} if row[0] and row[1] else None


def _other_time(db: "duckdb.DuckDBPyConnection", index: int, selection: Selection) -> dict[str, int]:
    """Clips of one recording that share no moment."""
    row = db.execute(
        f"""select count(distinct heldout_clip_id), count(distinct train_clip_id) from pairs
        where test = {index} and via is null and not same_interval
          and train_dataset = {sql_text(selection.dataset)} and {selection.where()}"""
    ).fetchone() or (0, 0)
    return {"test_items": row[0], "train_items": row[1]}
