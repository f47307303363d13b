"""Philox4x64-10 as its paper writes it, one block at a time.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011, Sec. 3.3.
"""

from collections.abc import Iterator
from itertools import count, islice

_ALL = 2**64 - 1
_MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
Block = tuple[int, int, int, int]


def block(counter: Block, key: tuple[int, int]) -> Block:
    """The four words of a counter."""
    for _ in range(10):
        first, second = _MULTIPLIERS[0] * counter[0], _MULTIPLIERS[1] * counter[2]
        counter = (
            (second >> 64) ^ counter[1] ^ key[0],
            second & _ALL,
            (first >> 64) ^ counter[3] ^ key[1],
            first & _ALL,
        )
        key = (key[0] + _WEYL[0] & _ALL, key[1] + _WEYL[1] & _ALL)
    return counter


def words(seed: int, stream: int, *counter: int) -> Iterator[int]:
    """The words of a stream: blocks of counters whose lowest word counts from 1."""
    rest = (*counter, 0, 0, 0)[:3]
    for low in count(1):
        yield from block((low, *rest), (seed, stream))


def permutation(seed: int, stream: int, epoch: int, entries: int) -> list[int]:
    """Numbers sorted by as many words."""
    drawn = list(islice(words(seed, stream, epoch), entries))
    return sorted(range(entries), key=drawn.__getitem__)
