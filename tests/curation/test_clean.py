"""What clean keeps and drops, against nested loops; the certificate, and every way to tamper with it."""

import json
import random
import shlex
import shutil
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import duckdb
import pytest

from curation.clip import Clip
from curation.decision import certificate
from curation.decision.blame import blame
from curation.decision.clean import clean
from curation.decision.policy import CleanConfig, Policy
from curation.decision.verify import verify
from curation.errors import ConfigDiffers, ManifestChanged, UsageProblem
from curation.files import sha256_file
from curation.manifest import CLIP_COLUMNS, EXCLUSION_COLUMNS

SPLITS = ("train", "train", "extra", "val", "test")
TRAINS = (
    "audiocaps", "audioset", "avsync15", "clotho", "freesound", "fsd50k", "vggsound", "wavcaps",
)  # fmt: skip
PAPER = CleanConfig(tests=("vggsound", "audiocaps", "clotho"))
LISTS = {
    "vggsound": "vggsound@official", "audiocaps": "audiocaps@v1", "clotho": "clotho@v2.1-evaluation",
    "fsd50k": "fsd50k@eval", "esc50": "esc50@all",
}  # fmt: skip


def _random_sets(seed: int) -> dict[str, list[tuple[Clip, str]]]:
    rng = random.Random(seed)

    def clip(dataset: str, number: int) -> Clip:
        start_s = rng.choice([None, 0.0, 5.0, 10.0, 10.0005, 40.0])
        return Clip(
            dataset=dataset, clip_id=f"{rng.choice('cd')}{number}",
            source=rng.choice(["local", "freesound"]),
            source_id=rng.choice([*map(str, range(1, 25)), None]), start_s=start_s,
            end_s=None if start_s is None else start_s + 10,
        )  # fmt: skip

    return {name: [(clip(name, i), rng.choice(SPLITS)) for i in range(60)] for name in ("one", "two")}


@pytest.fixture(scope="module")
def random_tiny(make_tiny):
    """A function that builds the random sets of a seed, once."""
    return cache(lambda seed: make_tiny(_random_sets(seed)))


def _rows(path: Path) -> list[tuple[str, str]]:
    with duckdb.connect() as db:
        return db.execute("select dataset, clip_id from read_parquet(?)", [str(path)]).fetchall()


def _overlap(heldout: Clip, train: Clip, config: CleanConfig) -> bool:
    if config.match == "id":
        return heldout.shares_source_with(train)
    if config.match == "interval":
        return heldout.shares_time_with(train, margin_s=config.margin_s)
    starts = [None if c.start_s is None else int(c.start_s * 1000 + 0.5) for c in (heldout, train)]
    return heldout.shares_source_with(train) and None not in starts and starts[0] == starts[1]


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("match", ["id", "interval", "start"])
@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("seed", range(2))
def test_every_row_is_kept_or_dropped_as_brute_force_says(random_tiny, seed, policy, match):
    tiny = random_tiny(seed)
    config = CleanConfig(tests=("one", "two/val"), policy=policy, match=match, margin_s=0.001)
    made = clean(config, name="x", manifests=tiny.manifests, cards=tiny.cards, replace=True)
    chosen = {"one": "test", "two": "val"}
    heldout = [clip for name, rows in tiny.rows.items() for clip, split in rows if split == chosen[name]]
    train = [c for rows in tiny.rows.values() for c, split in rows if split in ("train", "extra")]
    leaks = [t for t in train if any(_overlap(h, t, config) for h in heldout)]
    drops = leaks if policy in (Policy.PREFER_TEST, Policy.DROP_BOTH) else []
    dropped = {(clip.dataset, clip.clip_id) for clip in drops}
    assert set(_rows(made.folder / "excluded.parquet")) == dropped
    assert len(_rows(made.folder / "excluded.parquet")) == len(dropped)
    kept = _rows(made.folder / "kept.parquet")
    assert sorted(kept) == sorted(
        (clip.dataset, clip.clip_id) for clip in train if (clip.dataset, clip.clip_id) not in dropped
    )
    assert made.tally.seen == len(train) == made.tally.kept + sum(made.tally.dropped.values())
    assert made.held_out == sum(map(len, tiny.rows.values())) - len(train)
    gives_way = [h for h in heldout if any(_overlap(h, t, config) for t in train)]
    if policy in (Policy.PREFER_TRAIN, Policy.DROP_BOTH):
        lost = _rows(made.folder / "heldout_excluded.parquet")
        assert sorted(lost) == sorted((clip.dataset, clip.clip_id) for clip in gives_way)
        left = _rows(made.folder / "heldout_kept.parquet")
        assert len(lost) + len(left) == len(heldout)
        counts = made.document["heldout_counts"].values()
        assert sum(entry["input"] for entry in counts) == len(heldout)
        assert sum(entry["excluded"] for entry in counts) == len(lost)
    else:
        assert not (made.folder / "heldout_kept.parquet").exists()


