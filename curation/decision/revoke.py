"""Takedowns: what derives from a recording in the manifests, and its removal.

`revoked.json` is written first, and every build obeys it; a run that was killed is continued by the same
command. Metadata files as published (`raw/`) and what build could not take (`problems.parquet`) still
name the recording: nothing is made of it any more.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.annotations import FILE as ANNOTATIONS_FILE
from curation.catalog.build import build
from curation.catalog.cards import Card
from curation.catalog.evidence import FILE as EVIDENCE_FILE
from curation.catalog.lists import built_path
from curation.catalog.record import dataset_folder, read_record
from curation.catalog.revoked import is_revoked, revoked, write_revoked
from curation.catalog.store import (
    built_datasets,
    built_lists,
    clean_folders,
    fingerprint_files,
    scanned_datasets,
    sql_text,
    work_connection,
)
from curation.catalog.twins import FILE as TWINS_FILE
from curation.catalog.twins import find_twins
from curation.decision import certificate
from curation.decision.clean import clean
from curation.decision.policy import CONTENT_TIERS, CleanConfig
from curation.errors import BadCard, BadManifest, BadMetadata, ManifestChanged, UsageProblem
from curation.files import remove
from curation.matching.comparison import compare
from curation.matching.near import FILE as DUPLICATES_FILE
from curation.tables import number

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
            for path in (*_beside(manifests), *_cleaned(manifests))
        ]
        ids = ", ".join(sql_text(key.partition(":")[2]) for key in keys)
        if (twins := manifests / TWINS_FILE).is_file():
            found.append(
                Derived(file=TWINS_FILE, rows=_count(db, twins, f"source_id in ({ids or 'null'})"))
            )
        found.append(Derived(file="overlaps.parquet", rows=_evidence_rows(db, manifests, condition)))
    return [one for one in found if one.rows]


def looked_at(manifests: Path, keys: Iterable[str]) -> list[str]:
    """A line on what was made of the media of these recordings, which stays till it is made anew.

    Nothing reads it once their clips are gone. To be asked before.
    """
    clips = _clips(manifests)
    if not keys or not clips:
        return []
    with work_connection(manifests) as db:
        files = ", ".join(sql_text(file) for file in clips)
        db.execute(
            f"""create temp table gone as select dataset, clip_id from read_parquet([{files}],
                union_by_name = true, hive_partitioning = false) where {is_revoked(keys)}"""
        )
        lines: list[str] = []
        if prints := _fingerprints(manifests, lines):
            listed = ", ".join(sql_text(file) for file in prints)
            n = _rows(db, f"read_parquet([{listed}], hive_partitioning = false) p semi join gone g "
                          "on g.clip_id = p.clip_id and g.dataset = p.dataset")  # fmt: skip
            if n:
                lines.append(
                    f"fingerprints: {number(n, 'clip')} of it, until its dataset is scanned again"
                )
        if (path := manifests / DUPLICATES_FILE).is_file():
            n = _rows(db, f"read_parquet({sql_text(path)}) where exists (select 1 from gone g where "
                          "(g.dataset = a_dataset and g.clip_id = a_clip_id) "
                          "or (g.dataset = b_dataset and g.clip_id = b_clip_id))")  # fmt: skip
            if n:
                lines.append(
                    f"{DUPLICATES_FILE}: {number(n, 'pair')} of it, which nothing reads any more, until "
                    "curate duplicates is run again"
                )
    return lines


def _fingerprints(manifests: Path, lines: list[str]) -> list[Path]:
    """The fingerprints of all datasets; a line on those that cannot be told, which stop no takedown."""
    paths = []
    for dataset in scanned_datasets(manifests):
        try:
            paths += fingerprint_files(manifests, dataset)
        except BadManifest as error:
            lines.append(f"fingerprints: {error}")
    return paths


def _rows(db: "duckdb.DuckDBPyConnection", rows: str) -> int:
    ((n,),) = db.execute(f"select count(*) from {rows}").fetchall()
    return int(n)


def _clips(manifests: Path) -> list[Path]:
    names = [*built_datasets(manifests), *built_lists(manifests)]
    return [built_path(manifests, name) for name in names]


def _beside(manifests: Path) -> list[Path]:
    """What build made of recordings: clips, and what is said of them."""
    folders = [path.parent for path in _clips(manifests)]
    names = ("clips.parquet", EVIDENCE_FILE, ANNOTATIONS_FILE)
    return [folder / name for name in names for folder in folders if (folder / name).is_file()]


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
    remove(manifests / "overlaps.parquet")  # of the last comparison: clean writes it, or overlaps
    built = [path.parent.name for path in _clips(manifests)]
    if unknown := sorted(set(built) - set(cards)):
        raise BadCard(f"{', '.join(unknown)}: no card is known of that name — give it with --cards DIR")
    results = build([cards[name] for name in built], manifests, progress=progress)
    for result in results:
        if result.error is not None:
            raise result.error
        if result.state == "missing" and _has(manifests, result.dataset, wanted):
            raise BadMetadata(
                f"{result.dataset}: has rows of {', '.join(sorted(wanted))}, and its metadata files are "
                f"gone, expected them to build it without — fetch them again, or remove "
                f"{dataset_folder(manifests, result.dataset)}"
            )
    made = [result.dataset for result in results if result.state == "built"]
    find_twins(manifests, cards)
    for folder in clean_folders(manifests):
        document = certificate.read(folder)
        changed = _changed_since(manifests, document)
        config = certificate.config_of(document)
        # What differs for other reasons than this takedown is its owner's to make anew.
        if (
            changed
            and all(name in made or wanted & set(gone) for name, gone in changed.items())
            and _same_content(folder, document, config)
        ):
            now = compare(config.tests, train=config.train, manifests=manifests, cards=cards)
            if {s.key for s in now.trains} != set(document["train"]):  # built since: not for a takedown
                config = replace(config, train=tuple(document["train"]))
            clean(
                config, name=folder.name, manifests=manifests, cards=cards, replace=True,
                progress=progress,
            )  # fmt: skip
            made.append(f"clean/{folder.name}")
    return made


def _has(manifests: Path, dataset: str, keys: frozenset[str]) -> bool:
    with work_connection(manifests) as db:
        return _count(db, built_path(manifests, dataset), is_revoked(keys)) > 0


def _same_content(folder: Path, document: dict[str, Any], config: CleanConfig) -> bool:
    """Whether a clean manifest that is made anew acts on the same near-duplicates as before."""
    if document.get("content") is None:
        found = (folder.parent.parent / DUPLICATES_FILE).is_file()
        return not (found and CONTENT_TIERS[config.match_content])
    try:
        certificate.check_content(folder, document)
    except ManifestChanged:
        return False
    return True


def _changed_since(manifests: Path, document: dict[str, Any]) -> dict[str, list[str]]:
    """The datasets built anew since a clean manifest was made from them, and what each lacks."""
    changed = {}
    for name, entry in document["manifests"].items():
        place, _, file = name.rpartition("/")
        record = read_record(manifests, dataset := place.rpartition("/")[2])
        if record.get("outputs", {}).get(file, {}).get("sha256") != entry["sha256"]:
            changed[dataset] = record.get("revoked", [])
    return changed
