"""What a scan keeps of one clip, made by whoever decodes it: sinks for its pictures and its sound."""

from typing import TYPE_CHECKING

import numpy as np

from curation.media.answer import Answer, values_of
from curation.media.audio_hash import RATE_HZ, SoundHasher, bandwidth_hz
from curation.media.container import Limits
from curation.media.decode import Beside, decode
from curation.media.facts import Facts
from curation.media.frames import FPS
from curation.media.serving import failure_of
from curation.media.sound import SoundTrack
from curation.media.video_hash import FrameHasher, VideoPrint
from curation.verdict import Reason

if TYPE_CHECKING:
    import av


class Prints:
    """The prints of one clip while it is decoded."""

    def __init__(self, mode: str = "fast") -> None:
        self._frames, self._samples = FrameHasher(mode), SoundHasher()
        self.pictures_fps = FPS if mode == "fast" else None

    def picture(self, time_s: float, frame: "av.VideoFrame") -> None:
        """Take the next picture."""
        self._frames.add(time_s, frame)

    def sound(self, wave_s: np.ndarray) -> None:
        """Take the next samples, mono at RATE_HZ."""
        self._samples.add(wave_s)

    def beside(self) -> Beside:
        """What takes them beside somebody else's decoding."""
        return Beside(
            picture=self.picture, sound=self.sound, rate_hz=RATE_HZ, pictures_fps=self.pictures_fps
        )

    def answer(self, facts: Facts, track: SoundTrack) -> Answer:
        """What a scan says of the clip, when all of it was given."""
        answer = Answer(status="scanned", values=values_of(facts))
        if facts.damage:
            answer.reason, answer.detail = Reason.PARTLY_DAMAGED, facts.damage
        if facts.num_frames:
            _add_pictures(answer, self._frames.finish(facts.picture_end_s))
        if facts.audio_codec:
            sound = self._samples.finish()
            spectrum = track.spectrum
            answer.values |= {
                "audio_version": sound.audio_version,
                "silent_share": sound.silent_share,
                "bandwidth_hz": bandwidth_hz(spectrum.wave(), spectrum.rate_hz),
            }
            answer.arrays |= {
                "audio_ms": sound.item_ms,
                "audio_item": sound.item,
                "audio_bands": sound.bands,
            }
        return answer


def _add_pictures(answer: Answer, seen: VideoPrint | None) -> None:
    if seen is None:
        return
    answer.values |= {
        "hash_version": seen.hash_version,
        "still_share": seen.still_share,
        "thumb_fps": seen.thumb_fps,
    }
    answer.arrays |= {
        "hash_ms": seen.hash_ms,
        "hash_view": seen.hash_view,
        "hash": seen.hash,
        "flatness": seen.flatness,
        "box": np.array([*seen.boxes.picture, *seen.boxes.moving], np.float32),
        "thumbs": seen.thumbs,
    }


def scanned(
    path: str, *, start_s: float | None, end_s: float | None, mode: str, max_duration_s: float
) -> Answer:
    """What a scan says of a clip: all of it is decoded here.

    Raises:
        Unscannable: nothing of it can be used, or it is beyond the limits.
    """
    prints = Prints(mode)
    facts, track = decode(
        path,
        picture=prints.picture,
        sound=prints.sound,
        rate_hz=RATE_HZ,
        start_s=start_s,
        end_s=end_s,
        limits=Limits(max_duration_s=max_duration_s),
        pictures_fps=prints.pictures_fps,
    )
    return prints.answer(facts, track)


def failed(error: Exception) -> Answer:
    """What a scan says of a clip that ended in an error."""
    reason, detail = failure_of(error)
    return Answer(status="failed", reason=reason, detail=detail)
