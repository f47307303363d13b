"""Which rows are trained on, and which validate: whole sources stay on one side.

A source is a recording, told by `key_digest`, the sha256 of `source:source_id`: clips and parts of it
lie in several rows, and in several datasets. It is held back where its digest, read as a fraction of
[0, 1), lies below a share: which ones does not change when other rows come or go.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.shards import ShardReader
from features.store.index import INDEX_FILE
from features.store.places import Numbers
from features.store.recorded import sealed_table

Sources = npt.NDArray[np.uint64]
_DIGITS = slice(len("sha256:"), len("sha256:") + 16)  # 64 bits: of a million, two are alike by 3e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Rows of the training shards, and rows that validate, of the same reader or another."""

    training_rows: Numbers
    left_out: int  # rows of the training shards
    validation: ShardReader
    validation_rows: Numbers  # in their order


def split_rows(reader: ShardReader, share: float, *, validation: ShardReader | None = None) -> Split:
    """Train on all but the held back sources, or, with other shards that validate, all but theirs.

    Validation is on rows with pictures, as the paper's; where there are none, on all.

    Args:
        share: of the sources, 0 to 1.
    """
    sources, video = read_sources(reader)
    if validation is None:
        out = held_back(sources, video, share)
        chosen, chosen_sources, chosen_video = np.flatnonzero(out), sources, video
    else:
        chosen_sources, chosen_video = read_sources(validation)
        out = np.isin(sources, chosen_sources)
        chosen = np.arange(len(validation))
    if chosen_video[chosen].any():
        chosen = chosen[chosen_video[chosen]]
    return Split(
        training_rows=np.flatnonzero(~out),
        left_out=int(out.sum()),
        validation=validation or reader,
        validation_rows=chosen[np.lexsort((chosen, chosen_sources[chosen]))],
    )


def held_back(sources: Sources, video: npt.NDArray[np.bool_], share: float) -> npt.NDArray[np.bool_]:
    """Which rows are of a source below the share; only sources with pictures, where there are any."""
    below = sources < round(share * 2.0**64) if share < 1 else np.ones(len(sources), bool)
    return np.isin(sources, sources[below & video]) if video.any() else below


def read_sources(reader: ShardReader) -> tuple[Sources, npt.NDArray[np.bool_]]:
    """The source of each row, and whether it has pictures."""
    table = sealed_table(reader.folder, reader.sealed, INDEX_FILE, ["key_digest", "has_video"])
    digests: Iterable[str] = table.column("key_digest").to_pylist()
    sources = np.fromiter((int(text[_DIGITS], 16) for text in digests), np.uint64, len(table))
    return sources, table.column("has_video").to_numpy().astype(bool)
