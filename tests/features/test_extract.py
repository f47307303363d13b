"""Extraction: every clip is rows or a reject, the sums hold, and only the inputs decide the bytes."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from made_media import make_media
from made_once import made_once
from safetensors import safe_open
from small_clips import SmallClips, digests, extract_words, finish, row, start, write_manifest
from small_disk import mounted

from curation.errors import BadWeights, FoleyproofError, Locked, WrongWeights
from curation.tasks import read_record
from features.extraction import begun, extract
from features.extraction.encoding import TaskEncoder
from features.extraction.job import Job
from features.extraction.plan import make_plan
from features.extraction.suite import Suite
from features.inputs.prepared import InputConfig
from features.shards import ShardReader
from features.weights.published import WeightChoice


def words(clips: SmallClips, out: Path, *more: str) -> list[str]:
    return extract_words(clips, out, "--workers", "1", *more)


# ---- what comes out ---------------------------------------------------------------------------------


def test_every_clip_is_rows_or_a_reject_with_its_reason(done: Any, clips: SmallClips) -> None:
    out, result = done
    assert result.code == 3
    rows = pq.read_table(out / "index.parquet").to_pylist()
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    asked = pq.read_table(clips.manifest).select(["dataset", "clip_id"]).to_pylist()
    kept, gone = ({(found["dataset"], found["clip_id"]) for found in table} for table in (rows, rejects))
    assert kept | gone == {(said["dataset"], said["clip_id"]) for said in asked}
    assert kept & gone == set()
    assert {found["clip_id"]: found["reason"] for found in rejects} == {
        "damaged": "damaged", "missing": "no_media", "short": "too_short",
    }  # fmt: skip
    assert [(found["clip_id"], found["part"]) for found in rows if found["dataset"] == "sounds"] == [
        ("sound000", 0), ("sound001", 0), ("sound001", 1),
    ]  # fmt: skip
    assert all(found["has_video"] == (found["dataset"] == "films") for found in rows)


def test_counts_of_the_summary_add_up(done: Any) -> None:
    _, result = done
    document = json.loads(result.out)
    counts = document["counts"]
    assert counts["clips"] == 7 == counts["kept"] + sum(counts["rejected"].values())
    assert sum(counts["rows"].values()) == document["sealed"]["rows"] == 5
    assert document["datasets"]["films"] == {"clips": 5, "found": 4, "missing": 1}
    assert document["files"] == {"media": 6, "unmatched": 0}
    assert "7 clips = 4 with rows + 3 rejected (damaged 1, no_media 1, too_short 1)" in result.err
    assert "5 rows = 2 audio-video + 3 audio" in result.err
    assert f"next: features verify {done[0]}" in result.err


def test_reader_gives_what_was_encoded(done: Any) -> None:
    reader = ShardReader(done[0])
    assert len(reader) == 5
    assert reader.untrained
    batch = reader.batch([0, 4])
    assert batch["latent_mean"].shape == (2, 250, 20)
    assert batch["clip"].shape == (2, 64, 1024)
    assert batch["sync"].shape == (2, 192, 768)
    assert batch["has_video"].tolist() == [True, False]
    assert batch["caption"] == ["film 0", "tone, level 1"]


def test_texts_are_encoded_once_and_captions_of_missing_clips_not_at_all(done: Any) -> None:
    captions = pq.read_table(done[0] / "captions.parquet")["caption"].to_pylist()
    assert captions[0] == ""
    assert captions == sorted(set(captions))
    assert {"a moving square", "film 0", "tone, level 1", "over soon"} < set(captions)
    assert "never seen" not in captions


def test_statistics_are_those_of_the_latents(done: Any) -> None:
    means = []
    for path in sorted(done[0].glob("clips/*/av-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            means.append(file.get_tensor("latent_mean").double().flatten(0, 1))
    with safe_open(done[0] / "statistics.safetensors", framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    whole = torch.cat(means)
    for name in ("mean", "sample_mean"):  # noise has no mean
        torch.testing.assert_close(found[name].double(), whole.mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("more", "peak"), [((), "track"), (("--peak", "none"), "none")])
def test_peak_is_what_was_asked_for(
    more: tuple[str, ...], peak: str, clips: SmallClips, tmp_path: Path, run: Any, monkeypatch: Any
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "features.commands.extract._extract", lambda asked, *other, **named: seen.append(asked.inputs)
    )
    assert run(*words(clips, tmp_path / "out", *more)).code == 0
    assert [inputs.peak for inputs in seen] == [peak]


def test_nothing_written_names_the_machine_or_its_folders(done: Any, clips: SmallClips) -> None:
    for path in done[0].rglob("*"):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".parquet"):
            content = path.read_bytes()
            for secret in (str(clips.media), str(done[0]), os.uname().nodename):
                assert secret.encode() not in content, f"{path} holds {secret}"


# ---- running it again -------------------------------------------------------------------------------


def test_running_it_again_encodes_nothing_and_changes_no_byte(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any, monkeypatch: Any
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    before = digests(out)
    monkeypatch.setattr(extract, "LocalDevices", None)  # nobody is started
    assert run(*words(clips, out)).code == 3
    assert digests(out) == before


@pytest.mark.soak
def test_number_of_workers_and_decoders_changes_no_byte(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    out = tmp_path / "out"
    assert run(*extract_words(clips, out, "--workers", "2", "--decoders", "3")).code == 3
    assert digests(out) == digests(done[0])


@pytest.mark.slow
def test_shares_and_seal_give_the_bytes_of_one_run(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    out = tmp_path / "out"
    first = run(*words(clips, out, "--task", "1/2"))
    assert first.err.splitlines()[-1] == f"next: run the other shares; features seal {out}"
    assert not (out / "shards.json").exists()
    assert run("seal", out).code == 2
    run(*words(clips, out, "--task", "0/2"))
    assert run("seal", out).code == 0
    assert digests(out) == digests(done[0])


def test_another_configuration_is_refused_by_its_keys(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    before = digests(out)
    result = run(*words(clips, out, "--batch", "3", "--duration", "10"))
    assert result.code == 12
    assert "other options" in result.err
    for key in ("batch.av was 2, now 3", "batch.audio was 8, now 12", "duration_s was 8.0, now 10.0"):
        assert key in result.err
    assert run(*words(clips, out, "--untrained", "1")).code == 12
    assert digests(out) == before


def test_changed_caption_is_refused_by_its_clip(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    rows = pq.read_table(clips.manifest).to_pylist()
    for said in rows:
        if said["clip_id"] == "film001":
            said["captions"] = ["another film"]
    for name in ("films", "sounds"):
        shutil.copytree(clips.manifest.parent / name, tmp_path / name)
    changed = write_manifest(tmp_path / "all.parquet", rows)
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    result = run(*words(SmallClips(changed, clips.media), out))
    assert result.code == 12
    assert "another manifest" in result.err
    assert "films/film001" in result.err
    assert "captions differ" in result.err


def test_changed_caption_is_refused_by_its_clip_where_some_tasks_are_left(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    for part in (out / "clips").glob("00001-of-*"):  # as after --task 0/2
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    rows = pq.read_table(clips.manifest).to_pylist()
    for said in rows:
        if said["clip_id"] == "film001":
            said["captions"] = ["another film"]
    for name in ("films", "sounds"):
        shutil.copytree(clips.manifest.parent / name, tmp_path / name)
    changed = write_manifest(tmp_path / "all.parquet", rows)
    result = run(*words(SmallClips(changed, clips.media), out, "--task", "0/2"))
    assert result.code == 12, result.err
    assert "1 clip (films/film001): captions differ" in result.err
    assert "neither extracted nor rejected" not in result.err


@dataclass(frozen=True, slots=True)
class Later:
    """The clips as they are later, and what an extraction makes of them from the beginning."""

    media: Path  # a film is there now, another one is changed
    anew: dict[str, str]


@pytest.fixture(scope="session")
def later(clips: SmallClips, tmp_path_factory: pytest.TempPathFactory) -> Later:
    def make(folder: Path) -> None:
        media = Path(shutil.copytree(clips.media, folder / "media"))
        make_media(media / "films" / "missing.mp4", seconds=9.0, seed=5)
        make_media(media / "films" / "film001.mp4", seconds=9.0, seed=6)
        os.utime(media / "films" / "film000.mp4", (1, 1))  # looks changed, and is not
        code, _, err = finish(start(words(SmallClips(clips.manifest, media), folder / "out")))
        assert code == 3, err

    folder = made_once(tmp_path_factory, "later", make)
    return Later(folder / "media", digests(folder / "out"))


@pytest.mark.slow
def test_new_and_changed_media_are_encoded_and_the_rest_is_carried_over(
    done: Any, clips: SmallClips, later: Later, tmp_path: Path, run: Any, monkeypatch: Any
) -> None:
    out, here = Path(shutil.copytree(done[0], tmp_path / "out")), SmallClips(clips.manifest, later.media)
    said = json.loads(run(*words(here, out, "--json")).out)
    assert said["counts"]["kept"] == 5
    assert digests(out) == later.anew
    monkeypatch.setattr(extract, "LocalDevices", None)
    assert run(*words(here, out)).code == 3


def test_damaged_table_of_a_former_part_is_not_carried_into_the_new_one(
    done: Any, clips: SmallClips, later: Later, tmp_path: Path, run: Any
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    (rejects,) = (
        path
        for path in (out / "clips").glob("*/rejects.parquet")
        if "missing" in pq.read_table(path)["clip_id"].to_pylist()
    )
    rows = rejects.with_name("rows.parquet")
    assert "sound000" in pq.read_table(rows)["clip_id"].to_pylist(), "nothing there is carried over"
    content = bytearray(rows.read_bytes())
    content[40] ^= 1
    rows.write_bytes(content)
    assert run(*words(SmallClips(clips.manifest, later.media), out)).code == 3
    assert digests(out) == later.anew


def test_damaged_notes_of_files_mean_that_all_is_made_again(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    before = digests(out)
    for path in (out / "clips").glob("*.files.json"):
        noted = json.loads(path.read_bytes())
        del noted["inputs"]
        path.write_text(json.dumps(noted))
    said = json.loads(run(*words(clips, out, "--json")).out)
    assert said["effort"]["clips"] > 0
    assert digests(out) == before


def test_rows_of_files_that_are_gone_are_not_dropped_in_silence(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    before = digests(out)
    media = Path(shutil.copytree(clips.media, tmp_path / "media"))
    (media / "films" / "film000.mp4").unlink()
    result = run(*words(SmallClips(clips.manifest, media), out))
    assert result.code == 12
    assert "holds rows of 1 clip whose files are gone (films/film000), expected all files" in result.err
    assert digests(out) == before


def test_damaged_table_of_a_task_names_the_folder_to_make_anew(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    before = digests(out)
    (table,) = (out / "clips").glob("00000-of-*/rows.parquet")
    content = bytearray(table.read_bytes())
    content[-1] ^= 1
    table.write_bytes(content)
    result = run("seal", out)
    assert result.code == 13
    assert f"rm -r {table.parent} and the same extract" in result.err
    shutil.rmtree(table.parent)
    assert run(*words(clips, out)).code == 3
    assert digests(out) == before


def test_manifest_may_be_called_otherwise_when_it_is_continued(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    for name in ("films", "sounds"):
        shutil.copytree(clips.manifest.parent / name, tmp_path / name)
    moved = Path(shutil.copy(clips.manifest, tmp_path / "moved.parquet"))
    assert run(*words(SmallClips(moved, clips.media), out)).code == 3
    assert digests(out) == digests(done[0])


def small_job(**said: Any) -> Job:
    known = {
        "sample_rate_hz": 16000, "weights": WeightChoice(untrained_seed=0, tiny=True),
        "precision": "fp32", "device": "cpu", "threads": 1, "decoders": 1, "video_batch": 2,
        "audio_batch": 8, "inputs": InputConfig(sample_rate_hz=16000), "shard_rows": 3,
    }  # fmt: skip
    return Job(**{**known, **said})


@pytest.mark.parametrize(
    "place",
    [
        "row",
        "table",
        pytest.param("header", marks=pytest.mark.soak),
        pytest.param("shape", marks=pytest.mark.soak),
    ],
)
def test_carried_row_that_is_not_as_it_was_written_is_made_anew(
    place: str, clips: SmallClips, tmp_path: Path
) -> None:
    job = small_job()
    plan = make_plan(clips.manifest, [clips.media], None, job, tmp_path / "out")
    (task, *_) = plan.clip_tasks
    asked = {**task.inputs, "paths": plan.paths(task), "carried": [None] * 3, "former": None}
    first, second = tmp_path / "00000-of-00003", tmp_path / "staged"
    first.mkdir()
    second.mkdir()
    encoder = TaskEncoder(job)
    facts = encoder.work(asked, first)
    written = digests(first)
    damaged = first / ("rows.parquet" if place == "table" else "av-0000.safetensors")
    content = bytearray(damaged.read_bytes())
    at = {"row": -1, "header": 9, "shape": content.find(b"latent_std"), "table": -1}[place]
    content[at] ^= 1
    damaged.write_bytes(content)
    asked |= {"carried": facts["content"], "former": str(first)}
    assert encoder.work(asked, second) == facts
    assert digests(second) == written


def test_carried_rows_are_not_encoded_again(clips: SmallClips, tmp_path: Path, monkeypatch: Any) -> None:
    job = small_job()
    plan = make_plan(clips.manifest, [clips.media], None, job, tmp_path / "out")
    (task, *_) = plan.clip_tasks
    asked = {**task.inputs, "paths": plan.paths(task), "carried": [None] * 3, "former": None}
    first, second = tmp_path / "00000-of-00004", tmp_path / "staged"
    first.mkdir()
    second.mkdir()
    encoder = TaskEncoder(job)
    facts = encoder.work(asked, first)
    monkeypatch.setattr(Suite, "encode_clip", None)
    asked |= {"carried": facts["content"], "former": str(first)}
    again = encoder.work(asked, second)
    assert again == facts
    assert digests(second) == digests(first)


# ---- what goes wrong --------------------------------------------------------------------------------


def test_weights_that_are_not_those_of_the_plan_make_no_shard(clips: SmallClips, tmp_path: Path) -> None:
    plan = make_plan(clips.manifest, [clips.media], None, small_job(), tmp_path / "out")
    other = small_job(weights=WeightChoice(untrained_seed=1, tiny=True))
    with pytest.raises(WrongWeights, match=r"untrained:1:tiny.* expected those.*untrained:0:tiny"):
        TaskEncoder(other).work(plan.text_tasks[0].inputs, tmp_path)


def test_row_that_is_not_finite_is_a_reject(clips: SmallClips, tmp_path: Path, monkeypatch: Any) -> None:
    job = Job(
        sample_rate_hz=16000, weights=WeightChoice(untrained_seed=0, tiny=True), precision="fp32",
        device="cpu", threads=1, decoders=1, video_batch=8, audio_batch=8,
        inputs=InputConfig(sample_rate_hz=16000), shard_rows=20,
    )  # fmt: skip
    plan = make_plan(clips.manifest, [clips.media], None, job, tmp_path / "out")
    (task,) = plan.clip_tasks
    encode = Suite.encode_sync

    def broken(self: Suite, frames_btchw: torch.Tensor) -> torch.Tensor:
        sync_btd = encode(self, frames_btchw)
        sync_btd[1, 5, 7] = float("nan")
        return sync_btd

    monkeypatch.setattr(Suite, "encode_sync", broken)
    asked = {**task.inputs, "paths": plan.paths(task), "carried": [None] * 7, "former": None}
    counts = TaskEncoder(job).work(asked, tmp_path)["counts"]
    assert counts["rejected"]["not_finite"] == 1
    assert counts["kept"] + sum(counts["rejected"].values()) == 7
    rejects = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    (found,) = (said for said in rejects if said["reason"] == "not_finite")
    assert (found["clip_id"], found["part"], found["file"]) == ("film001", 0, "films/film001.mp4")
    assert found["detail"] == "sync came out of the encoder not finite"


def test_too_little_room_is_said_with_numbers_before_anything_is_written(
    clips: SmallClips, tmp_path: Path, run: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(extract, "free_bytes", lambda place: 1000)
    result = run(*words(clips, tmp_path / "out"))
    assert result.code == 14
    assert "1.0 kB are free, expected room for 2.9 MB of shards" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kib", [600, pytest.param(1700, marks=pytest.mark.soak)])
def test_disk_that_fills_up_ends_with_14_and_the_next_run_goes_on(
    kib: int, done: Any, clips: SmallClips, tmp_path: Path, run: Any, monkeypatch: Any
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setattr(extract, "free_bytes", lambda place: 1 << 40)
    with mounted(disk, kib):
        result = run(*words(clips, disk / "out"))
        assert result.code == 14
        assert "no space left on the disk" in result.err
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        result = run(*words(clips, disk / "out"))
        assert result.code == 3, result.err
        assert digests(disk / "out") == digests(done[0])


@pytest.mark.slow
def test_process_that_dies_is_told_and_what_is_done_is_kept(
    done: Any, clips: SmallClips, tmp_path: Path, run: Any, monkeypatch: Any
) -> None:
    out = tmp_path / "out"
    told = extract.Extraction.told

    def killing(self: Any, effort: Any) -> None:
        told(self, effort)
        if effort.clips:
            os.kill(self.devices.pids[0], 9)

    monkeypatch.setattr(extract.Extraction, "told", killing)
    result = run(*words(clips, out))
    assert result.code == 1
    assert "the process of cpu died (SIGKILL)" in result.err
    assert read_record(out / "text" / "00000-of-00003")
    monkeypatch.setattr(extract.Extraction, "told", told)
    run(*words(clips, out))
    assert digests(out) == digests(done[0])


def test_shards_that_may_not_all_fit_are_told_before(
    clips: SmallClips, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    plan = make_plan(clips.manifest, [clips.media], None, small_job(), tmp_path / "out")
    extraction = extract.Extraction(plan, small_job(), tmp_path / "out", lambda *told: None)
    need = extraction.need(*extraction.left())
    monkeypatch.setattr(extract, "free_bytes", lambda place: need.at_most)
    extraction.check_room(need)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(extract, "free_bytes", lambda place: need.at_most - 1)
    extraction.check_room(need)
    assert "MB if all sounds are long" in capsys.readouterr().err


def test_what_another_machine_is_making_is_left_alone(clips: SmallClips, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])  # as the number of a process of another machine is here
    dead.wait()
    staged = tmp_path / "out" / "clips" / "00001-of-00003.tmp-task"
    staged.mkdir(parents=True)
    half = staged / f"av-0000.safetensors.tmp-{dead.pid}"
    half.write_bytes(b"half")
    plan = make_plan(clips.manifest, [clips.media], None, small_job(), tmp_path / "out")
    begun.begin(tmp_path / "out", begun.of_plan(tmp_path / "out", plan), changes=True)
    assert half.read_bytes() == b"half"


def test_folder_that_another_process_begins_names_the_option(
    clips: SmallClips, tmp_path: Path, monkeypatch: Any
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    plan = make_plan(clips.manifest, [clips.media], None, small_job(), out)
    code = (
        "import sys; from pathlib import Path; from features.store.seal import alone\n"
        "with alone(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    monkeypatch.setattr(begun, "PATIENCE_S", 0.0)
    holder = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Locked, match="or give another --out"):
            begun.begin(out, begun.of_plan(out, plan), changes=True)
        other.communicate("")


def test_caption_without_a_finite_feature_is_named(
    clips: SmallClips, tmp_path: Path, monkeypatch: Any
) -> None:
    encode = Suite.encode_text

    def broken(self: Suite, texts: Any) -> torch.Tensor:
        text_btd = encode(self, texts)
        text_btd[list(texts).index("film 0")] = float("inf")
        return text_btd

    monkeypatch.setattr(Suite, "encode_text", broken)
    plan = make_plan(clips.manifest, [clips.media], None, small_job(shard_rows=20), tmp_path / "out")
    (task,) = plan.text_tasks
    with pytest.raises(BadWeights, match="caption 'film 0': its feature came out of CLIP not finite"):
        TaskEncoder(small_job(shard_rows=20)).work(task.inputs, tmp_path)


def test_device_without_enough_memory_is_a_message(
    clips: SmallClips, tmp_path: Path, monkeypatch: Any
) -> None:
    def full(self: Suite, texts: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee …")

    monkeypatch.setattr(Suite, "encode_text", full)
    plan = make_plan(clips.manifest, [clips.media], None, small_job(), tmp_path / "out")
    with pytest.raises(FoleyproofError, match=r"cpu: CUDA out of memory.*give a smaller --batch"):
        TaskEncoder(small_job()).work(plan.text_tasks[0].inputs, tmp_path)


def test_every_thread_that_works_has_the_threads_of_the_job(
    clips: SmallClips, tmp_path: Path, monkeypatch: Any
) -> None:
    had, found = torch.get_num_threads(), []
    encode = Suite.encode_text

    def noting(self: Suite, texts: Any) -> torch.Tensor:
        found.append(torch.get_num_threads())
        return encode(self, texts)

    monkeypatch.setattr(Suite, "encode_text", noting)
    job = small_job(threads=3)
    plan = make_plan(clips.manifest, [clips.media], None, job, tmp_path / "out")
    encoder = TaskEncoder(job)
    try:
        for number, task in enumerate(plan.text_tasks[:2]):  # a thread each, as an actor may have
            torch.set_num_threads(2)
            (tmp_path / str(number)).mkdir()
            thread = Thread(target=encoder.work, args=(task.inputs, tmp_path / str(number)))
            thread.start()
            thread.join()
    finally:
        torch.set_num_threads(had)
    assert found == [3, 3]


def test_folder_without_any_file_of_the_manifest_is_a_mistake(
    clips: SmallClips, tmp_path: Path, run: Any
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "film.mp4").write_bytes(b"another")
    result = run(*words(SmallClips(clips.manifest, tmp_path / "other"), tmp_path / "out"))
    assert result.code == 2
    assert "holds 1 media file, none of which is of one of the 7 clips" in result.err
    assert not (tmp_path / "out").exists()


def test_clip_without_caption_or_label_has_the_empty_one(tmp_path: Path, run: Any) -> None:
    make_media(tmp_path / "media" / "a.wav", video=None, audio="pcm_s16le", samples="s16",
               layout="mono", seconds=8.5)  # fmt: skip
    manifest = write_manifest(
        tmp_path / "m" / "sounds" / "clips.parquet", [row("sounds", "a")], dataset="sounds",
        media=["{clip_id}.wav"], modality="audio",
    )  # fmt: skip
    out = tmp_path / "out"
    assert run(*words(SmallClips(manifest, tmp_path / "media"), out)).code == 0
    (found,) = pq.read_table(out / "index.parquet").to_pylist()
    assert found["text_index"] == [0]
