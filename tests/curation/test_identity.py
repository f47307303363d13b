"""Ids in every written form, read alike by Python and SQL; hostile ids stay data all the way."""

import csv
import gzip
import unicodedata
from pathlib import Path

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from curation.catalog.build import build
from curation.catalog.cards import find_cards, load_cards
from curation.catalog.fetch import fetch_from
from curation.catalog.identity import ID_SYNTAX, Identity, parse, sql_macros
from curation.clip import Clip
from curation.decision.blame import blame
from curation.decision.clean import clean
from curation.decision.policy import CleanConfig
from curation.errors import UsageProblem

ID = "--PJHxphWEs"


def _youtube(source_id: str, start_s: float | None = None, end_s: float | None = None) -> Identity:
    return Identity(source="youtube", source_id=source_id, start_s=start_s, end_s=end_s)


def _freesound(source_id: str) -> Identity:
    return Identity(source="freesound", source_id=source_id)


WRITTEN = {
    # AudioSet and VGGSound rows
    f"{ID}, 30.000, 40.000": _youtube(ID, 30, 40),
    f"{ID},30": _youtube(ID, 30),
    f"{ID}\t30": _youtube(ID, 30),
    f"  {ID} , 0.500, 10.500 ": _youtube(ID, 0.5, 10.5),
    # VGGSound's file names
    f"{ID}_000030": _youtube(ID, 30),
    f"{ID}_000030.mp4": _youtube(ID, 30),
    f"/data/vgg/{ID}_000000.mp4": _youtube(ID, 0),
    f"{ID}_100000": _youtube(ID, 100),  # six digits that are a multiple of 1,000: milliseconds
    f"{ID}_001000": _youtube(ID, 1000),  # padded, so seconds
    # Synchformer, AudioSet strong labels
    f"{ID}_30000_40000": _youtube(ID, 30, 40),
    f"{ID}_0_10000": _youtube(ID, 0, 10),
    f"{ID}_30000": _youtube(ID, 30),
    # clip folders
    f"{ID}_30_40": _youtube(ID, 30, 40),
    f"{ID}_30.0_40.5.wav": _youtube(ID, 30, 40.5),
    f"{ID}_70000_70010": _youtube(ID, 70_000, 70_010),
    # AudioCaps, WavCaps
    f"Y{ID}.wav": _youtube(ID),
    f"{ID}.flac": _youtube(ID),
    f"/x/unbalanced_train_segments_part9/Y{ID}.wav": _youtube(ID),
    ID: _youtube(ID),
    # AVSync15
    f"{ID}_000014_000024_6.5_9.5": _youtube(ID, 14, 24),
    f"{ID}_000139_000149_1.0_5.5.mp4": _youtube(ID, 139, 149),
    # ids that begin with Y, contain _ or look like times
    "Yabcdefghi0": _youtube("Yabcdefghi0"),
    "YYabcdefghi0.wav": _youtube("Yabcdefghi0"),
    "_a_b_c_d_eA_000030": _youtube("_a_b_c_d_eA", 30),
    "12345678900_000030": _youtube("12345678900", 30),
    "-----------": _youtube("-----------"),
    "___________": _youtube("___________"),
    # Freesound
    "12345": _freesound("12345"),
    "12345.0": _freesound("12345"),
    "0012345": _freesound("12345"),
    "12345__user__some name.wav": _freesound("12345"),
    "12345.wav": _freesound("12345"),
    "Not found": None,
    "0": None,
    # links
    f"https://youtu.be/{ID}?t=30": _youtube(ID, 30),
    f"https://www.youtube.com/watch?v={ID}&t=30s": _youtube(ID, 30),
    f"https://www.youtube.com/watch?feature=x&v={ID}": _youtube(ID),
    f"https://www.youtube.com/embed/{ID}?start=7": _youtube(ID, 7),
    f"https://m.youtube.com/shorts/{ID}": _youtube(ID),
    "https://freesound.org/people/somebody/sounds/12345/": _freesound("12345"),
    "https://freesound.org/s/12345": _freesound("12345"),
    "https://freesound.org/s/0012345": _freesound("12345"),
    f"https://evil.example/watch?v={ID}": None,
    # not an id
    "": None,
    "dog.wav": None,
    f"{ID},\u00a030": None,  # a blank that is none to RE2
    f"{ID},\n30": None,
    f"{ID}x": None,
    f"{ID}_000030_": None,
    f"{ID[:-1]}": None,
    # numbers that no file has; Python refuses whole ones of 4,301 digits
    f"{ID}_{'9' * 12}.5": _youtube(ID, 999_999_999_999.5),
    f"{ID}_{'9' * 13}": None,
    f"{ID}_{'9' * 5000}": None,
    f"{ID}_0_{'9' * 5000}": None,
    f"{ID}_0.{'5' * 5000}": _youtube(ID, 5 / 9),
    f"https://freesound.org/s/{'9' * 5000}": None,
    f"https://youtu.be/{ID}?t={'9' * 5000}": _youtube(ID),
}


