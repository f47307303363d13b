"""Scan: every clip once, the same bytes whoever does it, and a folder as a dataset like any other."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_media import make_media

from curation.catalog.store import fingerprint_files, refresh_views
from curation.decision.revoke import looked_at
from curation.errors import BadManifest, UsageProblem
from curation.files import sha256_file
from curation.manifest import CONTENT_COLUMNS, FINGERPRINT_COLUMNS, arrow_schema
from curation.media import carried as carried_module
from curation.media import decoder as decoder_module
from curation.media import fingerprint as fingerprint_module
from curation.media import scan as scan_module
from curation.media.answer import Answer
from curation.media.audio_hash import BANDS
from curation.media.fingerprint import ContentReader, part_of, read_fingerprints, read_scan
from curation.media.locate import Wanted, file_name, locate, media_folder
from curation.media.video_hash import THUMB_PX
from curation.tasks import Task
from curation.verdict import Reason

Run = Callable[..., tuple[int, str, str]]
OUTSIDE = {".lock", "manifests.duckdb", "fetched.json"}  # of the promise of equal bytes
NUM_GOOD = 20


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty clips in two folders, a damaged one and a web page that is named like one."""
    folder = tmp_path_factory.mktemp("media") / "my_clips"
    for number in range(NUM_GOOD):
        place = folder / ("one" if number % 2 else "two") / f"clip{number:02d}.mp4"
        make_media(place, seed=number, seconds=1, audio="aac" if number % 3 else None)
    (folder / "broken.mp4").write_bytes((folder / "two" / "clip00.mp4").read_bytes()[:300])
    (folder / "page.mp4").write_text("<!doctype html>")
    (folder / "notes.txt").write_text("no media")
    return folder


def lasting(folder: Path) -> dict[str, bytes]:
    """What the promise of equal bytes is about."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in OUTSIDE and not path.name.endswith(".files.json")
    }


def command(manifests: Path, folder: Path, *words: str) -> list[str]:
    line = [sys.executable, "-c", "from curation.cli import main; main()", "scan", str(folder)]
    return [*line, "--manifests", str(manifests), *words]


def scan(manifests: Path, folder: Path, *words: str) -> int:
    """`curate scan` in a process of its own; its exit code."""
    ran = subprocess.run(command(manifests, folder, *words), capture_output=True, text=True, check=False)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode


@pytest.fixture(scope="module")
def scanned(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests in which that folder was scanned by one worker without a break."""
    manifests = tmp_path_factory.mktemp("scanned") / "manifests"
    assert scan(manifests, media, "--workers", "1") == 3
    return manifests


# ---- what is written ----------------------------------------------------------------------------------


def test_every_clip_is_a_row_with_its_facts(scanned: Path) -> None:
    table = read_fingerprints(scanned, "my_clips")
    assert table.schema.remove_metadata() == arrow_schema(FINGERPRINT_COLUMNS)
    ids = table["clip_id"].to_pylist()
    assert ids == sorted(ids)
    assert len(ids) == NUM_GOOD + 2
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    assert (rows["broken.mp4"]["status"], rows["broken.mp4"]["reason"]) == ("failed", "damaged")
    assert (rows["page.mp4"]["status"], rows["page.mp4"]["reason"]) == ("failed", "not_media")
    row = rows["one/clip01.mp4"]
    assert (row["status"], row["reason"], row["file"]) == ("scanned", None, "one/clip01.mp4")
    assert (row["video_codec"], row["width_px"], row["height_px"]) == ("h264", 64, 48)
    assert (row["audio_codec"], row["sample_rate_hz"], row["channels"]) == ("aac", 44100, 2)
    assert row["duration_s"] == pytest.approx(1, abs=0.1)
    assert len(row["hash"]) == len(row["hash_ms"]) == len(row["hash_view"]) == len(row["flatness"]) > 0
    assert rows["two/clip00.mp4"]["audio_codec"] is None
    assert rows["two/clip00.mp4"]["audio_item"] == []


