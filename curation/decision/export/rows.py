"""What is exported: the rows that a name stands for, and a folder that appears whole or not at all."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.cards import Card
from curation.catalog.lists import built_path, train_selection
from curation.catalog.record import read_record
from curation.catalog.revoked import is_revoked, revoked
from curation.catalog.store import built_datasets, built_lists, one_thread, sql_text, work_connection
from curation.decision import certificate
from curation.errors import ManifestChanged, UsageProblem
from curation.files import outside, replacing, replacing_folder, sha256_file, write_json
from curation.manifest import PARQUET
from curation.tables import number

if TYPE_CHECKING:
    import duckdb

MARK = "export.json"  # tells a folder that export made from any other
_FORMAT = "foleyproof-export/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows that WHAT stands for."""

    what: str
    file: Path
    where: str
    certificate: Path | None  # of a clean manifest
    document: dict[str, Any] | None  # its content

    @property
    def sql(self) -> str:
        """The rows in their order, as a table expression."""
        return f"""(select * from read_parquet({sql_text(self.file)}, hive_partitioning = false)
            where {self.where})"""


def find_rows(what: str, manifests: Path, cards: dict[str, Card]) -> Rows:
    """The rows of `clean/NAME`, a dataset, `dataset@list` or `dataset/split`.

    Raises:
        UsageProblem: there is no such name, or it is not built.
        ManifestChanged: a file differs from what its certificate or completion record says.
    """
    if what.startswith("clean/"):
        folder = certificate.named(manifests, what.removeprefix("clean/"))
        document = certificate.read(folder)
        certificate.check_files(folder, document)
        return Rows(
            what=what,
            file=folder / "kept.parquet",
            where="true",
            certificate=folder / certificate.FILE,
            document=document,
        )
    selection = train_selection(what, cards)
    file = built_path(manifests, selection.dataset)
    if selection.dataset not in (*built_datasets(manifests), *built_lists(manifests)):
        raise UsageProblem(
            f"{what}: {selection.dataset} is not built in {manifests}, expected {file} — run: "
            f"curate fetch {selection.dataset} --from DIR && curate build {selection.dataset}"
        )
    recorded = read_record(manifests, selection.dataset)["outputs"][file.name]["sha256"]
    found = sha256_file(file) if file.is_file() else "missing"
    if found != recorded:
        raise ManifestChanged(
            f"{file}: sha256 is {found[:12]}…, build completed it with {recorded[:12]}… — the file "
            f"was changed since; rebuild it with: curate build {selection.dataset}"
        )
    return Rows(what=what, file=file, where=selection.where(), certificate=None, document=None)


@contextlib.contextmanager
def reading_rows(rows: Rows, manifests: Path) -> Iterator[tuple["duckdb.DuckDBPyConnection", list[str]]]:
    """A connection with the rows as the view `chosen`, and the names of their datasets."""
    with work_connection(manifests) as db, one_thread(db):
        db.execute(f"create temp view chosen as from {rows.sql}")
        names = [
            name for (name,) in db.execute("select distinct dataset from chosen order by 1").fetchall()
        ]
        (gone,) = db.execute(
            f"select count(*) from chosen where {is_revoked(revoked(manifests))}"
        ).fetchone() or (0,)
        if gone:
            raise ManifestChanged(
                f"{rows.what}: {number(gone, 'row')} of recordings that were taken down since, expected "
                "none — run again: curate revoke ID, which makes anew what holds it"
            )
        if not names:
            raise UsageProblem(
                f"{rows.what}: has no rows, expected some — its files were not at hand, or all was "
                "dropped; see: curate datasets"
            )
        yield db, names


def card_of(dataset: str, cards: dict[str, Card]) -> Card:
    """The card of a dataset whose rows are exported."""
    if dataset not in cards:
        raise UsageProblem(
            f"{dataset}: its rows are there, but no card is known of that name — give its folder with "
            "--cards DIR"
        )
    return cards[dataset]


@contextlib.contextmanager
def export_folder(target: Path, manifests: Path, *, format: str, what: str) -> Iterator[Path]:
    """A temporary folder that takes the place of `target`, which holds nothing or an earlier export.

    Raises:
        UsageProblem: `target` is something else.
    """
    outside(target, manifests, option="--out")
    if strange := _not_ours(target):
        raise UsageProblem(
            f"--out {target}: is there, and export did not make {strange}, expected a new or empty "
            "folder, or an export as it was made — give another, or remove it"
        )
    with replacing_folder(target) as temporary:
        yield temporary
        files = {
            str(path.relative_to(temporary)): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_json(temporary / MARK, {"format": _FORMAT, "to": format, "what": what, "files": files})


@contextlib.contextmanager
def export_file(target: Path, manifests: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `target`."""
    outside(target, manifests, option="--out")
    if target.is_dir():
        raise UsageProblem(f"--out {target}: is a folder, expected a file — give the name of one")
    with replacing(target) as temporary:
        yield temporary


def _not_ours(target: Path) -> str:
    """What lies there that no export made, empty where nothing does."""
    if not target.is_dir():
        return target.name if target.exists() else ""
    try:
        document = json.loads((target / MARK).read_text(encoding="utf-8"))
        made = {MARK, *document["files"]} if document["format"] == _FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError):
        made = set()
    files = (path for path in sorted(target.rglob("*")) if not path.is_dir() or path.is_symlink())
    return next((name for path in files if (name := str(path.relative_to(target))) not in made), "")


def write_parquets(
    db: "duckdb.DuckDBPyConnection", names: list[str], folder: Path
) -> dict[str, tuple[Path, int]]:
    """Write `data/<dataset>.parquet` for each dataset; path and rows of each."""
    (folder / "data").mkdir()
    written = {}
    for name in names:
        path = folder / "data" / f"{name}.parquet"
        with replacing(path) as temporary:
            mine = f"from chosen where dataset = {sql_text(name)}"
            db.execute(f"copy ({mine}) to {sql_text(temporary)} ({PARQUET})")
        (count,) = db.execute("select count(*) from chosen where dataset = ?", [name]).fetchone() or (0,)
        written[name] = (path, count)
    return written


def licence_counts(db: "duckdb.DuckDBPyConnection") -> dict[str, dict[str | None, int]]:
    """By dataset: how many clips have which licence of their own; None: none is published."""
    counts: dict[str, dict[str | None, int]] = {}
    for dataset, licence, count in db.execute(
        "select dataset, licence, count(*) from chosen group by 1, 2 order by 1, 3 desc, 2"
    ).fetchall():
        counts.setdefault(dataset, {})[licence] = count
    return counts


def check_written(path: Path, rows: int, total: int) -> None:
    """The parts of an export are all rows."""
    assert rows == total, f"{path}: {rows:,} rows were written of {total:,}"
