"""`extract --scan`: a scan on the same decode; its bytes and those of the shards are as without."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_media import make_media
from made_once import made_once
from small_clips import TINY, digests, finish, start

from curation import console
from curation.media import ridden
from curation.media.answer import Answer
from curation.media.carried import read_notes
from curation.media.fingerprint import part_of
from curation.media.prints import Prints
from curation.media.ridden import Spool
from curation.tasks import Task, part_folders, write_sealed
from curation.verdict import Reason
from features import cli
from features.extraction import riding
from features.extraction.riding import SCAN, Ride
from features.inputs import child as child_module
from features.inputs.feeding import Preparer
from features.inputs.prepared import InputConfig, Prepared, Request
from features.inputs.room import Layout, Room, Rooms

OUTSIDE = {".lock", "manifests.duckdb"}  # of the promise of equal bytes
RIDING = riding._decoder(InputConfig(sample_rate_hz=16000))
OTHER = replace(RIDING, max_duration_s=50.0)
NUMBERS = range(60)
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
    return made_once(tmp_path_factory, "riding_media", write_media) / "my_clips"


def write_media(place: Path) -> None:
    folder = place / "my_clips"
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
    folder = made_once(tmp_path_factory, "scanned_alone", lambda at: scan(at / "manifests", media))
    return folder / "manifests"


@pytest.fixture(scope="module")
def shards(scanned: Path, media: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of what extract alone writes."""

    def make(folder: Path) -> None:
        code, _, err = finish(start(words(scanned, media, folder / "out")))
        assert code == 3, err

    return digests(made_once(tmp_path_factory, "extracted_alone", make) / "out")


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


@pytest.mark.soak
@pytest.mark.parametrize("share", [0.35, 0.8])
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


# ---- many spools ------------------------------------------------------------------------------------


@pytest.fixture
def spools(tmp_path: Path) -> list[Path]:
    """Of a dataset that is built, in `out`: twelve of five clips each, two made under other limits."""
    (tmp_path / "m" / "films").mkdir(parents=True)
    pq.write_table(pa.table({"clip_id": ["clip0"]}), tmp_path / "m" / "films" / "clips.parquet")
    (tmp_path / "out" / "clips").mkdir(parents=True)
    made = []
    for task in range(12):
        folder = tmp_path / "out" / SCAN / f"{task:05d}-of-00012"
        spool = Spool(folder, OTHER if task in (3, 8) else RIDING)
        for number in NUMBERS[5 * task : 5 * task + 5]:
            spool.add(clip(number), [number, 1000 + number], answer(number))
        spool.close()
        made.append(folder)
    return made


def clip(number: int) -> dict[str, Any]:
    name = f"clip{number}"
    return {"dataset": "films", "clip_id": name, "start_s": 0.0, "end_s": 9.0, "file": f"{name}.mp4"}


def answer(number: int) -> Answer:
    """Every seventh failed; the thumbnails of the others are of their number."""
    digest = f"sha256:{number:064x}"
    if number % 7 == 0:
        return Answer(status="failed", reason=Reason.NO_STREAMS, content_digest=digest)
    arrays = {"thumbs": np.full((2, 4, 4), number, np.uint8), "audio_ms": np.arange(number, dtype="<i4")}
    values = {"duration_s": 9.0, "thumb_fps": 1.0}
    return Answer(status="scanned", content_digest=digest, values=values, arrays=arrays)


def check_taken(manifests: Path, numbers: Sequence[int] = NUMBERS) -> None:
    """Every clip lies in its part once, with what was said of it and of its file."""
    seen = []
    for part in part_folders(manifests / "fingerprints" / "films"):
        index, count = (int(word) for word in part.name.split("-of-"))
        rows = pq.read_table(part / "clips.parquet").to_pylist()
        content = pq.read_table(part / "content.parquet").to_pylist()
        thumbs = {row["clip_id"]: row["thumbs"] for row in content}
        for row in rows:
            number = int(row["clip_id"].removeprefix("clip"))
            seen.append(number)
            assert part_of(row["clip_id"], count) == index
            assert row["content_digest"] == answer(number).content_digest
            assert row["audio_ms"] == ([] if number % 7 == 0 else list(range(number)))
            assert thumbs.get(row["clip_id"]) == (None if number % 7 == 0 else bytes([number]) * 32)
            assert read_notes(part)[row["file"]] == [number, 1000 + number, row["content_digest"]]
    assert sorted(seen) == list(numbers)


