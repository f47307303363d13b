"""Folders of memory-mapped tensors, both ways, against the tensordict package."""

import csv
import hashlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from small_shards import Planned, sealed_folder, text_of, values_of
from tensordict import TensorDict

from curation.errors import (
    BadMetadata,
    BadWeights,
    ConfigDiffers,
    FoleyproofError,
    NoSpace,
    UsageProblem,
)
from curation.files import canonical_json
from features.commands.exchange import export, import_
from features.exchange.exporting import export_memmap
from features.exchange.importing import ImportConfig, Imported, import_memmap
from features.exchange.memmap import open_memmap, read_empty_text
from features.exchange.tsv import read_tsv
from features.shards import ShardReader
from features.store import index
from features.store.verify import verify

NAMES = {"mean": "latent_mean", "std": "latent_std", "clip_features": "clip", "sync_features": "sync"}


def write_memmap(
    folder: Path, rows: list[Planned], *, texts: dict[str, torch.Tensor] | None = None
) -> Path:
    """A folder and its TSV as MMAudio's scripts leave them, through the tensordict package."""
    texts = texts or {row.captions[0]: text_of(row.captions[0]) for row in rows}
    kind = rows[0].kind
    held = {
        key: torch.stack([values_of(row)[name] for row in rows]).float()
        for key, name in NAMES.items() if kind == "av" or key in ("mean", "std")
    }  # fmt: skip
    held["text_features"] = torch.stack([texts[row.captions[0]] for row in rows]).float()
    TensorDict(held).memmap_(folder)
    write_tsv(folder.with_suffix(".tsv"), kind, [(row.clip_id, row.captions[0]) for row in rows])
    return folder