def _short(text: str) -> str:
    return repr(text if len(text) < 100 else text[:50] + "…" + text[-1:])


@pytest.mark.parametrize("text", WRITTEN, ids=_short)
def test_every_written_form_is_read_as_the_table_says(text):
    assert parse(text) == WRITTEN[text]


@pytest.fixture(scope="module")
def macros():
    with duckdb.connect() as db:
        for statement in sql_macros():
            db.execute(statement)
        yield db


def _by_sql(db: duckdb.DuckDBPyConnection, text: str) -> Identity | None:
    """What `recording` reads; and where it is no link, the macros of single sources agree."""
    named, clip, sound = db.execute(
        "select recording($text), youtube_clip($text), freesound_id($text)", {"text": text}
    ).fetchone()
    if "://" not in text:
        single = Identity(**clip) if clip else _freesound(sound) if sound else None
        assert single == (Identity(**named) if named else None)
    return Identity(**named) if named else None


@pytest.mark.parametrize("text", WRITTEN, ids=_short)
def test_sql_reads_the_table_alike(macros, text):
    assert _by_sql(macros, text) == WRITTEN[text]


@pytest.mark.parametrize(
    "text",
    [f"youtube:{ID}", "freesound:12345", f"freesound:{ID}", f"youtube:https://youtu.be/{ID}?t=3",
     "youtube://x", "freesound:https://freesound.org/s/12", f"youtu.be/{ID}", f"Youtube:{ID}"],
)  # fmt: skip
def test_sql_reads_ids_that_name_their_source_alike(macros, text):
    (named,) = macros.execute("select recording($text)", {"text": text}).fetchone()
    assert (Identity(**named) if named else None) == parse(text)


PIECES = st.lists(
    st.one_of(
        st.sampled_from([
            ID, "Y" + ID, "Yabcdefghi0", "_a_b_c_d_eA", "_", "__", ",", ", ", ";", " ", "\t", ".",
            "/", "000030", "000000", "001000", "30000", "10000", "40000", "30", "40", "30.0", "0.500",
            "12345", "0", "00", "999", "1000", "1999", "123456789", "1234567890", ".wav", ".mp4",
            ".flac", ".0", "Y", "-", "é", "\u0301", "Not found", "x", "\n", "'", "%",
            "\u00a0", "\v", "\u0663", "\u2028", "\r",
            "https://youtu.be/", "freesound.org/s/", "?t=", "&",
        ]),
        st.text("Ab0_-.,Y/ ", max_size=4),
    ),
    max_size=6,
).map("".join)  # fmt: skip


@settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.lists(PIECES, min_size=40, max_size=60))
def test_sql_and_python_read_any_text_alike(macros, texts):
    texts = [text.strip() for text in texts]  # people may paste any blanks around it
    found = macros.execute(
        "select recording(text) from (select unnest($texts::varchar[]) as text)", {"texts": texts}
    ).fetchall()
    for text, (named,) in zip(texts, found, strict=True):
        read = Identity(**named) if named else None
        assert read == parse(text), repr(text)


