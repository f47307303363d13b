"""Whether sealed shards are what was sealed: sizes, headers and tables, or every byte.

Fast: shards.json and the tables by their digests, completion records, size and header of each shard,
the crc32 of its first row (two shards of one kind that were swapped have the same header), and an index
whose rows cover the shards exactly. Full: sha256 of each file and crc32 of each row as well. Nothing is
repaired; everything that is wrong is named.
"""

import hashlib
import shlex
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import FoleyproofError, ManifestChanged
from curation.files import sha256_file
from curation.tables import number
from curation.tasks import read_record
from features import index
from features.gather import read_whole
from features.shard_file import Header, columns_of, read_header, spec_of
from features.source import find_manifest, read_manifest

Report = Callable[[str, int, int], None]
_BLOCK_BYTES = 8 << 20
_RECORDED = ("bytes", "sha256")
_NAMED = 10  # folders in a piece of advice


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as it was sealed."""

    file: str  # below the folder
    row: int | None  # in that file
    clip: str | None
    what: str

    def __str__(self) -> str:
        place = self.file + ("" if self.row is None else f" row {self.row}")
        return f"{place}{f' ({self.clip})' if self.clip else ''}: {self.what}"


@dataclass(slots=True)
class Verified:
    """What was looked at, and all that is wrong."""

    full: bool
    files: int = 0  # shards, tables and records of tasks
    rows: int = 0
    texts: int = 0
    read_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def wrong_files(self) -> int:
        """Files with at least one problem."""
        return len({problem.file for problem in self.problems})


def verify(out: Path, *, full: bool = False, workers: int = 1, report: Report | None = None) -> Verified:
    """Look at all that shards.json names.

    Raises:
        UsageProblem: the folder is not sealed.
        ManifestChanged: shards.json itself is not what was sealed, or of another format version.
    """
    sealed = index.read_sealed(out)
    tasks = {name.rpartition("/")[0] for name in sealed["files"]}
    found = Verified(full=full, files=len(sealed["files"]) + len(sealed["tables"]) + len(tasks))
    found.problems += _tables(out, sealed)
    found.problems += _records(out, sealed)
    rows = _crcs(out, sealed, found)
    names = sorted(sealed["files"])
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
    for name, entry in sorted(sealed["tables"].items()):
        path = out / name
        digest = sha256_file(path) if path.is_file() else "missing"
        if digest != entry["sha256"]:
            what = f"sha256 is {digest[:12]}, expected {entry['sha256'][:12]}"
            yield Problem(file=name, row=None, clip=None, what=what)


def _records(out: Path, sealed: dict[str, Any]) -> Iterator[Problem]:
    """The completion records of the tasks, which say the same of each shard as shards.json."""
    records: dict[str, dict[str, Any]] = {}
    for name, entry in sorted(sealed["files"].items()):
        folder, _, file = name.rpartition("/")
        if folder not in records:
            records[folder] = read_record(out / folder)
            if not records[folder]:
                what = "missing, changed, or about files of other sizes"
                yield Problem(file=f"{folder}/task.json", row=None, clip=None, what=what)
        recorded = records[folder].get("outputs", {}).get(file, entry)
        if any(recorded[key] != entry[key] for key in _RECORDED):
            yield Problem(
                file=name, row=None, clip=None, what="the record of its task has another digest"
            )


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the index says of the rows of one shard, by row."""

    crcs: npt.NDArray[np.uint32]
    places: npt.NDArray[np.int64]  # in the table of clips, or of captions
    name_of: Callable[[int], str]

    def clip(self, row: int) -> str:
        """Whose row it is."""
        return self.name_of(int(self.places[row]))