def write_tsv(path: Path, kind: str, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(("id", "label" if kind == "av" else "caption"))
        writer.writerows(rows)


def some(kind: str, count: int = 7) -> list[Planned]:
    """Rows whose ids are not sorted, with captions that several share."""
    captions = ["dog barking", 'a "quoted" one', "rain\tand tab"]
    return [
        Planned(
            clip_id=f"{kind}{(11 * i) % count:02d}", kind=kind, dataset="old", captions=[captions[i % 3]]
        )
        for i in range(count)
    ]


def imported(tmp_path: Path, rows: list[Planned], name: str = "old", **options: Any) -> Path:
    folder = write_memmap(tmp_path / name, rows)
    found = open_memmap(folder, folder.with_suffix(".tsv"), duration_s=1.0)
    config = ImportConfig(shard_rows=3, **options)
    import_memmap([Imported(dataset="old", split="train", rows=found)], tmp_path / "out", config)
    return tmp_path / "out"


@pytest.mark.parametrize("kind", ["av", "audio"])
def test_what_tensordict_wrote_is_imported_row_by_row(tmp_path: Path, kind: str) -> None:
    rows = some(kind)
    with ShardReader(imported(tmp_path, rows)) as reader:
        assert len(reader) == len(rows)
        batch = reader.batch(range(len(rows)))
        for at, row in enumerate(sorted(rows, key=lambda row: row.clip_id)):
            assert batch["clip_id"][at] == row.clip_id
            assert batch["caption"][at] == row.captions[0]
            assert torch.equal(batch["text"][at], text_of(row.captions[0]))
            for name, values in values_of(row).items():
                assert torch.equal(batch[name][at], values)
        assert reader.num_texts == 4  # each caption once, and the empty one
        assert reader.about["encoders"] == dict.fromkeys(("clip", "synchformer", "vae"), "imported")
        assert reader.about["empty_text"] == "zeros"
        assert reader.certificate is None
        assert torch.equal(batch["has_video"], torch.full((len(rows),), kind == "av"))
    assert verify(tmp_path / "out", full=True).problems == []


@pytest.mark.parametrize("kind", ["av", "audio"])
def test_what_is_exported_loads_with_tensordict(tmp_path: Path, kind: str) -> None:
    rows = sealed_folder(tmp_path / "s", [*some("av"), *some("audio")])
    parts = export_memmap(tmp_path / "s", tmp_path / "to")
    name = {"av": "old-train", "audio": "old-train-audio"}[kind]
    assert parts == {"old-train": 7, "old-train-audio": 7}
    found = TensorDict.load_memmap(tmp_path / "to" / name)
    chosen = [row for row in rows if row.kind == kind]
    expected = {"mean", "std", "text_features"} | (
        {"clip_features", "sync_features"} if kind == "av" else set()
    )
    assert set(found.keys()) == expected
    for at, row in enumerate(chosen):
        for key in expected - {"text_features"}:
            assert found[key].dtype == torch.float32
            assert torch.equal(found[key][at], values_of(row)[NAMES[key]].float())
        assert torch.equal(found["text_features"][at], text_of(row.captions[0]).float())
    ids, captions = read_tsv(tmp_path / "to" / f"{name}.tsv")
    assert ids == [row.clip_id for row in chosen]
    assert captions == [row.captions[0] for row in chosen]


def test_meta_json_says_what_tensordict_says(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "s", some("av"))
    export_memmap(tmp_path / "s", tmp_path / "to")
    theirs = write_memmap(tmp_path / "theirs", some("av"))
    ours, other = (
        json.loads((f / "meta.json").read_text()) for f in (tmp_path / "to" / "old-train", theirs)
    )
    assert ours == other


def test_export_and_import_again_keep_every_bit(tmp_path: Path) -> None:
    rows = sealed_folder(tmp_path / "s", some("av"))
    export_memmap(tmp_path / "s", tmp_path / "to")
    found = open_memmap(tmp_path / "to" / "old-train", tmp_path / "to" / "old-train.tsv", duration_s=1.0)
    again = tmp_path / "again"
    import_memmap([Imported(dataset="old", split="train", rows=found)], again, ImportConfig())
    with ShardReader(tmp_path / "s") as before, ShardReader(again) as after:
        former, latter = before.batch(range(len(rows))), after.batch(range(len(rows)))
        for name, values in former.items():
            same = (
                values == latter[name] if isinstance(values, list) else torch.equal(values, latter[name])
            )
            assert same, name


def test_several_folders_share_one_set_of_captions(tmp_path: Path) -> None:
    sets = []
    for kind in ("av", "audio"):
        folder = write_memmap(tmp_path / kind, some(kind))
        rows = open_memmap(folder, folder.with_suffix(".tsv"), duration_s=1.0)
        sets.append(Imported(dataset=kind, split="train", rows=rows))
    sealed = import_memmap(sets, tmp_path / "out", ImportConfig(shard_rows=4))
    assert (sealed.av, sealed.audio, sealed.captions) == (7, 7, 4)


def test_parts_of_a_sound_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    rows = [Planned(clip_id="long", kind="audio", part=part) for part in range(3)]
    sealed_folder(tmp_path / "s", [*rows, Planned(clip_id="other", kind="audio")])
    export_memmap(tmp_path / "s", tmp_path / "to")
    assert read_tsv(tmp_path / "to" / "tones-train-audio.tsv")[0] == [
        "long_0",
        "long_1",
        "long_2",
        "other_0",
    ]


def test_one_dataset_or_split_is_exported_alone(tmp_path: Path) -> None:
    rows = [
        Planned(clip_id="a"),
        Planned(clip_id="b", split="test"),
        Planned(clip_id="c", dataset="x/../y"),
    ]
    sealed_folder(tmp_path / "s", rows)
    assert export_memmap(tmp_path / "s", tmp_path / "to", dataset="tones", split="test") == {
        "tones-test": 1
    }
    (name,) = export_memmap(tmp_path / "s", tmp_path / "odd", dataset="x/../y")
    digest = hashlib.sha256(b"x/../y-train").hexdigest()[:8]
    assert name == f"x____y-train-{digest}"
    assert {path.name for path in (tmp_path / "odd").iterdir()} == {
        name,
        f"{name}.tsv",
        ".seal.lock",
        "export.json",
    }
    with pytest.raises(UsageProblem, match="has no rows of dataset none and split any"):
        export_memmap(tmp_path / "s", tmp_path / "to", dataset="none")


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed_folder(tmp_path / "s", some("av"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(NoSpace, match=r"0 bytes are free, expected the 2\.8 MB"):
        export_memmap(tmp_path / "s", tmp_path / "to")
    assert {path.name for path in (tmp_path / "to").iterdir()} == {".seal.lock"}


def test_an_export_is_not_mixed_with_one_of_other_shards(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "s", some("av"))
    sealed_folder(tmp_path / "other", [*some("av"), *some("audio")])
    export_memmap(tmp_path / "s", tmp_path / "to")
    before = {path.name: path.read_bytes() for path in (tmp_path / "to").glob("*.*")}
    for options in ({}, {"split": "train"}):  # the same shards: the export goes on
        export_memmap(tmp_path / "s", tmp_path / "to", **options)
    with pytest.raises(
        ConfigDiffers, match=r"was exported from other shards .* give another --to"
    ) as found:
        export_memmap(tmp_path / "other", tmp_path / "to")
    assert found.value.exit_code == 12
    assert {path.name: path.read_bytes() for path in (tmp_path / "to").glob("*.*")} == before
    (tmp_path / "to" / "export.json").unlink()
    with pytest.raises(ConfigDiffers, match=r"holds old-train, old-train\.tsv, which no export there"):
        export_memmap(tmp_path / "s", tmp_path / "to")


# ---- what import refuses ----------------------------------------------------------------------------


def opened(folder: Path) -> Any:
    return open_memmap(folder, folder.with_suffix(".tsv"), duration_s=1.0)


def test_one_caption_with_two_texts_is_refused_by_name(tmp_path: Path) -> None:
    rows = some("av")
    folder = write_memmap(tmp_path / "old", rows)
    found = TensorDict.load_memmap(folder)
    found["text_features"][3, 5, 7] += 1.0
    sets = [Imported(dataset="old", split="train", rows=opened(folder))]
    said = r"old row 0 \(av00\) and .*old row 3 \(av05\): one caption, 'dog barking', and different"
    with pytest.raises(BadMetadata, match=said):
        import_memmap(sets, tmp_path / "out", ImportConfig())
    config = ImportConfig(text_tolerance=1.1)
    assert import_memmap(sets, tmp_path / "other", config).captions == 4


def test_a_tsv_of_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    folder = write_memmap(tmp_path / "old", some("av"))
    write_tsv(tmp_path / "old.tsv", "av", [("a", "x")] * 1)
    with pytest.raises(BadMetadata, match=r"mean has shape \[7, 32, 20\], expected \[1, 32, 20\]"):
        opened(folder)


def test_tensors_of_different_numbers_of_rows_are_refused(tmp_path: Path) -> None:
    folder = write_memmap(tmp_path / "old", some("av"))
    meta = json.loads((folder / "meta.json").read_text())
    meta["std"]["shape"][0] = 6
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(BadMetadata, match=r"std\.memmap has 17,920 bytes, expected 15,360 bytes"):
        opened(folder)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("a", "x"), ("a", "y")], "line 3, id 'a', stands there again"),
        ([("", "x")], "line 2, id '', has an empty cell"),
    ],
)
def test_ids_that_are_none_are_refused(tmp_path: Path, rows: list[tuple[str, str]], said: str) -> None:
    write_tsv(tmp_path / "t.tsv", "av", rows)
    with pytest.raises(BadMetadata, match=said):
        read_tsv(tmp_path / "t.tsv")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id\tname\na\tb\n", "its columns are"),
        (b"", "its columns are"),
        (b"id\tcaption\n\xff\tb\n", "invalid start byte"),
        (b"id\tcaption\nlonely\n", "line 2, id 'lonely', has an empty cell"),
    ],
)
def test_what_is_no_tsv_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(BadMetadata, match=said):
        read_tsv(tmp_path / "t.tsv")