@pytest.mark.parametrize("match", ["id", "interval", "start"])
def test_no_kept_row_overlaps_a_test_item(random_tiny, match):
    """The promise, checked by two loops that share nothing with the code but the clip."""
    tiny = random_tiny(2)
    config = CleanConfig(tests=("one", "two"), match=match)
    made = clean(config, name="x", manifests=tiny.manifests, cards=tiny.cards, replace=True)
    clips = {(clip.dataset, clip.clip_id): clip for rows in tiny.rows.values() for clip, _ in rows}
    heldout = [clip for rows in tiny.rows.values() for clip, split in rows if split == "test"]
    kept = [clips[key] for key in _rows(made.folder / "kept.parquet")]
    assert len(kept) > 10
    assert not [pair for pair in product(heldout, kept) if _overlap(*pair, config)]


@pytest.mark.parametrize("policy", list(Policy))
def test_cleaning_twice_gives_the_same_bytes(random_tiny, policy):
    tiny = random_tiny(3)
    config = CleanConfig(tests=("one", "two"), policy=policy)
    made = clean(config, name="first", manifests=tiny.manifests, cards=tiny.cards, replace=True)
    first, evidence = _digests(made.folder), sha256_file(tiny.manifests / "overlaps.parquet")
    again = clean(config, name="first", manifests=tiny.manifests, cards=tiny.cards)
    other = clean(config, name="second", manifests=tiny.manifests, cards=tiny.cards, replace=True)
    assert _digests(again.folder) == first == _digests(other.folder)
    assert sha256_file(tiny.manifests / "overlaps.parquet") == evidence


def test_order_of_test_sets_changes_no_row(random_tiny):
    tiny = random_tiny(3)
    made = [
        clean(
            CleanConfig(tests=tests), name=name, manifests=tiny.manifests, cards=tiny.cards, replace=True
        )
        for name, tests in (("ab", ("one", "two")), ("ba", ("two", "one")))
    ]
    kept = [sorted(_rows(result.folder / "kept.parquet")) for result in made]
    assert kept[0] == kept[1]


def test_list_cut_from_a_train_split_is_held_out_not_dropped(random_tiny):
    tiny = random_tiny(1)
    config = CleanConfig(tests=("one@cut",), train=("one",))
    made = clean(config, name="cut", manifests=tiny.manifests, cards=tiny.cards, replace=True)
    with duckdb.connect() as db:
        clips = str(tiny.manifests / "one" / "clips.parquet")
        listed = db.execute(
            "select dataset, clip_id from read_parquet(?) where list_contains(lists, 'one@cut')", [clips]
        ).fetchall()
    assert len(listed) > 10
    gone = {*_rows(made.folder / "kept.parquet"), *_rows(made.folder / "excluded.parquet")}
    assert not gone & set(listed)
    (size,) = (test["size"] for test in made.document["tests"].values())
    assert size == len(listed)


# -- on the corpus ---------------------------------------------------------------------------------


def _expected_drops(planted, config: CleanConfig) -> set[tuple[str, str]]:
    names = {LISTS[test] for test in config.tests}
    return {
        o.train
        for o in planted.overlaps
        if o.test_list in names and o.column in TRAINS and set(o.rules) & set(config.rules)
    }


@pytest.mark.parametrize(
    "config",
    [
        PAPER,
        CleanConfig(tests=PAPER.tests, match="interval"),
        CleanConfig(tests=PAPER.tests, match="start"),
        CleanConfig(tests=PAPER.tests, use_published=True),
        CleanConfig(tests=("vggsound", "esc50", "fsd50k"), use_published=True),
        CleanConfig(tests=("esc50", "fsd50k")),
    ],
    ids=lambda config: f"{'+'.join(config.tests)}-{config.match}-{config.use_published}",
)
def test_what_was_planted_is_dropped_and_nothing_else(corpus, config):
    made = clean(config, name="planted", manifests=corpus.manifests, cards=corpus.cards, replace=True)
    assert set(_rows(made.folder / "excluded.parquet")) == _expected_drops(corpus.planted, config)
    made.tally.check()
    total = sum(sum(splits.values()) for splits in corpus.planted.num_clips.values())
    # rows that only a later edition has are trained on where they are named
    later = corpus.planted.num_clips["audiocaps"]["train_v2"]
    later += corpus.planted.num_clips["vggsound"]["train_199467"]
    assert made.not_chosen == later == 26
    assert made.tally.seen + made.held_out + made.not_chosen == total


