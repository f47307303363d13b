"""`curate sql`: what it answers, in every format, and that no SELECT reads elsewhere or writes."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import curation
from curation.catalog import query
from curation.errors import UsageProblem

ROWS = "select clip_id, source_id, start_s, labels, licence from vggsound order by clip_id"
# A word of its own in a file outside the manifests: no answer may hold it.
SECRET = "a-word-that-nobody-may-read"


def truth(corpus: Any) -> list[dict[str, Any]]:
    table = pq.read_table(corpus.manifests / "vggsound" / "clips.parquet", partitioning=None)
    columns = ["clip_id", "source_id", "start_s", "labels", "licence"]
    return sorted(table.select(columns).to_pylist(), key=lambda row: row["clip_id"].encode())


@pytest.fixture
def outside(in_folder: Any, tmp_path: Path) -> Path:
    """A file outside the manifests."""
    path = tmp_path / "outside.csv"
    path.write_text(f"column\n{SECRET}\n")
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- what is answered -------------------------------------------------------------------------------


def test_json_is_one_document_with_columns_and_rows(in_folder: Any, curate: Any) -> None:
    code, out, err = curate("sql", ROWS, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["command"] == "sql"
    assert document["columns"][:2] == [
        {"name": "clip_id", "type": "VARCHAR"},
        {"name": "source_id", "type": "VARCHAR"},
    ]
    assert document["rows"] == truth(in_folder)
    assert document["summary"] == f"{len(truth(in_folder)):,} rows" == err.splitlines()[0]


def test_jsonl_and_csv_hold_every_row(in_folder: Any, curate: Any) -> None:
    _, out, err = curate("sql", ROWS, "--format", "jsonl")
    assert [json.loads(line) for line in out.splitlines()] == truth(in_folder)
    assert err.splitlines()[0].endswith(" rows")
    _, out, _ = curate("sql", ROWS, "--format", "csv")
    read = list(csv.DictReader(io.StringIO(out)))
    assert [json.loads(row["labels"]) for row in read] == [row["labels"] for row in truth(in_folder)]
    assert [row["clip_id"] for row in read] == [row["clip_id"] for row in truth(in_folder)]
    assert {row["licence"] for row in read} == {""}


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "table"])
def test_out_writes_a_whole_file_and_the_same_bytes_again(
    format_: str, in_folder: Any, curate: Any, tmp_path: Path
) -> None:
    target = tmp_path / f"rows.{format_}"
    words = ("sql", ROWS, "--format", format_, "--out", target)
    code, out, err = curate(*words)
    assert code == 0, err
    assert re.fullmatch(r"[\d,]+ rows.* in .*", out.strip()), out
    first = target.read_bytes()
    curate(*words)
    assert target.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    if format_ == "parquet":
        assert pq.read_table(target).to_pylist() == truth(in_folder)


def test_table_shows_the_first_rows_and_counts_the_others(in_folder: Any, curate: Any) -> None:
    _, out, _ = curate("sql", "select i as n, 'a\tb' as x from range(1500) t(i) order by i")
    lines = out.splitlines()
    assert lines[0].split() == ["n", "x"]
    assert lines[1000].split(maxsplit=1) == ["999", r"a\tb"]
    assert lines[1001] == "1,500 rows = 1,000 shown + 500 not shown"


def test_column_names_are_unique_in_every_format(in_folder: Any, curate: Any) -> None:
    _, out, _ = curate("sql", "select 1 as n, 2 as n, 1.5 as d, 'nan'::double as x", "--json")
    assert json.loads(out)["rows"] == [{"n": 1, "n_1": 2, "d": 1.5, "x": None}]


@pytest.mark.parametrize(
    "select", ["from clips limit 1", "show tables", "describe clips", "values (1)", "select 1 -- why",
               "select 1;", "with a as (select 1) from a", "summarize clips",
               "from read_parquet('manifests/vggsound/clips.parquet') limit 1"],
)  # fmt: skip
def test_selects_in_every_spelling_pass(select: str, in_folder: Any, curate: Any) -> None:
    code, _, err = curate("sql", select)
    assert code == 0, err


def test_every_built_table_has_a_view(in_folder: Any, curate: Any) -> None:
    curate("clean", "--name", "asked")
    names = {row["name"] for row in json.loads(curate("sql", "show tables", "--json")[1])["rows"]}
    assert names >= {"clips", "problems", "evidence", "overlaps", "twins", "vggsound", "asked_kept"}


# ---- what is refused --------------------------------------------------------------------------------

WRITES = [
    "copy (select 1) to '{manifests}/evil.csv'",
    "with x as (copy (select 1) to '{manifests}/evil.csv') from x",
    "with x as (copy (from clips) to '{manifests}/vggsound/clips.parquet') select 1",
    "select * from (with x as (copy (select 1) to '{manifests}/evil.csv') from x)",
    "from query('copy (select 1) to ''{manifests}/evil.csv''')",
    "from query('with x as (copy (select 1) to ''{manifests}/evil.csv'') from x')",
    "from json_execute_serialized_sql(json_serialize_sql("
    "'with x as (copy (select 1) to ''{manifests}/evil.csv'') from x'))",
    "from query('from json_execute_' || 'serialized_sql(json_serialize_sql(''select 1''))')",
    "select 1) ; copy (select 1 as a) to '{manifests}/evil.csv'; from (select 1",
    "select 1; copy (select 1) to '{manifests}/evil.csv'",
    "with x as (insert into clips select * from clips returning *) from x",
    "create table evil as select 1", "insert into clips values (1)", "delete from clips",
    "drop view clips", "export database '{manifests}/evil'", "attach '{manifests}/evil.db'",
    "from enable_logging(storage = 'file', storage_path = '{manifests}/evil')",
    "from enable_profiling(save_location = '{manifests}/evil')",
]  # fmt: skip
READS = [
    "from '{outside}'", "from read_csv('{outside}')", "from read_text('{outside}')",
    "from read_blob('{outside}')", "from read_parquet('{outside}')", "from read_json('{outside}')",
    "from sniff_csv('{outside}')", "from glob('{outside}*')", "from read_duckdb('{outside}')",
    "from parquet_metadata('{outside}')", "from query('from read_text(''{outside}'')')",
    "from query_table('{outside}')", "from read_text('{manifests}/../../../../../../..{outside}')",
    "from read_text('{manifests}/link.csv')", "from read_csv('manifests/link.csv')",
    "select (select content from read_text('{outside}'))",
    "from 'http://127.0.0.1:9/x.csv'", "from read_csv('https://127.0.0.1:9/x.csv')",
    "from read_parquet('s3://bucket/x.parquet')", "from duckdb_secrets()",
    "from read_text('/proc/self/environ')", "from read_csv('/dev/stdin')", "select getenv('HOME')",
    "from frame",
]  # fmt: skip
OTHERS = [
    "set memory_limit = '100GB'", "set enable_external_access = true", "reset lock_configuration",
    "pragma version", "call pragma_version()", "install httpfs", "load httpfs", "checkpoint",
    "prepare p as select 1", "execute p", "explain select 1", "use memory", "begin", "vacuum",
    "attach '{outside}'", "detach manifests", "", "   ", "-- nothing", "selec", "select", "(select 1",
    "from nope", "select nope from clips", "select clip_id::int from clips", "select error('a\nb')",
    "pivot clips on split using count(*)",
]  # fmt: skip


@pytest.mark.parametrize("select", [*WRITES, *READS, *OTHERS])
def test_what_is_no_harmless_select_is_a_usage_error_and_leaves_no_trace(
    select: str, outside: Path, in_folder: Any, curate: Any, tmp_path: Path
) -> None:
    import pandas as pd

    frame = pd.DataFrame({"word": [SECRET]})  # DuckDB would find it by its name
    assert len(frame) == 1
    link = in_folder.manifests / "link.csv"
    link.symlink_to(outside)
    try:
        before = files_below(in_folder.manifests)
        filled = select.replace("{manifests}", str(in_folder.manifests.resolve()))
        code, out, err = curate("sql", filled.replace("{outside}", str(outside)))
        assert code == 2, (out, err)
        assert out == ""
        assert err.startswith("curate: ")
        assert err.count("\n") == 1
        assert "expected" in err
        assert SECRET not in err
        assert files_below(in_folder.manifests) == before
        assert [path.name for path in tmp_path.iterdir()] == [outside.name]
    finally:
        link.unlink()


@pytest.mark.parametrize("select", [*READS, "attach '{outside}'", "copy (select 1) to '{outside}'"])
def test_open_manifests_is_as_confined(select: str, outside: Path, in_folder: Any) -> None:
    import duckdb

    link = in_folder.manifests / "link.csv"
    link.symlink_to(outside)
    filled = select.replace("{manifests}", str(in_folder.manifests.resolve()))
    try:
        with curation.open_manifests("manifests") as db, pytest.raises(duckdb.Error):
            db.execute(filled.replace("{outside}", str(outside)))
    finally:
        link.unlink()
    assert SECRET in outside.read_text()


def test_manifests_behind_links_are_read(corpus: Any, curate: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(corpus.manifests / "vggsound", tmp_path / "elsewhere")
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "vggsound").symlink_to(tmp_path / "elsewhere")
    code, out, err = curate("sql", "select count(*) as n from clips", "--manifests",
                            tmp_path / "manifests", "--format", "csv")  # fmt: skip
    assert (code, out) == (0, "n\n1451\n"), err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--format", "parquet"), "--format parquet is no text, expected --out FILE"),
        (("--json", "--out", "x.json"), "--json prints one document, --out writes a file"),
        (("--out", "manifests/vggsound/clips.parquet"), "where it could replace a manifest"),
        (("--format", "xml"), "is not one of 'table', 'csv', 'jsonl', 'parquet'"),
        (("--manifests", "nowhere"), "nowhere: nothing is built there"),
    ],
)
def test_wrong_options_are_usage_errors(
    words: tuple[str, ...], says: str, in_folder: Any, curate: Any
) -> None:
    code, out, err = curate("sql", "select 1", *words)
    assert (code, out) == (2, "")
    assert says in err


def test_answer_that_fails_half_way_leaves_no_file(in_folder: Any, curate: Any, tmp_path: Path) -> None:
    late = "select case when i < 400000 then i else error('late') end as n from range(500000) t(i)"
    for format_ in ("csv", "parquet"):
        code, _, err = curate("sql", late, "--format", format_, "--out", tmp_path / "rows")
        assert code == 2
        assert "late" in err
    assert not list(tmp_path.iterdir())


def test_types_that_parquet_has_not_are_refused_in_words(
    in_folder: Any, curate: Any, tmp_path: Path
) -> None:
    union = "select union_value(a := 1) as u"
    code, _, err = curate("sql", union, "--format", "parquet", "--out", tmp_path / "u.parquet")
    assert code == 2
    assert "Unhandled type for Arrow to Parquet" in err


def test_damaged_manifest_is_named(corpus: Any, curate: Any, tmp_path: Path) -> None:
    folder = tmp_path / "manifests" / "vggsound"
    folder.mkdir(parents=True)
    for name in ("clips.parquet", "build.json"):
        content = (corpus.manifests / "vggsound" / name).read_bytes()
        (folder / name).write_bytes(content if name == "build.json" else content[:-64] + bytes(64))
    code, _, err = curate("sql", "from clips", "--manifests", tmp_path / "manifests")
    assert code == 1
    assert "expected Parquet as curate wrote it" in err


@pytest.mark.slow
def test_signal_during_an_answer_ends_with_130(in_folder: Any, curate: Any) -> None:
    import signal

    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    code, _, err = curate("sql", "select sum(a.range) from range(10_000_000) a, range(10_000_000) b")
    assert code == 130
    assert "interrupted" in err


def test_reader_who_leaves_ends_the_answer(in_folder: Any) -> None:
    program = "import sys; from curation.cli import main; main()"
    select = "select range as n from range(3_000_000)"
    command = [sys.executable, "-c", program, "sql", select, "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "n\n"
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 0
    assert "until the reader left" in err


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_answer_of_a_million_rows_is_streamed(format_: str, in_folder: Any, tmp_path: Path) -> None:
    select = "select i, md5(i::varchar) as a, md5((i + 1)::varchar) as b from range(1_000_000) t(i)"
    program = (
        "import re, sys; from curation.cli import curate; from curation.console import run; "
        "code = run(curate, 'curate'); "
        # not getrusage, which begins with the memory of the process that forked this one
        "status = open('/proc/self/status').read(); "
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) // 1024); sys.exit(code)"
    )
    words = ["sql", select, "--format", format_, "--out", str(tmp_path / "rows")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1,000,000 rows in")
    assert int(done.stdout.splitlines()[-1]) < 400
    if format_ == "parquet":
        found = pq.ParquetFile(tmp_path / "rows")
        assert found.metadata.num_rows == 1_000_000
        assert found.metadata.row_group(0).num_rows == 122_880


def test_one_select_is_checked_before_anything_is_opened(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageProblem, match="expected exactly one SELECT"),
        query.answer("drop table x", tmp_path),
    ):
        pass
