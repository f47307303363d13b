"""The loops of audio_candidates.py, compiled by numba.

All numbers that meet an item are uint64: numba turns a uint64 and an int64 into a float.
"""

import numpy as np

from curation.matching.search_kernels import compiled

KEY_BITS = 20  # of an item: those that say where to look; the others help to decide
STEP = 2  # frames between the items that are compared
WINDOWS = (15, 25, 50)  # frames on either side of where two items met
# Share of bits that differ, above which two sounds are taken for different, for each of WINDOWS.
DIFFERENT = (0.30, 0.34, 0.37)
_KEY = np.uint64((1 << KEY_BITS) - 1)


@compiled
def num_ones(word: np.uint64) -> np.uint64:
    """How many bits of a word are set, by adding ever wider groups of them."""
    twos, fours = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
    word = word - ((word >> np.uint64(1)) & twos)
    word = (word & fours) + ((word >> np.uint64(2)) & fours)
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.uint64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
def bucket_starts(items: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Where each key's items begin in the order of `sorted_by_key`; int64 (2 ** KEY_BITS + 1,)."""
    starts = np.zeros((1 << KEY_BITS) + 1, np.int64)
    for n in range(len(chosen)):
        starts[np.int64(np.uint64(items[chosen[n]]) & _KEY) + 1] += 1
    for key in range(1 << KEY_BITS):
        starts[key + 1] += starts[key]
    return starts


@compiled
def sorted_by_key(items: np.ndarray, chosen: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The chosen places, ordered by the keys of their items and then as they were; int32."""
    following = starts[:-1].copy()
    ordered = np.empty(len(chosen), np.int32)
    for n in range(len(chosen)):
        key = np.int64(np.uint64(items[chosen[n]]) & _KEY)
        ordered[following[key]] = chosen[n]
        following[key] += 1
    return ordered


@compiled
def difference(
    ours: np.ndarray, theirs: np.ndarray, i: int, j: int, windows: np.ndarray, different: np.ndarray
) -> float:
    """How different two stretches are around where they met: 0 is equal, 1 is what DIFFERENT says.

    Args:
        ours, theirs: items of one clip each, one a frame, 0 where nothing moves.
    """
    best, bits, compared, reach = 9.0, np.uint64(0), 0, -STEP
    for w in range(len(windows)):
        while reach + STEP <= windows[w]:
            reach += STEP
            for side in range(2 if reach else 1):
                a = i + reach if side == 0 else i - reach
                b = j + reach if side == 0 else j - reach
                if a < 0 or b < 0 or a >= len(ours) or b >= len(theirs):
                    continue
                x, y = np.uint64(ours[a]), np.uint64(theirs[b])
                if x == 0 or y == 0:
                    continue
                bits += num_ones(x ^ y)
                compared += 1
        # more than half of the narrowest window must be there
        if compared * STEP > windows[w] * 1.2:
            best = min(best, np.float64(bits) / (32.0 * compared) / different[w])
        if w == 0 and best > 1.6:  # chance leaves it near 1.67
            break
    return best


@compiled
def doubled(values: np.ndarray) -> np.ndarray:
    """The values, and as much room again."""
    wider = np.empty(2 * len(values), values.dtype)
    wider[: len(values)] = values
    return wider


@compiled
def look_up(
    ours: np.ndarray, our_starts: np.ndarray, our_clips: np.ndarray,
    theirs: np.ndarray, their_starts: np.ndarray, their_clips: np.ndarray,
    ordered: np.ndarray, buckets: np.ndarray, masks: np.ndarray, rules: np.ndarray, limit: float,
    windows: np.ndarray, different: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """For each of our clips the `most` least different of theirs, in the order of their places.

    Gives places of our clips and of theirs, offsets in frames, and how different they are.

    Args:
        our_starts, their_starts: where each clip's items begin, and the end of the last.
        our_clips, their_clips: the number of each clip; those of one number are not compared.
        masks: uint64, the bits in which keys may differ.
        rules: frames from one look-up to the next, `most`.
    """
    every, most = rules[0], rules[1]
    size, room = 0, 1024
    out_row, out_clip = np.empty(room, np.int32), np.empty(room, np.int32)
    out_offset, out_difference = np.empty(room, np.int32), np.empty(room, np.float32)
    best = np.full(len(their_clips), 9.0, np.float32)
    offset = np.zeros(len(their_clips), np.int32)
    met = np.empty(len(their_clips), np.int32)
    clip_of = np.empty(their_starts[-1], np.int32)
    for c in range(len(their_clips)):
        clip_of[their_starts[c] : their_starts[c + 1]] = c
    for q in range(len(our_clips)):
        mine = ours[our_starts[q] : our_starts[q + 1]]
        num_met = 0
        for i in range(0, len(mine), every):
            if mine[i] == 0:
                continue
            for mask in masks:
                key = (np.uint64(mine[i]) & _KEY) ^ mask
                begin, end = buckets[np.int64(key)], buckets[np.int64(key) + 1]
                for n in range(begin, end):
                    place = ordered[n]
                    c = clip_of[place]
                    if their_clips[c] == our_clips[q]:
                        continue
                    yours = theirs[their_starts[c] : their_starts[c + 1]]
                    j = place - their_starts[c]
                    found = difference(mine, yours, i, j, windows, different)
                    if found > limit:
                        continue
                    if best[c] > 8.0:
                        met[num_met] = c
                        num_met += 1
                    if found < best[c]:
                        best[c] = found
                        offset[c] = j - i
        chosen = met[:num_met].copy()
        if num_met > most:
            chosen.sort()
            chosen = chosen[np.argsort(best[chosen], kind="mergesort")][:most]
        chosen.sort()
        while size + len(chosen) > room:
            out_row, out_clip = doubled(out_row), doubled(out_clip)
            out_offset, out_difference = doubled(out_offset), doubled(out_difference)
            room *= 2
        for n in range(len(chosen)):
            out_row[size] = q
            out_clip[size] = chosen[n]
            out_offset[size] = offset[chosen[n]]
            out_difference[size] = best[chosen[n]]
            size += 1
        for n in range(num_met):
            best[met[n]] = 9.0
    return out_row[:size], out_clip[:size], out_offset[:size], out_difference[:size]
