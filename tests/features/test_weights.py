"""Where published weights are found, and what is looked at before they are loaded."""

import csv
import json
import math
import multiprocessing
import os
import re
import subprocess
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from weight_files import no_checkpoints, published, saved, state

import features.weights.digests
import features.weights.published
from curation.errors import BadWeights, UsageProblem, WrongWeights
from features.weights.published import (
    PARTS,
    WeightChoice,
    checked,
    convert,
    encoder_files,
    identity_of,
    locate,
    prepare,
    state_dict_of,
)
from features.weights.table import CLIP, FILES, WeightFile, file_named, find_files

LAYOUTS = {
    "v1-16.pth": "vae_16k", "v1-44.pth": "vae_44k", "best_netG.pt": "bigvgan_16k",
    "bigvgan_generator.pt": "bigvgan_v2_44k", "synchformer_state_dict.pth": "synchformer_full_avbench",
    CLIP: "clip_dfn5b_vith14_openclip",
    **{f"mmaudio_{v}.pth": f"mmdit_{v}" for v in
       ("small_16k", "small_44k", "medium_44k", "large_44k", "large_44k_v2")},
}  # fmt: skip


@pytest.fixture
def any_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files may stand for those without a published digest, whatever tensors they hold."""
    monkeypatch.setattr("features.weights.layout.refuse_layout", lambda path, file, tensors: None)


# ---- the table ------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("name", LAYOUTS)
def test_numbers_of_tensors_and_values_are_those_of_the_layout(name: str, shared_spec: Path) -> None:
    with (shared_spec / "keys" / f"{LAYOUTS[name]}.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    shapes = [[] if row["shape"] == "-" else [int(n) for n in row["shape"].split(",")] for row in rows]
    file = file_named(name)
    assert (file.num_tensors, file.num_values) == (len(rows), sum(map(math.prod, shapes)))


@pytest.mark.shared
def test_digests_and_sizes_are_those_that_were_published(shared_spec: Path) -> None:
    text = (shared_spec / "MODEL.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+\.pth?) \| ([0-9a-f]{32}|-) \| ([^|]*) \|", text, flags=re.M)
    assert len(rows) == 10
    for name, md5, stated in rows:
        file = file_named(name)
        assert file.md5 == (None if md5 == "-" else md5), name
        if md5 != "-":
            number, unit = stated.split()
            assert file.stated == stated.strip()
            # rounded up, as `ls -h` does; the file has names and paddings besides its values
            missing = float(number) - file.num_bytes / {"MiB": 2**20, "GiB": 2**30}[unit]
            assert 0 < missing < {"MiB": 1.2, "GiB": 0.1}[unit], name


def test_every_file_has_an_address_a_licence_and_a_name_of_its_own() -> None:
    assert len({file.name for file in FILES}) == len(FILES) == 12
    for file in FILES:
        assert file.url.startswith("https://"), file.name
        assert file.url.endswith(file.name), file.name
        assert file.licence
        assert file.needed_for
        assert (file.md5 is None) == ("size" in file.unverified), file.name


def test_files_are_named_by_their_names_and_by_short_ones() -> None:
    assert [file.name for file in find_files(["clip", "vae-44k"])] == ["v1-44.pth", CLIP]
    assert [file.name for file in find_files(["encoders"])] == [
        "v1-16.pth", "v1-44.pth", "synchformer_state_dict.pth", CLIP,
    ]  # fmt: skip
    assert find_files(["all"]) == find_files([]) == FILES
    with pytest.raises(
        UsageProblem, match=r"vae: no file of weights has this name, expected one of v1-16"
    ):
        find_files(["vae"])


# ---- where they are found -------------------------------------------------------------------------

HUB = "models--apple--DFN5B-CLIP-ViT-H-14-384/snapshots/8aa7"
PLACES = [
    ("w", "w/v1-44.pth", "v1-44.pth"),
    ("w", "w/ext_weights/v1-44.pth", "v1-44.pth"),
    (".", "ext_weights/v1-16.pth", "v1-16.pth"),
    ("weights", "ext_weights/synchformer_state_dict.pth", "synchformer_state_dict.pth"),
    ("ext_weights", "ext_weights/best_netG.pt", "best_netG.pt"),
    ("ext_weights", "weights/mmaudio_large_44k_v2.pth", "mmaudio_large_44k_v2.pth"),
    (".", "weights/mmaudio_small_16k.pth", "mmaudio_small_16k.pth"),
    ("w", "w/open_clip_pytorch_model.bin", CLIP),
    ("w", "w/clip/open_clip_pytorch_model.bin", CLIP),
    ("w", "w/clip/open_clip_model.safetensors", CLIP),
    ("w", "w/clip/model.safetensors", CLIP),
    ("w", "w/clip/pytorch_model.bin", CLIP),
    ("w", "w/DFN5B-CLIP-ViT-H-14-384/model.safetensors", CLIP),
    ("w", f"w/{HUB}/open_clip_pytorch_model.bin", CLIP),
    ("w", "w/bigvgan_v2_44khz_128band_512x/bigvgan_generator.pt", "bigvgan_generator.pt"),
]


@pytest.mark.parametrize(("folder", "place", "name"), PLACES, ids=[place for _, place, _ in PLACES])
def test_every_usual_layout_is_understood(folder: str, place: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    for root in (tmp_path, Path(os.path.relpath(tmp_path))):
        found = locate(root / folder, file_named(name))
        assert found is not None
        assert found.samefile(path)
    others = [file.name for file in FILES if file.name != name]
    assert [other for other in others if locate(tmp_path / folder, file_named(other))] == []


def test_a_plain_name_of_the_hub_counts_only_in_a_folder_of_its_model(tmp_path: Path) -> None:
    for place in ("model.safetensors", "bert/model.safetensors", "clip/other.safetensors"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"x")
    assert locate(tmp_path, file_named(CLIP)) is None


def test_the_folder_itself_comes_before_those_beside_it(tmp_path: Path) -> None:
    for place in ("weights/v1-44.pth", "ext_weights/v1-44.pth"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_bytes(b"x")
    assert locate(tmp_path / "weights", file_named("v1-44.pth")) == tmp_path / "weights" / "v1-44.pth"


# ---- which weights --------------------------------------------------------------------------------


def test_weights_are_of_a_folder_or_untrained_but_not_both() -> None:
    for wrong in ({}, {"folder": Path("w"), "untrained_seed": 0}):
        with pytest.raises(
            UsageProblem, match="expected one of the two — give --weights DIR or --untrained"
        ):
            WeightChoice(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageProblem, match="--tiny without --untrained SEED"):
        WeightChoice(folder=Path("w"), tiny=True)


def test_untrained_weights_are_named_by_their_seed() -> None:
    assert identity_of(WeightChoice(untrained_seed=7), 44100) == dict.fromkeys(PARTS, "untrained:7")
    assert identity_of(WeightChoice(untrained_seed=0, tiny=True), 16000, parts=("vae",)) == {
        "vae": "untrained:0:tiny"
    }


def test_a_missing_file_is_named_with_the_command_that_brings_it(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"features weights --fetch v1-44\.pth --weights") as caught:
        identity_of(WeightChoice(folder=tmp_path), 44100, parts=["vae"])
    assert caught.value.exit_code == 2
    assert f"{tmp_path}: v1-44.pth (VAE 44.1 kHz, 1.2 GB) is not there" in str(caught.value)
    with pytest.raises(
        UsageProblem, match=r"by hand \(686\.6 MB from https://github\.com/.*/v1-16\.pth\)"
    ) as caught:
        identity_of(WeightChoice(folder=tmp_path, offline=True), 16000, parts=["vae"])
    assert "--fetch" not in str(caught.value)


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "v1-44.pth").write_bytes(b"there")
    fetch = r"fetch open_clip_pytorch_model\.bin synchformer_state_dict\.pth --weights"
    with pytest.raises(UsageProblem, match=fetch) as caught:
        identity_of(WeightChoice(folder=tmp_path), 44100)
    assert "are not there" in str(caught.value)
    assert "v1-44.pth" not in str(caught.value)


# ---- looked at before anything is loaded ----------------------------------------------------------


def _sum(program: str, path: Path) -> str:
    ran = subprocess.run([program, path], capture_output=True, text=True, check=True)
    return ran.stdout.split()[0]


def _place(folder: Path, content: bytes, **other: Any) -> tuple[WeightChoice, WeightFile, Path]:
    file = published(content, **other)
    path = folder / file.name
    path.write_bytes(content)
    return WeightChoice(folder=folder), file, path


@pytest.mark.parametrize("case", no_checkpoints())
def test_what_is_no_checkpoint_is_refused_under_every_name(case: str, tmp_path: Path) -> None:
    content, message = no_checkpoints()[case]
    weights, file, path = _place(tmp_path, content)  # as if it were the published file
    with pytest.raises(WrongWeights, match=message.replace("{}", re.escape(str(path)))):
        state_dict_of(weights, file)
    assert not list(tmp_path.glob("converted/*"))


@pytest.mark.parametrize("change", ["shorter", "longer", "one bit"])
def test_another_file_than_the_published_one_is_named_with_size_and_digest(
    change: str, tmp_path: Path
) -> None:
    weights, file, path = _place(tmp_path, saved({"weight": torch.randn(3_000_000)}))
    content = bytearray(path.read_bytes())
    if change == "one bit":
        content[5000] ^= 1
    path.write_bytes(
        {"shorter": content[:-900_000], "longer": content + bytes(9_000_000)}.get(change, content)
    )
    size = path.stat().st_size
    with pytest.raises(WrongWeights, match="it is truncated, damaged or another file") as caught:
        state_dict_of(weights, file)
    md5 = _sum("md5sum", path)
    assert caught.value.exit_code == 13
    assert f"{path}: {size:,} bytes with md5 {md5}, expected {file.num_bytes:,} bytes" in str(
        caught.value
    )
    assert f"with md5 {file.md5}" in str(caught.value)
    assert f"features weights --fetch {file.name}" in str(caught.value)
    assert not (tmp_path / "digests.json").exists()


def test_a_whole_file_is_loaded_and_its_identity_is_its_sha256(tmp_path: Path) -> None:
    weights, file, path = _place(tmp_path, saved(state()))
    tensors = state_dict_of(weights, file)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state().items())
    sha256 = _sum("sha256sum", path)
    assert checked(weights, file)[1].sha256 == sha256
    assert [p.name for p in (tmp_path / "converted").iterdir()] == [
        f"v1-44.pth-{sha256[:12]}.safetensors"
    ]


def test_what_lies_under_a_key_is_taken_out(tmp_path: Path) -> None:
    weights, file, _ = _place(tmp_path, saved({"generator": state(), "epoch": 3}), name="best_netG.pt")
    assert state_dict_of(weights, file).keys() == state().keys()


def test_a_later_load_neither_hashes_nor_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, file, _ = _place(tmp_path, saved(state()))
    first = state_dict_of(weights, file)
    monkeypatch.setattr(features.weights.published, "read_note", None)
    monkeypatch.setattr("features.weights.checkpoint_files.write_safetensors", None)
    again = state_dict_of(weights, file)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_safetensors_are_read_in_place(tmp_path: Path, any_layout: None) -> None:
    from safetensors.torch import save

    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "model.safetensors").write_bytes(save(state()))
    file = file_named(CLIP)
    assert state_dict_of(WeightChoice(folder=tmp_path), file).keys() == state().keys()
    assert not (tmp_path / "converted").exists()


def test_a_file_that_was_only_touched_is_still_itself(tmp_path: Path, any_layout: None) -> None:
    weights, file, path = _place(tmp_path, saved(state()), name=CLIP, known=False)
    first = checked(weights, file)[1]
    os.utime(path, (1, 1))
    assert checked(weights, file)[1].sha256 == first.sha256
    assert checked(weights, file)[1].mtime_ns == 10**9


def test_a_file_without_a_published_digest_is_held_to_its_first_sight(
    tmp_path: Path, any_layout: None
) -> None:
    weights, file, path = _place(tmp_path, saved(state()), name=CLIP, known=False)
    first = checked(weights, file)[1].sha256
    path.write_bytes(saved(state(1)))
    with pytest.raises(WrongWeights, match="as it was when it was first seen") as caught:
        state_dict_of(weights, file)
    assert first in str(caught.value)
    (tmp_path / "digests.json").unlink()  # as the message says
    assert torch.equal(state_dict_of(weights, file)["gain"], state(1)["gain"])


def test_a_damaged_conversion_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights, file, _ = _place(tmp_path, saved(state()))
    state_dict_of(weights, file)
    (target,) = (tmp_path / "converted").iterdir()
    whole = target.read_bytes()
    target.write_bytes(whole[:-4] + b"\x00\x00\x80\x7f")
    assert all(
        torch.equal(tensor, state()[name]) for name, tensor in state_dict_of(weights, file).items()
    )
    assert target.read_bytes() == whole
    assert "not what was written; it is converted anew" in caplog.text
    os.utime(target, (1, 1))
    caplog.clear()
    state_dict_of(weights, file)
    assert not caplog.text


def test_what_a_killed_conversion_left_is_swept(tmp_path: Path) -> None:
    weights, file, _ = _place(tmp_path, saved(state()))
    (tmp_path / "converted").mkdir()
    (tmp_path / "converted" / "v1-44.pth-0123456789ab.safetensors.tmp-99999999").write_bytes(b"half")
    state_dict_of(weights, file)
    assert [p.suffix for p in (tmp_path / "converted").iterdir()] == [".safetensors"]


def test_notes_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    weights, file, _ = _place(tmp_path, saved(state()))
    for text in ("{", "[]", '{"v1-44.pth": {"bytes": 3}}', "[" * 100_000):
        (tmp_path / "digests.json").write_text(text)
        with pytest.raises(BadWeights, match=r"digests\.json: cannot be read .* remove it"):
            checked(weights, file)


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    weights, file, path = _place(tmp_path, saved(state()))
    (tmp_path / "converted").write_text("in the way")
    with pytest.raises(BadWeights, match=r"weights cannot be kept here .* link the files"):
        convert(tmp_path, path, checked(weights, file)[1], file)


def _load(folder: str, content: bytes) -> float:
    return state_dict_of(WeightChoice(folder=Path(folder)), published(content))["gain"].item()


@pytest.mark.slow
def test_processes_that_start_together_convert_once(tmp_path: Path) -> None:
    content = saved(state())
    _place(tmp_path, content)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        loads = [pool.submit(_load, str(tmp_path), content) for _ in range(2)]
        assert {load.result() for load in loads} == {state()["gain"].item()}
    assert len(list((tmp_path / "converted").glob("*.safetensors*"))) == 1
    assert len(json.loads((tmp_path / "digests.json").read_text())) == 2


def test_files_of_another_folder_may_be_linked(tmp_path: Path) -> None:
    store, mine = tmp_path / "store", tmp_path / "mine"
    store.mkdir()
    mine.mkdir()
    _, file, path = _place(store, saved(state()))
    (mine / file.name).symlink_to(path)
    state_dict_of(WeightChoice(folder=mine), file)
    assert sorted(p.name for p in store.iterdir()) == ["v1-44.pth"]


def test_preparing_checks_and_converts_all_encoders_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {}
    for number, (part, real) in enumerate(encoder_files(44100).items()):
        content = saved(state(number))
        files[part] = replace(published(content, name=real.name))
        (tmp_path / real.name).write_bytes(content)
    monkeypatch.setattr(features.weights.published, "encoder_files", lambda sample_rate_hz: files)
    weights, told = WeightChoice(folder=tmp_path), []
    prepare(weights, 44100, progress=lambda name, done, total: told.append(name))
    assert len(list((tmp_path / "converted").glob("*.safetensors"))) == 3
    assert {name.split(" of ")[0] for name in told} == {"digest", "conversion"}
    told.clear()
    identity = identity_of(weights, 44100, progress=lambda name, done, total: told.append(name))
    assert not told
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", value) for value in identity.values())
    assert len(set(identity.values())) == 3
    prepare(WeightChoice(untrained_seed=0), 44100)  # has nothing to prepare
