"""The loops of search.py, compiled by numba: sort by a band of bits, and compare what shares a bucket.

This module alone loads numba, which takes a third of a second; search.py imports it when a search
begins. Compiled code is kept where numba finds a writable folder (`NUMBA_CACHE_DIR`, `__pycache__`, the
user's cache) and compiled anew by every process where there is none.

All numbers that meet a hash are uint64: numba turns a uint64 and an int64 into a float.
"""
# numba calls intrinsics without their first parameter, and takes NumPy's integers for int.
# mypy: disable-error-code="arg-type, call-arg, return-value"

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

ir = cgutils.ir  # llvmlite's, which comes with numba
Function = TypeVar("Function", bound=Callable[..., Any])
LANES = 8  # hashes that one step compares; arrays to be scanned have as many spare entries at their end
_TILE = 2048  # hashes that fit the first-level cache, 16 KiB, beside the queries
_RUN = 256  # queries of one bucket that scan a tile in turn
_GROUP = 1 << 14  # queries that try the same far buckets one after the other
RADIUS, BAND, MOST, ONE_SET, OTHER_CLIPS = range(5)  # places in the rules of a join
_ONE = np.uint64(1)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def compiled(function: Function) -> Function:
    """The function as machine code that runs without the interpreter's lock."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return cast("Function", numba.njit(cache=True, **options)(function))
    except RuntimeError:  # numba found no folder that it may write to
        return cast("Function", numba.njit(**options)(function))


def built_in(function: Function) -> Function:
    """The function as instructions that it builds itself."""
    return cast("Function", intrinsic(function))


@built_in
def popcount(typingctx: Any, word: Any) -> Any:
    """Number of ones in a uint64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.uint64(types.uint64), generate


@built_in
def lowest(typingctx: Any, word: Any) -> Any:
    """Position of the lowest one in a uint64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@built_in
def near(typingctx: Any, hashes: Any, position: Any, query: Any, radius: Any) -> Any:
    """Which of the LANES hashes from a position lie within a radius of a query: one bit each.

    Written as vector instructions, because LLVM widens the counts of a plain loop and spends seven of
    eight steps on adding up zeros; processors without a vector popcount get LLVM's replacement.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        hashes, position, query, radius = values
        word, index = ir.IntType(64), ir.IntType(32)
        vector = ir.VectorType(word, LANES)
        unknown = ir.Constant(vector, ir.Undefined)

        def in_all_lanes(value: Any) -> Any:
            first = builder.insert_element(unknown, value, ir.Constant(index, 0))
            zeros = ir.Constant(ir.VectorType(index, LANES), [0] * LANES)
            return builder.shuffle_vector(first, unknown, zeros)

        data = context.make_array(signature.args[0])(context, builder, hashes).data
        address = builder.bitcast(builder.gep(data, [position]), vector.as_pointer())
        differing = builder.xor(builder.load(address, align=8), in_all_lanes(query))
        count = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector]), f"llvm.ctpop.v{LANES}i64"
        )
        within = builder.icmp_unsigned("<=", builder.call(count, [differing]), in_all_lanes(radius))
        return builder.zext(builder.bitcast(within, ir.IntType(LANES)), word)

    return types.uint64(hashes, types.intp, types.uint64, types.uint64), generate


@compiled
def mixed(word: int, tables: np.ndarray) -> int:
    """A hash with its bits in the order of the bands; tables (8, 256) has what each byte becomes."""
    result = np.uint64(0)
    for byte in range(8):
        result |= tables[byte, (word >> np.uint64(8 * byte)) & np.uint64(255)]
    return result


@compiled
def count_parts(hashes: np.ndarray, tables: np.ndarray, shift: int, counts: np.ndarray) -> None:
    """Add to counts how many hashes have each value in their (mixed) bits from shift on."""
    last = np.uint64(counts.size - 1)
    for i in range(hashes.size):
        counts[(mixed(hashes[i], tables) >> np.uint64(shift)) & last] += np.uint32(1)


@compiled
def scatter_parts(
    hashes: np.ndarray, first: int, tables: np.ndarray, shift: int, place: np.ndarray,
    to_hashes: np.ndarray, to_ids: np.ndarray,
) -> None:  # fmt: skip
    """Put mixed hashes and their numbers (from first on) where place says, which moves on."""
    last = np.uint64(place.size - 1)
    for i in range(hashes.size):
        word = mixed(hashes[i], tables)
        part = (word >> np.uint64(shift)) & last
        to = place[part]
        place[part] = to + np.uint32(1)
        to_hashes[to] = word
        to_ids[to] = np.uint32(first + i)


