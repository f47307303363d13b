"""The radius search, measured: brute force, faiss and ours, and the whole way; a part of bench.py.

    python tests/benchmarks/bench_search.py rates --size 1e7 --queries 1e6 --radius 8
    python tests/benchmarks/bench_search.py way

Every call is a process of its own, so that its peak memory is its own; it prints one JSON document.
Times of one core are seconds of CPU, which bear a busy machine better. The hashes are made up as real
ones lie: twenty frames to a clip, drifting, one clip in ten standing still, one in five a variant of one
of 5,000 scenes that occur again and again, and the bit of the mean brightness always one. A twentieth of
the queries are frames of the database with 0 to 12 bits changed.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

PER_CLIP = 20
_BRIGHT = np.uint64(1 << 63)
MIB = 1024


def few_bits(num: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Words with 0 to `most` ones, uint64 (num,)."""
    words = np.zeros(num, dtype=np.uint64)
    ones = rng.integers(0, most + 1, num, dtype=np.uint8)
    for count in range(most):
        word = np.uint64(1) << rng.integers(0, 63, num, dtype=np.uint8).astype(np.uint64)
        words |= np.where(count < ones, word, np.uint64(0))
    return words


def frames_of_clips(num: int, seed: int) -> np.ndarray:
    """Hashes of the frames of clips, PER_CLIP each, uint64 (num,)."""
    rng = np.random.default_rng(seed)
    num_clips = -(-num // PER_CLIP)
    base = rng.integers(0, 2**63, num_clips, dtype=np.uint64) | _BRIGHT
    scenes = np.random.default_rng(99).integers(0, 2**63, 5000, dtype=np.uint64) | _BRIGHT
    common = np.flatnonzero(rng.random(num_clips) < 0.2)
    base[common] = scenes[rng.integers(0, 5000, len(common))] ^ few_bits(len(common), 12, rng)
    moves = rng.random(num_clips) < 0.9
    hashes = np.empty((num_clips, PER_CLIP), dtype=np.uint64)
    for frame in range(PER_CLIP):
        base = np.where(moves, base ^ few_bits(num_clips, 3, rng), base)
        hashes[:, frame] = base
    return hashes.ravel()[:num]


def planted(queries: np.ndarray, database: np.ndarray, seed: int) -> np.ndarray:
    """Make a twentieth of the queries copies of frames; the positions of these frames, by query / 20."""
    rng = np.random.default_rng(seed)
    mine = np.arange(0, len(queries), 20)
    theirs = rng.integers(0, len(database), len(mine))
    queries[mine] = database[theirs] ^ few_bits(len(mine), 12, rng)
    return theirs


def cpu_s(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB, 1)


def brute_force() -> dict[str, Callable[[np.ndarray, np.ndarray, int], int]]:
    """Counts of the pairs within a radius by comparing all: as one writes it, and as we compare."""
    import numba

    from curation.matching.search_kernels import LANES, near, popcount

    @numba.njit(nogil=True)
    def plain(queries: np.ndarray, database: np.ndarray, radius: int) -> int:
        found, limit = 0, np.uint64(radius)
        for tile in range(0, database.size, 2048):
            for q in range(queries.size):
                for i in range(tile, min(tile + 2048, database.size)):
                    found += popcount(queries[q] ^ database[i]) <= limit
        return found

    @numba.njit(nogil=True)
    def wide(queries: np.ndarray, database: np.ndarray, radius: int) -> int:
        found, limit = np.uint64(0), np.uint64(radius)
        for tile in range(0, database.size, 2048):
            for q in range(queries.size):
                for i in range(tile, min(tile + 2048, database.size), LANES):
                    found += popcount(near(database, i, queries[q], limit))
        return found

    return {"brute, plain loop": plain, "brute, eight at once": wide}


def faiss_index(kind: str, database: np.ndarray) -> Any:
    import faiss

    faiss.omp_set_num_threads(1)
    if kind == "flat":
        index = faiss.IndexBinaryFlat(64)
    else:
        hashes, bits, flips = (int(word) for word in kind.split("x"))
        index = faiss.IndexBinaryMultiHash(64, hashes, bits)
        index.nflip = flips
    index.add(database.view(np.uint8).reshape(-1, 8))
    return index


def rates(given: argparse.Namespace) -> dict[str, Any]:
    """Microseconds of CPU a query, by method, at one size and radius."""
    from curation.matching.search import radius_blocks, radius_pairs

    database = frames_of_clips(given.size, 1)
    queries = frames_of_clips(given.queries, 2)
    planted(queries, database, 3)
    radius_pairs(queries[:10], database[:100], given.radius)  # compile
    before = peak_mib()
    compiled = brute_force() if given.brute else {}
    few = queries[: given.brute]
    for function in compiled.values():
        function(few[:1], database[:16], given.radius)
    methods: dict[str, list[tuple[float, int]]] = {}
    for _ in range(given.repeats):
        seconds, found = cpu_s(
            lambda: sum(len(block) for block in radius_blocks(queries, database, given.radius))
        )
        methods.setdefault("ours", []).append((seconds / len(queries), found))
        for name, function in compiled.items():
            seconds, found = cpu_s(
                lambda f=function: int(f(few, database[: len(database) & -8], given.radius))
            )
            methods.setdefault(name, []).append((seconds / len(few), found))
    peak = peak_mib()
    agreed = len(radius_pairs(few, database, given.radius)) if given.brute else None
    asked = queries[: given.faiss_queries]
    expected = len(radius_pairs(asked, database, given.radius))
    results = {name: {"us_per_query": round(1e6 * min(s for s, _ in runs), 3), "pairs": runs[0][1]}
               for name, runs in methods.items()}  # fmt: skip
    results["ours"]["brute_pairs"] = agreed
    for kind in given.faiss.split(",") if given.faiss else []:
        build_s, index = cpu_s(lambda k=kind: faiss_index(k, database))
        seconds, answer = cpu_s(
            lambda i=index: i.range_search(asked.view(np.uint8).reshape(-1, 8), given.radius + 1)
        )
        results[f"faiss {kind}"] = {
            "us_per_query": round(1e6 * seconds / len(asked), 3), "build_s": round(build_s, 2),
            "recall": round(len(answer[1]) / max(1, expected), 5),
        }  # fmt: skip
        del index, answer
    return {"size": given.size, "queries": given.queries, "radius": given.radius, "methods": results,
            "pairs": expected, "before_mib": before, "peak_mib": peak}  # fmt: skip


def memory(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of one search, its two sides read from files."""
    from curation.matching.search import radius_blocks, radius_pairs

    radius_pairs(np.zeros(9, np.uint64), np.zeros(99, np.uint64), given.radius)  # compile
    before = peak_mib()
    database, queries = np.load(f"{given.work}/database.npy"), np.load(f"{given.work}/queries.npy")
    begun = time.perf_counter()
    seconds, found = cpu_s(
        lambda: sum(
            len(block) for block in radius_blocks(queries, database, given.radius, threads=given.threads)
        )
    )
    return {"size": len(database), "queries": len(queries), "radius": given.radius,
            "threads": given.threads, "cpu_s": round(seconds, 2),
            "wall_s": round(time.perf_counter() - begun, 2), "pairs": found,
            "us_per_query": round(1e6 * seconds / len(queries), 3),
            "before_mib": before, "peak_mib": peak_mib()}  # fmt: skip


def data(given: argparse.Namespace) -> dict[str, Any]:
    """Write the two sides that `memory` reads."""
    database, queries = frames_of_clips(given.size, 1), frames_of_clips(given.queries, 2)
    planted(queries, database, 3)
    np.save(f"{given.work}/database.npy", database)
    np.save(f"{given.work}/queries.npy", queries)
    return {}


def way(given: argparse.Namespace) -> dict[str, Any]:
    """VGGSound, test against train: 20 frames of 15 K clips in 6 views, of 184 K in 3."""
    from curation.matching.search import crowded, hits, radius_pairs

    test_clips, train_clips = 15_446, 183_730
    database = frames_of_clips(train_clips * PER_CLIP * 3, 1)
    queries = frames_of_clips(test_clips * PER_CLIP * 6, 2)
    theirs = planted(queries, database, 3)
    mine = np.arange(len(queries), dtype=np.int32) // (PER_CLIP * 6)
    others = test_clips + np.arange(len(database), dtype=np.int32) // (PER_CLIP * 3)
    radius_pairs(queries[:10], database[:100], given.radius)  # compile
    begun, begun_cpu = time.perf_counter(), time.process_time()
    stopped = crowded(database, others, 256)
    kept = np.flatnonzero(~np.isin(queries, stopped))
    base = np.flatnonzero(~np.isin(database, stopped))
    listed_s = time.perf_counter() - begun
    num_pairs, clip_pairs = 0, []
    found_of = np.zeros(len(queries), dtype=bool)
    sides = (queries[kept], mine[kept], database[base], others[base])
    for pairs, ours, yours in hits(*sides, given.radius, threads=2):
        num_pairs += len(pairs)
        clip_pairs.append(np.unique(ours.astype(np.int64) << 32 | yours))
        at = kept[pairs.query]
        is_copy = (at % 20 == 0) & (base[pairs.database] == theirs[at // 20])
        found_of[at[is_copy]] = True
    wall_s, seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
    distance = np.bitwise_count(queries[::20] ^ database[theirs])
    due = (
        (distance <= given.radius)
        & ~np.isin(queries[::20], stopped)
        & ~np.isin(database[theirs], stopped)
    )
    return {"radius": given.radius, "test_clips": test_clips, "train_clips": train_clips,
            "queries": len(queries), "size": len(database), "wall_s": round(wall_s, 1),
            "stop_list_wall_s": round(listed_s, 1), "cpu_s": round(seconds, 1), "pairs": num_pairs,
            "clip_pairs": len(np.unique(np.concatenate(clip_pairs))),
            "planted": int(due.sum()), "planted_found": int(found_of[::20][due].sum()),
            "peak_mib": peak_mib()}  # fmt: skip


def number(text: str) -> int:
    return int(float(text))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("rates", "memory", "data", "way"))
    parser.add_argument("--size", type=number, default=10**7)
    parser.add_argument("--queries", type=number, default=10**6)
    parser.add_argument("--radius", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--brute", type=number, default=0, help="queries to compare with everything")
    parser.add_argument("--faiss", default="", help="flat, or bands x bits x flips: 3x21x2")
    parser.add_argument("--faiss-queries", type=number, default=1000)
    parser.add_argument("--work", help="the folder of `data`")
    given = parser.parse_args()
    json.dump(globals()[given.what](given), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
