"""In which order entries are trained on: an endless stream of positions, the same for any ranks.

    position   0 ─────────── E-1 │ E ────────── 2E-1 │ 2E ──
    epoch             0          │         1         │
    step       0  │  1  │  2  │  3  │  4  │  …              `batch` positions each

Each epoch holds each of the E entries once, in an order that follows from (seed, epoch).
"""

from functools import lru_cache

import numpy as np

from features.store.places import Numbers
from training.data.draws import Stream, philox

_EPOCHS = 4  # kept: a step lies in one or two, but for a few entries


class Order:
    """Which entry is at which position."""

    def __init__(self, seed: int, num_entries: int) -> None:
        assert num_entries > 0, f"{num_entries} entries, expected some"
        self._num_entries = num_entries
        self._epoch = lru_cache(_EPOCHS)(lambda epoch: permutation(seed, epoch, num_entries))

    def at(self, positions: Numbers) -> tuple[Numbers, Numbers]:
        """Epoch and entry of each position."""
        epochs, places = np.divmod(positions, self._num_entries)
        entries = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            entries[here] = self._epoch(int(epoch))[places[here]]
        return epochs, entries


def permutation(seed: int, epoch: int, count: int) -> Numbers:
    """The numbers below `count` in the order of an epoch: sorted by random words.

    A sort of words depends on neither machine nor version of NumPy, as its own permutations may. 1.3 M
    entries take 0.2 s.
    """
    words = philox(seed, Stream.ORDER, epoch).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)