@compiled
def sort_part(
    hashes: np.ndarray, ids: np.ndarray, begin: int, end: int, shift: int, start: np.ndarray,
    to_hashes: np.ndarray, to_ids: np.ndarray,
) -> None:  # fmt: skip
    """Sort the stretch [begin, end), whose hashes share their high bits, by the bits from shift on.

    start: where each bucket begins; only the buckets of this part, and what it holds there is replaced.
    """
    last = np.uint64(start.size - 1)
    start[:] = np.uint32(0)
    for i in range(begin, end):
        start[(hashes[i] >> np.uint64(shift)) & last] += np.uint32(1)
    total = np.uint32(begin)
    for bucket in range(start.size):
        count = start[bucket]
        start[bucket] = total
        total += count
    for i in range(begin, end):
        bucket = (hashes[i] >> np.uint64(shift)) & last
        to = start[bucket]
        start[bucket] = to + np.uint32(1)
        to_hashes[to] = hashes[i]
        to_ids[to] = ids[i]
    # Each entry has moved on to where the next bucket begins.
    for bucket in range(start.size - 1, 0, -1):
        start[bucket] = start[bucket - 1]
    start[0] = np.uint32(begin)


@compiled
def is_first(differing: int, band: int, band_bits: np.ndarray, band_flips: np.ndarray) -> bool:
    """Whether no band before this one finds the pair too; differing: the bits that differ, mixed."""
    for earlier in range(band):  # noqa: SIM110 (numba compiles no generators)
        if popcount(differing & band_bits[earlier]) <= band_flips[earlier]:
            return False
    return True


@compiled
def next_near(hashes: np.ndarray, at: int, end: int, query: int, radius: int) -> int:
    """The first step of LANES hashes, from `at` on, that holds one within the radius; or end or more."""
    while at + 4 * LANES <= end:  # a test for each step alone would cost as much as the step
        some = near(hashes, at, query, radius) | near(hashes, at + LANES, query, radius)
        some |= near(hashes, at + 2 * LANES, query, radius)
        if some | near(hashes, at + 3 * LANES, query, radius) != 0:
            break
        at += 4 * LANES
    while at < end and near(hashes, at, query, radius) == 0:
        at += LANES
    return at


@compiled
def join_bucket(
    begin: int, end: int, low: int, high: int,
    query_hashes: np.ndarray, query_ids: np.ndarray, hashes: np.ndarray, ids: np.ndarray,
    rules: np.ndarray, band_bits: np.ndarray, band_flips: np.ndarray,
    query_clips: np.ndarray, clips: np.ndarray, found_of: np.ndarray, out: np.ndarray, num_out: int,
) -> int:  # fmt: skip
    """Write the pairs of the queries [begin, end) and the hashes [low, high); the new number of pairs.

    -1 where out is full. See join for the arguments.
    """
    radius = np.uint64(rules[RADIUS])
    for tile in range(low & -LANES, high, _TILE):
        tile_end = min(tile + _TILE, high)
        for q in range(begin, end):
            query = query_hashes[q]
            step = next_near(hashes, tile, tile_end, query, radius)
            while step < tile_end:
                lanes = near(hashes, step, query, radius)
                while lanes != 0:
                    at = step + np.int64(lowest(lanes))
                    lanes &= lanes - _ONE
                    if at < low or at >= high:  # a step begins and ends in other buckets
                        continue
                    query_id, other_id = query_ids[q], ids[at]
                    # Read from memory each time: as constants they would split the loop into many.
                    if rules[ONE_SET] != 0 and other_id <= query_id:
                        continue
                    if rules[OTHER_CLIPS] != 0 and query_clips[query_id] == clips[other_id]:
                        continue
                    if not is_first(query ^ hashes[at], rules[BAND], band_bits, band_flips):
                        continue
                    if num_out == out.size:
                        return -1
                    if rules[MOST] >= 0:
                        if found_of[query_id] > rules[MOST]:
                            continue
                        found_of[query_id] += np.uint32(1)
                        if found_of[query_id] > rules[MOST]:
                            continue
                    out[num_out] = (np.uint64(query_id) << _HALF) | np.uint64(other_id)
                    num_out += 1
                step = next_near(hashes, step + LANES, tile_end, query, radius)
    return num_out


