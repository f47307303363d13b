"""All pairs within a radius: those of faiss and of brute force, in one order, whatever the division."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.matching import search, search_buckets, search_plan
from curation.matching.search import Pairs, crowded, hits, radius_blocks, radius_pairs
from curation.matching.search_plan import BIT_ORDER, Plan, mixed, plan

# Divisions that a search of this size would not choose; each finds all pairs up to its radius.
DIVISIONS = {
    0: [[(20, 0)], [(1, 0)]],
    2: [[(11, 0), (10, 1)], [(9, 0), (8, 0), (8, 0)]],
    5: [[(12, 2), (12, 2)], [(16, 1), (9, 1), (9, 1)], [(5, 2), (0, 2)]],
    8: [[(16, 2), (15, 1), (15, 1), (15, 1)], [(10, 2), (9, 2), (8, 2)], [*[(12, 1)] * 4, (9, 0)]],
    10: [[(14, 2), (12, 2), (11, 2), (9, 1)], [(21, 3), (21, 3), (20, 2)]],
    12: [[(11, 3), (10, 2), (10, 2), (10, 2)]],
}  # fmt: skip


def flipped(hashes: np.ndarray, distance: int, rng: np.random.Generator) -> np.ndarray:
    """The hashes with exactly so many of their bits changed."""
    bits = np.argsort(rng.random((len(hashes), 64)), axis=1)[:, :distance].astype(np.uint64)
    return hashes ^ np.bitwise_or.reduce(np.uint64(1) << bits, axis=1, initial=np.uint64(0))


def of_clips(num: int, rng: np.random.Generator, per_clip: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Hashes that drift within a clip, some of them equal, and the clips they belong to."""
    clips = np.arange(num) // per_clip
    hashes = rng.integers(0, 2**64, num, dtype=np.uint64)[clips]
    for _ in range(3):
        one = np.uint64(1) << rng.integers(0, 64, num, dtype=np.uint64)
        hashes ^= np.where(rng.random(num) < 0.4, one, np.uint64(0))
    return hashes, clips.astype(np.int32)


