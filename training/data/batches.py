"""The micro-batches of a run, from any step on, read and drawn ahead of it by a thread.

A step takes `batch` positions of the order, its global batch; the place of a position in it is its slot.
Slots are dealt to ranks, and those of a rank to its micro-batches, side by side:

    slots        0 1 2 3 │ 4 5 6 7 │ 8 9 10 11 │ 12 13 14 15
    rank         0       │ 0       │ 1         │ 1               2 ranks, micro_batch = 4
    micro-batch  0       │ 1       │ 0         │ 1

What a slot of a step holds, bit for bit, depends on neither.
"""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np

from curation.errors import UsageProblem
from features.shards import ShardReader
from training.config import TrainConfig
from training.data.batch import Batch, Buffers
from training.data.draws import Stream, pieces_of
from training.data.filling import Filler, Plan
from training.data.mixture import Mixture
from training.data.order import Order
from training.data.prefetch import Prefetch

NUM_BUFFERS = 4  # one that the loop has, one that is filled, and two in stock


class Share(NamedTuple):
    """What a rank computes in a step."""

    size: int  # samples of a micro-batch
    num_micro: int  # micro-batches


def share_of(config: TrainConfig, world: int) -> Share:
    """The share of each of so many ranks; a micro-batch is at most `micro_batch`.

    Raises:
        UsageProblem: the batch cannot be dealt out evenly.
    """
    per_rank, left = divmod(config.batch, world)
    if left or not per_rank:
        most = min(config.batch, 2 * world)
        fitting = [str(ranks) for ranks in range(1, most + 1) if config.batch % ranks == 0]
        raise UsageProblem(
            f"a batch of {config.batch} on {world} ranks, expected as many samples on each — start one "
            f"of {', '.join(fitting)} ranks"
        )
    size = min(config.micro_batch or per_rank, per_rank)
    if per_rank % size:
        best = next(part for part in range(size, 0, -1) if per_rank % part == 0)
        raise UsageProblem(
            f"micro_batch {config.micro_batch} where each of {world} ranks has {per_rank} samples of a "
            f"step, expected a divisor of these — give --set micro_batch={best}"
        )
    return Share(size, per_rank // size)


class Batches(Prefetch[Plan, Buffers, Batch]):
    """An endless iterator over the micro-batches of a rank; see `Prefetch` for waiting and errors.

    To be used in a `with` block, or closed, before the reader is.
    """

    def __init__(
        self,
        reader: ShardReader,
        mixture: Mixture,
        config: TrainConfig,
        *,
        rank: int = 0,
        world: int = 1,
        first_step: int = 0,
    ) -> None:
        """Begin to read.

        Args:
            first_step: what comes is what would have come there had it begun at 0.

        Raises:
            UsageProblem: the batch cannot be dealt out evenly.
        """
        share = share_of(config, world)
        filler = Filler(reader, config, Stream.TRAINING)
        ring = [Buffers(reader, share.size) for _ in range(NUM_BUFFERS)]
        plans = _plans(mixture, config, share=share, rank=rank, first_step=first_step)
        super().__init__(plans, filler.fill, ring)
        self._filler = filler

    def close(self) -> None:
        """End all threads; what they fill at the moment is finished."""
        super().close()
        self._filler.close()


def _plans(
    mixture: Mixture, config: TrainConfig, *, share: Share, rank: int, first_step: int
) -> Iterator[Plan]:
    """Of each micro-batch of a rank, for ever."""
    order = Order(config.seed, len(mixture))
    for step in count(first_step):
        for micro in range(share.num_micro):
            begin = (rank * share.num_micro + micro) * share.size
            slots = np.arange(begin, begin + share.size)
            epochs, entries = order.at(step * config.batch + slots)
            yield Plan(
                step=step,
                micro=micro,
                slots=slots,
                rows=mixture.rows[entries],
                texts=mixture.texts(epochs, entries),
                draws=list(pieces_of(step, begin, share.size)),
                counted=share.size,
            )