def _crcs(out: Path, sealed: dict[str, Any], found: Verified) -> dict[str, _Rows]:
    """The rows of each shard by the index, which is itself checked; shards it misses are left out."""
    try:
        table = index.read_table(out / index.INDEX_FILE, index.INDEX)
        captions = index.read_table(out / index.CAPTIONS_FILE, index.CAPTIONS)
    except ManifestChanged as error:
        found.problems.append(
            Problem(file=index.INDEX_FILE, row=None, clip=None, what=f"cannot be read: {error}")
        )
        return {}
    found.rows, found.texts = table.num_rows, captions.num_rows
    found.problems += _index(table, captions, sealed)
    shards = {name: entry for name, entry in sealed["files"].items() if entry["kind"] != "text"}
    by_shard = _by_shard(table, set(shards))
    crcs = table.column("crc32").to_numpy()
    row_of = table.column("row").to_numpy()
    rows = {}
    for name, entry in sorted(shards.items()):
        places = by_shard.get(name, np.zeros(0, np.int64))
        in_order = places[np.argsort(row_of[places], kind="stable")]
        if not np.array_equal(row_of[in_order], np.arange(entry["rows"])):
            last = entry["rows"] - 1
            rows_of_it = number(len(places), "row")
            what = f"{rows_of_it} of it in the index, expected rows 0 to {last} once each"
            found.problems.append(Problem(file=name, row=None, clip=None, what=what))
            continue
        rows[name] = _Rows(crcs[in_order], in_order, lambda place: index.named(table.slice(place, 1)))
    return rows | _texts(captions, sealed, found)


def _texts(captions: pa.Table, sealed: dict[str, Any], found: Verified) -> dict[str, _Rows]:
    """The rows of text shards, which hold the captions one after another."""
    texts = {name: e["rows"] for name, e in sorted(sealed["files"].items()) if e["kind"] == "text"}
    if sum(texts.values()) != captions.num_rows:
        what = f"{captions.num_rows} captions, expected {sum(texts.values())} as the text shards have"
        found.problems.append(Problem(file=index.CAPTIONS_FILE, row=None, clip=None, what=what))
        return {}
    crcs, rows, begin = captions.column("crc32").to_numpy(), {}, 0
    said = captions.column("caption")
    for name, count in texts.items():
        places = np.arange(begin, begin + count)
        rows[name] = _Rows(crcs[places], places, lambda place: repr(said[place].as_py()))
        begin += count
    return rows


def _by_shard(table: pa.Table, known: set[str]) -> dict[str, npt.NDArray[np.int64]]:
    """The rows of the index that name each shard."""
    shards = table.column("shard").combine_chunks().dictionary_encode()
    codes = shards.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    names = shards.dictionary.to_pylist()
    cuts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    parts = {name: order[cuts[i] : cuts[i + 1]] for i, name in enumerate(names)}
    return {name: places for name, places in parts.items() if name in known}


