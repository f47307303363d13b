"""How a radius search is divided: which bits make the bands, and how many of them may differ.

Multi-index hashing: cut the bits of a hash into bands. Give band i a number of flips k_i, such that the
sum of (k_i + 1) is more than the radius: a pair within the radius then differs in at most k_i bits of
some band i, or it would differ in k_i + 1 bits of every band and in more than the radius in all. So only
pairs with such a band need comparing, and all pairs are found.
Source: Norouzi, Punjani, Fleet, arXiv:1307.2982.

Wide bands leave few hashes to compare, and many flips to try. Which division is cheapest depends on the
radius, on both numbers of hashes and on how the hashes lie: frames are far from uniform, and two frames
of unrelated clips agree in a band ten times as often as chance would have it. So the cost of a band is
reckoned with what a sample of the pairs shows. Comparing everything, with no band, is one of the plans.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb, exp, log2

import numpy as np

# The bits of a hash in the order in which bands take them, seven rows and a column apart: neighbours
# among the bits of a picture's spectrum say similar things, and a band should hold many of them.
# Bands of 815 frames of real clips met a fifth less often than bands of neighbouring bits.
BIT_ORDER = [(27 * place + 26) % 64 for place in range(64)]
# The last in that order is the mean brightness of a pHash, 1 in all of them: no band takes it.
_BITS = 63
_WIDEST = 24
_MOST_FLIPS = 4
_SAMPLE = 768  # hashes of either side
_WORTH_A_SAMPLE_NS = 2e9
# Nanoseconds, of one core of an EPYC 9004 (tests/benchmarks/bench_search.py); only their ratios matter.
_SORT_NS = 16.0  # a hash into its bucket
_LOOK_NS = 11.0  # at a bucket that a run of queries tries
_VISIT_NS = 4.0  # of a query to a bucket that is not empty
_COMPARE_NS = 0.075  # a query with a hash


@dataclass(frozen=True, slots=True)
class Band:
    """Some neighbouring bits of the mixed hashes, and how many of them a pair may differ in."""

    shift: int  # the lowest of its bits
    width: int  # number of bits; 0: the band that all pairs meet in
    flips: int

    @property
    def bits(self) -> int:
        """Its bits, as a mask."""
        return ((1 << self.width) - 1) << self.shift

    def masks(self) -> np.ndarray:
        """Every change to the value of the band that is tried, uint64, ascending."""
        changes = [
            sum(1 << bit for bit in bits)
            for flips in range(min(self.flips, self.width) + 1)
            for bits in combinations(range(self.width), flips)
        ]
        return np.array(sorted(changes), dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Plan:
    """The bands of a search, and what sorting for it and one query are expected to cost."""

    bands: tuple[Band, ...]
    sort_ns: float
    query_ns: float


@cache
def mixing_tables() -> np.ndarray:
    """What each of the eight bytes of a hash becomes with its bits in BIT_ORDER, uint64 (8, 256)."""
    tables = np.zeros((8, 256), dtype=np.uint64)
    for place, bit in enumerate(BIT_ORDER):
        ones = np.uint64(1) << np.uint64(place)
        tables[bit // 8, (np.arange(256) >> (bit % 8)) & 1 == 1] |= ones
    tables.flags.writeable = False
    return tables


def mixed(hashes: np.ndarray) -> np.ndarray:
    """The hashes with their bits in the order in which bands take them."""
    tables = mixing_tables()
    result = np.zeros_like(hashes)
    for byte in range(8):
        result |= tables[byte, (hashes >> np.uint64(8 * byte)) & np.uint64(255)]
    return result


def plan(queries: np.ndarray, database: np.ndarray, radius: int) -> Plan:
    """The cheapest division for these hashes (uint64 both), or one that is close to it."""
    num_queries, num_hashes = max(1, len(queries)), max(1, len(database))
    share = _chance_of_meeting(radius)
    if num_queries * num_hashes * _COMPARE_NS > _WORTH_A_SAMPLE_NS:
        share = np.maximum(share, _share_that_meets(queries, database, radius))
    widest = min(_WIDEST, int(log2(num_hashes)) + 2)
    # cost[bits, distance]: of bands of that many bits that find all pairs below that distance
    cost = np.full((_BITS + 1, radius + 2), np.inf)
    cost[:, 0] = 0
    choice = np.zeros((_BITS + 1, radius + 2, 2), dtype=int)
    options = [
        (0, radius),
        *((w, k) for w in range(1, widest + 1) for k in range(min(w, _MOST_FLIPS) + 1)),
    ]
    costs = {o: _band_ns(*o, share[o], num_queries, num_hashes) for o in options}
    for distance in range(1, radius + 2):
        for (width, flips), band_ns in costs.items():
            rest = cost[: _BITS + 1 - width, max(0, distance - flips - 1)] + band_ns
            better = np.flatnonzero(rest < cost[width:, distance])
            cost[better + width, distance] = rest[better]
            choice[better + width, distance] = (width, flips)
    bands, bits, distance = [], _BITS, radius + 1
    while distance > 0:
        width, flips = (int(number) for number in choice[bits, distance])
        bands.append((width, flips))
        bits, distance = bits - width, max(0, distance - flips - 1)
    return _placed(bands, radius, num_hashes, num_queries, float(cost[_BITS, radius + 1]))


def _placed(
    bands: list[tuple[int, int]], radius: int, num_hashes: int, num_queries: int, all_ns: float
) -> Plan:
    assert sum(flips + 1 for _, flips in bands) > radius, f"{bands} miss pairs at distance {radius}"
    assert sum(width for width, _ in bands) <= 64, f"{bands} overlap"
    placed, shift = [], 0
    for width, flips in sorted(bands, reverse=True):
        placed.append(Band(shift, width, flips))
        shift += width
    sort_ns = len(bands) * num_hashes * _SORT_NS
    return Plan(tuple(placed), sort_ns, max(1.0, (all_ns - sort_ns) / num_queries))


def _band_ns(width: int, flips: int, share: float, num_queries: int, num_hashes: int) -> float:
    """What a band costs: sort, then look, visit and compare."""
    tried = sum(comb(width, k) for k in range(min(flips, width) + 1))
    per_bucket = max(num_hashes * share / tried, num_hashes / 2.0**width)
    occupied = 1 - exp(-per_bucket)
    looks = min(num_queries, 2**width) * tried
    visits = num_queries * tried * occupied
    compared = num_queries * num_hashes * share + 4 * visits  # the last step of a bucket is half idle
    sorting: float = num_hashes * _SORT_NS
    total: float = sorting + looks * _LOOK_NS + visits * _VISIT_NS + compared * _COMPARE_NS
    return total


def _chance_of_meeting(radius: int) -> np.ndarray:
    """The share of pairs of uniform hashes that differ in at most k bits of a band, [width, k]."""
    share = np.ones((_WIDEST + 1, max(radius, _MOST_FLIPS) + 1))
    for width in range(_WIDEST + 1):
        within = np.cumsum([comb(width, k) for k in range(share.shape[1])])
        share[width] = within / 2.0**width
    return share


def _share_that_meets(queries: np.ndarray, database: np.ndarray, radius: int) -> np.ndarray:
    """The same, of the pairs of a sample: [width, k], the mean of bands at three places."""
    sides = [mixed(h[np.linspace(0, len(h) - 1, min(len(h), _SAMPLE)).astype(np.int64)])
             for h in (queries, database)]  # fmt: skip
    differing = (sides[0][:, None] ^ sides[1][None, :]).ravel()
    share = np.ones((_WIDEST + 1, max(radius, _MOST_FLIPS) + 1))
    for width in range(1, _WIDEST + 1):
        counts = np.zeros(_WIDEST + 1)
        for shift in (0, 19, _BITS - width):
            band = (differing >> np.uint64(shift)) & np.uint64(2**width - 1)
            counts += np.bincount(np.bitwise_count(band), minlength=_WIDEST + 1)
        within = np.cumsum(counts) / counts.sum()
        share[width] = within[np.minimum(np.arange(share.shape[1]), _WIDEST)]
    return share
