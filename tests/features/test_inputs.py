"""From a file to the inputs of its parts: as the reference, anchored sound, reasons and flags."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clip_inputs import LOSSLESS, SHORT, WAV, noise, part_of, parts_of, refusal, wave_of, write_wav
from made_media import make_media
from plain_inputs import FOR_CLIP, FOR_SYNC, plain_frames, plain_resampled, plain_sound

from curation.errors import UsageProblem
from curation.files import digest_of
from features.inputs.frames import FrameTaker
from features.inputs.prepared import InputConfig
from features.inputs.waves import normalised, num_resampled, resampled, source_samples

CONFIG = InputConfig(sample_rate_hz=16000)
BOTH = "MMAudio__training__example_videos__"

# ---- as the reference -------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("rate_hz", [16000, 44100])
@pytest.mark.parametrize("name", [f"{BOTH}0B4dYTMsgHA_000130.mp4", f"{BOTH}F8Zt3mYlOqU_000094.mp4"])
def test_compat_is_the_reference_on_real_clips(
    name: str, rate_hz: int, split: str, shared_clips: Path
) -> None:
    path = shared_clips / "video" / name
    config = InputConfig(sample_rate_hz=rate_hz, compat=True)
    part = part_of(path, config, split=split)
    wave, source_hz = plain_sound(path)
    if split == "train":
        wave = wave / np.abs(wave).max() * 0.95
    expected = plain_resampled(wave, source_hz, rate_hz)[: config.sequence.num_samples]
    assert wave_of(part).shape == expected.shape
    assert np.abs(wave_of(part) - expected).max() <= 2e-6
    if rate_hz == 16000 and split == "train":
        assert part.clip_tchw is not None
        assert part.sync_tchw is not None
        assert np.array_equal(part.clip_tchw, plain_frames(path, 8, 64, FOR_CLIP))
        assert np.array_equal(part.sync_tchw, plain_frames(path, 25, 200, FOR_SYNC))


@pytest.mark.shared
def test_compat_is_the_reference_on_real_sounds(shared_clips: Path) -> None:
    (path, *_) = sorted((shared_clips / "audio").glob("*.flac"))
    wave, source_hz = plain_sound(path)
    wave = wave / np.abs(wave).max() * 0.95
    for split in ("train", "test"):
        parts = parts_of(path, replace(CONFIG, compat=True), sound_only=True, split=split)
        assert len(parts) == 3
        for part in parts:
            cut = wave[part.start_sample : part.end_sample]
            expected = plain_resampled(cut, source_hz, 16000)[:128000]
            assert np.abs(wave_of(part) - expected).max() <= 2e-6


def test_compat_takes_sound_from_its_start_wherever_it_begins(tmp_path: Path) -> None:
    path = make_media(tmp_path / "x.mkv", seconds=2.5, fps=25, sound_begins_s=0.3, **LOSSLESS)
    wave, source_hz = plain_sound(path)
    expected = plain_resampled(wave / np.abs(wave).max() * 0.95, source_hz, 16000)[:16384]
    found = wave_of(part_of(path, replace(SHORT, compat=True)))
    assert np.abs(found - expected).max() <= 2e-6


# ---- the clip's clock -------------------------------------------------------------------------------


def clicked(path: Path, *, click_s: float, sound_s: float, picture_ms: int) -> Path:
    """Three seconds of quiet noise with a click at a time of the file, where both streams begin."""
    rate_hz = 16000
    wave = noise(3, rate_hz, scale=0.01)
    wave[round((click_s - sound_s) * rate_hz)] = 0.9
    with av.open(str(path), "w") as out:
        pictures: Any = out.add_stream("ffv1", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        pictures.time_base = pictures.codec_context.time_base = Fraction(1, 1000)
        sound: Any = out.add_stream("pcm_s16le", rate=rate_hz, layout="mono")
        for number in range(60):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = picture_ms + 40 * number, Fraction(1, 1000)
            out.mux(pictures.encode(frame))
        for begin in range(0, len(wave), 1600):
            block = (wave[None, begin : begin + 1600] * 32767).astype(np.int16)
            piece = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            piece.sample_rate, piece.time_base = rate_hz, Fraction(1, rate_hz)
            piece.pts = begin + round(sound_s * rate_hz)
            out.mux(sound.encode(piece))
        out.mux(pictures.encode(None))
        out.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(
    ("sound_s", "picture_ms"), [(0.0, 0), (0.4, 0), (0.0, 400), (0.25, 100), (1.0, 1240)]
)
def test_click_lies_where_it_is_seen(sound_s: float, picture_ms: int, tmp_path: Path) -> None:
    click_s = picture_ms / 1000 + 0.8
    path = clicked(tmp_path / "x.mkv", click_s=click_s, sound_s=sound_s, picture_ms=picture_ms)
    part = part_of(path)
    wave = wave_of(part)
    assert int(np.abs(wave).argmax()) == pytest.approx(12800, abs=16)  # a millisecond
    assert part.values["av_offset_s"] == pytest.approx(sound_s - picture_ms / 1000, abs=0.002)
    begins = max(0, round((sound_s - picture_ms / 1000) * 16000) - 20)
    assert not wave[:begins].any(), "zeros where the sound has not begun"
    assert (wave[begins + 100 :] != 0).mean() > 0.9


def test_sound_is_normalised_by_the_peak_of_the_whole_track(tmp_path: Path) -> None:
    wave = noise(3, 16000, scale=0.01)
    wave[40000] = 0.5  # at 2.5 s, after the part ends
    path = write_wav(tmp_path / "x.wav", wave, 16000)
    part = part_of(path)
    assert part.values["peak"] == 0.5
    assert np.abs(wave_of(part) - wave[:16384] * np.float32(0.95 / 0.5)).max() < 1e-6
    as_it_is = replace(SHORT, peak="none")
    raw = part_of(path, as_it_is)
    assert np.array_equal(wave_of(raw), wave[:16384])
    assert (SHORT.about()["peak"], as_it_is.about()["peak"]) == ("track", "none")
    assert digest_of(SHORT.about()) != digest_of(as_it_is.about())
    with pytest.raises(UsageProblem, match=r"--peak none with --compat: .* expected one of both"):
        replace(as_it_is, compat=True)


@pytest.mark.parametrize("sample_rate_hz", [16000, 44100])
def test_eight_seconds_of_picture_are_enough_and_of_sound_a_latent_more(
    sample_rate_hz: int, tmp_path: Path
) -> None:
    config = InputConfig(sample_rate_hz=sample_rate_hz)
    needed = config.sequence.num_samples
    for samples in (needed, needed - 1):
        wave = noise(9, sample_rate_hz)[:samples]
        part = part_of(write_wav(tmp_path / "x.wav", wave, sample_rate_hz), config)
        if samples == needed:
            assert wave_of(part).shape == (needed,)
            assert part.flags == ["no_picture"]
        else:
            assert part.reason == "too_short"
            assert part.detail == f"{samples / sample_rate_hz:.3f} s of sound, expected " + (
                "8.000 s" if sample_rate_hz == 16000 else "8.011 s"
            )


@pytest.mark.parametrize(("seconds", "fps"), [(1.0, 24), (1.0, 25), (1.0, 30), (1.0, 8)])
def test_clip_of_exactly_the_duration_has_all_frames(seconds: float, fps: int, tmp_path: Path) -> None:
    times = [round(1000 * i / fps) for i in range(round(seconds * fps))]
    path = make_media(tmp_path / "x.mp4", times_ms=times, fps=fps, seconds=1.2)
    part = part_of(path)
    assert part.reason is None, part.detail
    assert part.clip_tchw is not None
    assert part.sync_tchw is not None
    assert (part.clip_tchw.shape, part.sync_tchw.shape) == ((8, 3, 384, 384), (25, 3, 224, 224))


def test_clip_is_cut_out_of_its_recording(tmp_path: Path) -> None:
    path = make_media(tmp_path / "x.nut", seconds=6, fps=25, **LOSSLESS)
    whole, _ = plain_sound(path)
    part = part_of(path, start_s=2.0, end_s=4.0)
    clip = whole[2 * 44100 : 4 * 44100]
    expected = plain_resampled(clip * np.float32(0.95) / np.abs(clip).max(), 44100, 16000)[:16384]
    assert np.abs(wave_of(part)[100:] - expected[100:]).max() < 1e-5
    alone = part_of(path)
    assert part.clip_tchw is not None
    assert alone.clip_tchw is not None
    assert not np.array_equal(part.clip_tchw[0], alone.clip_tchw[0])


def test_decoding_ends_when_there_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_media(tmp_path / "x.mp4", seconds=20, fps=25)
    seen: list[float] = []
    plain = FrameTaker.add
    monkeypatch.setattr(
        FrameTaker,
        "add",
        lambda taker, time_s, frame: (seen.append(time_s), plain(taker, time_s, frame)),
    )
    for peak in ("track", "none"):
        seen.clear()
        part = part_of(path, replace(SHORT, peak=peak))  # type: ignore[arg-type]
        assert wave_of(part).shape == (16384,)
        assert "partly_damaged" not in part.flags
        assert seen[-1] == pytest.approx(0.96, abs=0.05)
    assert part.values["peak"] == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize("peak", ["track", "none"])
def test_pictures_that_come_after_all_sound_are_seen(peak: Any, tmp_path: Path) -> None:
    """What waited for the first picture is more than enough at once, of sound alone."""
    path = tmp_path / "x.mkv"
    rate_hz = 16000
    with av.open(str(path), "w", options={"max_interleave_delta": "1"}) as out:
        pictures: Any = out.add_stream("ffv1", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream("pcm_s16le", rate=rate_hz, layout="mono")
        wave = (noise(3, rate_hz) * 32767).astype(np.int16)
        for begin in range(0, len(wave), 1600):
            block = wave[None, begin : begin + 1600]
            piece = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            piece.sample_rate, piece.time_base, piece.pts = rate_hz, Fraction(1, rate_hz), begin
            out.mux(sound.encode(piece))
        for number in range(75):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(pictures.encode(frame))
        out.mux(pictures.encode(None))
    with av.open(str(path)) as file:
        kinds = [packet.stream.type for packet in file.demux() if packet.size]
    assert kinds.index("video") > 15
    part = part_of(path, replace(SHORT, peak=peak))
    assert part.reason is None
    assert part.clip_tchw is not None
    assert "no_picture" not in part.flags


# ---- reasons and flags ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason", "detail"),
    [
        ({"audio": None}, "no_sound", "no stream of sound"),
        ({"seconds": 0.9}, "too_short", "0.9"),
        ({"times_ms": [0, 200, 600], "seconds": 2}, "too_short", "6 of 8 frames at 8 fps, 18 of 25"),
    ],
)
def test_clip_is_refused_with_the_numbers(
    options: dict[str, Any], reason: str, detail: str, tmp_path: Path
) -> None:
    found = refusal(make_media(tmp_path / "x.mkv", fps=10, **{"seconds": 2, **options}))
    assert found[0] == reason
    assert found[1].startswith(detail), found


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda wave: wave * 0, "silent"),
        (lambda wave: wave * 0 + 0.2, "silent"),  # a constant
        (lambda wave: wave * np.float32(1e-5), "silent"),
        (lambda wave: np.where(np.arange(len(wave)) == 30000, np.nan, wave), "not_finite"),
        (lambda wave: np.where(np.arange(len(wave)) == 30000, np.inf, wave), "not_finite"),
    ],
)
def test_sound_that_says_nothing_is_refused(
    change: Callable[[np.ndarray], np.ndarray], reason: str, tmp_path: Path
) -> None:
    path = write_wav(tmp_path / "x.wav", change(noise(2, 16000)), 16000)
    assert refusal(path)[0] == reason


def test_compat_refuses_silence_only_where_the_reference_does(tmp_path: Path) -> None:
    compat = replace(SHORT, compat=True)
    path = tmp_path / "x.mkv"
    make_media(path, seconds=2, fps=25, **LOSSLESS)
    quiet = tmp_path / "quiet.mkv"
    with av.open(str(path)) as source, av.open(str(quiet), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                zeros = av.Packet(bytes(packet.size))
                zeros.pts, zeros.dts, zeros.time_base = packet.pts, packet.dts, packet.time_base
                packet_out = zeros
            else:
                packet_out = packet
            packet_out.stream = streams[packet.stream_index]
            out.mux(packet_out)
    assert refusal(quiet, compat, split="train") == ("silent", "peak 0, expected 1e-06 or more")
    assert not wave_of(part_of(quiet, compat, split="test")).any()
    assert refusal(quiet)[0] == "silent"


def test_clip_of_sound_has_no_picture_and_says_so(tmp_path: Path) -> None:
    path = make_media(tmp_path / "x.wav", seconds=2, **WAV)
    part = part_of(path)
    assert "no_picture" in part.flags
    assert part.clip_tchw is part.sync_tchw is None
    assert part.values["av_offset_s"] is part.values["still_share"] is None
    assert refusal(path, replace(SHORT, reject=("no_picture",)))[0] == "no_picture"
    assert refusal(path, replace(SHORT, compat=True))[0] == "no_picture"


def test_sound_beside_pictures_of_a_sound_dataset_is_a_row_of_sound(tmp_path: Path) -> None:
    part = part_of(make_media(tmp_path / "x.mp4", seconds=2, fps=25), sound_only=True)
    assert part.flags == ["upsampled"]  # a lonely tone
    assert part.clip_tchw is None
    assert wave_of(part).shape == (16384,)


def write_still(path: Path) -> None:
    """Make a clip of two seconds, with sound, in which nothing moves."""
    with av.open(str(path), "w") as out:
        pictures: Any = out.add_stream("libx264", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream("aac", rate=16000, layout="mono")
        picture = np.random.default_rng(5).integers(0, 256, (48, 64, 3), np.uint8)
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(pictures.encode(frame))
        wave = noise(2, 16000)
        for begin in range(0, len(wave), 1024):
            block = np.ascontiguousarray(wave[None, begin : begin + 1024])
            piece = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 16000, begin, Fraction(1, 16000)
            out.mux(sound.encode(piece))
        out.mux(pictures.encode(None))
        out.mux(sound.encode(None))


def test_still_clip_is_flagged_and_moving_one_is_not(tmp_path: Path) -> None:
    moving = part_of(make_media(tmp_path / "moving.mp4", seconds=2, fps=25, size=(64, 48)))
    assert "still" not in moving.flags
    assert (moving.values["still_share"] or 0) < 0.5
    twice = part_of(make_media(tmp_path / "twice.mp4", times_ms=[0, 1100], seconds=2))
    assert "still" not in twice.flags  # two pictures, eight times: at 0 the first, then the second
    assert twice.values["still_share"] == pytest.approx(6 / 7, abs=1e-3)
    path = tmp_path / "still.mp4"
    write_still(path)
    still = part_of(path)
    assert "still" in still.flags
    assert still.values["still_share"] == 1.0
    reason, detail = refusal(path, replace(SHORT, reject=("still",)))
    assert (reason, detail) == ("still", "100% of successive frames are one picture")


@pytest.mark.parametrize("source_hz", [8000, 16000, 22050, 24000])
def test_upsampled_sound_is_flagged(source_hz: int, tmp_path: Path) -> None:
    config = InputConfig(sample_rate_hz=44100, duration_s=1.0)
    wave = noise(2, source_hz)
    told = part_of(write_wav(tmp_path / "own.wav", wave, source_hz), config)
    hidden = write_wav(tmp_path / "up.wav", plain_resampled(wave, source_hz, 44100), 44100)
    for part in (told, part_of(hidden, config)):
        assert part.flags == ["no_picture", "upsampled"]
        assert (part.values["bandwidth_hz"] or 0) == pytest.approx(source_hz / 2, rel=0.06)
    full = part_of(write_wav(tmp_path / "full.wav", noise(2, 44100), 44100), config)
    assert full.flags == ["no_picture"]
    rejecting = replace(config, reject=("upsampled",))
    reason, detail = refusal(hidden, rejecting)
    assert (reason, detail.split(" Hz")[0].split()[:2]) == ("upsampled", ["nothing", "above"])


def test_damaged_clip_is_flagged(tmp_path: Path) -> None:
    path = make_media(tmp_path / "x.mkv", seconds=4, fps=25, **LOSSLESS)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) * 3 // 4])
    assert "partly_damaged" not in part_of(path).flags, "what is used is whole"
    path = make_media(tmp_path / "y.mp4", seconds=4, fps=25)
    content = bytearray(path.read_bytes())
    # behind the first pictures: FFmpeg answers damage there with memory it never wrote, and now and
    # then shows none of them
    for at in range(len(content) // 3, len(content) // 2, 40):
        content[at] ^= 0x55
    path.write_bytes(content)
    assert "partly_damaged" in part_of(path).flags
    assert refusal(path, replace(SHORT, reject=("partly_damaged",)))[0] == "partly_damaged"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"part_s": 8.0, "sample_rate_hz": 44100}, "parts of 8 s, expected at least 8.011 s"),
        ({"max_parts": 0}, "0 parts of a sound"),
        ({"reject": ("dull",)}, "dull: no flag"),
        ({"sample_rate_hz": 8000}, "sample rate 8000 Hz"),
    ],
)
def test_config_that_cannot_be_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageProblem, match=says):
        InputConfig(**{"sample_rate_hz": 16000, **wrong})


# ---- resampling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source_hz", [8000, 11025, 22050, 32000, 48000, 96000])
@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_resampling_less_gives_what_resampling_all_does(source_hz: int, rate_hz: int) -> None:
    wave, num = noise(2, source_hz), rate_hz
    needed = source_samples(num, rate_hz, source_hz)
    expected = plain_resampled(wave, source_hz, rate_hz)
    assert len(expected) == num_resampled(len(wave), source_hz, rate_hz)
    assert np.abs(resampled(wave[:needed], source_hz, rate_hz)[:num] - expected[:num]).max() < 1e-6


@pytest.mark.parametrize(("source_hz", "rate_hz"), [(44056, 44100), (44056, 16000), (11130, 44100)])
def test_odd_rates_are_resampled_alike(
    source_hz: int, rate_hz: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = noise(0.3, source_hz)
    plain = plain_resampled(wave, source_hz, rate_hz) if source_hz == 11130 else None
    monkeypatch.setattr("features.inputs.waves._LARGEST_KERNEL", 0)
    found = resampled(wave, source_hz, rate_hz)
    assert found.dtype == np.float32
    assert len(found) == num_resampled(len(wave), source_hz, rate_hz)
    if plain is not None:
        assert np.abs(found - plain).max() < 1e-6


def test_peak_becomes_that_of_the_paper() -> None:
    assert np.abs(normalised(np.array([0.1, -0.5], np.float32), 0.5)).max() == np.float32(0.95)
