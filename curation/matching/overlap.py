"""Overlaps by identity: which training clips are cut from the recording of a held-out clip.

Rules, one evidence row each for a pair of clips:

| rule | the pair | source |
|---|---|---|
| `same_id` | has one source and source_id | MMAudio (arXiv:2412.15322), supplement E |
| `same_interval` | … and meets in time: `a.start < b.end + m and b.start < a.end + m` | |
| `same_start` | … and starts at the same millisecond | |
| `known_reupload` | has ids that the literature names as uploads of one video | cards |
| `published_list` | its training clip is on an exclusion list that others published | cards |
| `same_annotation` | has other ids, and one start and one set of labels in AudioSet | annotation.py |
| `near_av`, `near_video`, `near_audio` | shows or sounds the same | near.py |

Times are compared in whole milliseconds; an unknown time meets every time. A clip without source_id
meets nothing and is counted as unidentified. `measure` is the number of seconds both clips share (0
where they lie apart, null where a time is unknown; of `same_annotation` the share of clips that start
there); `offset_s` brings a moment of the held-out clip
to the same moment of the training clip: held-out start minus training start, or what the media say.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import curation
from curation.catalog import evidence as published_evidence
from curation.catalog.cards import load_cards
from curation.catalog.lists import built_path, is_own_list, list_names
from curation.catalog.record import dataset_folder
from curation.catalog.store import sql_text, work_connection
from curation.errors import UsageProblem
from curation.files import canonical_json, replacing, sha256_file
from curation.manifest import EVIDENCE_COLUMNS, METADATA_KEY, PARQUET
from curation.matching.annotation import RULE as SUSPECTED
from curation.matching.annotation import find_suspected
from curation.matching.comparison import Comparison, compare
from curation.matching.near import FILE as DUPLICATES_FILE
from curation.matching.near import RULES as NEAR_RULES
from curation.matching.near import find_near

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

REVIEW_RULES = ("published_list", SUSPECTED)  # somebody should look; of near rules each pair has a tier
RULES = ("same_id", "same_interval", "same_start", "known_reupload", *NEAR_RULES, *REVIEW_RULES)
MATCH_RULES = {"id": "same_id", "interval": "same_interval", "start": "same_start"}
_MEETS = """(h.start_ms is null or t.end_ms is null or h.start_ms < t.end_ms + $margin_ms)
    and (t.start_ms is null or h.end_ms is null or t.start_ms < h.end_ms + $margin_ms)"""


def overlaps(
    tests: str | Iterable[str],
    *,
    train: str | Iterable[str] | None = None,
    manifests: str | Path = "manifests",
    cards: Iterable[str | Path] = (),
) -> "pa.Table":
    """The evidence rows: every training clip that overlaps a clip of these test sets, and by what rule.

    Columns: test_list, heldout_dataset, heldout_clip_id, train_dataset, train_clip_id, rule, measure
    (seconds shared), offset_s; in the order of the tests, then of the ids, then of the rules. A pair
    has one row for each rule that it meets.

    Args:
        tests: datasets ("vggsound": its default list), lists ("vggsound@mmaudio"), splits, or files
            of one's own ("my.csv").
        train: training sets, named alike; None: the train splits of everything that is built.
        manifests: the folder that `curate build` wrote.
        cards: further folders with dataset cards.
    """
    folder = Path(manifests)
    chosen, trained = _names(tests), None if train is None else _names(train)
    if any(map(is_own_list, named := [*chosen, *(trained or [])])):
        from curation.catalog.ownlists import take_lists  # which builds, and loads what building needs

        take_lists(named, folder)
    comparison = compare(
        chosen, train=trained, manifests=folder, cards=load_cards(folder, *map(Path, cards))
    )
    with work_connection(folder) as db:
        find(db, comparison)
        return db.sql(EVIDENCE_SELECT).to_arrow_table()


def _names(value: str | Iterable[str]) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value
    return [name.strip() for name in names if name.strip()]


_COLUMNS = ", ".join(name for name, _ in EVIDENCE_COLUMNS)
# Several publications may say the same of a pair; only `curate blame` tells them apart.
EVIDENCE_SELECT = f"""
    select {_COLUMNS} from (
        select {_COLUMNS}, test, rule_order from evidence where via is null
        union all
        select distinct {_COLUMNS}, test, rule_order from evidence where via is not null)
    order by test, heldout_dataset, heldout_clip_id, train_dataset, train_clip_id, rule_order"""


def find(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> None:
    """Make the temporary tables (one is a view) `heldout`, `pairs` and `evidence` of a comparison.

    `evidence` has the evidence columns, and test (index), tier, rule_order (near rules of review tier
    come last), train_row (position in the dataset's clips.parquet), via (name of the published
    evidence) and train_is_item (whether the training row is an item of one of the test sets).
    """
    _define_heldout(db, comparison)
    _define_published(db, comparison)
    _define_pairs(db, comparison)
    find_suspected(db, comparison)
    find_near(db, comparison, _train_rows(comparison))
    _define_evidence(db, comparison)


def _define_heldout(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> None:
    parts = [
        f"""select {index} as test, dataset, split, clip_id, source, source_id,
            round(start_s * 1000)::bigint as start_ms, round(end_s * 1000)::bigint as end_ms
        from read_parquet({sql_text(built_path(comparison.manifests, test.dataset))})
        where {test.where()}"""
        for index, test in enumerate(comparison.tests)
    ]
    db.execute(f"create temp table items as {' union all '.join(parts)}")
    db.execute(f"create temp view heldout as from items where {comparison.heldout_where}")
    if comparison.heldout_where != "true":
        return
    sizes = dict(db.execute("select test, count(*) from heldout group by 1").fetchall())
    for index, test in enumerate(comparison.tests):
        if index not in sizes:
            raise UsageProblem(
                f"{test.name} has no clips in {comparison.manifests}: the file of that list was not "
                f"there when {test.dataset} was built — run: curate fetch {test.dataset} --from DIR "
                f"&& curate build {test.dataset}"
            )


def _evidence_files(comparison: Comparison) -> dict[str, str]:
    """The published evidence of every built dataset, as SQL that reads it."""
    folders = {name: dataset_folder(comparison.manifests, name) for name in comparison.publishers}
    return {
        dataset: f"read_parquet({sql_text(folder / published_evidence.FILE)})"
        for dataset, folder in folders.items()
    }


def _define_published(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> None:
    """The table `published`: evidence of all built cards, with its key `via`."""
    nothing = (
        "select '' as via, '' as rule, ['']::varchar[] as heldout, '' as source, '' as source_id, "
        "0::bigint as start_ms, 0::bigint as group_id, '' as partner where false"
    )
    parts = " union all ".join([nothing, *(
        f"""select {sql_text(dataset + "/")} || name as via, rule, heldout, source, source_id,
            round(start_s * 1000)::bigint as start_ms, group_id, partner from {rows}"""
        for dataset, rows in _evidence_files(comparison).items()
    )])  # fmt: skip
    db.execute(f"create temp table published as {parts}")


def citations(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> dict[str, str]:
    """Who said so, by the `via` of evidence."""
    parts = " union ".join(
        f"select {sql_text(dataset + '/')} || name, citation from {rows}"
        for dataset, rows in _evidence_files(comparison).items()
    )
    return dict(db.execute(parts).fetchall()) if parts else {}


def _train_rows(comparison: Comparison) -> str:
    """A SELECT over all rows on the training side; lists are read only where they are asked for."""
    datasets = sorted({s.dataset for s in (*comparison.trains, *comparison.others)})
    files = ", ".join(sql_text(built_path(comparison.manifests, dataset)) for dataset in datasets)
    lists = "lists" if any(s.list_name for s in comparison.trains) else "null::varchar[] as lists"
    # One scan of many files: with a scan each and `union all`, it took a fifth longer.
    return f"""select dataset, clip_id, split, {lists}, source, source_id,
            round(start_s * 1000)::bigint as start_ms, round(end_s * 1000)::bigint as end_ms,
            file_row_number as train_row
        from read_parquet([{files}], file_row_number = true, hive_partitioning = false)
        where {comparison.train_where}"""


def _define_pairs(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> None:
    """The table `pairs`: one scan of the training side against everything that is looked for."""
    db.execute(
        """create temp table probes as
        select test, dataset, clip_id, source, source_id, start_ms, end_ms, null as via,
               false as is_foreign
        from heldout where source_id is not null
        union all
        -- other uploads of a held-out recording; their times are not those of the held-out clip
        select h.test, h.dataset, h.clip_id, other.source, other.source_id, null, null, other.via,
               false
        from heldout h
        join published mine on mine.rule = 'known_reupload'
            and mine.source = h.source and mine.source_id = h.source_id
        join published other on other.via = mine.via and other.group_id = mine.group_id
            and other.source_id <> mine.source_id"""
    )
    for index, test in enumerate(comparison.tests):
        # A list stands for items nobody can name where some of the test set have no id, or where it
        # lists clips that have some twin. Of recordings of the dataset it says nothing against the
        # dataset itself.
        db.execute(
            """insert into probes
            select $test, $dataset, null, p.source, p.source_id, p.start_ms, null, p.via,
                   p.partner = 'same_id'
            from published p
            where p.rule = 'published_list' and list_contains(p.heldout, $dataset)
              and (p.partner = 'unknown'
                   or p.source in (select source from heldout
                                   where test = $test and source_id is null))
              and not exists (select 1 from heldout h where h.test = $test
                  and p.partner = 'same_id' and h.source = p.source and h.source_id = p.source_id)
            """,
            {"test": index, "dataset": test.dataset},
        )
    db.execute(
        f"""create temp table pairs as
        select h.test, h.dataset as heldout_dataset, h.clip_id as heldout_clip_id,
               h.source, h.source_id, h.via, h.start_ms as heldout_start_ms,
               t.dataset as train_dataset, t.split, t.lists, t.clip_id as train_clip_id,
               t.start_ms as train_start_ms, t.train_row,
               {_MEETS} as same_interval,
               coalesce(h.start_ms = t.start_ms, false) as same_start,
               case when h.via is null and h.start_ms + h.end_ms + t.start_ms + t.end_ms is not null
                    then greatest(0, least(h.end_ms, t.end_ms) - greatest(h.start_ms, t.start_ms))
                         / 1000 end as shared_s
        from ({_train_rows(comparison)}) t
        -- ids alone are hashed, a fifth faster; `is true` keeps the sources out of the key
        join probes h on h.source_id = t.source_id and (h.source = t.source) is true
        -- a training row that is itself an item of the test set is held out, not evidence
        where not exists (select 1 from items i
                  where i.test = h.test and i.dataset = t.dataset and i.clip_id = t.clip_id)
          and not (h.is_foreign and h.dataset = t.dataset)
          -- an entry of a published list that tells a start is about that clip only
          and (h.clip_id is not null or h.start_ms is null or h.start_ms = t.start_ms)""",
        {"margin_ms": round(comparison.margin_s * 1000)},
    )


def chosen(comparison: Comparison) -> str:
    """The condition that a pair's training row belongs to a training set of the comparison."""
    return " or ".join(
        f"(train_dataset = {sql_text(s.dataset)} and {s.where()})" for s in comparison.trains
    )


