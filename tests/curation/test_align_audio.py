"""Two sounds side by side: planted copies are found where they lie, strangers are not found at all."""

import itertools
import time

import numpy as np
import pytest

from curation.corpus.sound_edits import SOUND_EDITS
from curation.corpus.sound_scenes import SCENES, STEADY, scene, steady
from curation.matching.align_audio import (
    LONG_S,
    NO_MATCH,
    AudioMatch,
    align_audio,
    align_movements,
    movements,
)
from curation.media.audio_hash import BANDS, FRAMES_PER_S, RATE_HZ, fingerprint

# speed (seconds of the copy a second of the sound) and pitch of the edits that change them
_FASTER = {
    "speed_up_5pct": (1 / 1.05, 1.05),
    "speed_down_5pct": (1 / 0.95, 0.95),
    "tempo_up_5pct": (1 / 1.05, 1.0),
    "tempo_down_5pct": (1 / 0.95, 1.0),
}


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def bands(wave: np.ndarray) -> np.ndarray:
    return fingerprint(wave).bands


@pytest.fixture(scope="module")
def sounds() -> dict[str, np.ndarray]:
    return {kind: scene(rng(100 + n), 8.0, RATE_HZ, kind) for n, kind in enumerate(SCENES)}


@pytest.mark.parametrize("name", SOUND_EDITS)
def test_edited_copy_is_found(name: str, sounds: dict[str, np.ndarray]):
    for kind in ("speech", "music"):
        copy = SOUND_EDITS[name](sounds[kind], RATE_HZ, rng(1))
        match = align_audio(bands(sounds[kind]), bands(copy))
        assert match.tier is not None, (name, kind, match)
        speed, _ = _FASTER.get(name, (1.0, 1.0))
        assert match.speed == pytest.approx(speed, abs=0.02), (name, kind, match)


@pytest.mark.parametrize("kind", SCENES)
def test_copy_of_every_kind_of_sound_is_found_where_it_lies(kind: str, sounds: dict[str, np.ndarray]):
    copy = SOUND_EDITS["mp3_32k"](sounds[kind][round(1.7 * RATE_HZ) :], RATE_HZ, rng(2))
    match = align_audio(bands(sounds[kind]), bands(copy))
    assert match.tier is not None
    assert match.offset_s == pytest.approx(-1.7, abs=0.06)
    assert match.speed == pytest.approx(1.0, abs=0.01)
    assert match.start_s == pytest.approx(1.7, abs=0.6)


def test_offset_holds_at_another_speed(sounds: dict[str, np.ndarray]):
    tail = sounds["speech"][2 * RATE_HZ :]
    copy = SOUND_EDITS["speed_up_5pct"](tail, RATE_HZ, rng(3))
    match = align_audio(bands(sounds["speech"]), bands(copy))
    # second s of the sound is second (s - 2) / 1.05 of the copy
    assert match.speed == pytest.approx(1 / 1.05, abs=0.005)
    assert match.pitch == pytest.approx(1.05, abs=0.02)
    assert match.speed * 5.0 + match.offset_s == pytest.approx(3 / 1.05, abs=0.08)


def test_the_other_way_round_time_runs_the_other_way(sounds: dict[str, np.ndarray]):
    whole = bands(sounds["music"])
    part = bands(sounds["music"][round(1.3 * RATE_HZ) :])
    there, back = align_audio(whole, part), align_audio(part, whole)
    assert there.offset_s == pytest.approx(-back.offset_s, abs=0.02)
    assert there.score == pytest.approx(back.score, abs=0.05)


def test_stretch_between_other_sounds_is_found_as_long_as_it_is(sounds: dict[str, np.ndarray]):
    shared = sounds["speech"][: 4 * RATE_HZ]
    ours = np.concatenate([sounds["wind"][: 3 * RATE_HZ], shared, sounds["birds"][: 2 * RATE_HZ]])
    theirs = np.concatenate([sounds["music"][: 5 * RATE_HZ], shared, sounds["passing"][: 3 * RATE_HZ]])
    match = align_audio(bands(ours), bands(theirs))
    assert match.tier is not None
    assert match.offset_s == pytest.approx(2.0, abs=0.06)
    assert match.start_s == pytest.approx(3.0, abs=0.6)
    assert match.shared_s == pytest.approx(4.0, abs=1.0)


