"""Near-duplicates by way of others: if A is B and B is C, A is C.

Clusters are transitive over pairs of the auto tier, of at most so many clips (clusters.py). Pictures and
sounds are followed apart: a clip that has the picture of one and the sound of another makes those two no
copies of each other.
"""

from typing import TYPE_CHECKING

from curation.catalog.store import sql_text

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

CHAINS = {"picture": ("near_av", "near_video"), "sound": ("near_av", "near_audio")}


def follow(db: "duckdb.DuckDBPyConnection", duplicates: "Path", train_rows: str) -> None:
    """Add to the table `near` the pairs that are near by way of others, without offset and scores.

    A pair of review tier that others confirm becomes one of auto tier. Needs the tables `heldout` and
    `items`.

    Args:
        train_rows: a SELECT of all rows of the training side.
    """
    if not _longer_than_one(db, duplicates):
        return
    _define_linked(db, duplicates)
    db.execute(
        f"""create temp table chained as
        select h.test, h.dataset as heldout_dataset, h.clip_id as heldout_clip_id,
               t.dataset as train_dataset, t.clip_id as train_clip_id, t.split, t.lists, t.train_row,
               case when count(distinct one.chain) = 2 then 'near_av'
                    when any_value(one.chain) = 'picture' then 'near_video' else 'near_audio' end as rule
        from ({train_rows}) t
        join linked other on other.clip_id = t.clip_id and other.dataset = t.dataset
        join linked one on one.chain = other.chain and one.component = other.component
        join heldout h on h.dataset = one.dataset and h.clip_id = one.clip_id
        where not exists (select 1 from items i
                  where i.test = h.test and i.dataset = t.dataset and i.clip_id = t.clip_id)
        group by all"""
    )
    same = """c.test = n.test and c.train_dataset = n.train_dataset
        and c.train_row = n.train_row and c.heldout_clip_id = n.heldout_clip_id"""
    db.execute(
        f"""update near n set tier = 'auto', by_others = true
        where tier = 'review' and exists (select 1 from chained c where {same})"""
    )
    db.execute(
        f"""insert into near by name
        select *, 'auto' as tier, true as by_others
        from chained c where not exists (select 1 from near n where {same})"""
    )


def _longer_than_one(db: "duckdb.DuckDBPyConnection", duplicates: "Path") -> bool:
    """Whether some clip has two partners: what follows loads a compiler."""
    sides = " union all ".join(
        f"select {side}_dataset as dataset, {side}_clip_id as clip_id from auto" for side in "ab"
    )
    found = db.execute(
        f"""with auto as (from read_parquet({sql_text(duplicates)}) where tier = 'auto')
        select clip_id from ({sides}) group by dataset, clip_id having count(*) > 1 limit 1"""
    ).fetchall()
    return bool(found)


def _define_linked(db: "duckdb.DuckDBPyConnection", duplicates: "Path") -> None:
    """The table `linked`: the clips of every cluster, along pictures and along sounds."""
    import pyarrow as pa

    from curation.matching.clusters import clusters

    rows = []
    for chain, rules in CHAINS.items():
        pairs = db.sql(
            f"""from read_parquet({sql_text(duplicates)})
            where tier = 'auto' and rule in ({", ".join(map(sql_text, rules))})"""
        ).to_arrow_table()
        for number, component in enumerate(clusters(pairs).components):
            for key in component:
                dataset, _, clip_id = key.partition("/")  # no dataset has a / in its name
                rows.append((chain, number, dataset, clip_id))
    names = ("chain", "component", "dataset", "clip_id")
    kinds = (pa.string(), pa.int64(), pa.string(), pa.string())
    arrays = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]
    table = pa.table(arrays, names=names)
    db.register("linked_rows", table)
    db.execute("create temp table linked as from linked_rows")
    db.unregister("linked_rows")