def _define_evidence(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> None:
    names = " ".join(
        f"when {index} then {sql_text(test.name)}" for index, test in enumerate(comparison.tests)
    )
    rules = " ".join(f"when '{rule}' then {order}" for order, rule in enumerate(RULES))
    review = ", ".join(map(sql_text, REVIEW_RULES))
    db.execute(
        f"""create temp table evidence as
        with trained as (from pairs where {chosen(comparison)}),
        by_rule as (
            select *, 'same_id' as rule from trained where via is null
            union all select *, 'same_interval' from trained where via is null and same_interval
            union all select *, 'same_start' from trained where via is null and same_start
            union all select *, 'known_reupload' from trained
                where via is not null and heldout_clip_id is not null
            union all select *, 'published_list' from trained
                where via is not null and heldout_clip_id is null
            union all select c.* replace (p.via as via), 'published_list'
                from trained c join published p on p.rule = 'published_list'
                    and p.partner = 'same_id' and list_contains(p.heldout, c.heldout_dataset)
                    and p.source = c.source and p.source_id = c.source_id
                    and (p.start_ms is null or p.start_ms = c.train_start_ms)
                where c.via is null
        )
        select case test {names} end as test_list, heldout_dataset, heldout_clip_id, train_dataset,
               train_clip_id, rule, shared_s as measure,
               case when tier is not null then offset_s when heldout_clip_id is not null
                    then (heldout_start_ms - train_start_ms) / 1000 end as offset_s,
               test, coalesce(tier, case when rule in ({review}) then 'review' else 'auto' end) as tier,
               case rule {rules} end + case tier when 'review' then {len(RULES)} else 0 end
                   as rule_order,
               train_row, via,
               -- such a row is not trained on
               exists (select 1 from items i where i.dataset = train_dataset
                       and i.clip_id = train_clip_id) as train_is_item
        from (
            select test, heldout_dataset, heldout_clip_id, heldout_start_ms, train_dataset,
                   train_clip_id, train_start_ms, train_row, rule, shared_s, via,
                   null::varchar as tier, null::double as offset_s
            from by_rule
            union all
            select test, heldout_dataset, heldout_clip_id, start_ms, train_dataset,
                   train_clip_id, start_ms, train_row, '{SUSPECTED}', share, via, null, null
            from suspected where {chosen(comparison)}
            union all
            select test, heldout_dataset, heldout_clip_id, null, train_dataset,
                   train_clip_id, null, train_row, rule, shared_s, null, tier, offset_s
            from near where {chosen(comparison)}
        )"""
    )


def write_evidence(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, tests: dict[str, Any]
) -> Path:
    """Write overlaps.parquet: the evidence rows of the last comparison."""
    about = {
        "format": "foleyproof-overlaps/1",
        "made_by": f"foleyproof {curation.__version__}",
        "tests": {test["list"]: test["digest"] for test in tests.values()},
        "train": list(list_names(selection.key for selection in comparison.trains)),
        "margin_s": comparison.margin_s,
        "manifests": {
            dataset: record["outputs"]["clips.parquet"]["sha256"]
            for dataset, record in comparison.records.items()
        },
    }
    if (duplicates := comparison.manifests / DUPLICATES_FILE).is_file():
        about["duplicates"] = sha256_file(duplicates)
    target = comparison.manifests / "overlaps.parquet"
    with replacing(target) as temporary:
        db.execute(
            f"copy ({EVIDENCE_SELECT}) to {sql_text(temporary)} ({PARQUET}, "
            f"kv_metadata {{{METADATA_KEY}: {sql_text(canonical_json(about))}}})"
        )
    return target
