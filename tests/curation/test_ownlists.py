"""Lists of one's own: any layout, any written form, and the answers a dataset with a card gets."""

import csv
import gzip
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import curation
from curation.catalog.shape import shape_of
from curation.files import sha256_file

A, B, C, D = "FhaYvI1yrUM", "4PjEi5fFD6A", "--PJHxphWEs", "abcdefghijk"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def lists_leave_no_trace(corpus: Any) -> Iterator[None]:
    """The corpus is everybody's: what these tests build in it goes again."""
    yield
    shutil.rmtree(corpus.manifests / "lists", ignore_errors=True)
    shutil.rmtree(corpus.manifests / "clean" / "own_list", ignore_errors=True)


def _written(source_id: str, start_s: float, form: int) -> str:
    """A clip in one of the forms people write, with its start."""
    start = int(start_s)
    return [
        f"{source_id}_{start:06d}",
        f"/data/vgg/{source_id}_{start:06d}.mp4",
        f"{source_id}_{start * 1000}_{start * 1000 + 10_000}",
        f"https://youtu.be/{source_id}?t={start}",
        f"https://www.youtube.com/watch?v={source_id}&t={start}s",
        f"youtube:{source_id}_{start:06d}",
    ][form % 6]


@pytest.fixture
def mine(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a list and gives its path."""

    def write(text: str | bytes, name: str = "my.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def _items(manifests: Path) -> list[tuple[str, float]]:
    return duckdb.sql(
        f"select source_id, start_s from '{manifests}/vggsound/clips.parquet' "
        "where split = 'test' order by clip_id"
    ).fetchall()


def test_list_in_six_written_forms_gets_the_counts_of_the_dataset(in_folder, curate, mine):
    rows = [_written(*item, form) for form, item in enumerate(_items(in_folder.manifests))]
    path = mine("clip\n" + "\n".join(rows) + "\n")
    code, out, err = curate("overlaps", "--test", f"{path},vggsound", "--train", "audioset", "--json")
    assert code == 0, err
    document = json.loads(out)
    own, official = document["tests"][str(path)], document["tests"]["vggsound"]
    assert (own["list"], own["size"], own["digest"]) == ("my.csv", official["size"], official["digest"])
    # most forms give no end, so their interval may be longer; ids and starts are the same
    for counted in ("test_items", "test_ids", "train_items", "pairs"):
        mine_, theirs = (test["overlap"]["audioset"][counted] for test in (own, official))
        assert (mine_["id"], mine_["same_start"]) == (theirs["id"], theirs["same_start"])
    assert document["own_lists"] == {
        str(path): {
            "list": "my.csv", "rows": len(rows), "clips": len(rows), "unknown": 0, "unknown_lines": [],
        }
    }  # fmt: skip


def test_list_with_three_columns_meets_by_time(in_folder, curate, mine):
    (source_id, start_s), *_ = _items(in_folder.manifests)
    path = mine(f"id,start,end\n{source_id},{start_s + 10},{start_s + 20}\n{D},1,2\n")
    _, out, _ = curate("overlaps", "--test", path, "--train", "vggsound/test", "--json")
    (cell,) = json.loads(out)["tests"][str(path)]["overlap"].values()
    assert cell["test_items"] == {"id": 1, "interval": 0, "same_start": 0}


def test_unknown_lines_are_told_with_their_numbers(in_folder, curate, mine):
    path = mine(f"# a comment\nid;label\n{A};dog\n\nnothing;x\n{B};cat;too;many\n{C}\n;\n{D};dog\n")
    code, out, _ = curate("overlaps", "--test", path, "--train", "vggsound")
    assert code == 0
    assert "my.csv: 6 rows = 4 clips + 0 that repeat one + 2 unknown" in out
    assert "my.csv: unknown: line 5: 'nothing', line 8: ''" in out


def test_name_alone_is_enough_once_a_list_was_compared(in_folder, curate, mine, monkeypatch):
    path = mine(f"{A}\n{B}\n")
    _, first, _ = curate("overlaps", "--test", path, "--train", "vggsound", "--json")
    path.unlink()
    code, again, _ = curate("overlaps", "--test", "my.csv", "--train", "vggsound", "--json")
    assert code == 0
    assert json.loads(again)["tests"]["my.csv"] == json.loads(first)["tests"][str(path)]


def test_changed_list_is_built_anew_and_nothing_else_is(in_folder, curate, mine):
    path = mine(f"{A}\n")
    curate("overlaps", "--test", path, "--train", "vggsound")
    built = sorted(in_folder.manifests.glob("*/*.parquet"))
    stamps = {p: p.stat().st_mtime_ns for p in built}
    mine(f"{A}\n{B}\n")
    _, out, _ = curate("overlaps", "--test", path, "--train", "vggsound", "--json")
    assert json.loads(out)["tests"][str(path)]["size"] == 2
    assert {p: p.stat().st_mtime_ns for p in built} == stamps


@pytest.mark.slow
def test_list_added_later_gives_the_bytes_of_one_run(in_folder, curate, mine, tmp_path):
    path = mine(f"{A}\n{B}\n{C}\n")
    other = tmp_path / "other"
    curate("fetch", "--from", in_folder.metadata, "--manifests", other)
    curate("build", "--manifests", other)
    words = ("overlaps", "--test", f"vggsound,{path}")
    curate("overlaps", "--test", "vggsound", "--manifests", other)
    curate(*words, "--manifests", other)
    curate(*words)
    for name in ("overlaps.parquet", "lists/my.csv/clips.parquet", "lists/my.csv/build.json"):
        assert sha256_file(other / name) == sha256_file(in_folder.manifests / name)


def test_clean_holds_the_rows_of_a_list_out_and_names_no_path(in_folder, curate, mine):
    (source_id, start_s), *_ = duckdb.sql(
        f"select source_id, start_s from '{in_folder.manifests}/vggsound/clips.parquet' "
        "where split = 'train' order by clip_id"
    ).fetchall()
    path = mine(f"{source_id}\t{start_s}\n", "own.tsv")
    code, _, err = curate("clean", "--test", path, "--name", "own_list")
    assert code == 0, err
    folder = in_folder.manifests / "clean" / "own_list"
    kept = duckdb.sql(
        f"select count(*) from '{folder}/kept.parquet' where source_id = '{source_id}'"
    ).fetchall()
    dropped = duckdb.sql(
        f"select distinct heldout_dataset, source_id from '{folder}/excluded.parquet'"
    ).fetchall()
    assert (kept, dropped) == ([(0,)], [("own.tsv", source_id)])
    assert curate("overlaps", "--test", path, "--train", path.resolve())[0] == 0
    written = b"".join(
        p.read_bytes() for p in [*folder.iterdir(), in_folder.manifests / "overlaps.parquet"]
    )
    assert str(path.parent).encode() not in written
    assert curate("verify", "own_list")[0] == 0
    code, out, _ = curate("blame", source_id, "--name", "own_list")
    assert (code, "own.tsv" in out) == (0, True)
    code, out, _ = curate("blame", source_id, "--test", path)
    assert (code, "own.tsv" in out) == (0, True)
    (in_folder.manifests / "lists" / "own.tsv" / "clips.parquet").write_bytes(b"x")
    assert curate("verify", "own_list")[0] == 13


def test_list_to_train_on_needs_no_built_dataset(curate, mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine(f"id,start\n{A},21\n{B},3\n", "test.csv")
    mine(f"file\tcaption\nY{A}.wav\ta dog\n{C}.wav\ta cat\n", "train.tsv")
    code, out, err = curate("overlaps", "--test", "test.csv", "--train", "train.tsv", "--json")
    assert code == 0, err
    cell = json.loads(out)["tests"]["test.csv"]["overlap"]["train.tsv"]
    assert (cell["train_rows"], cell["test_items"]["id"], cell["pairs"]["interval"]) == (2, 1, 1)


def test_python_reads_a_list_too(corpus, mine):
    path = mine(f"{A}_000021\n")
    table = curation.overlaps([str(path)], train="vggsound", manifests=corpus.manifests)
    assert {row["train_clip_id"] for row in table.to_pylist() if row["rule"] == "known_reupload"} == {
        f"{B}_000021"
    }


def test_split_column_tells_what_a_name_means(in_folder, curate, mine):
    path = mine(f"{A},1,dog,train\n{B},2,dog,test\n{C},3,cat,train\n")
    _, out, _ = curate("overlaps", "--test", path, "--train", "vggsound", "--json")
    assert json.loads(out)["tests"][str(path)]["size"] == 1
    _, out, _ = curate("overlaps", "--test", "vggsound", "--train", path, "--json")
    (cell,) = json.loads(out)["tests"]["vggsound"]["overlap"].values()
    assert cell["train_rows"] == 2


def test_recording_in_both_splits_is_a_clip_of_each(in_folder, curate, mine):
    path = mine(f"{A},1,dog,train\n{A},1,dog,test\n{B},2,dog,test\n")
    _, out, _ = curate("overlaps", "--test", path, "--train", path, "--json")
    ((test, cell),) = [(t, *t["overlap"].values()) for t in json.loads(out)["tests"].values()]
    assert (test["size"], cell["train_rows"], cell["test_items"]["id"]) == (2, 1, 1)


def test_path_that_is_wrong_is_not_taken_for_a_list_of_that_name(in_folder, curate, mine):
    path = mine(f"{A}\n")
    assert curate("overlaps", "--test", path, "--train", "vggsound")[0] == 0
    code, _, err = curate("overlaps", "--test", path.parent / "typo" / "my.csv", "--train", "vggsound")
    assert (code, "no such file" in err) == (2, True)


def test_names_that_differ_by_capitals_alone_are_refused(in_folder, curate, mine):
    assert curate("overlaps", "--test", mine(f"{A}\n"), "--train", "vggsound")[0] == 0
    code, _, err = curate("overlaps", "--test", mine(f"{A}\n", "My.csv"), "--train", "vggsound")
    assert (code, "differ by more than capitals" in err) == (2, True)


def test_no_list_is_written_while_another_process_holds_the_lock(in_folder, curate, mine):
    from curation.files import locked

    with locked(in_folder.manifests):
        for command in (("overlaps",), ("blame", A)):
            assert curate(*command, "--test", mine(f"{A}\n"))[0] == 11
    assert not (in_folder.manifests / "lists").exists()


def test_conflicting_licences_of_one_clip_are_unknown(in_folder, curate, mine):
    curate("overlaps", "--train", mine("sound_id,licence\n1,CC BY\n1,CC BY-NC\n2,CC BY\n2,CC BY\n"))
    built = in_folder.manifests / "lists" / "my.csv" / "clips.parquet"
    assert duckdb.sql(f"select source_id, licence from '{built}' order by 1").fetchall() == [
        ("1", None), ("2", "CC BY"),
    ]  # fmt: skip


def test_rows_of_lists_are_blamed_asked_and_exported(curate, tmp_path):
    (tmp_path / "test.csv").write_text(f"{A}\n")
    (tmp_path / "my-train.csv").write_text(f"id,label\n{A},dog\n{B},cat\n")
    places = ("--manifests", tmp_path / "m")
    words = ("--test", tmp_path / "test.csv", "--train", tmp_path / "my-train.csv")
    assert curate("clean", *words, "--name", "x", *places)[0] == 0
    code, out, err = curate("blame", B, "--name", "x", *places)
    assert (code, "kept" in out) == (0, True), err
    code, out, err = curate(
        "sql", 'select count(*) as n from "my-train.csv"', "--format", "csv", *places
    )
    assert (code, out) == (0, "n\n2\n"), err
    code, _, err = curate("export", "my-train.csv", "--to", "ids", "--out", tmp_path / "ids", *places)
    assert code == 0, err
    assert (tmp_path / "ids").read_text().split() == sorted([A, B])
    (tmp_path / "m" / "lists" / "gone.csv").mkdir()
    code, _, err = curate("overlaps", "--test", "gone.csv", "--train", "my-train.csv", *places)
    assert (code, "no such file" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "start_s"),
    [("30", 30.0), ("1:30", 90.0), ("00:01:30.5", 90.5), ("2,25", 2.25), ("soon", None), ("-3", None),
     ("1e300", None), ("", None), ("nan", None)],
)  # fmt: skip
def test_id_counts_whatever_its_time(text, start_s, in_folder, curate, mine):
    """Beside enough times that can be read, so that the column is one of times."""
    rows = "".join(f"{i:010d}A;{i};x\n" for i in range(20))
    code, out, _ = curate("overlaps", "--test", mine(f"id;start;label\n{A};{text};dog\n{rows}"))
    assert (code, "+ 0 unknown" in out) == (0, True)
    built = in_folder.manifests / "lists" / "my.csv" / "clips.parquet"
    found = duckdb.sql(f"select start_s from '{built}' where source_id = '{A}'").fetchall()
    assert found == [(start_s,)]


def test_column_is_told_where_its_name_does_not(curate, mine, tmp_path):
    path = mine(f"Verweis;Anfang;Ende;Text\nhttps://youtu.be/{A}?t=3;2,25;1:30;ein Hund\n")
    words = ("card", "new", path, "--dataset", "mine", "--manifests", tmp_path / "m")
    code, out, _ = curate(*words)
    assert (code, "not read: 'Anfang', 'Ende'" in out) == (0, True)
    told = [w for pair in (("start", "Anfang"), ("end", "Ende")) for w in ("--read", *pair)]
    assert curate(*words, *told, "--read", "caption", "Text", "--replace")[0] == 0
    assert curate("build", "mine", "--manifests", tmp_path / "m")[0] == 0
    built = tmp_path / "m" / "mine" / "clips.parquet"
    assert duckdb.sql(f"select start_s, end_s, captions from '{built}'").fetchall() == [
        (2.25, 90.0, ["ein Hund"]),
    ]  # fmt: skip
    assert curate(*words, "--read", "start", "Beginn", "--replace")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize("lines", [100_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_many_repeated_lines_are_a_few_clips(lines, in_folder, curate, mine):
    chosen = random.Random(0)
    ids = [f"{i:010d}A" for i in range(500)]
    path = mine("id,start\n" + "".join(f"{chosen.choice(ids)},30\n" for _ in range(lines)))
    code, out, _ = curate("overlaps", "--test", path, "--train", "vggsound")
    assert code == 0
    said = f"my.csv: {lines:,} rows = 500 clips + {lines - 500:,} that repeat one + 0 unknown"
    assert said in out


@pytest.mark.slow
@pytest.mark.parametrize("runs", [2, pytest.param(3, marks=pytest.mark.soak)])
def test_list_of_several_row_groups_gives_the_same_bytes_each_time(runs, in_folder, curate, mine):
    rows = [f"{i:010d}A,{i % 300},{i % 7}" for i in range(150_000)]
    random.Random(0).shuffle(rows)
    path, found = mine("id,start,label\n" + "\n".join(rows) + "\n"), set()
    for _ in range(2):
        assert curate("overlaps", "--test", path, "--train", "vggsound")[0] == 0
        found.add(sha256_file(in_folder.manifests / "lists" / "my.csv" / "clips.parquet"))
        shutil.rmtree(in_folder.manifests / "lists")
    assert len(found) == 1


LAYOUTS = {
    "AudioSet": (
        f"# Segments csv\n# YTID, start_seconds, end_seconds, positive_labels\n"
        f'{A}, 0.000, 10.000, "/m/a,/m/b"\n',
        {"id": "YTID", "start_s": "start_seconds", "end_s": "end_seconds", "label": "positive_labels"},
    ),
    "VGGSound": (f"{A},30,dog barking,train\n{B},3,cat,test\n",
                 {"id": "id", "start_s": "start_s", "label": "label", "split": "split"}),
    "AudioCaps": (f"audiocap_id,youtube_id,start_time,caption\n1,{A},30,a dog\n",
                  {"id": "youtube_id", "start_s": "start_time"}),
    "semicolons and capitals": (f"Video ID;Start Time (s);End Time (s);Class\n{A};1;2;dog\n",
                                {"id": "Video ID", "start_s": "Start Time (s)", "end_s": "End Time (s)",
                                 "label": "Class"}),
    "milliseconds": (f"ytid\tstart_ms\tend_ms\n{A}\t1000\t2000\n",
                     {"id": "ytid", "start_ms": "start_ms", "end_ms": "end_ms"}),
    "an index before the id": (f",url\n0,https://youtu.be/{A}\n1,https://youtu.be/{B}\n", {"id": "url"}),
    "ids and their links": (f"id,link\n{A},https://youtu.be/{A}\n", {"id": "id"}),
    "Freesound": ("sound_id,license,uploader\n123,CC0,x\n456,CC BY,y\n",
                  {"id": "sound_id", "licence": "license", "uploader": "uploader"}),
    "Freesound files": ("fold,file\n1,123__x__y.wav\n2,456__x__z.wav\n", {"id": "file_"}),
    "a start that is none": (f"id,start\n{A},soon\n{B},late\n", {"id": "id"}),
    "camel case": (f"videoId,startTime,endTime\n{A},1,2\n",
                   {"id": "videoId", "start_s": "startTime", "end_s": "endTime"}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_are_found_by_name_and_content(layout, mine):
    text, expected = LAYOUTS[layout]
    shape = shape_of(mine(text))
    assert {"id": shape.id_column, **shape.roles} == expected


def test_columns_may_have_any_name(in_folder, curate, mine):
    names = ["text", "clip", "parts", "named", "read", "rows", "told", "source_id", "t", "select", "row",
             "file", "text_", 'a"b', "x'y", "id", "start_s", "captions", "unread", "start"]  # fmt: skip
    cells = ["1"] * len(names)
    cells[names.index("id")] = A
    cells[names.index("start_s")] = "30"
    header = ",".join(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in names)
    code, _, err = curate("overlaps", "--test", mine(f"{header}\n{','.join(cells)}\n"))
    assert code == 0, err
    built = in_folder.manifests / "lists" / "my.csv" / "clips.parquet"
    assert duckdb.sql(f"select source_id, start_s from '{built}'").fetchall() == [(A, 30.0)]


@pytest.mark.parametrize("seed", range(20))
def test_any_layout_gives_the_same_clips(seed, in_folder, curate, tmp_path):
    """Rows written with a random separator, header, column order, line end and encoding."""
    random_ = random.Random(seed)
    clips = [(f"{i:010d}A", i, i + 10) for i in random_.sample(range(100), 20)]
    header = random_.random() < 0.7
    columns = ["id", "start", "end", "label"]
    if header:
        random_.shuffle(columns)
    label = "a, b; c\td|e"
    values = [
        {"id": id_, "start": f"{start}.{'0' * random_.randint(1, 3)}", "end": end, "label": label}
        for id_, start, end in clips
    ]
    path = tmp_path / "any.csv"
    encoding = random_.choice(["utf-8", "utf-8-sig", "utf-16"])
    with path.open("w", newline="", encoding=encoding) as out:
        writer = csv.writer(
            out, delimiter=random_.choice(",;\t|"), lineterminator=random_.choice(["\n", "\r\n"])
        )
        writer.writerows(
            ([columns] if header else []) + [[row[name] for name in columns] for row in values]
        )
    code, _, err = curate("overlaps", "--test", path, "--train", "vggsound")
    assert code == 0, err
    built = in_folder.manifests / "lists" / "any.csv" / "clips.parquet"
    found = duckdb.sql(f"select source_id, start_s, end_s, labels from '{built}'").fetchall()
    assert sorted(found) == sorted((*clip, [label]) for clip in clips)


def _identities(path: Path) -> list[tuple[Any, ...]]:
    return sorted(
        duckdb.sql(f"select source, source_id, start_s, split from '{path}/clips.parquet'").fetchall()
    )


@pytest.mark.parametrize(
    ("dataset", "file", "split"),
    [
        ("vggsound", "vggsound.csv", "split"),
        ("avsync15", "asva_metadata.csv", "split"),
        ("audiocaps", "dataset/train.csv", "'train'"),
        ("audioset", "eval_segments.csv", "'train'"),
    ],
)
def test_card_from_a_published_file_names_the_clips_of_the_card_that_ships(
    dataset, file, split, corpus, curate, tmp_path
):
    published = corpus.metadata / dataset / file
    path = tmp_path / "published.csv"
    if published.is_file():
        path.write_bytes(published.read_bytes())
    else:
        path.write_bytes(gzip.decompress(Path(f"{published}.gz").read_bytes()))
    manifests = tmp_path / "manifests"
    code, out, err = curate("card", "new", path, "--dataset", "mine", "--manifests", manifests)
    assert code == 0, err
    assert "ids: column" in out
    assert curate("build", "mine", "--manifests", manifests)[0] == 0
    shipped = duckdb.sql(
        f"select source, source_id, start_s, {split} from "
        f"'{corpus.manifests}/{dataset}/clips.parquet' where origin.file = '{file}'"
    ).fetchall()
    # a row that the shipped card fails may have an id that can still be read
    assert set(shipped) <= set(_identities(manifests / "mine"))
    extra = set(_identities(manifests / "mine")) - set(shipped)
    assert len(extra) <= len(corpus.planted.bad_rows)


def test_card_new_refuses_to_write_over_a_card(curate, mine, tmp_path):
    words = ("card", "new", mine(f"id\n{A}\n"), "--dataset", "mine", "--manifests", tmp_path / "m")
    assert curate(*words)[0] == 0
    code, _, err = curate(*words)
    assert (code, "--replace" in err) == (2, True)
    assert curate(*words, "--replace")[0] == 0


def test_card_new_takes_the_column_it_is_told(curate, mine, tmp_path):
    path = mine("file,src_file\n1-100032-A-0.wav,100032\n1-100038-A-14.wav,100038\n")
    words = ("card", "new", path, "--dataset", "mine", "--manifests", tmp_path / "m")
    assert curate(*words)[0] == 2
    assert curate(*words, "--id", "src_file")[0] == 0
    assert curate("build", "mine", "--manifests", tmp_path / "m")[0] == 0
    assert [row[:2] for row in _identities(tmp_path / "m" / "mine")] == [
        ("freesound", "100032"), ("freesound", "100038"),
    ]  # fmt: skip
