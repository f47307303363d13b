"""A card's SELECT into `clips.parquet`: every row valid, unique and in the order of the raw files."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import curation
from curation.catalog.cards import NAME, Card
from curation.catalog.identity import ID_MEANING
from curation.catalog.revoked import is_revoked
from curation.catalog.store import card_sql, num_rows, runs_others, single_select, sql_text
from curation.errors import BadCard, BadMetadata, FoleyproofError
from curation.files import canonical_json, replacing
from curation.manifest import CLIP_COLUMNS, FORMAT, METADATA_KEY, PARQUET
from curation.verdict import Reason

if TYPE_CHECKING:
    import duckdb

# A card may leave these out.
_DEFAULTS = {
    "start_s": "null",
    "end_s": "null",
    "captions": "[]",
    "labels": "[]",
    "licence": "null",
    "uploader": "null",
}
_ROW_GROUP = 122_880  # rows, of tables and of Parquet: what DuckDB does unless told otherwise
_LONGEST_S = 1e9  # some thirty years: more is no time, and its milliseconds may not fit an integer
_REQUIRED = ("clip_id", "split", "source", "source_id", "file", "row")
# Rows are copied as they come only from full row groups and through these operators, which pass all
# of them on in their order; else they are sorted by (file, row). A filter keeps the order, too, but
# leaves batches of unequal size, and where a COPY then cuts row groups depends on which thread came
# first.
_ORDERED = {
    "PROJECTION", "CROSS_PRODUCT", "SEQ_SCAN", "TABLE_SCAN", "COLUMN_DATA_SCAN", "DUMMY_SCAN",
    "UNGROUPED_AGGREGATE", "EMPTY_RESULT", "STREAMING_WINDOW", "READ_CSV",
}  # fmt: skip


def define_rows(db: "duckdb.DuckDBPyConnection", card: Card, revoked: Collection[str]) -> bool:
    """Make the view `card_rows`: the card's SELECT in the columns of clips, and `reason`.

    False where it has no rows at all.

    Args:
        revoked: recordings whose rows are dropped, as `source:source_id`.
    """
    where = card.folder / "clips.sql"
    if not single_select(card.sql):
        raise BadCard(f"{where}: expected exactly one SELECT, nothing else — see manifests/README.md")
    with card_sql(str(where)):
        given = db.sql(f"from ({card.sql}\n)").columns
        _refuse_others(db, card.sql, str(where))
    unknown = set(given) - {name for name, _ in CLIP_COLUMNS} - set(_REQUIRED)
    lacking = set(_REQUIRED) - set(given)
    if unknown or lacking:
        raise BadCard(
            f"{where}: columns {', '.join(given)}; expected {', '.join(_REQUIRED)} and, where known, "
            f"{', '.join(_DEFAULTS)}"
        )
    computed = {
        "dataset": sql_text(card.dataset),
        "lists": "[]",
        "origin": "{'file': file, 'row': row}",
    }
    columns = []
    for name, kind in CLIP_COLUMNS:
        value = computed.get(name) or (name if name in given else _DEFAULTS[name])
        columns.append(f"({value})::{kind} as {name}")
    # Of a list line by line the plan takes longer than its rows, and each use of a view plans it anew.
    ragged = any(file.ragged for file in card.files)
    kind, order = ("table", "order by origin.file, origin.row") if ragged else ("view", "")
    db.execute(
        f"""create temp {kind} card_rows as
        select *, {_reason(card, revoked)} as reason
        from (select {", ".join(columns)} from ({card.sql}\n))
        {order}"""
    )
    with card_sql(str(where)):
        return db.execute("select 1 from card_rows limit 1").fetchone() is not None


def _refuse_others(db: "duckdb.DuckDBPyConnection", sql: str, where: str) -> None:
    # Its plan costs a tenth of a second, so only where the text may name such a function, or hide it.
    if any(word in sql.lower() for word in ("execute", "query", "u&")) and runs_others(db, sql):
        raise BadCard(f"{where}: calls a function that runs other statements, expected a SELECT without")


def _reason(card: Card, revoked: Collection[str]) -> str:
    """SQL for why a row in the columns of clips is not taken; null for one that is."""
    gone = f"when {is_revoked(revoked)} then '{Reason.REVOKED}'" if revoked else ""
    splits = ", ".join(sql_text(split) for split in card.splits)
    unidentified = "null" if card.unidentified else f"'{Reason.MISSING_ID}'"
    return f"""case
            when clip_id is null then '{Reason.MISSING_ID}'
            when source is null or not regexp_full_match(source, '{NAME.pattern}')
                then '{Reason.BAD_ID}'
            when source_id is null then {unidentified}
            when id_fault(source, source_id) then '{Reason.BAD_ID}'
            {gone}
            when not isfinite(start_s) or not isfinite(end_s) or start_s < 0
                or end_s < 0 or greatest(start_s, end_s) > {_LONGEST_S} then '{Reason.BAD_TIME}'
            when round(end_s * 1000) <= round(start_s * 1000) then '{Reason.EMPTY_INTERVAL}'
            when split is null or split not in ({splits}) then '{Reason.UNKNOWN_SPLIT}'
        end"""


def _keeps_order(db: "duckdb.DuckDBPyConnection") -> bool:
    """Whether DuckDB passes all of `card_rows` on in the order of the raw files, in equal batches."""
    tables = db.execute("select table_name from duckdb_tables() where temporary").fetchall()
    if not all(_has_full_row_groups(db, name) for (name,) in tables):
        return False
    plan = db.execute("explain (format json) select * from card_rows").fetchall()[0][1]
    operators: set[str] = set()

    def walk(node: dict[str, Any]) -> None:
        operators.add("FILTER" if "Filters" in node["extra_info"] else node["name"].strip())
        # a cross product streams its left side; the right one is a row of constants here
        left_only = node["name"].strip() == "CROSS_PRODUCT"
        for child in node["children"][: 1 if left_only else None]:
            walk(child)

    for node in json.loads(plan):
        walk(node)
    return operators <= _ORDERED


def _has_full_row_groups(db: "duckdb.DuckDBPyConnection", table: str) -> bool:
    """Whether all row groups but the last are full: a large file after a small one begins a new one."""
    sizes = db.execute(
        "select sum(count) from pragma_storage_info(?) where column_name = 'row' "
        "and segment_type <> 'VALIDITY' group by row_group_id order by row_group_id",
        [table],
    ).fetchall()
    return all(size == _ROW_GROUP for (size,) in sizes[:-1])


def write_clips(
    db: "duckdb.DuckDBPyConnection",
    card: Card,
    folder: Path,
    digests: dict[str, dict[str, str]],
    *,
    raw: Path,
    revoked: Collection[str],
) -> tuple[int, int]:
    """Write clips.parquet; rows kept and rows seen."""
    target = folder / "clips.parquet"
    with card_sql(str(card.folder / "clips.sql")):
        order = "" if _keeps_order(db) else "order by origin.file, origin.row"
        listed = _define_entries(db, card)
        rows = "card_rows"
        if order or listed:
            # What is sorted or joined is numbered once, so that equal input gives equal bytes.
            _number(db, order)
            rows, order = "numbered", "order by ordinal"
        if listed:
            _define_memberships(db, card)
        with replacing(target) as temporary:
            # All rows first, and again without those that fail, should there be any: to know it of
            # each row before it is written takes twice as long, and nearly all files have none.
            _copy_clips(db, card, rows, order, listed, temporary, digests)
            seen = num_rows(db, temporary)
            if _has_faults(db, card, temporary, revoked):
                _number(db)
                valid, order = "(from numbered where reason is null)", "order by ordinal"
                _copy_clips(db, card, valid, order, listed, temporary, digests)
            if _find_duplicates(db, temporary):
                _number(db)
                _drop_duplicates(db)
                valid, order = "(from unique_rows where reason is null)", "order by ordinal"
                _copy_clips(db, card, valid, order, listed, temporary, digests)
            kept = num_rows(db, temporary)
            if seen and kept * 2 < seen:
                (gone,) = db.execute(
                    "select count(*) from card_rows where reason = ?", [Reason.REVOKED]
                ).fetchone() or (0,)
                if (kept + gone) * 2 < seen:
                    raise _wrong_file(db, card, raw, seen - kept - gone, seen)
    return kept, seen


def _wrong_file(
    db: "duckdb.DuckDBPyConnection", card: Card, raw: Path, failed: int, seen: int
) -> FoleyproofError:
    """Most rows fail: not damaged rows, but columns that are not what the card says."""
    row = db.execute(
        "select origin.file, origin.row, reason, clip_id, source, source_id, start_s, end_s, split "
        "from card_rows where reason <> ? order by 1, 2 limit 1",
        [Reason.REVOKED],
    ).fetchone()
    if row is None:
        return BadCard(
            f"{card.folder / 'clips.sql'}: {failed:,} of {seen:,} rows repeat another clip_id, expected "
            "one of its own for each row — make it from more columns"
        )
    file, number, reason, _, source, source_id, start_s, end_s, split = row
    meaning = ID_MEANING.get(source, "an id")
    columns = next((entry.columns for entry in card.files if entry.path == file), None)
    if columns is None:
        return BadCard(
            f"{card.folder / 'clips.sql'}: file is {file!r}, expected the column `file` of its table, "
            f"one of {', '.join(entry.path for entry in card.files)} — and {failed:,} of {seen:,} rows "
            f"fail, the first with {reason}: id {source_id!r}"
        )
    return BadMetadata(
        f"{raw / file}: row {number}: {reason}: id {source_id!r}, {start_s} to {end_s} s, "
        f"split {split!r}; expected columns {', '.join(columns)}, an id of {meaning}, a split of "
        f"{', '.join(card.splits)} — {failed:,} of {seen:,} rows fail, more than half: columns are "
        "swapped or missing, or it is another file; get the published one"
    )


def _copy_clips(
    db: "duckdb.DuckDBPyConnection",
    card: Card,
    rows: str,
    order: str,
    listed: bool,  # whether there is a table `memberships`
    target: Path,
    digests: dict[str, dict[str, str]],
) -> None:
    """COPY the valid rows with their lists and the provenance."""
    by_split = " ".join(
        f"when {sql_text(split)} then {_text_list(names)}" for split, names in _split_lists(card).items()
    )
    lists = f"case split {by_split} else [] end" if by_split else "[]"
    source = rows
    if listed:
        lists = f"list_sort(list_concat({lists}, coalesce(memberships.lists, [])))"
        source = f"{rows} left join memberships using (clip_id)"
    columns = ", ".join(
        f"({lists})::varchar[] as lists" if name == "lists" else name for name, _ in CLIP_COLUMNS
    )
    provenance = {
        "format": FORMAT,
        "dataset": card.dataset,
        "title": card.title,
        "made_by": f"foleyproof {curation.__version__}",
        "card": card.digest,
        "raw": digests,
        "splits": {name: split.role for name, split in card.splits.items()},
        "media": list(card.media),
        "modality": card.modality,
        "metadata_licence": card.metadata_licence,
        "media_licence": card.media_licence,
    }
    db.execute(
        f"""copy (select {columns} from {source} {order})
        to {sql_text(target)} ({PARQUET},
        kv_metadata {{{METADATA_KEY}: {sql_text(canonical_json(provenance))}}})"""
    )


def _text_list(values: list[str]) -> str:
    return "[" + ", ".join(sql_text(value) for value in values) + "]"


def _split_lists(card: Card) -> dict[str, list[str]]:
    """For each split the full names of the lists that it is."""
    lists: dict[str, list[str]] = {}
    for named in card.lists:
        if named.split is not None:
            lists.setdefault(named.split, []).append(f"{card.dataset}@{named.name}")
    return lists


def _define_entries(db: "duckdb.DuckDBPyConnection", card: Card) -> bool:
    """The table `entries` of the lists that SQL gives; whether there are any."""
    db.execute(
        "create temp table entries (list varchar, source varchar, source_id varchar, start_ms bigint)"
    )
    for named in card.lists:
        if named.sql is None:
            continue
        with card_sql(f"{card.folder / 'card.toml'}: list {named.name!r}"):
            columns = check_select(db, card, named.sql, f"list {named.name!r}")
            start = "try_cast(round(start_s * 1000) as bigint)" if "start_s" in columns else "null"
            db.execute(
                f"insert into entries select ?, * from (select distinct source, source_id, {start} "
                f"from ({named.sql}\n))",
                [f"{card.dataset}@{named.name}"],
            )
    return db.execute("select 1 from entries limit 1").fetchall() != []


def named_by_entry(card: Card) -> str:
    """SQL for whether the entry `e` of a list names the clip `c`.

    One without a start names all clips of a recording, but none that only a later edition has: lists
    of the dataset as its name means it would change with the files at hand.
    """
    apart = _text_list([name for name, split in card.splits.items() if split.apart])
    return f"""c.source = e.source and c.source_id = e.source_id
         and (e.start_ms = round(c.start_s * 1000)::bigint
              or e.start_ms is null and not list_contains({apart}::varchar[], c.split))"""


def _define_memberships(db: "duckdb.DuckDBPyConnection", card: Card) -> None:
    """The table `memberships` (clip_id, lists)."""
    db.execute(
        f"""create temp table memberships as
        select clip_id, list(distinct list) as lists
        from numbered c join entries e on {named_by_entry(card)}
        where reason is null
        group by clip_id"""
    )


def check_select(db: "duckdb.DuckDBPyConnection", card: Card, sql: str, what: str) -> list[str]:
    """The columns of a card's smaller SELECT, refused unless it is one."""
    if not single_select(sql):
        raise BadCard(f"{card.folder / 'card.toml'}: {what}: expected exactly one SELECT")
    with card_sql(f"{card.folder / 'card.toml'}: {what}"):
        columns: list[str] = db.sql(f"from ({sql}\n)").columns
        _refuse_others(db, sql, f"{card.folder / 'card.toml'}: {what}")
    if not {"source", "source_id"} <= set(columns):
        raise BadCard(
            f"{card.folder / 'card.toml'}: {what}: columns {', '.join(columns)}, "
            "expected source, source_id and, where published, start_s"
        )
    return columns


