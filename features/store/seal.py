"""Sealing: the tables, digests and statistics of all tasks as one, once every task is done.

Nothing big is read again: sizes and digests of shards come from the completion records, sums of latents
too. `shards.json` is written last; a folder that has it is sealed. Sealing twice gives the same bytes.
"""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.torch import save

from curation.errors import BadManifest, Locked, ManifestChanged, UsageProblem
from curation.files import holding, replacing, sha256_file, sweep
from curation.tables import number
from curation.tasks import part_folders, read_record, write_sealed
from features.store import index
from features.store.recorded import checked, misfits
from features.store.shard_file import FORMAT, read_header, spec_of
from features.store.statistics import added_up, tensors_of

Report = Callable[[str, int, int], None]  # what is worked on, which of how many
_LOCK = ".seal.lock"
PATIENCE_S = 120.0  # of processes that share the tasks of a folder, which begin and seal it together


def _silent(label: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What a sealed folder holds; also the `totals` of shards.json."""

    rows: int  # = av + audio
    av: int
    audio: int
    captions: int
    rejects: int
    shards: int
    shard_bytes: int
    payload_bytes: int  # what the rows would take without headers


def seal(out: Path, report: Report = _silent, *, patience_s: float = 0.0) -> Sealed:
    """Write the index, the other tables, statistics and shards.json of a folder whose tasks are done.

    Args:
        patience_s: for another process that seals it.

    Raises:
        UsageProblem: tasks are missing, by name.
        BadManifest: two rows are one clip, or a caption has no text row.
        ManifestChanged: a file is not as its completion record says.
        Locked: another process seals the folder.
    """
    document = index.read_extract(out)
    with alone(out, patience_s=patience_s):
        clips, text = (_finished(out, stage, document) for stage in (index.CLIPS, index.TEXT))
        files = _files(out, [*clips, *text], document, report)
        captions = _captions(text)
        rows = _rows(out, clips, captions)
        _check_counts(out, rows, captions, files)
        tables = {
            index.INDEX_FILE: rows,
            index.REJECTS_FILE: _rejects(clips),
            index.CAPTIONS_FILE: captions,
        }
        for name, table in tables.items():
            report(name, 0, 1)
            index.write_table(out / name, table)
        groups = added_up(entry for _, record in clips for entry in record.get("sums", []))
        with replacing(out / index.STATISTICS_FILE) as temporary:
            temporary.write_bytes(save(*tensors_of(groups, spec_of(document["about"]))))
        totals = _totals(rows, captions, tables[index.REJECTS_FILE], files)
        beside = {name: _entry(out / name, table.num_rows) for name, table in tables.items()}
        beside[index.STATISTICS_FILE] = _entry(out / index.STATISTICS_FILE, len(groups))
        described = {
            "format": FORMAT,
            "about": document["about"],
            "certificate": document.get("certificate"),
            "files": {name: {k: v for k, v in entry.items() if k != "payload"}
                      for name, entry in files.items()},
            "tables": beside,
            "totals": asdict(totals),
        }  # fmt: skip
        write_sealed(out / index.SHARDS_FILE, described)
    return totals


@contextlib.contextmanager
def alone(folder: Path, *, option: str | None = None, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of whoever writes in a folder itself, and clear there what a killed one left.

    Folders below it stay as they are: tasks have locks of their own.

    Args:
        option: with which another folder can be given.
        patience_s: for another process that holds it.

    Raises:
        Locked: another process holds it.
    """
    with holding(folder / _LOCK, patience_s=patience_s) as taken:
        if not taken:
            other = f", or give another {option}" if option else ""
            raise Locked(
                f"{folder}: another process is writing there, expected nobody — wait until it ends "
                f"and run the same command again{other}"
            )
        sweep(folder, deep=False)
        yield


Task = tuple[Path, dict[str, Any]]  # a folder and its completion record


def _finished(out: Path, stage: str, document: dict[str, Any]) -> list[Task]:
    """The tasks of a stage, in order; all of them."""
    folders = part_folders(out / stage)
    counts = {folder.name.partition("-of-")[2] for folder in folders}
    asked = document.get("tasks", {}).get(stage)
    if asked is not None:
        counts = {f"{asked:05d}"}
    if len(counts) > 1:
        raise UsageProblem(
            f"{out / stage}: holds tasks of several layouts (of {', '.join(sorted(counts))}), expected "
            "one — run the same extract again, which clears the others"
        )
    count = int(counts.pop()) if counts else 1
    names = [f"{place:05d}-of-{count:05d}" for place in range(count)]
    found = [(out / stage / name, read_record(out / stage / name)) for name in names]
    if missing := [folder.name for folder, record in found if not record]:
        listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        again = "run the same import again, which does only these"
        if "imported" not in document:
            again = (
                "run the same extract again without --task, which does only these, or the shares of "
                "--task i/n that are left (task k is of share i where k % n = i)"
            )
        raise UsageProblem(
            f"{out / stage}: {len(missing)} of {number(count, 'task')} not done ({listed}), expected "
            f"all — {again}"
        )
    return found


def _files(out: Path, tasks: list[Task], document: dict[str, Any], report: Report) -> dict[str, Any]:
    """Each shard with what its record and its header say."""
    files: dict[str, Any] = {}
    for done, (folder, record) in enumerate(tasks):
        report("headers", done, len(tasks))
        for name, entry in sorted(record["outputs"].items()):
            if not name.endswith(".safetensors"):
                continue
            path = folder / name
            header = read_header(path)
            for what in misfits(path, header, entry, document):
                raise ManifestChanged(f"{path}: {what} — {index.advice(path)}")
            payload = header.rows * sum(column.row_bytes for column in header.columns.values())
            files[path.relative_to(out).as_posix()] = {
                "bytes": entry["bytes"],
                "sha256": entry["sha256"],
                "rows": header.rows,
                "kind": header.kind,
                "payload": payload,
            }
    return files


def _table(task: Task, name: str, schema: pa.Schema) -> pa.Table:
    """A table of a task, once its bytes are those of its record."""
    folder, record = task
    return index.read_table(checked(folder / name, record["outputs"].get(name, {})), schema)


def _captions(tasks: list[Task]) -> pa.Table:
    """The captions of all text rows, numbered."""
    parts = [_table(task, index.CAPTIONS_FILE, index.TASK_CAPTIONS) for task in tasks]
    table = pa.concat_tables(parts)
    counts = pc.value_counts(table.column("caption"))
    if repeated := [entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1]:
        raise BadManifest(
            f"caption {repeated[0]!r}: has several text rows, expected one for each caption — run "
            "the same extract or import with another --out"
        )
    if table.num_rows == 0 or table.column("caption")[0].as_py() != "":
        raise BadManifest(
            f"{tasks[0][0]}: text row 0 is not the empty caption, expected it there — "
            + index.advice(tasks[0][0] / index.CAPTIONS_FILE)
        )
    numbers = pa.array(np.arange(table.num_rows, dtype=np.int32))
    return pa.table([numbers, *table.columns], schema=index.CAPTIONS)


def _rows(out: Path, tasks: list[Task], captions: pa.Table) -> pa.Table:
    """The rows of all tasks by key, captions as numbers, shards as paths below `out`."""
    parts = []
    for task in tasks:
        folder, part = task[0], _table(task, index.ROWS_FILE, index.ROWS)
        place = part.schema.get_field_index("shard")
        path = pc.binary_join_element_wise(folder.relative_to(out).as_posix(), part.column("shard"), "/")
        parts.append(part.set_column(place, "shard", path.cast(pa.string())))
    table = index.sorted_by_key(pa.concat_tables([index.ROWS.empty_table(), *parts]).combine_chunks())
    repeated = index.repeated_keys(table)
    if repeated.num_rows:
        raise BadManifest(
            f"{index.named(repeated)}: several rows each ({number(repeated.num_rows, 'such key')}), "
            "expected each (dataset, clip_id, part) once — remove the second one from the list"
        )
    lists = table.column("captions").combine_chunks()
    numbers = pc.index_in(lists.flatten(), captions.column("caption").combine_chunks())
    if numbers.null_count:
        lost = lists.flatten().filter(pc.is_null(numbers))[0].as_py()
        raise BadManifest(
            f"caption {lost!r}: has no text row, expected one — run: rm -r "
            f"{shlex.quote(str(out / index.TEXT))} and the same extract or import again"
        )
    text_index = pa.ListArray.from_arrays(lists.offsets, numbers.cast(pa.int32()))
    columns = [text_index if name == "text_index" else table.column(name) for name in index.INDEX.names]
    return pa.table(columns, schema=index.INDEX)


def _rejects(tasks: list[Task]) -> pa.Table:
    parts = [_table(task, index.REJECTS_FILE, index.REJECTS) for task in tasks]
    return index.sorted_by_key(pa.concat_tables([index.REJECTS.empty_table(), *parts]))


def _check_counts(out: Path, rows: pa.Table, captions: pa.Table, files: dict[str, Any]) -> None:
    """Raise where shards hold other numbers of rows than the tables of their tasks."""
    counts = pc.value_counts(rows.column("shard")).to_pylist()
    counted = {entry["values"]: entry["counts"] for entry in counts}
    texts = sum(entry["rows"] for entry in files.values() if entry["kind"] == "text")
    held = {name: entry["rows"] for name, entry in files.items() if entry["kind"] != "text"}
    if counted != held or texts != captions.num_rows:
        differing = sorted(name for name in counted | held if counted.get(name) != held.get(name))
        name = differing[0] if differing else index.TEXT
        expected = counted.get(name, captions.num_rows)
        folder = out / name if name == index.TEXT else (out / name).parent
        raise ManifestChanged(
            f"{name}: holds {held.get(name, texts)} rows, expected {expected} as the table of its task "
            f"— run: rm -r {shlex.quote(str(folder))} and the same extract or import again"
        )


def _totals(rows: pa.Table, captions: pa.Table, rejects: pa.Table, files: dict[str, Any]) -> Sealed:
    av = pc.sum(rows.column("has_video")).as_py() or 0
    return Sealed(
        rows=rows.num_rows,
        av=av,
        audio=rows.num_rows - av,
        captions=captions.num_rows,
        rejects=rejects.num_rows,
        shards=len(files),
        shard_bytes=sum(entry["bytes"] for entry in files.values()),
        payload_bytes=sum(entry["payload"] for entry in files.values()),
    )


def _entry(path: Path, rows: int) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path), "rows": rows}
