"""Verifying: sound folders pass, and each damage is named with its file, row and clip."""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from small_shards import Planned, sealed_folder, some_rows, write_tasks

from curation.console import run
from curation.errors import ManifestChanged, UsageProblem
from curation.files import digest_of, sha256_file
from curation.manifest import CLIP_COLUMNS, arrow_schema
from curation.tasks import Task
from curation.tasks import run as run_tasks
from features.commands.verify import verify as command
from features.store import index
from features.store.gather import read_whole
from features.store.seal import seal
from features.store.shard_file import read_header
from features.store.verified import Problem
from features.store.verify import verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verify") / "shards"
    sealed_folder(out)
    return out


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "shards")
    return tmp_path / "shards"


def shards(out: Path, kind: str) -> list[Path]:
    return sorted(out.glob(f"*/*/{kind}-*.safetensors"))


def clips_of(out: Path, shard: Path) -> list[str]:
    table = index.read_table(out / index.INDEX_FILE, index.INDEX).to_pylist()
    name = shard.relative_to(out).as_posix()
    rows = sorted(
        (row["row"], f"{row['dataset']}/{row['clip_id']}") for row in table if row["shard"] == name
    )
    return [clip for _, clip in rows]


@pytest.mark.parametrize("full", [False, True])
def test_a_sound_folder_has_no_problems(folder: Path, full: bool) -> None:
    found = verify(folder, full=full, workers=2)
    assert found.problems == []
    assert (found.rows, found.texts) == (9, 4)
    if full:
        assert found.read_bytes == sum(path.stat().st_size for path in folder.glob("*/*/*.safetensors"))


def test_every_flipped_byte_of_a_shard_is_found_with_its_row_and_clip(copied: Path) -> None:
    for path in (shards(copied, "av")[0], shards(copied, "audio")[0], shards(copied, "text")[1]):
        header, sound = read_header(path), path.read_bytes()
        for column in header.columns.values():
            for row in range(header.rows):
                at = column.offset_bytes + row * column.row_bytes + column.row_bytes // 3
                path.write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
                problems = verify(copied, full=True).problems
                assert {problem.file for problem in problems} == {path.relative_to(copied).as_posix()}
                assert any(problem.row is None and "sha256 is" in problem.what for problem in problems)
                (found,) = [problem for problem in problems if problem.row is not None]
                assert found.row == row
                assert "crc32 of the row is" in found.what
                if header.kind == "text":
                    assert found.clip == repr(["take 0", "take 1"][row])
                else:
                    assert found.clip is not None
                    assert found.clip.startswith(clips_of(copied, path)[row])
        path.write_bytes(sound)


def test_a_flipped_bit_of_the_first_row_is_found_fast(copied: Path) -> None:
    path = shards(copied, "av")[0]
    data = bytearray(path.read_bytes())
    data[read_header(path).columns["latent_std"].offset_bytes + 10] ^= 1
    path.write_bytes(data)
    (found,) = verify(copied).problems
    assert (found.file, found.row) == (path.relative_to(copied).as_posix(), 0)


def test_two_shards_that_were_swapped_are_found_fast(tmp_path: Path) -> None:
    """Same kind, rows and size: their headers are equal to the byte."""
    sealed_folder(tmp_path / "s", [Planned(clip_id=f"c{i}") for i in range(8)])
    first, second = (
        tmp_path / "s" / "clips" / "00000-of-00002",
        tmp_path / "s" / "clips" / "00001-of-00002",
    )
    name = "av-0000.safetensors"
    assert read_header(first / name) == read_header(second / name)
    held = (first / name).read_bytes()
    shutil.copyfile(second / name, first / name)
    (second / name).write_bytes(held)
    found = verify(tmp_path / "s").problems
    assert [(problem.file, problem.row) for problem in found] == [
        (f"clips/{task}/{name}", 0) for task in ("00000-of-00002", "00001-of-00002")
    ]


def truncated(out: Path) -> str:
    os.truncate(shards(out, "av")[0], 5000)
    return r"av-0000\.safetensors: its size is 5,000, expected"


def missing(out: Path) -> str:
    shards(out, "audio")[0].unlink()
    return r"audio-0000\.safetensors: cannot be read \(No such file or directory\)"


