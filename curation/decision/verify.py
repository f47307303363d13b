"""Check again everything that was promised: bytes, schema, sums, and that no kept row overlaps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.cards import Card
from curation.catalog.licence import licence_name
from curation.catalog.lists import built_path
from curation.catalog.record import FETCHED, dataset_folder, read_record
from curation.catalog.revoked import KEY, is_revoked, revoked
from curation.catalog.store import (
    FINGERPRINTS,
    built_datasets,
    built_lists,
    clean_folders,
    num_rows,
    provenance,
    sql_text,
    work_connection,
)
from curation.decision import certificate
from curation.decision.drops import redundant, twins
from curation.decision.policy import Acting, Policy, acts_sql
from curation.errors import BadManifest, FoleyproofError, ManifestChanged, UsageProblem
from curation.files import sha256_file
from curation.manifest import CLIP_COLUMNS
from curation.matching import overlap
from curation.matching.comparison import Comparison
from curation.matching.matrix import matrix
from curation.matching.near import FILE as DUPLICATES_FILE
from curation.matching.near import check_fresh, read_duplicates, scans
from curation.verdict import Reason

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at again."""

    what: str
    error: FoleyproofError | None = None

    @property
    def state(self) -> str:
        """What came out, in words."""
        if self.error is None:
            return "as recorded"
        return "changed" if isinstance(self.error, ManifestChanged) else "cannot be checked"


def verify(
    manifests: Path,
    cards: dict[str, Card],
    *,
    names: tuple[str, ...] = (),
    progress: Callable[[str], None] = lambda what: None,
) -> Iterator[Check]:
    """Check every built dataset and list, what was found in their media, then every clean manifest
    (`names` narrows those).

    Raises:
        UsageProblem: nothing is built, or no clean manifest has such a name.
    """
    built = [*built_datasets(manifests), *built_lists(manifests)]
    if not built:
        raise UsageProblem(
            f"{manifests}: nothing is built there, expected <dataset>/clips.parquet — run: "
            "curate fetch --from DIR && curate build"
        )
    cleaned = [folder.name for folder in clean_folders(manifests)]
    for name in names:
        certificate.named(manifests, name)
    with work_connection(manifests) as db:
        for dataset in built:
            progress(dataset)
            yield _checked(dataset, lambda d=dataset: _dataset(db, manifests, d))  # type: ignore[misc]
        for dataset in scans(manifests):
            progress(f"{FINGERPRINTS}/{dataset}")
            yield _checked(
                f"{FINGERPRINTS}/{dataset}",
                lambda d=dataset: _fingerprints(manifests, d),  # type: ignore[misc]
            )
        if (manifests / DUPLICATES_FILE).is_file():
            progress(DUPLICATES_FILE)
            yield _checked(DUPLICATES_FILE, lambda: _duplicates(db, manifests))
    for name in names or cleaned:
        progress(f"clean/{name}")
        yield _checked(f"clean/{name}", lambda n=name: _clean(manifests, cards, n))  # type: ignore[misc]


def _checked(what: str, check: Callable[[], None]) -> Check:
    try:
        check()
    except FoleyproofError as error:
        return Check(what=what, error=error)
    return Check(what=what)


