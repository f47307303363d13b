"""What was found in the media decides as what ids say does; planted pairs, counted by hand.

Nothing is decoded here: duplicates.parquet and fingerprints are written as `curate duplicates` and
`curate scan` write them.
"""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curation
from curation.clip import Clip
from curation.decision import certificate
from curation.decision.blame import blame
from curation.decision.clean import clean
from curation.decision.decision_text import blame_text, clean_text, content_sentence
from curation.decision.policy import CleanConfig, Policy
from curation.decision.verify import verify
from curation.errors import BadManifest, ConfigDiffers, ManifestChanged, UsageProblem
from curation.files import canonical_json, digest_of, sha256_file
from curation.manifest import EVIDENCE_COLUMNS, arrow_schema

TEXT, NUMBER = pa.string(), pa.float64()
DUPLICATES = pa.schema([
    ("a_dataset", TEXT), ("a_clip_id", TEXT), ("a_split", TEXT), ("b_dataset", TEXT),
    ("b_clip_id", TEXT), ("b_split", TEXT), ("rule", TEXT), ("tier", TEXT), ("offset_s", NUMBER),
    ("speed", NUMBER), ("video_score", NUMBER), ("audio_score", NUMBER), ("mirrored", pa.bool_()),
    ("box", pa.list_(NUMBER)), ("shared_s", NUMBER), ("same_source", pa.bool_()),
])  # fmt: skip
FINGERPRINTS = pa.schema([
    ("dataset", TEXT), ("clip_id", TEXT), ("status", TEXT), ("reason", TEXT), ("width_px", pa.int32()),
    ("height_px", pa.int32()), ("duration_s", NUMBER), ("flatness", pa.list_(pa.float32())),
    ("audio_item", pa.list_(pa.uint32())),
])  # fmt: skip
SPLITS = {"h": "test", "g": "test", "v": "val"}  # by the first letter of a clip_id; all others: train
TESTS = {"held@official": None}
PARTLY = "partly_damaged"
VERSIONS = {"video": "phash64-area/1", "audio": "fused/1"}


def split_of(clip_id: str) -> str:
    return SPLITS.get(clip_id[0], "train")


def pair(a: str, b: str, rule: str = "near_av", tier: str = "auto", **more: Any) -> dict[str, Any]:
    """A row of duplicates.parquet, of keys as held/h1."""
    scores = {"video_score": 0.9, "audio_score": 0.8}
    row: dict[str, Any] = {"rule": rule, "tier": tier, "offset_s": 0.5, "speed": 1.0, "shared_s": 8.0}
    row |= {"mirrored": False, "box": None, "same_source": False, **scores, **more}
    for side, key in (("a", a), ("b", b)):
        dataset, _, clip_id = key.partition("/")
        row |= {f"{side}_dataset": dataset, f"{side}_clip_id": clip_id,
                f"{side}_split": split_of(clip_id)}  # fmt: skip
    return row


def write_fingerprints(manifests: Path, dataset: str, clips: dict[str, Any], *, size: int = 1) -> None:
    """Fingerprints of clips by clip_id: "scanned", "flat", "picture", "sound", or a reason."""
    folder = manifests / "fingerprints" / dataset / "00000-of-00001"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for clip_id, what in sorted(clips.items()):
        read = what in ("scanned", "flat", "picture", "sound")
        moves, sounds = what in ("scanned", "picture", PARTLY), what in ("scanned", "sound")
        rows.append({
            "dataset": dataset, "clip_id": clip_id, "reason": None if read else what,
            "status": "scanned" if read or what == PARTLY else "failed", "width_px": 160 * size,
            "height_px": 120, "duration_s": 8.0, "flatness": [0.5, 30.0] if moves else [0.5],
            "audio_item": [7, 9] if sounds else [],
        })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, FINGERPRINTS), folder / "clips.parquet")
    path = folder / "clips.parquet"
    output = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    record = {"dataset": dataset, "parts": [{"name": folder.name, "outputs": {path.name: output}}]}
    document = {**record, "digest": digest_of(record)}
    (folder.parent / "scan.json").write_text(json.dumps(document))


def write_duplicates(
    manifests: Path, rows: list[dict[str, Any]], *, tests: Any = None, train: Any = None
) -> None:
    """duplicates.parquet of the fingerprints that are there; tests None: all pairs."""
    digests = {
        path.parent.name: json.loads(path.read_text())["digest"]
        for path in sorted(manifests.glob("fingerprints/*/scan.json"))
    }
    about = {"format": "foleyproof-duplicates/1", "tests": tests, "train": train, "versions": VERSIONS,
             "fingerprints": digests}  # fmt: skip
    table = pa.Table.from_pylist(rows, DUPLICATES)
    table = table.replace_schema_metadata({"foleyproof": canonical_json(about)})
    pq.write_table(table, manifests / "duplicates.parquet")


def _clip(key: str, source: str = "youtube", source_id: str | None = "own") -> tuple[Clip, str]:
    dataset, _, clip_id = key.partition("/")
    own = f"{dataset[0]}{clip_id:_>9}A" if source_id == "own" else source_id
    clip = Clip(dataset=dataset, clip_id=clip_id, source=source, source_id=own, start_s=0.0, end_s=10.0)
    return clip, split_of(clip_id)


KEYS = [f"held/{name}" for name in ("h1", "h2", "h3", "g1", "v1", "t8", "t9")] + [
    f"mine/{name}" for name in ("t1", "t2", "t3", "t4", "t5", "t6")
]


