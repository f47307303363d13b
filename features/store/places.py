"""Where each row of the index and each caption lies: the number of a file, and a row there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.errors import ManifestChanged
from features.store import index
from features.store.recorded import sealed_table
from features.store.shard_file import Header

Numbers = npt.NDArray[np.int64]
_COLUMNS = ("shard", "row", "has_video", "text_index")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Arrays over the rows of the index, and over those of the text shards."""

    file: Numbers
    row: Numbers
    has_video: npt.NDArray[np.bool_]
    first_text: Numbers  # of the first caption
    text_file: Numbers
    text_row: Numbers

    @property
    def num_texts(self) -> int:
        """The captions."""
        return len(self.text_row)


def read_places(folder: Path, sealed: Mapping[str, Any], headers: Sequence[Header]) -> Places:
    """Places in the files that shards.json names, by the index.

    Args:
        headers: of these files, in their order.

    Raises:
        ManifestChanged: the index is not what was sealed, or names a shard or row that is not there.
    """
    path, names = folder / index.INDEX_FILE, list(sealed["files"])

    def wrong(what: str, expected: str) -> ManifestChanged:
        return ManifestChanged(f"{path}: {what}, expected {expected} — {index.advice(path)}")

    table = sealed_table(folder, sealed, index.INDEX_FILE, _COLUMNS)
    shards = table.column("shard").combine_chunks().dictionary_encode()
    number_of = {name: number for number, name in enumerate(names)}
    listed = shards.dictionary.to_pylist()
    if strange := [name for name in listed if name not in number_of]:
        raise wrong(f"names a shard that {index.SHARDS_FILE} lacks, {strange[0]}", "both from one seal")
    numbers = np.array([number_of[name] for name in listed], np.int64)
    file = numbers[shards.indices.to_numpy()] if len(listed) else np.zeros(0, np.int64)
    row = table.column("row").to_numpy().astype(np.int64)
    has_video = table.column("has_video").combine_chunks().to_numpy(zero_copy_only=False).astype(bool)
    lists = table.column("text_index").combine_chunks()
    texts = [number for number, header in enumerate(headers) if header.kind == "text"]
    counts = [headers[number].rows for number in texts]
    held = np.array([header.rows for header in headers], np.int64)
    video = np.array([header.kind == "av" for header in headers], bool)
    starts, flat = lists.offsets.to_numpy(), lists.flatten().to_numpy()
    bad = (row < 0) | (row >= held[file]) | (has_video != video[file]) | (np.diff(starts) < 1)
    if bad.any():
        raise wrong(f"row {int(np.flatnonzero(bad)[0])} is not in its shard, or has no text", "it there")
    if flat.size and not 0 <= flat.min() <= flat.max() < sum(counts):
        raise wrong(f"text_index {int(flat.max())} is there", f"0 to {sum(counts) - 1}")
    return Places(
        file=file,
        row=row,
        has_video=has_video,
        first_text=flat[starts[:-1] - starts[0]].astype(np.int64) if len(row) else file,
        text_file=np.repeat(np.array(texts, np.int64), counts),
        text_row=np.concatenate([np.arange(n, dtype=np.int64) for n in [*counts, 0]]),
    )
