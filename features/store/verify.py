"""Whether sealed shards are what was sealed: sizes, headers and tables, or every byte.

Fast: shards.json and the tables by their digests, extract.json, completion records and the sizes of all
that they name, size and header of each shard, the crc32 of its first row (two shards of one kind that
were swapped have the same header), and an index whose rows cover the shards exactly. Full: sha256 of
each file and crc32 of each row as well. Nothing is repaired; everything that is wrong is named.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from curation.errors import FoleyproofError, ManifestChanged
from curation.tasks import RECORD, read_record
from features.source import Manifest
from features.store import index
from features.store.gather import read_whole
from features.store.indexed import Rows, indexed
from features.store.recorded import checked, misfits, sealed_file, sealed_table
from features.store.shard_file import Header, read_header
from features.store.verified import Problem, Verified, problem_of

Report = Callable[[str, int, int], None]
_BLOCK_BYTES = 8 << 20
_RECORDED = ("bytes", "sha256")


def verify(out: Path, *, full: bool = False, workers: int = 1, report: Report | None = None) -> Verified:
    """Look at all that shards.json names.

    Raises:
        UsageProblem: the folder is not sealed.
        ManifestChanged: shards.json itself is not what was sealed, or of another format version.
    """
    sealed = index.read_sealed(out)
    names = sorted(sealed["files"])
    found = Verified(full=full, files=len(names) + len(sealed["tables"]) + 1)
    found.problems += _tables(out, sealed)
    document, problems = _begun(out, sealed)
    found.problems += problems
    found.problems += _records(out, sealed, _folders(sealed, document), found)
    rows = indexed(out, sealed, found)
    with ThreadPoolExecutor(workers) as pool:
        looked = pool.map(lambda name: _shard(out, name, sealed, rows.get(name), full), names)
        for done, (problems, read_bytes) in enumerate(looked):
            found.problems += problems
            found.read_bytes += read_bytes
            if report is not None:
                report(names[done], done + 1, len(names))
    found.problems.sort(key=lambda problem: (problem.file, -1 if problem.row is None else problem.row))
    return found


def _tables(out: Path, sealed: dict[str, Any]) -> Iterator[Problem]:
    """The tables beside the shards, by their digests."""
    for name in sorted(sealed["tables"]):
        try:
            sealed_file(out, sealed, name)
        except ManifestChanged as error:
            yield problem_of(out, name, error)


def _begun(out: Path, sealed: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """extract.json, which says the same of the shards as shards.json; empty where it does not."""
    try:
        document = index.read_extract(out)
    except FoleyproofError as error:
        return {}, [problem_of(out, index.EXTRACT_FILE, error)]
    problems = [
        Problem(file=index.EXTRACT_FILE, what=f"its {what} is another than in {index.SHARDS_FILE}")
        for what, key in (("configuration", "about"), ("certificate", "certificate"))
        if document.get(key) != sealed[key]
    ]
    return {} if problems else document, problems


def _folders(sealed: dict[str, Any], document: dict[str, Any]) -> dict[str, set[str]]:
    """The folders of all tasks, those without a row too, and the shards that are known of each."""
    folders: dict[str, set[str]] = {
        f"{stage}/{place:05d}-of-{count:05d}": set()
        for stage, count in document.get("tasks", {}).items()
        for place in range(count)
    }
    for name in sealed["files"]:
        folders.setdefault(name.rpartition("/")[0], set()).add(name)
    return folders


def _records(
    out: Path, sealed: dict[str, Any], folders: dict[str, set[str]], found: Verified
) -> Iterator[Problem]:
    """The completion records, which say the same of each shard as shards.json, and tables they name."""
    files = sealed["files"]
    for folder, shards in sorted(folders.items()):
        found.files += 1
        record = read_record(out / folder)
        if not record:
            what = "missing, changed, or about files of other sizes"
            yield Problem(file=f"{folder}/{RECORD}", what=what)
            continue
        outputs = {f"{folder}/{name}": entry for name, entry in record["outputs"].items()}
        found.files += len(outputs.keys() - shards)
        for name in sorted(outputs.keys() | shards):
            recorded, entry = outputs.get(name, {}), files.get(name, {})
            if not name.endswith(".safetensors"):
                if found.full:
                    yield from _table(out, name, recorded)
            elif any(recorded.get(key) != entry.get(key) for key in _RECORDED):
                yield Problem(file=name, what="the record of its task has another digest")


def _table(out: Path, name: str, entry: dict[str, Any]) -> Iterator[Problem]:
    """A table of a task, by its digest."""
    try:
        checked(out / name, entry)
    except ManifestChanged as error:
        yield problem_of(out, name, error)


def _shard(
    out: Path, name: str, sealed: dict[str, Any], rows: Rows | None, full: bool
) -> tuple[list[Problem], int]:
    """What is wrong with one shard, and how many bytes were read for it."""
    path, entry = out / name, sealed["files"][name]
    try:
        header = read_header(path)
        problems = [Problem(file=name, what=what) for what in misfits(path, header, entry, sealed)]
        if problems or (rows is None and not full):
            return problems, 0
        crcs, digest, read_bytes = _checksums(path, header, full)
    except (OSError, ManifestChanged) as error:
        return [problem_of(out, name, error)], 0
    if digest is not None and digest != entry["sha256"]:
        what = f"sha256 is {digest[:12]}, expected {entry['sha256'][:12]}"
        problems.append(Problem(file=name, what=what))
    if rows is not None:
        problems += [
            Problem(
                file=name,
                row=row,
                clip=rows.clip(row),
                what=f"crc32 of the row is {crc:08x}, expected {recorded:08x}",
            )
            for row, (crc, recorded) in enumerate(zip(crcs, rows.crcs, strict=False))
            if crc != recorded
        ]
    return problems, read_bytes


def _checksums(path: Path, header: Header, full: bool) -> tuple[list[int], str | None, int]:
    """crc32 of all rows, or of the first; sha256 of the file where it was read whole; bytes read."""
    num_rows = header.rows if full else min(1, header.rows)
    crcs, read_bytes = [0] * num_rows, 0
    sha256 = hashlib.sha256() if full else None
    with path.open("rb") as file:
        if sha256 is not None:
            first = min(column.offset_bytes for column in header.columns.values())
            sha256.update(file.read(first))
            read_bytes += first
        for column in header.columns.values():
            at_once = max(1, _BLOCK_BYTES // column.row_bytes)
            for begin in range(0, num_rows, at_once):
                count = min(at_once, num_rows - begin)
                block = memoryview(bytearray(count * column.row_bytes))
                read_whole(file.fileno(), block, column.offset_bytes + begin * column.row_bytes, path)
                read_bytes += len(block)
                if sha256 is not None:
                    sha256.update(block)
                for row in range(count):
                    part = block[row * column.row_bytes : (row + 1) * column.row_bytes]
                    crcs[begin + row] = zlib.crc32(part, crcs[begin + row])
    return crcs, None if sha256 is None else sha256.hexdigest(), read_bytes


def compare_manifest(out: Path, manifest: Manifest) -> list[str] | None:
    """What a manifest says otherwise than when its clips were extracted, a line each.

    None: a table is not what was sealed, so that nothing can be compared.
    """
    sealed = index.read_sealed(out)
    try:
        columns = ["dataset", "clip_id", "caption_digest"]
        rows = sealed_table(out, sealed, index.INDEX_FILE, columns)
        rejects = sealed_table(out, sealed, index.REJECTS_FILE, ["dataset", "clip_id"])
    except ManifestChanged:
        return None
    certificate = sealed["certificate"]
    return index.differences(rows, rejects, certificate, manifest.table, manifest.certificate)
