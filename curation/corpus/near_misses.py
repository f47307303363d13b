"""Clips that look or sound alike to a careless ear or eye, and are of different events.

PAIRS are made from a user's clip: two files that must not be taken for copies of each other. DEGENERATE
are clips that need no source, no two of which are copies: black, white and noise, title cards of one
template, a still picture with another sound, test pictures, leaders.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from curation.corpus import picture_scenes as draw
from curation.corpus.film import Film, cut, picture_of, planes
from curation.corpus.sound_scenes import scene

Pair = tuple[Film, Film]
_GAP = 0.05  # of the clip, between two stretches of it
_MOVES = 1.5  # grey levels; what does not change by that much is one picture at any time
_SIZE, _FPS, _END_S, _RATE_HZ = (320, 180), 25, 6.0, 44_100


# ---- pairs from a clip ----------------------------------------------------------------------------


def other_time(film: Film, rng: np.random.Generator) -> Pair | None:
    """Two stretches of one recording that share no moment; None where nothing moves in it."""
    if len(film.frames) < 20 or film.end_s < 1.5:
        return None
    lumas = np.stack(
        [
            planes(film.frames[k])[0][::4, ::4]
            for k in np.linspace(0, len(film.frames) - 1, 12).astype(int)
        ]
    )
    if np.abs(lumas - lumas.mean(axis=0)).mean() < _MOVES:
        return None
    middle = film.end_s / 2
    return (
        cut(film, 0.0, middle - _GAP * film.end_s),
        cut(film, middle + _GAP * film.end_s, film.end_s),
    )


def same_room(film: Film, rng: np.random.Generator) -> Pair | None:
    """The clip's still background with other things moving in front of it, twice."""
    if not film.frames:
        return None
    chosen = [film.frames[k] for k in np.linspace(0, len(film.frames) - 1, 15).astype(int)]
    behind = rgb_of(np.median(np.stack(chosen), axis=0).astype(np.uint8))
    return _acted(behind, rng, film.end_s), _acted(behind, rng, film.end_s)


def rgb_of(picture: np.ndarray) -> np.ndarray:
    """A picture as uint8 RGB `(height, width, 3)`."""
    import av

    return av.VideoFrame.from_ndarray(picture, format="yuv420p").to_ndarray(format="rgb24")


def _acted(behind: np.ndarray, rng: np.random.Generator, end_s: float) -> Film:
    times_s = np.arange(0, max(end_s, 1.0), 1 / _FPS)
    frames = [picture_of(picture) for picture in draw.events(behind, rng, times_s)]
    wave = scene(rng, times_s[-1] + 1 / _FPS, _RATE_HZ)[None]
    return Film(times_s=times_s, frames=frames, end_s=times_s[-1] + 1 / _FPS, wave=wave)


PAIRS: dict[str, Callable[[Film, np.random.Generator], Pair | None]] = {
    "other_time": other_time,
    "same_room": same_room,
}


def pair_of(film: Film, name: str) -> Pair | None:
    """Two films of PAIRS made from one clip; None where it has nothing to make them of."""
    return PAIRS[name](film, film.random(name))


# ---- clips without a source -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Degenerate:
    """A clip that says little, and its group: clips of a group look alike."""

    group: str
    name: str
    make: Callable[[np.random.Generator], Film]

    def film(self) -> Film:
        """The film, the same at every call."""
        empty = Film(times_s=np.zeros(0), frames=[], end_s=0.0, digest=self.group)
        return self.make(empty.random(self.name))


def _still(picture: np.ndarray, wave: np.ndarray | None) -> Film:
    times_s = np.arange(0, _END_S, 1 / _FPS)
    return Film(
        times_s=times_s, frames=[picture_of(picture)] * len(times_s), end_s=_END_S,
        wave=None if wave is None else wave[None], rate_hz=_RATE_HZ,
    )  # fmt: skip


def _silence() -> np.ndarray:
    return np.zeros(round(_END_S * _RATE_HZ), np.float32)


def _tone() -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 1000 * np.arange(round(_END_S * _RATE_HZ)) / _RATE_HZ)).astype(
        np.float32
    )


def _snow(rng: np.random.Generator) -> Film:
    pool = [picture_of(draw.noise(rng, _SIZE)) for _ in range(40)]
    film = _still(
        draw.flat(_SIZE, 0), (0.1 * rng.standard_normal(round(_END_S * _RATE_HZ))).astype(np.float32)
    )
    return replace(film, frames=[pool[k] for k in rng.integers(0, len(pool), len(film.frames))])


def _card(lines: tuple[str, ...], *, dark: bool) -> Callable[[np.random.Generator], Film]:
    return lambda rng: _still(draw.title_card(_SIZE, lines, dark=dark), _silence())


def _picture_with(other_sound: int) -> Callable[[np.random.Generator], Film]:
    """One picture, whatever the sound: the cover of an album."""

    def make(rng: np.random.Generator) -> Film:
        cover = draw.room(np.random.default_rng(7), _SIZE)
        return _still(cover, scene(np.random.default_rng(1000 + other_sound), _END_S, _RATE_HZ))

    return make


def _after_leader(rng: np.random.Generator) -> Film:
    """Two seconds of one leader, then a scene of its own."""
    leader = [picture_of(draw.countdown(_SIZE, 2 - k / _FPS)) for k in range(2 * _FPS)]
    behind = draw.room(rng, _SIZE)
    shown = np.arange(0, _END_S - 2, 1 / _FPS)
    acted = [picture_of(picture) for picture in draw.events(behind, rng, shown)]
    film = _still(behind, np.concatenate([_tone()[: 2 * _RATE_HZ], scene(rng, _END_S - 2, _RATE_HZ)]))
    return replace(film, frames=leader + acted)


def _plain(grey: int, *, silent: bool = True) -> Callable[[np.random.Generator], Film]:
    return lambda rng: _still(
        draw.flat(_SIZE, grey), _silence() if silent else scene(rng, _END_S, _RATE_HZ)
    )


def _bars(rng: np.random.Generator) -> Film:
    return _still(draw.colour_bars(_SIZE), _tone())


_CARDS = (
    ("CHAPTER ONE", "the forest"),
    ("CHAPTER TWO", "the river"),
    ("THE END",),
    ("news at nine", "tonight"),
)

DEGENERATE: tuple[Degenerate, ...] = (
    Degenerate("black", "black_1", _plain(0)),
    Degenerate("black", "black_2", _plain(0)),
    Degenerate("black", "black_with_sound", _plain(0, silent=False)),
    Degenerate("white", "white_1", _plain(255)),
    Degenerate("white", "white_2", _plain(255)),
    Degenerate("grey", "grey_1", _plain(128)),
    Degenerate("grey", "grey_2", _plain(128)),
    Degenerate("noise", "noise_1", _snow),
    Degenerate("noise", "noise_2", _snow),
    *(Degenerate("cards", f"dark_card_{k}", _card(card, dark=True)) for k, card in enumerate(_CARDS)),
    *(Degenerate("cards", f"light_card_{k}", _card(card, dark=False)) for k, card in enumerate(_CARDS)),
    Degenerate("cover", "cover_1", _picture_with(1)),
    Degenerate("cover", "cover_2", _picture_with(2)),
    Degenerate("bars", "bars_1", _bars),
    Degenerate("bars", "bars_2", _bars),
    Degenerate("leader", "leader_1", _after_leader),
    Degenerate("leader", "leader_2", _after_leader),
)
