"""Two sounds side by side: planted copies are found where they lie, strangers are not found at all."""

import itertools

import numpy as np
import pytest

from curation.corpus.sound_edits import SOUND_EDITS
from curation.corpus.sound_scenes import SCENES, STEADY, scene, steady
from curation.matching.align_audio import NO_MATCH, AudioMatch, align_audio, align_movements, movements
from curation.media.audio_hash import BANDS, RATE_HZ, fingerprint

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