def test_content_is_read_by_clip(scanned: Path) -> None:
    content = ContentReader(scanned, "my_clips")
    for clip_id, sounds in (("one/clip01.mp4", True), ("two/clip00.mp4", False)):
        thumbs, bands = content[clip_id]
        assert thumbs.shape[1:] == (THUMB_PX, THUMB_PX)
        assert thumbs.dtype == bands.dtype == np.uint8
        assert len(thumbs) == 8
        assert (len(bands) > 0) == sounds
        assert not sounds or bands.shape[1] == BANDS
    with pytest.raises(KeyError):
        content["broken.mp4"]
    part = scanned / "fingerprints" / "my_clips" / read_scan(scanned, "my_clips")["parts"][0]["name"]
    schema = pq.read_schema(part / "content.parquet")
    assert schema.remove_metadata() == arrow_schema(CONTENT_COLUMNS)


def test_few_files_and_groups_of_content_are_held_at_a_time(
    scanned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many parts there are: here more than may be open at once, in whatever order."""
    rows = read_fingerprints(scanned, "my_clips", ["status"]).to_pylist()
    ids = [row["clip_id"] for row in rows if row["status"] == "scanned"]
    plain = ContentReader(scanned, "my_clips")
    expected = {clip_id: plain[clip_id] for clip_id in ids}
    assert len({part_of(clip_id, len(plain._paths)) for clip_id in ids}) > 1
    monkeypatch.setattr(fingerprint_module, "_FILES_HELD", 1)
    monkeypatch.setattr(fingerprint_module, "_GROUPS_HELD", 1)
    reader = ContentReader(scanned, "my_clips")
    opened = {}
    for clip_id in random.Random(1).choices(ids, k=60):
        for found, wanted in zip(reader[clip_id], expected[clip_id], strict=True):
            assert np.array_equal(found, wanted)
        assert len(reader._contents._groups) == len(reader._contents._files) == 1
        (file,) = reader._contents._files.values()
        opened[id(file)] = file._file
    assert sum(not file.closed for file in opened.values()) == 1, "what is dropped is closed"
    assert len(opened) > 1


def test_parts_of_a_scan_that_goes_on_are_not_read_beside_the_finished(
    own: tuple[Path, Path], curate: Run
) -> None:
    _, manifests = own
    count = "select count(*), count(distinct clip_id) from fingerprints"
    stage = manifests / "fingerprints" / "my_clips"
    key = "local:my_clips/one/clip01.mp4"
    part = stage / f"{part_of('one/clip01.mp4', len(read_scan(manifests, 'my_clips')['parts'])):05d}"
    shutil.copytree(next(stage.glob(f"{part.name}-of-*/")), stage / "00000-of-00256")
    assert refresh_views(manifests) == []
    assert looked_at(manifests, [key]) == [
        "fingerprints: 1 clip of it, until its dataset is scanned again"
    ]
    _, out, _ = curate("sql", count, "--manifests", manifests, "--format", "csv")
    assert out.splitlines()[1] == "22,22"
    parts = read_scan(manifests, "my_clips")["parts"]
    listed = [stage / part["name"] / "clips.parquet" for part in parts]
    assert fingerprint_files(manifests, "my_clips") == listed
    (stage / "scan.json").write_text("{}")
    (fault,) = refresh_views(manifests)
    assert "scan.json: is not as scan wrote it" in fault
    (line,) = looked_at(manifests, [key])
    assert "scan.json: is not as scan wrote it" in line, "and no takedown is stopped by it"
    (stage / "scan.json").unlink()
    assert refresh_views(manifests) == []
    assert fingerprint_files(manifests, "my_clips") == []


def test_parts_hold_the_clips_that_their_number_says(scanned: Path) -> None:
    record = read_scan(scanned, "my_clips")
    assert len(record["parts"]) & (len(record["parts"]) - 1) == 0, "a power of two"
    for number, part in enumerate(record["parts"]):
        path = scanned / "fingerprints" / "my_clips" / part["name"] / "clips.parquet"
        ids = pq.read_table(path, columns=["clip_id"])["clip_id"].to_pylist()
        assert ids == sorted(ids)
        assert {part_of(clip_id, len(record["parts"])) for clip_id in ids} <= {number}
    assert record["counts"] == {
        "clips": NUM_GOOD + 2, "scanned": NUM_GOOD, "partly_damaged": 0,
        "failed": {"damaged": 1, "not_media": 1},
    }  # fmt: skip


def test_damaged_fingerprints_are_not_read(scanned: Path, tmp_path: Path) -> None:
    manifests = Path(shutil.copytree(scanned, tmp_path / "manifests"))
    part = next((manifests / "fingerprints" / "my_clips").glob("*/clips.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(BadManifest, match="scan again"):
        read_fingerprints(manifests, "my_clips")
    with pytest.raises(UsageProblem, match="were not scanned"):
        read_fingerprints(manifests, "other")


def test_other_versions_are_not_mixed(scanned: Path, media: Path, tmp_path: Path) -> None:
    manifests = Path(shutil.copytree(scanned, tmp_path / "manifests"))
    folder = manifests / "fingerprints" / "my_clips"
    path = next(folder.glob("*/clips.parquet"))
    table = pq.read_table(path)
    about = table.schema.metadata[b"foleyproof"].replace(b"phash64-area/2", b"phash64-area/0")
    pq.write_table(table.replace_schema_metadata({b"foleyproof": about}), path)
    record = json.loads((folder / "scan.json").read_text())
    for part in record["parts"]:
        if part["name"] == path.parent.name:
            part["outputs"]["clips.parquet"]["bytes"] = path.stat().st_size
    from curation.files import digest_of

    record["digest"] = digest_of(record)
    (folder / "scan.json").write_text(json.dumps(record))
    with pytest.raises(BadManifest, match="other versions"):
        read_fingerprints(manifests, "my_clips")


# ---- again, in parts, in any order --------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["2", "5"])
def test_any_number_of_workers_writes_the_same_bytes(
    workers: str, scanned: Path, media: Path, tmp_path: Path
) -> None:
    assert scan(tmp_path / "m", media, "--workers", workers) == 3
    assert lasting(tmp_path / "m") == lasting(scanned)


def test_shares_at_the_same_time_write_the_same_bytes(
    scanned: Path, media: Path, tmp_path: Path
) -> None:
    words = [command(tmp_path / "m", media, "--task", f"{i}/3", "--workers", "1") for i in range(3)]
    running = [subprocess.Popen(w, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for w in words]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode in (0, 3), err.decode()
    assert lasting(tmp_path / "m") == lasting(scanned)


def test_shares_one_after_another_write_the_same_bytes(
    scanned: Path, media: Path, tmp_path: Path
) -> None:
    for index in (1, 2, 0):
        assert scan(tmp_path / "m", media, "--task", f"{index}/3") in (0, 3)
    assert lasting(tmp_path / "m") == lasting(scanned)


def begun_and_killed(manifests: Path, media: Path, delay_s: float) -> float | None:
    """Scan, and kill the run and all it started some time after it began to decode.

    Returns how long it decoded where it came to its end before, else None.
    """
    lock = manifests / "fingerprints" / "my_clips" / ".lock"
    lock.unlink(missing_ok=True)  # made when the clips' turn has come
    process = subprocess.Popen(
        command(manifests, media, "--workers", "2"), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until_s = time.monotonic() + 120
        while not lock.exists():
            assert process.poll() is None, "it ended before it began"
            assert time.monotonic() < until_s
            time.sleep(0.005)
        begun_s = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay_s)
            return time.monotonic() - begun_s
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


KILLS = pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.soak)])


@pytest.mark.slow
@KILLS
@pytest.mark.parametrize("before", ["nothing", "other media"])
def test_killed_scan_run_again_writes_the_same_bytes(
    before: str, kills: int, scanned: Path, media: Path, tmp_path: Path
) -> None:
    """Also where it was to bring fingerprints up to date with media that changed since."""
    if before == "nothing":
        now, expected = media, lasting(scanned)
    else:
        now = Path(shutil.copytree(media, tmp_path / "my_clips"))
        for number in range(0, NUM_GOOD, 2):
            make_media(now / "two" / f"clip{number:02d}.mp4", seed=200 + number, seconds=1.2)
        assert scan(tmp_path / "anew", now, "--workers", "1") == 3
        expected = lasting(tmp_path / "anew")

    def made(name: str) -> Path:
        manifests = tmp_path / name
        return manifests if before == "nothing" else Path(shutil.copytree(scanned, manifests))

    whole_s = begun_and_killed(made("whole"), now, 300)
    assert whole_s is not None
    cut_short = 0
    for number in range(kills):
        manifests = made(str(number))
        killed = begun_and_killed(manifests, now, whole_s * (0.05 + 0.8 * number / kills)) is None
        cut_short += killed and lasting(manifests) != expected
        assert scan(manifests, now, "--workers", "2") == 3
        assert lasting(manifests) == expected, number
        assert not [path for path in manifests.rglob("*.tmp-*")]
        shutil.rmtree(manifests)
    assert cut_short >= kills // 2


@pytest.fixture
def own(media: Path, scanned: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the media, with their times, and of the manifests."""
    folder = Path(shutil.copytree(media, tmp_path / "my_clips"))
    return folder, Path(shutil.copytree(scanned, tmp_path / "manifests"))


def test_scan_of_what_is_scanned_decodes_nothing(
    own: tuple[Path, Path], scanned: Path, decoded: list[str], curate: Run
) -> None:
    folder, manifests = own
    code, out, err = curate("scan", folder, "--manifests", manifests)
    assert (code, decoded) == (3, []), err
    assert lasting(manifests) == lasting(scanned)
    assert "22 clips = 20 scanned + 2 failed (damaged 1, not_media 1)" in out
    assert "23 files = 22 of clips + 0 unmatched + 1 not media" in out
    assert "next: curate duplicates" in err


def test_touched_file_is_hashed_and_not_decoded(
    own: tuple[Path, Path], scanned: Path, decoded: list[str], curate: Run
) -> None:
    folder, manifests = own
    os.utime(folder / "one" / "clip01.mp4", (1, 1))
    curate("scan", folder, "--manifests", manifests)
    assert decoded == []
    assert lasting(manifests) == lasting(scanned)


def test_only_what_changed_is_decoded(own: tuple[Path, Path], decoded: list[str], curate: Run) -> None:
    folder, manifests = own
    make_media(folder / "one" / "clip01.mp4", seed=77, seconds=1)
    (folder / "one" / "clip03.mp4").unlink()
    make_media(folder / "new.mp4", seed=78, seconds=1)
    curate("scan", folder, "--manifests", manifests)
    assert sorted(decoded) == ["clip01.mp4", "new.mp4"]
    ids = read_fingerprints(manifests, "my_clips")["clip_id"].to_pylist()
    assert "new.mp4" in ids
    assert "one/clip03.mp4" not in ids


def test_file_changed_since_a_rescan_that_was_killed_is_decoded(
    own: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, curate: Run
) -> None:
    """Killed when the notes on the files of a part are written, and the part is not in its place yet."""
    folder, manifests = own
    make_media(folder / "one" / "clip01.mp4", seed=77, seconds=2)
    plain, noted = scan_module.write_notes, []

    def note_and_end(*about: Any) -> None:
        plain(*about)
        noted.append(about)
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_module, "write_notes", note_and_end)
    assert curate("scan", folder, "--manifests", manifests, "--workers", "1")[0] not in (0, 3)
    assert len(noted) == 1
    monkeypatch.undo()
    curate("scan", folder, "--manifests", manifests)
    curate("scan", folder, "--manifests", tmp_path / "anew")
    assert lasting(manifests) == lasting(tmp_path / "anew")
    rows = {row["clip_id"]: row for row in read_fingerprints(manifests, "my_clips").to_pylist()}
    assert rows["one/clip01.mp4"]["duration_s"] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.DECODER_CRASHED])
