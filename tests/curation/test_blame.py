"""Why a clip was kept or dropped: one clip of each rule, in every way an id is written."""

import json
import shutil
from pathlib import Path

import pytest

from curation.clip import Clip
from curation.decision import certificate
from curation.decision.blame import Blame, Finding, blame
from curation.decision.clean import clean
from curation.decision.decision_text import blame_text
from curation.decision.policy import CleanConfig, Policy
from curation.errors import ManifestChanged

PAPER = CleanConfig(tests=("vggsound", "audiocaps", "clotho"), use_published=True)
LISTS = {"vggsound@official", "audiocaps@v1", "clotho@v2.1-evaluation"}


@pytest.fixture(scope="module")
def cleaned(corpus, tmp_path_factory) -> Path:
    """A copy of the built corpus with the clean manifest `paper`, published lists acted on."""
    folder = tmp_path_factory.mktemp("blame") / "manifests"
    shutil.copytree(corpus.manifests, folder, ignore=shutil.ignore_patterns("clean", "raw"))
    clean(PAPER, name="paper", manifests=folder, cards=corpus.cards)
    return folder


def _overlaps(corpus, rule: str, *, alone: bool = False):
    """The planted pairs of the paper's test sets that meet a rule."""
    return [
        o
        for o in corpus.planted.overlaps
        if o.test_list in LISTS
        and "/" not in o.column
        and rule in o.rules
        and (not alone or len(o.rules) == 1)
    ]


def _finding(answer: Blame, key: tuple[str, str]) -> Finding:
    """The answer about one row; the same recording in other datasets is answered as well."""
    (finding,) = (f for f in answer.findings if (f.dataset, f.clip_id) == key)
    return finding


@pytest.fixture
def scratch(cleaned, tmp_path) -> Path:
    """A copy of the manifests, for other clean manifests beside `paper`."""
    shutil.copytree(cleaned, tmp_path / "manifests")
    return tmp_path / "manifests"


@pytest.mark.parametrize(
    "rule",
    ["same_id", "same_interval", "same_start", "known_reupload", "published_list", "same_annotation"],
)
def test_evidence_of_each_rule_is_told(corpus, cleaned, rule):
    planted = _overlaps(corpus, rule)[0]
    answer = blame("/".join(planted.train), manifests=cleaned, cards=corpus.cards)
    finding = _finding(answer, planted.train)
    assert finding.verdict == "dropped"
    told = {(e["test_list"], e["heldout_clip_id"], e["rule"]) for e in finding.evidence}
    assert (planted.test_list, planted.heldout[1], rule) in told
    assert all(e["said_by"] for e in finding.evidence)
    text = blame_text(answer)
    assert f"    {rule}: " in text
    assert f"{'/'.join(planted.train)} (" in text


def test_first_rule_gives_the_reason(corpus, cleaned):
    for rule, reason in (("same_start", "same_id"), ("known_reupload", "known_reupload")):
        planted = _overlaps(corpus, rule)[0]
        answer = blame("/".join(planted.train), manifests=cleaned, cards=corpus.cards)
        assert _finding(answer, planted.train).rule == reason
    planted = next(o for o in _overlaps(corpus, "published_list", alone=True) if o.column == "wavcaps")
    answer = blame("/".join(planted.train), manifests=cleaned, cards=corpus.cards)
    finding = _finding(answer, planted.train)
    assert (finding.rule, finding.reason) == ("published_list", "on_published_exclusion_list")
    assert {e["said_by"].split(":")[0] for e in finding.evidence} >= {
        "Labbeti/aac-datasets data/wavcaps/blacklist_clotho.full.csv"
    }


