"""The order of training: a stream of epochs, each a permutation that follows from seed and epoch."""

from collections import Counter

import numpy as np
import plain_philox
import pytest

from training.data.draws import Stream
from training.data.order import Order, permutation


def stream_of(seed: int, entries: int, length: int) -> list[tuple[int, int]]:
    """The first (epoch, entry) of the stream, one epoch behind the other."""
    found: list[tuple[int, int]] = []
    while len(found) < length:
        epoch = len(found) // entries
        found += [
            (epoch, entry) for entry in plain_philox.permutation(seed, Stream.ORDER, epoch, entries)
        ]
    return found[:length]


@pytest.mark.parametrize("entries", [1, 2, 7, 64, 333])
@pytest.mark.parametrize("seed", [0, 14159265, 2**63 + 1])
def test_the_stream_is_that_of_a_plain_sort_of_plain_words(entries: int, seed: int) -> None:
    expected = stream_of(seed, entries, 700)
    epochs, found = Order(seed, entries).at(np.arange(700))
    assert list(zip(epochs.tolist(), found.tolist(), strict=True)) == expected


@pytest.mark.parametrize("size", [1, 3, 8, 64])
def test_pieces_of_any_size_in_any_order_give_the_same_stream(size: int) -> None:
    order, expected = Order(5, 37), stream_of(5, 37, 256)
    found = dict[int, tuple[int, int]]()
    begins = list(range(0, 256, size))
    for begin in np.random.default_rng(0).permutation(begins).tolist():
        positions = np.arange(begin, min(begin + size, 256))
        epochs, entries = order.at(positions)
        found |= dict(
            zip(positions.tolist(), zip(epochs.tolist(), entries.tolist(), strict=True), strict=True)
        )
    assert [found[position] for position in range(256)] == expected


def test_an_epoch_holds_each_entry_once() -> None:
    _, entries = Order(0, 41).at(np.arange(41 * 6))
    for epoch in range(6):
        assert sorted(entries[41 * epoch : 41 * (epoch + 1)].tolist()) == list(range(41))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(permutation(seed, epoch, 50).tolist()) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16


def test_all_orders_of_four_entries_come_equally_often() -> None:
    counts = Counter(tuple(permutation(0, epoch, 4).tolist()) for epoch in range(4800))
    assert len(counts) == 24
    expected = 4800 / 24
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi2 < 49.7, "beyond the 99.9 % point of 23 degrees of freedom"


def test_positions_late_in_a_long_run_are_the_same_without_those_before() -> None:
    late = 300_000 * 512
    epochs, entries = Order(1, 1000).at(np.arange(late, late + 5))
    epoch, place = divmod(late, 1000)
    assert epochs.tolist() == [epoch] * 5
    assert entries.tolist() == permutation(1, epoch, 1000)[place : place + 5].tolist()