@pytest.fixture(scope="module")
def made(make_tiny) -> Any:
    """Two datasets whose clips share no id: `held` has test items, both have training rows."""
    rows: dict[str, list[tuple[Clip, str]]] = {}
    for key in KEYS:
        rows.setdefault(key.partition("/")[0], []).append(_clip(key))
    return make_tiny(rows)


@pytest.fixture
def tiny(made, tmp_path) -> Any:
    """A copy of them that a test may write to, everything scanned."""
    manifests = tmp_path / "manifests"
    shutil.copytree(made.manifests, manifests)
    for name in ("held", "mine"):
        write_fingerprints(manifests, name, {clip.clip_id: "scanned" for clip, _ in made.rows[name]})
    return made.__class__(manifests, made.cards_folder, made.cards, made.built, made.rows)


@pytest.fixture
def run(tiny) -> Callable[..., Any]:
    def call(name: str = "x", **options: Any) -> Any:
        config = CleanConfig(**{"tests": ("held",), **options})
        return clean(config, name=name, manifests=tiny.manifests, cards=tiny.cards, replace=True)

    return call


def excluded(made: Any, columns: str = "dataset || '/' || clip_id", part: str = "excluded") -> list[Any]:
    with duckdb.connect() as db:
        rows = db.execute(
            f"select {columns} from '{made.folder}/{part}.parquet' order by all"
        ).fetchall()
    return [row[0] if len(row) == 1 else row for row in rows]


def content(made: Any) -> dict[str, Any]:
    (entry,) = made.document["unknown"].values()
    return entry["content"]


# ---- evidence ----------------------------------------------------------------------------------------


def _evidence(tiny, **options: Any) -> list[dict[str, Any]]:
    table = curation.overlaps("held", manifests=tiny.manifests, cards=[tiny.cards_folder], **options)
    assert table.schema.equals(arrow_schema(EVIDENCE_COLUMNS))
    return table.to_pylist()


def test_without_duplicates_nothing_is_near(tiny, run):
    assert _evidence(tiny) == []
    assert run().tally.dropped == {}


@pytest.mark.parametrize("turned", [False, True])
def test_evidence_has_the_held_out_clip_first_whichever_the_pair_names_first(tiny, turned):
    keys, offset_s = ("held/h1", "mine/t1"), 0.5
    if turned:
        keys, offset_s = keys[::-1], -0.5
    write_duplicates(tiny.manifests, [pair(*keys, offset_s=offset_s, shared_s=7.5)])
    (row,) = _evidence(tiny)
    assert row == {
        "test_list": "held@official", "heldout_dataset": "held", "heldout_clip_id": "h1",
        "train_dataset": "mine", "train_clip_id": "t1", "rule": "near_av", "measure": 7.5,
        "offset_s": 0.5,
    }  # fmt: skip


def test_offset_of_nothing_has_no_sign(tiny):
    write_duplicates(tiny.manifests, [pair("mine/t1", "held/h1", offset_s=0.0)])
    assert str(_evidence(tiny)[0]["offset_s"]) == "0.0"


def test_pairs_of_review_tier_are_evidence_too(tiny):
    rows = [pair("held/h1", "mine/t1", tier="review"), pair("held/h1", "mine/t2", "near_audio")]
    write_duplicates(tiny.manifests, rows)
    assert [(r["train_clip_id"], r["rule"]) for r in _evidence(tiny)] == [
        ("t1", "near_av"), ("t2", "near_audio"),
    ]  # fmt: skip


def test_pairs_within_one_side_or_of_clips_that_are_not_built_are_no_evidence(tiny):
    rows = [
        pair("held/h1", "held/h2"), pair("mine/t1", "mine/t2"), pair("held/v1", "mine/t3"),
        pair("held/h1", "gone/t1"), pair("held/h9", "mine/t1"),
    ]  # fmt: skip
    write_duplicates(tiny.manifests, rows)
    assert _evidence(tiny) == []


def test_pair_inside_one_dataset_is_evidence(tiny):
    write_duplicates(tiny.manifests, [pair("held/h1", "held/t9")])
    assert [(r["heldout_clip_id"], r["train_clip_id"]) for r in _evidence(tiny)] == [("h1", "t9")]


def test_training_sets_that_are_not_named_are_left_out(tiny):
    write_duplicates(tiny.manifests, [pair("held/h1", "held/t9"), pair("held/h1", "mine/t1")])
    assert [r["train_clip_id"] for r in _evidence(tiny, train="mine")] == ["t1"]


def test_agrees_with_nested_loops_on_random_pairs(tiny):
    import random

    rng = random.Random(7)
    pairs = {}
    for _ in range(40):
        a, b = rng.sample(KEYS, 2)
        if (b, a) not in pairs:
            pairs[a, b] = pair(a, b, rng.choice(["near_av", "near_video"]), "review",
                               offset_s=rng.choice([-1.5, 0.25, 2.0]))  # fmt: skip
    write_duplicates(tiny.manifests, list(pairs.values()))
    expected = set()
    for (a, b), row in pairs.items():
        for one, other, sign in ((a, b, 1), (b, a, -1)):
            names = one.partition("/")[2], other.partition("/")[2]
            if split_of(names[0]) == "test" and split_of(names[1]) == "train":
                expected.add((one, other, row["rule"], sign * row["offset_s"]))
    found = {
        (f"{r['heldout_dataset']}/{r['heldout_clip_id']}", f"{r['train_dataset']}/{r['train_clip_id']}",
         r["rule"], r["offset_s"])
        for r in _evidence(tiny)
    }  # fmt: skip
    assert found == expected
    assert len(found) > 5


