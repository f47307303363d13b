"""From names to duplicates.parquet: near-duplicates among everything that was scanned.

The training side is taken part by part of its fingerprints, each a task (tasks.py) with a file of found
pairs; the held-out side is held in memory. With test sets that side is their items; without, it is all
clips, by their base views alone, and each pair is looked for from both of its clips.

    .duplicates/00003-of-00008/found.parquet      what a part gave
    duplicates.parquet                            all of it, joined with the manifests
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import curation
from curation.catalog.cards import Card
from curation.catalog.lists import (
    Selection,
    built_path,
    heldout_selection,
    is_own_list,
    list_names,
    train_selection,
)  # fmt: skip
from curation.catalog.record import read_record
from curation.catalog.store import sql_text, work_connection
from curation.errors import UsageProblem
from curation.files import canonical_json, replacing
from curation.manifest import DUPLICATE_COLUMNS, METADATA_KEY, PARQUET
from curation.matching import align_audio, align_video, audio_candidates, candidates, judge
from curation.matching.candidates import stop_list
from curation.matching.clusters import clusters
from curation.matching.duplicates import Key, Stopped, best_rows
from curation.matching.near import FILE, FORMAT, scans
from curation.matching.pair_worker import FOUND, Finder, finding, only_allowed
from curation.matching.prints import COLUMNS, Prints
from curation.media.audio_hash import AUDIO_VERSION
from curation.media.fingerprint import CLIPS, fingerprint_folder, read_part, read_scan
from curation.media.video_hash import FLAT
from curation.tasks import ALL, Share, Task, Work, run, sealing, still_busy

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

STAGE = ".duplicates"
_MOST_TASKS = 256
_FEW_CLIPS = 256  # up to which another process takes longer to begin than the work does
Progress = Callable[[str, int | None, int | None], Any]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What is looked for in what."""

    manifests: Path
    tests: tuple[Selection, ...]  # none: all pairs
    trains: tuple[Selection, ...] | None  # None: everything that was scanned
    digests: dict[str, str]  # of the scans, by dataset
    items: dict[str, frozenset[Key]]  # test items by name of the test set
    allowed: dict[str, frozenset[str]] | None  # clip_ids of the training side by dataset; None: all

    @cached_property
    def all_items(self) -> frozenset[Key]:
        """The items of all test sets."""
        return frozenset().union(*self.items.values())

    def takes_part(self, key: Key) -> bool:
        """Whether a clip is on either side."""
        if key in self.all_items or self.allowed is None:
            return True
        return key[1] in self.allowed.get(key[0], ())


@dataclass(slots=True, kw_only=True)
class Unknown:
    """Clips that could not be compared, because their media were not scanned."""

    clips: list[tuple[str, str]] = field(default_factory=list)  # key and reason
    tests: dict[str, int] = field(default_factory=dict)  # test items, by name of the test set
    trains: int = 0

    def add(self, key: Key, reason: str, chosen: Compared) -> None:
        """Count one more."""
        self.clips.append(("/".join(key), reason))
        self.trains += key not in chosen.all_items
        for name, members in chosen.items.items():
            self.tests[name] = self.tests.get(name, 0) + (key in members)

    def at_most(self, size: int, name: str) -> int:
        """How many items of a test set may have copies that nobody looked for."""
        return min(size, self.tests.get(name, 0) + self.trains)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicated:
    """What was found."""

    compared: Compared
    pairs: "pa.Table"  # DUPLICATE_COLUMNS; empty where other shares are not done
    clips: int  # that were compared
    aligned: int  # pairs that were looked at closely
    unknown: Unknown
    sealed: bool  # whether duplicates.parquet is written


def versions(digests: dict[str, Any]) -> dict[str, Any]:
    """What decides which pairs are found, beside the fingerprints."""
    return {
        **digests,
        "sound": AUDIO_VERSION,
        "candidates": [candidates.VERSION, audio_candidates.VERSION],
        "align_video": align_video.VERSION,
        "align_audio": align_audio.VERSION,
        "judge": judge.VERSION,
    }


