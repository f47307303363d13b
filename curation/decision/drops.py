"""Which training rows go, and why: the first evidence of each, then its licence, then its own twins."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.licence import licence_name
from curation.catalog.lists import built_path
from curation.catalog.store import fingerprint_files, sql_text
from curation.decision.policy import LICENCE, REASONS, TIERS, Acting, CleanConfig, Policy, acts_sql
from curation.errors import UsageProblem
from curation.matching.comparison import Comparison
from curation.matching.near import RULES as NEAR_RULES
from curation.matching.near import Duplicates
from curation.verdict import Reason

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


def define_drops(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    rules: Acting,
    duplicates: Duplicates | None,
) -> dict[str, int] | None:
    """Make the table `first_evidence`: a row for each training row that goes, by train_dataset and
    train_row, with the columns that excluded.parquet adds.

    Returns what de-duplication found, None without it.
    """
    drops = config.policy in (Policy.PREFER_TEST, Policy.DROP_BOTH)
    db.execute(
        f"""create temp table first_evidence as
        select train_dataset, train_row, {cases("rule", REASONS)} as reason, rule, tier,
               heldout_dataset, heldout_clip_id, measure, offset_s
        from (
            select *, row_number() over (
                partition by train_dataset, train_row
                order by rule_order, test, heldout_clip_id, offset_s, via) as rank
            from evidence where {str(drops).lower()} and {acts_sql(rules)}
        ) where rank = 1"""
    )
    for dataset in train_datasets(comparison):
        _refuse_licences(db, comparison, dataset, config.licences)
    return _drop_twins(db, comparison, duplicates) if config.dedup else None


def train_datasets(comparison: Comparison) -> list[str]:
    """Every dataset with a training set in the comparison, in alphabetical order."""
    return sorted({selection.dataset for selection in comparison.trains})


def cases(column: str, values: dict[str, Any]) -> str:
    """SQL: what `values` says of a column."""
    listed = " ".join(f"when '{key}' then '{value}'" for key, value in values.items())
    return f"case {column} {listed} end"


def _refuse_licences(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, dataset: str, allowed: tuple[str, ...]
) -> None:
    """Add to `first_evidence` input rows of other licences that nothing else drops."""
    if not allowed:
        return
    names = ", ".join(map(sql_text, allowed))
    db.execute(
        f"""insert into first_evidence
        select {sql_text(dataset)}, file_row_number, '{REASONS[LICENCE]}', '{LICENCE}',
               '{TIERS[LICENCE]}', null, null, null, null
        from read_parquet({sql_text(built_path(comparison.manifests, dataset))}, file_row_number = true)
        where {comparison.is_input(dataset)} and {licence_name("licence")} not in ({names})
          and file_row_number not in (
              select train_row from first_evidence where train_dataset = {sql_text(dataset)})"""
    )


def check_dedup(duplicates: Duplicates | None, comparison: Comparison) -> None:
    """Raise UsageProblem where the pairs within the training sets were not looked for."""
    if duplicates is None:
        raise UsageProblem(
            f"{comparison.manifests}: holds no duplicates.parquet, which --dedup needs — run: "
            "curate scan --dataset NAME DIR && curate duplicates"
        )
    if duplicates.tests is not None:
        raise UsageProblem(
            f"{duplicates.path}: holds pairs with items of {', '.join(duplicates.tests)} alone, --dedup "
            "needs those within the training sets — run: curate duplicates"
        )


def twins(db: "duckdb.DuckDBPyConnection", rows: str, path: Path) -> "pa.Table":
    """The pairs of auto tier of duplicates.parquet whose clips are both among `rows`, which is SQL."""
    return db.sql(
        f"""with chosen as ({rows})
        from read_parquet({sql_text(path)}) p where tier = 'auto'
          and exists (select 1 from chosen c where c.clip_id = p.a_clip_id and c.dataset = p.a_dataset)
          and exists (select 1 from chosen c where c.clip_id = p.b_clip_id and c.dataset = p.b_dataset)
        order by a_dataset, a_clip_id, b_dataset, b_clip_id, rule"""
    ).to_arrow_table()


def redundant(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, pairs: "pa.Table"
) -> tuple[dict[str, str], dict[str, int]]:
    """By key of each clip that another one makes superfluous the key of that other, and counts."""
    from curation.matching.clusters import clusters

    found = clusters(pairs, _facts(db, comparison), held_out=())
    stays = {
        key: kept
        for component, kept in zip(found.components, found.representatives, strict=True)
        for key in component
        if key != kept
    }
    return stays, {
        "clusters": len(found.components),
        "clips": sum(map(len, found.components)),
        "weak_links": len(found.bridges),
        "dropped_links": len(found.dropped_edges),
    }


def _facts(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> "pa.Table | None":
    """Size and length of the pictures of scanned clips, which decide who stays."""
    files = [
        path for name in train_datasets(comparison)
        for path in fingerprint_files(comparison.manifests, name)
    ]  # fmt: skip
    if not files:
        return None
    return db.sql(
        f"""select dataset, clip_id, width_px, height_px, duration_s
        from read_parquet([{", ".join(map(sql_text, files))}], hive_partitioning = false)"""
    ).to_arrow_table()


def _drop_twins(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, duplicates: Duplicates | None
) -> dict[str, int]:
    """Add to `first_evidence` all clips but one of each cluster of rows that nothing else drops."""
    import pyarrow as pa

    assert duplicates is not None, "check_dedup comes first"
    db.execute(f"create temp table staying as {_staying(comparison)}")
    pairs = twins(db, "from staying", duplicates.path)
    stays, counts = redundant(db, comparison, pairs)
    db.register("pairs_of_twins", pairs)
    gone, kept = (pa.array(keys, pa.string()) for keys in (list(stays), list(stays.values())))
    db.register("goes", pa.table([gone, kept], names=["gone", "kept"]))
    # measure and offset are those of the pair itself, where there is one; the offset leads to the row
    db.execute(
        f"""insert into first_evidence
        with turned as (
            select a_dataset || '/' || a_clip_id as kept, b_dataset || '/' || b_clip_id as gone,
                   rule, shared_s, offset_s from pairs_of_twins
            union all
            select b_dataset || '/' || b_clip_id, a_dataset || '/' || a_clip_id,
                   rule, shared_s, 0 - offset_s from pairs_of_twins),
        best as (
            select w.gone, w.kept, t.rule, t.kept = w.kept as is_direct, t.shared_s, t.offset_s,
                   row_number() over (partition by w.gone
                       order by t.kept <> w.kept, {cases("t.rule", _ORDER)}, t.kept) as rank
            from goes w join turned t on t.gone = w.gone)
        select g.dataset, g.row, '{Reason.IN_TRAINING}', b.rule, 'auto', k.dataset, k.clip_id,
               case when is_direct then shared_s end, case when is_direct then offset_s end
        from best b
        join staying g on g.dataset || '/' || g.clip_id = b.gone
        join staying k on k.dataset || '/' || k.clip_id = b.kept
        where rank = 1"""
    )
    db.unregister("pairs_of_twins")
    db.unregister("goes")
    return counts


_ORDER = {rule: order for order, rule in enumerate(NEAR_RULES)}


def _staying(comparison: Comparison) -> str:
    """SQL: rows of the training sets that are not in `first_evidence`."""
    return " union all ".join(
        f"""select dataset, clip_id, file_row_number as row
        from read_parquet({sql_text(built_path(comparison.manifests, dataset))}, file_row_number = true)
        where {comparison.is_input(dataset)} and file_row_number not in (
            select train_row from first_evidence where train_dataset = {sql_text(dataset)})"""
        for dataset in train_datasets(comparison)
    )