# ---- copies of copies --------------------------------------------------------------------------------


def test_copy_of_a_copy_is_near_too(tiny, run):
    write_duplicates(tiny.manifests, [pair("held/h1", "mine/t1"), pair("mine/t1", "mine/t2")])
    chained = [r for r in _evidence(tiny) if r["train_clip_id"] == "t2"]
    assert [(r["rule"], r["measure"], r["offset_s"]) for r in chained] == [("near_av", None, None)]
    assert excluded(run()) == ["mine/t1", "mine/t2"]


def test_picture_of_one_and_sound_of_another_make_no_copies(tiny, run):
    rows = [pair("held/h1", "mine/t1", "near_video"), pair("mine/t1", "mine/t2", "near_audio")]
    write_duplicates(tiny.manifests, rows)
    assert excluded(run()) == ["mine/t1"]


def test_chain_of_pictures_is_near_by_picture(tiny, run):
    rows = [pair("held/h1", "mine/t1", "near_video"), pair("mine/t2", "mine/t1")]
    write_duplicates(tiny.manifests, rows)
    assert excluded(run(), "clip_id, rule") == [("t1", "near_video"), ("t2", "near_video")]


def test_pairs_of_review_tier_chain_nothing(tiny, run):
    rows = [pair("held/h1", "mine/t1"), pair("mine/t1", "mine/t2", tier="review")]
    write_duplicates(tiny.manifests, rows)
    assert excluded(run()) == ["mine/t1"]


def test_pair_to_be_looked_at_is_sure_where_others_confirm_it(tiny, run):
    rows = [
        pair("held/h1", "mine/t1"), pair("mine/t1", "mine/t2"),
        pair("held/h1", "mine/t2", "near_video", "review", offset_s=3.0),
    ]  # fmt: skip
    write_duplicates(tiny.manifests, rows)
    assert [(r["rule"], r["offset_s"]) for r in _evidence(tiny) if r["train_clip_id"] == "t2"] == [
        ("near_video", 3.0)
    ]
    assert excluded(run(), "clip_id, rule, tier") == [
        ("t1", "near_av", "auto"), ("t2", "near_video", "auto"),
    ]  # fmt: skip


def test_another_test_item_between_two_clips_joins_them(tiny, run):
    """Where only pairs with test items were looked for, those still tell of each other."""
    write_duplicates(tiny.manifests, [pair("held/h1", "held/v1"), pair("held/v1", "mine/t1")])
    assert excluded(run()) == ["mine/t1"]


# ---- clean -------------------------------------------------------------------------------------------

PLANTED = [
    pair("held/h1", "mine/t1", offset_s=0.5),
    pair("mine/t2", "held/h2", "near_video", offset_s=2.0, shared_s=4.0),
    pair("held/h1", "mine/t2", "near_audio", "review"),
    pair("held/h3", "mine/t3", "near_video", "review"),
]


@pytest.mark.parametrize(
    ("policy", "dropped", "lost"),
    [
        (Policy.PREFER_TEST, ["mine/t1", "mine/t2"], None),
        (Policy.PREFER_TRAIN, [], ["held/h1", "held/h2"]),
        (Policy.DROP_BOTH, ["mine/t1", "mine/t2"], ["held/h1", "held/h2"]),
        (Policy.REPORT, [], None),
    ],
)
def test_policy_decides_which_side_of_a_near_pair_goes(tiny, run, policy, dropped, lost):
    write_duplicates(tiny.manifests, PLANTED)
    made = run(policy=policy)
    assert excluded(made) == dropped
    if lost is not None:
        assert excluded(made, part="heldout_excluded") == lost
        assert excluded(made, "distinct tier", "heldout_excluded") == ["auto"]
    assert not [c for c in verify(tiny.manifests, tiny.cards) if c.error]