def test_clip_that_failed_by_the_machine_is_tried_again_once_by_each_run(
    reason: Reason, own: tuple[Path, Path], scanned: Path, monkeypatch: pytest.MonkeyPatch, curate: Run
) -> None:
    folder, manifests = own
    tried: list[str] = []
    busy = True
    plain = decoder_module.Decoder.scan

    def decode(self: Any, path: str, **cut: Any) -> Answer:
        tried.append(Path(path).name)
        failed = Answer(status="failed", reason=reason, detail="that day", content_digest=digest)
        return failed if busy else plain(self, path, **cut)

    monkeypatch.setattr(decoder_module.Decoder, "scan", decode)
    with (folder / "one" / "clip01.mp4").open("ab") as file:
        file.write(bytes(8))
    digest = f"sha256:{sha256_file(folder / 'one' / 'clip01.mp4')}"
    for _ in range(3):
        _, out, _ = curate("scan", folder, "--manifests", manifests)
        assert f"{reason} 1" in out
    assert tried == ["clip01.mp4"] * 3
    busy = False
    for _ in range(2):
        _, out, _ = curate("scan", folder, "--manifests", manifests)
        assert "22 clips = 20 scanned + 2 failed (damaged 1, not_media 1)" in out
    assert tried == ["clip01.mp4"] * 4


