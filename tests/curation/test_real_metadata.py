"""The numbers that must come out of the real metadata, by the command itself.

Sources: the published counts that the project began with; ../shared/research/CURATION_TOOLS.md, end of
section 7 (counted there by other programs than ours). Each count is of test clips, by id / interval /
same start.
"""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import curation

pytestmark = [pytest.mark.shared, pytest.mark.slow]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def workplace(shared_metadata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything was fetched and built from the real metadata."""
    folder = tmp_path_factory.mktemp("real")
    for arguments in (("fetch", "--from", shared_metadata), ("build",)):
        made = _run(folder, *arguments)
        assert made.returncode == 0, made.stderr
    return folder


def _run(folder: Path, *arguments: Any) -> "subprocess.CompletedProcess[str]":
    script = "import sys; from curation.cli import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ask(workplace: Path) -> Callable[..., dict[str, Any]]:
    """A function: the JSON document of `curate overlaps` for these names."""

    def overlaps(*arguments: str) -> dict[str, Any]:
        made = _run(workplace, "overlaps", "--json", *arguments)
        assert made.returncode == 0, made.stderr
        return json.loads(made.stdout)["tests"]

    return overlaps


@pytest.fixture(scope="module")
def published(ask) -> dict[str, Any]:
    return ask("--test", "vggsound,audiocaps,avsync15")


def _numbers(cell: dict[str, Any], counted: str = "test_items") -> tuple[int, int, int]:
    return tuple(cell[counted][match] for match in ("id", "interval", "same_start"))  # type: ignore[return-value]


def test_datasets_and_lists_are_the_published_ones(workplace):
    document = json.loads(_run(workplace, "datasets", "--json").stdout)
    rows = {entry["dataset"]: (entry["train_rows"], entry["rows"]) for entry in document["datasets"]}
    assert rows == {
        "audiocaps": (49_838, 51_308),
        "audioset": (22_160 + 2_041_789, 2_084_320),
        "avsync15": (1_350, 1_500),
        "clotho": (3_839, 6_972),
        "esc50": (0, 2_000),
        "freesound": (None, None),  # not at hand
        "fsd50k": (40_966, 51_197),
        "urbansound8k": (0, 8_732),
        "vggsound": (183_730, 199_176),
        "wavcaps": (1_232, 1_232),
    }
    registered = [entry for entry in document["lists"] if entry["registered_digest"]]
    assert {entry["state"] for entry in registered} == {"known"}
    assert len(registered) == 19
    others = {entry["state"] for entry in document["lists"] if not entry["registered_digest"]}
    assert others == {"not built"}  # of files that nobody here has seen


@pytest.mark.parametrize(
    ("test", "column", "expected"),
    [
        ("audiocaps", "audioset", (975, 975, 975)),
        ("audiocaps", "vggsound", (146, 145, 145)),
        ("vggsound", "audioset", (350, 169, 129)),
        ("vggsound", "audioset/eval", (6_961, 6_931, 6_926)),
        ("vggsound", "audiocaps", (15, 12, 9)),
        ("vggsound", "avsync15", (60, 59, 59)),
        ("avsync15", "vggsound", (144, 144, 144)),
        # the research table
        ("vggsound", "audiocaps/test", (1, 0, 0)),
        ("vggsound", "vggsound", (6, 0, 0)),
    ],
)
def test_table_that_was_published(published, test, column, expected):
    assert _numbers(published[test]["overlap"][column]) == expected


def test_rows_ids_and_pairs_that_was_published(published):
    vggsound, audiocaps, avsync15 = (
        published[name]["overlap"] for name in ("vggsound", "audiocaps", "avsync15")
    )
    assert audiocaps["vggsound"]["pairs"]["id"] == 147
    assert audiocaps["vggsound"]["train_rows"] == 183_730
    assert vggsound["audioset"]["test_ids"]["id"] == 334
    assert vggsound["avsync15"]["test_ids"]["id"] == 59
    assert avsync15["vggsound"]["test_ids"]["id"] == 143
    assert vggsound["vggsound"]["train_items"]["id"] == 7
    sizes = [published[name]["size"] for name in ("vggsound", "audiocaps", "avsync15")]
    assert sizes == [15_446, 975, 150]


def test_lists_have_the_registered_digests(published):
    assert (published["vggsound"]["list"], published["audiocaps"]["list"]) == (
        "vggsound@official",
        "audiocaps@v1",
    )
    assert published["vggsound"]["digest"] == (
        "sha256:582a47a75cfd06ada51b5c09a8d90ff512c79fdb42c483581ac688c8396d89a9"
    )
    assert published["vggsound"]["registered"] is True
    assert published["audiocaps"]["registered"] is True


def test_every_training_set_and_every_other_split_is_a_column(published):
    columns = set(published["audiocaps"]["overlap"])
    assert {"audiocaps", "audioset", "avsync15", "clotho", "fsd50k", "vggsound", "wavcaps"} <= columns
    assert {
        "audioset/eval",
        "audiocaps/val",
        "clotho/evaluation",
        "vggsound/test",
        "esc50/fold1",
    } <= columns
    assert _numbers(published["audiocaps"]["overlap"]["audioset/eval"]) == (0, 0, 0)
    assert _numbers(published["vggsound"]["overlap"]["clotho"]) == (None, None, None)


@pytest.fixture(scope="module")
def research(ask) -> dict[str, Any]:
    """The matrices that the acceptance table of the research needs."""
    tests = (
        "vggsound@mmaudio,vggsound@mmaudio-val,audiocaps@v1-val,audiocaps@v1,vggsound,audiocaps/train"
    )
    trains = "audiocaps,audiocaps/val,audiocaps/test,audioset/balanced,audioset/eval,vggsound"
    return ask("--test", tests, "--train", f"{trains},vggsound@mmaudio")


@pytest.mark.parametrize(
    ("test", "column", "expected"),
    [
        ("vggsound@mmaudio", "audiocaps", (14, 11, 8)),
        ("vggsound", "audioset/balanced", (19, 7, 0)),
        ("vggsound@mmaudio-val", "audiocaps", (84, 82, 81)),
        ("vggsound@mmaudio-val", "audiocaps/val", (1, 1, 1)),
        ("vggsound@mmaudio-val", "audiocaps/test", (2, 2, 2)),
        ("audiocaps@v1-val", "vggsound", (58, 58, 58)),
        ("audiocaps/train", "vggsound", (7_036, 6_963, 6_921)),
        # own rows are left out, so this is VGGSound's train split without MMAudio's validation list
        ("vggsound@mmaudio-val", "vggsound", (785, 4, 0)),
        ("audiocaps@v1-val", "audioset/balanced", (0, 0, 0)),
        ("audiocaps@v1", "audioset/balanced", (0, 0, 0)),
        ("audiocaps/train", "audioset/balanced", (0, 0, 0)),
        ("vggsound@mmaudio-val", "vggsound@mmaudio", (0, 0, 0)),
        ("vggsound@mmaudio", "audioset/eval", (6_792, 6_762, 6_757)),
        ("vggsound@mmaudio-val", "audioset/eval", (7, 2, 1)),
        ("vggsound@mmaudio-val", "audioset/balanced", (3, 2, 0)),
        ("audiocaps@v1", "audioset/eval", (0, 0, 0)),
        ("audiocaps@v1-val", "audioset/eval", (0, 0, 0)),
        ("audiocaps/train", "audioset/eval", (0, 0, 0)),
    ],
)
def test_acceptance_table_of_the_research(research, test, column, expected):
    assert _numbers(research[test]["overlap"][column]) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [("audioset/eval", (637, 267, 181)), ("audioset/balanced", (377, 96, 8))],
)
def test_vggsound_train_rows_in_other_splits_of_audioset(ask, column, expected):
    """Rows of the training side, so VGGSound's train split is asked as the test set."""
    found = ask("--test", "vggsound/train", "--train", column)
    assert _numbers(found["vggsound/train"]["overlap"][column]) == expected


def test_audioset_eval_and_balanced_share_no_recording(ask):
    found = ask("--test", "audioset/eval", "--train", "audioset/balanced")
    assert _numbers(found["audioset/eval"]["overlap"]["audioset/balanced"], "pairs") == (0, 0, 0)


def test_published_lists_miss_what_the_cards_say_they_miss(published, ask):
    """The errata of WavCaps' card: 18 test ids of AudioCaps are not in exclude_all_ac."""
    by_name = {entry["name"]: entry for entry in published["audiocaps"]["published_lists"]}
    entry = by_name["wavcaps/wavcaps_exclude_all_ac"]
    assert entry["test_ids"] - entry["test_ids_on_it"] == 18
    val = ask("--test", "audiocaps@v1-val", "--train", "audioset")["audiocaps@v1-val"]["published_lists"]
    entry = {e["name"]: e for e in val}["wavcaps/wavcaps_exclude_all_ac"]
    assert entry["test_ids"] - entry["test_ids_on_it"] == 1


def test_the_paper_set_up_is_cleaned_verified_and_blamed(workplace):
    tests = ("--test", "vggsound,audiocaps,clotho", "--name", "paper")
    made = _run(workplace, "clean", *tests, "--json")
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)["certificate"]
    counts = document["counts"]
    train_rows = 49_838 + 2_063_949 + 1_350 + 3_839 + 40_966 + 183_730 + 1_232
    assert counts["input"] == train_rows == counts["kept"] + sum(counts["excluded"].values())
    assert counts["excluded"]["reupload_of_heldout"] == 2
    assert document["unknown"]["clotho@v2.1-evaluation"]["leaked_test_items_at_most"] == 1_045
    assert document["unknown"]["vggsound@official"]["leaked_test_items_at_most"] == 0
    assert all(test["registered"] for test in document["tests"].values())

    checked = _run(workplace, "verify", "paper")
    assert checked.returncode == 0, checked.stdout
    assert "10 manifests = 10 as recorded + 0 not" in checked.stdout

    blamed = _run(workplace, "blame", "4PjEi5fFD6A")
    assert blamed.returncode == 0
    assert "vggsound/4PjEi5fFD6A_000021 (train, 21 to 31 s): dropped by known_reupload" in blamed.stdout
    assert "is the video of test clip vggsound/FhaYvI1yrUM_000021" in blamed.stdout
    assert "MMAudio (arXiv:2412.15322), supplement H" in blamed.stdout

    again = _run(workplace, "overlaps", "--test", "vggsound,audiocaps,clotho", "--fail-on-overlap")
    assert again.returncode == 10


