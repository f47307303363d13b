"""Decoding: by presentation time, picture and sound on one clock, as PyAV alone gives them."""

from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from made_media import make_media, tone

from curation.media.container import Limits, Unscannable
from curation.media.decode import decode
from curation.media.facts import Cut, Facts, cut_of
from curation.media.frames import FPS
from curation.media.sound import SpectrumSamples
from curation.media.video_hash import FrameHasher

RATE_HZ = 16000


def decoded(path: Path, **options: Any) -> tuple[Facts, list[float], np.ndarray]:
    """The facts, the times of the pictures, and the sound."""
    times: list[float] = []
    waves = [np.zeros(0, np.float32)]
    facts, _ = decode(
        str(path),
        picture=lambda time_s, frame: times.append(time_s),
        sound=waves.append,
        rate_hz=RATE_HZ,
        **options,
    )
    return facts, times, np.concatenate(waves)


def plain_times(path: Path) -> list[float]:
    """Presentation times by PyAV alone, in the file."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h264.mp4", {}),
        ("vp9.webm", {"video": "libvpx-vp9", "audio": "libopus", "rate_hz": 48000}),
        ("ffv1.mkv", {"video": "ffv1", "audio": "flac", "samples": "s16"}),
        ("mpeg4.avi", {"video": "mpeg4", "audio": "mp3"}),
        ("ten_bit.mp4", {"pixels": "yuv420p10le"}),
    ],
)
def test_pictures_and_sound_come_at_their_times(name: str, options: Any, tmp_path: Path) -> None:
    path = make_media(tmp_path / name, **options)
    facts, times, wave = decoded(path)
    found = plain_times(path)
    assert times == pytest.approx([time_s - found[0] for time_s in found], abs=1e-6)
    assert (facts.num_frames, facts.width_px, facts.height_px) == (20, 64, 48)
    assert facts.fps == pytest.approx(10, rel=0.02)
    assert facts.duration_s == pytest.approx(2, abs=0.1)
    assert facts.damage is None
    begin = RATE_HZ // 2
    expected = tone(np.arange(begin, begin + RATE_HZ // 2) / RATE_HZ)
    best, likeness = best_lag(wave[begin - 700 :][: RATE_HZ // 2 + 1400], expected)
    best -= 700
    assert likeness > 0.97
    assert abs(best) <= 24 or "avi" in name, (
        "sound is off by more than 1.5 ms"
    )  # AVI keeps mp3's lead-in


def best_lag(wave: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    """How many samples later than at the beginning a wave sounds as expected, and how much."""
    lags = range(len(wave) - len(expected) + 1)
    likeness = [_likeness(wave[lag : lag + len(expected)], expected) for lag in lags]
    return lags[int(np.argmax(likeness))], max(likeness)


def sounds_like(wave: np.ndarray, begin_s: float) -> bool:
    """Whether a wave is the clips' sound from there, to the millisecond that containers round to."""
    expected = tone(np.arange(16, len(wave) - 16) / RATE_HZ + begin_s)
    lag, likeness = best_lag(wave, expected)
    return abs(lag - 16) <= 16 and likeness > 0.95


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float((a @ b) / np.sqrt((a @ a) * (b @ b)))


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times_ms = [0, 50, 60, 500, 510, 900, 1200, 1900, 1950, 2000]
    _, times, _ = decoded(make_media(tmp_path / "vfr.mkv", times_ms=times_ms))
    assert times == pytest.approx([time_ms / 1000 for time_ms in times_ms])