def test_parts_are_listed_once_by_a_run(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curate: Run
) -> None:
    listed: list[Path] = []
    plain = carried_module.part_folders
    monkeypatch.setattr(
        carried_module, "part_folders", lambda stage: (listed.append(stage), plain(stage))[1]
    )
    curate("scan", media, "--manifests", tmp_path / "m")
    assert len(read_scan(tmp_path / "m", "my_clips")["parts"]) > 1
    assert len(listed) == 1


@pytest.mark.parametrize("count", [1, 2, 8, 32])
def test_parts_that_may_hold_clips_of_a_task_are_found_whatever_their_number(
    count: int, tmp_path: Path
) -> None:
    there = [Task(index, former, {}) for former in (1, 4, 16) for index in range(former)]
    for task in there:
        (tmp_path / task.name).mkdir()
        (tmp_path / task.name / "task.json").write_text("{}")
    lying = carried_module.Lying(tmp_path)
    clips = [f"clip{number}" for number in range(500)]
    for index in range(count):
        task = Task(index, count, {})
        ours = [clip for clip in clips if part_of(clip, count) == index]
        held = {former.name for clip in ours for former in there
                if part_of(clip, former.count) == former.index}  # fmt: skip
        assert {path.name for path in lying.of(task)} == held | {task.name}


