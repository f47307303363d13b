"""Hashes in the order of some of their bits, as a radius search compares them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from curation.matching.search_plan import Band, mixing_tables

_PARTS = 256  # the first of two passes
TASKS = 8  # for each thread: the last ones end at about one time


@dataclass(frozen=True, slots=True)
class Buckets:
    """One side of a search, sorted by the bits of a band."""

    hashes: np.ndarray  # uint64, mixed, with spare entries at the end
    ids: np.ndarray  # uint32, positions in the side
    start: np.ndarray  # uint32: where each value of the band begins, and the end


def in_slices(
    work: Callable[[int, int], None], size: int, pool: ThreadPoolExecutor, threads: int, tasks: int = 1
) -> None:
    """Call work(begin, end) for slices that make up [0, size), several at a time."""
    if threads <= 1:
        work(0, size)
        return
    edges = np.linspace(0, size, threads * tasks + 1).astype(int).tolist()
    running = [pool.submit(work, *edge) for edge in pairwise(edges)]
    try:
        for task in running:
            task.result()
    finally:
        for task in running:
            task.cancel()
        wait(running)


def in_steps(size: int) -> np.ndarray:
    """Room for hashes, uint64, that begins at a line of the cache and ends with whole steps."""
    from curation.matching.search_kernels import LANES

    room = np.empty(size + 2 * LANES, dtype=np.uint64)
    skipped = (-room.ctypes.data // room.itemsize) % LANES
    room = room[skipped : skipped + size + LANES]
    room[size:] = 0
    return room


def sort(hashes: np.ndarray, band: Band, pool: ThreadPoolExecutor, threads: int) -> Buckets:
    """The hashes by their bits in a band: into parts by the high bits, then each part by the others."""
    from curation.matching.search_kernels import count_parts, scatter_parts, sort_part

    size, tables = len(hashes), mixing_tables()
    high = min(band.width, _PARTS.bit_length() - 1)
    low = band.width - high
    # Threads take a slice each; within a part, slices follow each other.
    slices = max(1, threads)
    counts = np.zeros((slices, 1 << high), dtype=np.uint32)
    edges = np.linspace(0, size, slices + 1).astype(int).tolist()

    def count(first: int, last: int) -> None:
        for s in range(first, last):
            count_parts(hashes[edges[s] : edges[s + 1]], tables, band.shift + low, counts[s])

    in_slices(count, slices, pool, threads)
    ends = np.cumsum(counts.T.ravel()).reshape(1 << high, slices).T
    place = np.ascontiguousarray(ends - counts).astype(np.uint32)
    edge = np.append(place[0], np.uint32(size))
    parted, part_ids = in_steps(size), np.empty(size, dtype=np.uint32)

    def scatter(first: int, last: int) -> None:
        for s in range(first, last):
            piece = hashes[edges[s] : edges[s + 1]]
            scatter_parts(piece, edges[s], tables, band.shift + low, place[s], parted, part_ids)

    in_slices(scatter, slices, pool, threads)
    if low == 0:
        return Buckets(parted, part_ids, edge)
    start = np.empty((1 << band.width) + 1, dtype=np.uint32)
    start[-1] = size
    to_hashes, to_ids = in_steps(size), np.empty(size, dtype=np.uint32)

    def sort_parts(first: int, last: int) -> None:
        for part in range(first, last):
            sort_part(parted, part_ids, edge[part], edge[part + 1], band.shift,
                      start[part << low : (part + 1) << low], to_hashes, to_ids)  # fmt: skip

    in_slices(sort_parts, 1 << high, pool, threads, TASKS)
    return Buckets(to_hashes, to_ids, start)
