"""What two alignments make of a pair: rules and tiers at their edges."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from curation.matching.align_audio import NO_MATCH, AudioMatch
from curation.matching.align_video import VideoMatch
from curation.matching.judge import MOVES_ALIKE, MOVES_THE_SAME, judge

COPY = VideoMatch(
    score=0.97, steady=0.96, appearance=0.99, offset_s=-1.0, start_s=1.0, speed=1.0, mirrored=False,
    map=np.eye(2, 3), area=1.0, shared_s=7.0, energy=200.0,
)  # fmt: skip
SOUND = AudioMatch(
    score=0.9, strength=7.0, offset_s=-1.0, start_s=1.0, shared_s=7.0, informative_s=3.0, speed=1.0,
    pitch=1.0, ambiguous=False,
)  # fmt: skip
OVERWHELMING = replace(SOUND, strength=30.0, score=0.98, informative_s=8.0, shared_s=9.0)


def verdict(video: VideoMatch | None, audio: AudioMatch | None) -> tuple[str, str] | None:
    found = judge(video, audio)
    return None if found is None else (found.rule, found.tier)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, ("near_video", "auto")),
        ({"score": MOVES_THE_SAME - 0.01}, ("near_video", "review")),
        ({"score": MOVES_ALIKE - 0.01}, None),
        ({"steady": 0.6}, ("near_video", "review")),  # a drift
        ({"energy": 5.0, "score": 0.9}, ("near_video", "review")),  # hardly anything moves …
        ({"energy": 5.0}, ("near_video", "auto")),  # … but that just alike …
        ({"energy": 5.0, "speed": 1.25}, ("near_video", "review")),  # … and at a usual speed
        ({"energy": 1.0, "appearance": 0.99}, ("near_video", "review")),  # a still picture
        ({"energy": 1.0, "appearance": 0.8}, None),
        ({"shared_s": 1.0}, ("near_video", "review")),
        ({"score": 0.85, "speed": 1.25}, ("near_video", "review")),  # an unusual speed
        ({"score": 0.83, "area": 0.4}, ("near_video", "review")),  # a small part of the picture
    ],
)
def test_a_picture_alone_is_judged_by_how_it_moves(
    changes: dict[str, Any], wanted: tuple[str, str] | None
) -> None:
    assert verdict(replace(COPY, **changes), None) == wanted
    assert verdict(replace(COPY, **changes), NO_MATCH) == wanted


def test_a_doubtful_picture_is_sure_where_the_sound_agrees() -> None:
    doubtful = replace(COPY, score=0.7)
    assert verdict(doubtful, None) == ("near_video", "review")
    assert verdict(doubtful, SOUND) == ("near_av", "auto")


@pytest.mark.parametrize("offset_s", [-1.6, -0.4, 3.0])
def test_picture_and_sound_at_two_offsets_are_no_copy_of_both(offset_s: float) -> None:
    assert verdict(COPY, replace(SOUND, offset_s=offset_s)) == ("near_video", "auto")


def test_offsets_are_compared_at_one_moment_where_the_speed_differs() -> None:
    """Five percent faster: 0.48 s apart after ten seconds, and one copy all the same."""
    rate = 1 / 1.05
    picture = replace(COPY, offset_s=0.0, start_s=0.0, speed=1.05)
    sound = replace(SOUND, speed=rate, start_s=6.0, offset_s=0.0)
    found = judge(picture, sound)
    assert found is not None
    assert (found.rule, found.speed) == ("near_av", 1.05)
    assert verdict(picture, replace(sound, offset_s=0.6)) == ("near_video", "auto")


def test_a_still_picture_with_its_sound_stays_at_review_unless_the_sound_is_overwhelming() -> None:
    still = replace(COPY, energy=0.5)
    assert verdict(still, SOUND) == ("near_av", "review")
    assert verdict(still, OVERWHELMING) == ("near_av", "auto")


def test_sound_alone_stays_at_review_unless_it_is_overwhelming() -> None:
    assert verdict(None, SOUND) == ("near_audio", "review")
    assert verdict(None, OVERWHELMING) == ("near_audio", "auto")
    assert verdict(replace(COPY, score=0.1), SOUND) == ("near_audio", "review")  # another picture
    assert verdict(None, replace(SOUND, strength=1.0)) is None


def test_offset_of_a_sound_is_that_where_the_shared_part_starts() -> None:
    found = judge(None, replace(SOUND, speed=0.95, start_s=4.0, offset_s=2.0))
    assert found is not None
    assert found.offset_s == pytest.approx(0.95 * 4 + 2 - 4)
    assert found.speed == pytest.approx(1 / 0.95)


def test_nothing_in_common_is_no_verdict() -> None:
    assert judge(None, None) is None
    assert judge(None, NO_MATCH) is None