@pytest.mark.parametrize(
    ("source", "source_id", "fault"),
    [
        ("youtube", ID, False),
        ("youtube", "___________", False),
        ("youtube", ID + "x", True),
        ("youtube", ID[:-1], True),
        ("youtube", "", True),
        ("youtube", "abcdefghi 0", True),
        ("youtube", f"{ID}\n", True),
        ("youtube", "é" * 11, True),
        ("freesound", "12345", False),
        ("freesound", "012345", True),
        ("freesound", "Not found", True),
        ("freesound", "1e5", True),
        ("soundbible", "2219", False),
        ("bbc", "NHU05093027", False),
        ("bbc", "a/b/c", True),
        ("local", "../../x", False),
        ("local", "", True),
    ],
)
def test_syntax_of_an_id_is_checked_per_source(macros, source, source_id, fault):
    (found,) = macros.execute("select id_fault(?, ?)", [source, source_id]).fetchone()
    assert found is fault
    assert set(ID_SYNTAX) == {"youtube", "freesound", "soundbible", "bbc"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), (" 30.000", 30), ("0.5", 0.5), ("", None), (None, None), ("  ", None), ("1e1", 10)],
)
def test_times_are_read_in_seconds(macros, text, seconds):
    assert macros.execute("select seconds(?)", [text]).fetchone() == (seconds,)


@pytest.mark.parametrize("text", ["n/a", "30 s", "0:30", "--", "30;"])
def test_time_that_is_no_number_makes_the_row_fail(macros, text):
    assert macros.execute("select isnan(seconds(?))", [text]).fetchone() == (True,)


# Ids that break things where an id becomes a path, a command, SQL or a line of a file.
HOSTILE = (
    "../../x",
    "/etc/passwd",
    "-rf",
    "--exec=id",
    "$(id)",
    "`id`",
    "a'b",
    "'; drop table clips; --",
    'say "hi"',
    "line\nend",
    "nul\0inside",
    "tab\there",
    "comma, semicolon;",
    "x" * 300,
    unicodedata.normalize("NFC", "café"),
    unicodedata.normalize("NFD", "café"),
    "\u202egnitfihs",
    "CON",
    "trailing.",
    "*",
    "%s%n{0}",
    "\ud7ff\U0001f3b5",
    "<script>alert(1)</script>",
    "=HYPERLINK(1)",
    "#comment",
)


def _hostile_tiny(make_tiny):
    """Each id once in train and once, elsewhere in the recording, in the test split of another set."""

    def clips(dataset: str, start_s: float) -> list[Clip]:
        return [
            Clip(dataset=dataset, clip_id=f"{name}", source="local", source_id=name, start_s=start_s,
                 end_s=start_s + 10)
            for name in HOSTILE
        ]  # fmt: skip

    ordinary = Clip(dataset="mine", clip_id="ordinary", source="local", source_id="ordinary")
    return make_tiny(
        {
            "mine": [(clip, "train") for clip in [*clips("mine", 0.0), ordinary]],
            "theirs": [(clip, "test") for clip in clips("theirs", 5.0)],
        }
    )


@pytest.fixture(scope="module")
def hostile(make_tiny):
    return _hostile_tiny(make_tiny)


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_hostile_ids_stay_data(hostile):
    """They come out of fetch, build, overlaps and clean as they went in, and name no file."""
    assert [result.tally.failed for result in hostile.built] == [{}, {}]
    with duckdb.connect() as db:
        read = db.execute(
            f"select source_id, clip_id from '{hostile.manifests}/theirs/clips.parquet'"
        ).fetchall()
    assert sorted(read) == sorted((name, name) for name in HOSTILE)
    before = _files(hostile.manifests.parent)
    config = CleanConfig(tests=("theirs",), train=("mine",))
    made = clean(config, name="hostile", manifests=hostile.manifests, cards=hostile.cards)
    assert made.tally.dropped == {"same_recording_as_heldout": len(HOSTILE)}
    assert made.tally.kept == 1
    with duckdb.connect() as db:
        pairs = db.execute(
            "select distinct heldout_clip_id, train_clip_id from read_parquet(?)",
            [str(hostile.manifests / "overlaps.parquet")],
        ).fetchall()
    assert sorted(pairs) == sorted((name, name) for name in HOSTILE)
    new = _files(hostile.manifests.parent) - before
    assert new == {
        "manifests/clean", "manifests/clean/hostile", "manifests/clean/hostile/kept.parquet",
        "manifests/clean/hostile/excluded.parquet", "manifests/clean/hostile/certificate.json",
        "manifests/overlaps.parquet",
    }  # fmt: skip


