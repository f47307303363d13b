"""Takedowns: what derives from a recording is listed, goes, stays away, and can come back."""

import json
import re
import shutil
from pathlib import Path

import duckdb
import pytest

from curation.catalog.revoked import recording_key
from curation.errors import UsageProblem
from curation.files import sha256_file

ID, TWIN = "4PjEi5fFD6A", "FhaYvI1yrUM"


@pytest.fixture
def manifests(corpus, tmp_path, curate) -> Path:
    """A copy of the corpus with a clean manifest and evidence that are about the recording."""
    folder = tmp_path / "manifests"
    shutil.copytree(corpus.manifests, folder)
    for name in ("clean", "lists"):
        shutil.rmtree(folder / name, ignore_errors=True)
    words = ("--test", "esc50", "--train", "vggsound,audioset", "--manifests", folder)
    assert curate("clean", *words, "--name", "mine")[0] == 0
    assert curate("overlaps", "--manifests", folder)[0] == 0
    return folder


def _rows_with(manifests: Path, id_: str) -> dict[str, int]:
    """By brute force: every Parquet file with a column source_id, and the rows of that id."""
    found = {}
    for path in sorted(manifests.rglob("*.parquet")):
        names = [row[0] for row in duckdb.sql(f"describe from '{path}'").fetchall()]
        if "source_id" in names and path.name != "problems.parquet":
            ((n,),) = duckdb.sql(f"select count(*) from '{path}' where source_id = '{id_}'").fetchall()
            if n:
                found[str(path.relative_to(manifests))] = n
    return found


def test_dry_run_lists_all_that_derives_and_changes_nothing(manifests, curate):
    before = {p: sha256_file(p) for p in manifests.rglob("*") if p.is_file()}
    code, out, _ = curate(
        "revoke", f"https://youtu.be/{ID}", "--dry-run", "--json", "--manifests", manifests
    )
    document = json.loads(out)
    listed = {one["file"]: one["rows"] for one in document["found"]}
    assert code == 0
    assert listed.pop("overlaps.parquet") > 0
    by_hand = _rows_with(manifests, ID)
    assert by_hand == listed
    assert {"vggsound/clips.parquet", "audioset/clips.parquet", "clean/mine/kept.parquet"} <= set(listed)
    assert {p: sha256_file(p) for p in manifests.rglob("*") if p.is_file()} == before


def test_recording_goes_and_stays_away_and_the_sums_hold(manifests, curate):
    code, out, _ = curate("revoke", ID, "--manifests", manifests)
    assert code == 0
    assert re.search(r"0 there; 1 recordings revoked; made anew: .*, clean/mine$", out, flags=re.M)
    assert _rows_with(manifests, ID) == {}
    assert curate("verify", "--manifests", manifests)[0] == 0
    code, out, _ = curate("build", "--json", "--manifests", manifests)
    states = {entry["dataset"]: entry for entry in json.loads(out)["datasets"]}
    assert {entry["state"] for entry in states.values()} == {"up to date"}
    assert states["vggsound"]["dropped"] == {"revoked": 1}
    assert states["vggsound"]["seen"] == states["vggsound"]["kept"] + 1 + sum(
        states["vggsound"]["failed"].values()
    )


def test_other_datasets_are_not_touched(manifests, curate):
    clips = {p: p.stat().st_mtime_ns for p in manifests.glob("*/clips.parquet")}
    curate("revoke", ID, "--manifests", manifests)
    changed = {p.parent.name for p, stamp in clips.items() if p.stat().st_mtime_ns != stamp}
    assert changed == {"audioset", "vggsound"}


def test_fetching_and_building_anew_does_not_bring_it_back(manifests, corpus, curate):
    curate("revoke", ID, "--manifests", manifests)
    shutil.rmtree(manifests / "vggsound")
    curate("fetch", "vggsound", "--from", corpus.metadata, "--manifests", manifests)
    assert curate("build", "vggsound", "--manifests", manifests)[0] == 0
    assert "vggsound/clips.parquet" not in _rows_with(manifests, ID)


def test_undo_gives_the_bytes_that_were_there(manifests, curate):
    before = {p: sha256_file(p) for p in manifests.glob("*/clips.parquet")}
    kept = sha256_file(manifests / "clean" / "mine" / "kept.parquet")
    curate("revoke", ID, "--manifests", manifests)
    code, _, _ = curate("revoke", "--undo", ID, "--manifests", manifests)
    assert code == 0
    assert {p: sha256_file(p) for p in before} == before
    assert sha256_file(manifests / "clean" / "mine" / "kept.parquet") == kept
    code, _, err = curate("revoke", "--undo", ID, "--manifests", manifests)
    assert (code, "is not revoked" in err) == (2, True)


def test_killed_revoke_is_continued(manifests, curate, monkeypatch):
    import curation.decision.revoke as module

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "clean", killed)
        assert curate("revoke", ID, "--manifests", manifests)[0] == 130
    assert "clean/mine/kept.parquet" in _rows_with(manifests, ID)
    assert curate("revoke", ID, "--manifests", manifests)[0] == 0
    assert _rows_with(manifests, ID) == {}


