"""Pictures made from numbers: lively scenes, and pictures that say nothing.

A scene is a room and what moves in it, each drawn from a generator of its own, so that two clips can
show the same room and other events. Pictures are uint8 RGB `(height, width, 3)`; equal generators give
equal pictures.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Size = tuple[int, int]  # width and height in px, even


@dataclass(frozen=True, slots=True)
class _Actor:
    """A thing that moves: a soft ellipse or a box, along a path of slow waves."""

    colour: np.ndarray  # float (3,)
    radius: np.ndarray  # float (2,), shares of the height
    box: bool
    centre: np.ndarray  # float (2,), shares of both sides
    swing: np.ndarray  # float (2, 3), shares
    hertz: np.ndarray  # float (2, 3)
    phase: np.ndarray  # float (2, 3)

    def at(self, time_s: float) -> np.ndarray:
        waves = self.swing * np.sin(2 * np.pi * (self.hertz * time_s + self.phase))
        return np.asarray(self.centre + waves.sum(axis=1))


def room(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A still picture with large and small things in it."""
    width, height = size
    picture = np.zeros((height, width, 3))
    for cells, weight in ((3, 90.0), (7, 60.0), (23, 25.0)):
        picture += weight * _cloud(rng, cells, size)
    for _ in range(int(rng.integers(4, 9))):  # walls, doors, tables
        left, right = np.sort(rng.integers(0, width, 2))
        top, bottom = np.sort(rng.integers(0, height, 2))
        shade = rng.uniform(-70, 70, 3)
        picture[top : bottom + 8, left : right + 8] += shade * 0.8
    low, high = np.percentile(picture, (2, 98))
    stretched = (picture - low) / max(high - low, 1.0) * 200 + 25
    return np.asarray(np.clip(stretched, 8, 245), np.uint8)


def _cloud(rng: np.random.Generator, cells: int, size: Size) -> np.ndarray:
    """A smooth random field, float `(height, width, 3)` from 0 to 1."""
    small = (rng.random((cells, round(cells * size[0] / size[1]) + 1, 3)) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)) / 255.0


def _actors(rng: np.random.Generator) -> list[_Actor]:
    return [
        _Actor(
            colour=rng.uniform(0, 255, 3),
            radius=rng.uniform(0.06, 0.22, 2),
            box=bool(rng.random() < 0.4),
            centre=rng.uniform(0.25, 0.75, 2),
            swing=rng.uniform(0.05, 0.22, (2, 3)),
            hertz=rng.uniform(0.07, 0.9, (2, 3)),
            phase=rng.random((2, 3)),
        )
        for _ in range(int(rng.integers(3, 6)))
    ]


def events(
    background: np.ndarray, rng: np.random.Generator, times_s: np.ndarray, *, shake: float = 0.0
) -> list[np.ndarray]:
    """Pictures at these times of things that move in front of `background`.

    Args:
        shake: how far the hand of whoever films moves, as a share of the width.
    """
    height, width = background.shape[:2]
    actors = _actors(rng)
    grain = rng.integers(-3, 4, (height + 16, width + 16, 1), dtype=np.int16)
    sway = rng.uniform(0.1, 0.5, 2), rng.random(2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    pictures = []
    for time_s in times_s:
        moved = np.sin(2 * np.pi * (sway[0] * time_s + sway[1])) * shake * width
        picture = np.roll(background, np.round(moved).astype(int), (0, 1)).astype(np.float32)
        for actor in actors:
            _draw(picture, actor, float(time_s), (x, y))
        left, top = (int(time_s * 1000) * np.array([7, 13])) % 16
        noisy = picture + grain[top : top + height, left : left + width]
        pictures.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return pictures


def _draw(
    picture: np.ndarray, actor: _Actor, time_s: float, grid: tuple[np.ndarray, np.ndarray]
) -> None:
    height, width = picture.shape[:2]
    middle = actor.at(time_s) * (width, height)
    radius = actor.radius * height
    # Only the part of the picture that the thing can reach.
    left, top = np.maximum(middle - radius * 1.2 - 2, 0).astype(int)
    right, bottom = np.maximum(middle + radius * 1.2 + 2, 0).astype(int)
    part = (slice(top, bottom), slice(left, right))
    dx, dy = (np.abs(g[part] - m) / r for g, m, r in zip(grid, middle, radius, strict=True))
    distance = np.maximum(dx, dy) if actor.box else np.sqrt(dx * dx + dy * dy)
    cover = np.clip((1.1 - distance) * 8, 0, 1)[..., None]
    shaded = actor.colour * (1.15 - 0.4 * np.clip(distance, 0, 1)[..., None])
    picture[part] += (shaded - picture[part]) * cover


# ---- pictures that say nothing --------------------------------------------------------------------


def flat(size: Size, grey: int) -> np.ndarray:
    """One colour."""
    return np.full((size[1], size[0], 3), grey, np.uint8)


def noise(rng: np.random.Generator, size: Size) -> np.ndarray:
    """What an aerial without a station shows."""
    grey = rng.integers(0, 256, (size[1], size[0], 1), dtype=np.uint8)
    return np.repeat(grey, 3, axis=2)


def colour_bars(size: Size) -> np.ndarray:
    """Seven bars, as before a programme."""
    colours = np.array(
        [
            (192, 192, 192),
            (192, 192, 0),
            (0, 192, 192),
            (0, 192, 0),
            (192, 0, 192),
            (192, 0, 0),
            (0, 0, 192),
        ]
    )
    row = colours[np.arange(size[0]) * 7 // size[0]]
    return np.broadcast_to(row, (size[1], size[0], 3)).astype(np.uint8)


def title_card(size: Size, lines: tuple[str, ...], *, dark: bool = True) -> np.ndarray:
    """Text in the middle of a plain picture with a frame: one template, any text."""
    width, height = size
    paper, ink = ((18, 18, 28), (235, 235, 235)) if dark else ((240, 238, 230), (20, 20, 20))
    card = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(card)
    draw.rectangle((width * 0.06, height * 0.1, width * 0.94, height * 0.9), outline=ink, width=2)
    font = ImageFont.load_default(height * 0.11)
    for row, line in enumerate(lines):
        y = height * (0.5 + 0.17 * (row - (len(lines) - 1) / 2))
        draw.text((width / 2, y), line, fill=ink, font=font, anchor="mm")
    return np.asarray(card)


def countdown(size: Size, seconds_left: float) -> np.ndarray:
    """A film leader: a hand that turns once a second around the number."""
    width, height = size
    leader = Image.new("RGB", size, (120, 118, 110))
    draw = ImageDraw.Draw(leader)
    radius, middle = height * 0.4, (width / 2, height / 2)
    box = (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius)
    draw.pieslice(box, -90, -90 + 360 * (1 - seconds_left % 1), fill=(90, 88, 82))
    draw.ellipse(box, outline=(230, 230, 225), width=3)
    draw.line((0, middle[1], width, middle[1]), fill=(20, 20, 20))
    draw.line((middle[0], 0, middle[0], height), fill=(20, 20, 20))
    font = ImageFont.load_default(height * 0.5)
    draw.text(middle, str(int(seconds_left) + 1), fill=(10, 10, 10), font=font, anchor="mm")
    return np.asarray(leader)
