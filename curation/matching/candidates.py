"""Which pairs of clips are worth aligning: those with frames or sounds that look up each other.

Frames meet by the Hamming distance of their hashes, each in several views (media/video_hash.py): any
view of one clip with a base view of the other. Hashes that very many clips have (title cards, black) are
left out; a clip of which nothing else is left is still found by its sound.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from curation.matching.align_video import Hit
from curation.matching.prints import Prints
from curation.matching.search import crowded, hits
from curation.media.video_hash import BASE_VIEWS, VIEWS

VERSION = "candidates/2"  # raised whenever a number or a rule here changes
# Bits; hashes are half ones, so that distances are even. Source: tests/benchmarks/README.md, "Radius"
RADIUS = 12
NEAR = 10  # one pair of frames as near as this is enough …
FAR_HITS = 6  # … or so many pairs of frames within the radius
CROWDED_CLIPS = 256  # a hash that more clips have says nothing
_MOST_HITS = 64  # of a pair, those with the nearest hashes
_OTHER_VIEWS = tuple(view for view in range(len(VIEWS)) if view not in BASE_VIEWS)

Pair = tuple[int, int]  # numbers of the held-out clip and of the other


def stop_list(prints: Prints) -> np.ndarray:
    """Hashes of base views that too many clips have; uint64, ascending."""
    base = prints.frames(BASE_VIEWS)
    return crowded(prints.frame_hash[base], prints.frame_clip[base], CROWDED_CLIPS)


def frame_candidates(
    heldout: Prints,
    train: Prints,
    *,
    stopped: np.ndarray,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Pair, list[Hit]]:
    """Pairs of clips with frames whose hashes meet, and these, the nearest first; no clip with itself.

    Whether a pair is here follows from its two clips and `stopped` alone.
    """
    place = {key: number for number, key in enumerate(heldout.keys)}
    alike = np.array(
        [place.get(key, len(place) + n) for n, key in enumerate(train.keys)], np.int32
    )  # numbers of the training clips, of those that are held out too the same
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    # Base against base is searched once; every other view of one side against the base of the other.
    for ours, theirs in ((None, BASE_VIEWS), (BASE_VIEWS, _OTHER_VIEWS)):
        mine = heldout.frames(ours, without=stopped)
        yours = train.frames(theirs, without=stopped)
        if not len(mine) or not len(yours):
            continue
        blocks = hits(
            heldout.frame_hash[mine],
            heldout.frame_clip[mine],
            train.frame_hash[yours],
            alike[train.frame_clip[yours]],
            RADIUS,
            threads=threads,
            progress=progress,
        )
        found += [(mine[pairs.query], yours[pairs.database], pairs.distance) for pairs, _, _ in blocks]
    if not found:
        return {}
    frames, theirs_, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    return _by_pair(heldout, train, frames, theirs_, distance)


def _by_pair(
    heldout: Prints, train: Prints, mine: np.ndarray, yours: np.ndarray, distance: np.ndarray
) -> dict[Pair, list[Hit]]:
    """The nearest hits of each pair of clips that has enough of them."""
    heldout_clip, train_clip = heldout.frame_clip[mine], train.frame_clip[yours]
    order = np.lexsort((yours, mine, distance, train_clip, heldout_clip))
    starts = _starts(heldout_clip[order], train_clip[order])
    found: dict[Pair, list[Hit]] = {}
    for begin, end in pairwise([*starts, len(order)]):
        if distance[order[begin]] > NEAR and end - begin < FAR_HITS:
            continue
        chosen = order[begin : min(end, begin + _MOST_HITS)]
        found[int(heldout_clip[chosen[0]]), int(train_clip[chosen[0]])] = [
            Hit(
                heldout_ms=int(heldout.frame_ms[mine[k]]),
                train_ms=int(train.frame_ms[yours[k]]),
                heldout_view=int(heldout.frame_view[mine[k]]),
                train_view=int(train.frame_view[yours[k]]),
                distance=int(distance[k]),
            )
            for k in chosen
        ]
    return found


def _starts(first: np.ndarray, second: np.ndarray) -> list[int]:
    """Where a new pair begins, in pairs that are sorted."""
    new = np.ones(len(first), bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return [int(k) for k in np.flatnonzero(new)]
