"""Batches that validate: the same samples with the same draws, each time and on any number of ranks."""

from collections.abc import Iterator

import numpy as np

from curation.errors import UsageProblem
from features.shards import ShardReader
from features.store.places import Numbers
from training.config import TrainConfig
from training.data.batch import Batch, Buffers
from training.data.batches import share_of
from training.data.draws import Piece, Stream
from training.data.filling import Filler, Plan
from training.data.prefetch import Prefetch

_NUM_BUFFERS = 2


class Validation:
    """May be gone through again and again; each pass has the same batches.

    The first `validate_samples` rows, with their first captions; draws, also those of dropping, follow
    from the seed and the row. All ranks have as many batches of one size: where samples have run out,
    others fill up, whose `counted` is False.

    Attributes:
        rows: of the index, that are counted, in their order.
    """

    def __init__(
        self,
        reader: ShardReader,
        rows: Numbers,
        config: TrainConfig,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not len(rows):
            raise UsageProblem(
                f"{reader.folder}: no row is left for validation, expected some — give --val-shards, a "
                "larger held_back, or --set validate_every=0"
            )
        self.rows = rows[: config.validate_samples]
        self._rank, self._world = rank, world
        # a pass of few samples wants no larger batches than it takes
        self._size = min(share_of(config, world).size, -(-len(self.rows) // world))
        self._reader, self._config = reader, config
        self._ring: list[Buffers] = []

    def __len__(self) -> int:
        """Batches of a pass, on each rank."""
        return -(-len(self.rows) // (self._size * self._world))

    def __iter__(self) -> Iterator[Batch]:
        self._ring = self._ring or [
            Buffers(self._reader, self._size) for _ in range(min(_NUM_BUFFERS, len(self) + 1))
        ]
        with (
            Filler(self._reader, self._config, Stream.VALIDATION) as filler,
            Prefetch(self._plans(), filler.fill, self._ring) as batches,
        ):
            yield from batches

    def _plans(self) -> Iterator[Plan]:
        for micro in range(len(self)):
            begin = (micro * self._world + self._rank) * self._size
            slots = np.arange(begin, begin + self._size)
            rows = self.rows[slots % len(self.rows)]
            yield Plan(
                step=0,
                micro=micro,
                slots=slots,
                rows=rows,
                texts=None,
                draws=[Piece((row, 0), 0, 1, place) for place, row in enumerate(rows.tolist())],
                counted=int(np.clip(len(self.rows) - begin, 0, self._size)),
            )