def test_first_evidence_by_rule_order_gives_the_reason(corpus):
    made = clean(PAPER, name="reasons", manifests=corpus.manifests, cards=corpus.cards, replace=True)
    with duckdb.connect() as db:
        rows = db.execute(
            "select distinct clip_id, reason, rule, tier, heldout_dataset, heldout_clip_id "
            "from read_parquet(?) where source_id = '4PjEi5fFD6A'",
            [str(made.folder / "excluded.parquet")],
        ).fetchall()
        by_rule = db.execute(
            "select reason, rule, tier, count(*) from read_parquet(?) group by all",
            [str(made.folder / "excluded.parquet")],
        ).fetchall()
    who = ("reupload_of_heldout", "known_reupload", "auto", "vggsound", "FhaYvI1yrUM_000021")
    assert sorted(rows) == [("4PjEi5fFD6A_000021", *who), ("4PjEi5fFD6A_21000", *who)]
    counted = {row[:3]: row[3] for row in by_rule}
    assert counted[("reupload_of_heldout", "known_reupload", "auto")] == 2
    same = counted[("same_recording_as_heldout", "same_id", "auto")]
    assert made.tally.dropped == {"reupload_of_heldout": 2, "same_recording_as_heldout": same}


def test_published_lists_drop_only_when_asked(corpus):
    config = CleanConfig(tests=PAPER.tests, use_published=True)
    made = clean(config, name="published", manifests=corpus.manifests, cards=corpus.cards, replace=True)
    with duckdb.connect() as db:
        tiers = db.execute(
            "select distinct tier, rule from read_parquet(?) "
            "where reason = 'on_published_exclusion_list'",
            [str(made.folder / "excluded.parquet")],
        ).fetchall()
    assert tiers == [("review", "published_list")]
    without = clean(
        PAPER, name="unpublished", manifests=corpus.manifests, cards=corpus.cards, replace=True
    )
    assert "on_published_exclusion_list" not in without.tally.dropped
    assert without.document["rules"] == {"same_id": "auto", "known_reupload": "auto"}
    assert made.document["rules"]["published_list"] == "review"


def test_files_have_the_columns_of_clips_in_the_order_of_the_manifests(corpus):
    made = clean(PAPER, name="columns", manifests=corpus.manifests, cards=corpus.cards, replace=True)
    clips = [name for name, _ in CLIP_COLUMNS]
    with duckdb.connect() as db:
        kept = db.sql(f"from '{made.folder}/kept.parquet'")
        excluded = db.sql(f"from '{made.folder}/excluded.parquet'")
        assert kept.columns == clips
        assert excluded.columns == clips + [name for name, _ in EXCLUSION_COLUMNS]
        order = [
            row
            for name in TRAINS
            for row in db.execute(
                "select dataset, clip_id from read_parquet(?)",
                [str(corpus.manifests / name / "clips.parquet")],
            ).fetchall()
        ]
    position = {key: i for i, key in enumerate(order)}
    for part in ("kept", "excluded"):
        found = [position[key] for key in _rows(made.folder / f"{part}.parquet")]
        assert found == sorted(found), part


def test_certificate_says_what_was_checked_against_what(corpus):
    made = clean(PAPER, name="paper", manifests=corpus.manifests, cards=corpus.cards, replace=True)
    document = certificate.read(made.folder)
    assert document == made.document
    counts = document["counts"]
    assert counts["input"] == counts["kept"] + sum(counts["excluded"].values())
    assert document["outputs"]["kept.parquet"]["rows"] == counts["kept"]
    assert set(document["tests"]) == {LISTS[name] for name in PAPER.tests}
    assert all(test["registered"] is False for test in document["tests"].values())
    for name, entry in document["manifests"].items():
        assert sha256_file(corpus.manifests / name) == entry["sha256"]
    for name, entry in document["outputs"].items():
        assert sha256_file(made.folder / name) == entry["sha256"]
    assert document["config"]["match"] == "id"
    assert any("VAE" in line for line in document["not_covered"])
    text = (made.folder / "certificate.json").read_text()
    assert str(corpus.manifests) not in text