def _has_faults(
    db: "duckdb.DuckDBPyConnection", card: Card, path: Path, revoked: Collection[str]
) -> bool:
    """Whether a written row fails: on its columns as they are, which is cheaper than on the raw text."""
    faults = f"from read_parquet({sql_text(path)}) where ({_reason(card, revoked)}) is not null limit 1"
    return db.execute(f"select 1 {faults}").fetchall() != []


def _find_duplicates(db: "duckdb.DuckDBPyConnection", path: Path) -> bool:
    """Whether a clip_id occurs twice. Hashes first: eight bytes a row, and no strings kept."""
    clips = f"read_parquet({sql_text(path)})"
    db.execute(
        "create or replace temp table suspects as "
        f"select hash(clip_id) as hash from {clips} group by 1 having count(*) > 1"
    )
    found = db.execute(
        f"select clip_id from {clips} where hash(clip_id) in (select hash from suspects) "
        "group by 1 having count(*) > 1"
    ).fetchall()
    return found != []


def _number(db: "duckdb.DuckDBPyConnection", order: str = "") -> None:
    """The table `numbered`, unless it is there: `card_rows` with `ordinal`, by which they are sorted."""
    db.execute(
        "create temp table if not exists numbered as select *, row_number() over () as ordinal "
        f"from (from card_rows {order})"
    )


def _drop_duplicates(db: "duckdb.DuckDBPyConnection") -> None:
    """The table `unique_rows`: of several rows with one clip_id the first stays, the others fail."""
    db.execute(
        f"""create temp table unique_rows as
        select * replace (
            case when reason is null and row_number() over
                      (partition by clip_id, reason is null order by ordinal) > 1
                 then '{Reason.DUPLICATE_CLIP}' else reason end as reason)
        from numbered"""
    )
