"""`curate export`, read back by the tools it is for: their libraries, and MMAudio's layout of a tsv."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.catalog.filenames import stem_sql

FORMATS = ("mmaudio", "ids", "croissant", "huggingface")


@pytest.fixture(scope="module")
def manifests(corpus: Any) -> Path:
    """The manifests, with clean/exported."""
    from curation.decision.clean import clean
    from curation.decision.policy import CleanConfig

    config = CleanConfig(tests=("vggsound", "audiocaps", "clotho"))
    clean(config, name="exported", manifests=corpus.manifests, cards=corpus.cards)
    return Path(corpus.manifests)


@pytest.fixture
def export(manifests: Path, in_folder: Any, curate: Any, tmp_path: Path) -> Any:
    """A function that exports WHAT: its folder or file, and the summary."""

    def call(what: str, format_: str, *words: Any, code: int = 0) -> tuple[Path, str]:
        target = tmp_path / f"{format_} out"
        found, out, err = curate("export", what, "--to", format_, "--out", target, *words)
        assert found == code, (out, err)
        return target, out + err

    return call


def kept(manifests: Path) -> pa.Table:
    return pq.read_table(manifests / "clean" / "exported" / "kept.parquet", partitioning=None)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def in_a_fresh_interpreter(program: str, *words: Any, folder: Path) -> Any:
    """What a program prints as JSON, offline, warnings of others left to others."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True, text=True, env={**os.environ, **offline},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ---- what is written --------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("what", ["clean/exported", "vggsound", "vggsound@mmaudio", "audioset/eval"])
def test_every_row_is_in_the_sum_and_the_bytes_are_the_same_again(
    what: str, format_: str, export: Any, manifests: Path
) -> None:
    target, said = export(what, format_)
    summary = said.splitlines()[0]
    total, parts = summary.split("; ")[0].split(" rows = ")
    numbers = [int(part.split()[0].replace(",", "")) for part in parts.split(" + ")]
    assert int(total.replace(",", "")) == sum(numbers), summary
    if what == "clean/exported":
        assert sum(numbers) == kept(manifests).num_rows
    before = files_of(target)
    export(what, format_)
    assert files_of(target) == before


def test_mmaudio_tsv_is_read_with_and_without_quoting(export: Any, manifests: Path) -> None:
    """Source of the layout: spec section 11.2 and 11.3, `id` and `label` or `caption`, a row a clip."""
    import pandas as pd

    folder, _ = export("clean/exported", "mmaudio")
    rows = kept(manifests).to_pylist()
    expected = [
        (f"{row['source_id']}_{int(row['start_s']):06d}", ", ".join(row["labels"]))
        for row in rows
        if row["dataset"] == "vggsound"
    ]
    path = folder / "vggsound.tsv"
    assert b"\r" not in path.read_bytes()
    with path.open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream, delimiter="\t"))
    assert [(row["id"], row["label"]) for row in read] == expected
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    assert list(zip(frame["id"], frame["label"], strict=True)) == expected
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines == [["id", "label"], *map(list, expected)]
    clotho = (folder / "clotho.tsv").read_text(encoding="utf-8").splitlines()
    first = next(row for row in rows if row["dataset"] == "clotho")
    assert clotho[:2] == ["id\tcaption", f"Rain on a roof\t{first['captions'][0]}"]


def test_no_clip_of_a_test_set_is_in_the_tsv(export: Any, corpus: Any) -> None:
    folder, _ = export("clean/exported", "mmaudio")
    ids = {
        line.split("\t")[0] for path in folder.glob("*.tsv") for line in path.read_text().splitlines()
    }
    held = pq.read_table(corpus.manifests / "vggsound" / "clips.parquet", partitioning=None).to_pylist()
    test = {row["clip_id"] for row in held if row["split"] == "test"}
    assert test
    assert not ids & test