def no_meta(folder: Path) -> str:
    (folder / "meta.json").write_text("[")
    return r"meta\.json cannot be read"


def short_file(folder: Path) -> str:
    with (folder / "clip_features.memmap").open("ab") as file:
        file.write(b"x")
    return r"clip_features\.memmap has 229,377 bytes, expected 229,376"


def no_file(folder: Path) -> str:
    (folder / "text_features.memmap").unlink()
    return r"text_features\.memmap is missing"


def edited(folder: Path, change: Any) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def no_sync(folder: Path) -> str:
    edited(folder, lambda meta: meta.pop("sync_features"))
    return "sync_features is missing or alone"


def no_mean(folder: Path) -> str:
    edited(folder, lambda meta: meta.pop("mean"))
    return "names no tensor `mean`"


def flat_std(folder: Path) -> str:
    edited(folder, lambda meta: meta["std"].update(shape=[7]))
    (folder / "std.memmap").write_bytes(bytes(28))
    return r"std has shape \[7\], expected \[7, 32, 20\]"


def deep_meta(folder: Path) -> str:
    (folder / "meta.json").write_text("[" * 100_000)
    return r"meta\.json cannot be read \(RecursionError"


def no_rows(folder: Path) -> str:
    empty = {"shape": [0, 32, 20], "dtype": "torch.float32"}
    text = {"shape": [0, 77, 1024], "dtype": "torch.float32"}
    for name in folder.glob("*.memmap"):
        name.write_bytes(b"")
    meta = {"mean": empty, "std": empty, "text_features": text}
    (folder / "meta.json").write_text(json.dumps(meta))
    write_tsv(folder.with_suffix(".tsv"), "audio", [])
    return r"old\.tsv has no rows, expected a line for each row of the tensors — give"