def missing_index(out: Path) -> str:
    (out / index.INDEX_FILE).unlink()
    return r"index\.parquet: cannot be read \(No such file or directory\), expected"


def missing_record(out: Path) -> str:
    next(out.glob("clips/00001-*/task.json")).unlink()
    return r"clips/00001-of-00003/task\.json: missing, changed"


def other_format(out: Path) -> str:
    path = shards(out, "av")[0]
    path.write_bytes(path.read_bytes().replace(b"foleyproof-shards/1", b"foleyproof-shards/7"))
    return r"av-0000\.safetensors: its format is 'foleyproof-shards/7'"


def other_configuration(out: Path) -> str:
    path = shards(out, "av")[0]
    path.write_bytes(path.read_bytes().replace(b"test/1", b"test/2"))
    return r"its configuration is \{'preprocessing': \{'version': 'test/2'\}\}, expected .*test/1"


def no_extract(out: Path) -> str:
    (out / index.EXTRACT_FILE).unlink()
    return r"extract\.json: holds no extract\.json, expected a folder"


def nested_extract(out: Path) -> str:
    (out / index.EXTRACT_FILE).write_text("[" * 100_000)
    return r"extract\.json: cannot be read \(maximum recursion depth"


def other_extract(out: Path) -> str:
    document = json.loads((out / index.EXTRACT_FILE).read_text()) | {"certificate": None}
    document["digest"] = digest_of(document)
    (out / index.EXTRACT_FILE).write_text(json.dumps(document))
    return r"extract\.json: its certificate is another than in shards\.json"


def other_record(out: Path) -> str:
    """Of a task that was done anew, with other bytes."""
    path = next(out.glob("clips/00001-*/task.json"))
    record = json.loads(path.read_text())
    record["outputs"]["av-0000.safetensors"]["sha256"] = "0" * 64
    path.write_text(json.dumps({**record, "digest": digest_of(record)}))
    return r"clips/00001-of-00003/av-0000\.safetensors: the record of its task has another digest"


def silent_record(out: Path) -> str:
    path = next(out.glob("clips/00001-*/task.json"))
    record = json.loads(path.read_text())
    del record["outputs"]["av-0000.safetensors"]
    path.write_text(json.dumps({**record, "digest": digest_of(record)}))
    return r"clips/00001-of-00003/av-0000\.safetensors: the record of its task has another digest"


def longer_task_table(out: Path) -> str:
    with next(out.glob("clips/00002-*/rejects.parquet")).open("ab") as file:
        file.write(b"x")
    return r"clips/00002-of-00003/task\.json: .*files of other sizes"


def resealed(out: Path, table: pa.Table) -> None:
    """Write another index, with digests that say that it is right."""
    index.write_table(out / index.INDEX_FILE, table)
    sealed = json.loads((out / index.SHARDS_FILE).read_text())
    sealed["tables"][index.INDEX_FILE]["sha256"] = sha256_file(out / index.INDEX_FILE)
    (out / index.SHARDS_FILE).write_text(json.dumps({**sealed, "digest": digest_of(sealed)}))


def with_column(out: Path, name: str, change: Callable[[list[Any]], Any]) -> None:
    table = index.read_table(out / index.INDEX_FILE, index.INDEX)
    values = table.column(name).to_pylist()
    change(values)
    place = table.column_names.index(name)
    column = pa.array(values, table.schema.field(name).type)
    resealed(out, table.set_column(place, name, column))


def duplicated(out: Path) -> str:
    with_column(out, "clip_id", lambda values: values.__setitem__(5, values[4]))
    return r"index\.parquet \(tones/v000\): several rows have this key"


def beyond(out: Path) -> str:
    with_column(out, "row", lambda values: values.__setitem__(8, 99))
    return r"rows of it in the index, expected rows 0 to \d once each"


def strange(out: Path) -> str:
    with_column(out, "shard", lambda values: values.__setitem__(2, "clips/../../x"))
    return r"index\.parquet row 2 \(rain/s001\): shard 'clips/\.\./\.\./x', expected one"


def no_text(out: Path) -> str:
    with_column(out, "text_index", lambda values: values.__setitem__(1, []))
    return r"index\.parquet row 1 \(rain/s000 part 1\): no text_index, expected at least one"


