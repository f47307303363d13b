"""Takedowns: what derives from a recording in the manifests, and its removal.

`revoked.json` is written first, and every build obeys it, so a run that was killed is continued by the
next revoke or build. Metadata files as published (`raw/`) still name the recording: nothing is made of
it any more.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.build import build
from curation.catalog.cards import Card
from curation.catalog.lists import built_path
from curation.catalog.revoked import is_revoked, revoked, write_revoked
from curation.catalog.store import built_datasets, built_lists, clean_folders, sql_text, work_connection
from curation.catalog.twins import FILE as TWINS_FILE
from curation.catalog.twins import find_twins
from curation.decision import certificate
from curation.decision.clean import clean
from curation.errors import BadCard, ManifestChanged, UsageProblem
from curation.files import remove

if TYPE_CHECKING:
    import duckdb

_CLEAN_FILES = ("kept", "excluded", "heldout_kept", "heldout_excluded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """Rows of one file that derive from a revoked recording."""

    file: str  # below the manifests folder
    rows: int


def derived(manifests: Path, keys: Iterable[str]) -> list[Derived]:
    """Every built file with rows of these recordings, and how many."""
    condition = is_revoked(keys)
    with work_connection(manifests) as db:
        found = [
            Derived(file=str(path.relative_to(manifests)), rows=_count(db, path, condition))
            for path in (*_clips(manifests), *_cleaned(manifests))
        ]
        ids = ", ".join(sql_text(key.partition(":")[2]) for key in keys)
        if (twins := manifests / TWINS_FILE).is_file():
            found.append(
                Derived(file=TWINS_FILE, rows=_count(db, twins, f"source_id in ({ids or 'null'})"))
            )
        found.append(Derived(file="overlaps.parquet", rows=_evidence_rows(db, manifests, condition)))
    return [one for one in found if one.rows]


def _clips(manifests: Path) -> list[Path]:
    names = [*built_datasets(manifests), *built_lists(manifests)]
    return [built_path(manifests, name) for name in names]


def _cleaned(manifests: Path) -> list[Path]:
    paths = [f / f"{name}.parquet" for f in clean_folders(manifests) for name in _CLEAN_FILES]
    return [path for path in paths if path.is_file()]


def _count(db: "duckdb.DuckDBPyConnection", path: Path, condition: str) -> int:
    row = db.execute(f"select count(*) from read_parquet(?) where {condition}", [str(path)]).fetchone()
    return int(row[0]) if row else 0


def _evidence_rows(db: "duckdb.DuckDBPyConnection", manifests: Path, condition: str) -> int:
    """Rows of overlaps.parquet about clips that such a recording has."""
    path = manifests / "overlaps.parquet"
    clips = _clips(manifests)
    if not path.is_file() or not clips:
        return 0
    files = ", ".join(sql_text(file) for file in clips)
    return _count(
        db,
        path,
        f"""exists (select 1 from read_parquet([{files}], union_by_name = true,
                hive_partitioning = false) c
            where {condition} and (c.dataset, c.clip_id) in (
                (heldout_dataset, heldout_clip_id), (train_dataset, train_clip_id)))""",
    )


def revoke(
    keys: Iterable[str],
    *,
    manifests: Path,
    cards: dict[str, Card],
    undo: bool = False,
    progress: Callable[[str, "duckdb.DuckDBPyConnection"], Any] = lambda name, db: None,
) -> list[str]:
    """Take these recordings out of everything that is built, for good; what was made anew.

    Datasets that had them are built anew, clean manifests made from those too, with their options.

    Args:
        keys: recordings as `source:source_id`.
        undo: let them come back instead.

    Raises:
        UsageProblem: `undo` of one that is not revoked.
        BadCard: the card of a dataset that has one is not known any more.
    """
    wanted, before = frozenset(keys), revoked(manifests)
    if undo and (strange := wanted - before):
        raise UsageProblem(
            f"{min(strange)}: is not revoked, expected one of: {', '.join(sorted(before)) or 'none'}"
        )
    write_revoked(manifests, before - wanted if undo else before | wanted)
    built = [path.parent.name for path in _clips(manifests)]
    if unknown := sorted(set(built) - set(cards)):
        raise BadCard(f"{', '.join(unknown)}: no card is known of that name — give it with --cards DIR")
    results = build([cards[name] for name in built], manifests, progress=progress)
    for result in results:
        if result.error is not None:
            raise result.error
    made = [result.dataset for result in results if result.state == "built"]
    find_twins(manifests, cards)
    remove(manifests / "overlaps.parquet")  # of the last comparison: clean writes it, or overlaps
    for folder in clean_folders(manifests):
        document = certificate.read(folder)
        if _is_stale(folder, document):
            config = certificate.config_of(document)
            clean(config, name=folder.name, manifests=manifests, cards=cards, progress=progress)
            made.append(f"clean/{folder.name}")
    return made


def _is_stale(folder: Path, document: dict[str, Any]) -> bool:
    """Whether a manifest that a clean manifest was made from was built anew since."""
    try:
        certificate.check_manifests(folder, document)
    except ManifestChanged:
        return True
    return False