def odd_dtype(folder: Path) -> str:
    edited(folder, lambda meta: meta["mean"].update(dtype="torch.int8"))
    return r"mean is torch\.int8"


def listed_dtype(folder: Path) -> str:
    edited(folder, lambda meta: meta["mean"].update(dtype=["torch.float32"]))
    return r"mean is \['torch\.float32'\]"


def odd_channels(folder: Path) -> str:
    edited(folder, lambda meta: meta["mean"].update(shape=[7, 20, 32]))
    return "mean has 32 channels, expected 20"


def test_a_place_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    folder = write_memmap(tmp_path / "old", some("av"))
    for wrong, said in (
        (tmp_path / "nowhere", "nowhere: there is no such folder"),
        (tmp_path, r"holds no meta\.json, expected a TensorDict memmap folder"),
    ):
        with pytest.raises(UsageProblem, match=said):
            open_memmap(wrong, folder.with_suffix(".tsv"), duration_s=1.0)
    with pytest.raises(UsageProblem, match=r"x\.tsv: there is no such file, .* give it with --tsv"):
        open_memmap(folder, tmp_path / "x.tsv", duration_s=1.0)


def test_tensors_of_another_length_point_to_the_option(tmp_path: Path) -> None:
    folder = write_memmap(tmp_path / "old", some("av"))
    with pytest.raises(BadMetadata, match="8 s each — give the length of the clips with --duration"):
        open_memmap(folder, folder.with_suffix(".tsv"), duration_s=8.0)


