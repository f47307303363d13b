"""Copies of a clip as others publish them again: the edits by name, and how a file is made of them.

EDITS has every single change and the sound edits of a clip with pictures; COMBINATIONS has twenty of
several changes each, all of which keep at least half of the picture; SOUND_COPIES have no picture.
Equal clips give equal edits; the bytes depend on the versions of the codecs.
"""

from dataclasses import dataclass
from pathlib import Path

from curation.corpus import picture_edits as do
from curation.corpus.film import Film, read_film, write_film
from curation.corpus.picture_edits import Change, chain
from curation.corpus.sound_edits import SOUND_EDITS

PICTURE, SOUND = "picture", "sound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One way to make a copy."""

    kind: str  # "single", "combination" or "sound"
    change: Change
    shares: str = PICTURE  # by what the copy can be told: the picture, or the sound alone
    suffix: str = ".mp4"
    trim_s: float | None = 0.0  # how much of the beginning is missing; None: drawn for each clip
    speed: float = 1.0  # of the copy
    note: str  # what is done, for a reader

    def offset_s(self, time_s: float, end_s: float) -> float | None:
        """Time in the copy less time in the clip of `end_s`, at a time in the clip; None: not known."""
        if self.trim_s is None:
            return None
        trim_s = min(self.trim_s, do.MOST_TRIMMED * end_s) if self.shares == PICTURE else self.trim_s
        return (time_s - trim_s) / self.speed - time_s


def _single(
    note: str, *changes: Change, shares: str = PICTURE, suffix: str = ".mp4", trim_s: float = 0.0,
    speed: float = 1.0,
) -> Edit:  # fmt: skip
    kind = "single" if shares == PICTURE else "sound"
    change = chain(*changes)
    return Edit(
        kind=kind, change=change, shares=shares, suffix=suffix, trim_s=trim_s, speed=speed, note=note
    )


def _combination(*changes: Change, note: str, trim_s: float = 0.0, speed: float = 1.0) -> Edit:
    return Edit(kind="combination", change=chain(*changes), trim_s=trim_s, speed=speed, note=note)


EDITS: dict[str, Edit] = {
    "aspect43": _single("pulled into 4:3, from there into 16:9", do.stretched(4 / 3)),
    "border5": _single("a coloured border of 5 % on every edge", do.border(0.05)),
    "bright": _single("brighter by 38 grey levels", do.bright),
    "combo": _single(
        "cropped by 5 %, logo, gamma, 240 lines, crf 32",
        do.cropped(5), do.logo, do.gamma, do.scaled(240), do.coded(crf=32),
    ),
    "contrast": _single("contrast times 1.5", do.contrast),
    "crf28": _single("encoded at crf 28", do.coded(crf=28)),
    "crf35": _single("encoded at crf 35", do.coded(crf=35)),
    "crop5": _single("5 % of both sides cut off", do.cropped(5)),
    "crop10": _single("10 % of both sides cut off", do.cropped(10)),
    "crop20": _single("20 % of both sides cut off", do.cropped(20)),
    "fps12.5_h240": _single("12.5 pictures a second, 240 lines", do.rate(12.5), do.scaled(240)),
    "fps15": _single("15 pictures a second", do.rate(15)),
    "gamma0.6": _single("gamma 0.6", do.gamma),
    "grey": _single("without colour", do.grey),
    "h144": _single("144 lines", do.scaled(144)),
    "h240": _single("240 lines", do.scaled(240)),
    "letterbox": _single("bars above and below", do.bars(1, 1.3)),
    "pillarbox": _single("bars left and right", do.bars(1.35, 1)),
    "logo": _single("a logo in a corner", do.logo),
    "mirror": _single("mirrored", do.mirror),
    "mpeg4avi": _single("MPEG-4 and MP3 in AVI", do.mpeg4, suffix=".avi"),
    "mute_crf30": _single("without sound, crf 30", do.mute, do.coded(crf=30)),
    "pip70": _single("at 70 % in front of another picture", do.picture_in_picture(0.7)),
    "rot2": _single("turned by two degrees", do.rotated(2)),
    "speed1.05": _single("5 % faster and higher", do.speed(1.05, "speed_up_5pct"), speed=1.05),
    "speed0.95": _single("5 % slower, pitch kept", do.speed(0.95, "tempo_down_5pct"), speed=0.95),
    "text": _single("two lines of caption", do.text),
    "trim0.53": _single("without the first 0.53 s", do.trimmed(0.53), trim_s=0.53),
    "trim2.1": _single("without the first 2.1 s, of short clips 45 %", do.trimmed(2.1), trim_s=2.1),
    "vp9": _single("VP9 and Opus in WebM", do.vp9, suffix=".webm"),
    "sepia": _single("sepia", do.sepia),
    "hue": _single("hue turned by 60 degrees", do.hue),
    "blur": _single("blurred", do.blur),
    "noise": _single("grain", do.noise),
    "corner75": _single("a corner of 75 % of both sides", do.corner(0.75)),
    "anywhere80": _single("a part of 80 % of both sides, from anywhere", do.anywhere(0.8)),
    "portrait56": _single("the middle 56 % of the longer side", do.portrait),
    "sound_replaced": _single("another sound", do.other_sound),
    "sound_edited": _single(
        "bass up, noise at 20 dB, AAC at 32 kbit/s",
        do.sound("bass_up_9db"), do.sound("noise_20db"), do.coded(kbps=32),
    ),
    "sound_only": _single("the sound under another picture", do.other_picture, shares=SOUND),
}  # fmt: skip

