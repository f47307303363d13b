"""Which pairs of sounds are worth aligning: a brute-force twin, planted copies, and strangers."""

import itertools

import numpy as np
import pytest

from curation.corpus.sound_edits import SOUND_EDITS
from curation.corpus.sound_scenes import SCENES, scene
from curation.matching import audio_candidates as module
from curation.matching.audio_candidates import (
    Items,
    SoundPairs,
    audio_candidates,
    most_alike,
    sound_stop_list,
)
from curation.matching.audio_kernels import DIFFERENT, KEY_BITS, STEP, WINDOWS
from curation.media.audio_hash import FRAMES_PER_S, RATE_HZ, fingerprint


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def items(clips: list[np.ndarray], first: int = 0, began_ms: int = 500) -> Items:
    """Items of clips that are given as items, one a frame."""
    lengths = [len(clip) for clip in clips]
    ms = [began_ms + np.arange(n) * (1000 // FRAMES_PER_S) for n in lengths]
    return Items(
        clip=np.repeat(np.arange(first, first + len(clips), dtype=np.int32), lengths),
        ms=np.concatenate([np.zeros(0, np.int32), *ms]).astype(np.int32),
        item=np.concatenate([np.zeros(0, np.uint32), *clips]).astype(np.uint32),
    )


def of_waves(waves: list[np.ndarray], first: int = 0) -> Items:
    return items([fingerprint(wave).item for wave in waves], first)


def pairs(found: SoundPairs) -> dict[tuple[int, int], float]:
    keys = zip(found.heldout_clip.tolist(), found.train_clip.tolist(), strict=True)
    return dict(zip(keys, found.offset_s.tolist(), strict=True))


# ---- brute force -----------------------------------------------------------------------------------


def difference(ours: np.ndarray, theirs: np.ndarray, i: int, j: int) -> float:
    best = 9.0
    for window, different in zip(WINDOWS, DIFFERENT, strict=True):
        reach = window // STEP * STEP
        places = [
            (i + d, j + d)
            for d in range(-reach, reach + 1, STEP)
            if 0 <= i + d < len(ours) and 0 <= j + d < len(theirs) and ours[i + d] and theirs[j + d]
        ]
        bits = sum(int(ours[a] ^ theirs[b]).bit_count() for a, b in places)
        if len(places) * STEP > window * 1.2:
            best = min(best, bits / (32 * len(places)) / different)
        if window == WINDOWS[0] and best > 1.6:
            break
    return best


def brute(ours: list[np.ndarray], theirs: list[np.ndarray], limit: float, stride: int, flips: int):
    """{(our clip, their clip): difference} of all places whose keys differ in few bits."""
    found = {}
    key = (1 << KEY_BITS) - 1
    for a, mine in enumerate(ours):
        for b, yours in enumerate(theirs):
            met = [
                difference(mine, yours, i, j)
                for i in range(len(mine))
                for j in range(0, len(yours), stride)
                if mine[i] and yours[j] and int((mine[i] ^ yours[j]) & key).bit_count() <= flips
            ]
            if met and min(met) <= limit:
                found[a, b] = min(met)
    return found


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_agrees_with_brute_force(stride: int, monkeypatch: pytest.MonkeyPatch):
    random = rng(stride)
    lengths = [*random.integers(70, 90, 8), 0, 1, 30, 90]
    theirs = [random.integers(0, 1 << 32, length, dtype=np.uint32) for length in lengths]
    ours = []
    for number in range(8):
        clip = random.integers(0, 1 << 32, 80, dtype=np.uint32)
        copied = theirs[number][5:70]
        # bits flipped at growing rates, and moments at which nothing moves
        flips = random.random((len(copied), 32)) < 0.05 * number
        noise = flips @ (1 << np.arange(32, dtype=np.uint64))
        clip[3 : 3 + len(copied)] = copied ^ noise.astype(np.uint32)
        clip[random.random(80) < 0.1] = 0
        ours.append(clip)
    flips = 3 - stride
    monkeypatch.setattr(module, "_EFFORT", ((1 << 62, stride, flips, 1.2),))
    expected = brute(ours, theirs, 1.2, stride, flips)
    found = audio_candidates(items(ours), items(theirs, first=100))
    got = {(a, b - 100): d for (a, b), d in zip(pairs(found), found.difference.tolist(), strict=True)}
    assert got.keys() == expected.keys()
    assert len(got) >= 4
    for pair in expected:
        assert got[pair] == pytest.approx(expected[pair], abs=1e-5)


# ---- planted copies --------------------------------------------------------------------------------


def test_edited_copies_are_found_with_their_offset():
    kinds = ("speech", "music")
    waves = [scene(rng(10 + n), 8.0, RATE_HZ, kind) for n, kind in enumerate(kinds)]
    edits = [name for name in SOUND_EDITS if name not in ("excerpt_half", "spliced_half")]
    copies = [SOUND_EDITS[name](wave, RATE_HZ, rng(1)) for wave in waves for name in edits]
    found = pairs(audio_candidates(of_waves(waves), of_waves(copies, first=1000)))
    wanted = {(a, 1000 + a * len(edits) + e) for a in range(len(waves)) for e in range(len(edits))}
    assert len(wanted - found.keys()) <= 1
    for name, offset_s in (("mp3_32k", 0.0), ("offset_2.1s", -2.1), ("offset_0.37s", -0.37)):
        assert found[0, 1000 + edits.index(name)] == pytest.approx(offset_s, abs=0.11)


def test_few_strangers_are_proposed():
    waves = [scene(rng(50 + n), 8.0, RATE_HZ, kind) for n, kind in enumerate([*SCENES] * 4)]
    half = len(waves) // 2
    found = audio_candidates(of_waves(waves[:half]), of_waves(waves[half:], first=half))
    assert len(found) <= 0.15 * half * half


def test_within_one_set_each_pair_comes_once_and_no_clip_with_itself():
    wave = scene(rng(60), 8.0, RATE_HZ, "speech")
    other = scene(rng(61), 8.0, RATE_HZ, "music")
    clips = of_waves([wave[RATE_HZ:], other, wave])
    found = pairs(audio_candidates(clips, clips))
    assert (0, 2) in found
    assert found[0, 2] == pytest.approx(1.0, abs=0.06)
    assert all(a < b for a, b in found)


def test_clips_of_one_number_are_one_clip():
    clips = of_waves([scene(rng(62), 6.0, RATE_HZ, "speech")])
    assert len(audio_candidates(clips, of_waves([scene(rng(62), 6.0, RATE_HZ, "speech")]))) == 0
    assert len(audio_candidates(clips, of_waves([scene(rng(62), 6.0, RATE_HZ, "speech")], first=7))) == 1


# ---- limits ----------------------------------------------------------------------------------------


def many(seed: int, copies: int) -> tuple[Items, Items]:
    random = rng(seed)
    ours = [random.integers(1, 1 << 32, 100, dtype=np.uint32) for _ in range(20)]
    theirs = [ours[n % 20][int(random.integers(0, 40)) :] for n in range(copies)]
    return items(ours), items(theirs, first=1000)


def test_threads_and_parts_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch):
    heldout, train = many(1, 60)
    whole = audio_candidates(heldout, train)
    monkeypatch.setattr(module, "_PART", 1000)
    monkeypatch.setattr(module, "_BATCH", 3)
    steps: list[tuple[int, int]] = []
    cut = audio_candidates(heldout, train, threads=2, progress=lambda *step: steps.append(step))
    for name in ("heldout_clip", "train_clip", "offset_s", "difference"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name))
    assert len(whole) == 60
    assert steps[-1][0] == steps[-1][1]


