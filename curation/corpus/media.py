"""Media of some clips of the offline corpus: small films made from numbers, copies planted among them.

Names are those of the cards' media patterns, below `<folder>/<dataset>/`. The bytes depend on the
versions of the codecs; what is shown and heard does not.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from curation.corpus import picture_edits as do
from curation.corpus import picture_scenes as draw
from curation.corpus.film import Coding, Film, cut, picture_of, write_film
from curation.corpus.picture_edits import Change, chain
from curation.corpus.planted import Copy, NearMiss, PlantedMedia
from curation.corpus.sound_scenes import scene, steady
from curation.corpus.world import Row, World
from curation.files import replacing

Make = Callable[[], Film]
_SIZE, _FPS, _END_S, _RATE_HZ = (192, 108), 15, 5.0, 44_100
_WHOLE_S = 8.4  # long enough for features: 8.011 s at 44.1 kHz
_SMALL = Coding(crf=27, kbps=56)
_WAV = Coding(audio="pcm_s16le")


@dataclass(slots=True)
class _Plan:
    """What is to be made of which row, and the truth about it."""

    world: World
    films: dict[tuple[str, str], Make] = field(default_factory=dict)
    files: dict[tuple[str, str], str] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    near_misses: list[NearMiss] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    whole: list[tuple[str, str]] = field(default_factory=list)

    def row(self, dataset: str, split: str) -> Row:
        """The next row that no other set with media shares a recording with."""
        sets = ("vggsound", "audiocaps", "avsync15", "clotho")
        mine = [row for row in self.world.rows if row.dataset in sets]
        names = Counter(row.source_id for row in mine)
        names.update(row.clip_id.split("/")[-1] for row in mine)
        return next(
            row
            for row in self.world.of(dataset, split)
            if row.key not in self.files
            and (names[row.source_id] == 1 or row.source_id is None)
            and names[row.clip_id.split("/")[-1]] == 1  # no file name of two splits either
        )

    def put(self, row: Row, make: Make) -> Row:
        """The row has this film."""
        self.films[row.key], self.files[row.key] = make, media_file(row)
        return row

    def planted(
        self, kind: str, make: Make, rule: str, heldout: Row, train: Row, *changes: Change,
        **truth: float | bool,
    ) -> None:  # fmt: skip
        """The held-out row has this film, the training row a changed copy of it."""
        self.put(heldout, make)
        self.put(train, _changed(make, kind, *changes))
        self.copy(kind, heldout, train, rule, **truth)

    def copy(self, kind: str, heldout: Row, train: Row, rule: str, **truth: float | bool) -> None:
        self.copies.append(
            Copy(kind=kind, heldout=heldout.key, train=train.key, rule=rule, **truth)  # type: ignore[arg-type]
        )

    def near_miss(self, kind: str, heldout: Row, train: Row) -> None:
        self.near_misses.append(NearMiss(kind=kind, heldout=heldout.key, train=train.key))


def media_file(row: Row) -> str:
    """The name under which people keep the media of a row, as the cards say."""
    if row.dataset in ("clotho", "avsync15"):
        return f"{row.dataset}/{row.clip_id}" + (".mp4" if row.dataset == "avsync15" else "")
    return f"{row.dataset}/{row.source_id}_{round(row.start_s or 0):06d}.mp4"


# ---- what is shown --------------------------------------------------------------------------------


def _film(number: int, kind: str, *, room: int | None = None, end_s: float = _END_S) -> Film:
    """One of the scenes; those of one `room` have the same background."""
    rng = np.random.default_rng((2412, number))
    times_s = np.arange(round(end_s * _FPS)) / _FPS
    behind = draw.room(np.random.default_rng((15322, number if room is None else room)), _SIZE)
    pictures = draw.events(behind, rng, times_s, shake=0.0 if room is not None else 0.02)
    return Film(
        times_s=times_s,
        frames=[picture_of(picture) for picture in pictures],
        end_s=end_s,
        wave=scene(rng, end_s, _RATE_HZ, kind)[None],
        rate_hz=_RATE_HZ,
        digest=f"scene {number}",
        coding=_SMALL,
    )


def _changed(make: Make, name: str, *changes: Change) -> Make:
    def made() -> Film:
        film = make()
        return chain(*changes)(film, film.random(name))

    return made


def _still(picture: np.ndarray) -> Film:
    times_s = np.arange(round(_END_S * _FPS)) / _FPS
    silence = np.zeros((1, round(_END_S * _RATE_HZ)), np.float32)
    frames = [picture_of(picture)] * len(times_s)
    return Film(times_s=times_s, frames=frames, end_s=_END_S, wave=silence, coding=_SMALL)


def _sound(number: int, kind: str | None, *, end_s: float = 9.0) -> Film:
    """A scene without pictures; without a kind, rain."""
    rng = np.random.default_rng((64, number))
    wave = scene(rng, end_s, 16_000, kind) if kind else steady(rng, end_s, 16_000, "rain")
    return Film(
        times_s=np.zeros(0), frames=[], end_s=end_s, wave=wave[None], rate_hz=16_000,
        digest=f"sound {number}", coding=_WAV,
    )  # fmt: skip


# ---- what is planted ------------------------------------------------------------------------------


def plan_media(world: World) -> _Plan:
    """Which rows have media, and the truth about them."""
    plan = _Plan(world)
    _plant_copies(plan)
    _plant_sounds(plan)
    _plant_near_misses(plan)
    broken = plan.put(plan.row("vggsound", "train"), lambda: _film(40, "wind"))
    plan.damaged.append(broken.key)
    _add_whole_clips(plan)
    return plan


def _add_whole_clips(plan: _Plan) -> None:
    """Training clips that are nobody's copy and long enough to be encoded; the sound gives two parts."""
    films: tuple[tuple[str, str, Make], ...] = (
        ("vggsound", "train", lambda: _film(50, "music", end_s=_WHOLE_S)),
        ("vggsound", "train", lambda: _film(51, "birds", end_s=_WHOLE_S)),
        ("audiocaps", "train", lambda: _film(52, "passing", end_s=_WHOLE_S)),
        ("clotho", "development", lambda: _sound(53, "footsteps", end_s=2 * 8.1 + 0.5)),
    )
    for dataset, split, make in films:
        plan.whole.append(plan.put(plan.row(dataset, split), make).key)