def test_unknown_is_not_clean(corpus, nameless_clotho):
    """Rows without an id bound what may be left: Clotho's own, and Freesound sets against Clotho's."""
    config = CleanConfig(tests=("clotho", "vggsound", "fsd50k"))
    made = clean(config, name="unknown", manifests=nameless_clotho, cards=corpus.cards, replace=True)
    unknown = made.document["unknown"]
    assert unknown["clotho@v2.1-evaluation"]["leaked_test_items_at_most"] == 27
    assert unknown["clotho@v2.1-evaluation"]["unidentified_test_items"] == 27
    # YouTube clips cannot be sounds of Freesound; two rows of VGGSound failed in build
    assert unknown["vggsound@official"]["leaked_test_items_at_most"] == 2
    assert unknown["vggsound@official"]["failed_test_rows"] == 2
    assert unknown["fsd50k@eval"]["leaked_test_items_at_most"] == 63  # one row of FSD50K failed
    assert unknown["fsd50k@eval"]["unidentified_train_rows"] == 62


def test_report_keeps_everything_and_says_what_is_left(corpus):
    config = CleanConfig(tests=("vggsound",), train=("audioset",), policy=Policy.REPORT)
    made = clean(config, name="report", manifests=corpus.manifests, cards=corpus.cards, replace=True)
    assert made.tally.dropped == {}
    leaked = corpus.planted.counts("vggsound@official", "audioset")["test_items"]["id"]
    assert made.document["unknown"]["vggsound@official"]["leaked_test_items_at_most"] >= leaked > 30


@pytest.fixture
def copied(corpus, tmp_path, monkeypatch) -> Path:
    """A copy of the built corpus that a test may damage, with a clean manifest `paper`."""
    folder = tmp_path / "manifests"
    shutil.copytree(corpus.manifests, folder, ignore=shutil.ignore_patterns("clean", "raw"))
    clean(PAPER, name="paper", manifests=folder, cards=corpus.cards)
    monkeypatch.chdir(tmp_path)
    return folder


def test_other_options_need_another_name(corpus, copied, curate):
    before = _digests(copied / "clean" / "paper")
    other = CleanConfig(tests=PAPER.tests, match="interval")
    with pytest.raises(
        ConfigDiffers, match=r"match was id, now interval.* give another --name, or --replace"
    ):
        clean(other, name="paper", manifests=copied, cards=corpus.cards)
    code, _, err = curate("clean", "--test", "vggsound", "--name", "paper")
    assert code == 12
    assert "was made with other options (tests was" in err
    assert _digests(copied / "clean" / "paper") == before
    code, out, _ = curate("clean", "--test", "vggsound", "--name", "paper", "--replace")
    assert code == 0
    assert "clean/paper: 4,274 rows = " in out
    assert _digests(copied / "clean" / "paper") != before


def test_same_command_again_changes_nothing(copied, curate):
    before = _digests(copied / "clean" / "paper")
    code, out, _ = curate("clean", "--test", "vggsound,audiocaps,clotho", "--name", "paper", "--json")
    assert code == 0
    assert json.loads(out)["certificate"]["counts"]["kept"] == len(
        _rows(copied / "clean/paper/kept.parquet")
    )
    assert _digests(copied / "clean" / "paper") == before


def _errors(manifests: Path, cards) -> dict[str, str]:
    return {check.what: str(check.error) for check in verify(manifests, cards) if check.error}


def test_untouched_manifests_are_as_recorded(corpus, copied, curate):
    checks = list(verify(copied, corpus.cards))
    assert [check.what for check in checks if check.error] == []
    assert [check.what for check in checks] == [*sorted(corpus.planted.num_clips), "clean/paper"]
    code, out, _ = curate("verify")
    assert code == 0
    assert "11 manifests = 11 as recorded + 0 not" in out


