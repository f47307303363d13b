"""All pairs of 64-bit hashes within a Hamming radius: exact, on one machine, in bounded memory.

A join, not a series of look-ups: for one band of bits after the other (search_plan.py says which) both
sides are sorted by the bits of the band, and the queries of a bucket are compared with the hashes of the
buckets that differ in few of these bits. Neighbouring buckets of one side meet neighbouring buckets of
the other, so what is read lies in the cache, and eight hashes are compared in one step. A pair that
several bands find belongs to the first of them, which can be told from the pair alone.

Order: by query, then by position in the database, whatever the number of threads and the blocks.
Positions are uint32, so a side has fewer than 2**32 hashes. Distances are uint8. The queries are taken
in blocks, and pairs come block by block; besides the two sides a search holds 24 bytes for each hash of
the database and of one block of queries, and the pairs of one block.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import log2
from typing import Any, Self

import numpy as np

from curation.matching.search_buckets import TASKS, Buckets, in_slices, sort
from curation.matching.search_plan import Band, Plan, plan

_SORT_SHARE = 20  # a block is large enough that sorting the database is one twentieth of its time
_CACHED_HASHES = 1 << 18  # 2 MiB: a share of the third-level cache; from 2**15 to 2**19 hardly differ
_NOBODY = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of hashes, ordered by query, then by position in the database."""

    query: np.ndarray  # uint32, positions
    database: np.ndarray  # uint32, positions
    distance: np.ndarray  # uint8
    crowded: np.ndarray  # uint32: queries with more pairs than were asked for; they have none here

    def __len__(self) -> int:
        return len(self.query)

    @classmethod
    def joined(cls, blocks: list[Self]) -> Self:
        """The pairs of blocks that follow each other."""
        return cls(*(np.concatenate([getattr(block, name) for block in blocks])
                     for name in ("query", "database", "distance", "crowded")))  # fmt: skip


def radius_pairs(queries: np.ndarray, database: np.ndarray | None, radius: int, **options: Any) -> Pairs:
    """All pairs at most `radius` bits apart; arguments and order are those of radius_blocks."""
    return Pairs.joined(list(radius_blocks(queries, database, radius, **options)))


def radius_blocks(
    queries: np.ndarray,
    database: np.ndarray | None,
    radius: int,
    *,
    query_clips: np.ndarray | None = None,
    clips: np.ndarray | None = None,
    most: int | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Pairs]:
    """All pairs at most `radius` bits apart, block by block of the queries; at least one block.

    Args:
        queries, database: uint64 hashes. Without a database the queries are compared with each other,
            and every pair comes once, the earlier one as the query.
        radius: 0 to 64, inclusive.
        query_clips, clips: integers that say whose hashes these are; pairs of one clip are left out.
            A self join takes query_clips only.
        most: a query with more pairs gets none, and is named in `crowded`; this is what bounds the time
            where one hash is everywhere. Not for self joins: use `crowded()` first.
        threads: how many work at a time.
        progress: called with the number of queries done and of all.
    """
    if not 0 <= radius <= 64:
        raise ValueError(f"radius is {radius}, expected 0 to 64 bits")
    search = _Search.of(queries, database, radius, query_clips, clips, most)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        size = search.block_size()
        todo = [(begin, min(begin + size, len(queries))) for begin in range(0, len(queries), size)]
        yield from [] if todo else [search.block(0, 0, pool, threads)]
        todo.reverse()
        while todo:
            begin, end = todo.pop()
            try:
                yield search.block(begin, end, pool, threads)
            except _TooManyPairs:
                middle = (begin + end) // 2
                todo += [(middle, end), (begin, middle)]
                continue
            if progress:
                progress(end, len(queries))


def hits(
    query_hash: np.ndarray,
    query_clip: np.ndarray,
    database_hash: np.ndarray,
    database_clip: np.ndarray,
    radius: int,
    **options: Any,
) -> Iterator[tuple[Pairs, np.ndarray, np.ndarray]]:
    """Blocks of pairs of hashes of different clips, with the clips of both sides.

    Clips are numbered alike on both sides; the options are those of radius_blocks.
    """
    options |= {"query_clips": query_clip, "clips": database_clip}
    for pairs in radius_blocks(query_hash, database_hash, radius, **options):
        yield pairs, query_clip[pairs.query], database_clip[pairs.database]


