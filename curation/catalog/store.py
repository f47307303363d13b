"""DuckDB over the manifests: how a connection is set up, and the views people query.

Parquet is the truth. `manifests.duckdb` holds views only, with absolute paths; it is made anew
whenever the files or the folder changed, and is outside the promise of equal bytes.
"""

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from curation.catalog.record import OWN_LISTS, dataset_folder
from curation.errors import BadCard, BadManifest, UsageProblem
from curation.files import digest_of, disk_space, remove, replacing, says_full
from curation.manifest import METADATA_KEY, parse_provenance

if TYPE_CHECKING:
    import duckdb

VIEWS_FILE = "manifests.duckdb"
FINGERPRINTS = "fingerprints"  # the folder of what scan writes, with one for each dataset
SCAN = "scan.json"  # in that of a dataset: written last, and what lists its parts
_Given = TypeVar("_Given")
_SIGNALS_S = 0.1  # how long a signal may go unseen
_THREADS = "select current_setting('threads')::integer"


def sql_text(value: str | Path) -> str:
    """`value` as an SQL string literal, for the statements that take no parameters."""
    return "'" + str(value).replace("'", "''") + "'"


def sql_name(value: str) -> str:
    """`value` as a quoted SQL identifier."""
    return '"' + value.replace('"', '""') + '"'


def refuse_patterns(folder: Path) -> None:
    """Raise UsageProblem where DuckDB would take `folder` for a pattern, and read other folders too."""
    if any(character in str(folder) for character in "*?["):
        raise UsageProblem(
            f"{str(folder)!r} holds one of * ? [, which make it a pattern, expected one folder — "
            "rename it, or use another --manifests"
        )


@contextlib.contextmanager
def work_connection(
    folder: Path, *, memory_mib: int = 1024, only_folders: Sequence[Path] = ()
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """An in-memory connection that spills into `folder`; errors come out as ours.

    Args:
        memory_mib: what DuckDB may hold before it spills.
        only_folders: if given, no file elsewhere can be read or written; `lock` before SQL of others.
    """
    import duckdb

    refuse_patterns(folder)
    spill = folder / f"spill.tmp-{os.getpid()}"
    db = duckdb.connect()
    try:
        with disk_space(folder), _damage(folder):
            db.execute(f"set memory_limit = '{memory_mib}MiB'")
            db.execute(f"set temp_directory = {sql_text(spill)}")
            # One thread cuts row groups elsewhere than several, and equal input shall give equal bytes.
            db.execute(f"set threads = {max(2, *db.execute(_THREADS).fetchone() or (2,))}")
            db.execute("set autoinstall_known_extensions = false")
            # counted for Progress, which prints; DuckDB itself would print on stdout
            db.execute("set enable_progress_bar = true; set enable_progress_bar_print = false")
            if only_folders:
                inside = ", ".join(sql_text(str(place.resolve()) + os.sep) for place in only_folders)
                db.execute(f"set allowed_directories = [{inside}]")
                db.execute("set enable_external_access = false")
            yield db
    finally:
        db.close()
        remove(spill)


def lock(db: "duckdb.DuckDBPyConnection") -> None:
    """Let no setting be changed any more: what a card says comes next."""
    db.execute("set lock_configuration = true")


@contextlib.contextmanager
def one_thread(db: "duckdb.DuckDBPyConnection") -> Iterator[None]:
    """Work in one thread, to fill row groups in the order of the rows.

    Several threads cut row groups elsewhere: an insert at the buffers of its file, a COPY of filtered
    rows by which thread came first, and equal input shall give equal bytes.
    """
    (threads,) = db.execute(_THREADS).fetchone() or (2,)
    db.execute("set threads = 1")
    try:
        yield
    finally:
        db.execute(f"set threads = {threads}")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn each way in which DuckDB says that a signal came while it worked into KeyboardInterrupt."""
    import duckdb

    try:
        yield
    except RuntimeError as error:
        if "interrupted" in str(error):
            raise KeyboardInterrupt from error
        raise
    except duckdb.Error as error:
        if isinstance(error, duckdb.InterruptException) or "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        raise


def aside(db: "duckdb.DuckDBPyConnection", work: Callable[[], _Given]) -> _Given:
    """What `work` on the connection gives; a signal ends it also while DuckDB hands out rows.

    It runs in a thread, because a signal is only seen here between two lines of Python, and a batch of
    rows may take hours.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work)
        try:
            while True:
                with contextlib.suppress(FutureTimeout):
                    return future.result(timeout=_SIGNALS_S)
                if future.done():  # it was the work that timed out
                    return future.result()
        except BaseException:
            while not future.done():  # again and again: between two queries nothing is stopped
                db.interrupt()
                wait([future], timeout=_SIGNALS_S)
            raise


