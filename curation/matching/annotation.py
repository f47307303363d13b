"""The rule `same_annotation`: two uploads of one video, suspected from their labels alone.

Two clips of one dataset have other ids, but lie in AudioSet at the same start with the same set of
five or more labels. 54 % of AudioSet's segments start at 30 s and 5 % at 0 s, so those two starts say
nothing and are left out. `measure` is the share of the annotated clips of the dataset that start at
that millisecond: the chance that two of them agree by accident. What the rule is worth is measured in
README.md, "Suspected from labels"; the tier is review.
"""

from typing import TYPE_CHECKING, Any

from curation.catalog.annotations import FILE
from curation.catalog.lists import built_path
from curation.catalog.record import dataset_folder, read_record
from curation.catalog.store import sql_text
from curation.matching.comparison import Comparison

if TYPE_CHECKING:
    import duckdb

RULE = "same_annotation"
_ROUND_MS = 10_000  # 93 % of the segments start at a multiple of it


_NO_CLIPS = """select 0 as test, '' as via, '' as dataset, '' as clip_id, '' as split,
        ['']::varchar[] as lists, '' as source_id, 0::bigint as row, 0::bigint as start_ms,
        '' as labels, 0::double as share where false"""


def find_suspected(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> None:
    """Make the temporary tables `annotated` (clips) and `suspected` (pairs of them).

    Needs the tables `heldout`, `items` and `published` of the comparison.
    """
    said = db.execute(
        f"select via, heldout, source from published where rule = '{RULE}' order by via"
    ).fetchall()
    parts = [_NO_CLIPS]
    for via, datasets, annotating in said:
        path = dataset_folder(comparison.manifests, annotating) / FILE
        there = FILE in read_record(comparison.manifests, annotating).get("outputs", {})
        for index, test in enumerate(comparison.tests):
            trained = any(selection.dataset == test.dataset for selection in comparison.trains)
            if test.dataset in datasets and trained and there:
                clips = built_path(comparison.manifests, test.dataset)
                parts.append(_annotated(comparison, index, via, sql_text(clips), sql_text(path)))
    db.execute(f"create temp table annotated as {' union all '.join(parts)}")
    db.execute(
        f"""create temp table suspected as
        select t.test, t.via, h.dataset as heldout_dataset, h.clip_id as heldout_clip_id,
               t.dataset as train_dataset, t.split, t.lists, t.clip_id as train_clip_id,
               t.row as train_row, t.start_ms, t.share
        from (from annotated where {comparison.train_where}) t
        join annotated h on h.test = t.test and h.via = t.via and h.labels = t.labels
            and h.start_ms = t.start_ms and h.source_id <> t.source_id
        where exists (select 1 from heldout i where i.test = t.test and i.clip_id = h.clip_id)
          and not exists (select 1 from items i where i.test = t.test and i.clip_id = t.clip_id)"""
    )


def _annotated(comparison: Comparison, index: int, via: str, clips: str, annotations: str) -> str:
    """Clips that lie in the annotating dataset; their lists are read only where they are asked for."""
    lists = "c.lists" if any(s.list_name for s in comparison.trains) else "null::varchar[]"
    return f"""
        select {index}, {sql_text(via)}, c.dataset, c.clip_id, c.split, {lists}, c.source_id,
               c.file_row_number, a.start_ms, a.labels,
               count(*) over (partition by a.start_ms) / count(*) over ()
        from read_parquet({clips}, file_row_number = true) c
        join read_parquet({annotations}) a on a.source_id = c.source_id and a.source = c.source
            and a.start_ms = round(c.start_s * 1000)::bigint"""


def suspected_counts(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison
) -> dict[tuple[int, int], dict[str, Any]]:
    """For each test and training set that were compared so: pairs, and how many chance alone gives.

    Chance is the mean over all permutations of the starts among the test clips, which has a closed
    form; `at_odd_starts` is the same for starts that are no multiple of ten seconds.
    """
    counts = {}
    tests = {test for (test,) in db.execute("select distinct test from annotated").fetchall()}
    for index in sorted(tests):
        for column, selection in enumerate(comparison.trains):
            if selection.dataset == comparison.tests[index].dataset:
                trained = f"({selection.where()})"
                counts[index, column] = {
                    **_count(db, index, trained, "true"),
                    "at_odd_starts": _count(db, index, trained, f"start_ms % {_ROUND_MS} <> 0"),
                }
    return counts


def _count(db: "duckdb.DuckDBPyConnection", index: int, trained: str, starts: str) -> dict[str, Any]:
    row = db.execute(
        f"""with clips as (
            select *, clip_id in (select clip_id from items where test = {index}) as is_item
            from annotated where test = {index} and {starts}
        ),
        tests as (from clips where is_item),
        trains as (select labels, start_ms, count(*) as n from clips
                   where not is_item and {trained} group by all),
        by_labels as (select labels, count(*) as n from tests group by 1),
        by_start as (select start_ms, count(*) as n from tests group by 1)
        select (select count(*) from suspected where test = {index} and {trained} and {starts}),
               (select count(distinct heldout_clip_id) from suspected
                where test = {index} and {trained} and {starts}),
               (select coalesce(sum(l.n * s.n * t.n) / (select count(*) from tests), 0) from trains t
                join by_labels l using (labels) join by_start s using (start_ms))"""
    ).fetchone() or (0, 0, 0.0)
    return {"pairs": row[0], "test_items": row[1], "by_chance": round(float(row[2]), 1)}
