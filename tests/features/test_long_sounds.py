"""Long sounds as parts: by their headers, from one decode, in memory that follows the parts alone."""

import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clip_inputs import SHORT, WAV, noise, parts_of, refusal, wave_of, write_wav
from made_media import make_media
from plain_inputs import plain_resampled

from curation.media import headers
from curation.media.headers import sound_length


def test_long_sound_gives_its_parts_from_one_decode(tmp_path: Path) -> None:
    wave = noise(10, 22050)
    wave[-1] = 0.8
    parts = parts_of(write_wav(tmp_path / "x.wav", wave, 22050), sound_only=True)
    assert [part.part for part in parts] == [0, 1, 2, 3, 4]
    for part in parts:
        cut = wave[part.start_sample : part.end_sample] * np.float32(0.95 / 0.8)
        expected = plain_resampled(cut, 22050, 16000)[:16384]
        assert np.abs(wave_of(part) - expected).max() < 1e-6
        assert (part.source_rate_hz, part.values["peak"]) == (22050, round(float(np.float32(0.8)), 9))
    two = parts_of(tmp_path / "x.wav", replace(SHORT, part_s=2.5, max_parts=2), sound_only=True)
    assert [(part.start_sample, part.end_sample) for part in two] == [(0, 55125), (165375, 220500)]


def test_part_in_which_nothing_sounds_is_refused_alone(tmp_path: Path) -> None:
    wave = noise(6, 16000)
    wave[: 16000 * 2] = 0
    parts = parts_of(write_wav(tmp_path / "x.wav", wave, 16000), sound_only=True)
    assert [part.reason for part in parts] == ["silent", None, None, None, None]


def test_parts_that_a_header_promised_in_vain_are_too_short(tmp_path: Path) -> None:
    path = make_media(
        tmp_path / "x.flac", video=None, audio="flac", samples="s16", seconds=6, rate_hz=16000
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    parts = parts_of(path, replace(SHORT, part_s=1.1), sound_only=True)
    assert [part.reason for part in parts] == [None, None, "too_short", "too_short", "too_short"]
    assert parts[-1].detail == "0.000 s of sound, expected 1.024 s"
    assert parts[0].flags == ["partly_damaged", "upsampled"]


@pytest.mark.parametrize("name", ["x.mp3", "x.aac", "x.ogg", "x.flac", "x.m4a", "x.mkv", "x.flv"])
def test_length_is_told_by_every_container(name: str, tmp_path: Path) -> None:
    codec = {"mp3": "mp3", "ogg": "libopus", "flac": "flac"}.get(name[2:], "aac")
    rate_hz = 48000 if codec == "libopus" else 44100
    samples = "s16" if codec in ("flac", "libopus") else "fltp"
    path = make_media(
        tmp_path / name, video=None, audio=codec, seconds=5.7, rate_hz=rate_hz, samples=samples
    )
    parts = parts_of(path, replace(SHORT, part_s=1.1), sound_only=True)
    assert [part.reason for part in parts] == [None] * 5
    assert 5.6 < parts[-1].end_sample / rate_hz < 5.8


@pytest.mark.parametrize("name", ["x.mkv", "x.flv", "x.ts"])
def test_packets_that_are_rounded_to_milliseconds_lose_no_part(name: str, tmp_path: Path) -> None:
    path = make_media(tmp_path / name, video=None, audio="aac", seconds=8.15, rate_hz=44100)
    rate_hz, told = sound_length(str(path))
    assert 8.14 < told / rate_hz < 8.22
    assert len(parts_of(path, replace(SHORT, part_s=8.1), sound_only=True)) == 1


def test_sound_without_a_rate_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_media(tmp_path / "x.wav", seconds=1, **WAV)
    plain = headers.chosen_streams

    def without_rate(*given: Any) -> Any:
        video, audio = plain(*given)
        context = SimpleNamespace(rate=0)
        return video, SimpleNamespace(codec_context=context, duration=audio.duration)

    monkeypatch.setattr(headers, "chosen_streams", without_rate)
    assert refusal(path, sound_only=True) == ("damaged", "its sound tells no rate")


def test_short_sound_of_a_sound_dataset_is_too_short(tmp_path: Path) -> None:
    path = make_media(tmp_path / "x.wav", seconds=1.05, **WAV)
    assert refusal(path, sound_only=True) == ("too_short", "1.050 s, a part takes 1.1 s")


def test_memory_does_not_follow_from_the_length_of_a_sound(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from test_inputs import CONFIG, parts_of\n"
        "print(len(parts_of(sys.argv[1], CONFIG, sound_only=True)),"
        " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for minutes in (1, 10):
        path = tmp_path / f"{minutes}.wav"
        write_wav(path, noise(60, 22050), 22050)
        with path.open("ab") as stream:
            for _ in range(minutes - 1):
                stream.write(noise(60, 22050).tobytes())
        size = path.stat().st_size
        with path.open("r+b") as stream:
            for at, length in ((4, size - 8), (40, size - 44)):
                stream.seek(at)
                stream.write(struct.pack("<I", length))
        words = [sys.executable, "-c", code, str(path)]
        folder = Path(__file__).parent
        paths = f"{folder}:{folder.parent / 'curation'}"
        ran = subprocess.run(
            words, env={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        parts, peak_kb = map(int, ran.stdout.split())
        assert parts == 5
        peaks.append(peak_kb)
    assert peaks[1] - peaks[0] < 10_000, f"{peaks} KB; ten minutes are 53,000 KB"