def test_short_clip_is_found_in_a_long_recording():
    long = np.concatenate([scene(rng(200 + n), 10.0, RATE_HZ, "speech") for n in range(9)])
    clip = long[47 * RATE_HZ : 55 * RATE_HZ]
    for ours, theirs, offset in ((clip, long, 47.0), (long, clip, -47.0)):
        match = align_audio(bands(ours), bands(theirs))
        assert match.tier is not None
        assert match.offset_s == pytest.approx(offset, abs=0.06)


# ---- long clips ------------------------------------------------------------------------------------


def long_bands(seed: int, minutes: float) -> np.ndarray:
    """Bands of speech and music, minutes of it put together from few seconds in ever another order."""
    kinds = ("speech", "music", "footsteps", "birds")
    pieces = [bands(scene(rng(900 + seed + n), 10.0, RATE_HZ, kind)) for n, kind in enumerate(kinds)]
    random = rng(seed)
    joined: list[np.ndarray] = []
    while sum(map(len, joined)) < minutes * 60 * FRAMES_PER_S:
        piece = pieces[int(random.integers(0, len(pieces)))]
        begin = int(random.integers(0, len(piece) - 60))
        joined.append(piece[begin : begin + int(random.integers(20, 60))])
    return np.concatenate(joined)[: round(minutes * 60 * FRAMES_PER_S)]


def noisy(some: np.ndarray) -> np.ndarray:
    return np.clip(some + rng(5).integers(-4, 5, some.shape), 0, 255).astype(np.uint8)


def test_short_clips_are_aligned_as_before_whatever_the_hint():
    speech = scene(rng(120), 12.0, RATE_HZ, "speech")
    ours, theirs = bands(speech[: 8 * RATE_HZ]), bands(speech[3 * RATE_HZ :])
    assert max(len(ours), len(theirs)) <= LONG_S * FRAMES_PER_S
    expected = align_movements(movements(ours), movements(theirs))
    for offset_s in (None, -3.0, 55.0):
        assert align_audio(ours, theirs, offset_s=offset_s) == expected


@pytest.mark.parametrize("hinted", [True, False])
def test_stretch_of_two_long_clips_is_found_where_it_lies(hinted: bool):
    ours, theirs = long_bands(1, 8.0), long_bands(40, 12.0)
    shared = bands(scene(rng(77), 25.0, RATE_HZ, "speech"))
    ours[4000 : 4000 + len(shared)] = noisy(shared)
    theirs[11000 : 11000 + len(shared)] = shared
    for one, other, offset_s, start_s in ((ours, theirs, 350.0, 200.0), (theirs, ours, -350.0, 550.0)):
        match = align_audio(one, other, offset_s=offset_s + 0.05 if hinted else None)
        assert match.tier is not None
        assert match.offset_s == pytest.approx(offset_s, abs=0.06)
        assert match.start_s == pytest.approx(start_s, abs=1.0)
        assert match.shared_s == pytest.approx(25.0, abs=2.0)


@pytest.mark.parametrize("hint_s", [241.0, None])
def test_short_clip_is_found_in_a_very_long_recording(hint_s: float | None):
    long = long_bands(2, 30.0)
    clip = bands(scene(rng(78), 8.0, RATE_HZ, "speech"))
    long[4820 : 4820 + len(clip)] = noisy(clip)
    for ours, theirs, sign in ((clip, long, 1), (long, clip, -1)):
        match = align_audio(ours, theirs, offset_s=None if hint_s is None else sign * hint_s)
        assert match.tier is not None
        assert match.offset_s == pytest.approx(sign * 241.0, abs=0.06)


def test_offset_of_a_long_clip_holds_at_another_speed():
    speech = np.concatenate([scene(rng(700 + n), 10.0, RATE_HZ, "speech") for n in range(13)])
    copy = SOUND_EDITS["tempo_up_5pct"](speech[: 125 * RATE_HZ], RATE_HZ, rng(3))
    # where second 60 meets second 60 / 1.05
    match = align_audio(bands(speech), bands(copy), offset_s=60 / 1.05 - 60)
    assert match.tier is not None
    assert match.speed == pytest.approx(1 / 1.05, abs=0.003)
    assert match.speed * 60.0 + match.offset_s == pytest.approx(60 / 1.05, abs=0.15)


def test_long_strangers_do_not_match_at_any_hint():
    ours, theirs = bands(scene(rng(81), 130.0, RATE_HZ, "speech")), long_bands(83, 5.0)
    for hint_s in (None, 0.0, 60.0, -125.0, 500.0, -500.0):
        assert align_audio(ours, theirs, offset_s=hint_s).tier is None