@pytest.mark.parametrize(
    "spoil",
    [
        no_meta, deep_meta, short_file, no_file, no_sync, no_mean, no_rows, flat_std, odd_dtype,
        listed_dtype, odd_channels,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_a_damaged_folder_is_refused(tmp_path: Path, spoil: Any) -> None:
    folder = write_memmap(tmp_path / "old", some("av"))
    said = spoil(folder)
    with pytest.raises(BadMetadata, match=said):
        opened(folder)


def test_rows_that_are_not_finite_become_rejects(tmp_path: Path) -> None:
    rows = some("av")
    folder = write_memmap(tmp_path / "old", rows)
    found = TensorDict.load_memmap(folder)
    found["sync_features"][2, 3, 4] = float("nan")
    found["mean"][5, 0, 0] = float("inf")
    out = tmp_path / "out"
    words = [str(folder), "--out", str(out), "--duration", "1", "--json", "--split", "validation"]
    ran = CliRunner().invoke(import_, words, catch_exceptions=False)
    assert ran.exit_code == 3
    document = json.loads(ran.stdout)
    assert document["summary"].startswith("7 rows = 5 audio-video + 0 audio + 2 rejects;")
    rejects = index.read_table(out / index.REJECTS_FILE, index.REJECTS).to_pylist()
    assert sorted((r["clip_id"], r["reason"], r["detail"]) for r in rejects) == sorted(
        (rows[row].clip_id, "not_finite", f"1 column not finite in row {row}: {name}")
        for row, name in ((2, "sync"), (5, "latent_mean"))
    )
    with ShardReader(out) as reader:
        assert set(reader.index.column("split").to_pylist()) == {"validation"}


EMPTY = torch.arange(77 * 1024, dtype=torch.float32).view(77, 1024) / 1e3


def test_the_empty_caption_is_read_from_the_release(tmp_path: Path) -> None:
    torch.save(EMPTY[None], tmp_path / "empty_string.pth")  # (1, 77, 1024), as it was published
    torch.save(EMPTY, tmp_path / "bare.pth")
    torch.save(EMPTY[None], tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file({"x": EMPTY}, tmp_path / "e.safetensors")
    for name in ("empty_string.pth", "bare.pth", "old.pth", "e.safetensors"):
        assert torch.equal(read_empty_text(tmp_path / name), EMPTY)
    folder = write_memmap(tmp_path / "old", some("audio"))
    words = [str(folder), "--out", str(tmp_path / "out"), "--duration", "1"]
    words += ["--empty-text", str(tmp_path / "empty_string.pth")]
    ran = CliRunner().invoke(import_, words, catch_exceptions=False)
    assert ran.exit_code == 0
    digest = hashlib.sha256(EMPTY.bfloat16().view(torch.int16).numpy().tobytes()).hexdigest()
    with ShardReader(tmp_path / "out") as reader:
        assert torch.equal(reader.batch([0], text=[0])["text"][0], EMPTY.bfloat16())
        assert reader.about["empty_text"] == f"sha256:{digest}"


def test_another_empty_caption_is_another_folder_of_shards(tmp_path: Path) -> None:
    imported(tmp_path, some("audio"), empty_text=EMPTY)
    first = hashes(tmp_path / "out")
    imported(tmp_path, some("audio"), empty_text=EMPTY.clone())
    assert hashes(tmp_path / "out") == first
    for other in (EMPTY + 1, None):
        with pytest.raises(ConfigDiffers, match=r"with other options \(empty_text was sha") as caught:
            imported(tmp_path, some("audio"), empty_text=other)
        assert caught.value.exit_code == 12
    assert hashes(tmp_path / "out") == first


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"is empty \(0 bytes\), expected a checkpoint — get"),
        (b"<!doctype html>", "is a web page of 15 bytes, .* expected a checkpoint — get"),
        (b"PK\x03\x04 and no more", "cannot be read .* expected a whole checkpoint: .* — get it again"),
        (b"\x80\x02}q", "cannot be read .* expected a whole checkpoint: .* — get it again"),
        ({"a": 1}, r"holds a \(int\), expected only tensors by name — give"),
        ({"a": EMPTY, "b": EMPTY}, "holds 2 tensors, expected one tensor of 77 x 1024 — give"),
        (EMPTY[:, :512], r"is a tensor of shape \(77, 512\), expected one tensor of 77 x 1024 — give"),
        (EMPTY[None, None], r"is a tensor of shape \(1, 1, 77, 1024\), expected one tensor"),
        (EMPTY / 0, "is not finite, expected one tensor of 77 x 1024 — give"),
        (None, r"cannot be read \(No such file or directory\), expected one tensor of 77 x 1024 — give"),
    ],
)
def test_what_is_no_empty_caption_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "e.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(FoleyproofError, match=rf"e\.pth: .*{said}"):
        read_empty_text(path)


