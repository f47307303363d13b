"""What an epoch holds: rows of the shards, each an exact number of times, and the caption of each time.

An entry is one time that a row is trained on in an epoch; the entries of a row lie side by side.

    row       0         1   2         5  …        row 1 has no pictures, 3 and 4 are held back
    entries   0 1 2 3 4 5   6 7 8 9 …

Source: MMAudio's training data@974010a, spec 8.7: rows of VGGSound five or three times beside sounds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from curation.errors import UsageProblem
from curation.tables import number
from features.shards import ShardReader
from features.store.index import INDEX_FILE
from features.store.places import Numbers
from features.store.recorded import sealed_table
from training.config import TrainConfig
from training.data.draws import Stream, philox


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows of a dataset that are repeated alike."""

    dataset: str
    kind: str  # "av" or "audio"
    rows: int
    times: int  # in an epoch

    @property
    def entries(self) -> int:
        """Its share of an epoch, in entries."""
        return self.rows * self.times


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The entries of an epoch."""

    rows: Numbers  # (E,) the row of each entry
    parts: tuple[Part, ...]
    _first: Numbers  # of each row of the index, its first entry
    _times: Numbers  # of each row, its entries
    _captions: "Captions"

    @classmethod
    def read(cls, reader: ShardReader, config: TrainConfig, training_rows: Numbers) -> Self:
        """The mixture of these rows by `repeat`, else `repeat_audio_video`, else once.

        Raises:
            UsageProblem: `repeat` names a dataset that is not there; nothing is left to train on.
        """
        columns = ["dataset", "has_video", "text_index"]
        table = sealed_table(reader.folder, reader.sealed, INDEX_FILE, columns)
        coded = table.column("dataset").combine_chunks().dictionary_encode()
        datasets: list[str] = coded.dictionary.to_pylist()
        video = table.column("has_video").to_numpy().astype(np.int64)
        # of each dataset without and with pictures
        asked = _times(datasets, dict(config.repeat), config.repeat_audio_video, str(reader.folder))
        kinds = 2 * coded.indices.to_numpy().astype(np.int64) + video
        times = np.zeros(len(table), np.int64)
        times[training_rows] = asked[kinds[training_rows]]
        if not times.any():
            raise UsageProblem(
                f"{reader.folder}: of {number(len(table), 'row')} none is left to train on, expected "
                "some — give more shards, a smaller held_back, or other values of repeat"
            )
        counts = np.bincount(kinds[training_rows], minlength=len(asked)).tolist()
        parts = [
            Part(
                dataset=datasets[kind // 2],
                kind=("audio", "av")[kind % 2],
                rows=counts[kind],
                times=int(asked[kind]),
            )
            for kind in np.flatnonzero(counts).tolist()
        ]
        return cls(
            rows=np.repeat(np.arange(len(table)), times),
            parts=tuple(sorted(parts, key=lambda part: (part.dataset, part.kind))),
            _first=np.cumsum(times) - times,
            _times=times,
            _captions=Captions.read(table.column("text_index").combine_chunks(), config.seed),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, epochs: Numbers, entries: Numbers) -> Numbers:
        """The row of text of each entry in its epoch: captions of a row take turns."""
        rows = self.rows[entries]
        uses = epochs * self._times[rows] + entries - self._first[rows]
        return self._captions.at(rows, uses)

    def lines(self) -> Iterator[str]:
        """What it is made of, a line for each part."""
        for part in self.parts:
            share = 100 * part.entries / len(self)
            yield (
                f"{part.dataset} ({part.kind}): {number(part.rows, 'row')} x {part.times} = "
                f"{part.entries:,} of {len(self):,} samples an epoch ({share:.1f} %)"
            )


def _times(
    datasets: list[str], repeat: Mapping[str, int], repeat_audio_video: int, folder: str
) -> Numbers:
    """How often rows of each dataset are in an epoch, without and with pictures in turn."""
    if unknown := [name for name in repeat if name not in datasets]:
        raise UsageProblem(
            f"repeat names {unknown[0]!r}, expected datasets of {folder}: {', '.join(sorted(datasets))} "
            "— name one of these"
        )
    each = [(repeat.get(name, 1), repeat.get(name, repeat_audio_video)) for name in datasets]
    return np.array(each, np.int64).reshape(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """Which row of text a row of the index has at its n-th use.

    Uses count on over epochs. Each caption of a row comes once in as many uses as it has captions; with
    which one a row begins follows from the seed.
    """

    _starts: Numbers  # of each row, its first one in
    _texts: Numbers
    _counts: Numbers  # of each row
    _shifts: Numbers

    @classmethod
    def read(cls, lists: Any, seed: int) -> Self:
        """Of the column `text_index`, an Arrow array of lists."""
        offsets = lists.offsets.to_numpy().astype(np.int64)
        counts = np.diff(offsets)
        words = philox(seed, Stream.CAPTIONS).random_raw(len(counts))
        return cls(
            _starts=offsets[:-1] - offsets[0],
            _texts=lists.flatten().to_numpy().astype(np.int64),
            _counts=counts,
            _shifts=(words % counts.astype(np.uint64)).astype(np.int64),
        )

    def at(self, rows: Numbers, uses: Numbers) -> Numbers:
        """The row of text of each row at its use."""
        return self._texts[self._starts[rows] + (self._shifts[rows] + uses) % self._counts[rows]]