def test_labels_that_would_end_a_line_or_a_cell_become_blanks(make_tiny: Any, tmp_path: Path) -> None:
    from curation.decision.export.rows import Rows
    from curation.decision.export.text import to_ids, to_mmaudio

    labels = ["a\tb", 'say "hi"', "a\r\nb", "\u2028", "ends\n", "", "plain", "plain", None, "x"]
    ids = ["1", "2", "3", "4", "5", "6", "7", "7", "9", "a\nb"]
    table = pa.table({
        "dataset": ["clotho"] * 10, "clip_id": ids, "source_id": ["s", "s", None, "\t", *"abcdef"],
        "captions": pa.array([[t] if t is not None else [] for t in labels], pa.list_(pa.string())),
        "labels": pa.array([[]] * 10, pa.list_(pa.string())), "licence": pa.nulls(10, pa.string()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = Rows(what="x", file=tmp_path / "rows.parquet", where="true", certificate=None, document=None)
    from curation.catalog.cards import load_cards

    (tmp_path / "m").mkdir()
    counts = to_mmaudio(rows, tmp_path / "out", tmp_path / "m", load_cards())
    assert (tmp_path / "out" / "clotho.tsv").read_text() == (
        "id\tcaption\n1\ta b\n2\tsay 'hi'\n3\ta b\n5\tends\n7\tplain\n"
    )
    assert counts.parts == {
        "written": 5, "repeated": 1, "without text": 3, "with an id that a line cannot hold": 1,
    }  # fmt: skip
    ids_out = to_ids(rows, tmp_path / "ids", tmp_path / "m", column="source_id")
    assert (tmp_path / "ids").read_text() == "a\nb\nc\nd\ne\nf\ns\n"
    assert ids_out.parts == {
        "written": 7, "repeated": 1, "without id": 1, "with an id that a line cannot hold": 1,
    }  # fmt: skip


@pytest.mark.parametrize("column", ["source_id", "clip_id"])
def test_ids_are_unique_sorted_and_all(column: str, export: Any, manifests: Path) -> None:
    path, _ = export("clean/exported", "ids", "--column", column)
    values = {value for value in kept(manifests)[column].to_pylist() if value is not None}
    assert path.read_text().splitlines() == sorted(values, key=str.encode)


# ---- read back by the tools it is for ----------------------------------------------------------------

_CROISSANT = """
import json, sys, logging
logging.disable(logging.CRITICAL)
import mlcroissant
dataset = mlcroissant.Dataset(sys.argv[1])  # raises ValidationError where it is not valid
issues = dataset.metadata.ctx.issues
def plain(v):
    return v.decode() if isinstance(v, bytes) else [*map(plain, v)] if isinstance(v, list) else v
rows = {r.name: [{k.split("/")[1]: plain(v) for k, v in row.items()} for row in dataset.records(r.id)]
        for r in dataset.metadata.record_sets}
print(json.dumps({"errors": sorted(issues.errors), "warnings": sorted(issues.warnings), "rows": rows}))
"""


@pytest.mark.slow
def test_croissant_is_valid_and_mlcroissant_loads_every_record(
    export: Any, manifests: Path, tmp_path: Path
) -> None:
    folder, _ = export("clean/exported", "croissant")
    read = in_a_fresh_interpreter(_CROISSANT, folder / "croissant.json", folder=tmp_path)
    assert read["errors"] == []
    assert all("datePublished" in warning for warning in read["warnings"]), read["warnings"]
    table = kept(manifests).drop_columns(["origin"])
    for name in set(table["dataset"].to_pylist()):
        expected = [row for row in table.to_pylist() if row["dataset"] == name]
        assert read["rows"][name] == expected


def test_croissant_says_bytes_digests_licences_and_what_was_removed(
    export: Any, corpus: Any, manifests: Path
) -> None:
    folder, _ = export("clean/exported", "croissant")
    document = json.loads((folder / "croissant.json").read_text())
    for entry in document["distribution"]:
        content = (folder / entry["contentUrl"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["contentSize"] == f"{len(content)} B"
    card = corpus.cards["clotho"]
    assert any(card.metadata_licence in licence for licence in document["license"])
    assert card.citation in document["citeAs"]
    certificate = manifests / "clean" / "exported" / "certificate.json"
    assert (folder / "certificate.json").read_bytes() == certificate.read_bytes()
    assert json.loads(certificate.read_text())["digest"] in document["rai:dataPreprocessingProtocol"]
    assert "may be in here" in document["rai:dataLimitations"]


_DATASETS = """
import json, sys
import datasets
datasets.disable_progress_bars()
found = datasets.load_dataset(sys.argv[1])
print(json.dumps({name: rows.to_list() for name, rows in found.items()}))
"""


@pytest.mark.slow
def test_huggingface_folder_is_loaded_offline_by_datasets(
    export: Any, manifests: Path, tmp_path: Path
) -> None:
    folder, _ = export("clean/exported", "huggingface")
    read = in_a_fresh_interpreter(_DATASETS, folder, folder=tmp_path)
    rows = kept(manifests).to_pylist()
    assert set(read) == {row["dataset"] for row in rows}
    for name, found in read.items():
        assert found == [row for row in rows if row["dataset"] == name]


def test_card_of_the_folder_has_the_licence_of_every_dataset(
    export: Any, corpus: Any, manifests: Path
) -> None:
    import yaml

    folder, _ = export("clean/exported", "huggingface")
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    names = sorted(set(kept(manifests)["dataset"].to_pylist()))
    assert [entry["split"] for entry in head["configs"][0]["data_files"]] == names
    assert head["license"] == "other"
    for name in names:
        card, rows = corpus.cards[name], kept(manifests)["dataset"].to_pylist().count(name)
        line = next(line for line in text.splitlines() if line.startswith(f"| {card.title} |"))
        assert f"| {rows:,} | {card.metadata_licence} | {card.media_licence} |" in line
    assert "not covered: the audio VAE" in text


def test_manifest_that_keeps_its_overlaps_says_so(in_folder: Any, curate: Any, tmp_path: Path) -> None:
    curate("clean", "--policy", "report", "--name", "reported")
    for what, says in (("clean/reported", "still in here"), ("vggsound", "were not removed")):
        curate("export", what, "--to", "huggingface", "--out", tmp_path / "out")
        assert says in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("pattern", "stem"),
    [("{id}_{start:06d}.mp4", "abc_000030"), ("Y{id}.wav", "Yabc"), ("{clip_id}", "x.y"),
     ("{id}_{start_ms}_{end_ms}.mp4", "abc_30000_40000"), ("{id}_{start}.wav", "abc_30"),
     ("sub/{id}.flac", "abc")],
)  # fmt: skip
def test_patterns_of_cards_give_the_names_of_files(pattern: str, stem: str) -> None:
    import duckdb

    row = "select 'abc' as source_id, 'folder/x.y.wav' as clip_id, 30.0 as start_s, 40.0 as end_s"
    with duckdb.connect() as db:
        assert db.execute(f"select {stem_sql(pattern)} from ({row})").fetchone() == (stem,)


# ---- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("clean/nope", 2, "no clean manifest 'nope', expected one of"),
        ("clean/../../x", 2, "no clean manifest '../../x'"),
        ("nope", 2, "unknown dataset 'nope'"),
        ("vggsound@nope", 2, "unknown list 'vggsound@nope'"),
        ("vggsound/nope", 2, "unknown split 'vggsound/nope'"),
    ],
)
def test_unknown_names_are_usage_errors(what: str, code: int, says: str, export: Any) -> None:
    target, said = export(what, "mmaudio", code=code)
    assert says in said
    assert not target.exists()


@pytest.mark.parametrize("format_", ["mmaudio", "croissant", "huggingface"])
def test_folder_of_somebody_else_is_left_alone(format_: str, export: Any, tmp_path: Path) -> None:
    folder = tmp_path / f"{format_} out"
    folder.mkdir()
    export("vggsound", format_)  # an empty folder is nobody's
    (folder / "export.json").write_text("{}")
    before = files_of(folder)
    _, said = export("vggsound", format_, code=2)
    assert "is there, and export did not make " in said
    assert files_of(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_out_among_the_manifests_is_refused(in_folder: Any, manifests: Path, curate: Any) -> None:
    for format_ in FORMATS:
        code, _, err = curate("export", "vggsound", "--to", format_, "--out", "manifests/vggsound")
        assert code == 2
        assert "where it could replace a manifest" in err
    assert (manifests / "vggsound" / "clips.parquet").is_file()


def test_ids_into_a_folder_and_folders_over_a_file_are_refused(export: Any, tmp_path: Path) -> None:
    (tmp_path / "ids out").mkdir()
    assert "is a folder, expected a file" in export("vggsound", "ids", code=2)[1]
    (tmp_path / "mmaudio out").write_text("mine")
    assert "export did not make " in export("vggsound", "mmaudio", code=2)[1]
    assert (tmp_path / "mmaudio out").read_text() == "mine"


def test_changed_manifest_is_not_exported(corpus: Any, curate: Any, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "manifests"
    shutil.copytree(corpus.manifests / "vggsound", folder / "vggsound")
    path = folder / "vggsound" / "clips.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    code, _, err = curate("export", "vggsound", "--to", "ids", "--out", tmp_path / "ids",
                          "--manifests", folder)  # fmt: skip
    assert code == 13, err
    assert "expected" in err or "build completed it with" in err
    assert not (tmp_path / "ids").exists()
