"""`extract --scan`: a scan on the same decode; its bytes and those of the shards are as without."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from made_media import make_media
from small_clips import TINY, digests, finish, start

from curation import console
from curation.media.prints import Prints
from curation.tasks import Task
from curation.verdict import Reason
from features import cli
from features import input_child as child_module
from features.feeding import Preparer
from features.prepared import InputConfig, Prepared, Request
from features.riding import SCAN, Ride
from features.room import Layout, Room, Rooms

OUTSIDE = {".lock", "manifests.duckdb"}  # of the promise of equal bytes
Run = Callable[..., tuple[int, str, str]]


def written(folder: Path) -> dict[str, bytes]:
    """What the promise of equal bytes is about."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in OUTSIDE and not path.name.endswith(".files.json")
    }


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that ride, and those that cannot: damaged, cut short, without sound, too short, no media."""
    folder = tmp_path_factory.mktemp("media") / "my_clips"
    make_media(folder / "film.mp4", seconds=9.0)
    make_media(folder / "longer.mp4", seconds=14.0, fps=25, codec={"bf": "3", "g": "50"}, seed=4)
    make_media(folder / "mpeg4.mp4", video="mpeg4", seconds=9.0, seed=5)
    make_media(folder / "late.mkv", seconds=9.0, sound_begins_s=1.0, seed=6)
    make_media(folder / "mute.mp4", seconds=9.0, audio=None, seed=7)
    make_media(folder / "short.mp4", seconds=2.0, seed=8)
    make_media(folder / "slides.mkv", fps=1, seconds=75.0, times_ms=[0, 70_000], seed=9)
    make_media(
        folder / "sound.wav", video=None, audio="pcm_s16le", samples="s16", layout="mono", seconds=70.0
    )
    whole = (folder / "longer.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[:300])
    middle = len(whole) * 2 // 3
    (folder / "scratched.mp4").write_bytes(whole[:middle] + bytes(600) + whole[middle + 600 :])
    film = (folder / "late.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(film[: len(film) * 2 // 3])
    (folder / "page.mp4").write_text("<!doctype html>")
    return folder


def words(manifests: Path, media: Path, out: Path, *more: str) -> list[str]:
    return [
        "extract", "--sr", "16000", "--manifest", str(manifests / "my_clips"), "--media", str(media),
        "--manifests", str(manifests), "--out", str(out), *TINY, "--shard-rows", "5", "--threads", "1",
        "--workers", "1", "--decoders", "1", *more,
    ]  # fmt: skip


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(given: Sequence[str]) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["features", *given])
        code = console.run(cli.features, "features")
        return (code, *capsys.readouterr())

    return run


def scan(manifests: Path, media: Path) -> None:
    line = [sys.executable, "-c", "from curation.cli import main; main()", "scan", str(media)]
    ran = subprocess.run([*line, "--manifests", str(manifests), "--workers", "1"], capture_output=True)
    assert ran.returncode == 3, ran.stderr.decode()


@pytest.fixture(scope="module")
def scanned(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests in which the folder was scanned and nothing else was done."""
    manifests = tmp_path_factory.mktemp("scanned") / "manifests"
    scan(manifests, media)
    return manifests


