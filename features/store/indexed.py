"""What the tables of sealed shards say of the rows of each, and whether they fit the shards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import ManifestChanged
from curation.tables import number
from features.store import index
from features.store.verified import Problem, Verified, problem_of


@dataclass(frozen=True, slots=True)
class Rows:
    """What the index says of the rows of one shard, by row."""

    crcs: npt.NDArray[np.uint32]
    places: npt.NDArray[np.int64]  # in the table of clips, or of captions
    name_of: Callable[[int], str]

    def clip(self, row: int) -> str:
        """Whose row it is."""
        return self.name_of(int(self.places[row]))


def indexed(out: Path, sealed: dict[str, Any], found: Verified) -> dict[str, Rows]:
    """The rows of each shard by the tables, which are themselves checked; what is wrong goes to `found`.

    A table that has a problem already is not read; shards that the index misses are left out.
    """
    table = _read(out, index.INDEX_FILE, index.INDEX, found)
    captions = _read(out, index.CAPTIONS_FILE, index.CAPTIONS, found)
    rows: dict[str, Rows] = {}
    if table is not None:
        found.rows = table.num_rows
        found.problems += _index(table, sealed)
        rows |= _clips(table, sealed, found)
    if captions is not None:
        found.texts = captions.num_rows
        rows |= _texts(captions, sealed, found)
    return rows


def _read(out: Path, name: str, schema: pa.Schema, found: Verified) -> pa.Table | None:
    if any(problem.file == name for problem in found.problems):
        return None
    try:
        return index.read_table(out / name, schema)
    except ManifestChanged as error:
        found.problems.append(problem_of(out, name, error))
        return None


def _clips(table: pa.Table, sealed: dict[str, Any], found: Verified) -> dict[str, Rows]:
    """The rows of shards of clips."""
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
            found.problems.append(Problem(file=name, what=what))
            continue
        rows[name] = Rows(crcs[in_order], in_order, lambda place: index.named(table.slice(place, 1)))
    return rows


def _texts(captions: pa.Table, sealed: dict[str, Any], found: Verified) -> dict[str, Rows]:
    """The rows of text shards, which hold the captions one after another."""
    texts = {name: e["rows"] for name, e in sorted(sealed["files"].items()) if e["kind"] == "text"}
    if sum(texts.values()) != captions.num_rows:
        what = f"{captions.num_rows} captions, expected {sum(texts.values())} as the text shards have"
        found.problems.append(Problem(file=index.CAPTIONS_FILE, what=what))
        return {}
    crcs, rows, begin = captions.column("crc32").to_numpy(), {}, 0
    said = captions.column("caption")
    for name, count in texts.items():
        places = np.arange(begin, begin + count)
        rows[name] = Rows(crcs[places], places, lambda place: repr(said[place].as_py()))
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


def _index(table: pa.Table, sealed: dict[str, Any]) -> Iterator[Problem]:
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
        yield Problem(file=index.INDEX_FILE, clip=clip, what="several rows have this key")
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
    num_texts = sealed["totals"]["captions"]
    lists = table.column("text_index").combine_chunks()
    texts, lengths = lists.flatten(), pc.list_value_length(lists)
    valid = pc.and_(pc.greater_equal(texts, 0), pc.less(texts, num_texts))
    if texts.null_count or pc.all(valid).as_py() is False:
        yield problem(None, f"a text_index is not one of the {num_texts} captions")
    if (row := pc.index(pc.equal(pc.fill_null(lengths, 0), 0), True).as_py()) >= 0:
        yield problem(row, "no text_index, expected at least one")