@contextlib.contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Turn what DuckDB says of damaged bytes into `BadManifest`; what it says of our SQL stays."""
    import duckdb

    damage = (duckdb.InvalidInputException, duckdb.IOException, duckdb.SerializationException)
    try:
        with interruptible():
            yield
    except duckdb.Error as error:
        # Thrift's complaints about a footer come as the base class itself.
        if isinstance(error, damage) or type(error) is duckdb.Error:
            raise BadManifest(
                f"{folder}: a built file cannot be read ({first_line(error)}), expected "
                "Parquet as build wrote it — rebuild it with: curate build"
            ) from error
        raise


@contextlib.contextmanager
def card_sql(where: str) -> Iterator[None]:
    """Turn what DuckDB says of a card's SQL into `BadCard`; what it says of disk and memory stays.

    Args:
        where: the place in the card, for the message.
    """
    import duckdb

    not_the_card = (
        duckdb.OutOfMemoryException, duckdb.InternalException, duckdb.FatalException,
        duckdb.InterruptException,
    )  # fmt: skip
    try:
        yield
    except duckdb.PermissionException as error:
        raise BadCard(f"{where}: reads outside its raw folder: {first_line(error)}") from error
    except duckdb.Error as error:
        if isinstance(error, not_the_card) or says_full(error):
            raise
        raise BadCard(f"{where}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What DuckDB says, without its lines about the place in our SQL."""
    return str(error).splitlines()[0]


def parsed(sql: str) -> "list[duckdb.Statement]":
    """The statements in `sql`; what DuckDB says of a mistake in it comes as its error."""
    import duckdb

    return duckdb.extract_statements(sql)


def single_select(sql: str) -> bool:
    """Whether `sql` is exactly one SELECT statement."""
    import duckdb

    try:
        statements = parsed(sql)
    except duckdb.Error:
        return False
    return len(statements) == 1 and statements[0].type == duckdb.StatementType.SELECT


def runs_others(db: "duckdb.DuckDBPyConnection", sql: str) -> bool:
    """Whether a SELECT calls the one function that runs another statement, which may be any.

    Asked of the plan: the text may hide the name.
    """
    plan = db.execute(f"explain (format json) from (\n{sql}\n)").fetchall()
    return any("JSON_EXECUTE_SERIALIZED_SQL" in str(part).upper() for part in plan)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn DuckDB's complaints about a damaged Parquet file into `BadManifest`."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise BadManifest(
            f"{path}: cannot be read as Parquet ({first_line(error)}) — rebuild it with: curate build"
        ) from error


def provenance(db: "duckdb.DuckDBPyConnection", path: Path) -> dict[str, Any]:
    """What build or clean recorded in the metadata of the Parquet file `path`."""
    with reading(path):
        row = db.execute(
            "select value from parquet_kv_metadata(?) where key::varchar = ?",
            [str(path), METADATA_KEY],
        ).fetchone()
    return parse_provenance(row[0] if row else None, path=path)


def num_rows(db: "duckdb.DuckDBPyConnection", path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    with reading(path):
        row = db.execute("select num_rows from parquet_file_metadata(?)", [str(path)]).fetchone()
    assert row is not None, f"{path} has no footer"
    return int(row[0])


def built_datasets(manifests: Path) -> list[str]:
    """Names of the datasets that build completed, in alphabetical order."""
    return sorted(path.parent.name for path in manifests.glob("*/build.json"))


def built_lists(manifests: Path) -> list[str]:
    """Names of the lists of one's own that were built, in alphabetical order."""
    return sorted(path.parent.name for path in manifests.glob(f"{OWN_LISTS}/*/build.json"))


def clean_folders(manifests: Path) -> list[Path]:
    """The folders of the clean manifests, by name; none that is just being written."""
    folders = (path.parent for path in manifests.glob("clean/*/certificate.json"))
    return sorted(folder for folder in folders if ".tmp-" not in folder.name)


def scanned_datasets(manifests: Path) -> list[str]:
    """Names of the datasets whose scan is finished, in alphabetical order."""
    return sorted(path.parent.name for path in manifests.glob(f"{FINGERPRINTS}/*/{SCAN}"))


def scan_record(manifests: Path, dataset: str) -> dict[str, Any]:
    """The record of a finished scan, empty where there is none.

    Raises:
        BadManifest: it is not what scan wrote.
    """
    path = manifests / FINGERPRINTS / dataset / SCAN
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record, dict) and record.get("digest") == digest_of(record):
            return record
    except FileNotFoundError:
        return {}
    except ValueError:
        pass
    raise BadManifest(
        f"{path}: is not as scan wrote it — scan again: curate scan --dataset {dataset} DIR"
    )


def fingerprint_files(manifests: Path, dataset: str) -> list[Path]:
    """The tables of fingerprints of a dataset, as its finished scan lists them; none without one.

    What lies beside them, of a scan that goes on or of another number of parts, is nobody's yet.

    Raises:
        BadManifest: the record of the scan is not what scan wrote.
    """
    folder = manifests / FINGERPRINTS / dataset
    parts = scan_record(manifests, dataset).get("parts", [])
    return [folder / part["name"] / "clips.parquet" for part in parts]