@pytest.fixture(scope="module")
def shards(scanned: Path, media: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of what extract alone writes."""
    out: Path = tmp_path_factory.mktemp("alone") / "out"
    code, _, err = finish(start(words(scanned, media, out)))
    assert code == 3, err
    return digests(out)


@pytest.fixture
def built(scanned: Path, tmp_path: Path) -> Path:
    """Manifests in which the dataset is built and not scanned."""
    manifests = Path(shutil.copytree(scanned, tmp_path / "manifests"))
    shutil.rmtree(manifests / "fingerprints")
    return manifests


# ---- whole runs -------------------------------------------------------------------------------------


def scan_here(manifests: Path, media: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    from curation.cli import curate

    monkeypatch.setattr(
        "sys.argv", ["curate", "scan", str(media), "--manifests", str(manifests), "--workers", "1"]
    )
    return console.run(curate, "curate")


def test_scan_decodes_nothing_again_and_writes_what_it_writes_alone(
    built: Path, scanned: Path, media: Path, shards: dict[str, str], decoded: list[str],
    features: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    code, said, err = features(words(built, media, out, "--scan"))
    assert code == 3, err
    assert "fingerprints of 12 clips for `curate scan`" in said
    assert digests(out) == shards, "not a byte of the shards follows from it"
    assert not (out / SCAN).exists()
    assert not (built / "fingerprints" / "my_clips" / "scan.json").exists()
    assert scan_here(built, media, monkeypatch) == 3
    assert decoded == []
    assert written(built) == written(scanned)


def test_dataset_that_was_scanned_or_is_not_built_is_left_alone(
    scanned: Path, built: Path, tmp_path: Path
) -> None:
    config = InputConfig(sample_rate_hz=16000)
    asked = {
        manifests: Ride(manifests, tmp_path, ["my_clips", "other"], config).asked(Task(0, 1, {}))
        for manifests in (scanned, built)
    }
    assert asked[scanned]["datasets"] == []
    assert asked[built]["datasets"] == ["my_clips"]


@pytest.mark.soak
def test_clips_that_were_extracted_before_are_left_to_scan(
    built: Path, scanned: Path, media: Path, decoded: list[str], features: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    features(words(built, media, out, "--task", "0/2"))
    _, said, _ = features(words(built, media, out, "--scan"))
    assert "fingerprints of 5 clips" in said
    scan_here(built, media, monkeypatch)
    assert len(decoded) == 7
    assert written(built) == written(scanned)


@pytest.mark.soak
def test_shares_add_to_each_other_beside_the_parts_of_a_scan_that_was_killed(
    built: Path, scanned: Path, media: Path, decoded: list[str], features: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stage = built / "fingerprints" / "my_clips"
    (part, *_) = sorted((scanned / "fingerprints" / "my_clips").glob("*-of-*/"))
    shutil.copytree(part, stage / part.name)
    for share in ("1/3", "0/3", "2/3"):
        features(words(built, media, tmp_path / "out", "--scan", "--task", share))
    assert (stage / part.name).is_dir()
    scan_here(built, media, monkeypatch)
    assert decoded == []
    assert written(built) == written(scanned)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.35, pytest.param(0.8, marks=pytest.mark.soak)])
def test_killed_run_is_continued(
    share: float, built: Path, scanned: Path, media: Path, shards: dict[str, str],
    decoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whatever was killed when a task was done comes in by the next run."""
    out = tmp_path / "out"
    process = start(words(built, media, out, "--scan"), start_new_session=True)
    wanted = round(share * 3)
    until_s = time.monotonic() + 120
    while len(list(out.glob("clips/*/task.json"))) < wanted and process.poll() is None:
        assert time.monotonic() < until_s
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    code, _, err = finish(start(words(built, media, out, "--scan")))
    assert code == 3, err
    assert digests(out) == shards
    assert scan_here(built, media, monkeypatch) == 3
    assert decoded == []
    assert written(built) == written(scanned)


# ---- one clip ---------------------------------------------------------------------------------------


def rides(path: Path, config: InputConfig, *, sound_only: bool = False) -> bool:
    """Whether the scan of a clip is made on the same decode; that it tells the same is checked above."""
    request = Request(clip_id="one", path=str(path), sound_only=sound_only, scan=True)
    room = Room(Layout(config).num_bytes)
    beside = Prints().beside()
    child_module.prepared(request, config, room.file, beside)
    return beside.found is not None


def test_flawless_clips_with_sound_ride_and_others_are_decoded_twice(media: Path) -> None:
    config = InputConfig(sample_rate_hz=16000)
    riding = {path.name for path in media.iterdir() if rides(path, config)}
    assert {"film.mp4", "longer.mp4", "mpeg4.mp4", "late.mkv", "short.mp4", "sound.wav"} <= riding
    assert riding.isdisjoint({"mute.mp4", "broken.mp4", "scratched.mp4", "page.mp4", "slides.mkv"})
    assert rides(media / "film.mp4", config, sound_only=True)


@pytest.mark.parametrize(
    ("how", "sound_only"),
    [({"peak": "none"}, False), ({"compat": True}, False), ({"peak": "none", "duration_s": 4.0}, True)],
)
def test_neither_side_is_changed_by_the_other(
    how: dict[str, Any], sound_only: bool, media: Path
) -> None:
    config = InputConfig(sample_rate_hz=16000, **how)
    for path in sorted(media.iterdir()):
        request = Request(clip_id="one", path=str(path), sound_only=sound_only)
        rooms = [Room(Layout(config).num_bytes) for _ in range(2)]
        alone = child_module.prepared(request, config, rooms[0].file)
        both = child_module.prepared_and_scanned(request, config, rooms[1].file)
        assert _said(both) == _said(alone), path.name
        assert both.scan is not None
        prints = Prints()
        expected = child_module._scanned(request, config, prints, prints.beside())
        assert both.scan.values == expected.values, path.name
        assert (both.scan.reason, both.scan.detail) == (expected.reason, expected.detail)
        assert {name: array.tobytes() for name, array in both.scan.arrays.items()} == {
            name: array.tobytes() for name, array in expected.arrays.items()
        }


def _said(prepared: Prepared) -> list[Any]:
    """All that shards follow from."""
    said: list[Any] = [prepared.reason, prepared.detail, prepared.content_digest]
    for part in prepared.parts:
        arrays = (part.wave_s, part.clip_tchw, part.sync_tchw)
        said += [part.start_sample, part.end_sample, part.reason, part.detail, part.flags, part.values]
        said += [None if array is None else array.tobytes() for array in arrays]
    return said


def test_what_a_clip_meets_with_a_scan_it_must_meet_without(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(self: Preparer, request: Request, room: Room) -> Prepared:
        asked.append(request.scan)
        return Prepared(reason=Reason.TIMEOUT) if request.scan else Prepared(reason=Reason.SILENT)

    monkeypatch.setattr(Preparer, "_ask", ask)
    config = InputConfig(sample_rate_hz=16000)
    preparer = Preparer(config, Rooms(Layout(config).num_bytes), Event())
    prepared = preparer.prepare(Request(clip_id="one", path="", scan=True))
    assert (prepared.reason, prepared.scan) == (Reason.SILENT, None)
    assert asked == [True, False]