@compiled
def same_bits(hashes: np.ndarray, begin: int, end: int, shift: int, mask: int) -> int:
    """The end of the hashes from begin on that have the bits of the first, from shift on."""
    if shift >= 64:
        return end
    at = begin + 1
    while at < end and ((hashes[at] ^ hashes[begin]) >> np.uint64(shift)) & mask == 0:
        at += 1
    return at


@compiled
def join_group(
    begin: int, end: int, shift: int, near_bits: int, masks: np.ndarray, start: np.ndarray,
    query_hashes: np.ndarray, query_ids: np.ndarray, hashes: np.ndarray, ids: np.ndarray,
    rules: np.ndarray, band_bits: np.ndarray, band_flips: np.ndarray,
    query_clips: np.ndarray, clips: np.ndarray, found_of: np.ndarray, out: np.ndarray, num_out: int,
) -> int:  # fmt: skip
    """Write the pairs of the queries [begin, end), whose buckets lie near each other; see join_bucket.

    Flips of far bits lead the whole group to another stretch of hashes, which is in the cache while the
    flips of near bits are tried there.
    """
    last = np.uint64(start.size - 2)
    mask = 0
    while mask < masks.size:
        mask_end = mask + 1
        while mask_end < masks.size and (masks[mask] ^ masks[mask_end]) >> np.uint64(near_bits) == 0:
            mask_end += 1
        run = begin
        while run < end:
            run_end = same_bits(query_hashes, run, min(end, run + _RUN), shift, last)
            bucket = (query_hashes[run] >> np.uint64(shift)) & last
            for k in range(mask, mask_end):
                other = bucket ^ masks[k]
                low, high = np.int64(start[other]), np.int64(start[other + _ONE])
                if low == high:
                    continue
                num_out = join_bucket(
                    run, run_end, low, high, query_hashes, query_ids, hashes, ids,
                    rules, band_bits, band_flips, query_clips, clips, found_of, out, num_out,
                )  # fmt: skip
                if num_out < 0:
                    return -1
            run = run_end
        mask = mask_end
    return num_out


@compiled
def join(
    begin: int, end: int, shift: int, near_bits: int, masks: np.ndarray, start: np.ndarray,
    query_hashes: np.ndarray, query_ids: np.ndarray, hashes: np.ndarray, ids: np.ndarray,
    rules: np.ndarray, band_bits: np.ndarray, band_flips: np.ndarray,
    query_clips: np.ndarray, clips: np.ndarray, found_of: np.ndarray, out: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Write the pairs that this band finds first; the query to go on from, and the number of pairs.

    Args:
        begin, end: which of the queries, which are sorted by the band's bits as the hashes are.
        shift, masks, start: the band's lowest bit, the flips of its bits that are tried, ascending, and
            where each bucket of hashes begins (its value counts from 0; the last entry is the end).
        near_bits: how many bits of a bucket's value a stretch of hashes that fits the cache spans.
        rules: int64 at RADIUS, BAND (number of this band), MOST (negative: any number; a query with more
            pairs gets no further ones), ONE_SET (1: ids are positions in one set, and only pairs with a
            later one are wanted), OTHER_CLIPS (1: pairs of one clip are left out).
        band_bits, band_flips: bits and greatest distance of every band.
        query_clips, clips: by id, for OTHER_CLIPS.
        found_of: pairs of every query so far, for MOST.
        out: query id in the high half, id of the other in the low.
    """
    far = np.uint64(start.size - 2) >> np.uint64(near_bits)
    num_out = 0
    while begin < end:
        group_end = same_bits(query_hashes, begin, min(end, begin + _GROUP), shift + near_bits, far)
        before = num_out
        num_out = join_group(
            begin, group_end, shift, near_bits, masks, start, query_hashes, query_ids, hashes, ids,
            rules, band_bits, band_flips, query_clips, clips, found_of, out, before,
        )  # fmt: skip
        if num_out < 0:
            # Nothing of an unfinished group stays: the caller makes room and goes on from it.
            if rules[MOST] >= 0:
                for pair in out[before:]:
                    found_of[pair >> _HALF] -= np.uint32(1)
            return begin, before
        begin = group_end
    return begin, num_out
