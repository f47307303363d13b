"""One sequential decode of a clip, picture and sound in one pass, by presentation time.

Never by seek or frame index: both depend on how a container was written. Times are seconds; t = 0 of a
clip is the presentation time of its first picture, or of its first sound where there is no picture. On
the clock of the file, t = 0 is where that clock, or the cut, begins.

**Damage.** What can be decoded is used. A packet that is refused costs itself; a file that ends before
it says, or of which packets were refused, is `partly_damaged` with the amounts; one of which nothing
can be decoded is `damaged`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from curation.media.container import Limits, Unscannable, chosen_streams, opened, refused
from curation.media.facts import Facts, cut_of
from curation.media.one_pass import Pass, PictureSink
from curation.media.sound import SoundTrack
from curation.media.together import together
from curation.verdict import Reason

if TYPE_CHECKING:
    import numpy as np

SoundSink = Callable[["np.ndarray"], None]
Clock = Literal["clip", "file"]


@dataclass(slots=True, kw_only=True)
class Beside:
    """Somebody else who takes what is decoded: all of the clip, on its clock, as if alone."""

    picture: PictureSink
    sound: SoundSink
    rate_hz: int
    pictures_fps: int | None
    found: tuple[Facts, SoundTrack] | None = None  # what `decode` would have told; None: it took nothing


def decode(
    path: str,
    *,
    picture: PictureSink | None,
    sound: SoundSink | None,
    rate_hz: int | None,
    start_s: float | None = None,
    end_s: float | None = None,
    limits: Limits | None = None,
    pictures_fps: int | None = None,
    clock: Clock = "clip",
    tell_rate: Callable[[int], None] | None = None,
    with_sound_only: bool = False,
    beside: Beside | None = None,
) -> tuple[Facts, SoundTrack]:
    """Give every picture of a clip, with its time, to `picture`, and its sound, mono, to `sound`.

    Args:
        start_s, end_s: the clip in its recording.
        rate_hz: of the samples for `sound`; None: their own.
        pictures_fps: only the pictures shown at multiples of 1 / pictures_fps on the clip's clock are
            wanted; of the others, those that no picture is made from need not be decoded.
        clock: "file": pictures from t = 0 on; sound as it comes, from its first sample.
        with_sound_only: a file without a stream of sound is not decoded, but refused.
        tell_rate: is told the rate of the samples, before the first ones.
        beside: takes what it wants of the same decode, beyond the end of what the others want.

    Returns:
        What was found, and the sound track (which has stretches at the file's own rate).

    Raises:
        Unscannable: nothing of it can be used, or it is beyond the limits.
        Apart: with `beside`, where each must decode alone.
    """
    limits = limits or Limits()
    with opened(path, limits) as container:
        video, audio = chosen_streams(container, limits)
        if with_sound_only and audio is None:
            raise _without_sound(path, limits)
        streams = video, audio
        video, audio = video if picture else None, audio if sound else None
        tells_s = None if container.duration is None else container.duration / 1e6
        cut = cut_of(start_s, end_s, tells_s)
        length_s = cut.length_s if cut.length_s is not None else tells_s
        if length_s is not None and length_s > limits.max_duration_s:
            raise Unscannable(
                Reason.TOO_LONG, f"{length_s:.0f} s, the limit is {limits.max_duration_s:g} s"
            )
        track = SoundTrack(sound or _nowhere, rate_hz, tell_rate=tell_rate, as_it_comes=clock == "file")
        run = Pass(container, video, audio, cut, limits, picture, track)
        if clock == "file":
            run.start_with_the_file()
        run.leave_out_spare(pictures_fps)
        if beside is None:
            run.all_packets()
        else:
            other_track = SoundTrack(beside.sound, beside.rate_hz)
            other = Pass(container, *streams, cut, limits, beside.picture, other_track)
            other.leave_out_spare(beside.pictures_fps)
            together(run, other)
            other_facts = other.facts()
            beside.found = None if other_facts is None else (other_facts, other_track)
        facts = run.facts()
    if facts is None:
        raise refused(path, limits, run.harm() or "nothing can be decoded")
    return facts, track


def _without_sound(path: str, limits: Limits) -> Unscannable:
    """Why a file without a stream of sound is refused: pictures too large are told first."""
    found = refused(path, limits, "")
    if found.reason is Reason.TOO_LARGE:
        return found
    return Unscannable(Reason.NO_SOUND, "no stream of sound")


def _nowhere(wave: "np.ndarray") -> None:
    """Sound that nobody wants."""