def test_excluded_rows_are_those_of_the_matrix(workplace, published):
    """What clean drops for one test set in one training set is what the matrix counts there."""
    import duckdb

    made = _run(workplace, "clean", "--test", "vggsound", "--train", "audioset", "--name", "one")
    assert made.returncode == 0, made.stderr
    with duckdb.connect() as db:
        rules = dict(
            db.execute(
                "select rule, count(*) from read_parquet(?) group by 1",
                [f"{workplace}/manifests/clean/one/excluded.parquet"],
            ).fetchall()
        )
    cell = published["vggsound"]["overlap"]["audioset"]
    assert rules == {"same_id": cell["train_items"]["id"], "known_reupload": cell["known_reupload"]}


def test_named_test_sets_nest_as_published(workplace):
    """VGGSound, MMAudio and VGGSounder have 11,820 test clips in common."""
    import duckdb

    with duckdb.connect() as db:
        (clips,) = db.execute(
            f"""select count(*) from '{workplace}/manifests/vggsound/clips.parquet'
            where lists @> ['vggsound@official', 'vggsound@mmaudio', 'vggsound@vggsounder']"""
        ).fetchone() or (0,)
    assert clips == 11_820


def test_no_id_of_the_real_metadata_is_doubtful(workplace):
    """The only case twins ever seen were those of a damaged copy, which this one is not."""
    import duckdb

    with duckdb.connect() as db:
        assert db.execute(f"select count(*) from '{workplace}/manifests/twins.parquet'").fetchone() == (
            0,
        )
        problems = db.execute(
            f"select reason, count(*) from '{workplace}/manifests/*/problems.parquet' group by 1"
        ).fetchall()
    assert problems == []