def test_paper_clip_is_blamed_on_its_reupload(corpus, cleaned):
    answer = blame("4PjEi5fFD6A", manifests=cleaned, cards=corpus.cards)
    assert [(f.dataset, f.verdict, f.rule) for f in answer.findings] == [
        ("audioset", "dropped", "known_reupload"),
        ("vggsound", "dropped", "known_reupload"),
    ]
    text = blame_text(answer)
    assert "is the video of test clip vggsound/FhaYvI1yrUM_000021" in text
    assert "said by MMAudio (arXiv:2412.15322), supplement H" in text


def test_asked_from_the_other_side_the_test_item_names_its_copies(corpus, cleaned):
    answer = blame("FhaYvI1yrUM", manifests=cleaned, cards=corpus.cards, as_test_item=True)
    by_dataset = {finding.dataset: finding for finding in answer.findings}
    assert by_dataset["vggsound"].verdict == "held out"
    copies = {(e["train_dataset"], e["train_clip_id"]) for e in by_dataset["vggsound"].evidence}
    assert copies == {("vggsound", "4PjEi5fFD6A_000021"), ("audioset", "4PjEi5fFD6A_21000")}
    assert by_dataset["audioset"].verdict == "no test item"


@pytest.mark.parametrize(
    "asked",
    [
        "FhaYvI1yrUM",
        "FhaYvI1yrUM_000021",
        "FhaYvI1yrUM,21",
        "FhaYvI1yrUM_21000_31000",
        "FhaYvI1yrUM_21.0_31.0.wav",
        "YFhaYvI1yrUM.wav",
        "/data/vggsound/FhaYvI1yrUM_000021.mp4",
        "vggsound/FhaYvI1yrUM_000021",
        "https://www.youtube.com/watch?v=FhaYvI1yrUM&t=21s",
        "https://youtu.be/FhaYvI1yrUM",
    ],
)
def test_every_written_form_finds_the_clip(corpus, cleaned, asked):
    findings = blame(asked, manifests=cleaned, cards=corpus.cards).findings
    assert ("vggsound", "FhaYvI1yrUM_000021") in {(f.dataset, f.clip_id) for f in findings}
    assert {f.source_id for f in findings} == {"FhaYvI1yrUM"}


def test_start_narrows_the_answer_to_the_clip_that_starts_there(corpus, cleaned):
    planted = next(
        o for o in reversed(corpus.planted.overlaps) if o.kind == "apart" and o.column == "audioset"
    )
    source_id, start = planted.recording[1], int(planted.train[1].rsplit("_", 1)[1]) // 1000
    every = blame(source_id, manifests=cleaned, cards=corpus.cards).findings
    one = blame(f"{source_id},{start}", manifests=cleaned, cards=corpus.cards).findings
    timed = {(f.dataset, f.clip_id) for f in one if f.start_s is not None}  # others may be any time
    assert timed == {planted.train}
    assert planted.heldout in {(finding.dataset, finding.clip_id) for finding in every}


def test_kept_clip_has_no_evidence(corpus, cleaned):
    import duckdb

    with duckdb.connect() as db:
        (clip_id,) = db.execute(
            f"select clip_id from '{cleaned}/clean/paper/kept.parquet' where dataset = 'fsd50k' limit 1"
        ).fetchone()
    answer = blame(f"fsd50k/{clip_id}", manifests=cleaned, cards=corpus.cards)
    assert [(f.verdict, f.evidence) for f in answer.findings] == [("kept", [])]
    assert "no evidence of an overlap" in blame_text(answer)


def test_verdicts_agree_with_the_clean_manifest(corpus, cleaned):
    """Whatever blame says of a planted clip is what clean did with it."""
    import duckdb

    with duckdb.connect() as db:
        gone = set(
            db.execute(
                f"select dataset, clip_id from '{cleaned}/clean/paper/excluded.parquet'"
            ).fetchall()
        )
    for planted in corpus.planted.overlaps[::41]:
        for key in {planted.train, planted.heldout}:
            if key[1] is None:
                continue
            finding = _finding(blame("/".join(key), manifests=cleaned, cards=corpus.cards), key)
            assert (finding.verdict == "dropped") == (key in gone), key