def planted(radius: int, seed: int = 0, num: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Queries and a database with pairs at every distance from 0 to radius + 1, and equal hashes."""
    rng = np.random.default_rng(seed)
    database, _ = of_clips(num, rng)
    queries, _ = of_clips(700, rng)
    for distance in range(radius + 2):
        chosen = rng.integers(0, num, 30)
        queries[distance * 40 : distance * 40 + 30] = flipped(database[chosen], distance, rng)
    return queries, database


def brute_force(queries: np.ndarray, database: np.ndarray, radius: int) -> tuple[np.ndarray, ...]:
    distance = np.bitwise_count(queries[:, None] ^ database[None, :])
    query, other = np.nonzero(distance <= radius)
    return query, other, distance[query, other]


def by_faiss(queries: np.ndarray, database: np.ndarray, radius: int) -> tuple[np.ndarray, ...]:
    index = faiss.IndexBinaryFlat(64)
    index.add(database.view(np.uint8).reshape(-1, 8))
    # its radius is exclusive
    ends, distance, other = index.range_search(queries.view(np.uint8).reshape(-1, 8), radius + 1)
    query = np.repeat(np.arange(len(queries)), np.diff(ends.astype(np.int64)))
    order = np.lexsort((other, query))
    return query[order], other[order], distance[order]


def same(pairs: Pairs, expected: tuple[np.ndarray, ...]) -> bool:
    found = (pairs.query, pairs.database, pairs.distance)
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.fixture
def divide(monkeypatch):
    """A function that makes searches use these bands, as (width, flips)."""

    def use(bands: list[tuple[int, int]]) -> None:
        def chosen(queries: np.ndarray, database: np.ndarray, radius: int) -> Plan:
            return search_plan._placed(bands, radius, len(database), max(1, len(queries)), 0)

        monkeypatch.setattr(search, "plan", chosen)

    return use


@pytest.mark.parametrize("radius", range(13))
def test_finds_what_faiss_finds(radius):
    queries, database = planted(radius, seed=radius)
    assert same(radius_pairs(queries, database, radius), by_faiss(queries, database, radius))


@pytest.mark.parametrize(
    ("radius", "bands"), [(radius, bands) for radius, all_ in DIVISIONS.items() for bands in all_]
)
def test_every_division_finds_the_same_pairs(radius, bands, divide):
    queries, database = planted(radius, seed=radius + 50)
    expected = brute_force(queries, database, radius)
    assert set(expected[2]) >= set(range(radius + 1)), "a planted distance is missing"
    divide(bands)
    assert same(radius_pairs(queries, database, radius), expected)
    assert same(radius_pairs(queries, database, radius, threads=3), expected)


@pytest.mark.parametrize("radius", [0, 3, 8])
@pytest.mark.parametrize("value", [0, 2**64 - 1, 0x8000000000000000])
def test_hashes_that_are_all_equal_make_all_pairs(radius, value):
    queries, database = np.full(300, value, np.uint64), np.full(1500, value, np.uint64)
    pairs = radius_pairs(queries, database, radius)
    assert len(pairs) == 300 * 1500
    assert not pairs.distance.any()
    assert same(pairs, brute_force(queries, database, radius))


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("radius", [0, 8, 64])
def test_small_and_empty_sides(sizes, radius):
    rng = np.random.default_rng(3)
    queries, database = (rng.integers(0, 2**64, size, dtype=np.uint64) for size in sizes)
    pairs = radius_pairs(queries, database, radius)
    assert same(pairs, brute_force(queries, database, radius))
    types = [pairs.query.dtype, pairs.database.dtype, pairs.distance.dtype]
    assert types == [np.uint32, np.uint32, np.uint8]


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.integers(0, 2**64 - 1), max_size=6),
    changes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**64 - 1)), max_size=40),
    radius=st.integers(0, 12),
)
def test_agrees_with_brute_force_on_any_hashes(words, changes, radius):
    queries = np.array(words, dtype=np.uint64)
    sparse = [words[i % len(words)] ^ (bits & bits >> 7 & bits >> 13) for i, bits in changes if words]
    database = np.array(sparse, dtype=np.uint64)
    assert same(radius_pairs(queries, database, radius), brute_force(queries, database, radius))


@pytest.mark.parametrize("radius", [0, 4, 8, 10])
def test_self_join_has_every_pair_once(radius, divide):
    rng = np.random.default_rng(radius)
    hashes, _ = of_clips(1500, rng)
    hashes[700:900] = flipped(hashes[:200], radius, rng)
    query, other, distance = brute_force(hashes, hashes, radius)
    once = query < other
    expected = (query[once], other[once], distance[once])
    assert same(radius_pairs(hashes, None, radius), expected)
    divide(DIVISIONS[{4: 5}.get(radius, radius)][0])
    assert same(radius_pairs(hashes, None, radius), expected)


@pytest.mark.parametrize("radius", [0, 8])
def test_pairs_of_one_clip_are_left_out_when_asked(radius):
    rng = np.random.default_rng(5)
    hashes, clips = of_clips(2000, rng)
    hashes[1000:1100] = hashes[:100]
    query, other, distance = brute_force(hashes, hashes, radius)
    wanted = (query < other) & (clips[query] != clips[other])
    found = radius_pairs(hashes, None, radius, query_clips=clips)
    assert same(found, (query[wanted], other[wanted], distance[wanted]))
    assert len(found) >= 100
    ((pairs, mine, theirs),) = hits(hashes, clips, hashes, clips, radius)
    both = clips[query] != clips[other]
    assert same(pairs, (query[both], other[both], distance[both]))
    assert np.array_equal(mine, clips[query[both]])
    assert np.array_equal(theirs, clips[other[both]])


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_follow_each_other_and_hold_the_same_pairs(own, threads, monkeypatch):
    queries, database = planted(8)
    sides = (database, None) if own else (queries, database)
    whole = radius_pairs(*sides, 8)
    monkeypatch.setattr(search._Search, "block_size", lambda _: 128)
    monkeypatch.setattr(search, "_most_pairs", lambda _: 50)
    done = []
    blocks = list(radius_blocks(*sides, 8, threads=threads, progress=lambda *at: done.append(at)))
    assert len(blocks) > 2 * len(sides[0]) / 128, "no block was taken in halves"
    assert all(one.query[-1] < other.query[0] for one, other in pairwise(b for b in blocks if len(b)))
    assert same(Pairs.joined(blocks), (whole.query, whole.database, whole.distance))
    assert done == sorted(done)
    assert done[-1] == (len(sides[0]), len(sides[0]))


def test_more_pairs_than_a_task_has_room_for_are_all_found(divide):
    rng = np.random.default_rng(9)
    database = flipped(np.full(4000, 12345, np.uint64), 2, rng)
    queries = flipped(np.full(200, 12345, np.uint64), 2, rng)
    expected = brute_force(queries, database, 5)
    assert len(expected[0]) == 200 * 4000  # several times the room
    divide(DIVISIONS[5][1])
    assert same(radius_pairs(queries, database, 5), expected)
    divide([(2, 2), (2, 2)])
    assert len(radius_pairs(queries, database, 5, most=3999)) == 0
    assert same(radius_pairs(queries, database, 5, most=4000), expected)


@pytest.mark.parametrize("most", [0, 1, 5, 30])
@pytest.mark.parametrize("threads", [1, 2])
def test_query_with_too_many_pairs_is_named_and_has_none(most, threads, divide):
    queries, database = planted(8)
    database[:60] = queries[3]
    query, other, distance = brute_force(queries, database, 8)
    too_many = np.flatnonzero(np.bincount(query, minlength=len(queries)) > most)
    kept = ~np.isin(query, too_many)
    for bands in DIVISIONS[8]:
        divide(bands)
        pairs = radius_pairs(queries, database, 8, most=most, threads=threads)
        assert pairs.crowded.tolist() == too_many.tolist()
        assert same(pairs, (query[kept], other[kept], distance[kept]))
    assert 3 in too_many


@pytest.mark.parametrize("radius", [0, 2, 5])
@pytest.mark.parametrize("most", [1, 4, 20])
def test_crowded_hashes_are_those_of_many_clips(radius, most):
    rng = np.random.default_rng(most)
    hashes, clips = of_clips(1200, rng)
    hashes[::13] = flipped(np.full(len(hashes[::13]), 77, np.uint64), 1, rng)
    hashes[::17] = 0x8000000000000000
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= radius
    num_clips = [len(set(clips[row])) for row in near]
    expected = sorted({int(h) for h, num in zip(hashes, num_clips, strict=True) if num > most})
    found = crowded(hashes, clips, most, radius)
    assert found.tolist() == expected
    assert 0x8000000000000000 in expected
    shuffled = rng.permutation(len(hashes))
    assert np.array_equal(crowded(hashes[shuffled], clips[shuffled], most, radius), found)


def test_nothing_is_crowded_where_nothing_is():
    nothing = np.zeros(0, np.uint64)
    assert len(crowded(nothing, np.zeros(0, np.int32), 5, 2)) == 0
    assert len(crowded(np.array([1], np.uint64), np.array([0]), 0)) == 1


@pytest.mark.parametrize("num_hashes", [1, 1000, 10**6, 10**8])
@pytest.mark.parametrize("num_queries", [1, 10**4, 10**7])
def test_plan_misses_no_pattern_of_differing_bits(num_queries, num_hashes, monkeypatch):
    monkeypatch.setattr(search_plan, "_WORTH_A_SAMPLE_NS", np.inf)
    queries, database = (np.broadcast_to(np.uint64(0), size) for size in (num_queries, num_hashes))
    for radius in range(17):
        bands = plan(queries, database, radius).bands
        assert sum(band.flips + 1 for band in bands) > radius
        taken = 0
        for band in bands:
            assert band.shift + band.width <= 64
            assert taken & band.bits == 0, "two bands share a bit"
            taken |= band.bits


def test_masks_of_a_band_are_all_changes_of_few_bits():
    masks = search_plan.Band(shift=5, width=9, flips=3).masks()
    assert masks.tolist() == [value for value in range(2**9) if value.bit_count() <= 3]


def test_mixing_moves_every_bit_to_a_place_of_its_own():
    assert sorted(BIT_ORDER) == list(range(64))
    ones = np.uint64(1) << np.arange(64, dtype=np.uint64)
    assert mixed(ones)[BIT_ORDER].tolist() == ones.tolist()
    one, other = np.random.default_rng(0).integers(0, 2**64, (2, 500), dtype=np.uint64)
    distance = np.bitwise_count(mixed(one) ^ mixed(other))
    assert np.array_equal(distance, np.bitwise_count(one ^ other))


def test_sides_are_sorted_by_the_bits_of_a_band():
    hashes = np.random.default_rng(1).integers(0, 2**64, 5000, dtype=np.uint64)
    with ThreadPoolExecutor(3) as pool:
        for band in (search_plan.Band(3, 13, 1), search_plan.Band(40, 5, 1), search_plan.Band(0, 0, 1)):
            alone, together = (search_buckets.sort(hashes, band, pool, threads) for threads in (1, 3))
            value = (mixed(hashes)[alone.ids] >> np.uint64(band.shift)) & np.uint64(2**band.width - 1)
            assert np.array_equal(value, np.sort(value))
            assert np.array_equal(alone.start, np.searchsorted(value, np.arange(2**band.width + 1)))
            for part in ("ids", "start", "hashes"):
                assert np.array_equal(getattr(alone, part), getattr(together, part))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 65}, "radius is 65"),
        ({"queries": np.zeros(3, np.int64)}, "hashes are int64"),
        ({"database": np.zeros((3, 2), np.uint64)}, "expected uint64"),
        ({"query_clips": np.zeros(3, np.int32)}, "expected both or neither"),
        ({"query_clips": np.zeros(2), "clips": np.zeros(4)}, "3 hashes have 2 clips"),
        ({"database": None, "most": 5}, "not for a self join"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    sides = {"queries": np.zeros(3, np.uint64), "database": np.zeros(4, np.uint64)}
    with pytest.raises(ValueError, match=message):
        radius_pairs(**({"radius": 8} | sides | options))


def test_search_compiles_where_no_folder_can_keep_the_code(monkeypatch):
    from curation.matching import search_kernels

    def nowhere(*_: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.caching.CacheImpl.__init__", nowhere)
    add = search_kernels.compiled(lambda one, other: one + other)
    assert add(2, 3) == 5


def test_numba_is_loaded_by_the_first_search_and_not_before():
    code = (
        "import sys, numpy as np\n"
        "from curation.matching import clusters, search\n"
        "print('numba' in sys.modules)\n"
        "search.radius_pairs(np.zeros(1, np.uint64), np.zeros(1, np.uint64), 0)\n"
        "print('numba' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


def test_hashes_may_be_read_only_or_every_second_of_an_array():
    queries, database = planted(8)
    for array in (queries, database):
        array.flags.writeable = False
    expected = brute_force(queries[::2], database[::3], 8)
    assert same(radius_pairs(queries[::2], database[::3], 8), expected)
    assert same(radius_pairs(queries, database, 8), brute_force(queries, database, 8))