class _TooManyPairs(Exception):
    """A block of queries has more pairs than a block may have."""


@dataclass(frozen=True, slots=True)
class _Search:
    """What the blocks of one search share."""

    queries: np.ndarray
    database: np.ndarray | None
    query_clips: np.ndarray
    clips: np.ndarray
    radius: int
    most: int
    plan: Plan

    @classmethod
    def of(
        cls,
        queries: np.ndarray,
        database: np.ndarray | None,
        radius: int,
        query_clips: np.ndarray | None,
        clips: np.ndarray | None,
        most: int | None,
    ) -> Self:
        """The search for these hashes, checked and planned."""
        if database is None:
            if most is not None:
                raise ValueError("most is not for a self join, expected None; see crowded()")
            clips = query_clips
        if (query_clips is None) != (clips is None):
            raise ValueError("one side has clips, expected both or neither")
        sides = [(queries, query_clips), (queries if database is None else database, clips)]
        for hashes, owners in sides:
            if hashes.dtype != np.uint64 or hashes.ndim != 1 or len(hashes) >= 2**32:
                raise ValueError(f"hashes are {hashes.dtype} {hashes.shape}, expected uint64 (n,)")
            if owners is not None and len(owners) != len(hashes):
                raise ValueError(f"{len(hashes)} hashes have {len(owners)} clips, expected one each")
        mine, theirs = (_NOBODY if owners is None else np.asarray(owners) for _, owners in sides)
        division = plan(queries, sides[1][0], radius)
        return cls(queries, database, mine, theirs, radius, -1 if most is None else most, division)

    def block_size(self) -> int:
        """Queries in a block: sorting the database once more should hardly be felt."""
        size = max(1 << 16, int(_SORT_SHARE * self.plan.sort_ns / self.plan.query_ns))
        if self.database is None:
            size = min(size, max(1 << 16, len(self.queries) // 16))  # later blocks meet fewer hashes
        return size

    def block(self, begin: int, end: int, pool: ThreadPoolExecutor, threads: int) -> Pairs:
        """The pairs of the queries [begin, end)."""
        from curation.matching.search_kernels import join

        own = self.database is None
        database = self.queries[begin:] if self.database is None else self.database
        query_clips, clips = self.query_clips[begin:end], self.clips[begin if own else 0 :]
        bands = self.plan.bands
        bits = np.array([band.bits for band in bands], dtype=np.uint64)
        flips = np.array([band.flips for band in bands], dtype=np.uint64)
        found_of = np.zeros(end - begin if self.most >= 0 else 0, dtype=np.uint32)
        room = _Room(_most_pairs(len(database)) if end - begin > 1 else None)
        for number, band in enumerate(bands):
            right = sort(database, band, pool, threads)
            left = sort(self.queries[begin:end], band, pool, threads)
            masks, near_bits = band.masks(), _near_bits(len(database), band)
            rules = np.array([self.radius, number, self.most, own, len(clips) > 0], dtype=np.int64)

            def work(first: int, last: int, band: Band = band, rules: np.ndarray = rules,
                     masks: np.ndarray = masks, near_bits: int = near_bits,
                     left: Buckets = left, right: Buckets = right) -> None:  # fmt: skip
                room.fill(first, last, lambda at, out: join(
                    at, last, band.shift, near_bits, masks, right.start,
                    left.hashes, left.ids, right.hashes, right.ids,
                    rules, bits, flips, query_clips, clips, found_of, out,
                ))  # fmt: skip

            in_slices(work, end - begin, pool, threads, TASKS)
            del work, left, right  # before the next band is sorted
        return self._pairs(room.keys(), found_of, begin, database)

    def _pairs(self, keys: np.ndarray, found_of: np.ndarray, begin: int, database: np.ndarray) -> Pairs:
        query = (keys >> np.uint64(32)).astype(np.uint32)
        crowded = np.flatnonzero(found_of > self.most) if self.most >= 0 else np.zeros(0, dtype=np.int64)
        if len(crowded):
            kept = found_of[query] <= self.most
            keys, query = keys[kept], query[kept]
        other = keys.astype(np.uint32)  # the low half
        del keys
        distance = np.empty(len(query), dtype=np.uint8)
        for at in range(0, len(query), 1 << 20):
            part = slice(at, at + (1 << 20))
            differing = self.queries[begin:][query[part]] ^ database[other[part]]
            distance[part] = np.bitwise_count(differing)
        query += np.uint32(begin)
        if self.database is None:
            other += np.uint32(begin)
        return Pairs(query, other, distance, (crowded + begin).astype(np.uint32))


class _Room:
    """Where the tasks of a block put their pairs."""

    def __init__(self, most_pairs: int | None) -> None:
        self._chunks: list[np.ndarray] = []
        self._most_pairs = most_pairs

    def fill(self, first: int, last: int, join: Callable[[int, np.ndarray], tuple[int, int]]) -> None:
        """Call join(at, out) until the queries up to `last` are done, and keep what it writes."""
        out = np.empty(1 << 16, dtype=np.uint64)
        while first < last:
            at, num_pairs = join(first, out)
            if num_pairs:
                self._chunks.append(out[:num_pairs].copy())
            if self._most_pairs is not None and sum(map(len, self._chunks)) > self._most_pairs:
                raise _TooManyPairs
            if at == first:  # one run of queries has more pairs than there is room for
                out = np.empty(2 * len(out), dtype=np.uint64)
            first = at

    def keys(self) -> np.ndarray:
        """All pairs, query position in the high half, ascending."""
        keys = np.concatenate([np.zeros(0, dtype=np.uint64), *self._chunks])
        self._chunks.clear()
        keys.sort()
        return keys


def _most_pairs(num_hashes: int) -> int:
    """A block of queries with more pairs is taken in halves: pairs take no more room than sorting."""
    return max(1 << 22, num_hashes)


def _near_bits(num_hashes: int, band: Band) -> int:
    """How many bits of a band's value change within a stretch of hashes that fits the cache."""
    per_bucket = max(1.0, num_hashes / 2.0**band.width)
    return max(0, min(band.width, int(log2(_CACHED_HASHES / per_bucket))))


def crowded(hashes: np.ndarray, clips: np.ndarray, most: int, radius: int = 0) -> np.ndarray:
    """The hashes (uint64, ascending) that more than `most` clips have, or have within a radius.

    Black frames, title cards and the like: left in a search they pair everything with everything.
    """
    order = np.lexsort((clips, hashes))
    hashes, clips = hashes[order], np.asarray(clips)[order]
    new_hash = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
    once = new_hash | np.append(True, clips[1:] != clips[:-1])[: len(hashes)]
    hashes, clips, new_hash = hashes[once], clips[once], new_hash[once]
    first = np.flatnonzero(new_hash)
    distinct = hashes[first]
    is_crowded = np.diff(np.append(first, len(hashes))) > most
    if radius == 0 or not len(hashes):
        return distinct[is_crowded]
    # Whoever is near to one of those is near to as many clips.
    for block in radius_blocks(distinct, distinct[is_crowded], radius, most=0):
        is_crowded[block.crowded] = True
    rest = np.flatnonzero(~is_crowded)
    # With more pairs than that, a hash has more than `most` clips, whatever clips they are.
    _, numbers, num_hashes = np.unique(clips, return_inverse=True, return_counts=True)
    numbers, enough = numbers.astype(np.uint64), most * int(num_hashes.max())
    for block in radius_blocks(distinct[rest], hashes, radius, most=enough):
        is_crowded[rest[block.crowded]] = True
        near = (block.query.astype(np.uint64) << np.uint64(32)) | numbers[block.database]
        queries, num_clips = np.unique(np.unique(near) >> np.uint64(32), return_counts=True)
        is_crowded[rest[queries[num_clips > most]]] = True
    return distinct[is_crowded]
