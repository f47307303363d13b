"""Sealing: the tables of all tasks as one, the same bytes each time, and what it refuses."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from small_shards import ABOUT, CERTIFICATE, Planned, sealed_folder, some_rows, values_of, write_tasks

from curation.errors import BadManifest, Locked, ManifestChanged, NoSpace, UsageProblem
from curation.files import digest_of
from features.commands.info import info
from features.commands.seal import seal as seal_command
from features.store import index
from features.store.seal import alone, seal
from features.store.shard_file import FORMAT

REJECT = {
    "dataset": "tones",
    "clip_id": "bad",
    "file": "bad.mp4",
    "reason": "silent",
    "detail": "peak 0",
}


def hashes(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def test_the_index_is_sorted_and_says_where_each_row_lies(tmp_path: Path) -> None:
    rows = sealed_folder(tmp_path / "s", rejects=[REJECT])
    table = index.read_table(tmp_path / "s" / index.INDEX_FILE, index.INDEX)
    found = table.to_pylist()
    assert [(r["dataset"], r["clip_id"], r["part"]) for r in found] == [
        (r.dataset, r.clip_id, r.part) for r in rows
    ]
    captions = index.read_table(tmp_path / "s" / index.CAPTIONS_FILE, index.CAPTIONS).to_pylist()
    assert [caption["text_index"] for caption in captions] == list(range(4))
    assert [caption["caption"] for caption in captions] == ["", "a dog", "take 0", "take 1"]
    for entry, planned in zip(found, rows, strict=True):
        shard = safetensors.torch.load_file(tmp_path / "s" / entry["shard"])
        assert torch.equal(shard["latent_mean"][entry["row"]], values_of(planned)["latent_mean"])
        assert [captions[i]["caption"] for i in entry["text_index"]] == planned.captions
    rejects = index.read_table(tmp_path / "s" / index.REJECTS_FILE, index.REJECTS).to_pylist()
    assert rejects == [{**REJECT, "part": None}]


def test_shards_json_has_the_size_and_digest_of_every_file(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "s")
    sealed = json.loads((tmp_path / "s" / "shards.json").read_text())
    assert sealed["format"] == FORMAT
    assert sealed["about"] == ABOUT
    assert sealed["certificate"] == CERTIFICATE
    assert sealed["digest"] == digest_of(sealed)
    for name, entry in {**sealed["files"], **sealed["tables"]}.items():
        held = (tmp_path / "s" / name).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(held), hashlib.sha256(held).hexdigest())
    on_disk = {
        p.relative_to(tmp_path / "s").as_posix() for p in (tmp_path / "s").glob("*/*/*.safetensors")
    }
    assert set(sealed["files"]) == on_disk
    totals = sealed["totals"]
    assert (totals["rows"], totals["av"], totals["audio"], totals["captions"]) == (9, 5, 4, 4)


def test_statistics_are_those_of_all_stored_latents(tmp_path: Path) -> None:
    """Of means as torch computes them, unbiased; of samples by E[mean² + std²]."""
    rows = sealed_folder(tmp_path / "s")
    found = safetensors.torch.load_file(tmp_path / "s" / "statistics.safetensors")
    for prefix, chosen in (("", [r for r in rows if r.kind == "av"]), ("all_", rows)):
        mean_nc = torch.cat([values_of(row)["latent_mean"].double() for row in chosen])
        std_nc = torch.cat([values_of(row)["latent_std"].double() for row in chosen])
        assert torch.allclose(found[f"{prefix}mean"], mean_nc.mean(0).float(), atol=1e-6)
        assert torch.allclose(found[f"{prefix}std"], mean_nc.std(0).float(), atol=1e-6)
        n = len(mean_nc)
        variance = (mean_nc**2 + std_nc**2).mean(0) - mean_nc.mean(0) ** 2
        assert torch.allclose(found[f"{prefix}sample_mean"], mean_nc.mean(0).float(), atol=1e-6)
        expected = (variance * n / (n - 1)).sqrt().float()
        assert torch.allclose(found[f"{prefix}sample_std"], expected, atol=1e-6)
    assert found["group_rows"].tolist() == [4, 5]
    assert found["group_latents"].tolist() == [4 * 32, 5 * 32]


def test_statistics_of_many_samples_agree_with_drawing_them(tmp_path: Path) -> None:
    rows = sealed_folder(tmp_path / "s", [Planned(clip_id=f"c{i}") for i in range(4)])
    found = safetensors.torch.load_file(tmp_path / "s" / "statistics.safetensors")
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for row in rows:
        mean_nc, std_nc = (values_of(row)[name].double() for name in ("latent_mean", "latent_std"))
        noise_snc = torch.randn((400, *mean_nc.shape), generator=generator, dtype=torch.float64)
        drawn.append((mean_nc + std_nc * noise_snc).reshape(-1, mean_nc.shape[1]))
    assert torch.allclose(found["sample_std"], torch.cat(drawn).std(0).float(), rtol=0.03)


def test_sealing_again_and_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "a")
    first = hashes(tmp_path / "a")
    seal(tmp_path / "a")
    assert hashes(tmp_path / "a") == first
    sealed_folder(tmp_path / "b" / "elsewhere")
    assert hashes(tmp_path / "b" / "elsewhere") == first


def test_nothing_big_is_read_to_seal(tmp_path: Path) -> None:
    """The columns may even be gone: sizes and digests come from the records."""
    write_tasks(tmp_path / "s", some_rows())
    for path in (tmp_path / "s").glob("*/*/*.safetensors"):
        size = path.stat().st_size
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        os.truncate(path, header)
        os.truncate(path, size)
    assert seal(tmp_path / "s").rows == 9


def test_missing_tasks_are_named(tmp_path: Path) -> None:
    write_tasks(tmp_path / "s", some_rows())
    shutil.rmtree(tmp_path / "s" / "clips" / "00001-of-00003")
    (tmp_path / "s" / "clips" / "00002-of-00003" / "task.json").unlink()
    said = (
        r"2 of 3 tasks not done \(00001-of-00003, 00002-of-00003\), expected all — run the same extract"
    )
    with pytest.raises(UsageProblem, match=said) as caught:
        seal(tmp_path / "s")
    assert "again without --task, which does only these, or the shares of --task i/n" in str(
        caught.value
    )
    assert not (tmp_path / "s" / "shards.json").exists()


def test_missing_text_is_named(tmp_path: Path) -> None:
    write_tasks(tmp_path / "s", some_rows())
    shutil.rmtree(tmp_path / "s" / "text" / "00000-of-00002")
    with pytest.raises(UsageProblem, match=r"text: 1 of 2 tasks not done \(00000-of-00002\)"):
        seal(tmp_path / "s")


def test_a_task_whose_file_was_cut_is_not_done(tmp_path: Path) -> None:
    write_tasks(tmp_path / "s", some_rows())
    path = next((tmp_path / "s").glob("clips/00000-*/*.safetensors"))
    os.truncate(path, 100)
    with pytest.raises(UsageProblem, match="00000-of-00003"):
        seal(tmp_path / "s")


def test_two_rows_of_one_clip_are_refused_by_name(tmp_path: Path) -> None:
    rows = [Planned(clip_id="a"), Planned(clip_id="b"), Planned(clip_id="b", captions=["other"])]
    write_tasks(tmp_path / "s", [*rows, Planned(clip_id="b", part=1)])
    with pytest.raises(BadManifest, match=r"tones/b: several rows each \(1 such key\)"):
        seal(tmp_path / "s")


def test_a_caption_without_text_is_refused_by_name(tmp_path: Path) -> None:
    def change(what: str, value: list[dict[str, Any]]) -> None:
        if what == "rows":
            value[0]["captions"] = ["never encoded"]

    write_tasks(tmp_path / "s", some_rows(), change=change)
    with pytest.raises(BadManifest, match="caption 'never encoded': has no text row"):
        seal(tmp_path / "s")


def test_a_caption_with_two_texts_is_refused_by_name(tmp_path: Path) -> None:
    def change(what: str, value: list[dict[str, Any]]) -> None:
        if what == "captions":
            value[-1]["caption"] = "same"

    write_tasks(tmp_path / "s", some_rows(), change=change)
    with pytest.raises(BadManifest, match="caption 'same': has several text rows"):
        seal(tmp_path / "s")


def test_the_first_caption_must_be_the_empty_one(tmp_path: Path) -> None:
    def change(what: str, value: list[dict[str, Any]]) -> None:
        if what == "captions" and value[0]["caption"] == "":
            value[0]["caption"] = "a"

    write_tasks(tmp_path / "s", [Planned(clip_id="x", captions=["b"])], change=change)
    with pytest.raises(BadManifest, match="text row 0 is not the empty caption"):
        seal(tmp_path / "s")


def test_a_task_of_another_configuration_is_refused(tmp_path: Path) -> None:
    write_tasks(tmp_path / "a", some_rows())
    write_tasks(tmp_path / "b", some_rows(), certificate=None)
    shutil.rmtree(tmp_path / "a" / "clips" / "00001-of-00003")
    shutil.copytree(
        tmp_path / "b" / "clips" / "00001-of-00003", tmp_path / "a" / "clips" / "00001-of-00003"
    )
    said = r"its certificate is None, expected sha256:c+ — run: rm -r .*/00001-of-00003 and"
    with pytest.raises(ManifestChanged, match=said):
        seal(tmp_path / "a")


@pytest.mark.parametrize(
    "table",
    ["clips/00001-of-00003/rows", "clips/00000-of-00003/rejects", "text/00001-of-00002/captions"],
)
def test_a_task_whose_table_has_a_flipped_bit_is_not_sealed(tmp_path: Path, table: str) -> None:
    """Parquet would read most of them, as another caption or another place."""
    out = tmp_path / "with a blank"
    write_tasks(out, some_rows())
    path = out / f"{table}.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ManifestChanged, match=r"sha256 is \w{12}, expected \w{12} as recorded"
    ) as caught:
        seal(out)
    assert f"run: rm -r '{path.parent}' and the same extract or import again" in str(caught.value)
    assert not (out / "shards.json").exists()


def test_tasks_that_lost_rows_are_refused(tmp_path: Path) -> None:
    def change(what: str, value: list[dict[str, Any]]) -> None:
        if what == "rows":
            value.pop()

    write_tasks(tmp_path / "s", some_rows(), change=change)
    with pytest.raises(ManifestChanged, match=r"safetensors: holds \d rows, expected"):
        seal(tmp_path / "s")


def test_a_folder_where_nothing_was_extracted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"holds no extract\.json, expected a folder that extract"):
        seal(tmp_path)


def test_no_clip_with_a_row_is_still_a_sealed_folder(tmp_path: Path) -> None:
    write_tasks(tmp_path / "s", [], rejects=[])
    assert seal(tmp_path / "s").rows == 0


def test_another_process_that_seals_is_told(tmp_path: Path) -> None:
    write_tasks(tmp_path / "s", some_rows())
    code = (
        "import sys; from pathlib import Path; from features.store.seal import alone\n"
        "with alone(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "s")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Locked, match="another process is writing there"):
            seal(tmp_path / "s")
        other.communicate("")
    assert seal(tmp_path / "s").rows == 9


def test_what_a_killed_seal_left_is_cleared(tmp_path: Path) -> None:
    write_tasks(tmp_path / "s", some_rows())
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / "s" / f"index.parquet.tmp-{dead.pid}"
    left.write_bytes(b"half")
    with alone(tmp_path / "s"):
        assert not left.exists()


def test_lock_takes_nothing_of_the_user_and_gives_a_former_folder_back(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    kept = ["notes.tmp-keep", f"mine.tmp-{os.getppid()}", f"below/deep.tmp-{dead.pid}"]
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    former = tmp_path / f"films.former.tmp-{dead.pid}"
    former.mkdir()
    (former / "meta.json").write_text("{}")
    with alone(tmp_path, option="--to"):
        assert all((tmp_path / name).read_text() == "mine" for name in kept)
        assert (tmp_path / "films" / "meta.json").read_text() == "{}"
        assert not former.exists()


def test_a_full_disk_leaves_the_folder_unsealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tasks(tmp_path / "s", some_rows())

    def full(*values: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("features.store.index.pq.write_table", full)
    with pytest.raises(NoSpace, match="nothing was half written"):
        seal(tmp_path / "s")
    assert {path.name for path in (tmp_path / "s").iterdir()} == {
        "extract.json", "clips", "text", ".seal.lock",
    }  # fmt: skip


def test_seal_says_numbers_that_add_up(tmp_path: Path) -> None:
    write_tasks(tmp_path / "s", some_rows())
    ran = CliRunner().invoke(seal_command, [str(tmp_path / "s")], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "9 rows = 5 audio-video + 4 audio; 4 captions, 0 rejects;" in ran.stdout
    assert "next: features verify" in ran.stderr
    ran = CliRunner().invoke(seal_command, [str(tmp_path / "s"), "--json"], catch_exceptions=False)
    document = json.loads(ran.stdout)
    assert document["command"] == "seal"
    assert document["rows"] == document["av"] + document["audio"] == 9


def test_info_tells_people_and_programs_the_same(tmp_path: Path) -> None:
    about = {**ABOUT, "encoders": {**ABOUT["encoders"], "vae": "untrained:0"}}
    sealed_folder(tmp_path / "s", rejects=[REJECT], about=about, certificate=None)
    ran = CliRunner().invoke(info, [str(tmp_path / "s"), "--json"], catch_exceptions=False)
    found = json.loads(ran.stdout)
    assert found["certificate"] is None
    assert found["untrained"]
    assert [(s["dataset"], s["kind"], s["clips"], s["rows"]) for s in found["sets"]] == [
        ("rain", "audio", 2, 4), ("tones", "av", 5, 5),
    ]  # fmt: skip
    assert found["rejects"] == {"silent": 1}
    assert found["flags"] == {"still": 1}
    assert found["captions"] == {"unique": 4, "of_rows": 4 + 1 + 4 * 2}
    assert found["totals"]["sound_s"] == pytest.approx(9 * 32 * 512 / 16000)
    payload = sum(values.numel() * 2 for row in some_rows() for values in values_of(row).values())
    texts = 4 * 77 * 1024 * 2
    assert sum(found["column_bytes"].values()) == payload + texts == found["totals"]["payload_bytes"]
    assert len(found["statistics"]["means"]["std"]) == 20
    ran = CliRunner().invoke(info, [str(tmp_path / "s")], catch_exceptions=False)
    for said in (
        "uncertified",
        "UNTRAINED",
        "silent 1",
        "still 1",
        "4 unique, those of rejected clips included; rows have 13",
        "9 rows = 5 audio",
        "7 shards of 862.5 kB",
    ):
        assert said in ran.stdout


def test_what_a_manifest_says_otherwise_is_listed() -> None:
    def rows(**captions: list[str]) -> pa.Table:
        listed = [
            {"dataset": "d", "clip_id": clip, "caption_digest": index.caption_digest(said)}
            for clip, said in captions.items()
        ]
        return pa.Table.from_pylist(listed)

    done = rows(a=["x"], b=["y"], c=["p, q"], d=["z"], e=[""])
    rejects = pa.table({"dataset": ["d"], "clip_id": ["r"]})
    manifest = pa.table({
        "dataset": ["d"] * 6, "clip_id": ["a", "b", "c", "e", "r", "n"],
        "captions": [["x"], ["Y"], [], [], [], []], "labels": [[], [], ["p", "q"], [], [], []],
    }, schema=pa.schema([
        ("dataset", pa.string()), ("clip_id", pa.string()), ("captions", pa.list_(pa.string())),
        ("labels", pa.list_(pa.string())),
    ]))  # fmt: skip
    assert index.differences(done, rejects, "sha256:1", manifest, {"digest": "sha256:2"}) == [
        "certificate: sha256:1 when extracted, sha256:2 in the manifest",
        "1 clip (d/b): captions differ from those that were extracted",
        "1 clip (d/d): extracted, and not in the manifest any more",
        "1 clip (d/n): in the manifest, and neither extracted nor rejected",
    ]
    same = pa.Table.from_pylist(
        [{"dataset": "d", "clip_id": "a", "captions": ["x"], "labels": []}],
        schema=manifest.schema,
    )
    assert index.differences(rows(a=["x"]), rejects.slice(0, 0), None, same, None) == []


def test_digests_tell_captions_and_sources_apart() -> None:
    assert index.caption_digest(["a", "b"]) != index.caption_digest(["ab"])
    expected = "sha256:" + hashlib.sha256(b"youtube:abc").hexdigest()
    assert index.key_digest("d", "c", "youtube", "abc") == expected
    assert index.key_digest("d", "c", "youtube", None) != index.key_digest("d", "e", "youtube", None)
    assert index.clip_captions(["x"], ["l"]) == ["x"]
    assert index.clip_captions([], ["l", "m"]) == ["l, m"]
    assert index.clip_captions(None, None) == [""]
