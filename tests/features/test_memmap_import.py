"""Imports beside one another, text that is not finite, ids of several folders."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from small_shards import Planned, text_of
from tensordict import TensorDict
from test_memmap import EMPTY, hashes, imported, opened, some, write_memmap

from curation.errors import Locked, UsageProblem
from curation.tasks import RECORD
from features.commands.exchange import import_
from features.exchange.importing import ImportConfig, Imported, import_memmap
from features.extraction import begun
from features.shards import ShardReader
from features.store import index
from features.store.verify import verify


def test_one_import_begins_a_folder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    code = (
        "import sys; from pathlib import Path; from features.store.seal import alone\n"
        "with alone(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    monkeypatch.setattr(begun, "PATIENCE_S", 0.0)
    holder = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Locked, match="or give another --out"):
            imported(tmp_path, some("audio"))
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".seal.lock"]
        other.communicate("")


@pytest.mark.slow
def test_two_imports_started_together_end_in_one_sealed_folder(tmp_path: Path) -> None:
    folder = write_memmap(tmp_path / "old", some("audio", 40))
    code = (
        "import sys, time; from pathlib import Path\n"
        "from features.commands.exchange import import_; import features.exchange.importing\n"
        "Path(sys.argv.pop(1)).touch()\n"
        "while len(list(Path(sys.argv[1]).parent.glob('ready*'))) < 2: pass\n"
        "from curation.console import run; sys.exit(run(import_, 'import'))"
    )
    words = [str(folder), "--duration", "1", "--shard-rows", "4", "--out", str(tmp_path / "out")]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / f"ready{number}"), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    said = [(*process.communicate(), process.returncode) for process in both]
    assert {code for _, _, code in said} <= {0, 11}, said
    assert 0 in {code for _, _, code in said}, said
    assert verify(tmp_path / "out", full=True).problems == []


def test_a_folder_that_is_continued_is_sealed_only_when_all_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = imported(tmp_path, some("audio"))
    whole = hashes(out)
    (out / "clips" / "00001-of-00003" / RECORD).unlink()

    def dying(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("features.exchange.importing._rows_of", dying)
        with pytest.raises(KeyboardInterrupt):
            imported(tmp_path, some("audio"))
    assert not (out / index.SHARDS_FILE).exists()
    imported(tmp_path, some("audio"))
    assert hashes(out) == whole


def test_other_shard_rows_are_named_as_the_option_that_differs(tmp_path: Path) -> None:
    imported(tmp_path, some("audio"))
    sets = [Imported(dataset="old", split="train", rows=opened(tmp_path / "old"))]
    with pytest.raises(
        Exception, match=r"with other options \(shard_rows was 3, now 5\), expected"
    ) as c:
        import_memmap(sets, tmp_path / "out", ImportConfig(shard_rows=5))
    assert getattr(c.value, "exit_code", None) == 12


@pytest.mark.parametrize("place", [".", "../old/", "sub/.."])
def test_a_folder_may_be_the_one_where_the_command_runs(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_memmap(tmp_path / "old", some("audio"))
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder)
    words = [place, "--duration", "1", "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(import_, words, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    with ShardReader(tmp_path / "out") as reader:
        assert set(reader.index.column("dataset").to_pylist()) == {"old"}


def test_an_id_of_two_folders_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folders = [
        write_memmap(tmp_path / name, [Planned(clip_id="x", kind="audio", captions=["a"])])
        for name in ("one", "two")
    ]
    words = [*map(str, folders), "--duration", "1", "--out", str(tmp_path / "out"), "--dataset"]
    command = [*words, "same", "--dataset", "same"]
    ran = CliRunner().invoke(import_, command)
    assert isinstance(ran.exception, UsageProblem)
    said = str(ran.exception)
    assert said.startswith(
        f"x: is a row of {folders[0]} and of {folders[1]}, both called same (1 such id"
    )
    assert said.endswith("give each DIR a name of its own with --dataset")
    assert not (tmp_path / "out").exists()
    ran = CliRunner().invoke(import_, [*words, "same", "--dataset", "other"], catch_exceptions=False)
    assert ran.exit_code == 0


@pytest.mark.parametrize("bad", [[0], [3], [0, 3, 6]])
def test_rows_whose_text_is_not_finite_are_rejects_in_whatever_order(
    bad: list[int], tmp_path: Path
) -> None:
    rows = some("audio")  # rows 0, 3 and 6 have one caption
    folder = write_memmap(tmp_path / "old", rows)
    text = TensorDict.load_memmap(folder)["text_features"]
    for row in bad:
        text[row, 5, 7] = float("nan")
        text[row, 6] = 9.0  # also otherwise another text
    out = tmp_path / "out"
    sets = [Imported(dataset="old", split="train", rows=opened(folder))]
    sealed = import_memmap(sets, out, ImportConfig(shard_rows=2))
    assert (sealed.rows, sealed.rejects) == (7 - len(bad), len(bad))
    rejects = index.read_table(out / index.REJECTS_FILE, index.REJECTS).to_pylist()
    assert {(r["clip_id"], r["reason"], r["detail"]) for r in rejects} == {
        (rows[row].clip_id, "not_finite", f"1 column not finite in row {row}: text") for row in bad
    }
    assert sealed.captions == (3 if len(bad) == 3 else 4)
    with ShardReader(out) as reader:
        batch = reader.batch(range(len(reader)))
        for caption, held in zip(batch["caption"], batch["text"], strict=True):
            assert torch.equal(held, text_of(caption))
    assert verify(out, full=True).problems == []


def test_an_empty_caption_whose_text_is_nowhere_finite_is_what_was_given(tmp_path: Path) -> None:
    rows = [Planned(clip_id=name, kind="audio", captions=[name.strip("ab")]) for name in ("a", "b", "c")]
    folder = write_memmap(tmp_path / "old", rows)
    TensorDict.load_memmap(folder)["text_features"][:2] = float("inf")
    sets = [Imported(dataset="old", split="train", rows=opened(folder))]
    assert import_memmap(sets, tmp_path / "out", ImportConfig(empty_text=EMPTY)).rejects == 2
    with ShardReader(tmp_path / "out") as reader:
        assert reader.about["empty_text"].startswith("sha256:")
        assert torch.equal(reader.batch([0], text=[0])["text"][0], EMPTY.bfloat16())


def test_tables_of_a_task_are_sorted_by_key(tmp_path: Path) -> None:
    out = imported(tmp_path, some("audio"))
    table = index.read_table(out / "clips" / "00000-of-00003" / index.ROWS_FILE, index.ROWS)
    ids = table.column("clip_id").to_pylist()
    assert ids == sorted(ids)
    assert json.loads((out / "extract.json").read_text())["about"]["shard_rows"] == 3
    assert os.listdir(out / "text")
