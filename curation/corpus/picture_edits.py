"""What people and platforms do to a picture before they publish it again, one function an edit.

An edit takes a film and a generator and gives the edited film; the generator decides what a person
would choose, such as the corner of a logo. `chain` makes one edit of several.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from curation.corpus.film import Film, cut, filtered, picture_of, planes
from curation.corpus.picture_scenes import events, room
from curation.corpus.sound_edits import SOUND_EDITS
from curation.corpus.sound_scenes import scene

MOST_TRIMMED = 0.45  # of a clip
Change = Callable[[Film, np.random.Generator], Film]


def chain(*changes: Change) -> Change:
    """One edit after the other."""

    def changed(film: Film, rng: np.random.Generator) -> Film:
        for change in changes:
            film = change(film, rng)
        return film

    return changed


def steps(*filters: tuple[str, str]) -> Change:
    """FFmpeg's filters on every picture."""
    return lambda film, rng: replace(film, frames=filtered(film.frames, *filters))


def _even(share: float, side: str) -> str:
    return f"max(2,trunc({side}*{share:.4f}/2)*2)"


# ---- shape ----------------------------------------------------------------------------------------


def crop(width: float, height: float, x: float = 0.5, y: float = 0.5) -> Change:
    """The part of these shares of both sides; x and y say where: 0 left or top, 1 right or bottom."""
    w, h = _even(width, "iw"), _even(height, "ih")
    return steps(("crop", f"w={w}:h={h}:x=(iw-ow)*{x:.4f}:y=(ih-oh)*{y:.4f}"))


def cropped(percent: float) -> Change:
    """The middle of the picture, that much of both sides cut off."""
    return crop(1 - percent / 100, 1 - percent / 100)


def corner(share: float) -> Change:
    """One of the four corners."""

    def change(film: Film, rng: np.random.Generator) -> Film:
        x, y = rng.integers(0, 2, 2)
        return crop(share, share, float(x), float(y))(film, rng)

    return change


def anywhere(share: float) -> Change:
    """A part from anywhere, as a freehand crop is."""

    def change(film: Film, rng: np.random.Generator) -> Film:
        x, y = rng.random(2)
        return crop(share, share, float(x), float(y))(film, rng)

    return change


def portrait(film: Film, rng: np.random.Generator) -> Film:
    """The middle 56 % of the longer side: a wide clip for upright telephones."""
    width, height = film.size
    return (crop(0.56, 1.0) if width > height else crop(1.0, 0.56))(film, rng)


def scaled(height: int) -> Change:
    """Another height in px, the same shape."""
    return lambda film, rng: steps(("scale", f"w={_width(film, height)}:h={height}:flags=bicubic"))(
        film, rng
    )


def _width(film: Film, height: int) -> int:
    width, rows = film.size
    return max(2, round(width * height / rows / 2) * 2)


def stretched(shape: float) -> Change:
    """The whole picture pulled into another shape, width by height; what has it already, into 16:9."""

    def change(film: Film, rng: np.random.Generator) -> Film:
        width, height = film.size
        wanted = 16 / 9 if abs(width / height / shape - 1) < 0.03 else shape
        return steps(("scale", f"w={round(height * wanted / 2) * 2}:h={height}"))(film, rng)

    return change


mirror = steps(("hflip", ""))


def rotated(degrees: float) -> Change:
    """Turned inside its frame; what comes into view is black."""
    return steps(("rotate", f"a={degrees}*PI/180:fillcolor=black"))


def bars(x: float, y: float) -> Change:
    """Black bars that make the picture that much wider and higher."""
    return steps(("pad", f"w=trunc(iw*{x}/2)*2:h=trunc(ih*{y}/2)*2:x=(ow-iw)/2:y=(oh-ih)/2:color=black"))


# ---- colour and texture ---------------------------------------------------------------------------