def other_text(out: Path) -> str:
    with_column(out, "text_index", lambda values: values.__setitem__(1, [4]))
    return r"index\.parquet: a text_index is not one of the 4 captions"


def other_kind(out: Path) -> str:
    with_column(out, "has_video", lambda values: values.__setitem__(0, True))
    return r"index\.parquet row 0 \(rain/s000\): has_video is not what its shard holds"


def unsorted(out: Path) -> str:
    table = index.read_table(out / index.INDEX_FILE, index.INDEX)
    resealed(out, table.take(pa.array([1, 0, *range(2, 9)])))
    return r"its rows are not sorted by dataset, clip_id and part"


def other_rejects(out: Path) -> str:
    with (out / index.REJECTS_FILE).open("ab") as file:
        file.write(b"x")
    return r"rejects\.parquet: sha256 is"


DAMAGES = [truncated, missing, missing_index, missing_record, other_format, other_configuration,
           duplicated, beyond, strange, no_text, other_text, other_kind, unsorted,
           other_rejects, no_extract, nested_extract, other_extract, other_record, silent_record,
           longer_task_table]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_damage_is_named_and_ends_with_13(copied: Path, damage: Callable[[Path], str]) -> None:
    said = damage(copied)
    problems = "\n".join(str(problem) for problem in verify(copied).problems)
    assert re.search(said, problems), problems
    ran = CliRunner().invoke(command, [str(copied)], catch_exceptions=False)
    assert ran.exit_code == 13
    assert problems in ran.stdout


def test_a_folder_of_another_version_or_edited_is_refused(copied: Path) -> None:
    path = copied / index.SHARDS_FILE
    sound = path.read_text()
    path.write_text(sound.replace("foleyproof-shards/1", "foleyproof-shards/2"))
    with pytest.raises(ManifestChanged, match="its format is 'foleyproof-shards/2'"):
        verify(copied)
    path.write_text(sound.replace('"rows": 9', '"rows": 10'))
    with pytest.raises(ManifestChanged, match="its digest does not match"):
        verify(copied)


def test_an_unsealed_folder_says_to_seal_it(tmp_path: Path) -> None:
    write_tasks(tmp_path / "s", [Planned(clip_id="a")])
    with pytest.raises(UsageProblem, match="run: features seal"):
        verify(tmp_path / "s")


def test_the_counts_of_the_command_add_up(copied: Path) -> None:
    os.truncate(shards(copied, "av")[0], 5000)
    ran = CliRunner().invoke(command, [str(copied), "--json", "--full"], catch_exceptions=False)
    document = json.loads(ran.stdout)
    sound = document["files"] - document["wrong_files"]
    assert f"{document['files']} files = {sound} sound + {document['wrong_files']} wrong" in ran.stderr
    shard_count = len(list(copied.glob("*/*/*.safetensors")))
    # tables, extract.json, records, and of these all but that of the cut shard name their tables
    assert document["files"] == shard_count + 4 + 1 + 5 + 2 * 2 + 1 * 2
    assert document["problems"][0] == {
        "file": shards(copied, "av")[0].relative_to(copied).as_posix(), "row": None, "clip": None,
        "what": document["problems"][0]["what"],
    }  # fmt: skip


def advised(out: Path) -> str:
    """The line that says what to do."""
    ran = CliRunner().invoke(command, [str(out), "--full"], catch_exceptions=False)
    assert ran.exit_code == 13
    return ran.stderr.splitlines()[-1]


def test_a_lost_table_is_made_again_by_seal(copied: Path) -> None:
    (copied / "index.parquet").unlink()
    assert advised(copied) == f"next: features seal {copied}; features verify {copied}"
    seal(copied)
    assert not verify(copied, full=True).problems