def test_other_number_of_parts_carries_rows_over(
    own: tuple[Path, Path], decoded: list[str], curate: Run, tmp_path: Path
) -> None:
    """Twice as many clips, twice as many parts: those that were scanned stay so, to the same bytes."""
    folder, manifests = own
    before = len(read_scan(manifests, "my_clips")["parts"])
    for number in range(30):
        make_media(folder / "more" / f"clip{number:02d}.mp4", seed=100 + number, seconds=0.3, audio=None)
    curate("scan", folder, "--manifests", manifests)
    assert len(decoded) == 30
    record = read_scan(manifests, "my_clips")
    assert len(record["parts"]) > before
    names = {path.name for path in (manifests / "fingerprints" / "my_clips").iterdir() if path.is_dir()}
    assert names == {part["name"] for part in record["parts"]}
    curate("scan", folder, "--manifests", tmp_path / "anew")
    assert lasting(tmp_path / "anew") == lasting(manifests)


def test_other_limit_tries_again_what_it_may_let_through(
    own: tuple[Path, Path], decoded: list[str], curate: Run
) -> None:
    folder, manifests = own
    code, out, _ = curate("scan", folder, "--manifests", manifests, "--max-duration", "0.5")
    assert code == 3
    assert "too_long 20" in out
    decoded.clear()
    curate("scan", folder, "--manifests", manifests)
    assert len(decoded) == 20