bright = steps(("lutyuv", "y=clip(val+38\\,16\\,235)"))
contrast = steps(("lutyuv", "y=clip((val-126)*1.5+126\\,16\\,235)"))
gamma = steps(("lutyuv", "y=gammaval(0.6)"))
grey = steps(("lutyuv", "u=128:v=128"))
sepia = steps(("lutyuv", "y=val*0.92+8:u=112:v=146"))
hue = steps(("hue", "h=60:s=1.4"))
blur = steps(("gblur", "sigma=2.2"))


def noise(film: Film, rng: np.random.Generator) -> Film:
    """Grain that is another in every picture."""
    seed = int(rng.integers(0, 2**31))
    return steps(("noise", f"c0s=22:c0f=t:c0_seed={seed}"))(film, rng)


# ---- things laid over the picture -----------------------------------------------------------------


def _laid_over(film: Film, layer: "Image.Image") -> Film:
    """The film with an RGBA layer of its size on every picture."""
    pixels = np.asarray(layer).astype(np.float32)
    over = planes(picture_of(pixels[..., :3].astype(np.uint8)))
    cover = pixels[..., 3] / 255
    half = cover.reshape(cover.shape[0] // 2, 2, cover.shape[1] // 2, 2).mean(axis=(1, 3))
    frames = [frame.copy() for frame in film.frames]
    for plane, (layer_plane, share) in enumerate(zip(over, (cover, half, half), strict=True)):
        rows, columns = np.flatnonzero(share.any(1)), np.flatnonzero(share.any(0))
        part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        added, kept = layer_plane[part] * share[part], 1 - share[part]
        for frame in frames:
            under = planes(frame)[plane]
            under[part] = under[part] * kept + added + 0.5
    return replace(film, frames=frames)


def logo(film: Film, rng: np.random.Generator) -> Film:
    """The sign of a channel in one corner, nearly opaque."""
    width, height = film.size
    layer = Image.new("RGBA", film.size)
    draw = ImageDraw.Draw(layer)
    right, low = rng.integers(0, 2, 2)
    w, h = width * 0.2, height * 0.16
    left = width * 0.76 if right else width * 0.04
    top = height * 0.79 if low else height * 0.05
    colour = (*(int(c) for c in rng.integers(30, 256, 3)), 235)
    draw.rounded_rectangle((left, top, left + w, top + h), h * 0.3, fill=colour)
    draw.ellipse(
        (left + w * 0.06, top + h * 0.12, left + w * 0.4, top + h * 0.88), fill=(255, 255, 255, 255)
    )
    font = ImageFont.load_default(h * 0.6)
    draw.text((left + w * 0.68, top + h / 2), "TV", fill=(20, 20, 20, 255), font=font, anchor="mm")
    return _laid_over(film, layer)


_CAPTIONS = (
    ("WAIT FOR IT ...", "you will not believe this"),
    ("POV: it happened again", "part 2 on my channel"),
    ("so this is how it sounds", "sound on!"),
    ("best of the year", "follow for more"),
)


def text(film: Film, rng: np.random.Generator) -> Film:
    """Two lines of caption with an outline, below or above."""
    width, height = film.size
    layer = Image.new("RGBA", film.size)
    draw = ImageDraw.Draw(layer)
    low = bool(rng.integers(0, 2))
    size = min(height * 0.085, width * 0.075)
    font = ImageFont.load_default(size)
    for row, line in enumerate(_CAPTIONS[int(rng.integers(0, len(_CAPTIONS)))]):
        y = (height * 0.78 if low else height * 0.08) + row * size * 1.25
        draw.text(
            (width / 2, y), line, fill=(255, 255, 255, 255), font=font, anchor="mt",
            stroke_width=max(1, round(size / 10)), stroke_fill=(0, 0, 0, 255),
        )  # fmt: skip
    return _laid_over(film, layer)


def border(share: float) -> Change:
    """A coloured frame around the smaller picture, that share of each side on every edge."""

    def change(film: Film, rng: np.random.Generator) -> Film:
        colour = rng.integers(0, 256, 3).astype(np.uint8)
        behind = np.broadcast_to(colour, (film.size[1], film.size[0], 3))
        return _inside(film, [picture_of(behind)], 1 - 2 * share, (0.5, 0.5))

    return change


def picture_in_picture(share: float, *, moving: bool = False) -> Change:
    """The clip at that share of both sides in front of another picture, still or moving."""

    def change(film: Film, rng: np.random.Generator) -> Film:
        behind = room(rng, film.size)
        where = (float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.1, 0.9)))
        pictures = events(behind, rng, film.times_s) if moving else [behind]
        return _inside(film, [picture_of(picture) for picture in pictures], share, where)

    return change