def compared(
    tests: Sequence[str], train: Sequence[str] | None, *, manifests: Path, cards: dict[str, Card]
) -> Compared:
    """Resolve names against what was scanned.

    Raises:
        UsageProblem: a name is unknown, or its media were not scanned.
    """
    scanned = scans(manifests)
    if not scanned:
        raise UsageProblem(
            f"{manifests}: no media were scanned, expected fingerprints of some — run: curate scan DIR"
        )
    heldout = tuple(heldout_selection(name, cards) for name in dict.fromkeys(tests))
    trains = None if train is None else tuple(train_selection(name, cards) for name in train)
    for selection in (*heldout, *(trains or ())):
        if selection.dataset not in scanned and is_own_list(selection.dataset):
            raise UsageProblem(
                f"{selection.key}: a list has no media of its own, expected a dataset that was "
                f"scanned — make one of it and a folder: curate scan DIR --list {selection.key}"
            )
        if selection.dataset not in scanned:
            raise UsageProblem(
                f"{selection.key}: the media of {selection.dataset} were not scanned, expected one of: "
                f"{', '.join(scanned)} — run: curate scan --dataset {selection.dataset} DIR"
            )
    if trains is not None:  # else everything that was scanned takes part
        asked = {selection.dataset for selection in (*heldout, *trains)}
        scanned = {dataset: digest for dataset, digest in scanned.items() if dataset in asked}
    _one_version(manifests, scanned)
    with work_connection(manifests) as db:
        items = {test.name: frozenset(_keys(db, manifests, test)) for test in heldout}
        allowed: dict[str, frozenset[str]] | None = None
        if trains is not None:
            allowed = {}
            for selection in trains:
                ids = frozenset(clip_id for _, clip_id in _keys(db, manifests, selection))
                allowed[selection.dataset] = allowed.get(selection.dataset, frozenset()) | ids
    for test in heldout:
        if not items[test.name]:
            raise UsageProblem(f"{test.name}: has no clips, expected some — see: curate datasets")
    return Compared(
        manifests=manifests, tests=heldout, trains=trains, digests=scanned, items=items, allowed=allowed
    )


def _one_version(manifests: Path, scanned: dict[str, str]) -> None:
    """Raise UsageProblem where datasets were hashed in ways that cannot be compared."""
    seen: dict[tuple[str, str], str] = {}
    for dataset in scanned:
        about = read_scan(manifests, dataset)["about"]
        seen.setdefault((about["hash_version"], about["audio_version"]), dataset)
    if len(seen) > 1:
        told = sorted(seen.items())
        said = "; ".join(f"{dataset}: {', '.join(version)}" for version, dataset in told)
        raise UsageProblem(
            f"{manifests}: fingerprints of several versions ({said}), expected one: hashes of two are "
            "never compared — scan the others again, with the same --hash"
        )


def _keys(db: "duckdb.DuckDBPyConnection", manifests: Path, selection: Selection) -> list[Key]:
    path = sql_text(built_path(manifests, selection.dataset))
    return db.execute(
        f"select dataset, clip_id from read_parquet({path}) where {selection.where()}"
    ).fetchall()


def find_duplicates(
    chosen: Compared,
    *,
    workers: int = 1,
    share: Share = ALL,
    progress: Progress,
) -> Duplicated:
    """Look for near-duplicates, and write duplicates.parquet once all shares are done."""
    stage = chosen.manifests / STAGE
    parts = _parts(chosen)
    tasks = _tasks(chosen, parts)
    progress("fingerprints", None, None)
    unknown, clips = _unknown(chosen, parts)
    heldout: Prints | None = None

    @contextlib.contextmanager
    def worker(stop: threading.Event) -> Iterator[Work]:
        nonlocal heldout
        with loading:
            if heldout is None:
                heldout = _heldout(chosen, parts)
                finder.heldout, finder.stopped = heldout, _stopped(chosen, parts)
        with finding(finder, stop, apart=clips > _FEW_CLIPS, tell=counted) as work:
            yield work

    loading, total = threading.Lock(), len(tasks)
    finder = Finder(
        manifests=chosen.manifests, items=chosen.all_items, allowed=chosen.allowed, train_clips=clips
    )
    counted = _Counter(total, progress)
    busy = run(stage, tasks, worker, workers=workers, share=share)
    still_busy(stage, busy)
    with sealing(stage, tasks) as sealed:
        pairs, aligned = _seal(chosen, stage, tasks) if sealed else (best_rows([]), 0)
    return Duplicated(
        compared=chosen, pairs=pairs, clips=clips, aligned=aligned, unknown=unknown, sealed=sealed
    )