def test_reference_hashes_are_other_fingerprints(
    own: tuple[Path, Path], decoded: list[str], curate: Run
) -> None:
    folder, manifests = own
    curate("scan", folder, "--manifests", manifests, "--hash", "reference", "--workers", "1")
    assert len(decoded) == NUM_GOOD + 2
    versions = set(read_fingerprints(manifests, "my_clips")["hash_version"].to_pylist())
    assert versions == {"phash64-imagehash/2", None}


# ---- a folder as a dataset ----------------------------------------------------------------------------


def test_folder_is_a_dataset_like_any_other(own: tuple[Path, Path], curate: Run) -> None:
    _, manifests = own
    _, out, _ = curate("datasets", "--manifests", manifests, "--json")
    (mine,) = [d for d in json.loads(out)["datasets"] if d["dataset"] == "my_clips"]
    assert mine["state"].startswith("built")
    _, out, _ = curate(
        "sql", "select split, source, source_id, clip_id from my_clips order by all limit 1",
        "--manifests", manifests, "--format", "csv",
    )  # fmt: skip
    assert out.splitlines()[1] == "train,local,my_clips/broken.mp4,broken.mp4"
    code, _, err = curate("build", "my_clips", "--manifests", manifests)
    assert code == 0, err


def test_folder_may_be_named_clips(media: Path, tmp_path: Path, curate: Run) -> None:
    folder = Path(shutil.copytree(media / "one", tmp_path / "clips"))
    assert curate("scan", folder, "--manifests", tmp_path / "m")[0] == 0
    _, out, _ = curate("sql", "select count(*) from clips where dataset = 'clips'", "--manifests",
                       tmp_path / "m", "--format", "csv")  # fmt: skip
    assert out.splitlines()[1] == "10"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_list_says_what_the_clips_are(suffix: str, media: Path, tmp_path: Path, curate: Run) -> None:
    columns = ("file", "id", "split", "start_s", "caption", "source", "source_id")
    cells = [
        ("one/clip01.mp4", "a", "test", "", "a, square", "youtube", "4PjEi5fFD6A"),
        ("clip02.mp4", "b", "train", "3.5", "", "", ""),
        ("gone.mp4", "", "", "", "", "", ""),
        ("../../etc/passwd", "d", "", "-1", "", "", ""),
    ]
    rows = [dict(zip(columns, row, strict=True)) for row in cells]
    path = tmp_path / f"list.{suffix}"
    if suffix == "parquet":
        import pyarrow as pa

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        import csv

        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    manifests = tmp_path / "m"
    code, out, err = curate("scan", media, "--list", path, "--dataset", "mine", "--manifests", manifests)
    assert code == 3, err
    assert "3 clips = 2 scanned + 1 failed (no_media 1)" in out
    assert "20 unmatched" in out
    assert "mine: list: 4 rows = 3 kept + 1 failed (bad_time 1)" in out
    prints = {row["clip_id"]: row for row in read_fingerprints(manifests, "mine").to_pylist()}
    assert prints["a"]["file"] == "one/clip01.mp4"
    assert prints["b"]["file"] == "two/clip02.mp4"
    assert (prints["gone.mp4"]["status"], prints["gone.mp4"]["reason"]) == ("failed", "no_media")
    select = "select split, source, source_id, start_s, captions from mine order by clip_id"
    _, out, _ = curate("sql", select, "--manifests", manifests, "--json")
    assert '"a, square"' in out
    assert curate("overlaps", "--test", "mine/test", "--train", "mine", "--manifests", manifests)[0] == 0


