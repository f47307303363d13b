"""What is in a built dataset, by number: splits, named lists, licences; and beside what is published."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.cards import Card
from curation.catalog.licence import licence_name
from curation.catalog.lists import list_digest

if TYPE_CHECKING:
    import duckdb


def licences(db: "duckdb.DuckDBPyConnection", folder: Path) -> dict[str, int]:
    """Clips by the name of their licence."""
    return dict(
        db.execute(
            f"select {licence_name('licence')}, sum(n)::bigint from (select licence, count(*) as n "
            "from read_parquet(?) group by 1) group by 1 order by 1",
            [str(folder / "clips.parquet")],
        ).fetchall()
    )


def split_counts(db: "duckdb.DuckDBPyConnection", folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of each split, how many have an id and a start, and how many have none by source."""
    rows = db.execute(
        "select split, source, count(*), count(source_id), count(start_s) from read_parquet(?) "
        "group by 1, 2 order by 1, 2",
        [str(folder / "clips.parquet")],
    ).fetchall()
    counts: dict[str, dict[str, Any]] = {}
    for split, source, n, identified, timed in rows:
        entry = counts.setdefault(split, no_rows())
        entry["rows"] += n
        entry["identified"] += identified
        entry["timed"] += timed
        if identified < n:
            entry["unidentified_by_source"][source] = n - identified
    return counts


def no_rows() -> dict[str, Any]:
    return {"rows": 0, "identified": 0, "timed": 0, "unidentified_by_source": {}}


def list_counts(
    db: "duckdb.DuckDBPyConnection", folder: Path, pinned_by: str
) -> dict[str, dict[str, Any]]:
    """Size and digest of each named list that came out."""
    rows = db.execute(
        f"""select list, count(*), {list_digest(pinned_by)} from (
            select unnest(lists) as list, dataset, clip_id, source, source_id,
                   round(start_s * 1000)::bigint as start_ms
            from read_parquet(?) where len(lists) > 0)
        group by list order by list""",
        [str(folder / "clips.parquet")],
    ).fetchall()
    return {name: {"size": size, "digest": digest} for name, size, digest in rows}


def unverified_files(card: Card, record: dict[str, Any]) -> list[str]:
    """That files were read whose format nobody here has seen, unless a copy is known by its digest."""
    digests = record["inputs"]["raw"]
    known = {file.path for file in card.files if digests.get(file.path) in file.sha256.values()}
    paths = [path for path in card.unverified_files if path in digests and path not in known]
    if not paths:
        return []
    return [
        f"{card.dataset}: format unverified, look at some of their rows before you trust them: "
        f"{', '.join(paths)}"
    ]


def compare_counts(card: Card, record: dict[str, Any]) -> list[str]:
    """What differs from what is published: each erratum by name, the unexplained in one line."""
    notes, unexplained = [], []
    for name, split in card.splits.items():
        rows = record["splits"][name]["rows"]
        none_at_hand = rows == 0 and record["missing"]
        if split.published is None or rows == split.published or none_at_hand:
            continue
        why = next((e.why for e in card.errata if e.split == name and e.rows == rows), None)
        counts = f"{name} {rows:,} of {split.published:,} rows by {split.counted_by}"
        if why:
            notes.append(f"{card.dataset}: {counts}; erratum: {why}")
        else:
            unexplained.append(counts)
    if unexplained:
        notes.append(f"{card.dataset}: unexplained difference: {'; '.join(unexplained)}")
    unknown = []
    for named in card.lists:
        entry = record["lists"].get(f"{card.dataset}@{named.name}")
        if entry and named.digest not in (None, entry["digest"]):
            unknown.append(f"{named.name} {entry['size']:,} of {named.size:,} clips")
    if unknown:
        notes.append(
            f"{card.dataset}: unknown lists, their digests are not the registered ones: "
            f"{'; '.join(unknown)}"
        )
    return notes


def merged_rows(card: Card, record: dict[str, Any]) -> list[str]:
    """For a dataset of one file, how many of its rows are one clip with another."""
    rows = sum(record["raw_rows"].values())
    if card.shipped or len(card.files) != 1 or rows <= record["seen"]:
        return []
    return [
        f"{card.dataset}: {rows:,} rows of {card.files[0].path} are {record['seen']:,} clips: rows of "
        "one stretch of a recording are one"
    ]


def unread_entries(card: Card, record: dict[str, Any]) -> list[str]:
    """The entries of published lists that are in no evidence, list by list."""
    return [
        f"{card.dataset}: {n:,} {'entry' if n == 1 else 'entries'} of {name} "
        f"{'has' if n == 1 else 'have'} no readable id"
        for name, n in sorted(record.get("evidence_unread", {}).items())
    ]