def test_a_bad_shard_is_named_by_the_folder_to_remove(copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "with a blank"
    shutil.copytree(copied, out)
    path = shards(out, "av")[0]
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    assert advised(out) == (
        f"next: rm -r '{path.parent}'; run the same features extract again, which makes them anew"
    )
    for path in shards(out, "av"):
        path.unlink()
    assert advised(out).startswith(
        f"next: rm -r '{shards(copied, 'av')[0].parent}'".replace(str(copied), str(out))
    )


def flipped(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("table", ["clips/00001-of-00003/rows", "text/00000-of-00002/captions"])
def test_a_flipped_bit_in_the_table_of_a_task_is_found_by_a_full_look(copied: Path, table: str) -> None:
    flipped(copied / f"{table}.parquet", 100)
    assert verify(copied).problems == []
    (found,) = verify(copied, full=True).problems
    assert found.file == f"{table}.parquet"
    assert "sha256 is" in found.what
    assert advised(copied).startswith(f"next: rm -r {(copied / table).parent}; run the same features")


def test_each_file_is_read_once(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def noted(path: Path) -> str:
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr("features.store.recorded.sha256_file", noted)
    beside = [copied / name for name in index.read_sealed(copied)["tables"]]
    verify(copied)
    assert sorted(read) == sorted(beside)
    read.clear()
    verify(copied, full=True)
    assert sorted(read) == sorted([*beside, *copied.glob("*/*/*.parquet")])


def test_a_task_without_rows_is_looked_at_too(tmp_path: Path) -> None:
    """No shard names its folder; the number of tasks is that of extract.json."""
    write_tasks(tmp_path / "s", some_rows())
    without_rows(tmp_path / "s")
    seal(tmp_path / "s")
    assert verify(tmp_path / "s", full=True).problems == []
    folder = tmp_path / "s" / "clips" / "00003-of-00004"
    flipped(folder / "rejects.parquet", 100)
    (found,) = verify(tmp_path / "s", full=True).problems
    assert found.file == "clips/00003-of-00004/rejects.parquet"
    shutil.rmtree(folder)
    assert [p.file for p in verify(tmp_path / "s").problems] == ["clips/00003-of-00004/task.json"]


@pytest.mark.parametrize("name", [index.INDEX_FILE, index.CAPTIONS_FILE])
def test_without_a_table_every_byte_of_the_shards_is_still_read(copied: Path, name: str) -> None:
    (copied / name).unlink()
    paths = [*shards(copied, "av")[1:], *shards(copied, "text")[1:]]
    for path in paths:
        flipped(path)
    found = verify(copied, full=True)
    named = {p.file for p in found.problems if "sha256 is" in p.what}
    assert named == {path.relative_to(copied).as_posix() for path in paths}
    assert found.wrong_files == len(paths) + 1
    rows = {p.file.partition("/")[0] for p in found.problems if p.row is not None}
    assert rows == ({"text"} if name == index.INDEX_FILE else {"clips"})  # of the table that is left


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, os.strerror(errno.EIO)), ManifestChanged("f: ends at byte 7 — run")]
)
def test_a_file_that_cannot_be_read_is_a_problem_and_the_rest_is_looked_at(
    copied: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A disk that fails, and a file that somebody cuts meanwhile."""
    bad, table = shards(copied, "audio")[0], next(copied.glob("clips/00000-*/rows.parquet"))

    def whole(handle: int, target: memoryview, offset: int, path: Path) -> None:
        if path == bad:
            raise error
        read_whole(handle, target, offset, path)

    def digest(path: Path) -> str:
        if path in (table, copied / index.REJECTS_FILE):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sha256_file(path)

    monkeypatch.setattr("features.store.verify.read_whole", whole)
    monkeypatch.setattr("features.store.recorded.sha256_file", digest)
    flipped(shards(copied, "av")[0])
    problems = verify(copied, full=True).problems
    expected = [bad, table, copied / index.REJECTS_FILE, shards(copied, "av")[0]]
    assert {p.file for p in problems} == {path.relative_to(copied).as_posix() for path in expected}
    assert sum("cannot be read (Input/output error)" in p.what for p in problems) >= 2


def without_rows(out: Path) -> None:
    """Add a task of which all clips were rejected."""
    for number in range(3):
        (out / "clips" / f"{number:05d}-of-00003").rename(out / "clips" / f"{number:05d}-of-00004")

    def work(task: Task, folder: Path) -> dict[str, Any]:
        index.write_table(folder / index.ROWS_FILE, index.ROWS.empty_table())
        index.write_table(folder / index.REJECTS_FILE, index.REJECTS.empty_table())
        return {}

    run_tasks(out / "clips", [Task(3, 4, {})], lambda stop: contextlib.nullcontext(work))
    document = json.loads((out / index.EXTRACT_FILE).read_text())
    document["tasks"][index.CLIPS] = 4
    (out / index.EXTRACT_FILE).write_text(json.dumps({**document, "digest": digest_of(document)}))


def test_extract_json_is_written_again_before_all_else(copied: Path) -> None:
    begun = (copied / index.EXTRACT_FILE).read_bytes()
    (copied / index.EXTRACT_FILE).write_text("x")
    (copied / index.INDEX_FILE).unlink()
    assert advised(copied) == (
        f"next: rm -f {copied}/extract.json; run the same features extract or import again, which does "
        f"no task twice; features verify {copied}"
    )
    (copied / index.EXTRACT_FILE).write_bytes(begun)
    assert advised(copied) == f"next: features seal {copied}; features verify {copied}"


def manifest(folder: Path, clips: dict[str, list[str]]) -> Path:
    """A dataset as build leaves it."""
    schema = arrow_schema(CLIP_COLUMNS)
    rows = [
        {"dataset": "tones", "clip_id": clip, "split": "train", "lists": [], "source": "local",
         "source_id": clip, "captions": captions, "labels": []}
        for clip, captions in clips.items()
    ]  # fmt: skip
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "clips.parquet")
    return folder


def test_a_manifest_whose_captions_changed_ends_with_12(tmp_path: Path) -> None:
    rows = [Planned(clip_id="a", captions=["one"]), Planned(clip_id="b", captions=["two"])]
    sealed_folder(tmp_path / "s", rows, certificate=None)
    same = manifest(tmp_path / "same", {"a": ["one"], "b": ["two"]})
    words = [str(tmp_path / "s"), "--manifest"]
    assert CliRunner().invoke(command, [*words, str(same)], catch_exceptions=False).exit_code == 0
    other = manifest(tmp_path / "other", {"a": ["one"], "b": ["TWO"]})
    ran = CliRunner().invoke(command, [*words, str(other)], catch_exceptions=False)
    assert ran.exit_code == 12
    assert "1 clip (tones/b): captions differ" in ran.stdout
    os.truncate(shards(tmp_path / "s", "av")[0], 10)
    ran = CliRunner().invoke(command, [*words, str(other)], catch_exceptions=False)
    assert ran.exit_code == 12
    steps = ran.stderr.splitlines()[-1]
    assert steps.startswith(f"next: rm -r {shards(tmp_path / 's', 'av')[0].parent}; ")
    assert steps.endswith("; extract this manifest with another --out")


def test_without_the_index_a_manifest_is_not_compared(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "s", [Planned(clip_id="a", captions=["one"])], certificate=None)
    other = manifest(tmp_path / "other", {"a": ["another"]})
    (tmp_path / "s" / index.INDEX_FILE).unlink()
    words = [str(tmp_path / "s"), "--manifest", str(other), "--json"]
    ran = CliRunner().invoke(command, words, catch_exceptions=False)
    assert ran.exit_code == 13
    document = json.loads(ran.stdout)
    assert document["differences"] is None
    assert document["summary"].endswith("; not compared with the manifest")
    assert [problem["file"] for problem in document["problems"]] == [index.INDEX_FILE]


def test_a_manifest_with_another_certificate_ends_with_12(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "s", [Planned(clip_id="a", captions=["one"])])
    same = manifest(tmp_path / "same", {"a": ["one"]})
    words = [str(tmp_path / "s"), "--manifest", str(same)]
    ran = CliRunner().invoke(command, words, catch_exceptions=False)
    assert ran.exit_code == 12
    assert "certificate: sha256:cccc" in ran.stdout
    assert "none in the manifest" in ran.stdout


def test_a_missing_manifest_is_a_usage_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found before the shards are read, which may take hours."""

    def read(*values: object, **options: object) -> None:
        pytest.fail("the shards were read")

    monkeypatch.setattr("features.store.verify.verify", read)
    monkeypatch.setattr("sys.argv", ["verify", str(folder), "--full", "--manifest", "nowhere"])
    assert run(command, "verify") == 2


def test_a_problem_reads_as_a_sentence() -> None:
    assert str(Problem(file="f", row=3, clip="d/c", what="odd")) == "f row 3 (d/c): odd"
    assert str(Problem(file="f", row=None, clip=None, what="odd")) == "f: odd"