def test_clock_begins_with_the_first_picture(tmp_path: Path) -> None:
    """Sound that begins later is preceded by zeros, sound that begins earlier is cut."""
    late = make_media(tmp_path / "late.mkv", sound_begins_s=0.7, audio="flac", samples="s16")
    facts, times, wave = decoded(late)
    assert times[0] == 0
    assert facts.audio_start_s == pytest.approx(0.7, abs=0.02)
    assert not wave[: int(0.69 * RATE_HZ)].any()
    begin = int(1.2 * RATE_HZ)
    expected = tone(np.arange(RATE_HZ) / RATE_HZ + 0.5)
    assert _likeness(wave[begin : begin + RATE_HZ], expected) > 0.99
    early = make_media(
        tmp_path / "early.mkv", times_ms=[600 + 100 * i for i in range(10)], audio="flac", samples="s16"
    )
    facts, times, wave = decoded(early)
    assert (times[0], facts.video_start_s) == (0, pytest.approx(0.6))
    assert _likeness(wave[:RATE_HZ], tone(np.arange(RATE_HZ) / RATE_HZ + 0.6)) > 0.99


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("shifted.mp4", {"avoid_negative_ts": "disabled", "use_editlist": "0"}),
        ("wrapped.flv", {"avoid_negative_ts": "disabled"}),  # as 2,147,483 s: it has no sign
        ("missing.mkv", {"avoid_negative_ts": "disabled"}),  # it has none at all then
    ],
)
def test_times_that_begin_below_zero_are_as_good_as_others(
    name: str, begins: dict[str, str], tmp_path: Path
) -> None:
    times_ms = [-500 + 100 * i for i in range(20)]
    path = make_media(tmp_path / name, times_ms=times_ms, audio=None, container=begins)
    facts, times, _ = decoded(path)
    assert times == pytest.approx([0.1 * i for i in range(20)], abs=1e-6)
    assert facts.damage is None


def test_sound_that_begins_below_zero_keeps_its_place(tmp_path: Path) -> None:
    """Opus and AAC have a lead-in that belongs to no time of the clip."""
    path = make_media(tmp_path / "opus.webm", video="libvpx-vp9", audio="libopus", rate_hz=48000)
    with av.open(str(path)) as container:
        assert next(container.demux(audio=0)).pts < 0
    _, _, wave = decoded(path)
    assert sounds_like(wave[: int(1.9 * RATE_HZ)], 0.0)


def test_edit_list_hides_what_it_hides(tmp_path: Path) -> None:
    """Of pictures from -0.5 s on, players show, and we see, those from 0 s on."""
    options = {"avoid_negative_ts": "disabled"}
    times_ms = [-500 + 100 * i for i in range(20)]
    path = make_media(tmp_path / "edited.mov", times_ms=times_ms, audio=None, container=options)
    for pictures_fps in (None, FPS):
        facts, times, _ = decoded(path, pictures_fps=pictures_fps)
        assert facts.num_frames == 15
        assert times[0] == 0
        assert facts.damage is None
    assert plain_times(path) == pytest.approx([0.1 * i for i in range(15)])


def test_rotated_clip_is_upright(tmp_path: Path) -> None:
    facts, _, _ = decoded(make_media(tmp_path / "rotated.mp4", rotated=90))
    assert facts.rotation_deg in (90, 270)
    assert (facts.width_px, facts.height_px) == (48, 64)


def test_eight_channels_and_eight_kilohertz_become_one_at_our_rate(tmp_path: Path) -> None:
    many = make_media(tmp_path / "many.mkv", layout="7.1", audio="flac", samples="s16", rate_hz=48000)
    low = make_media(
        tmp_path / "low.wav", video=None, audio="pcm_s16le", layout="mono", samples="s16", rate_hz=8000
    )
    for path, channels, rate_hz in ((many, 8, 48000), (low, 1, 8000)):
        facts, _, wave = decoded(path)
        assert (facts.channels, facts.sample_rate_hz) == (channels, rate_hz)
        assert len(wave) == pytest.approx(2 * RATE_HZ, abs=32)
        assert _likeness(wave[:RATE_HZ], tone(np.arange(RATE_HZ) / RATE_HZ)) > 0.99


def test_cover_art_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=44100, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame(64, 48, "yuvj420p")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        packets = [*cover.encode(frame), *cover.encode(None)]
        wave = tone(np.arange(44100) / 44100).astype(np.float32)
        sounding = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        sounding.sample_rate = 44100
        out.mux([*sound.encode(sounding), *sound.encode(None)])
        out.mux(packets)
    with av.open(str(path)) as container:
        attached = [bool(int(s.disposition) & 0x400) for s in container.streams.video]
    if attached != [True]:
        pytest.skip("this muxer keeps no attached picture")
    facts, times, _ = decoded(path)
    assert (times, facts.num_frames) == ([], None)


# ---- what is left out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [24, 30, 60])
def test_pictures_that_nobody_looks_at_change_nothing(fps: int, tmp_path: Path) -> None:
    """Left out or not, the fingerprint and the facts are the same bit by bit."""
    path = make_media(tmp_path / "b.mp4", fps=fps, seconds=4, codec={"bf": "3", "b-pyramid": "none"})
    assert_spared_is_full(path)