def test_rule_that_was_not_acted_on_is_told_as_such(corpus, scratch):
    config = CleanConfig(tests=PAPER.tests, match="start")
    clean(config, name="weak", manifests=scratch, cards=corpus.cards)
    planted = next(
        o for o in reversed(corpus.planted.overlaps) if o.kind == "apart" and o.column == "audioset"
    )
    answer = blame("/".join(planted.train), manifests=scratch, cards=corpus.cards, name="weak")
    finding = _finding(answer, planted.train)
    assert finding.verdict == "kept"
    assert [(e["rule"], e["acted_on"]) for e in finding.evidence] == [("same_id", False)]
    assert "; not acted on)" in blame_text(answer)


@pytest.mark.parametrize(
    ("policy", "of_train", "of_heldout"),
    [
        (Policy.PREFER_TEST, "dropped", "held out"),
        (Policy.PREFER_TRAIN, "kept", "dropped"),
        (Policy.DROP_BOTH, "dropped", "dropped"),
        (Policy.REPORT, "kept", "held out"),
    ],
)
def test_policy_decides_which_side_is_dropped(corpus, scratch, policy, of_train, of_heldout):
    config = CleanConfig(tests=("vggsound",), policy=policy)
    clean(config, name="other", manifests=scratch, cards=corpus.cards)
    planted = next(o for o in _overlaps(corpus, "same_start") if o.test_list == "vggsound@official")
    train, heldout = "/".join(planted.train), f"{planted.heldout[0]}/{planted.heldout[1]}"
    asked = {"manifests": scratch, "cards": corpus.cards, "name": "other"}
    assert _finding(blame(train, **asked), planted.train).verdict == of_train
    assert _finding(blame(heldout, as_test_item=True, **asked), planted.heldout).verdict == of_heldout


def test_newest_clean_manifest_answers(corpus, scratch):
    clean(CleanConfig(tests=("clotho",)), name="later", manifests=scratch, cards=corpus.cards)
    answer = blame("4PjEi5fFD6A", manifests=scratch, cards=corpus.cards)
    assert (answer.manifest, {f.verdict for f in answer.findings}) == ("later", {"kept"})
    answer = blame("4PjEi5fFD6A", manifests=scratch, cards=corpus.cards, name="paper")
    assert {f.verdict for f in answer.findings} == {"dropped"}


@pytest.fixture
def in_cleaned(cleaned, monkeypatch) -> Path:
    monkeypatch.chdir(cleaned.parent)
    return cleaned


def test_ids_that_begin_with_a_dash_are_no_options(corpus, in_cleaned, curate):
    dashed = [o for o in corpus.planted.overlaps if o.recording[1].startswith("-") and o.heldout[1]]
    assert any(o.recording[1].startswith("--") for o in dashed)
    for planted in sorted(dashed, key=lambda o: o.recording[1])[:4]:
        for arguments in ([planted.recording[1]], ["--test-item", planted.recording[1]]):
            code, out, err = curate("blame", *arguments)
            assert code == 0, err
            assert planted.train[1] in out or planted.heldout[1] in out


def test_ids_that_look_like_options_are_no_options(make_tiny, curate):
    """-h is help everywhere else; one id in 4,096 begins with it."""
    names = ["-hPJHxphWE0", "-rfabcdefgA", "--json0000A", "--help0000A", "-n000000000", "--tests000A"]
    assert {len(name) for name in names} == {11}
    clips = [
        (Clip(dataset="mine", clip_id=name, source="youtube", source_id=name), "train") for name in names
    ]
    item = Clip(dataset="mine", clip_id="x", source="youtube", source_id="AAAAAAAAAAA")
    tiny = make_tiny({"mine": [*clips, (item, "test")]})
    common = ("--manifests", tiny.manifests, "--cards", tiny.cards_folder, "--test", "mine")
    for name in names:
        code, out, err = curate("blame", name, *common)
        assert code == 0, err
        assert err.startswith("next: curate clean --name NAME --manifests "), name
        assert out.startswith(f"{name}: read as youtube:{name}; as clean would decide"), name
        assert curate("blame", *common, "--", name)[0] == 0