def _plant_copies(plan: _Plan) -> None:
    rows = {row.key: row for row in plan.world.rows}
    plan.planted(
        "cropped and encoded again", _scene(1, "percussion"), "near_av",
        rows["vggsound", "FhaYvI1yrUM_000021"], rows["vggsound", "4PjEi5fFD6A_000021"],
        do.cropped(10), do.coded(crf=33, kbps=40),
    )  # fmt: skip
    plan.planted(
        "mirrored, with a logo", _scene(2, "speech"), "near_av",
        plan.row("vggsound", "test"), plan.row("audiocaps", "train"),
        do.mirror, do.logo, mirrored=True,
    )  # fmt: skip
    plan.planted(
        "5 % faster", _scene(3, "music"), "near_av",
        plan.row("vggsound", "test"), plan.row("vggsound", "train"),
        do.speed(1.05, "speed_up_5pct"), speed=1.05,
    )  # fmt: skip
    plan.planted(
        "without its first second, letterboxed", _scene(4, "footsteps"), "near_av",
        plan.row("audiocaps", "test"), plan.row("vggsound", "train"),
        do.trimmed(1.0), do.bars(1, 1.3), offset_s=-1.0,
    )  # fmt: skip
    plan.planted(
        "cropped and without sound", _scene(5, "birds"), "near_video",
        plan.row("vggsound", "test"), plan.row("audiocaps", "train"),
        do.cropped(20), do.mute,
    )  # fmt: skip
    # A clip of AVSync15 is cut from one of VGGSound: the training clip is the longer one.
    whole, part = next(
        (row, cut_row)
        for cut_row in plan.world.of("avsync15", "test")
        for row in plan.world.of("vggsound", "train")
        if (row.source_id, row.start_s) == (cut_row.source_id, cut_row.start_s)
    )
    plan.put(whole, _scene(6, "passing"))
    plan.put(part, lambda: cut(_film(6, "passing"), 0.6, 4.6))
    plan.copy("cut from it", part, whole, "near_av", offset_s=0.6)


def _scene(number: int, kind: str) -> Make:
    return lambda: _film(number, kind)


def _plant_sounds(plan: _Plan) -> None:
    plan.planted(
        "its sound under another picture", _scene(7, "speech"), "near_audio",
        plan.row("audiocaps", "test"), plan.row("vggsound", "train"),
        do.other_picture, do.scaled(108),
    )  # fmt: skip
    plan.planted(
        "equalised and through MP3", lambda: _sound(1, "birds"), "near_audio",
        plan.row("clotho", "evaluation"), plan.row("clotho", "development"),
        do.sound("bass_up_9db"), do.sound("mp3_32k"),
    )  # fmt: skip


def _plant_near_misses(plan: _Plan) -> None:
    heldout = plan.put(plan.row("vggsound", "test"), lambda: _film(20, "footsteps", room=9))
    train = plan.put(plan.row("vggsound", "train"), lambda: _film(21, "speech", room=9))
    plan.near_miss("one room, other events", heldout, train)

    def card(*lines: str) -> Make:
        return lambda: _still(draw.title_card(_SIZE, lines))

    heldout = plan.put(plan.row("vggsound", "test"), card("CHAPTER ONE", "the forest"))
    train = plan.put(plan.row("audiocaps", "train"), card("CHAPTER TWO", "the river"))
    plan.near_miss("title cards of one template, silent", heldout, train)

    heldout = plan.put(plan.row("audiocaps", "test"), lambda: _still(draw.flat(_SIZE, 0)))
    train = plan.put(plan.row("vggsound", "train"), lambda: _still(draw.flat(_SIZE, 0)))
    plan.near_miss("black and silent", heldout, train)

    heldout = plan.put(plan.row("clotho", "evaluation"), lambda: _sound(2, None))
    train = plan.put(plan.row("clotho", "development"), lambda: _sound(3, None))
    plan.near_miss("rain on other days", heldout, train)


def planted_media(world: World) -> PlantedMedia:
    """The truth about the media, without making any."""
    plan = plan_media(world)
    return PlantedMedia(
        files=dict(plan.files),
        copies=tuple(plan.copies),
        near_misses=tuple(plan.near_misses),
        damaged=tuple(plan.damaged),
        whole=tuple(plan.whole),
    )


def write_films(world: World, folder: Path) -> None:
    """Make the files; the damaged one has lost its second half."""
    plan = plan_media(world)
    for key, make in plan.films.items():
        target = folder / plan.files[key]
        if key not in plan.damaged:
            write_film(replace(make(), digest=""), target)
            continue
        with replacing(target) as temporary:
            whole = temporary.with_name(temporary.name + ".mp4")
            write_film(make(), whole)
            temporary.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
            whole.unlink()