def assert_spared_is_full(path: Path, *, at_most: float = 0.75, **cut: float) -> Facts:
    """The facts; pictures are left out, and facts and fingerprint do not show it."""
    made = []
    for pictures_fps in (None, FPS):
        hasher, given = FrameHasher(), []

        def take(time_s: float, frame: Any, hasher: Any = hasher, given: Any = given) -> None:
            given.append(time_s)
            hasher.add(time_s, frame)

        facts, _ = decode(
            str(path), picture=take, sound=None, rate_hz=RATE_HZ, pictures_fps=pictures_fps, **cut
        )
        made.append((facts, hasher.finish(facts.picture_end_s), len(given)))
    (facts, whole, all_of_them), (other, spared, fewer) = made
    assert facts == other
    assert fewer < all_of_them * at_most, "nothing was left out, this tests nothing"
    for name in ("hash", "hash_ms", "hash_view", "flatness", "thumbs"):
        assert np.array_equal(getattr(whole, name), getattr(spared, name)), name
    return facts


def transport_stream(path: Path, seed: int = 0) -> Path:
    """Four seconds of groups of 45 pictures, of which only the first is closed."""
    codec = {"bf": "3", "g": "45", "x264-params": "open-gop=1:scenecut=0:b-pyramid=none"}
    return make_media(path, fps=60, seconds=4, audio=None, codec=codec, seed=seed)


@pytest.mark.parametrize("gone", [1, 9, 33, 44, 47])
@pytest.mark.parametrize("cut", [{}, {"start_s": 1.0, "end_s": 2.03}], ids=["whole", "cut"])
def test_stream_that_begins_amid_a_group_is_as_a_full_decode_gives_it(
    gone: int, cut: dict[str, float], tmp_path: Path
) -> None:
    """Its first packets give no picture, and count for none."""
    path = transport_stream(tmp_path / "headless.ts")
    with av.open(str(path)) as container:
        begins = [packet.pos for packet in container.demux(video=0)]
    path.write_bytes(path.read_bytes()[begins[gone] :])
    facts = assert_spared_is_full(path, **cut)
    assert facts.fps == pytest.approx(60, abs=0.1)
    if not cut:
        assert facts.num_frames == len(plain_times(path)) < 240 - gone


def test_cut_ends_with_its_last_picture_though_nobody_looks_at_it(tmp_path: Path) -> None:
    path = transport_stream(tmp_path / "whole.ts")
    for end_s in (2.0, 2.02, 2.04, 2.06):
        facts = assert_spared_is_full(path, start_s=1.0, end_s=end_s)
        assert facts.fps == pytest.approx(60, abs=0.1)


def test_times_that_begin_again_are_as_a_full_decode_gives_them(tmp_path: Path) -> None:
    """Two streams, one behind the other: a full decode mends their times from picture to picture."""
    path = transport_stream(tmp_path / "two.ts")
    path.write_bytes(path.read_bytes() + transport_stream(tmp_path / "other.ts", seed=3).read_bytes())
    assert_spared_is_full(path, at_most=0.9)  # nothing of the second one is left out