COMBINATIONS: dict[str, Edit] = {
    "mirror+crop10+crf35": _combination(
        do.mirror, do.cropped(10), do.coded(crf=35), note="mirrored, cropped by 10 %, crf 35"
    ),
    "letterbox+logo+h240": _combination(
        do.logo, do.bars(1, 1.3), do.scaled(240), note="logo, letterboxed, 240 lines"
    ),
    "crop20+speed1.05": _combination(
        do.cropped(20), do.speed(1.05, "speed_up_5pct"), speed=1.05,
        note="cropped by 20 %, 5 % faster and higher",
    ),
    "rot2+text+gamma": _combination(
        do.rotated(2), do.text, do.gamma, note="turned by two degrees, caption, gamma 0.6"
    ),
    "pip75+grey": _combination(
        do.picture_in_picture(0.75), do.grey, note="at 75 % in front of another picture, no colour"
    ),
    "border5+mirror+fps15": _combination(
        do.border(0.05), do.mirror, do.rate(15), note="border, mirrored, 15 pictures a second"
    ),
    "trim2.1+crop10+logo+crf35": _combination(
        do.trimmed(2.1), do.cropped(10), do.logo, do.coded(crf=35),
        trim_s=2.1, note="trimmed by 2.1 s, cropped by 10 %, logo, crf 35",
    ),
    "aspect43+sepia+noise": _combination(
        do.stretched(4 / 3), do.sepia, do.noise, note="pulled into 4:3, sepia, grain"
    ),
    "corner75+mirror+mute": _combination(
        do.corner(0.75), do.mirror, do.mute, note="a corner of 75 %, mirrored, without sound"
    ),
    "crop28+grey": _combination(
        do.cropped(28), do.grey, note="cropped by 28 %, which leaves 52 % of the picture, no colour"
    ),
    "speed0.95+pillarbox+text": _combination(
        do.speed(0.95, "tempo_down_5pct"), do.text, do.bars(1.35, 1),
        speed=0.95, note="5 % slower, caption, pillarboxed",
    ),
    "anywhere75+gamma+trim0.53": _combination(
        do.anywhere(0.75), do.gamma, do.trimmed(0.53),
        trim_s=0.53, note="a part of 75 % of both sides, gamma 0.6, trimmed by 0.53 s",
    ),
    "mirror+speed1.05+logo+h144": _combination(
        do.mirror, do.speed(1.05, "tempo_up_5pct"), do.logo, do.scaled(144),
        speed=1.05, note="mirrored, 5 % faster, logo, 144 lines",
    ),
    "portrait56+text": _combination(do.portrait, do.text, note="the middle 56 %, caption"),
    "other_sound+crop10+hue": _combination(
        do.other_sound, do.cropped(10), do.hue, note="another sound, cropped by 10 %, other colours"
    ),
    "blur+border5+contrast": _combination(
        do.blur, do.border(0.05), do.contrast, note="blurred, border, contrast times 1.5"
    ),
    "rot2+crop10+sound_mixed": _combination(
        do.rotated(-2), do.cropped(10), do.sound("mixed_10db"),
        note="turned and cropped until no black shows, another sound mixed in",
    ),
    "pip80+mirror+opus": _combination(
        do.mirror, do.picture_in_picture(0.8, moving=True), do.sound("opus_24k"),
        note="mirrored, at 80 % in front of a moving picture, the sound through Opus",
    ),
    "h144+crf35+fps12.5": _combination(
        do.scaled(144), do.rate(12.5), do.coded(crf=35, kbps=32),
        note="144 lines, 12.5 pictures a second, crf 35, sound at 32 kbit/s",
    ),
    "letterbox+pillarbox+text+bright": _combination(
        do.bright, do.bars(1.2, 1.2), do.text, note="brighter, bars on all sides, caption"
    ),
}  # fmt: skip

# Of the sound edits, those after which a moment is at another time.
_TRIMS = {"offset_0.37s": 0.37, "offset_2.1s": 2.1, "offset_eq_gain_noise": 0.37}
_DRAWN = ("excerpt_half", "spliced_half")
_SPEEDS = {
    "speed_up_1pct": 1.01, "speed_down_1pct": 0.99, "speed_up_5pct": 1.05, "speed_down_5pct": 0.95,
    "tempo_up_5pct": 1.05, "tempo_down_5pct": 0.95,
}  # fmt: skip

SOUND_COPIES: dict[str, Edit] = {
    f"sound_{name}": Edit(
        kind="sound",
        change=chain(do.no_picture, do.sound(name), do.coded(kbps=128)),
        shares=SOUND,
        suffix=".m4a",
        trim_s=None if name in _DRAWN else _TRIMS.get(name, 0.0),
        speed=_SPEEDS.get(name, 1.0),
        note=f"the sound alone, {name.replace('_', ' ')}",
    )
    for name in SOUND_EDITS
}

ALL_EDITS = EDITS | COMBINATIONS | SOUND_COPIES


def edited(film: Film, name: str) -> Film | None:
    """The film after an edit of ALL_EDITS; None where the copy would share nothing that can be told."""
    edit = ALL_EDITS[name]
    if not (film.sounds if edit.shares == SOUND else film.frames):
        return None
    return edit.change(film, film.random(name))


def plant(source: Path, name: str, target: Path) -> bool:
    """Write a copy of a media file, edited as ALL_EDITS says; whether there is one."""
    copy = edited(read_film(source), name)
    if copy is not None:
        write_film(copy, target)
    return copy is not None
