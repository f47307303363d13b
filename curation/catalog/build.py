"""Raw files into manifests: one DuckDB run per card, every row kept or failed with a reason.

`clips.parquet`, `problems.parquet` and `evidence.parquet` take their places together, and last
`build.json`, the completion record, whose input digests decide whether a dataset is up to date.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import curation
from curation.catalog import annotations, counts, evidence, problems, rawfiles
from curation.catalog.cards import CARD_FILES, Card, is_shipped
from curation.catalog.clips import define_rows, write_clips
from curation.catalog.fetch import raw_digests
from curation.catalog.identity import sql_macros
from curation.catalog.record import RECORD, dataset_folder, former_record, write_record
from curation.catalog.revoked import is_revoked, revoked
from curation.catalog.store import lock, one_thread, refuse_patterns, work_connection
from curation.errors import BadCard, FoleyproofError
from curation.files import remove, replacing, sha256_file, staged
from curation.verdict import Reason, Tally

if TYPE_CHECKING:
    import duckdb

_AT_ONCE = 2
_FORMAT = 4  # of what build writes: where it changes, every dataset is built anew
_FAILURES = {
    Reason.MISSING_ID, Reason.BAD_ID, Reason.BAD_TIME, Reason.EMPTY_INTERVAL,
    Reason.UNKNOWN_SPLIT, Reason.DUPLICATE_CLIP,
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Built:
    """What became of one dataset."""

    dataset: str
    state: str  # "built", "up to date", "missing" (files) or "failed"
    tally: Tally = field(default_factory=Tally)
    missing: list[str] = field(default_factory=list)  # raw files that are not at hand
    notes: list[str] = field(default_factory=list)  # errata named, differences not explained
    flagged: dict[str, int] = field(default_factory=dict)  # reasons of rows kept, and of list entries
    error: FoleyproofError | None = None

    def as_json(self) -> dict[str, Any]:
        """Its part of `curate build --json`."""
        return {
            "dataset": self.dataset,
            "state": self.state,
            "seen": self.tally.seen,
            "kept": self.tally.kept,
            "dropped": self.tally.dropped,
            "failed": self.tally.failed,
            "flagged": self.flagged,
            "missing": self.missing,
            "notes": self.notes,
            "error": str(self.error) if self.error else None,
        }


def build(
    cards: list[Card],
    manifests: Path,
    *,
    progress: Callable[[str, "duckdb.DuckDBPyConnection"], Any] = lambda name, db: None,
) -> list[Built]:
    """Build each dataset whose files are at hand; one that fails costs no other.

    Two at a time: DuckDB leaves a core idle between its queries, and the largest dataset takes as
    long as all others together.
    """
    refuse_patterns(manifests)
    by_size = sorted(cards, key=lambda card: -_raw_bytes(card, manifests))
    running: list[duckdb.DuckDBPyConnection] = []

    def watched(name: str, db: "duckdb.DuckDBPyConnection") -> None:
        running.append(db)
        progress(name, db)

    pool = ThreadPoolExecutor(max_workers=_AT_ONCE)
    futures = {card.dataset: pool.submit(_build_one, card, manifests, watched) for card in by_size}
    try:
        return [_outcome(card, futures[card.dataset]) for card in cards]
    except BaseException:  # interrupted, or no space: what still runs must end before we do
        pool.shutdown(wait=False, cancel_futures=True)
        # Again and again: between two queries nothing is stopped. Not by `wait(…).not_done`, for
        # which a future that was cancelled in the queue is never done.
        while unfinished := [future for future in futures.values() if not future.done()]:
            for db in running:
                _interrupt(db)
            wait(unfinished, timeout=0.05)
        raise
    finally:
        pool.shutdown()


def _raw_bytes(card: Card, manifests: Path) -> int:
    paths = [dataset_folder(manifests, card.dataset) / "raw" / file.path for file in card.files]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _interrupt(db: "duckdb.DuckDBPyConnection") -> None:
    import duckdb

    with suppress(duckdb.Error):  # it may be closed by now
        db.interrupt()


def _outcome(card: Card, future: "Future[Built]") -> Built:
    try:
        return future.result()
    except FoleyproofError as error:
        if error.exit_code == 14:
            raise
        return Built(dataset=card.dataset, state="failed", error=error)


def _build_one(
    card: Card,
    manifests: Path,
    progress: Callable[[str, "duckdb.DuckDBPyConnection"], Any],
) -> Built:
    import duckdb

    folder = dataset_folder(manifests, card.dataset)
    if not card.shipped and is_shipped(folder):
        raise BadCard(
            f"{card.folder}: its copy would take the place of the card that ships in {folder}, expected "
            "another folder for what is built — give one with --manifests"
        )
    digests = raw_digests(card, manifests)
    missing = [file.path for file in card.files if file.path not in digests]
    needed = [file.path for file in card.files if not file.optional and file.path in missing]
    if needed or not digests:
        return Built(dataset=card.dataset, state="missing", missing=needed or missing)
    inputs = {
        "card": card.digest,
        "duckdb": duckdb.__version__,
        "foleyproof": curation.__version__,
        "format": _FORMAT,
        "raw": {path: entry["sha256"] for path, entry in digests.items()},
    }
    record = former_record(manifests, card.dataset)
    gone = revoked(manifests)
    if record.get("inputs") == inputs and _whole(folder, record) and _obeys(folder, record, gone):
        return _result(card, record, state="up to date", missing=missing)
    memory_mib = rawfiles.memory_mib(card, folder / "raw")
    with (
        staged(folder, last=RECORD) as stage,
        work_connection(
            folder, memory_mib=max(900, memory_mib), only_folders=(folder / "raw", stage)
        ) as db,
    ):
        progress(card.dataset, db)
        for statement in sql_macros():
            db.execute(statement)
        with one_thread(db):
            rows = {file.path: rawfiles.load(db, file, folder / "raw") for file in card.files}
        lock(db)
        if not define_rows(db, card, gone):
            return Built(dataset=card.dataset, state="missing", missing=missing)
        kept, seen = write_clips(db, card, stage, digests, raw=folder / "raw", revoked=gone)
        by_split = counts.split_counts(db, stage)
        lists = counts.list_counts(db, stage, card.pinned_by)
        reasons = problems.write_problems(db, card, stage, seen, kept, revoked=gone)
        unread = evidence.write_evidence(db, card, stage, revoked=gone)
        annotations.write_annotations(db, stage)
        record = {
            "inputs": inputs,
            "raw_rows": {path: n for path, n in rows.items() if path in digests},
            "missing": missing,
            "seen": seen,
            "kept": kept,
            "splits": {
                split: {**by_split.get(split, counts.no_rows()), "role": card.splits[split].role}
                for split in card.splits
            },
            "lists": lists,
            "licences": counts.licences(db, stage),
            "revoked": sorted(gone),
            "problems": reasons,
            "evidence_unread": unread,
            "outputs": {
                name: {"sha256": sha256_file(stage / name), "bytes": (stage / name).stat().st_size}
                for name in ("clips.parquet", problems.FILE, evidence.FILE, annotations.FILE)
                if (stage / name).is_file()
            },
        }
        if not card.shipped:  # the commands that come later find it here
            for name in CARD_FILES:
                with replacing(stage / name) as temporary:
                    shutil.copyfile(card.folder / name, temporary)
        write_record(stage, record)
    if annotations.FILE not in record["outputs"]:
        remove(folder / annotations.FILE)  # of a former build
    return _result(card, record, state="built", missing=missing)


def _whole(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the outputs are there as recorded, byte for byte: what was changed is made anew."""
    return all(
        (folder / name).is_file() and sha256_file(folder / name) == entry["sha256"]
        for name, entry in record["outputs"].items()
    )