class _Counter:
    """Parts that are done, for the line on the terminal; several threads tell it."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress, self._done = total, progress, 0.0
        self._lock = threading.Lock()

    def __call__(self, share: float) -> None:
        with self._lock:
            self._done += share
            self._progress("parts", round(self._done, 2), self._total)  # type: ignore[arg-type]


# ---- tasks ----------------------------------------------------------------------------------------


def _parts(chosen: Compared) -> list[tuple[str, str]]:
    """Dataset and name of every part of the fingerprints, in order."""
    return [
        (dataset, part["name"])
        for dataset in sorted(chosen.digests)
        for part in read_scan(chosen.manifests, dataset)["parts"]
    ]


def _tasks(chosen: Compared, parts: list[tuple[str, str]]) -> list[Task]:
    about = _about(chosen)
    mine = [part for part in parts if chosen.allowed is None or part[0] in chosen.allowed]
    count = max(1, min(len(mine), _MOST_TASKS))
    cuts = np.linspace(0, len(mine), count + 1).astype(int).tolist()
    return [
        Task(index, count, {"about": about, "parts": [list(part) for part in mine[begin:end]]})
        for index, (begin, end) in enumerate(pairwise(cuts))
    ]


def _about(chosen: Compared) -> dict[str, Any]:
    """What is written about duplicates.parquet; near.py reads it."""
    about = read_scan(chosen.manifests, min(chosen.digests))["about"]
    trains = None if chosen.trains is None else list(list_names(s.key for s in chosen.trains))
    with work_connection(chosen.manifests) as db:
        tests = {test.name: _list_digest(db, chosen.manifests, test) for test in chosen.tests}
    return {
        "format": FORMAT,
        "made_by": f"foleyproof {curation.__version__}",
        "tests": tests,
        "train": trains,
        "fingerprints": dict(sorted(chosen.digests.items())),
        # which rows are items, and which are trained on
        "manifests": {
            dataset: read_record(chosen.manifests, dataset)["outputs"]["clips.parquet"]["sha256"]
            for dataset in sorted({s.dataset for s in (*chosen.tests, *(chosen.trains or ()))})
        },
        "versions": versions({"picture": about["hash_version"]}),
    }


def _list_digest(db: "duckdb.DuckDBPyConnection", manifests: Path, test: Selection) -> str:
    from curation.catalog.lists import list_digest

    path = sql_text(built_path(manifests, test.dataset))
    ((digest,),) = db.execute(
        f"""select {list_digest(test.pinned_by)} from (
            select *, round(start_s * 1000)::bigint as start_ms from read_parquet({path})
            where {test.where()})"""
    ).fetchall()
    return str(digest)


# ---- the sides ------------------------------------------------------------------------------------


def _tables(
    chosen: Compared, parts: list[tuple[str, str]], columns: tuple[str, ...]
) -> Iterator["pa.Table"]:
    for dataset, name in parts:
        path = fingerprint_folder(chosen.manifests, dataset) / name / CLIPS
        yield read_part(path, list(columns))[1]


def _heldout(chosen: Compared, parts: list[tuple[str, str]]) -> Prints:
    """The items of the test sets in every view; without test sets all clips in their base views."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not chosen.tests:
        wanted = set(chosen.allowed or chosen.digests)
        ours = [part for part in parts if part[0] in wanted]
        tables = _tables(chosen, ours, COLUMNS)
        made = (Prints.of(only_allowed(table, chosen.allowed)).base() for table in tables)
        return Prints.joined(list(made))
    ids: dict[str, pa.Array] = {}
    for dataset, _ in chosen.all_items:
        if dataset not in ids:
            ids[dataset] = pa.array(sorted(c for d, c in chosen.all_items if d == dataset))
    ours = [part for part in parts if part[0] in ids]
    made_of = []
    for (dataset, _), table in zip(ours, _tables(chosen, ours, COLUMNS), strict=True):
        made_of.append(Prints.of(table.filter(pc.is_in(table["clip_id"], ids[dataset]))))
    return Prints.joined(made_of)


def _stopped(chosen: Compared, parts: list[tuple[str, str]]) -> Stopped:
    """What too many clips have, of all that was scanned."""
    sounds: list[np.ndarray] = []
    frames: list[Prints] = []
    for table in _tables(chosen, parts, COLUMNS):
        prints = Prints.of(table).base()
        sounds.append(prints.item)
        frames.append(prints.without_sound())
    return Stopped(
        hashes=stop_list(Prints.joined(frames)), items=audio_candidates.sound_stop_list(sounds)
    )


def _unknown(chosen: Compared, parts: list[tuple[str, str]]) -> tuple[Unknown, int]:
    """Clips that could not be compared, or not whole, and how many were."""
    unknown, clips = Unknown(), 0
    seen: set[Key] = set()
    for table in _tables(chosen, parts, ("dataset", "clip_id", "status", "reason", *_SAYING)):
        columns = [table[name].to_pylist() for name in ("dataset", "clip_id", "status", "reason")]
        for dataset, clip_id, status, reason, says in zip(*columns, _says(table), strict=True):
            key = (dataset, clip_id)
            seen.add(key)
            if not chosen.takes_part(key):
                continue
            clips += status == "scanned"
            if status == "scanned" and reason is None and not says:
                reason = "nothing_to_compare"
            if reason is not None:
                unknown.add(key, reason, chosen)
    for key in _built_keys(chosen):
        if key not in seen and chosen.takes_part(key):
            unknown.add(key, "not_scanned", chosen)
    unknown.clips.sort()
    return unknown, clips