def test_each_spool_is_read_once_however_many_groups_its_rows_go_to(
    spools: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    plain, length = pq.ParquetFile.__init__, pq.read_metadata

    def noted(self: Any, source: Any, *args: Any, **more: Any) -> None:
        opened.append(source)
        plain(self, source, *args, **more)

    monkeypatch.setattr(pq.ParquetFile, "__init__", noted)
    monkeypatch.setattr(pq, "read_metadata", lambda path: (opened.append(path), length(path))[1])
    monkeypatch.setattr(ridden, "_AT_ONCE", 4)
    monkeypatch.setattr(ridden, "_CLIPS_EACH", 2)
    assert ridden.take_in(tmp_path / "m", "films", spools, RIDING) == len(NUMBERS)
    once = {spool / "films" / "content.parquet": 1 for spool in spools}
    twice = {spool / "films" / "clips.parquet": 2 for spool in spools}  # its length, and its rows
    times = Counter(opened)
    assert {path: times[path] for path in (*once, *twice)} == once | twice
    assert len(part_folders(tmp_path / "m" / "fingerprints" / "films")) > 12
    check_taken(tmp_path / "m")
    assert sorted(spools[0].parent.iterdir()) == spools


def test_spool_that_is_damaged_or_gone_is_left_out(spools: list[Path], tmp_path: Path) -> None:
    shutil.rmtree(spools[1])
    content = spools[4] / "films" / "content.parquet"
    content.write_bytes(bytes(content.stat().st_size))
    left = [number for number in NUMBERS if number // 5 not in (1, 4)]
    assert ridden.take_in(tmp_path / "m", "films", spools, RIDING) == len(left)
    check_taken(tmp_path / "m", left)


def test_part_that_a_scan_made_meanwhile_stays(
    spools: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "m" / "fingerprints" / "films" / "00000-of-00001"
    part.mkdir(parents=True)
    write_sealed(part / "task.json", {"outputs": {}})
    before = (part / "task.json").read_bytes()
    monkeypatch.setattr(ridden, "_num_parts", lambda stage, clips: 1)  # as seen before it was made
    assert ridden.take_in(tmp_path / "m", "films", spools, RIDING) is None
    assert (part / "task.json").read_bytes() == before


def test_scan_that_ends_meanwhile_has_all_clips(
    spools: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = tmp_path / "m" / "fingerprints" / "films"

    def cleared(*args: Any) -> list[Task]:
        raise FileNotFoundError(stage / "00000-of-00001.tmp-task")

    monkeypatch.setattr(ridden, "run", cleared)
    with pytest.raises(FileNotFoundError):
        ridden.take_in(tmp_path / "m", "films", spools, RIDING)

    def sealed(*args: Any) -> list[Task]:
        stage.mkdir(parents=True)
        write_sealed(stage / "scan.json", {})
        return cleared()

    monkeypatch.setattr(ridden, "run", sealed)
    assert ridden.take_in(tmp_path / "m", "films", spools, RIDING) == 0


ARRIVE = """
import sys
from pathlib import Path
from curation.tasks import Task
from features.inputs.prepared import InputConfig
from features.extraction.riding import Ride
manifests, out = map(Path, sys.argv[1:])
ride = Ride(manifests, out, ["films"], InputConfig(sample_rate_hz=16000))
print("ready", flush=True)
sys.stdin.readline()
arrived = ride.arrive([Task(index, 12, {}) for index in range(12)])
print(arrived.clips, arrived.waiting)
"""


@pytest.mark.slow
def test_of_two_runs_that_end_together_one_takes_in_after_the_other(
    spools: list[Path], tmp_path: Path
) -> None:
    words = [sys.executable, "-c", ARRIVE, tmp_path / "m", tmp_path / "out"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(words, **pipes) for _ in range(2)]
    assert [one.stdout.readline() for one in both if one.stdout] == ["ready\n"] * 2
    for one in both:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    assert sorted(one.communicate(timeout=120)[0] for one in both) == ["0 0\n", "60 0\n"]
    assert [one.returncode for one in both] == [0, 0]
    assert not (tmp_path / "out" / SCAN).exists()
    check_taken(tmp_path / "m")


def test_who_waited_for_long_leaves_his_own_to_the_next_run(
    spools: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "out" / "clips" / ".seal.lock"
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print(flush=True); input()"
    )
    monkeypatch.setattr(riding, "_PATIENCE_S", 0.3)
    ride = Ride(tmp_path / "m", tmp_path / "out", ["films"], InputConfig(sample_rate_hz=16000))
    tasks = [Task(index, 12, {}) for index in range(12)]
    with subprocess.Popen(
        [sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        arrived = ride.arrive(tasks)
        other.communicate(b"\n")
    assert (arrived.clips, arrived.waiting) == (0, 1)
    assert all(spool.is_dir() for spool in spools)
    arrived = ride.arrive(tasks)
    assert (arrived.clips, arrived.waiting) == (60, 0)
    assert not (tmp_path / "out" / SCAN).exists()


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
    [
        ({"peak": "none"}, False),
        ({"compat": True, "duration_s": 4.0}, False),
        ({"peak": "none", "duration_s": 4.0}, True),
    ],
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