def test_a_clip_gets_no_more_than_the_most_alike():
    heldout, train = many(2, 200)
    found = audio_candidates(heldout, train, most=4)
    assert np.bincount(found.heldout_clip).tolist() == [4] * 20


def test_keys_of_very_many_moments_are_passed_over(monkeypatch: pytest.MonkeyPatch):
    heldout, train = many(3, 40)
    assert len(audio_candidates(heldout, train)) == 40
    monkeypatch.setattr(module, "_CROWDED", 1)
    monkeypatch.setattr(module, "_CROWDED_SHARE", 0)
    assert len(audio_candidates(heldout, train)) < 40


def in_pieces(train: Items, pieces: int) -> list[Items]:
    """Every so-manieth clip, so that no piece is like another."""
    chosen = [train.clip % pieces == k for k in range(pieces)]
    return [Items(clip=train.clip[c], ms=train.ms[c], item=train.item[c]) for c in chosen]


def rows(found: SoundPairs) -> list[tuple[float, ...]]:
    names = ("heldout_clip", "train_clip", "offset_s", "difference")
    return sorted(zip(*(getattr(found, name).tolist() for name in names), strict=True))


def crowd(monkeypatch: pytest.MonkeyPatch) -> tuple[Items, Items]:
    """Clips of which some keys are crowded, and efforts that differ by how many clips there are."""
    heldout, train = many(3, 100)
    random = rng(4)
    random_keys = random.integers(0, 1 << 12, 4, dtype=np.uint32) << np.uint32(KEY_BITS)
    item = train.item.copy()
    item[::9] = random_keys[random.integers(0, 4, len(item[::9]))] | np.uint32(77)
    mine = heldout.item.copy()
    mine[::7] = random_keys[random.integers(0, 4, len(mine[::7]))] | np.uint32(77)
    monkeypatch.setattr(module, "_CROWDED", 200)
    monkeypatch.setattr(module, "_CROWDED_SHARE", 0)
    monkeypatch.setattr(module, "_EFFORT", ((50, 1, 2, 1.4), (1 << 62, 2, 1, 1.3)))
    return (
        Items(clip=heldout.clip, ms=heldout.ms, item=mine),
        Items(clip=train.clip, ms=train.ms, item=item),
    )