def test_carriage_return_in_a_cell_is_read_as_a_line_end(make_tiny):
    clip = Clip(dataset="mine", clip_id="a\rb", source="local", source_id="a\rb")
    tiny = make_tiny({"mine": [(clip, "train"), (clip_named("c\nd"), "train")]})
    with duckdb.connect() as db:
        read = db.execute(f"select source_id from '{tiny.manifests}/mine/clips.parquet'").fetchall()
    assert read == [("a\nb",), ("c\nd",)]


def clip_named(name: str) -> Clip:
    return Clip(dataset="mine", clip_id=name, source="local", source_id=name)


def test_names_that_look_alike_stay_two_recordings(hostile):
    nfc, nfd = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    cards = hostile.cards
    findings = blame(nfc, manifests=hostile.manifests, cards=cards, tests=("theirs",)).findings
    assert {finding.clip_id for finding in findings} == {nfc}
    assert nfd not in {finding.clip_id for finding in findings}


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_blame_takes_a_hostile_id_as_data(hostile, name):
    asked = f"mine/{name}"
    answer = blame(asked, manifests=hostile.manifests, cards=hostile.cards, tests=("theirs",))
    found = [(finding.dataset, finding.clip_id) for finding in answer.findings]
    assert ("mine", name) in found
    evidence = [e for f in answer.findings if f.dataset == "mine" for e in f.evidence]
    assert {(e["heldout_clip_id"], e["train_clip_id"]) for e in evidence} == {(name, name)}


def test_command_prints_a_hostile_id_without_obeying_it(hostile, curate):
    code, out, _ = curate(
        "blame", "mine/'; drop table clips; --", "--test", "theirs", "--manifests", hostile.manifests,
        "--cards", hostile.cards_folder,
    )  # fmt: skip
    assert code == 0
    assert "mine/'; drop table clips; --" in out


def test_hostile_list_and_dataset_names_are_refused(hostile, curate):
    for name in ("../x", "mine'; drop table clips", "mine@../../x", "-rf", "mine/\0"):
        code, _, err = curate(
            "overlaps", "--test", name, "--manifests", hostile.manifests, "--cards", hostile.cards_folder
        )
        assert code == 2, name
        assert "unknown" in err or "No such option" in err


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", "x y", "a'b", "con\0", "x" * 80])
def test_hostile_names_of_clean_manifests_are_refused(hostile, name):
    config = CleanConfig(tests=("theirs",), train=("mine",))
    with pytest.raises(UsageProblem, match="expected lower case letters, digits and _"):
        clean(config, name=name, manifests=hostile.manifests, cards=hostile.cards)


def test_hostile_youtube_ids_become_rows_that_failed(tmp_path):
    """Where the source has a syntax, such an id is a row with a reason, and the rest is built."""
    good = [f"{i:010d}A" for i in range(60)]
    folder = tmp_path / "metadata" / "vggsound"
    folder.mkdir(parents=True)
    with gzip.open(folder / "vggsound.csv.gz", "wt", newline="", encoding="utf-8") as out:
        rows = [(name, 30, "dog", "train") for name in [*HOSTILE, *good]]
        csv.writer(out).writerows(rows)
    cards, manifests = find_cards(load_cards(), ("vggsound",)), tmp_path / "manifests"
    fetch_from(tmp_path / "metadata", cards, manifests)
    (result,) = build(cards, manifests)
    assert result.error is None
    assert result.tally.kept == len(good)
    assert result.tally.failed == {"bad_id": len(HOSTILE)}
    with duckdb.connect() as db:
        found = db.execute(f"select source_id from '{manifests}/vggsound/problems.parquet'").fetchall()
    assert sorted(row[0] for row in found) == sorted(name.strip(" ") for name in HOSTILE)
    assert not (tmp_path.parent / "x").exists()