def test_list_of_ones_own_loses_it_too(manifests, curate, tmp_path):
    (tmp_path / "my.csv").write_text(f"{ID}\n{TWIN}\n")
    words = (
        "overlaps",
        "--test",
        tmp_path / "my.csv",
        "--train",
        "audioset",
        "--json",
        "--manifests",
        manifests,
    )
    assert json.loads(curate(*words)[1])["tests"][str(tmp_path / "my.csv")]["size"] == 2
    curate("revoke", ID, "--manifests", manifests)
    assert "lists/my.csv/clips.parquet" not in _rows_with(manifests, ID)
    assert json.loads(curate(*words)[1])["tests"][str(tmp_path / "my.csv")]["size"] == 1


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (ID, f"youtube:{ID}"),
        ("--PJHxphWEs_000030", "youtube:--PJHxphWEs"),
        ("https://freesound.org/s/12345", "freesound:12345"),
        ("bbc:NHU05093027", "bbc:NHU05093027"),
    ],
)
def test_recording_is_named_in_any_form(text, key):
    assert recording_key(text) == key


@pytest.mark.parametrize("text", ["", "dog", "http://x/y", "youtube:short", "'; drop table", "x:"])
def test_text_that_names_nothing_is_refused(text):
    with pytest.raises(UsageProblem, match="names no recording, expected"):
        recording_key(text)


def test_dataset_without_its_files_ends_in_1_and_says_so(manifests, curate):
    shutil.rmtree(manifests / "vggsound" / "raw")
    code, _, err = curate("revoke", ID, "--manifests", manifests)
    assert code == 1
    assert "vggsound: has rows of youtube:4PjEi5fFD6A, and its metadata files are gone" in err


def test_takedown_adds_no_training_set_that_was_built_since(corpus, manifests, curate, tmp_path):
    words = ("--test", "esc50", "--manifests", manifests)
    aside = tmp_path / "fsd50k"
    (manifests / "fsd50k").rename(aside)
    assert curate("clean", *words, "--name", "all")[0] == 0
    before = json.loads((manifests / "clean" / "all" / "certificate.json").read_text())
    aside.rename(manifests / "fsd50k")
    assert curate("revoke", ID, "--manifests", manifests)[0] == 0
    after = json.loads((manifests / "clean" / "all" / "certificate.json").read_text())
    assert set(after["train"]) == set(before["train"])
    assert after["counts"]["input"] < before["counts"]["input"]


def test_certificate_of_an_older_version_is_no_other_configuration(manifests, curate):
    from curation.files import digest_of

    path = manifests / "clean" / "mine" / "certificate.json"
    document = json.loads(path.read_text())
    for key in ("licences", "use_annotations"):
        del document["config"][key]
    path.write_text(json.dumps({**document, "digest": digest_of(document)}))
    assert curate("revoke", ID, "--manifests", manifests)[0] == 0
    assert "clean/mine/kept.parquet" not in _rows_with(manifests, ID)


def test_manifest_of_a_list_that_changed_since_is_left_and_named(manifests, curate, tmp_path):
    path = tmp_path / "my.csv"
    path.write_text(f"{TWIN}\n")
    words = ("--test", path, "--train", "vggsound,audioset", "--manifests", manifests)
    assert curate("clean", *words, "--name", "listed")[0] == 0
    kept = sha256_file(manifests / "clean" / "listed" / "excluded.parquet")
    path.write_text("abcdefghijk\n")
    assert curate("overlaps", *words)[0] == 0
    code, out, _ = curate("revoke", ID, "--manifests", manifests)
    assert code == 1
    assert "clean/listed/excluded.parquet: still holds" in out
    assert sha256_file(manifests / "clean" / "listed" / "excluded.parquet") == kept
    assert curate("verify", "listed", "--manifests", manifests)[0] == 13


def test_pending_takedown_is_seen_by_verify_and_told_by_blame(manifests, curate):
    (manifests / "revoked.json").write_text(json.dumps({"recordings": [f"youtube:{ID}"]}))
    code, out, _ = curate("verify", "--manifests", manifests)
    assert (code, f"holds youtube:{ID}, which was taken down" in out) == (13, True)
    assert curate("revoke", ID, "--manifests", manifests)[0] == 0
    code, _, err = curate("blame", ID, "--manifests", manifests)
    assert (code, "it was taken down" in err) == (2, True)


def test_nothing_of_a_revoked_recording_is_exported(manifests, curate, tmp_path):
    (manifests / "revoked.json").write_text(json.dumps({"recordings": [f"youtube:{ID}"]}))
    words = ("--to", "ids", "--out", tmp_path / "ids.txt", "--manifests", manifests)
    code, _, err = curate("export", "vggsound", *words)
    assert (code, "taken down since" in err) == (13, True)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"recordings": [1]}'])
def test_damaged_file_is_not_taken_for_empty(manifests, curate, content):
    (manifests / "revoked.json").write_text(content)
    code, out, _ = curate("build", "vggsound", "--manifests", manifests)
    assert (code, "revoked.json: not what curate revoke wrote" in out) == (1, True)