def _index(table: pa.Table, captions: pa.Table, sealed: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the rows of the index."""

    def problem(row: int | None, what: str) -> Problem:
        clip = None if row is None else index.named(table.slice(row, 1))
        return Problem(file=index.INDEX_FILE, row=row, clip=clip, what=what)

    ordered = index.sorted_by_key(table)
    if ordered.select(index.KEY) != table.select(index.KEY):
        yield problem(None, "its rows are not sorted by dataset, clip_id and part")
    repeated = index.repeated_keys(ordered)
    for key in repeated.slice(0, 10).to_pylist():
        clip = index.named(pa.Table.from_pylist([key]))
        yield Problem(file=index.INDEX_FILE, row=None, clip=clip, what="several rows have this key")
    kinds = {name: entry["kind"] for name, entry in sealed["files"].items()}
    shards = table.column("shard").combine_chunks().dictionary_encode()
    strange = [name for name in shards.dictionary.to_pylist() if kinds.get(name) not in ("av", "audio")]
    for name in strange:
        row = pc.index(table.column("shard"), name).as_py()
        yield problem(row, f"shard {name!r}, expected one that {index.SHARDS_FILE} names")
    of_kind = pa.array([kinds.get(name) == "av" for name in shards.dictionary.to_pylist()], pa.bool_())
    video = of_kind.take(shards.indices)
    if (row := pc.index(pc.equal(video, table.column("has_video")), False).as_py()) >= 0:
        yield problem(row, "has_video is not what its shard holds")
    lists = table.column("text_index").combine_chunks()
    texts, lengths = lists.flatten(), pc.list_value_length(lists)
    valid = pc.and_(pc.greater_equal(texts, 0), pc.less(texts, captions.num_rows))
    if texts.null_count or pc.all(valid).as_py() is False:
        yield problem(None, f"a text_index is not one of the {captions.num_rows} captions")
    if (row := pc.index(pc.equal(pc.fill_null(lengths, 0), 0), True).as_py()) >= 0:
        yield problem(row, "no text_index, expected at least one")


def _shard(
    out: Path, name: str, sealed: dict[str, Any], rows: _Rows | None, full: bool
) -> tuple[list[Problem], int]:
    """What is wrong with one shard, and how many bytes were read for it."""
    path, entry = out / name, sealed["files"][name]

    def wrong(what: str, row: int | None = None) -> Problem:
        return Problem(
            file=name, row=row, clip=rows.clip(row) if rows and row is not None else None, what=what
        )

    if not path.is_file():
        return [wrong("missing")], 0
    if (size := path.stat().st_size) != entry["bytes"]:
        return [wrong(f"has {size:,} bytes, expected {entry['bytes']:,}")], 0
    try:
        header = read_header(path)
    except ManifestChanged as error:
        return [wrong(str(error).removeprefix(f"{path}: "))], 0
    expected = columns_of(entry["kind"], spec_of(sealed["about"]))
    problems = [
        wrong(f"its header says another {what}")
        for what, same in (
            ("kind", header.kind == entry["kind"]),
            ("number of rows", header.rows == entry["rows"]),
            ("configuration", header.about == sealed["about"]),
            ("certificate", header.certificate == sealed["certificate"]),
            ("size", header.file_bytes == size),
            ("shape of columns", {k: c.shape for k, c in header.columns.items()} == expected),
        )
        if not same
    ]
    if problems or rows is None:
        return problems, 0
    crcs, digest, read_bytes = _checksums(path, header, full)
    if digest is not None and digest != entry["sha256"]:
        problems.append(wrong(f"sha256 is {digest[:12]}, expected {entry['sha256'][:12]}"))
    problems += [
        wrong(f"crc32 of the row is {crc:08x}, expected {recorded:08x}", row)
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


def remedy(out: Path, found: Verified) -> tuple[str, ...]:
    """What brings a folder with problems in order: sealing, or doing the tasks of bad shards again.

    Tables first: they are made again from the tasks, and what they say of shards may be wrong with them.
    """
    folders = list(dict.fromkeys(p.file.rpartition("/")[0] for p in found.problems))
    place = shlex.quote(str(out))
    if "" in folders:
        return (f"features seal {place}", f"features verify {place}")
    first = shlex.join(str(out / folder) for folder in folders[:_NAMED])
    rest = len(folders) - _NAMED
    more = (f"and {number(rest, 'more folder')} of tasks, which --json names",) if rest > 0 else ()
    return (f"rm -r {first}", *more, f"run the same features {_maker(out)} again, which makes them anew")


def _maker(out: Path) -> str:
    """The command that wrote the folder."""
    try:
        return "import" if "imported" in index.read_extract(out) else "extract"
    except FoleyproofError:
        return "extract"


def compare_manifest(out: Path, manifest: Path) -> list[str]:
    """What a manifest says otherwise than when its clips were extracted, a line each.

    Raises:
        UsageProblem: there is no such manifest.
        BadManifest, ManifestChanged: it cannot be read, or is not what its certificate says.
    """
    sealed = index.read_sealed(out)
    rows = index.read_table(
        out / index.INDEX_FILE, index.INDEX, ["dataset", "clip_id", "caption_digest"]
    )
    rejects = index.read_table(out / index.REJECTS_FILE, index.REJECTS, ["dataset", "clip_id"])
    now = read_manifest(find_manifest(manifest))
    return index.differences(rows, rejects, sealed["certificate"], now.table, now.certificate)
