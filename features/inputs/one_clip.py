"""One clip's media as inputs: one decode gives the frames at 8 and 25 fps and the waveform.

    clip's clock    t = 0 is the first picture          with `compat`, t = 0 is that of the file
    pictures        64 at 8 fps, 200 at 25 fps          … of those shown in [0, 8] s
    sound           sample 0 is at t = 0                … its first sample, wherever it begins
    peak            0.95 at the loudest of the clip     … in training splits, and of audio datasets

A sound of an audio dataset becomes up to five parts, each from one stretch of it. What a clip or a part
is refused for, and what is only flagged, stands in `features/README.md`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curation.media.audio_hash import bandwidth_hz
from curation.media.container import Limits, Unscannable
from curation.media.decode import Beside, decode
from curation.media.facts import Facts
from curation.media.headers import sound_length
from curation.verdict import Reason
from features.inputs.frames import FrameTaker
from features.inputs.partition import partition
from features.inputs.prepared import InputConfig, Part, Request
from features.inputs.room import Views
from features.inputs.waves import (
    SoundTaker,
    Window,
    normalised,
    num_resampled,
    resampled,
    silent_share,
    source_samples,
)
from features.spec import CLIP_FPS, SILENT_PEAK, SYNC_FPS

if TYPE_CHECKING:
    import numpy as np

_STILL = 0.95  # Source: features/README.md, "Inputs", as for the next
_BANDWIDTH = 0.55  # of half the rate


class _Refused(Exception):
    """A part that gets a reason instead of inputs."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    """What one decode gave."""

    facts: Facts
    sound: SoundTaker
    frames: FrameTaker | None  # None where pictures do not count

    @property
    def has_picture(self) -> bool:
        """Whether the row has frames."""
        return self.frames is not None and bool(self.facts.num_frames)


def prepare(
    request: Request, config: InputConfig, room: Views, beside: Beside | None = None
) -> list[Part]:
    """The parts of a clip; their arrays lie in `room`.

    Args:
        beside: takes what it wants of the same decode.

    Raises:
        Unscannable: the clip has none.
        Apart: with `beside`, where each must decode alone.
    """
    found = _decoded(request, config, room, beside)
    if found.facts.audio_codec is None:
        raise Unscannable(Reason.NO_SOUND, found.facts.damage or "its stream of sound is empty")
    if config.compat and not request.sound_only and not found.has_picture:
        raise Unscannable(Reason.NO_PICTURE, "no pictures, which compat expects of a clip with sound")
    if not found.sound.windows:
        heard_s = found.sound.num_heard / found.sound.rate_hz if found.sound.rate_hz else 0.0
        raise Unscannable(Reason.TOO_SHORT, f"{heard_s:.3f} s, a part takes {config.segment_s:g} s")
    return [
        _part(number, window, found, request, config, room)
        for number, window in enumerate(found.sound.windows)
    ]


def _decoded(request: Request, config: InputConfig, room: Views, beside: Beside | None) -> _Decoded:
    limits = Limits(max_duration_s=config.max_duration_s)
    sequence, frames = config.sequence, None
    to_the_end = config.peak == "track" or config.compat  # the peak is that of all
    if request.sound_only:
        sound = SoundTaker(_parts_of(request, config, limits), hear_all=to_the_end)
    else:
        until_s = config.duration_s if config.compat else None
        frames = FrameTaker(room.clip_tchw, room.sync_tchw, until_s=until_s)
        num, rate_hz = sequence.num_samples, config.sample_rate_hz
        sound = SoundTaker(
            lambda source_hz: [(0, source_samples(num, rate_hz, source_hz))],
            hear_all=to_the_end,
        )
    facts, _ = decode(
        request.path,
        picture=None if frames is None else frames.add,
        sound=sound.add,
        rate_hz=None,
        start_s=request.start_s,
        end_s=request.end_s,
        limits=limits,
        clock="file" if config.compat else "clip",
        tell_rate=sound.begin,
        with_sound_only=True,
        beside=beside,
    )
    if frames is not None:
        frames.finish(facts.picture_end_s)
    return _Decoded(facts=facts, sound=sound, frames=frames)


def _parts_of(request: Request, config: InputConfig, limits: Limits) -> Callable[[int], list[Window]]:
    """The plan for a sound of an audio dataset, from what its headers say of its length."""
    told_hz, told = sound_length(
        request.path, start_s=request.start_s, end_s=request.end_s, limits=limits
    )
    # Decoders may give another rate than headers say: the length in seconds stays.
    length_s = told / told_hz
    if not partition(told, told_hz, part_s=config.segment_s, max_parts=config.max_parts):
        raise Unscannable(Reason.TOO_SHORT, f"{length_s:.3f} s, a part takes {config.segment_s:g} s")

    def plan(source_hz: int) -> list[Window]:
        num = told if source_hz == told_hz else math.ceil(length_s * source_hz)
        return partition(num, source_hz, part_s=config.segment_s, max_parts=config.max_parts)

    return plan


def _part(
    number: int, window: Window, found: _Decoded, request: Request, config: InputConfig, room: Views
) -> Part:
    sound, facts = found.sound, found.facts
    start, end = window
    if not request.sound_only:
        end = math.ceil(config.sequence.num_samples * sound.rate_hz / config.sample_rate_hz)
    part = Part(part=number, start_sample=start, end_sample=end, source_rate_hz=sound.rate_hz)
    wave = sound.window(number)
    part.values = dict.fromkeys(("av_offset_s", "still_share"))
    part.values |= _heard(wave, sound)
    if found.has_picture:
        assert facts.audio_start_s is not None, "there is sound"
        assert facts.video_start_s is not None, "there are pictures"
        part.values["av_offset_s"] = round(facts.audio_start_s - facts.video_start_s, 6)
    try:
        waveform = _waveform(wave, sound, request, config, float(part.values["silent_share"] or 0))
        _look(part, found, config, room)
        _flag(part, found, request, config)
    except _Refused as refused:
        part.reason, part.detail = refused.reason, refused.detail
        part.clip_tchw = part.sync_tchw = None
        return part
    part.wave_s = room.waves_ps[number]
    part.wave_s[:] = waveform
    return part


def _heard(wave: "np.ndarray", sound: SoundTaker) -> dict[str, float | None]:
    """What is measured of a part's sound, as it is in the file."""
    if not sound.is_finite:
        return dict.fromkeys(("peak", "bandwidth_hz", "silent_share"))
    return {
        "peak": round(sound.peak, 9),
        "bandwidth_hz": bandwidth_hz(wave, sound.rate_hz),
        "silent_share": silent_share(wave, sound.rate_hz),
    }