def _obeys(folder: Path, record: dict[str, Any], gone: frozenset[str]) -> bool:
    """Whether clips and evidence lack what is revoked now, and nothing else."""
    here = set(record["revoked"])
    if not here <= gone:
        return False
    if not (new := gone - here):
        return True
    with work_connection(folder) as db:
        return not any(
            db.execute(
                f"select 1 from read_parquet(?) where {is_revoked(new)} limit 1", [str(folder / name)]
            ).fetchall()
            for name in ("clips.parquet", evidence.FILE)
        )


def _result(card: Card, record: dict[str, Any], *, state: str, missing: list[str]) -> Built:
    problems = record["problems"]
    failed = {reason: n for reason, n in problems.items() if reason in _FAILURES}
    dropped = {reason: n for reason, n in problems.items() if reason == Reason.REVOKED}
    flagged = {reason: n for reason, n in problems.items() if reason not in {*failed, *dropped}}
    tally = Tally(seen=record["seen"], kept=record["kept"], dropped=dropped, failed=failed)
    tally.check()
    return Built(
        dataset=card.dataset,
        state=state,
        tally=tally,
        missing=missing,
        notes=counts.unverified_files(card, record)
        + counts.merged_rows(card, record)
        + counts.compare_counts(card, record)
        + counts.unread_entries(card, record),
        flagged=flagged,
    )