def test_names_of_any_kind_are_clips(tmp_path: Path, curate: Run) -> None:
    folder = tmp_path / "Odd Names-2"
    names = ["a b.mp4", "a\nb.mp4", "q\"uo,te's.mp4", "-i.mp4", "ünï🎬.mp4", "concat:x.mp4"]
    for name in names:
        make_media(folder / name, seconds=0.3, audio=None)
    shutil.copy(folder / names[0], os.fsencode(folder) + b"/caf\xe9.mp4")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "dangling.mp4").symlink_to("nowhere")
    (folder / "loop").symlink_to(".")
    code, out, err = curate("scan", folder, "--manifests", tmp_path / "m")
    assert code == 0, out + err
    assert "7 clips = 7 scanned; 9 files = 7 of clips + 0 unmatched + 2 not media" in out
    table = read_fingerprints(tmp_path / "m", "odd_names_2")
    assert set(table["clip_id"].to_pylist()) == {*names, "caf\\xe9.mp4"}


# ---- the media of a built manifest --------------------------------------------------------------------


def test_media_of_a_built_dataset_are_found_by_the_patterns_of_its_card(
    corpus: Any, tmp_path: Path, curate: Run
) -> None:
    manifests = Path(shutil.copytree(corpus.manifests, tmp_path / "manifests"))
    clips = pq.read_table(manifests / "vggsound" / "clips.parquet").slice(0, 3).to_pylist()
    folder = tmp_path / "media"
    for number, clip in enumerate(clips):
        name = f"{clip['source_id']}_{int(clip['start_s']):06d}.mp4"
        make_media(folder / f"part{number}" / name, seed=number, seconds=0.5)
    make_media(folder / "other.mp4", seconds=0.5)
    words = ("--manifests", manifests)
    code, out, err = curate("scan", "--dataset", "vggsound", folder, *words)
    assert code == 3, err
    total = pq.read_metadata(manifests / "vggsound" / "clips.parquet").num_rows
    gone = f"{total - 3:,}"
    assert f"{total:,} clips = 3 scanned + {gone} failed (no_media {gone})" in out
    assert "4 files = 3 of clips + 1 unmatched + 0 not media" in out
    rows = read_fingerprints(manifests, "vggsound").to_pylist()
    scanned = {row["clip_id"] for row in rows if row["status"] == "scanned"}
    assert scanned == {clip["clip_id"] for clip in clips}