_SAYING = ("flatness", "audio_item")


def _says(table: "pa.Table") -> list[bool]:
    """Whether a clip has a picture that is more than flat, or sound."""
    flat = zip(table["flatness"].to_pylist(), table["audio_item"].to_pylist(), strict=True)
    return [max(flatness or [0.0]) >= FLAT or bool(items) for flatness, items in flat]


def _built_keys(chosen: Compared) -> Iterator[Key]:
    """Every clip of the datasets that take part, as they are built now."""
    with work_connection(chosen.manifests) as db:
        for dataset in sorted(chosen.digests):
            path = sql_text(built_path(chosen.manifests, dataset))
            yield from db.execute(f"select dataset, clip_id from read_parquet({path})").fetchall()


# ---- the end --------------------------------------------------------------------------------------


def _seal(chosen: Compared, stage: Path, tasks: list[Task]) -> tuple["pa.Table", int]:
    """Write duplicates.parquet; its rows, and how many pairs were aligned."""
    import pyarrow.parquet as pq

    from curation.tasks import read_record

    found = best_rows([pq.read_table(stage / task.name / FOUND, memory_map=False) for task in tasks])
    aligned = sum(read_record(stage / task.name)["aligned"] for task in tasks)
    datasets = sorted({*found["a_dataset"].to_pylist(), *found["b_dataset"].to_pylist()})
    files = [str(built_path(chosen.manifests, dataset)) for dataset in datasets]
    target = chosen.manifests / FILE
    with work_connection(chosen.manifests) as db, replacing(target) as temporary:
        db.register("found", found)
        clips = "select null::varchar as dataset, null::varchar as clip_id, null::varchar as split, "
        clips += "null::varchar as source, null::varchar as source_id where false"
        if files:
            clips = f"""select dataset, clip_id, split, source, source_id from read_parquet(
                [{", ".join(map(sql_text, files))}], union_by_name = true, hive_partitioning = false)"""
        columns = ", ".join(name for name, _ in DUPLICATE_COLUMNS)
        db.execute(
            f"""copy (
                with clips as ({clips})
                select {columns} from (
                    select f.*, a.split as a_split, b.split as b_split,
                           (a.source = b.source and a.source_id = b.source_id) is true as same_source
                    from found f
                    left join clips a on a.dataset = f.a_dataset and a.clip_id = f.a_clip_id
                    left join clips b on b.dataset = f.b_dataset and b.clip_id = f.b_clip_id)
                order by a_dataset, a_clip_id, b_dataset, b_clip_id
            ) to {sql_text(temporary)} ({PARQUET},
                kv_metadata {{{METADATA_KEY}: {sql_text(canonical_json(tasks[0].inputs["about"]))}}})"""
        )
        table = db.sql("from read_parquet($path)", params={"path": str(temporary)}).to_arrow_table()
    return table, aligned


def as_json(found: Duplicated) -> dict[str, Any]:
    """The document of `curate duplicates --json`; null pairs where other shares are not done."""
    groups = clusters(found.pairs) if found.sealed else None
    pairs = [
        {
            "a": f"{row.pop('a_dataset')}/{row.pop('a_clip_id')}",
            "b": f"{row.pop('b_dataset')}/{row.pop('b_clip_id')}",
            **row,
        }
        for row in found.pairs.to_pylist()
    ]
    tests = {
        test.name: {
            "size": len(found.compared.items[test.name]),
            "unknown": found.unknown.tests.get(test.name, 0),
            "unseen_copies_at_most": found.unknown.at_most(
                len(found.compared.items[test.name]), test.name
            ),
        }
        for test in found.compared.tests
    }
    return {
        "complete": found.sealed,
        "pairs": pairs if found.sealed else None,
        "clusters": groups.components if groups else None,
        "weak_links": [list(edge) for edge in groups.bridges] if groups else None,
        "unknown": [{"clip": clip, "reason": reason} for clip, reason in found.unknown.clips],
        "tests": tests,
        "counts": {
            "clips": found.clips,
            "aligned": found.aligned,
            "unknown": len(found.unknown.clips),
        },
    }