def _waveform(
    wave: "np.ndarray", sound: SoundTaker, request: Request, config: InputConfig, silent: float
) -> "np.ndarray":
    """Exactly so many samples, float32 `(S,)`."""
    if not sound.is_finite:
        raise _Refused(Reason.NOT_FINITE, "a sample of its sound is no finite number")
    peak, normalise = sound.peak, config.peak == "track"
    if config.compat:
        normalise = request.sound_only or request.split == "train"
        quiet = peak < SILENT_PEAK if request.sound_only else peak <= SILENT_PEAK
        if normalise and quiet:
            raise _Refused(Reason.SILENT, f"peak {peak:.3g}, expected {SILENT_PEAK:g} or more")
    elif peak <= SILENT_PEAK:
        raise _Refused(Reason.SILENT, f"peak {peak:.3g}, expected more than {SILENT_PEAK:g}")
    num, rate_hz = config.sequence.num_samples, config.sample_rate_hz
    if num_resampled(len(wave), sound.rate_hz, rate_hz) < num:
        raise _Refused(
            Reason.TOO_SHORT,
            f"{len(wave) / sound.rate_hz:.3f} s of sound, expected {num / rate_hz:.3f} s",
        )
    if silent == 1 and not config.compat:
        raise _Refused(Reason.SILENT, f"nowhere louder than -70 dB, peak {peak:.3g}")
    return resampled(normalised(wave, peak) if normalise else wave, sound.rate_hz, rate_hz)[:num]


def _look(part: Part, found: _Decoded, config: InputConfig, room: Views) -> None:
    """Give the part its frames."""
    frames = found.frames
    if frames is None or not found.has_picture:
        return
    if any(frames.num_missing):
        sequence = config.sequence
        wanted = ((sequence.num_clip_frames, CLIP_FPS), (sequence.num_sync_frames, SYNC_FPS))
        said = [
            f"{num - missing} of {num} frames at {fps} fps"
            for (num, fps), missing in zip(wanted, frames.num_missing, strict=True)
        ]
        raise _Refused(Reason.TOO_SHORT, ", ".join(said))
    part.values["still_share"] = frames.still_share()
    part.clip_tchw, part.sync_tchw = room.clip_tchw, room.sync_tchw


def _flag(part: Part, found: _Decoded, request: Request, config: InputConfig) -> None:
    """Say what is odd about a part; what the caller rejects is refused."""
    flags: dict[Reason, str] = {}
    if found.facts.damage:
        flags[Reason.PARTLY_DAMAGED] = found.facts.damage
    if not request.sound_only and not found.has_picture:
        flags[Reason.NO_PICTURE] = "no stream of pictures"
    still, band_hz = part.values["still_share"], part.values["bandwidth_hz"]
    if still is not None and still >= _STILL:
        flags[Reason.STILL] = f"{still:.0%} of successive frames are one picture"
    if band_hz is not None and band_hz < _BANDWIDTH * config.sample_rate_hz / 2:
        flags[Reason.UPSAMPLED] = f"nothing above {band_hz:.0f} Hz, for {config.sample_rate_hz} Hz"
    part.flags = sorted(flags)
    for flag, detail in sorted(flags.items()):
        if flag in config.reject:
            raise _Refused(flag, detail)