def test_without_a_folder_the_media_folder_of_all_datasets_is_scanned(
    corpus: Any, tmp_path: Path, curate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = curate("scan")
    assert code == 2
    assert "there is no folder ./media" in err
    shutil.copytree(corpus.manifests, tmp_path / "manifests")
    (tmp_path / "media").mkdir()
    code, _, err = curate("scan")
    assert code == 2
    assert "no file of a built dataset (" in err
    assert "curate scan DIR" in err
    clip = pq.read_table(tmp_path / "manifests" / "esc50" / "clips.parquet").slice(0, 1).to_pylist()[0]
    wav = {"video": None, "audio": "pcm_s16le", "samples": "s16", "layout": "mono"}
    make_media(tmp_path / "media" / clip["clip_id"], seconds=0.5, **wav)  # type: ignore[arg-type]
    code, out, err = curate("scan", "--json")
    assert code in (0, 3), err
    assert [d["dataset"] for d in json.loads(out)["datasets"] if d["found"]] == ["esc50"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nowhere",), 2, "no such folder"),
        (("MEDIA", "--dataset", "No"), 2, "expected lower case letters"),
        (("MEDIA", "--dataset", "overlaps"), 2, "none of our own names"),
        (("MEDIA", "--dataset", "vggsound"), 2, "vggsound: is not built"),
        (("MEDIA", "--dataset", "vggsound", "--list", "l.csv"), 2, "there is a card of that name"),
        (("MEDIA", "--list", "none.csv"), 2, "no such file"),
        (("MEDIA", "--list", "bad.csv"), 2, "expected `file` among them"),
        (("--list", "bad.csv"), 2, "expected that folder too"),
        (("MEDIA", "--task", "3/3"), 2, "expected i/n"),
        (("MEDIA", "--timeout", "nan"), 2, "expected a number of seconds"),
        (("EMPTY",), 2, "no clips"),
    ],
)
def test_usage_problem_is_said(
    words: tuple[str, ...],
    code: int,
    says: str,
    media: Path,
    tmp_path: Path,
    curate: Run,
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("name,split\nx,train\n")
    places = {"MEDIA": str(media), "EMPTY": str(tmp_path / "empty")}
    found, _, err = curate("scan", *(places.get(word, word) for word in words))
    assert (found, says in err) == (code, True), err


def test_another_scan_of_the_same_folder_is_locked_out(media: Path, tmp_path: Path, curate: Run) -> None:
    from curation.files import locked

    with locked(tmp_path / "m"):
        assert curate("scan", media, "--manifests", tmp_path / "m")[0] == 11


def test_interrupted_scan_ends_with_130_and_goes_on(scanned: Path, media: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path / "m", media, "--workers", "1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    until_s = time.monotonic() + 120
    while not list((tmp_path / "m").glob("fingerprints/my_clips/*.tmp-task")):
        assert process.poll() is None, "it ended before it began"
        assert time.monotonic() < until_s
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    if process.returncode != 3:  # it was not done already
        assert process.returncode == 130, err.decode()
        assert b"run the same command again" in err
    assert scan(tmp_path / "m", media) == 3
    assert lasting(tmp_path / "m") == lasting(scanned)


# ---- names --------------------------------------------------------------------------------------------


def test_patterns_mean_the_same_in_sql_and_here(corpus: Any) -> None:
    """`export` writes names by `catalog.filenames`, scan reads them by `locate`: one meaning."""
    import duckdb

    from curation.catalog.filenames import stem_sql

    for dataset, card in corpus.cards.items():
        path = corpus.manifests / dataset / "clips.parquet"
        rows = pq.read_table(path, columns=["clip_id", "source_id", "start_s", "end_s"]).to_pylist()[:50]
        for pattern in card.media:
            stems = duckdb.sql(
                f"select {stem_sql(pattern)} from read_parquet('{path}') limit 50"
            ).fetchall()
            for row, (stem,) in zip(rows, stems, strict=True):
                name = file_name(pattern, Wanted(**row))
                found = None if name is None else name.rpartition("/")[2]
                if found is not None and pattern == "{clip_id}":
                    found = Path(found).stem if Path(found).suffix[1:].isalnum() else found
                elif found is not None:
                    found = found.rpartition(".")[0]
                assert found == stem, (dataset, pattern)


def test_first_pattern_and_smallest_path_win(tmp_path: Path) -> None:
    for path in ("b/x_000003.mp4", "a/x_000003.mp4", "x.wav", "c/y.wav"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    folder = media_folder(tmp_path)
    clips = [
        Wanted(clip_id="1", source_id="x", start_s=3.0),
        Wanted(clip_id="2", source_id="x", start_s=3.5),
        Wanted(clip_id="3", source_id="y"),
        Wanted(clip_id="4", source_id="../x"),
        Wanted(clip_id="5"),
    ]
    found = locate(clips, ("{id}_{start:06d}.mp4", "{id}.wav"), folder)
    assert found.files == ["a/x_000003.mp4", "x.wav", "c/y.wav", None, None]
    assert (found.found, found.missing) == (3, 2)


def test_key_of_a_task_is_that_of_its_inputs() -> None:
    one = Task(0, 1, {"rows": [["a", None, 1.5, "x"]]})
    assert one.key == Task(0, 1, {"rows": [["a", None, 1.5, "x"]]}).key
    assert one.key != Task(0, 1, {"rows": [["a", None, 1.5, "y"]]}).key