def test_json_has_one_document_on_stdout(in_cleaned, curate):
    code, out, err = curate("blame", "4PjEi5fFD6A", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["command"] == "blame"
    assert document["identity"] == {
        "source": "youtube", "source_id": "4PjEi5fFD6A", "start_s": None, "end_s": None
    }  # fmt: skip
    assert [finding["verdict"] for finding in document["findings"]] == ["dropped", "dropped"]
    assert "2 rows = 2 dropped" in err


@pytest.mark.parametrize("asked", ["zzzzzzzzzzz", "no such clip", "vggsound/none", "12345", ""])
def test_unknown_clip_is_a_usage_error(in_cleaned, curate, asked):
    code, out, err = curate("blame", asked)
    assert code == 2
    assert out == ""
    assert "no built manifest has such a clip" in err
    assert "looked in audiocaps, audioset" in err


def test_exactly_one_clip_is_asked_for(in_cleaned, curate):
    assert curate("blame")[0] == 2
    assert curate("blame", "4PjEi5fFD6A", "--test-item", "FhaYvI1yrUM")[0] == 2
    assert curate("blame", "4PjEi5fFD6A", "--name", "nothere")[0] == 2


def test_without_a_clean_manifest_the_tests_of_the_command_count(corpus, tmp_path):
    folder = tmp_path / "manifests"
    shutil.copytree(corpus.manifests, folder, ignore=shutil.ignore_patterns("clean", "raw"))
    answer = blame("4PjEi5fFD6A", manifests=folder, cards=corpus.cards, tests=("vggsound",))
    assert answer.manifest is None
    assert [f.verdict for f in answer.findings] == ["dropped", "dropped"]
    answer = blame("4PjEi5fFD6A", manifests=folder, cards=corpus.cards)
    assert answer.tests == ("vggsound@official", "audiocaps@v1")


def test_a_clean_manifest_of_other_manifests_is_not_asked(corpus, tmp_path):
    """What was built since the manifest was made decides nothing about it."""
    folder = tmp_path / "manifests"
    shutil.copytree(corpus.manifests, folder)
    config = CleanConfig(tests=("vggsound",))
    clean(config, name="mine", manifests=folder, cards=corpus.cards)
    document = certificate.read(folder / "clean" / "mine")
    name = "vggsound/clips.parquet"
    document["manifests"][name]["sha256"] = "0" * 64
    (folder / "clean" / "mine" / certificate.FILE).write_text(json.dumps(certificate.seal(document)))
    with pytest.raises(ManifestChanged, match="was built anew since clean/mine"):
        blame("4PjEi5fFD6A", manifests=folder, cards=corpus.cards, name="mine")


def test_tests_given_by_name_are_asked_instead_of_a_clean_manifest(in_cleaned, curate):
    code, out, _ = curate("blame", "4PjEi5fFD6A", "--test", "audiocaps")
    assert code == 0
    assert "as clean would decide against audiocaps@v1" in out
    assert curate("blame", "4PjEi5fFD6A", "--test", "audiocaps", "--name", "paper")[0] == 2


def test_id_with_other_capitals_is_named(in_folder, curate):
    code, _, err = curate("blame", "4pjei5ffd6a")
    assert code == 2
    assert "with other capitals there is 4PjEi5fFD6A" in err


@pytest.mark.parametrize("text", ["youtube:4PjEi5fFD6A", "youtube.com/watch?v=4PjEi5fFD6A"])
def test_forms_that_blame_prints_and_browsers_copy_are_read(in_folder, curate, text):
    code, out, err = curate("blame", text)
    assert code == 0, err
    assert "read as youtube:4PjEi5fFD6A" in out
