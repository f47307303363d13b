"""Which pairs of clips are worth aligning by their sound: those whose items look up each other.

An item is 32 signs of how a clip sounds at a moment (media/audio_hash.py). Where 20 of them are equal in
two clips, or all but one or two of these, the items a second or more to either side are compared as
well, all 32 bits of them; most meetings by chance end there, after sixteen steps. What remains are
pairs with an offset, the least different first, `most` for each held-out clip. Keys that very many
moments have are passed over, see `sound_stop_list`.

The more clips there are, the less is looked up: of two million against each other no longer every moment
nor keys that differ.

Who looks in some of the clips at a time gets what all at once would give: with `effort_for` and
`stopped` of all, whether a pair is found depends on its two clips alone; `most_alike` counts over all.

The clips to look in are indexed in parts of `_PART` items, so that the index does not grow with them.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from curation.media.audio_hash import FRAMES_PER_S

VERSION = "sound-candidates/2"  # of which pairs are found
MOST = 50  # pairs a held-out clip; Source: tests/benchmarks, "Sound"
_PART = 1 << 26
_BATCH = 1 << 12  # held-out clips that one thread takes at a time
_CROWDED = 4096  # items of one key, above which it says nothing
_CROWDED_SHARE = 64  # or so many times the mean, whichever is more
_MEETINGS = 4e10  # that may be looked at; beyond, not every moment is looked up
# Clips to look in, up to which: frames from one indexed item to the next, bits in which keys may differ,
# how different pairs may be.
_EFFORT: tuple[tuple[int, int, int, float], ...] = (
    (20_000, 1, 2, 1.1), (1 << 62, 2, 1, 1.05),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The items of many clips, as `AudioPrint` has them: clip after clip, frame after frame."""

    clip: np.ndarray  # int32 (n,), number of the clip, never falling
    ms: np.ndarray  # int32 (n,)
    item: np.ndarray  # uint32 (n,), 0 where nothing moves


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundPairs:
    """Pairs worth aligning, ordered by both numbers."""

    heldout_clip: np.ndarray  # int32 (n,)
    train_clip: np.ndarray  # int32 (n,)
    offset_s: np.ndarray  # float64 (n,), time in the train clip minus time in the held-out clip
    difference: np.ndarray  # float32 (n,), 0 equal, about 1.5 chance

    def __len__(self) -> int:
        return len(self.heldout_clip)


def audio_candidates(
    heldout: Items,
    train: Items,
    *,
    effort_for: int | None = None,
    stopped: np.ndarray | None = None,
    most: int | None = MOST,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SoundPairs:
    """Pairs of clips that may share sound; a clip is no pair with itself.

    The result is the same for any number of threads. If `heldout` is `train`, each pair comes once, the
    smaller number first.

    Args:
        effort_for: clips to look in in all, where `train` has some of them; else those of `train`.
        stopped: keys to pass over, the `sound_stop_list` of all clips; without it that of `train`.
        most: pairs of one held-out clip, those that differ least. Which these are depends on the other
            clips of `train`: of several calls more remain than of one, and `most_alike` takes from
            them what one call would give. None: all pairs; for large sets that is too many to align.
        progress: called with held-out clips done and all of them, times the parts of the index.
    """
    ours, theirs = _Clips.of(heldout), _Clips.of(train)
    parts = theirs.parts()
    effort = _Effort.of(len(theirs.numbers) if effort_for is None else effort_for, ours)
    passed_over = _table(sound_stop_list([train.item]) if stopped is None else stopped)
    found, done = [], 0
    for part in parts:
        index = _Index.of(part, effort.stride, passed_over)
        batches = [ours.cut(n, n + _BATCH) for n in range(0, len(ours.numbers), _BATCH)]
        with ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(_look_up, batch, part, index, effort, most) for batch in batches]
            for batch, job in zip(batches, jobs, strict=True):
                found.append(job.result())
                done += len(batch.numbers)
                if progress is not None:
                    progress(done, len(ours.numbers) * len(parts))
    return _merged(found, most, mirrored=heldout is train)


def sound_stop_list(items: Iterable[np.ndarray]) -> np.ndarray:
    """Keys of items that so many moments have that they say nothing; uint32, rising.

    Args:
        items: `Items.item` of all clips to look in, in one piece or in several.
    """
    from curation.matching.audio_kernels import KEY_BITS

    counts = np.zeros(1 << KEY_BITS, np.int64)
    for some in items:
        moving = some[some != 0]
        counts += np.bincount(moving & np.uint32((1 << KEY_BITS) - 1), minlength=1 << KEY_BITS)
    crowded = max(_CROWDED, _CROWDED_SHARE * int(counts.sum()) >> KEY_BITS)
    return np.flatnonzero(counts > crowded).astype(np.uint32)


def most_alike(found: Sequence[SoundPairs], most: int | None = MOST) -> SoundPairs:
    """The least different pairs of each held-out clip over all calls, each with other train clips."""
    return _merged(list(found), most, mirrored=False)


def _table(keys: np.ndarray) -> np.ndarray:
    """Whether a key is one of these; bool (2 ** KEY_BITS,)."""
    from curation.matching.audio_kernels import KEY_BITS

    table = np.zeros(1 << KEY_BITS, np.bool_)
    table[keys] = True
    return table