def test_reading_that_stops_keeps_what_was_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where pictures are left out: what a decoder holds at the end is a packet without a time."""
    import curation.media.decode as module

    path = transport_stream(tmp_path / "stops.ts")
    plain = module.opened

    class Stopping:
        """A container whose demuxer gives up after 100 packets."""

        def __init__(self, container: Any) -> None:
            self._container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def demux(self, streams: Any) -> Any:
            for _, packet in zip(range(100), self._container.demux(streams), strict=False):
                yield packet
            raise av.error.InvalidDataError(1, "gave up")

    @contextmanager
    def stopping(*words: Any) -> Any:
        with plain(*words) as container:
            yield Stopping(container)

    monkeypatch.setattr(module, "opened", stopping)
    facts = assert_spared_is_full(path)
    assert facts.num_frames == 100
    assert facts.damage == "reading stopped: gave up"


# ---- which part of a file is the clip -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_s", "end_s", "file_s", "cut"),
    [
        (None, None, 10.0, Cut()),
        (30.0, None, 10.0, Cut()),
        (30.0, 40.0, None, Cut()),
        (30.0, 40.0, 10.02, Cut()),
        (30.0, 40.0, 10.4, Cut()),
        (30.0, 40.0, 200.0, Cut(start_s=30, end_s=40)),
        (30.0, 40.0, 39.6, Cut(start_s=30, end_s=40)),
        (30.0, 40.0, 25.0, Cut()),
        (0.0, 10.0, 10.0, Cut()),
        (0.0, 10.0, 60.0, Cut(start_s=0, end_s=10)),
    ],
)
def test_clip_is_cut_from_a_recording_and_a_clip_is_taken_whole(
    start_s: float | None, end_s: float | None, file_s: float | None, cut: Cut
) -> None:
    assert cut_of(start_s, end_s, file_s) == cut


@pytest.mark.parametrize("pictures_fps", [None, FPS])
def test_cut_has_its_pictures_and_its_sound(pictures_fps: int | None, tmp_path: Path) -> None:
    path = make_media(tmp_path / "whole.mkv", seconds=8, fps=25, audio="flac", samples="s16")
    facts, times, wave = decoded(path, start_s=3.0, end_s=5.0, pictures_fps=pictures_fps)
    assert facts.num_frames == 50
    assert times[0] == 0
    assert times[-1] == pytest.approx(1.96, abs=0.05)
    assert len(wave) == 2 * RATE_HZ
    assert sounds_like(wave, 3.0)
    assert facts.duration_s == pytest.approx(2.0, abs=0.01)
    assert facts.damage is None


def test_cut_of_sound_alone(tmp_path: Path) -> None:
    path = make_media(tmp_path / "whole.flac", video=None, seconds=8, audio="flac", samples="s16")
    facts, _, wave = decoded(path, start_s=3.0, end_s=5.0)
    assert len(wave) == 2 * RATE_HZ
    assert sounds_like(wave, 3.0)
    assert facts.duration_s == pytest.approx(2.0)


# ---- limits -------------------------------------------------------------------------------------------


def test_clip_that_says_it_is_too_long_is_not_decoded(tmp_path: Path) -> None:
    path = make_media(tmp_path / "long.mp4")
    with pytest.raises(Unscannable, match="too_long") as raised:
        decoded(path, limits=Limits(max_duration_s=1.0))
    assert raised.value.detail == "2 s, the limit is 1 s"


def test_clip_that_does_not_say_so_is_stopped(tmp_path: Path) -> None:
    path = make_media(tmp_path / "live.mkv", container={"live": "1"}, seconds=4)
    with pytest.raises(Unscannable, match="goes on after 1 s"):
        decoded(path, limits=Limits(max_duration_s=1.0))
    sound = make_media(tmp_path / "live.aac", video=None, seconds=4)
    with pytest.raises(Unscannable, match="too_long"):
        decoded(sound, limits=Limits(max_duration_s=1.0))


def test_cut_of_a_long_recording_is_not_too_long(tmp_path: Path) -> None:
    path = make_media(tmp_path / "long.mp4", seconds=4)
    facts, _, _ = decoded(path, start_s=1.0, end_s=2.0, limits=Limits(max_duration_s=1.5))
    assert facts.duration_s == pytest.approx(1.0, abs=0.05)


def test_picture_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = make_media(tmp_path / "large.mp4", size=(128, 128))
    with pytest.raises(Unscannable, match="128 x 128 pixels"):
        decoded(path, limits=Limits(max_pixels=128 * 127))


# ---- the spectrum -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.01, 0.3, 3.0, 60.0])
def test_spectrum_is_looked_at_in_whole_stretches_of_the_sound(seconds: float) -> None:
    """Each stretch is a stretch of the wave: joined ones would sound like clicks."""
    wave = np.arange(int(seconds * 48000), dtype=np.float32)
    samples = SpectrumSamples()
    for begin in range(0, len(wave), 1000):
        samples.add(wave[begin : begin + 1000], 48000)
    found = samples.wave()
    if len(wave) < 2048:
        assert np.array_equal(found, wave)
        return
    stretches = found.reshape(64, 2048)
    assert (np.diff(stretches, axis=1) == 1).all()
    assert stretches[0, 0] == 0
    assert stretches[-1, 0] > len(wave) * 0.5 - 8 * 2048