def test_the_time_a_pair_takes_does_not_grow_with_its_length():
    def took_s(minutes: float) -> float:
        ours = long_bands(3, minutes)
        begun_s = time.process_time()
        align_audio(ours, ours[1000:], offset_s=-50.0)
        return time.process_time() - begun_s

    took_s(3.0)
    assert took_s(60.0) < 10  # it takes 0.2 to 0.4; were all of it compared with all, 70


def test_plain_copy_is_overwhelming_and_an_edited_loop_is_not(sounds: dict[str, np.ndarray]):
    copy = SOUND_EDITS["opus_24k"](sounds["speech"], RATE_HZ, rng(4))
    assert align_audio(bands(sounds["speech"]), bands(copy)).tier == "auto"
    loop = np.tile(sounds["percussion"][: 2 * RATE_HZ], 4)
    match = align_audio(bands(loop), bands(SOUND_EDITS["offset_0.37s"](loop, RATE_HZ, rng(4))))
    assert match.ambiguous
    assert match.tier == "review"


def test_strangers_do_not_match(sounds: dict[str, np.ndarray]):
    others = [scene(rng(300 + n), 8.0, RATE_HZ, kind) for n, kind in enumerate(SCENES)]
    moved = [movements(bands(wave)) for wave in (*sounds.values(), *others)]
    matches = [align_movements(a, b) for a, b in itertools.combinations(moved, 2)]
    assert [match for match in matches if match.tier] == []
    assert len(matches) == 91


def test_steady_sounds_match_neither_each_other_nor_anything(sounds: dict[str, np.ndarray]):
    kinds = enumerate([*STEADY, *STEADY])
    still = [steady(rng(400 + seed), 6.0, RATE_HZ, kind) for seed, kind in kinds]
    moved = [movements(bands(wave)) for wave in still]
    moved += [movements(bands(sounds[kind])) for kind in ("footsteps", "birds")]
    matches = [align_movements(a, b) for a, b in itertools.combinations(moved, 2)]
    assert [match for match in matches if match.tier] == []


@pytest.mark.parametrize("frames", [0, 1, 19])
def test_too_little_sound_matches_nothing(frames: int, sounds: dict[str, np.ndarray]):
    few = bands(sounds["speech"])[:frames]
    assert align_audio(few, bands(sounds["speech"])) == NO_MATCH
    assert align_audio(bands(sounds["speech"]), few) == NO_MATCH
    assert align_audio(few, few) == NO_MATCH
    assert NO_MATCH.tier is None


@pytest.mark.parametrize("level", [0, 120, 255])
def test_levels_that_never_change_match_nothing(level: int):
    flat = np.full((200, BANDS), level, np.uint8)
    match = align_audio(flat, flat)
    assert match.tier is None
    assert match.score == 0.0


def test_tier_wants_more_of_a_short_stretch_and_much_for_auto():
    def tier(*, ambiguous: bool = False, **values: float) -> str | None:
        given = {
            "score": 0.9, "strength": 11.0, "offset_s": 0.0, "start_s": 0.0, "shared_s": 6.0,
            "informative_s": 4.0, "speed": 1.0, "pitch": 1.0,
        }  # fmt: skip
        return AudioMatch(**(given | values), ambiguous=ambiguous).tier

    assert tier() == "auto"
    assert tier(strength=9.9) == "review"
    assert tier(score=0.69) == "review"
    assert tier(shared_s=3.0) == "review"
    assert tier(informative_s=2.4) == "review"
    assert tier(strength=3.4) is None
    assert tier(strength=4.0, shared_s=2.1) == "review"
    assert tier(strength=4.0, shared_s=1.9) is None
    assert tier(ambiguous=True) == "review"
    assert tier(strength=4.0, ambiguous=True) is None
    assert tier(strength=4.0, speed=1.05) is None
    assert tier(strength=4.0, pitch=0.95) is None
    assert tier(strength=5.0, speed=1.05, pitch=0.95) == "review"


@pytest.mark.shared
def test_two_encodes_of_one_bird_match_and_the_other_sounds_do_not(shared_clips):
    import av

    def sound(path) -> np.ndarray:
        with av.open(str(path)) as file:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
            pieces = [p.to_ndarray()[0] for f in file.decode(audio=0) for p in resampler.resample(f)]
        return np.concatenate(pieces)

    names = sorted((shared_clips / "audio").iterdir())
    moved = {path.name: movements(bands(sound(path))) for path in names}
    found = {
        (a, b): match.tier
        for a, b in itertools.combinations(moved, 2)
        if (match := align_movements(moved[a], moved[b])).tier
    }
    assert list(found.values()) == ["review"]
    assert all("robin" in name for name in next(iter(found)))