def test_same_annotation_finds_129_pairs_and_says_what_chance_gives(published, workplace):
    """Pairs of VGGSound test and train, the paper's among them; all in all no more than chance gives."""
    assert published["vggsound"]["overlap"]["vggsound"]["same_annotation"] == {
        "pairs": 129, "test_items": 57, "by_chance": 112.6,
        "at_odd_starts": {"pairs": 41, "test_items": 7, "by_chance": 11.1},
    }  # fmt: skip
    table = curation.overlaps("vggsound", train="vggsound", manifests=workplace / "manifests")
    pairs = {
        (row["heldout_clip_id"], row["train_clip_id"])
        for row in table.to_pylist()
        if row["rule"] == "same_annotation"
    }
    assert len(pairs) == 129
    assert ("FhaYvI1yrUM_000021", "4PjEi5fFD6A_000021") in pairs


def test_exported_test_list_is_that_of_mmaudio(workplace, shared_metadata):
    """Row for row the ids and labels of its own `sets/vgg-test.tsv`."""
    path = shared_metadata / "vggsound" / "lists" / "mmaudio_vgg-test.tsv.gz"
    theirs = gzip.decompress(path.read_bytes()).decode().splitlines()
    made = _run(workplace, "export", "vggsound@mmaudio", "--to", "mmaudio", "--out", "exported")
    assert made.returncode == 0, made.stderr
    ours = (workplace / "exported" / "vggsound.tsv").read_text(encoding="utf-8").splitlines()
    assert (ours[0], sorted(ours)) == (theirs[0], sorted(theirs))
    assert len(ours) == 15_222


def test_no_row_of_a_test_list_is_kept_of_extracted_features(workplace, shared_metadata):
    words = [
        "clean",
        "--name",
        "filtered",
        "--train",
        "vggsound",
        "--extracted-out",
        "filtered",
        "--json",
    ]
    for part in ("test", "val"):
        packed = shared_metadata / "vggsound" / "lists" / f"mmaudio_vgg-{part}.tsv.gz"
        (workplace / f"vgg-{part}.tsv").write_bytes(gzip.decompress(packed.read_bytes()))
        words += ["--extracted", f"vggsound=vgg-{part}.tsv"]
    made = _run(workplace, *words)
    assert made.returncode == 0, made.stderr
    found = {entry["tsv"]: entry for entry in json.loads(made.stdout)["extracted"]}
    counts = {tsv: (e["kept"], e["dropped"], e["unknown"]) for tsv, e in found.items()}
    assert counts == {"vgg-test.tsv": (0, 0, 15_221), "vgg-val.tsv": (2_046, 2, 0)}