def _inside(film: Film, behind: list[np.ndarray], share: float, where: tuple[float, float]) -> Film:
    width, height = film.size
    w, h = (max(2, int(side * share / 2) * 2) for side in (width, height))
    left, top = (
        int(room_ * at / 2) * 2 for room_, at in zip((width - w, height - h), where, strict=True)
    )
    small = filtered(film.frames, ("scale", f"w={w}:h={h}"))
    frames = []
    for index, picture in enumerate(small):
        frame = behind[index % len(behind)].copy()
        for plane, part, by in zip(planes(frame), planes(picture), (1, 2, 2), strict=True):
            plane[top // by : (top + h) // by, left // by : (left + w) // by] = part
        frames.append(frame)
    return replace(film, frames=frames)


# ---- time -----------------------------------------------------------------------------------------


def rate(fps: float) -> Change:
    """Another number of pictures a second; each is the one that was being shown."""

    def change(film: Film, rng: np.random.Generator) -> Film:
        times_s = np.arange(0, film.end_s - 1e-9, 1 / fps)
        shown = np.maximum(np.searchsorted(film.times_s, times_s + 1e-6, side="right") - 1, 0)
        return replace(film, times_s=times_s, frames=[film.frames[k] for k in shown])

    return change


def speed(factor: float, sound_edit: str) -> Change:
    """Played that much faster; the sound by one of SOUND_EDITS that does the same."""

    def change(film: Film, rng: np.random.Generator) -> Film:
        faster = replace(film, times_s=film.times_s / factor, end_s=film.end_s / factor)
        return sound(sound_edit)(faster, rng)

    return change


def trimmed(start_s: float) -> Change:
    """Without its beginning; of a short clip never more than MOST_TRIMMED."""
    return lambda film, rng: cut(film, min(start_s, MOST_TRIMMED * film.end_s), film.end_s)


# ---- sound and codec ------------------------------------------------------------------------------


def sound(name: str) -> Change:
    """One of SOUND_EDITS on the sound, the picture as it is."""

    def change(film: Film, rng: np.random.Generator) -> Film:
        if film.wave is None:
            return film
        return replace(film, wave=SOUND_EDITS[name](film.wave, film.rate_hz, rng))

    return change


def mute(film: Film, rng: np.random.Generator) -> Film:
    """Without sound."""
    return replace(film, wave=None)


def no_picture(film: Film, rng: np.random.Generator) -> Film:
    """The sound alone."""
    return replace(film, times_s=film.times_s[:0], frames=[])


def other_sound(film: Film, rng: np.random.Generator) -> Film:
    """The same picture with another sound."""
    return replace(film, wave=scene(rng, film.end_s, 44_100)[None], rate_hz=44_100)


def other_picture(film: Film, rng: np.random.Generator) -> Film:
    """The same sound with another picture."""
    times_s = np.arange(0, film.end_s, 1 / 25)
    behind = room(rng, (320, 180))
    frames = [picture_of(picture) for picture in events(behind, rng, times_s)]
    return replace(film, times_s=times_s, frames=frames)


def coded(**changes: str | int) -> Change:
    """Another codec or quality."""
    return lambda film, rng: replace(film, coding=replace(film.coding, **changes))  # type: ignore[arg-type]


vp9 = coded(video="libvpx-vp9", crf=36, audio="libopus", kbps=64)
mpeg4 = coded(video="mpeg4", crf=6, audio="libmp3lame", kbps=96)
