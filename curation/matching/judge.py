"""From two alignments to a verdict: what a pair is, and how sure that is.

How the thresholds were chosen is told in tests/benchmarks/README.md, "The detector"; what they find, in
tests/golden/selftest.json.
"""

from dataclasses import dataclass

from curation.matching.align_audio import AudioMatch
from curation.matching.align_video import STILL, VideoMatch

VERSION = "judge/2"  # raised whenever a threshold or a rule changes
# Correlation of motion: unrelated pairs stay below the first, and pairs from one room below the second.
MOVES_ALIKE = 0.55
MOVES_THE_SAME = 0.80
_SMALL_PART = 0.10  # more, the smaller the part of the picture that both show
_STEADY = 0.70  # … without what drifts
_OTHER_SPEED = 0.90  # where a copy would be faster or slower by more than re-uploads usually are
_USUAL_SPEEDS = (0.94, 1.06)
_ENERGY = 8.0  # grey levels squared of motion that is more than a flicker or a lone car, unless …
_HARDLY_DIFFERENT = 0.95  # … at a usual speed it agrees better than two cars on one road do
_SHARED_S = 1.25
_ALIKE = 0.9  # correlation of still pictures
_AGREE_S = 0.25  # offsets of picture and sound of one copy; containers place sound 50 ms beside pictures
_AGREE_SPEED = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a pair of clips is."""

    rule: str  # near_av, near_video or near_audio
    tier: str  # auto or review
    offset_s: float  # at the start of the stretch that both share
    speed: float  # above 1: the second clip plays faster
    shared_s: float
    video_score: float | None  # None: not measured
    audio_score: float | None


def judge(video: VideoMatch | None, audio: AudioMatch | None) -> Verdict | None:
    """The verdict on a pair, None where nothing agrees.

    Args:
        video, audio: how the two clips align; None where one of them has no picture, or no sound.
    """
    picture, sound = _picture_tier(video), audio.tier if audio else None
    if video and audio and picture and sound and agree(video, audio):
        moving = video.energy >= STILL and video.score >= MOVES_ALIKE
        sure = moving or picture == "auto" or sound == "auto"
        return _verdict("near_av", "auto" if sure else "review", video, audio)
    if picture:
        return _verdict("near_video", picture, video, audio)
    if sound:
        return _verdict("near_audio", sound, video, audio)
    return None


def agree(video: VideoMatch, audio: AudioMatch) -> bool:
    """Whether picture and sound put one clip at the same place of the other, where the sound begins."""
    picture_s = video.offset_s + (audio.start_s - video.start_s) * (1 / video.speed - 1)
    same_place = abs(picture_s - _sound_offset_s(audio)) <= _AGREE_S
    return same_place and abs(video.speed - 1 / audio.speed) <= _AGREE_SPEED


def _sound_offset_s(audio: AudioMatch) -> float:
    """The offset where the stretch begins that both share; an AudioMatch has that at time 0."""
    return audio.offset_s + (audio.speed - 1) * audio.start_s


def _picture_tier(video: VideoMatch | None) -> str | None:
    if video is None:
        return None
    if video.energy < STILL:  # nothing moves, so nothing tells the day of one picture from another
        return "review" if video.appearance >= _ALIKE else None
    if video.score < MOVES_ALIKE:
        return None
    usual = _USUAL_SPEEDS[0] <= video.speed <= _USUAL_SPEEDS[1]
    sure = (
        video.score >= MOVES_THE_SAME + _SMALL_PART * (1 - video.area)
        and (usual or video.score >= _OTHER_SPEED)
        and video.steady >= _STEADY
        and (video.energy >= _ENERGY or (usual and video.score >= _HARDLY_DIFFERENT))
        and video.shared_s >= _SHARED_S
    )
    return "auto" if sure else "review"


def _picture_score(video: VideoMatch | None) -> float | None:
    """How well the pictures agree: what moves of them, or they themselves where nothing moves."""
    if video is None:
        return None
    return video.appearance if video.energy < STILL else video.score


def _verdict(rule: str, tier: str, video: VideoMatch | None, audio: AudioMatch | None) -> Verdict:
    if rule == "near_audio":
        assert audio is not None, "near_audio without a sound"
        offset_s, speed, shared_s = _sound_offset_s(audio), 1 / audio.speed, audio.shared_s
    else:
        assert video is not None, f"{rule} without a picture"
        offset_s, speed, shared_s = video.offset_s, video.speed, video.shared_s
    return Verdict(
        rule=rule,
        tier=tier,
        offset_s=offset_s,
        speed=speed,
        shared_s=shared_s,
        video_score=_picture_score(video),
        audio_score=None if audio is None else audio.score,
    )
