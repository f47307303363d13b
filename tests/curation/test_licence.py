"""The licence gate: every spelling in the wild, and what is kept, counted and said."""

import json

import duckdb
import pytest

from curation.catalog.licence import NAMES, licence_name

SPELLINGS = {
    # Freesound, as its pages and Clotho's metadata write them
    "http://creativecommons.org/publicdomain/zero/1.0/": "cc0",
    "https://creativecommons.org/licenses/by/4.0/": "cc-by",
    "http://creativecommons.org/licenses/by-nc/3.0/": "cc-by-nc",
    "http://creativecommons.org/licenses/sampling+/1.0/": "sampling+",
    "Creative Commons 0": "cc0",
    "Attribution": "cc-by",
    "Attribution Noncommercial": "cc-by-nc",
    "Attribution NonCommercial 4.0": "cc-by-nc",
    "Sampling+": "sampling+",
    # abbreviations and names
    "CC0": "cc0",
    "CC-0 1.0": "cc0",
    "cc-by-nc-sa-4.0": "cc-by-nc-sa",
    "CC BY-SA 4.0": "cc-by-sa",
    "CC BY-ND": "cc-by-nd",
    "CC-BY-NC-ND 2.0": "cc-by-nc-nd",
    "Creative Commons Attribution-ShareAlike": "cc-by-sa",
    "Creative Commons Attribution-NonCommercial-NoDerivs 3.0": "cc-by-nc-nd",
    "https://creativecommons.org/publicdomain/mark/1.0/": "public-domain",
    "Public Domain": "public-domain",
    "https://creativecommons.org/licenses/by-nc/4.0/deed.en": "cc-by-nc",
    "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International": "cc-by-nc-sa",
    "cc_by_nc": "cc-by-nc",
    "CC-BY_NC-4.0": "cc-by-nc",
    "ccbync": "cc-by-nc",
    "CC-BY/NC": "cc-by-nc",
    "CC-BY\u2011NC": "cc-by-nc",
    "CC BY 4.0 or CC BY-NC 4.0": "other",
    "No attribution; all rights reserved": "other",
    "not public domain": "other",
    "Attribution required, commercial use on request": "other",
    "All rights reserved": "other",
    "RemArc Licence": "other",
    "standby": "other",
    "": "unknown",
    "  ": "unknown",
    None: "unknown",
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_spelling_is_read_as_one_name(text):
    ((name,),) = duckdb.execute(
        f"select {licence_name('text')} from (select $text::varchar as text)", {"text": text}
    ).fetchall()
    assert name == SPELLINGS[text]
    assert name in NAMES


LIST = """sound_id,licence,uploader
1,http://creativecommons.org/licenses/by/3.0/,a
2,CC0,b
3,Attribution NonCommercial,c
4,,d
5,CC0,e
"""


@pytest.fixture
def clean(tmp_path, curate):
    """A function that cleans five sounds, one of which is held out, and gives kept and excluded ids."""
    (tmp_path / "train.csv").write_text(LIST)
    (tmp_path / "test.csv").write_text("sound_id\n5\n")
    words = ("clean", "--test", tmp_path / "test.csv", "--train", tmp_path / "train.csv")

    def run(*more):
        code, out, err = curate(*words, "--manifests", tmp_path / "m", "--name", "x", *more)
        assert code == 0, err
        folder = tmp_path / "m" / "clean" / "x"
        kept = duckdb.sql(f"select source_id from '{folder}/kept.parquet' order by 1").fetchall()
        gone = duckdb.sql(f"select source_id, reason from '{folder}/excluded.parquet' order by 1")
        certificate = json.loads((folder / "certificate.json").read_text())
        return [id_ for (id_,) in kept], dict(gone.fetchall()), certificate, out

    return run


def test_other_licences_go_and_overlaps_go_first(clean, curate, tmp_path):
    kept, excluded, certificate, out = clean("--licence", "cc0,cc-by")
    assert kept == ["1", "2"]
    assert excluded == {
        "3": "licence_not_allowed", "4": "licence_not_allowed", "5": "same_recording_as_heldout",
    }  # fmt: skip
    assert certificate["licences"] == {"train.csv": {"cc-by": 1, "cc0": 1}}
    assert "5 rows = 2 kept + 3 dropped (licence_not_allowed 2, same_recording_as_heldout 1)" in out
    assert "licences of the clips kept: cc0 1, cc-by 1" in out
    assert curate("verify", "--manifests", tmp_path / "m")[0] == 0


def test_unknown_licence_is_kept_when_it_is_named(clean):
    kept, _, certificate, _ = clean("--licence", "unknown")
    assert kept == ["4"]
    assert certificate["config"]["licences"] == ["unknown"]


def test_without_the_option_every_licence_stays_and_is_counted(clean):
    kept, _, certificate, _ = clean()
    assert kept == ["1", "2", "3", "4"]
    assert certificate["licences"] == {"train.csv": {"cc-by": 1, "cc-by-nc": 1, "cc0": 1, "unknown": 1}}


def test_unknown_name_is_refused_with_the_known_ones(curate):
    code, _, err = curate("clean", "--licence", "mit")
    assert (code, "'mit', expected some of: cc0, public-domain" in err) == (2, True)


def test_blame_says_that_the_licence_was_it(in_folder, curate):
    (clip,) = duckdb.sql(
        f"select dataset || '/' || clip_id from '{in_folder.manifests}/wavcaps/clips.parquet' limit 1"
    ).fetchall()[0]
    words = ("--test", "esc50", "--train", "wavcaps", "--licence", "cc0", "--name", "strict")
    assert curate("clean", *words)[0] == 0
    code, out, _ = curate("blame", clip, "--name", "strict")
    assert code == 0
    assert "dropped by licence" in out
    assert "licence: unknown, which --licence does not allow" in out