def _dataset(db: "duckdb.DuckDBPyConnection", manifests: Path, dataset: str) -> None:
    """Bytes against the completion record, then the rules that every manifest obeys."""
    folder = dataset_folder(manifests, dataset)
    record = read_record(manifests, dataset)
    raw = {f"raw/{path}": sha for path, sha in record["inputs"]["raw"].items()}
    outputs = {name: entry["sha256"] for name, entry in record["outputs"].items()}
    for name, recorded in (outputs | raw).items():
        path = folder / name
        if name in raw and not path.exists() and not (folder / "raw" / FETCHED).exists():
            continue  # manifests may travel without the files they were made from
        found = sha256_file(path) if path.is_file() else "missing"
        if found != recorded:
            raise ManifestChanged(
                f"{path}: sha256 is {found[:12]}…, build recorded {recorded[:12]}… — the file was "
                f"changed since; rebuild it with: curate build {dataset}"
            )
    path = built_path(manifests, dataset)
    _no_revoked(db, path, manifests)
    provenance(db, path)
    if num_rows(db, path) != record["kept"]:
        raise ManifestChanged(f"{path}: {num_rows(db, path):,} rows, recorded {record['kept']:,}")
    _schema(db, path)
    bad = db.execute(
        "select clip_id from read_parquet(?) where end_s <= start_s or clip_id is null limit 1",
        [str(path)],
    ).fetchone()
    twice = db.execute(
        "select clip_id from read_parquet(?) group by 1 having count(*) > 1 limit 1", [str(path)]
    ).fetchone()
    if bad or twice:
        raise BadManifest(
            f"{path}: clip {(bad or twice or ('',))[0]!r} is empty in time or there twice, expected "
            f"neither — rebuild it with: curate build {dataset}"
        )


def _fingerprints(manifests: Path, dataset: str) -> None:
    """Bytes against the record of the scan."""
    from curation.media.fingerprint import fingerprint_folder, read_scan  # which loads NumPy

    for part in read_scan(manifests, dataset)["parts"]:
        for name, entry in part["outputs"].items():
            path = fingerprint_folder(manifests, dataset) / part["name"] / name
            found = sha256_file(path) if path.is_file() else "missing"
            if found != entry["sha256"]:
                raise ManifestChanged(
                    f"{path}: sha256 is {found[:12]}…, scan recorded {entry['sha256'][:12]}… — the file "
                    f"was changed since; scan again: curate scan --dataset {dataset} DIR"
                )


def _duplicates(db: "duckdb.DuckDBPyConnection", manifests: Path) -> None:
    """Of the fingerprints that lie beside it."""
    found = read_duplicates(db, manifests)
    assert found is not None, "there is such a file"
    check_fresh(found, manifests)


def _no_revoked(db: "duckdb.DuckDBPyConnection", path: Path, manifests: Path) -> None:
    """Raise ManifestChanged where a recording that was taken down is still in a file."""
    rows = db.execute(
        f"select {KEY} from read_parquet(?) where {is_revoked(revoked(manifests))} limit 1", [str(path)]
    ).fetchall()
    for (key,) in rows:
        raise ManifestChanged(
            f"{path}: holds {key}, which was taken down, expected none of it — run again: curate revoke "
            f"{key}"
        )


def _schema(db: "duckdb.DuckDBPyConnection", path: Path) -> None:
    described = db.execute("describe from read_parquet(?)", [str(path)]).fetchall()
    found = [(row[0], row[1].lower().replace('"', "")) for row in described]
    if found != list(CLIP_COLUMNS):
        raise BadManifest(f"{path}: columns {found}, expected {list(CLIP_COLUMNS)}")


def _clean(manifests: Path, cards: dict[str, Card], name: str) -> None:
    """The certificate, the files it names, the sum, and the promise itself, computed afresh."""
    folder = manifests / "clean" / name
    document = certificate.read(folder)
    certificate.check_files(folder, document)
    certificate.check_content(folder, document)
    config = certificate.config_of(document)
    comparison = certificate.comparison_of(document, manifests=manifests, cards=cards)
    with work_connection(manifests) as db:
        _sums(db, folder, document)
        overlap.find(db, comparison)
        _lists_unchanged(db, comparison, document, folder)
        for path in sorted(folder.glob("*.parquet")):
            _no_revoked(db, path, manifests)
        _licences_allowed(db, config.licences, folder / "kept.parquet")
        if config.policy in (Policy.PREFER_TEST, Policy.DROP_BOTH):
            _no_overlap(db, document["rules"], folder / "kept.parquet", _TRAIN_SIDE)
        if config.policy in (Policy.PREFER_TRAIN, Policy.DROP_BOTH):
            _no_overlap(db, document["rules"], folder / "heldout_kept.parquet", _HELDOUT_SIDE)
        if config.dedup:
            _no_twins(db, comparison, folder)