class Runs:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return print, ("ran",)


def test_a_pickle_with_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Runs(), tmp_path / "evil.pth")
    with pytest.raises(BadWeights, match="asks to run print when it is read, expected tensors"):
        read_empty_text(tmp_path / "evil.pth")
    assert "ran" not in capsys.readouterr().out


# ---- again and again --------------------------------------------------------------------------------


def hashes(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def test_another_import_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    out = imported(tmp_path, some("av"))
    first = hashes(out)
    imported(tmp_path, some("av"))  # the same again
    assert hashes(out) == first
    said = r"another list of folders \(was old/train \w{12}, now old/train \w{12}\), expected the same"
    with pytest.raises(ConfigDiffers, match=said):
        imported(tmp_path, some("av", 10), name="new")


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_an_import_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path: Path, kills: int) -> None:
    folder = write_memmap(tmp_path / "old", some("av", 60))
    code = "from features.commands.exchange import import_; import_()"
    words = [sys.executable, "-c", code, str(folder),
             "--duration", "1", "--shard-rows", "4", "--out"]  # fmt: skip
    subprocess.run([*words, str(tmp_path / "whole")], check=True, capture_output=True)
    expected = hashes(tmp_path / "whole")
    for number in range(kills):
        out = tmp_path / f"killed{number}"
        with subprocess.Popen(
            [*words, str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            due = 2 + 3 * number / kills  # after so many seconds, about; before, it loads PyTorch
            while process.poll() is None and not (out / "extract.json").is_file():
                time.sleep(0.01)
            time.sleep(due % 0.7)
            process.send_signal(signal.SIGKILL)
        subprocess.run([*words, str(out)], check=True, capture_output=True)
        assert hashes(out) == expected
        shutil.rmtree(out)


def test_the_commands_say_numbers_that_add_up(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "s", [*some("av"), *some("audio")])
    words = [str(tmp_path / "s"), "--to", str(tmp_path / "to")]
    ran = CliRunner().invoke(export, words, catch_exceptions=False)
    assert ran.exit_code == 0
    assert "14 rows = 7 old-train + 7 old-train-audio" in ran.stdout
    program = shlex.split(ran.stderr.splitlines()[-1].removeprefix("next: "))
    loaded = subprocess.run([sys.executable, *program[1:]], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert "[7,32,20]" in loaded.stdout
    folders = [str(tmp_path / "to" / name) for name in ("old-train", "old-train-audio")]
    names = ["--dataset", "vgg", "--dataset", "wavcaps"]
    words = [*folders, *names, "--duration", "1", "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(import_, words, catch_exceptions=False)
    assert ran.exit_code == 0
    assert "14 rows = 7 audio-video + 7 audio + 0 rejects; 4 captions;" in ran.stdout
    ran = CliRunner().invoke(import_, [*words, "--tsv", "x.tsv"], catch_exceptions=False)
    assert ran.exit_code == 2
    assert "--tsv: given 1 time, expected once for each DIR" in ran.stderr


def test_records_have_no_path_of_the_machine(tmp_path: Path) -> None:
    out = imported(tmp_path, some("av"))
    for path in out.rglob("*.json"):
        assert str(tmp_path) not in canonical_json(json.loads(path.read_text()))


def test_what_a_killed_export_left_is_cleared(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "s", some("av"))
    export_memmap(tmp_path / "s", tmp_path / "to")
    first = hashes(tmp_path / "to")
    half = tmp_path / "to" / "old-train.tmp-99999999"  # above all ids of processes
    half.mkdir()
    (half / "mean.memmap").write_bytes(b"half")
    export_memmap(tmp_path / "s", tmp_path / "to")
    assert hashes(tmp_path / "to") == first