def _all_fingerprints(manifests: Path) -> tuple[list[Path], list[str]]:
    """The tables of fingerprints of all datasets, and what is wrong with the scans of others."""
    paths, faults = [], []
    for dataset in scanned_datasets(manifests):
        try:
            paths += fingerprint_files(manifests, dataset)
        except BadManifest as error:
            faults.append(str(error))
    return paths, faults


def _view_files(manifests: Path) -> dict[str, list[Path]]:
    """Each view and the files it stands over."""
    datasets = built_datasets(manifests)
    views: dict[str, list[Path]] = {}
    for kind in ("clips", "problems", "evidence"):
        views[kind] = [manifests / name / f"{kind}.parquet" for name in datasets]
    for name in (*datasets, *built_lists(manifests)):
        views.setdefault(name, [dataset_folder(manifests, name) / "clips.parquet"])
    for name in ("overlaps", "twins", "duplicates"):
        views[name] = [manifests / f"{name}.parquet"]
    views[FINGERPRINTS], _ = _all_fingerprints(manifests)
    for folder in clean_folders(manifests):
        for kind in ("kept", "excluded", "heldout_kept", "heldout_excluded"):
            views[f"{folder.name}_{kind}"] = [folder / f"{kind}.parquet"]
    found = {view: [path for path in paths if path.is_file()] for view, paths in views.items()}
    return {view: paths for view, paths in found.items() if paths}


def write_views(manifests: Path, target: Path) -> list[str]:
    """A DuckDB file with one view for each built Parquet file, over absolute quoted paths.

    Returns what is wrong with each damaged file that a view could not be made of.
    """
    import duckdb

    remove(target)
    _, faults = _all_fingerprints(manifests)
    with contextlib.closing(duckdb.connect(str(target))) as db:
        for view, paths in _view_files(manifests.resolve()).items():
            files = ", ".join(sql_text(glob.escape(str(path))) for path in paths)
            try:
                db.execute(
                    f"create view {sql_name(view)} as from read_parquet([{files}], "
                    "union_by_name = true, hive_partitioning = false)"
                )
            except duckdb.Error as error:
                faults.append(f"no view {view}: {first_line(error)}")
    return faults


def open_manifests(path: str | Path) -> "duckdb.DuckDBPyConnection":
    """A read-only DuckDB connection with a view for each built table (`clips`, `vggsound`, …).

    It reads no file outside the manifests, and reaches no network. COPY of a person's own goes into
    the manifests folder or fails: to write elsewhere, take the answer as Arrow or pandas.

    Raises:
        UsageProblem: nothing was built in `path`.
        BadManifest: a built file cannot be read.
    """
    import tempfile

    import duckdb

    manifests = Path(path)
    if not built_datasets(manifests) and not built_lists(manifests):
        raise UsageProblem(
            f"{manifests}: nothing is built there, expected <dataset>/clips.parquet — "
            "run: curate fetch --from DIR && curate build"
        )
    # Made anew each time: some milliseconds, and it can neither be stale nor belong to another path.
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / VIEWS_FILE
        if faults := write_views(manifests, made):
            raise BadManifest(f"{manifests}: {faults[0]}, expected Parquet as curate wrote it")
        db = duckdb.connect(str(made), read_only=True)
    _confine(db, manifests.resolve())
    return db


def _confine(db: "duckdb.DuckDBPyConnection", manifests: Path) -> None:
    """Let `db` reach the manifests folder, and what links in it make views of, and nothing else."""
    files = sorted({str(path.resolve()) for paths in _view_files(manifests).values() for path in paths})
    db.execute("set autoinstall_known_extensions = false; set autoload_known_extensions = false")
    db.execute("set enable_progress_bar = true; set enable_progress_bar_print = false")  # not on stdout
    db.execute(f"set temp_directory = {sql_text(manifests / f'spill.tmp-{os.getpid()}')}")
    db.execute(f"set allowed_directories = [{sql_text(str(manifests) + os.sep)}]")
    db.execute(f"set allowed_paths = [{', '.join(map(sql_text, files))}]")
    db.execute("set enable_external_access = false")


def refresh_views(manifests: Path) -> list[str]:
    """Write `manifests.duckdb` anew for people who open it with plain `duckdb`.

    Returns what is wrong with the files that get no view.
    """
    import tempfile

    # Not beside its target: DuckDB reads `?` and `\\` in the path of a database as its own.
    with tempfile.TemporaryDirectory() as scratch, replacing(manifests / VIEWS_FILE) as temporary:
        made = Path(scratch) / VIEWS_FILE
        faults = write_views(manifests, made)
        shutil.copyfile(made, temporary)
    return faults