def _sums(db: "duckdb.DuckDBPyConnection", folder: Path, document: dict[str, Any]) -> None:
    """Kept and excluded rows make the input, on both sides."""
    counts = {"": document["counts"]["input"]}
    if heldout := document["heldout_counts"]:
        counts["heldout_"] = sum(entry["input"] for entry in heldout.values())
    for side, recorded in counts.items():
        parts = (folder / f"{side}{part}.parquet" for part in ("kept", "excluded"))
        if (total := sum(num_rows(db, path) for path in parts)) != recorded:
            raise ManifestChanged(
                f"{folder}: {side}kept + {side}excluded = {total:,}, expected {recorded:,} — "
                f"run again: {certificate.command(folder, document)}"
            )


def _lists_unchanged(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    document: dict[str, Any],
    folder: Path,
) -> None:
    for test in matrix(db, comparison).values():
        recorded = document["tests"][test["list"]]["digest"]
        if test["digest"] != recorded:
            raise ManifestChanged(
                f"{folder}: {test['list']} has {test['digest'][:19]}…, the certificate records "
                f"{recorded[:19]}… — run again: {certificate.command(folder, document)}"
            )


def _licences_allowed(db: "duckdb.DuckDBPyConnection", allowed: tuple[str, ...], kept: Path) -> None:
    """Raise ManifestChanged where a kept row has a licence that was not asked for."""
    names = ", ".join(map(sql_text, allowed))
    rows = db.execute(
        f"select dataset || '/' || clip_id, licence from read_parquet(?) "
        f"where {licence_name('licence')} not in ({names}) order by all limit 1",
        [str(kept)],
    ).fetchall() if allowed else []  # fmt: skip
    for clip, licence in rows:
        raise ManifestChanged(
            f"{kept}: clip {clip} has licence {licence!r}, expected one of {', '.join(allowed)} — run "
            f"again: curate clean --name {kept.parent.name}"
        )


# what a kept row k must not be in evidence e
_TRAIN_SIDE = "k.dataset = e.train_dataset and k.clip_id = e.train_clip_id"
_HELDOUT_SIDE = """k.test_list = e.test_list and k.dataset = e.heldout_dataset
    and k.clip_id = e.heldout_clip_id and not e.train_is_item"""


def _no_overlap(db: "duckdb.DuckDBPyConnection", rules: Acting, kept: Path, side: str) -> None:
    """Raise ManifestChanged where a kept row has evidence that clean acts on."""
    rows = db.execute(
        f"""select e.train_dataset || '/' || e.train_clip_id, e.rule,
            e.heldout_dataset || '/' || coalesce(e.heldout_clip_id, '?')
        from evidence e semi join read_parquet(?) k on {side}
        where {acts_sql(rules)} order by all limit 1""",
        [str(kept)],
    ).fetchall()
    for train, rule, heldout in rows:
        raise ManifestChanged(
            f"{kept}: training clip {train} overlaps test clip {heldout} by {rule}, expected no such "
            f"pair — run again: curate clean --name {kept.parent.name}"
        )


def _no_twins(db: "duckdb.DuckDBPyConnection", comparison: Comparison, folder: Path) -> None:
    """Raise ManifestChanged where a kept row is one that another makes superfluous."""
    kept, excluded = (sql_text(folder / f"{part}.parquet") for part in ("kept", "excluded"))
    rows = f"""select dataset, clip_id from read_parquet({kept}) union all
        select dataset, clip_id from read_parquet({excluded}) where reason = '{Reason.IN_TRAINING}'"""
    stays, _ = redundant(db, comparison, twins(db, rows, comparison.manifests / DUPLICATES_FILE))
    keys = {
        key for (key,) in db.execute(f"select dataset || '/' || clip_id from {kept}").fetchall()
    } & set(stays)
    for key in sorted(keys):
        raise ManifestChanged(
            f"{folder / 'kept.parquet'}: holds {key}, a duplicate of {stays[key]}, expected one of a "
            f"cluster — run again: curate clean --name {folder.name}"
        )
