"""Planted copies: each edit does what it says, the same every time, and near misses share no moment."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from curation.corpus import picture_edits as do
from curation.corpus import picture_scenes as draw
from curation.corpus.edits import ALL_EDITS, COMBINATIONS, EDITS, SOUND_COPIES, edited, plant
from curation.corpus.film import Coding, Film, cut, picture_of, planes, read_film, write_film
from curation.corpus.near_misses import DEGENERATE, PAIRS, pair_of
from curation.corpus.planting import BASE, COPY, NEAR_MISS, UNREADABLE, copy_beginning, plant_all, stems
from curation.corpus.sound_edits import SOUND_EDITS
from curation.corpus.sound_scenes import scene
from curation.errors import NotWritable
from curation.media.container import Limits, Unscannable

# The table of measurements that the detector is compared with.
MEASURED = {
    "aspect43", "border5", "bright", "combo", "contrast", "crf28", "crf35", "crop10", "crop20", "crop5",
    "fps12.5_h240", "fps15", "gamma0.6", "grey", "h144", "h240", "letterbox", "logo", "mirror",
    "mpeg4avi", "mute_crf30", "pillarbox", "pip70", "rot2", "speed1.05", "text", "trim0.53", "trim2.1",
    "vp9",
}  # fmt: skip
SIZE, FPS, END_S = (128, 96), 15, 3.0


def a_film(seed: int = 1) -> Film:
    rng = np.random.default_rng(seed)
    times_s = np.arange(round(END_S * FPS)) / FPS
    pictures = draw.events(draw.room(rng, SIZE), rng, times_s)
    return Film(
        times_s=times_s,
        frames=[picture_of(picture) for picture in pictures],
        end_s=END_S,
        wave=scene(rng, END_S, 22_050, "speech")[None],
        rate_hz=22_050,
        digest=f"test {seed}",
    )


@pytest.fixture(scope="module")
def film() -> Film:
    return a_film()


@pytest.fixture(scope="module")
def clip(film: Film, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_film(film, path)
    return path


def luma(film: Film, index: int = 20) -> np.ndarray:
    return planes(film.frames[index])[0].astype(float)


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures of one size."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_every_measured_transform_and_twenty_combinations_are_there():
    assert set(EDITS) >= MEASURED
    assert len(COMBINATIONS) == 20
    assert {name.removeprefix("sound_") for name in SOUND_COPIES} == set(SOUND_EDITS)
    assert all(edit.note for edit in ALL_EDITS.values())


@pytest.mark.parametrize("name", [*EDITS, *COMBINATIONS])
def test_an_edit_changes_the_clip_the_same_way_every_time(film, name):
    first, second = edited(film, name), edited(film, name)
    assert first is not None
    assert second is not None
    width, height = first.size
    assert width % 2 == 0
    assert height % 2 == 0
    assert len(first.frames) == len(first.times_s)
    assert all(np.diff(first.times_s) > 0)
    assert all(np.array_equal(a, b) for a, b in zip(first.frames, second.frames, strict=True))
    assert np.array_equal(first.wave, second.wave) if first.wave is not None else second.wave is None
    same = (
        first.size == film.size
        and np.array_equal(first.times_s, film.times_s)
        and all(np.array_equal(a, b) for a, b in zip(first.frames, film.frames, strict=True))
        and first.wave is film.wave
        and first.coding == film.coding
    )
    assert not same


def test_what_a_person_would_choose_depends_on_the_clip():
    one, other = edited(a_film(1), "corner75"), edited(a_film(3), "corner75")
    places = set()
    for seed in range(1, 9):
        film = a_film(seed)
        corner = edited(film, "corner75")
        whole, part = luma(film), luma(corner)
        h, w = part.shape
        fits = [
            (y, x)
            for y in (0, whole.shape[0] - h)
            for x in (0, whole.shape[1] - w)
            if np.array_equal(whole[y : y + h, x : x + w], part)
        ]
        places |= set(fits)
    assert one is not None
    assert other is not None
    assert len(places) > 2


@pytest.mark.parametrize("name", COMBINATIONS)
def test_combinations_keep_at_least_half_of_the_picture(name):
    """A white picture between black bars: what is still white was kept."""
    white = draw.flat((256, 144), 255)
    film = replace(a_film(), frames=[picture_of(white)] * 45)
    kept = edited(film, name)
    marked = edited(replace(film, frames=[picture_of(draw.flat((256, 144), 0))] * 45), name)
    assert kept is not None
    assert marked is not None
    shown = np.abs(luma(kept, 8) - luma(marked, 8)) > 60  # where the clip's own picture decides
    width, height = kept.size
    if "144" in name or "240" in name:  # made smaller as a whole
        assert shown.mean() >= 0.5
    else:
        whole = 192 * 144 if name.startswith("aspect43") else 256 * 144
        assert shown.mean() * width * height / whole >= 0.5


def test_mirror_swaps_left_and_right(film):
    mirrored = edited(film, "mirror")
    assert np.array_equal(luma(mirrored)[:, ::-1], luma(film))


def test_crop20_is_the_middle_of_the_picture(film):
    cropped = edited(film, "crop20")
    h, w = luma(cropped).shape
    assert (w, h) == (int(128 * 0.8 / 2) * 2, int(96 * 0.8 / 2) * 2)
    y, x = (96 - h) // 4 * 2, (128 - w) // 4 * 2  # where a chroma sample begins
    assert np.array_equal(luma(cropped), luma(film)[y : y + h, x : x + w])


def test_letterbox_adds_black_rows_above_and_below(film):
    boxed = luma(edited(film, "letterbox"))
    bar = (boxed.shape[0] - 96) // 2
    assert bar > 10
    assert boxed[: bar - 2].max() <= 17
    assert boxed[-bar + 2 :].max() <= 17


def test_faster_playing_shortens_picture_and_sound(film):
    faster = edited(film, "speed1.05")
    assert faster.end_s == pytest.approx(END_S / 1.05)
    assert faster.wave.shape[1] == pytest.approx(END_S / 1.05 * 22_050, rel=0.01)
    assert faster.times_s[20] == pytest.approx(film.times_s[20] / 1.05)


def test_trimming_cuts_picture_and_sound_at_one_time(film):
    trimmed = edited(film, "trim0.53")
    first = int(np.ceil(0.53 * FPS))
    assert np.array_equal(trimmed.frames[0], film.frames[first])
    assert np.array_equal(trimmed.wave[0], film.wave[0, round(first / FPS * 22_050) :])
    short = edited(film, "trim2.1")
    assert short.end_s == pytest.approx(0.55 * END_S, abs=1 / FPS)


def test_another_rate_shows_what_was_being_shown(film):
    slower = edited(film, "fps12.5_h240")
    assert len(slower.frames) == round(END_S * 12.5)
    plain = do.rate(12.5)(film, film.random("x"))
    for time_s, frame in zip(plain.times_s, plain.frames, strict=True):
        shown = int(time_s * FPS + 1e-6)
        assert np.array_equal(frame, film.frames[shown])


def test_sound_only_has_the_sound_and_another_picture(film):
    copy = edited(film, "sound_only")
    assert copy.wave is film.wave
    assert copy.size != film.size


def test_other_sound_has_the_picture_and_another_sound(film):
    copy = edited(film, "sound_replaced")
    assert all(np.array_equal(a, b) for a, b in zip(copy.frames, film.frames, strict=True))
    assert copy.rate_hz == 44_100
    assert copy.wave.shape[1] == round(END_S * 44_100)


def test_a_silent_clip_gives_no_copy_by_sound(film, tmp_path):
    silent = replace(film, wave=np.zeros((1, 1000), np.float32))
    assert not silent.sounds
    assert film.sounds
    write_film(replace(film, wave=None), tmp_path / "mute.mp4")
    assert not plant(tmp_path / "mute.mp4", "sound_only", tmp_path / "copy.mp4")
    assert not (tmp_path / "copy.mp4").exists()


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [
        ("crf35", "h264", "aac"),
        ("vp9", "vp9", "opus"),
        ("mpeg4avi", "mpeg4", "mp3float"),
        ("mute_crf30", "h264", None),
        ("sound_opus_24k", None, "aac"),
    ],
)
def test_copies_are_encoded_as_their_names_say(clip, tmp_path, name, video, audio):
    target = tmp_path / f"copy{ALL_EDITS[name].suffix}"
    assert plant(clip, name, target)
    with av.open(str(target)) as container:
        pictures, sounds = container.streams.video, container.streams.audio
        assert [stream.codec_context.name for stream in pictures] == ([video] if video else [])
        assert [stream.codec_context.name for stream in sounds] == ([audio] if audio else [])


def test_a_film_that_was_written_is_read_again(film, clip):
    read = read_film(clip)
    assert read.size == film.size
    assert read.times_s == pytest.approx(film.times_s, abs=1e-3)
    assert read.end_s == pytest.approx(END_S, abs=0.01)
    assert min(alike(luma(read, k), luma(film, k)) for k in range(len(film.frames))) > 0.98
    wave = read.wave[0, : film.wave.shape[1]]
    assert alike(wave, film.wave[0, : len(wave)]) > 0.95


def test_sound_is_placed_where_it_begins(film, tmp_path):
    """Half a second of sound is missing at the beginning: it is silent there, and not earlier."""
    late = replace(film, wave=film.wave.copy())
    late.wave[:, : round(0.5 * 22_050)] = 0
    write_film(late, tmp_path / "late.mp4")
    shown = cut(read_film(tmp_path / "late.mp4"), 1.0, 2.0)
    assert alike(shown.wave[0], film.wave[0, 22_050 : 2 * 22_050]) > 0.9
    beginning = read_film(tmp_path / "late.mp4", longest_s=1.0)
    assert len(beginning.frames) == FPS
    assert beginning.wave.shape[1] == 22_050


def test_a_sound_alone_is_as_long_as_it_is(film, tmp_path):
    write_film(do.no_picture(replace(film, coding=Coding(audio="pcm_s16le")), None), tmp_path / "a.wav")
    read = read_film(tmp_path / "a.wav")
    assert not read.frames
    assert read.end_s == pytest.approx(END_S)
    assert alike(read.wave[0], film.wave[0]) > 0.999


def test_clips_of_wide_pixels_are_read_as_they_are_seen(film, tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for frame in film.frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="yuv420p")))
        output.mux(stream.encode(None))
    assert read_film(path).size == (256, 96)


def test_stretches_of_one_recording_share_no_moment(film):
    first, second = pair_of(film, "other_time")
    assert first.end_s + second.end_s < film.end_s
    earlier = {frame.tobytes() for frame in first.frames}
    assert not earlier & {frame.tobytes() for frame in second.frames}
    still = replace(film, frames=[film.frames[0]] * len(film.frames))
    assert pair_of(still, "other_time") is None


def test_other_events_in_one_room_share_the_room_alone(film):
    first, second = pair_of(film, "same_room")
    stacks = [np.stack([planes(f)[0] for f in one.frames]).astype(float) for one in (first, second)]
    rooms = [np.median(stack, axis=0) for stack in stacks]
    assert alike(*rooms) > 0.6
    moving = [stack - room for stack, room in zip(stacks, rooms, strict=True)]
    count = min(map(len, moving))
    assert abs(alike(moving[0][:count], moving[1][:count])) < 0.3


def test_degenerate_clips_are_the_same_every_time():
    assert len({one.name for one in DEGENERATE}) == len(DEGENERATE)
    for one in DEGENERATE[::5]:
        first, second = one.film(), one.film()
        assert all(np.array_equal(a, b) for a, b in zip(first.frames, second.frames, strict=True))


def test_clips_of_one_name_get_names_of_their_own():
    paths = [Path("a/x.mp4"), Path("a/x.webm"), Path("b/x.mp4"), Path("b/y.mp4")]
    assert list(stems(paths)) == ["x_mp4", "x_webm", "x_mp4_2", "y"]


def test_planting_goes_on_where_it_was_killed(clip, tmp_path):
    names = ("mirror", "crop10")
    options = {"edits": names, "pairs": tuple(PAIRS), "degenerate": False, "workers": 1}
    (files,) = plant_all({"clip": clip}, tmp_path, **options)
    assert [(file.what, file.edit) for file in files[1:]] == [
        *((COPY, name) for name in names),
        *((NEAR_MISS, name) for name in PAIRS for _ in range(2)),
    ]
    assert all((tmp_path / file.file).is_file() for file in files)
    whole = {path: path.read_bytes() for path in tmp_path.glob("*.mp4")}
    (tmp_path / "clip__crop10.mp4").unlink()
    kept = (tmp_path / "clip__mirror.mp4").stat().st_mtime_ns
    assert list(plant_all({"clip": clip}, tmp_path, **options)) == [files]
    assert {path: path.read_bytes() for path in tmp_path.glob("*.mp4")} == whole
    assert (tmp_path / "clip__mirror.mp4").stat().st_mtime_ns == kept


def test_copies_of_a_clip_that_changed_are_made_again(film, tmp_path):
    clip, out = tmp_path / "clip.mp4", tmp_path / "out"
    write_film(film, clip)
    options = {"edits": ("crf28",), "pairs": (), "degenerate": False, "workers": 1}
    list(plant_all({"clip": clip}, out, **options))
    before = (out / "clip__crf28.mp4").read_bytes()
    write_film(a_film(5), clip)
    list(plant_all({"clip": clip}, out, **options))
    assert (out / "clip__crf28.mp4").read_bytes() != before
    assert (out / "base" / "clip.mp4").read_bytes() == clip.read_bytes()


def test_a_clip_that_cannot_be_read_is_told_and_the_others_are_planted(clip, tmp_path):
    broken, empty = tmp_path / "broken.mp4", tmp_path / "page.mp4"
    broken.write_bytes(clip.read_bytes()[:2000])
    empty.write_text("<html>not found</html>")
    made = plant_all(
        {"a": broken, "b": clip, "c": empty}, tmp_path / "out",
        edits=("crf28",), pairs=(), degenerate=False, workers=2,
    )  # fmt: skip
    assert [[file.what for file in files] for files in made] == [
        [UNREADABLE],
        [BASE, COPY],
        [UNREADABLE],
    ]


def test_files_that_name_other_files_are_not_opened(clip, tmp_path):
    listed = tmp_path / "list.mp4"
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    listed.write_text("ffconcat version 1.0\nfile clip.mp4\n")
    with av.open(str(listed)) as container:  # as FFmpeg would
        assert container.streams.video
    with pytest.raises(Unscannable, match="not_media"):
        read_film(listed)
    with pytest.raises(Unscannable, match="not_media"):
        copy_beginning(listed, tmp_path / "copy.mp4")
    assert not (tmp_path / "copy.mp4").exists()
    (files,) = plant_all({"a": listed}, tmp_path / "out", edits=("crf28",), degenerate=False)
    assert [file.what for file in files] == [UNREADABLE]


def test_pictures_beyond_the_limits_are_not_decoded(clip, tmp_path, monkeypatch):
    def few() -> Limits:
        return Limits(max_pixels=1000)

    monkeypatch.setattr("curation.corpus.film.Limits", few)
    monkeypatch.setattr("curation.corpus.planting.Limits", few)
    with pytest.raises(Unscannable, match="pixels"):
        read_film(clip)
    with pytest.raises(Unscannable, match="pixels"):
        copy_beginning(clip, tmp_path / "copy.mp4", 1.0)


def test_a_clip_that_takes_for_ever_is_given_up(tmp_path):
    endless = tmp_path / "endless.mp4"
    os.mkfifo(endless)
    before = set(multiprocessing.active_children())
    begun_s = time.monotonic()
    (files,) = plant_all(
        {"a": endless}, tmp_path / "out", edits=("crf28",), degenerate=False, timeout_s=1.0
    )
    assert [file.what for file in files] == [UNREADABLE]
    assert time.monotonic() - begun_s < 30
    assert set(multiprocessing.active_children()) <= before


_PLANTS = """
import sys
from pathlib import Path
from curation.corpus.planting import plant_all
list(plant_all({"a": Path(sys.argv[1])}, Path(sys.argv[2]), edits=("crf28",), degenerate=False))
"""


def _planting_children(parent: int) -> list[Path]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    folders = [Path("/proc") / pid for pid in found]
    return [folder for folder in folders if b"spawn_main" in (folder / "cmdline").read_bytes()]


def _limited(child: Path) -> bool:
    lines = (child / "limits").read_text().splitlines()
    told = {line[:25].strip(): line[25:].split()[0] for line in lines}
    return "unlimited" not in (told["Max address space"], told["Max cpu time"])


def _waited_for(what: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 30
    while not what():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.05)
    return True


def test_who_plants_is_limited_and_dies_with_its_parent(tmp_path):
    endless = tmp_path / "endless.mp4"
    os.mkfifo(endless)
    parent = subprocess.Popen([sys.executable, "-c", _PLANTS, str(endless), str(tmp_path / "out")])
    try:
        assert _waited_for(lambda: any(map(_limited, _planting_children(parent.pid))))
        (child,) = _planting_children(parent.pid)
    finally:
        parent.kill()
        parent.wait()

    def gone() -> bool:
        try:
            return (child / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    assert _waited_for(gone)


def test_a_full_disk_ends_planting_with_its_own_error(clip, tmp_path):
    (tmp_path / "out").write_text("a file, where a folder is wanted")
    with pytest.raises(NotWritable, match="out"):
        list(plant_all({"a": clip}, tmp_path / "out", edits=("crf28",), workers=1))


def test_of_a_long_clip_the_beginning_is_copied_packet_by_packet(clip, tmp_path):
    copy_beginning(clip, tmp_path / "part.mp4", 1.0)
    whole, part = read_film(clip), read_film(tmp_path / "part.mp4")
    assert part.end_s == pytest.approx(1.0, abs=0.2)
    assert np.array_equal(part.frames[5], whole.frames[5])