def _flip(path: Path, *, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["kept.parquet", "excluded.parquet"])
def test_one_changed_bit_of_a_clean_manifest_is_found(corpus, copied, curate, name):
    path = copied / "clean" / "paper" / name
    _flip(path, at=path.stat().st_size // 3)
    errors = _errors(copied, corpus.cards)
    assert list(errors) == ["clean/paper"]
    assert errors["clean/paper"].startswith(f"{path}: sha256 is ")
    code, out, _ = curate("verify", "paper")
    assert code == 13
    assert f"{name}: sha256 is" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"kept": ', '"kept": 1'), "its digest does not match its content"),
        (lambda text: text.replace("known_reupload", "knownreupload"), "its digest does not match"),
        (lambda text: text[: len(text) // 2], "not JSON"),
        (lambda text: "[]", "its digest does not match its content"),
    ],
)
def test_tampered_certificate_is_found(corpus, copied, curate, change, message):
    path = copied / "clean" / "paper" / certificate.FILE
    path.write_text(change(path.read_text()))
    assert message in _errors(copied, corpus.cards)["clean/paper"]
    assert curate("verify")[0] == 13
    assert curate("blame", "4PjEi5fFD6A")[0] == 13


def test_certificate_that_was_sealed_anew_over_dirty_rows_is_found(corpus, copied):
    """Whoever seals a lie must also keep the promise: verify computes it afresh."""
    folder = copied / "clean" / "paper"
    with duckdb.connect() as db:
        db.execute(
            f"create table dirty as from '{copied}/vggsound/clips.parquet' "
            "where source_id = '4PjEi5fFD6A'"
        )
        db.execute(
            f"copy (from '{folder}/kept.parquet' union all from dirty) to '{folder}/new' "
            "(format parquet)"
        )
        db.execute(
            f"copy (from '{folder}/excluded.parquet' offset 1) to '{folder}/less' (format parquet)"
        )
    (folder / "new").replace(folder / "kept.parquet")
    (folder / "less").replace(folder / "excluded.parquet")
    document = certificate.read(folder)
    for name, entry in document["outputs"].items():
        entry |= {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
    (folder / certificate.FILE).write_text(json.dumps(certificate.seal(document)))
    error = _errors(copied, corpus.cards)["clean/paper"]
    assert (
        "training clip vggsound/4PjEi5fFD6A_000021 overlaps test clip vggsound/FhaYvI1yrUM_000021"
        in error
    )


def test_changed_manifest_is_refused_before_anything_is_decided(corpus, copied, curate):
    path = copied / "audioset" / "clips.parquet"
    _flip(path, at=200)
    before = _digests(copied / "clean" / "paper")
    with pytest.raises(ManifestChanged, match="rebuild it with: curate build audioset"):
        clean(PAPER, name="paper", manifests=copied, cards=corpus.cards)
    assert curate("clean", "--test", "vggsound,audiocaps,clotho", "--name", "paper")[0] == 13
    assert _digests(copied / "clean" / "paper") == before
    assert set(_errors(copied, corpus.cards)) == {"audioset", "clean/paper"}


def test_certificate_of_a_list_that_now_means_another_is_changed(corpus, copied):
    cards = dict(corpus.cards)
    lists = tuple(replace(named, default=named.name == "mmaudio") for named in cards["vggsound"].lists)
    cards["vggsound"] = replace(cards["vggsound"], lists=lists)
    error = _errors(copied, cards)["clean/paper"]
    assert "now means" in error
    assert "vggsound@mmaudio" in error
    with pytest.raises(ManifestChanged, match="a card was changed"):
        blame("4PjEi5fFD6A", manifests=copied, cards=cards, name="paper")


def test_command_in_the_advice_makes_the_manifest_again(corpus, copied, curate):
    given = ("--test", "vggsound", "--train", "audioset,wavcaps", "--policy", "drop-both", "--match",
             "interval", "--margin", "0.5", "--use-published", "--name", "odd")  # fmt: skip
    assert curate("clean", *given)[0] == 0
    folder = copied / "clean" / "odd"
    command = certificate.command(folder, certificate.read(folder))
    before = _digests(folder)
    code, _, err = curate(*shlex.split(command)[1:])  # exit 12 where an option is missing
    assert code == 0, err
    assert _digests(folder) == before


def test_unknown_names_are_usage_errors(corpus, copied, curate):
    assert curate("verify", "nothere")[0] == 2
    assert curate("clean", "--policy", "prefer-nobody")[0] == 2
    assert curate("clean", "--match", "frame")[0] == 2
    assert curate("clean", "--test", "nothere")[0] == 2
    assert curate("clean", "--name", "../x")[0] == 2
    nowhere = copied.parent / "nothing is made for a wrong name"
    assert curate("clean", "--test", "nothere", "--manifests", nowhere)[0] == 2
    assert not nowhere.exists()
    with pytest.raises(UsageProblem, match="nothing is built there"):
        list(verify(copied / "none", corpus.cards))


def test_nothing_temporary_is_left(corpus, copied):
    left = [path for path in copied.rglob("*") if ".tmp-" in path.name]
    assert left == []