@dataclass(frozen=True, slots=True)
class _Clips:
    """Items, and where each clip's begin."""

    item: np.ndarray
    starts: np.ndarray  # int64 (clips + 1,)
    numbers: np.ndarray  # int32 (clips,)
    first_ms: np.ndarray  # int64 (clips,)

    @classmethod
    def of(cls, items: Items) -> "_Clips":
        clip = np.asarray(items.clip)
        begins = np.flatnonzero(np.diff(clip, prepend=clip[:1] - 1))
        return cls(
            np.ascontiguousarray(items.item, np.uint32),
            np.append(begins, len(clip)).astype(np.int64),
            clip[begins].astype(np.int32),
            np.asarray(items.ms)[begins].astype(np.int64),
        )

    def cut(self, begin: int, end: int) -> "_Clips":
        """Some of the clips."""
        starts = self.starts[begin : min(end, len(self.numbers)) + 1]
        return _Clips(
            self.item[starts[0] : starts[-1]],
            starts - starts[0],
            self.numbers[begin:end],
            self.first_ms[begin:end],
        )

    def parts(self) -> list["_Clips"]:
        """All clips, in parts of about _PART items."""
        edges = [0]
        while edges[-1] < len(self.numbers):
            until = int(np.searchsorted(self.starts, self.starts[edges[-1]] + _PART, side="right")) - 1
            edges.append(max(edges[-1] + 1, until))
        return [self.cut(a, b) for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True, slots=True)
class _Effort:
    """How much is looked up, so that the meetings stay bearable."""

    every: int  # frames from one look-up to the next
    stride: int  # frames from one indexed item to the next
    flips: int  # bits in which keys may differ
    limit: float  # how different pairs may be

    @classmethod
    def of(cls, num_clips: int, ours: _Clips) -> "_Effort":
        """For so many clips to look in; they are taken to be as long as ours."""
        from curation.matching.audio_kernels import KEY_BITS

        num_ours = len(ours.item)
        num_theirs = num_clips * num_ours / max(1, len(ours.numbers))
        _, stride, flips, limit = next(effort for effort in _EFFORT if num_clips <= effort[0])
        # keys are not spread evenly: so many more than chance would have it
        meetings = 4.0 * num_ours * (num_theirs / stride) / (1 << KEY_BITS)
        every = max(1, int(meetings * len(_masks(flips)) / _MEETINGS))
        if every > 4:
            flips = 0
            every = max(4, int(meetings / _MEETINGS))
        return cls(every, stride, flips, limit)


def _masks(flips: int) -> np.ndarray:
    """uint64 with up to so many of KEY_BITS bits set."""
    from curation.matching.audio_kernels import KEY_BITS

    bits = [1 << n for n in range(KEY_BITS)]
    masks = [sum(some) for n in range(flips + 1) for some in itertools.combinations(bits, n)]
    return np.array(masks, np.uint64)


@dataclass(frozen=True, slots=True)
class _Index:
    """Places of a part's items by key."""

    ordered: np.ndarray
    buckets: np.ndarray

    @classmethod
    def of(cls, part: _Clips, stride: int, passed_over: np.ndarray) -> "_Index":
        from curation.matching.audio_kernels import bucket_starts, sorted_by_key

        in_clip = np.arange(len(part.item)) - np.repeat(part.starts[:-1], np.diff(part.starts))
        said = ~passed_over[part.item & np.uint32(len(passed_over) - 1)]
        chosen = np.flatnonzero((part.item != 0) & (in_clip % stride == 0) & said).astype(np.int32)
        buckets = bucket_starts(part.item, chosen)
        return cls(sorted_by_key(part.item, chosen, buckets), buckets)


def _look_up(
    ours: _Clips, theirs: _Clips, index: _Index, effort: _Effort, most: int | None
) -> SoundPairs:
    from curation.matching.audio_kernels import DIFFERENT, WINDOWS, look_up

    row, place, offset, difference = look_up(
        ours.item, ours.starts, ours.numbers, theirs.item, theirs.starts, theirs.numbers,
        index.ordered, index.buckets, _masks(effort.flips),
        np.array([effort.every, len(theirs.numbers) if most is None else most]), effort.limit,
        np.array(WINDOWS), np.array(DIFFERENT),
    )  # fmt: skip
    began_ms = theirs.first_ms[place] - ours.first_ms[row]
    return SoundPairs(
        heldout_clip=ours.numbers[row],
        train_clip=theirs.numbers[place],
        offset_s=offset / FRAMES_PER_S + began_ms / 1000,
        difference=difference,
    )


def _merged(found: list[SoundPairs], most: int | None, *, mirrored: bool) -> SoundPairs:
    names = ("heldout_clip", "train_clip", "offset_s", "difference")
    empty = SoundPairs(
        heldout_clip=np.zeros(0, np.int32), train_clip=np.zeros(0, np.int32),
        offset_s=np.zeros(0), difference=np.zeros(0, np.float32),
    )  # fmt: skip
    a, b, offset, difference = (
        np.concatenate([getattr(pairs, name) for pairs in (empty, *found)]) for name in names
    )
    # the most alike of each held-out clip, over all parts
    order = np.lexsort((b, difference, a))
    begins = np.flatnonzero(np.diff(a[order], prepend=-1))
    rank = np.arange(len(a)) - np.repeat(begins, np.diff(begins, append=len(a)))
    order = order if most is None else order[rank < most]
    a, b, offset, difference = a[order], b[order], offset[order], difference[order]
    if mirrored:
        offset = np.where(a < b, offset, -offset)
        a, b = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((difference, b, a))
    a, b = a[order], b[order]
    first = (np.diff(a, prepend=-1) != 0) | (np.diff(b, prepend=-1) != 0)
    order = order[first]
    return SoundPairs(
        heldout_clip=a[first], train_clip=b[first], offset_s=offset[order], difference=difference[order]
    )
