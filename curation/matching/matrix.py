"""The matrix: for each test set and training set, how much is shared by id, interval and start.

A count is null where a whole side cannot tell: no row has an id, or a start. Near-duplicates are null
where the media of the two sets were not compared.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curation.catalog.lists import Selection, built_path, list_digest
from curation.catalog.store import sql_text
from curation.matching.annotation import suspected_counts
from curation.matching.comparison import Comparison
from curation.matching.near import read_duplicates
from curation.matching.overlap import chosen

if TYPE_CHECKING:
    import duckdb

# What is counted of the pairs of a cell, in the order of the JSON.
_COUNTED = {
    "test_items": "distinct heldout_clip_id",
    "test_ids": "distinct source || ':' || source_id",
    "train_items": "distinct train_clip_id",  # a cell has one dataset
    "pairs": "*",  # a pair that no publication names is there once
}
_NEAR_COUNTED = ("test_items", "train_items", "pairs")
_NO_NEAR: dict[str, Any] = {**dict.fromkeys(_NEAR_COUNTED, 0), "review": dict.fromkeys(_NEAR_COUNTED, 0)}
_MATCHES = {"id": "true", "interval": "same_interval", "same_start": "same_start"}


def matrix(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> dict[str, Any]:
    """The document of `curate overlaps --json` under "tests"; needs the tables of `find`."""
    columns = [*comparison.trains, *comparison.others]
    counts = _cell_counts(db, columns)
    suspected = suspected_counts(db, comparison)
    near = _near_counts(db, columns)
    duplicates = read_duplicates(db, comparison.manifests)
    published = _published_counts(db, comparison)
    tests = {}
    for index, test in enumerate(comparison.tests):
        size = _test_size(db, index, test)
        cells = {}
        for column, selection in enumerate(columns):
            train = _train_size(db, comparison, test, index, selection)
            cells[selection.key] = {
                "train_rows": train["rows"],
                "unidentified": train["rows"] - train["identified"],
                "empty_splits": comparison.empty_splits(selection),
                **_cell(counts.get((index, column)), size, train),
                "near": near.get((index, column)),
            }
            if (
                duplicates
                and duplicates.compares(test, size["digest"])
                and duplicates.compares_train(selection)
            ):
                cells[selection.key]["near"] = near.get((index, column), _NO_NEAR)
            if (index, column) in suspected:
                cells[selection.key]["same_annotation"] = suspected[index, column]
        tests[test.key] = {
            "list": test.name,
            "size": size["rows"],
            "digest": size["digest"],
            "registered": test.known_digest == size["digest"] if test.known_digest else None,
            "unidentified": size["rows"] - size["identified"],
            "overlap": cells,
            "published_lists": published.get(index, []),
        }
    return tests


def _cell_counts(
    db: "duckdb.DuckDBPyConnection", columns: Sequence[Selection]
) -> dict[tuple[int, int], dict[str, int]]:
    """Counts of every cell that is not empty, by (test, column)."""
    counted = ", ".join(
        f"count({value}) filter (where via is null and {match}) as {name}_{label}"
        for name, value in _COUNTED.items()
        for label, match in _MATCHES.items()
    )
    result = db.execute(
        f"""with {_cells(columns)}
        select test, cell, {counted},
            count(distinct train_clip_id) filter (where via is not null
                and heldout_clip_id is not null) as reuploads,
            count(distinct train_clip_id) filter (where heldout_clip_id is null) as on_published_list
        from pairs join cells on cells.dataset = train_dataset
            and (list_contains(cells.splits, split) or list_has_any(cells.lists, pairs.lists))
        group by test, cell"""
    )
    names = [column[0] for column in result.description]
    return {(row[0], row[1]): dict(zip(names[2:], row[2:], strict=True)) for row in result.fetchall()}


def _near_counts(
    db: "duckdb.DuckDBPyConnection", columns: Sequence[Selection]
) -> dict[tuple[int, int], dict[str, Any]]:
    """Near-duplicates of every cell that has some, by (test, column): of the auto tier, and of review.

    A test item that has pairs of both tiers counts in both.
    """
    rows = db.execute(
        f"""with {_cells(columns)}
        select test, cell, tier, count(distinct heldout_clip_id), count(distinct train_clip_id),
               count(distinct (heldout_clip_id, train_clip_id))
        from near join cells on cells.dataset = train_dataset
            and (list_contains(cells.splits, split) or list_has_any(cells.lists, near.lists))
        group by all"""
    ).fetchall()
    counts: dict[tuple[int, int], dict[str, Any]] = {}
    for test, cell, tier, *found in rows:
        entry = counts.setdefault((test, cell), {**_NO_NEAR, "review": {**_NO_NEAR["review"]}})
        (entry if tier == "auto" else entry["review"]).update(zip(_NEAR_COUNTED, found, strict=True))
    return counts


def _cells(columns: Sequence[Selection]) -> str:
    """The table expression `cells`: what a row of the training side must be to count in a column."""
    cells = ", ".join(
        f"({index}, {sql_text(s.dataset)}, {_text_list(s.splits)}, {_text_list(s.lists)})"
        for index, s in enumerate(columns)
    )
    return f"cells(cell, dataset, splits, lists) as (values {cells})"


def _text_list(names: Sequence[str]) -> str:
    return f"[{', '.join(sql_text(name) for name in names)}]::varchar[]"


def _cell(counts: dict[str, int] | None, test: dict[str, Any], train: dict[str, int]) -> dict[str, Any]:
    """One cell; a count is null where a whole side cannot tell."""
    empty = train["rows"] == 0 < train["all"]  # all its rows are the test list itself
    tells = {"id": empty or (test["identified"] > 0 and train["identified"] > 0)}
    tells["interval"] = tells["id"]
    tells["same_start"] = tells["id"] and (empty or (test["timed"] > 0 and train["timed"] > 0))
    counts = counts or {}
    cell: dict[str, Any] = {
        name: {label: counts.get(f"{name}_{label}", 0) if tells[label] else None for label in _MATCHES}
        for name in _COUNTED
    }
    cell["known_reupload"] = counts.get("reuploads", 0)
    cell["published_list_bound"] = counts.get("on_published_list", 0)
    return cell


def _test_size(db: "duckdb.DuckDBPyConnection", index: int, test: Selection) -> dict[str, Any]:
    rows, identified, timed = db.execute(
        "select count(*), count(source_id), count(start_ms) from heldout where test = ?", [index]
    ).fetchone() or (0, 0, 0)
    select = f"select {list_digest(test.pinned_by)} from heldout where test = ?"
    (digest,) = db.execute(select, [index]).fetchone() or ("",)
    return {"rows": rows, "identified": identified, "timed": timed, "digest": digest}


def _train_size(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    test: Selection,
    index: int,
    selection: Selection,
) -> dict[str, int]:
    """Rows of a training set, with ids and with starts, less the rows of the test list itself.

    `all` is the number of rows before those were taken out.
    """
    names = ("rows", "identified", "timed")
    own = test.where() if selection.dataset == test.dataset else "false"
    if not selection.splits:  # a list, which the records do not count
        path = sql_text(built_path(comparison.manifests, selection.dataset))
        found = db.execute(
            f"""select count(*) filter (not ({own})), count(source_id) filter (not ({own})),
                count(start_s) filter (not ({own})), count(*)
            from read_parquet({path}) where {selection.where()}"""
        ).fetchone() or (0, 0, 0, 0)
        return {**dict(zip(names, found[:3], strict=True)), "all": found[3]}
    splits = comparison.records[selection.dataset]["splits"]
    size = {name: sum(splits[split][name] for split in selection.splits) for name in names}
    taken = (0, 0, 0)
    if own != "false":
        taken = (
            db.execute(
                "select count(*), count(source_id), count(start_ms) from heldout "
                f"where test = {index} and {selection.where()}"
            ).fetchone()
            or taken
        )
    left = {name: size[name] - n for name, n in zip(names, taken, strict=True)}
    return {**left, "all": size["rows"]}


def _published_counts(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison
) -> dict[int, list[dict[str, Any]]]:
    """What the published lists say about each test set, and what they miss of `same_id`."""
    rows = db.execute(
        f"""with lists as (
            select via, any_value(heldout) as heldout, any_value(partner) as partner,
                   count(*) as entries
            from published where rule = 'published_list' group by via
        ),
        ids as (select distinct test, dataset, source, source_id from heldout
                where source_id is not null),
        leaked as (select distinct test, source, source_id from pairs
                   where via is null and ({chosen(comparison)}))
        select ids.test, lists.via, lists.partner, lists.entries, count(*) as test_ids,
               count(p.source_id) as covered, count(leaked.source_id) as leaked,
               count(leaked.source_id) filter (where p.source_id is null) as missed
        from lists join ids on list_contains(lists.heldout, ids.dataset)
        left join (select distinct via, source, source_id from published) p
            on p.via = lists.via and p.source = ids.source and p.source_id = ids.source_id
        left join leaked on leaked.test = ids.test and leaked.source = ids.source
            and leaked.source_id = ids.source_id
        group by all order by 1, 2"""
    ).fetchall()
    counts: dict[int, list[dict[str, Any]]] = {}
    for test, via, partner, entries, test_ids, covered, leaked, missed in rows:
        entry: dict[str, Any] = {"name": via, "entries": entries, "test_ids_on_it": covered}
        if partner == "same_id":
            entry |= {"test_ids": test_ids, "overlapping_ids": leaked, "missed_ids": missed}
        counts.setdefault(test, []).append(entry)
    return counts
