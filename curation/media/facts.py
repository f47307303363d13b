"""Which part of a file is a clip, and what is told about it.

**Which part of a file is the clip.** Media folders hold either the clips themselves, cut out, or whole
recordings. A clip of [start_s, end_s), of length L, in a file that lasts D:

    start_s or end_s unknown                      the whole file
    D ≤ L + 0.5 s                                 the whole file: it is the clip, cut out by somebody
    D ≥ end_s - 0.5 s                             [start_s, end_s) of it: it is the recording
    in between, or D unknown                      the whole file
"""

from dataclasses import dataclass

NEARLY_S = 0.5  # by which a file may be longer than its clip, or end before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The stretch of a file that is the clip, from the beginning of the file; None: all of it."""

    start_s: float | None = None
    end_s: float | None = None  # exclusive

    @property
    def length_s(self) -> float | None:
        """None where it is all of the file."""
        return None if self.start_s is None or self.end_s is None else self.end_s - self.start_s


@dataclass(slots=True, kw_only=True)
class Facts:
    """What was found in a file, beside its pictures and sound; None where there is none of it."""

    duration_s: float = 0.0  # of the decoded stretch
    video_codec: str | None = None
    width_px: int | None = None  # upright, as height_px
    height_px: int | None = None
    fps: float | None = None
    rotation_deg: int | None = None  # by which a frame is turned counter-clockwise to stand upright
    num_frames: int | None = None
    video_start_s: float | None = None  # first presentation time, as in the file
    picture_end_s: float | None = None  # when the last picture stops being shown, on the clip's clock
    audio_codec: str | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    audio_start_s: float | None = None
    damage: str | None = None  # what could not be decoded, in words


def cut_of(start_s: float | None, end_s: float | None, file_s: float | None) -> Cut:
    """The stretch of a file of that length that is the clip; see above."""
    if start_s is None or end_s is None or file_s is None:
        return Cut()
    if file_s <= end_s - start_s + NEARLY_S or file_s < end_s - NEARLY_S:
        return Cut()
    return Cut(start_s=start_s, end_s=end_s)