def test_excluded_rows_tell_reason_rule_tier_and_where(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    columns = "clip_id, reason, rule, tier, heldout_dataset, heldout_clip_id, measure, offset_s"
    assert excluded(run(), columns) == [
        ("t1", "near_duplicate_of_heldout", "near_av", "auto", "held", "h1", 8.0, 0.5),
        ("t2", "near_duplicate_of_heldout", "near_video", "auto", "held", "h2", 4.0, -2.0),
    ]


@pytest.mark.parametrize(
    ("match_content", "dropped", "rules"),
    [
        ("auto", ["t1", "t2"], "auto"), ("review", ["t1", "t2", "t3"], "auto+review"),
        ("none", [], None),
    ],
)  # fmt: skip
def test_tiers_that_are_asked_for_are_acted_on(tiny, run, match_content, dropped, rules):
    write_duplicates(tiny.manifests, PLANTED)
    made = run(match_content=match_content)
    assert excluded(made, "clip_id") == dropped
    near = {rule: tiers for rule, tiers in made.document["rules"].items() if rule.startswith("near")}
    assert near == (dict.fromkeys(("near_av", "near_video", "near_audio"), rules) if rules else {})
    assert not [check for check in verify(tiny.manifests, tiny.cards) if check.error]


def test_sure_evidence_gives_the_reason_before_what_is_to_be_looked_at(tiny, run):
    rows = [pair("held/h1", "mine/t1", "near_av", "review"), pair("held/h2", "mine/t1", "near_audio")]
    write_duplicates(tiny.manifests, rows)
    made = run(match_content="review")
    assert excluded(made, "rule, tier, heldout_clip_id") == [("near_audio", "auto", "h2")]


def test_same_id_gives_the_reason_before_the_media(make_tiny):
    rows = {"held": [_clip("held/h1")], "mine": [_clip("mine/t1", source_id="h_______h1A")]}
    tiny = make_tiny(rows)
    write_fingerprints(tiny.manifests, "held", {"h1": "scanned"})
    write_fingerprints(tiny.manifests, "mine", {"t1": "scanned"})
    write_duplicates(tiny.manifests, [pair("held/h1", "mine/t1", same_source=True)])
    config = CleanConfig(tests=("held",), train=("mine",))
    made = clean(config, name="x", manifests=tiny.manifests, cards=tiny.cards)
    assert made.tally.dropped == {"same_recording_as_heldout": 1}


def test_cleaning_twice_gives_the_same_bytes(tiny, run):
    write_duplicates(tiny.manifests, [*PLANTED, pair("mine/t1", "mine/t4"), pair("mine/t5", "mine/t6")])
    first = {p.name: sha256_file(p) for p in run("a", dedup=True).folder.iterdir()}
    assert first == {p.name: sha256_file(p) for p in run("a", dedup=True).folder.iterdir()}
    assert first == {p.name: sha256_file(p) for p in run("b", dedup=True).folder.iterdir()}


def test_certificate_says_what_was_found_in_which_media(tiny, run):
    write_duplicates(tiny.manifests, PLANTED, tests={"held@official": None})
    document = run().document
    assert document["content"]["duplicates"] == {
        "sha256": sha256_file(tiny.manifests / "duplicates.parquet"), "rows": 4,
    }  # fmt: skip
    assert set(document["content"]["fingerprints"]) == {"held", "mine"}
    assert document["content"]["versions"] == VERSIONS
    assert document["content"]["compared_tests"] == ["held@official"]
    first = document["not_covered"][0]
    assert "(audio fused/1, video phash64-area/1)" in first
    assert "review tier stay" in first
    without = run(match_content="none").document
    assert without["content"] is None
    assert "--match-content none" in without["not_covered"][0]
    (tiny.manifests / "duplicates.parquet").unlink()
    assert "media were not compared" in run().document["not_covered"][0]


def test_other_tiers_need_another_name(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    run("mine")
    other = CleanConfig(tests=("held",), match_content="none")
    with pytest.raises(ConfigDiffers, match="match_content was auto, now none"):
        clean(other, name="mine", manifests=tiny.manifests, cards=tiny.cards)


def test_certificate_older_than_near_rules_is_read(tiny, run):
    """It has no such options and no such key, and never acted on media."""
    made = run("old")
    document = dict(made.document)
    for key in ("content", "dedup"):
        del document[key]
    for key in ("match_content", "dedup"):
        del document["config"][key]
    path = made.folder / certificate.FILE
    path.write_text(json.dumps(certificate.seal(document)))
    write_duplicates(tiny.manifests, PLANTED)
    assert not [check for check in verify(tiny.manifests, tiny.cards) if check.error]
    answer = blame("mine/t1", manifests=tiny.manifests, cards=tiny.cards, name="old")
    assert [f.verdict for f in answer.findings] == ["kept"]
    clean(CleanConfig(tests=("held",)), name="old", manifests=tiny.manifests, cards=tiny.cards)


def test_command_in_the_advice_makes_the_manifest_again(tiny, curate):
    write_duplicates(tiny.manifests, [*PLANTED, pair("mine/t5", "mine/t6")])
    at = ("--manifests", tiny.manifests, "--cards", tiny.cards_folder)
    given = ("clean", "--test", "held", "--match-content", "review", "--dedup", "--name", "odd")
    code, _, err = curate(*given, *at)
    assert code == 0, err
    folder = tiny.manifests / "clean" / "odd"
    before = {p.name: sha256_file(p) for p in folder.iterdir()}
    command = shlex.split(certificate.command(folder, certificate.read(folder)))
    assert command[1:] == list(given)
    assert curate(*command[1:], *at)[0] == 0
    assert {p.name: sha256_file(p) for p in folder.iterdir()} == before


# ---- one of each cluster ------------------------------------------------------------------------------


def test_of_training_clips_that_are_one_the_largest_stays(tiny, run):
    write_fingerprints(tiny.manifests, "held", {"t8": "scanned", "t9": "scanned"}, size=4)
    rows = [pair("mine/t4", "mine/t5", offset_s=1.0), pair("held/t9", "mine/t4", offset_s=0.25)]
    write_duplicates(tiny.manifests, rows)
    made = run(dedup=True)
    columns = "clip_id, reason, rule, tier, heldout_dataset, heldout_clip_id, measure, offset_s"
    assert excluded(made, columns) == [
        ("t4", "duplicate_in_training", "near_av", "auto", "held", "t9", 8.0, 0.25),
        ("t5", "duplicate_in_training", "near_av", "auto", "held", "t9", None, None),
    ]
    assert made.document["dedup"] == {"clusters": 1, "clips": 3, "weak_links": 0, "dropped_links": 0}
    assert run().tally.dropped == {}
    run("x", dedup=True)
    assert not [check for check in verify(tiny.manifests, tiny.cards) if check.error]


def test_what_overlaps_a_test_item_is_no_clip_that_stays(tiny, run):
    """t1 goes for the test item; of the two that are left, which are no copies of it, one stays."""
    rows = [pair("held/h1", "mine/t1", "near_audio"), pair("mine/t1", "mine/t2", "near_video"),
            pair("mine/t2", "mine/t3")]  # fmt: skip
    write_duplicates(tiny.manifests, rows)
    assert excluded(run(dedup=True), "clip_id, reason, heldout_clip_id") == [
        ("t1", "near_duplicate_of_heldout", "h1"), ("t3", "duplicate_in_training", "t2"),
    ]  # fmt: skip


def test_dedup_needs_the_pairs_within_the_training_sets(tiny, run):
    with pytest.raises(UsageProblem, match=r"holds no duplicates.parquet.* run: curate scan"):
        run(dedup=True)
    write_duplicates(tiny.manifests, PLANTED, tests=TESTS)
    with pytest.raises(UsageProblem, match=r"items of held@official alone, .* run: curate duplicates"):
        run(dedup=True)


def test_twin_is_blamed_on_the_clip_that_stays(tiny, run):
    write_duplicates(tiny.manifests, [pair("mine/t5", "mine/t6")])
    run("one", dedup=True)
    answer = blame("mine/t6", manifests=tiny.manifests, cards=tiny.cards)
    (finding,) = answer.findings
    assert (finding.verdict, finding.reason) == ("dropped", "duplicate_in_training")
    assert "near_av: mine/t6 is a duplicate of mine/t5, which stays, 8 s shared" in blame_text(answer)


def test_verify_finds_a_twin_that_was_kept(tiny, run):
    write_duplicates(tiny.manifests, [pair("mine/t5", "mine/t6")])
    folder = run("one", dedup=True).folder
    _move(folder, "mine", "t6")
    assert "holds mine/t6, a duplicate of mine/t5" in _error(tiny, "clean/one")


# ---- unknown is not clean ----------------------------------------------------------------------------


def test_nothing_is_said_of_content_where_nothing_was_scanned(tiny, run):
    shutil.rmtree(tiny.manifests / "fingerprints")
    made = run()
    assert "content" not in made.document["unknown"]["held@official"]
    assert content_sentence(made.document) == ""
    assert "media were not compared" in made.document["not_covered"][0]


def test_media_that_were_scanned_and_not_compared_are_unknown(tiny, run):
    made = run()
    entry = content(made)
    assert entry["unknown_reasons"] == {"test_items": {"not_compared": 4},
                                        "train_rows": {"not_compared": 8}}  # fmt: skip
    assert entry["leaked_test_items_at_most"] == 4
    assert "media were scanned and not compared — run: curate duplicates" in clean_text(made)
    assert "media were not compared" in made.document["not_covered"][0]


def test_where_all_was_compared_nothing_is_left_open(tiny, run):
    write_duplicates(tiny.manifests, PLANTED[:2])
    entry = content(run())
    assert entry == {
        "scanned_test_items": 4, "unknown_test_items": 0, "scanned_train_rows": 6,
        "unknown_train_rows": 0, "near_test_items": 0, "leaked_test_items_at_most": 0,
        "unknown_reasons": {"test_items": {}, "train_rows": {}},
    }  # fmt: skip


def _states(tiny, dataset: str, **states: str) -> None:
    clips = {clip.clip_id: "scanned" for clip, _ in tiny.rows[dataset]} | states
    write_fingerprints(
        tiny.manifests, dataset, {clip_id: s for clip_id, s in clips.items() if s != "absent"}
    )


def test_items_that_were_not_compared_may_be_in_any_row(tiny, run):
    _states(tiny, "held", h1="damaged", h2="absent", h3="flat", g1="sound")
    write_duplicates(tiny.manifests, [])
    entry = content(run())
    assert entry["unknown_reasons"]["test_items"] == {
        "not_scanned": 1, "nothing_to_compare": 1, "damaged": 1,
    }  # fmt: skip
    assert (entry["unknown_test_items"], entry["leaked_test_items_at_most"]) == (3, 3)


def test_part_that_could_not_be_read_may_be_anything(tiny, run):
    _states(tiny, "mine", t1=PARTLY)
    write_duplicates(tiny.manifests, [])
    entry = content(run())
    assert entry["unknown_reasons"]["train_rows"] == {PARTLY: 1}
    assert entry["leaked_test_items_at_most"] == 1


def test_row_that_was_not_compared_may_be_one_recording(tiny, run):
    _states(tiny, "mine", t1="no_streams", t2="absent")
    write_duplicates(tiny.manifests, [])
    entry = content(run())
    assert entry["unknown_reasons"]["train_rows"] == {"no_streams": 1, "not_scanned": 1}
    assert entry["leaked_test_items_at_most"] == 2
    _states(tiny, "mine", **dict.fromkeys(("t1", "t2", "t3", "t4", "t5"), "damaged"))
    write_duplicates(tiny.manifests, [])
    assert content(run())["leaked_test_items_at_most"] == 4  # no more than there are


def test_unknown_row_that_is_dropped_counts_no_more(tiny, run):
    _states(tiny, "mine", t1="no_streams")
    write_duplicates(tiny.manifests, [pair("held/h1", "mine/t1")])
    assert content(run())["unknown_train_rows"] == 0
    assert content(run(policy=Policy.REPORT))["unknown_train_rows"] == 1


def test_items_of_one_recording_may_all_be_in_one_row(make_tiny):
    names = ("h1", "h2", "h3")
    held = [_clip(f"held/{name}", source_id="SAME000000A") for name in names[:2]] + [_clip("held/h3")]
    tiny = make_tiny({"held": held, "mine": [_clip("mine/t1"), _clip("mine/t2")]})
    write_fingerprints(tiny.manifests, "held", dict.fromkeys(names, "scanned"))
    write_fingerprints(tiny.manifests, "mine", {"t1": "scanned"})
    write_duplicates(tiny.manifests, [])
    config = CleanConfig(tests=("held",), train=("mine",))
    made = clean(config, name="x", manifests=tiny.manifests, cards=tiny.cards)
    assert content(made)["leaked_test_items_at_most"] == 2
    assert made.document["unknown"]["held@official"]["leaked_test_items_at_most"] == 0


def test_matches_that_stay_are_in_the_bound(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    entry = content(run())  # h3 is near t3, to be looked at; t2, near h1 too, is gone
    assert (entry["near_test_items"], entry["leaked_test_items_at_most"]) == (1, 1)
    assert content(run(match_content="review"))["leaked_test_items_at_most"] == 0
    assert content(run(match_content="none"))["leaked_test_items_at_most"] == 3
    assert content(run(policy=Policy.REPORT))["leaked_test_items_at_most"] == 3


def test_items_that_gave_way_count_no_more(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    entry = content(run(policy=Policy.PREFER_TRAIN))
    assert (entry["scanned_test_items"], entry["leaked_test_items_at_most"]) == (2, 1)


def test_duplicates_of_other_test_sets_cover_only_those(tiny, run):
    write_duplicates(tiny.manifests, [], tests={"mine@official": None})
    made = run()
    assert content(made)["unknown_reasons"]["test_items"] == {"not_compared": 4}
    assert "held@official: duplicates.parquet was made for other test sets" in clean_text(made)
    write_duplicates(tiny.manifests, [], tests={"held@test": None})  # the same clips, by their split
    assert content(run())["unknown_test_items"] == 0
    write_duplicates(tiny.manifests, [], tests={"held@official": "sha256:of another edition"})
    assert content(run())["unknown_test_items"] == 4


def test_training_sets_that_were_not_compared_are_unknown(tiny, run):
    write_duplicates(tiny.manifests, [], tests=TESTS, train=["mine"])
    assert content(run())["unknown_reasons"]["train_rows"] == {"not_compared": 2}


def test_summary_line_tells_the_bound(tiny, curate):
    _states(tiny, "held", h1="damaged")
    write_duplicates(tiny.manifests, PLANTED[1:2])
    code, out, err = curate(
        "clean", "--test", "held", "--manifests", tiny.manifests, "--cards", tiny.cards_folder
    )
    assert code == 0, err
    assert out.splitlines()[-1].endswith(
        "; content: 3 test items and 7 kept rows compared, at most 1 of 4 test items may still be in "
        "what is kept under another id"
    )
    assert "(1 items and 0 kept rows were not compared; items: damaged 1; 0 items" in out


@pytest.mark.parametrize(("rows", "bound"), [(("mine/t1", "youtube"), 0), (("mine/t1", "local"), 2)])
def test_file_without_an_id_may_be_another_file_and_no_upload_for_all_that_ids_tell(
    make_tiny, rows, bound
):
    held = [_clip(f"held/{name}", "local", None) for name in ("h1", "h2")]
    source_id = None if rows[1] == "local" else "own"
    tiny = make_tiny({"held": held, "mine": [_clip(rows[0], rows[1], source_id)]})
    config = CleanConfig(tests=("held",), train=("mine",))
    entry = clean(config, name="x", manifests=tiny.manifests, cards=tiny.cards).document["unknown"]
    assert entry["held@official"]["leaked_test_items_at_most"] == bound
    assert entry["held@official"]["unidentified_test_items"] == 2


# ---- verify ------------------------------------------------------------------------------------------


def _error(tiny, what: str) -> str:
    (error,) = (c.error for c in verify(tiny.manifests, tiny.cards) if c.what == what)
    return str(error or "")


def _move(folder: Path, dataset: str, clip_id: str) -> None:
    """Move an excluded row into kept.parquet, and seal the certificate anew."""
    kept, gone = folder / "kept.parquet", folder / "excluded.parquet"
    with duckdb.connect() as db:
        which = f"dataset = '{dataset}' and clip_id = '{clip_id}'"
        db.execute(f"create table k as from '{kept}'; create table e as from '{gone}'")
        columns = ", ".join(row[0] for row in db.execute("describe k").fetchall())
        db.execute(f"insert into k select {columns} from e where {which}; delete from e where {which}")
        db.execute(f"copy k to '{kept}' (format parquet); copy e to '{gone}' (format parquet)")
    document = certificate.read(folder)
    for name, entry in document["outputs"].items():
        entry |= {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
    (folder / certificate.FILE).write_text(json.dumps(certificate.seal(document)))


WHOLE = (
    "held", "mine", "fingerprints/held", "fingerprints/mine", "duplicates.parquet", "clean/one",
)  # fmt: skip


def test_untouched_manifests_are_as_recorded(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    run("one")
    checks = list(verify(tiny.manifests, tiny.cards))
    assert [(c.what, c.state) for c in checks] == [(name, "as recorded") for name in WHOLE]


def test_near_duplicate_that_was_sealed_into_what_is_kept_is_found(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    _move(run("one").folder, "mine", "t2")
    assert "training clip mine/t2 overlaps test clip held/h2 by near_video" in _error(tiny, "clean/one")


def test_review_tier_may_be_kept_unless_it_was_acted_on(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    run("one")
    assert _error(tiny, "clean/one") == ""
    _move(run("all", match_content="review").folder, "mine", "t3")
    assert "mine/t3 overlaps test clip held/h3 by near_video" in _error(tiny, "clean/all")


def test_other_duplicates_than_those_acted_on_are_found(tiny, run, curate):
    write_duplicates(tiny.manifests, PLANTED)
    run("one")
    write_duplicates(tiny.manifests, PLANTED[:1])
    error = _error(tiny, "clean/one")
    assert "duplicates.parquet: sha256 is " in error
    assert "run again: curate clean --test held --name one" in error
    words = ("--manifests", tiny.manifests, "--cards", tiny.cards_folder)
    assert curate("verify", *words)[0] == 13
    assert curate("blame", "mine/t1", *words)[0] == 13
    (tiny.manifests / "duplicates.parquet").unlink()
    assert "sha256 is missing" in _error(tiny, "clean/one")


def test_media_that_were_scanned_anew_are_found(tiny, run, curate):
    write_duplicates(tiny.manifests, PLANTED, tests=TESTS)
    run("one")
    _states(tiny, "mine", t4="damaged")
    error = _error(tiny, "duplicates.parquet")
    assert "was made from other fingerprints of mine" in error
    assert "make it anew: curate duplicates --test held@official" in error
    assert "holds other fingerprints than the certificate of one" in _error(tiny, "clean/one")
    with pytest.raises(ManifestChanged, match="other fingerprints of mine"):
        run("two")
    assert excluded(run("none", match_content="none")) == []
    words = ("--manifests", tiny.manifests, "--cards", tiny.cards_folder)
    assert curate("verify", *words)[0] == 13
    code, out, _ = curate("overlaps", "--test", "held", *words)
    assert code == 0
    assert "mine: was scanned anew since duplicates were looked for — run: curate duplicates" in out


def test_fingerprints_that_were_changed_are_found(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    run("one")
    path = tiny.manifests / "fingerprints" / "mine" / "00000-of-00001" / "clips.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}: sha256 is" in _error(tiny, "fingerprints/mine")
    record = path.parent.parent / "scan.json"
    record.write_text(record.read_text().replace("parts", "pieces"))
    assert "is not as scan wrote it" in _error(tiny, "fingerprints/mine")
    assert "other fingerprints" in _error(tiny, "duplicates.parquet")


def test_manifests_may_travel_without_fingerprints(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    run("one")
    shutil.rmtree(tiny.manifests / "fingerprints" / "mine")
    assert _error(tiny, "clean/one") == ""


@pytest.mark.parametrize("damage", ["cut", "text", "no column", "another format"])
def test_duplicates_that_cannot_be_read_are_refused(tiny, run, damage):
    write_duplicates(tiny.manifests, PLANTED)
    path = tiny.manifests / "duplicates.parquet"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "text":
        path.write_text("no Parquet")
    else:
        table = pq.read_table(path)
        metadata = table.schema.metadata
        if damage == "no column":
            table = table.drop_columns(["tier"])
        else:
            metadata = {b"foleyproof": b"{}"}
        pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(BadManifest, match="make it anew: curate duplicates"):
        run()
    assert "make it anew: curate duplicates" in _error(tiny, "duplicates.parquet")


# ---- matrix ------------------------------------------------------------------------------------------


def _overlaps(tiny, curate, *words: str) -> tuple[int, str]:
    code, out, _ = curate(
        "overlaps", "--test", "held", "--manifests", tiny.manifests, "--cards", tiny.cards_folder, *words
    )
    return code, out


def test_matrix_counts_near_duplicates_of_both_tiers(tiny, curate):
    write_duplicates(tiny.manifests, [*PLANTED, pair("held/h1", "held/v1"), pair("held/h1", "mine/t5")])
    cells = json.loads(_overlaps(tiny, curate, "--json")[1])["tests"]["held"]["overlap"]
    assert cells["mine"]["near"] == {
        "test_items": 2, "train_items": 3, "pairs": 3,
        "review": {"test_items": 2, "train_items": 2, "pairs": 2},
    }  # fmt: skip
    assert cells["held"]["near"]["pairs"] == 0
    assert cells["held/val"]["near"]["test_items"] == 1


def test_near_is_null_where_media_were_not_compared(tiny, curate):
    cells = json.loads(_overlaps(tiny, curate, "--json")[1])["tests"]["held"]["overlap"]
    assert {cell["near"] for cell in cells.values()} == {None}
    write_duplicates(tiny.manifests, [], tests=TESTS, train=["mine"])
    cells = json.loads(_overlaps(tiny, curate, "--json")[1])["tests"]["held"]["overlap"]
    assert (cells["mine"]["near"]["pairs"], cells["held"]["near"]) == (0, None)


@pytest.mark.parametrize("format_", ["table", "markdown", "latex", "csv"])
def test_near_duplicates_are_a_column_of_the_matrix_once_media_were_compared(tiny, curate, format_):
    without = _overlaps(tiny, curate, "--format", format_)[1]
    assert "near" not in without.splitlines()[0 if format_ != "latex" else 2]
    write_duplicates(tiny.manifests, PLANTED)
    lines = _overlaps(tiny, curate, "--format", format_)[1].splitlines()
    header = next(line for line in lines if "near" in line)
    row = next(line for line in lines if "mine" in line)
    assert header.rstrip(" |\\").endswith("near")
    assert row.rstrip(" |\\").endswith("2")


def test_near_duplicate_is_an_overlap(tiny, curate):
    write_duplicates(tiny.manifests, [PLANTED[3]])
    assert _overlaps(tiny, curate, "--fail-on-overlap", "--train", "mine")[0] == 0
    write_duplicates(tiny.manifests, PLANTED)
    code, out = _overlaps(tiny, curate, "--fail-on-overlap", "--train", "mine")
    assert code == 10
    assert "= 1 pairs of sets: 1 overlap by id or content, 0 do not" in out


def test_duplicates_and_fingerprints_can_be_asked(tiny):
    write_duplicates(tiny.manifests, PLANTED)
    with curation.open_manifests(tiny.manifests) as db:
        assert db.sql("select count(*) from duplicates").fetchall() == [(4,)]
        assert db.sql("select status, count(*) from fingerprints group by 1").fetchall() == [
            ("scanned", 13)
        ]


# ---- blame -------------------------------------------------------------------------------------------


def _blamed(tiny, clip: str, **options: Any) -> str:
    return blame_text(blame(clip, manifests=tiny.manifests, cards=tiny.cards, **options))


def test_blame_tells_what_is_the_same_where_and_how_sure(tiny, run):
    rows = [
        pair("held/h1", "mine/t1", offset_s=0.53, shared_s=7.5, mirrored=True, speed=1.05),
        pair("mine/t2", "held/h2", "near_video", offset_s=2.0, audio_score=None),
        pair("held/h3", "mine/t3", "near_audio", "review", offset_s=0.0, video_score=None),
    ]  # fmt: skip
    write_duplicates(tiny.manifests, rows)
    run("one")
    text = _blamed(tiny, "mine/t1")
    assert "mine/t1 (train, 0 to 10 s): dropped by near_av\n" in text
    assert (
        "    near_av: mine/t1 has the picture and the sound of test clip held/h1, 7.5 s shared, 0.53 s "
        "later, mirrored, at 1.05 times the speed, picture agrees by 0.90, sound agrees by 0.80 "
        "(held@official; said by the media themselves; auto)"
    ) in text
    assert (
        "near_video: mine/t2 has the picture of test clip held/h2, 8 s shared, 2 s earlier, picture "
        "agrees by 0.90 (held@official;"
    ) in _blamed(tiny, "mine/t2")
    text = _blamed(tiny, "mine/t3")
    assert "): kept\n" in text
    assert (
        "near_audio: mine/t3 has the sound of test clip held/h3, 8 s shared, at the same time, sound "
        "agrees by 0.80 (held@official; said by the media themselves; review; not acted on)"
    ) in text


def test_blame_turns_speed_with_the_pair(tiny):
    write_duplicates(tiny.manifests, [pair("mine/t1", "held/h1", speed=1.25)])
    assert "at 0.8 times the speed" in _blamed(tiny, "mine/t1", tests=("held",))


def test_test_item_names_what_is_near_it(tiny, run):
    write_duplicates(tiny.manifests, PLANTED)
    run("one")
    answer = blame("held/h1", manifests=tiny.manifests, cards=tiny.cards, as_test_item=True)
    assert [(e["train_clip_id"], e["tier"], e["acted_on"]) for e in answer.findings[0].evidence] == [
        ("t1", "auto", True), ("t2", "review", False),
    ]  # fmt: skip


def test_blame_tells_of_copies_of_copies(tiny, run):
    write_duplicates(tiny.manifests, [pair("held/h1", "mine/t1"), pair("mine/t1", "mine/t2")])
    run("one")
    text = _blamed(tiny, "mine/t2")
    assert "of test clip held/h1, by way of others, which are copies of both (held@official" in text
    assert "dropped by near_av" in text


@pytest.mark.parametrize(
    ("policy", "match_content"),
    [*((policy, "auto") for policy in Policy), ("prefer-test", "review"), ("drop-both", "none")],
)
def test_verdicts_agree_with_the_clean_manifest(tiny, run, policy, match_content):
    write_duplicates(tiny.manifests, PLANTED)
    made = run("one", policy=Policy(policy), match_content=match_content)
    gone = set(excluded(made))
    shrinks = policy in ("prefer-train", "drop-both")
    lost = set(excluded(made, part="heldout_excluded")) if shrinks else set()
    for key, dropped in (("mine/t2", gone), ("mine/t3", gone), ("held/h1", lost)):
        as_item = key.startswith("held")
        answer = blame(key, manifests=tiny.manifests, cards=tiny.cards, as_test_item=as_item)
        assert [f.verdict == "dropped" for f in answer.findings] == [key in dropped], key


# ---- revoke ------------------------------------------------------------------------------------------


def test_takedown_leaves_pairs_of_clips_that_are_gone_alone(tiny, run, curate):
    write_duplicates(tiny.manifests, PLANTED)
    run("one")
    words = ("--manifests", tiny.manifests, "--cards", tiny.cards_folder)
    code, out, err = curate("revoke", "m_______t1A", *words)
    assert code == 0, err
    assert "duplicates.parquet: 1 pair" in out
    assert "fingerprints: 1 clip" in out
    assert not [check for check in verify(tiny.manifests, tiny.cards) if check.error]
    made = run("one")
    assert excluded(made) == ["mine/t2"]
    assert [r["train_clip_id"] for r in _evidence(tiny)] == ["t2", "t2", "t3"]


def test_takedown_makes_nothing_anew_that_would_become_another_manifest(tiny, run, curate):
    """Duplicates were looked for since; what they decide is not for a takedown."""
    run("one")
    write_duplicates(tiny.manifests, PLANTED)
    before = sha256_file(tiny.manifests / "clean" / "one" / "kept.parquet")
    words = ("--manifests", tiny.manifests, "--cards", tiny.cards_folder)
    code, out, _ = curate("revoke", "m_______t6A", *words)
    assert code == 1
    assert "clean/one/kept.parquet: still holds 1 row" in out
    assert sha256_file(tiny.manifests / "clean" / "one" / "kept.parquet") == before