def test_which_pairs_are_found_does_not_depend_on_how_many_calls_look(monkeypatch: pytest.MonkeyPatch):
    heldout, train = crowd(monkeypatch)
    stopped = sound_stop_list(piece.item for piece in in_pieces(train, 3))
    assert stopped.tolist() == [77]
    assert np.array_equal(stopped, sound_stop_list([train.item]))
    clips = len(np.unique(train.clip))
    whole = rows(audio_candidates(heldout, train, most=None))
    assert len(whole) > 100

    def found(pieces: int, **given: object) -> list[tuple[float, ...]]:
        calls = [
            audio_candidates(heldout, piece, most=None, **given)  # type: ignore[arg-type]
            for piece in in_pieces(train, pieces)
        ]
        return sorted(row for call in calls for row in rows(call))

    for pieces in (1, 5):
        assert found(pieces, effort_for=clips, stopped=stopped) == whole
    assert found(5) != whole  # each call by itself


def test_the_most_alike_of_all_calls_are_those_of_one(monkeypatch: pytest.MonkeyPatch):
    heldout, train = crowd(monkeypatch)
    stopped, clips = sound_stop_list([train.item]), len(np.unique(train.clip))
    calls = [
        audio_candidates(heldout, piece, most=4, effort_for=clips, stopped=stopped)
        for piece in in_pieces(train, 5)
    ]
    assert sum(len(call) for call in calls) > 20 * 4
    assert rows(most_alike(calls, 4)) == rows(audio_candidates(heldout, train, most=4))


def test_there_may_be_very_many_pairs():
    heldout = items([rng(5).integers(1, 1 << 32, 60, dtype=np.uint32)])
    train = items([heldout.item] * 3000, first=1000)
    assert len(audio_candidates(heldout, train, most=None)) == 3000
    assert len(audio_candidates(heldout, train)) == module.MOST


def test_larger_sets_are_looked_up_at_fewer_moments():
    def effort(num_ours: int, num_theirs: int) -> module._Effort:
        starts = np.arange(num_ours + 1) * 200
        numbers = np.zeros(num_ours, np.int32)
        item = np.broadcast_to(np.uint32(1), num_ours * 200)
        return module._Effort.of(num_theirs, module._Clips(item, starts, numbers, numbers))

    efforts = [effort(n, n) for n in (10_000, 30_000, 200_000, 2_000_000)]
    assert (efforts[0].every, efforts[0].flips) == (1, 2)
    assert efforts[1].flips == 1
    assert efforts[-1].flips == 0
    for smaller, larger in itertools.pairwise(efforts):
        assert smaller.every <= larger.every
        assert smaller.limit >= larger.limit
    tests_against_vggsound = effort(15_446, 183_730)
    assert (tests_against_vggsound.every, tests_against_vggsound.flips) == (1, 1)


@pytest.mark.parametrize("side", ["heldout", "train", "both"])
def test_nothing_meets_nothing(side: str):
    none, some = items([]), items([np.arange(1, 90, dtype=np.uint32)], first=5)
    heldout = some if side == "train" else none
    train = some if side == "heldout" else none
    assert len(audio_candidates(heldout, train)) == 0


def test_moments_at_which_nothing_moves_meet_nothing():
    still = items([np.zeros(200, np.uint32)])
    assert len(audio_candidates(still, items([np.zeros(200, np.uint32)], first=9))) == 0
