"""Overlaps and the matrix against nested loops over the same clips; nothing depends on row order."""

import json
import random
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curation
from curation.catalog.store import work_connection
from curation.clip import Clip
from curation.errors import BadManifest, ManifestChanged, UsageProblem
from curation.manifest import EVIDENCE_COLUMNS, arrow_schema
from curation.matching import overlap
from curation.matching.comparison import check_rows, compare
from curation.matching.matrix import matrix

SPLITS = ("train", "extra", "val", "test")
ROLES = {"train": "train", "extra": "train", "val": "validation", "test": "test"}
SOURCES = {
    "youtube": [f"{i:010d}A" for i in range(9)],
    "freesound": ["11", "12", "13"],
    "local": ["a", "B"],
}
# Neighbouring starts differ by less than, exactly or more than half a millisecond.
STARTS = (0.0, 0.0004, 0.0005, 0.001, 0.0015, 0.002, 9.9994, 9.9995, 10.0, 10.0005, 12.5, 20.0, 30.0)


def _random_clip(rng: random.Random, dataset: str, number: int) -> Clip:
    source = rng.choice(list(SOURCES))
    source_id = rng.choice(SOURCES[source]) if rng.random() < 0.9 else None
    start_s = rng.choice([None, *STARTS, *STARTS])
    end_s = None
    if start_s is not None and rng.random() < 0.9:
        end_s = start_s + rng.choice([0.002, 1.0, 9.9995, 10.0, 10.0, 10.0])
    return Clip(
        dataset=dataset, clip_id=f"{rng.choice('cd')}{number}", source=source, source_id=source_id,
        start_s=start_s, end_s=end_s,
    )  # fmt: skip


def _random_sets(seed: int, *, size: int = 70) -> dict[str, list[tuple[Clip, str]]]:
    rng = random.Random(seed)
    return {
        dataset: [(_random_clip(rng, dataset, i), rng.choice(SPLITS)) for i in range(size)]
        for dataset in ("one", "two", "three")
    }


@pytest.fixture(scope="module")
def random_tiny(make_tiny):
    """A function that builds the random sets of a seed, once for all margins and questions."""
    return cache(lambda seed: make_tiny(_random_sets(seed)))


def _in_cut(clip: Clip, rows: list[tuple[Clip, str]]) -> bool:
    """Whether the list `cut` holds a clip: it names recordings and, where known, starts."""

    def ms(time_s: float | None) -> Any:
        return None if time_s is None else int(time_s * 1000 + 0.5)

    return any(
        other.clip_id.startswith("c")
        and clip.shares_source_with(other)
        and ms(other.start_s) in (None, ms(clip.start_s))
        for other, _ in rows
    )


def _select(key: str, sets: dict[str, list[tuple[Clip, str]]], *, heldout: bool) -> list[Clip]:
    """The clips that a name means."""
    dataset, _, name = key.replace("/", "@").partition("@")
    rows = sets[dataset]
    if name == "cut":
        return [clip for clip, _ in rows if _in_cut(clip, rows)]
    if not name or name == "official":
        splits: tuple[str, ...] = ("test",) if heldout else ("train", "extra")
    else:
        splits = (name,)
    return [clip for clip, split in rows if split in splits]


def _brute_force(
    heldout: list[Clip], train: list[Clip], *, margin_s: float = 0.0
) -> Iterator[tuple[Clip, Clip, list[str]]]:
    """Every pair that shares a recording, and the rules it meets; a test item is no training clip."""
    own = {(clip.dataset, clip.clip_id) for clip in heldout}
    for h, t in product(heldout, train):
        if not h.shares_source_with(t) or (t.dataset, t.clip_id) in own:
            continue
        rules = ["same_id"]
        if h.shares_time_with(t, margin_s=margin_s):
            rules.append("same_interval")
        starts = [None if c.start_s is None else int(c.start_s * 1000 + 0.5) for c in (h, t)]
        if starts[0] is not None and starts[0] == starts[1]:
            rules.append("same_start")
        yield h, t, rules


def _evidence(manifests, cards, tests, *, train=None, margin_s=0.0) -> list[dict[str, Any]]:
    comparison = compare(tests, train=train, manifests=manifests, cards=cards, margin_s=margin_s)
    with work_connection(manifests) as db:
        overlap.find(db, comparison)
        return db.sql(overlap.EVIDENCE_SELECT).to_arrow_table().to_pylist()


def _seconds_shared(h: Clip, t: Clip) -> float | None:
    if None in (h.start_s, h.end_s, t.start_s, t.end_s):
        return None
    times = [int(x * 1000 + 0.5) for x in (h.start_s, h.end_s, t.start_s, t.end_s)]  # type: ignore[operator]
    return max(0, min(times[1], times[3]) - max(times[0], times[2])) / 1000


@pytest.mark.parametrize("margin_s", [0.0, 0.001, 12.0])
@pytest.mark.parametrize("seed", range(4))
def test_evidence_agrees_with_brute_force_on_random_clips(random_tiny, seed, margin_s):
    tiny = random_tiny(seed)
    sets = tiny.rows
    for tests, train in (
        (("one", "two@cut"), None),
        (("three/val",), ("one", "three", "three/extra", "two@cut")),
        (("one@cut", "one"), ("one", "one/val")),
    ):
        trains = train or ("one", "two", "three")
        expected = sorted(
            {
                (
                    position,
                    test,
                    h.dataset,
                    h.clip_id,
                    t.dataset,
                    t.clip_id,
                    overlap.RULES.index(rule),
                    shared,
                )
                for position, test in enumerate(tests)
                for name in trains
                for h, t, rules in _brute_force(
                    _select(test, sets, heldout=True),
                    _select(name, sets, heldout=False),
                    margin_s=margin_s,
                )
                for rule, shared in zip(rules, [_seconds_shared(h, t)] * 3, strict=False)
            },
            key=lambda row: row[:7],
        )
        rows = _evidence(tiny.manifests, tiny.cards, tests, train=train, margin_s=margin_s)
        names = [test if "@" in test else f"{test.replace('/', '@')}" for test in tests]
        names = [name if "@" in name else f"{name}@official" for name in names]
        found = [
            (names.index(row["test_list"]), tests[names.index(row["test_list"])], row["heldout_dataset"],
             row["heldout_clip_id"], row["train_dataset"], row["train_clip_id"],
             overlap.RULES.index(row["rule"]), row["measure"])
            for row in rows
        ]  # fmt: skip
        assert found == expected
        assert len(found) > 20


@pytest.mark.parametrize("seed", range(4))
def test_offset_brings_a_moment_of_the_heldout_clip_to_the_training_clip(random_tiny, seed):
    tiny = random_tiny(seed)
    sets = tiny.rows
    clips = {(clip.dataset, clip.clip_id): clip for rows in sets.values() for clip, _ in rows}
    for row in _evidence(tiny.manifests, tiny.cards, ("one",)):
        h = clips[row["heldout_dataset"], row["heldout_clip_id"]].start_s
        t = clips[row["train_dataset"], row["train_clip_id"]].start_s
        if h is None or t is None:
            assert row["offset_s"] is None
        else:
            assert row["offset_s"] == (int(h * 1000 + 0.5) - int(t * 1000 + 0.5)) / 1000


def _cell(heldout: list[Clip], train: list[Clip], margin_s: float) -> dict[str, dict[str, int | None]]:
    """The four counts of a cell by each match, null where a whole side cannot tell."""
    pairs = list(_brute_force(heldout, train, margin_s=margin_s))
    own = {(clip.dataset, clip.clip_id) for clip in heldout}
    rest = [clip for clip in train if (clip.dataset, clip.clip_id) not in own]

    def told(field: str) -> bool:
        return not rest or all(
            any(getattr(c, field) is not None for c in side) for side in (heldout, rest)
        )

    knows_id = told("source_id")
    knows = {"id": knows_id, "interval": knows_id, "same_start": knows_id and told("start_s")}
    cell: dict[str, dict[str, int | None]] = {}
    for label, rule in (("id", "same_id"), ("interval", "same_interval"), ("same_start", "same_start")):
        matching = [(h, t) for h, t, rules in pairs if rule in rules]
        for name, values in {
            "test_items": {h.clip_id for h, _ in matching},
            "test_ids": {(h.source, h.source_id) for h, _ in matching},
            "train_items": {t.clip_id for _, t in matching},
            "pairs": {(h.clip_id, t.clip_id) for h, t in matching},
        }.items():
            cell.setdefault(name, {})[label] = len(values) if knows[label] else None
    return cell


def _matrix(tiny, tests, *, train=None, margin_s=0.0) -> dict[str, Any]:
    comparison = compare(
        tests, train=train, manifests=tiny.manifests, cards=tiny.cards, margin_s=margin_s
    )
    with work_connection(tiny.manifests) as db:
        overlap.find(db, comparison)
        return matrix(db, comparison)


@pytest.mark.parametrize("margin_s", [0.0, 0.001])
@pytest.mark.parametrize("seed", range(4))
def test_matrix_agrees_with_brute_force_on_random_clips(random_tiny, seed, margin_s):
    tiny = random_tiny(seed)
    sets = tiny.rows
    tests = ("one", "two@cut", "three/val", "one@cut")
    found = _matrix(tiny, tests, margin_s=margin_s)
    columns = {*sets, *(f"{name}/{split}" for name in sets for split in ("val", "test"))}
    for test in tests:
        heldout = _select(test, sets, heldout=True)
        own = {(clip.dataset, clip.clip_id) for clip in heldout}
        assert found[test]["size"] == len(heldout)
        assert found[test]["unidentified"] == sum(clip.source_id is None for clip in heldout)
        assert set(found[test]["overlap"]) == columns
        for column, cell in found[test]["overlap"].items():
            train = _select(column, sets, heldout=False)
            expected = _cell(heldout, train, margin_s)
            assert {name: cell[name] for name in expected} == expected, f"{test} in {column}"
            rest = [clip for clip in train if (clip.dataset, clip.clip_id) not in own]
            assert cell["train_rows"] == len(rest), f"{test} in {column}"
            assert cell["unidentified"] == sum(clip.source_id is None for clip in rest)


def _without(sets, field: str, dataset: str) -> dict[str, list[tuple[Clip, str]]]:
    """The same sets, one dataset without ids or times."""
    from dataclasses import replace

    changes = {"source_id": {"source_id": None}, "start_s": {"start_s": None, "end_s": None}}[field]
    return {
        name: [(replace(clip, **changes) if name == dataset else clip, split) for clip, split in rows]
        for name, rows in sets.items()
    }


@pytest.mark.parametrize("field", ["source_id", "start_s"])
@pytest.mark.parametrize("dataset", ["one", "two"])
def test_counts_are_null_exactly_where_a_whole_side_cannot_tell(make_tiny, field, dataset):
    sets = _without(_random_sets(11), field, dataset)
    found = _matrix(make_tiny(sets), ("one",), train=("one", "two", "three"))
    for column in sets:
        expected = _cell(_select("one", sets, heldout=True), _select(column, sets, heldout=False), 0.0)
        cell = found["one"]["overlap"][column]
        assert {name: cell[name] for name in expected} == expected
    nulls = [label for label, n in found["one"]["overlap"][dataset]["pairs"].items() if n is None]
    assert nulls == (["id", "interval", "same_start"] if field == "source_id" else ["same_start"])


def test_interval_is_never_null_where_ids_are_known(make_tiny):
    """A row without times meets every interval of its source."""
    sets = _without(_random_sets(12), "start_s", "one")
    pairs = _matrix(make_tiny(sets), ("one",), train=("two",))["one"]["overlap"]["two"]["pairs"]
    assert pairs["interval"] == pairs["id"] > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_rules_are_symmetrical(random_tiny, seed):
    """Which side is held out changes nothing about what a pair shares."""
    tiny = random_tiny(seed)

    def pairs(test: str, train: str, *, flipped: bool) -> set[tuple[Any, ...]]:
        sides = ("train", "heldout") if flipped else ("heldout", "train")
        return {
            (*(row[f"{side}_{name}"] for side in sides for name in ("dataset", "clip_id")), row["rule"],
             row["measure"], (row["offset_s"] or 0) * (-1 if flipped else 1))
            for row in _evidence(tiny.manifests, tiny.cards, (test,), train=(train,), margin_s=0.5)
        }  # fmt: skip

    there = pairs("one/val", "two/train", flipped=False)
    assert there == pairs("two/train", "one/val", flipped=True)
    assert len(there) > 10


def test_order_of_rows_does_not_matter(random_tiny, make_tiny):
    turned = {name: list(reversed(rows)) for name, rows in _random_sets(3).items()}
    made = [random_tiny(3), make_tiny(turned)]
    tests = ("one", "two@cut", "three/val")
    first, second = (_evidence(tiny.manifests, tiny.cards, tests) for tiny in made)
    assert first == second
    assert _matrix(made[0], tests) == _matrix(made[1], tests)


CLIP_TIMES = st.one_of(
    st.none(), st.integers(0, 40_000).map(lambda ms: ms / 1000), st.sampled_from(STARTS)
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(CLIP_TIMES, CLIP_TIMES, st.sampled_from([0.002, 0.5, 10.0]), st.sampled_from([0.0, 0.001, 3.0]))
def test_shared_time_is_symmetrical_and_grows_with_the_margin(first_s, second_s, length_s, margin_s):
    def clip(start_s: float | None) -> Clip:
        end_s = None if start_s is None else start_s + length_s
        return Clip(
            dataset="x", clip_id="x", source="local", source_id="x", start_s=start_s, end_s=end_s
        )

    first, second = clip(first_s), clip(second_s)
    meets = first.shares_time_with(second, margin_s=margin_s)
    assert meets == second.shares_time_with(first, margin_s=margin_s)
    assert meets or not first.shares_time_with(second)
    assert first.shares_time_with(first)


def test_clips_that_only_touch_share_no_time(make_tiny):
    def clip(dataset: str, clip_id: str, start_s: float) -> Clip:
        return Clip(dataset=dataset, clip_id=clip_id, source="local", source_id="x", start_s=start_s,
                    end_s=start_s + 10)  # fmt: skip

    tiny = make_tiny(
        {
            "one": [(clip("one", "h", 10.0), "test")],
            "two": [(clip("two", f"t{s}", s), "train") for s in (0.0, 0.001, 19.999, 20.0)],
        }
    )
    rows = _evidence(tiny.manifests, tiny.cards, ("one",))
    assert [row["train_clip_id"] for row in rows if row["rule"] == "same_interval"] == [
        "t0.001",
        "t19.999",
    ]
    assert [row["measure"] for row in rows if row["rule"] == "same_interval"] == [0.001, 0.001]
    wide = _evidence(tiny.manifests, tiny.cards, ("one",), margin_s=0.001)
    assert sum(row["rule"] == "same_interval" for row in wide) == 4


def test_ids_of_different_sources_are_different_recordings(make_tiny):
    tiny = make_tiny(
        {
            "one": [(Clip(dataset="one", clip_id="h", source="freesound", source_id="2219"), "test")],
            "two": [
                (Clip(dataset="two", clip_id="t", source="soundbible", source_id="2219"), "train"),
                (Clip(dataset="two", clip_id="u", source="freesound", source_id=None), "train"),
            ],
        }
    )
    assert _evidence(tiny.manifests, tiny.cards, ("one",)) == []
    cell = _matrix(tiny, ("one",))["one"]["overlap"]["two"]
    assert cell["pairs"] == {"id": 0, "interval": 0, "same_start": None}
    assert cell["unidentified"] == 1


REUPLOADS = """
[[evidence]]
name = "pairs"
rule = "known_reupload"
heldout = ["one"]
source = "local"
citation = "somebody"
groups = [["a", "b", "c"], ["x", "y"]]
"""


def test_known_reuploads_are_found_within_their_group_only(make_tiny):
    def clips(dataset: str, names: str, split: str) -> list[tuple[Clip, str]]:
        return [
            (
                Clip(
                    dataset=dataset, clip_id=name, source="local", source_id=name, start_s=1.0, end_s=2.0
                ),
                split,
            )
            for name in names
        ]

    tiny = make_tiny({"one": clips("one", "axz", "test"), "two": clips("two", "abcyz", "train")},
                     evidence=REUPLOADS)  # fmt: skip
    rows = _evidence(tiny.manifests, tiny.cards, ("one",))
    found = sorted((row["heldout_clip_id"], row["train_clip_id"], row["rule"]) for row in rows)
    same = [(name, name, rule) for name in "az" for rule in ("same_id", "same_interval", "same_start")]
    reuploads = [("a", "b"), ("a", "c"), ("x", "y")]
    assert found == sorted(same + [(*pair, "known_reupload") for pair in reuploads])
    for row in rows:
        if row["rule"] == "known_reupload":
            assert row["measure"] is None
            assert row["offset_s"] is None


def test_overlaps_returns_the_evidence_columns_sorted(corpus):
    table = curation.overlaps("vggsound,audiocaps", manifests=corpus.manifests)
    assert isinstance(table, pa.Table)
    assert table.schema.equals(arrow_schema(EVIDENCE_COLUMNS))
    again = curation.overlaps(["vggsound", "audiocaps"], manifests=str(corpus.manifests))
    assert table.equals(again)


def test_pair_has_one_row_for_each_rule(corpus):
    rows = curation.overlaps("vggsound,audiocaps,esc50", manifests=corpus.manifests).to_pylist()
    keys = [tuple(sorted(row.items(), key=lambda item: item[0])) for row in rows]
    assert len(keys) == len(set(keys))


def test_python_and_command_write_the_same_evidence(in_folder, curate):
    code, _, _ = curate("overlaps", "--test", "vggsound,audiocaps")
    assert code == 0
    import pyarrow.parquet as pq

    written = pq.read_table(in_folder.manifests / "overlaps.parquet")
    made = curation.overlaps("vggsound,audiocaps", manifests=in_folder.manifests)
    assert written.cast(made.schema).equals(made)


def test_published_lists_are_held_against_what_was_found(corpus):
    comparison = compare(
        ("audiocaps", "vggsound"), train=None, manifests=corpus.manifests, cards=corpus.cards
    )
    with work_connection(corpus.manifests) as db:
        overlap.find(db, comparison)
        tests = matrix(db, comparison)
    by_name = {entry["name"]: entry for entry in tests["audiocaps"]["published_lists"]}
    entry = by_name["wavcaps/wavcaps_exclude_test_ac"]
    assert (entry["test_ids"], entry["test_ids_on_it"], entry["overlapping_ids"]) == (60, 57, 60)
    assert entry["missed_ids"] == 3
    assert by_name["wavcaps/aac_datasets_audiocaps"]["missed_ids"] == 0
    (unknown,) = (e for e in tests["vggsound"]["published_lists"] if "synchformer" in e["name"])
    assert "missed_ids" not in unknown


def test_clotho_gets_an_upper_bound_from_published_lists(corpus):
    comparison = compare(("clotho",), train=None, manifests=corpus.manifests, cards=corpus.cards)
    with work_connection(corpus.manifests) as db:
        overlap.find(db, comparison)
        cells = matrix(db, comparison)["clotho"]["overlap"]
    bounds = {key: cell["published_list_bound"] for key, cell in cells.items() if "/" not in key}
    listed = [o for o in corpus.planted.overlaps if o.heldout == ("clotho", None)]
    assert bounds == {key: sum(o.column == key for o in listed) for key in bounds}
    assert bounds["wavcaps"] == 12


@pytest.mark.parametrize(
    ("tests", "train", "message"),
    [
        (("vggsund",), None, "unknown dataset 'vggsund', expected one of: audiocaps, audioset"),
        (
            ("vggsound@mmaudoi",),
            None,
            "unknown list 'vggsound@mmaudoi', expected one of: vggsound@official",
        ),
        (
            ("wavcaps",),
            None,
            "'wavcaps' has no test split or default list, expected one of: wavcaps@mmaudio-audioset-sl",
        ),
        (("vggsound",), ("esc50",), "'esc50' has no train split, expected one of: esc50@all"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(corpus, tests, train, message):
    with pytest.raises(UsageProblem, match=message):
        compare(tests, train=train, manifests=corpus.manifests, cards=corpus.cards)


def test_what_is_not_built_is_refused_with_the_command_that_builds_it(make_tiny):
    tiny = make_tiny(
        {"one": [(Clip(dataset="one", clip_id="x", source="local", source_id="x"), "test")]}
    )
    with pytest.raises(
        UsageProblem, match=r"vggsound is not built .* run: curate fetch vggsound --from DIR"
    ):
        compare(("vggsound",), train=None, manifests=tiny.manifests, cards=tiny.cards)
    with pytest.raises(
        UsageProblem, match="nothing is built there; without --train the six training sets"
    ):
        compare(("one",), train=None, manifests=tiny.manifests / "none", cards=tiny.cards)
    with pytest.raises(UsageProblem, match="one@cut has no clips in"):
        _evidence(tiny.manifests, tiny.cards, ("one@cut",))


def test_manifest_that_was_changed_or_cut_is_refused(make_tiny):
    import shutil

    tiny = make_tiny(_random_sets(40, size=20))
    path = tiny.manifests / "one" / "clips.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ManifestChanged, match=r"build completed it with .* rebuild it with: curate build one"
    ):
        compare(("one",), train=None, manifests=tiny.manifests, cards=tiny.cards)
    path.write_bytes(whole[:-8] + b"\0" * 8)  # the same size, without a footer
    comparison = compare(("one",), train=None, manifests=tiny.manifests, cards=tiny.cards)
    with (
        work_connection(tiny.manifests) as db,
        pytest.raises(BadManifest, match="cannot be read as Parquet"),
    ):
        check_rows(db, comparison)
    shutil.copy(tiny.manifests / "two" / "clips.parquet", path)


def test_fail_on_overlap_ends_with_10_only_where_something_overlaps(in_folder, curate):
    assert curate("overlaps", "--test", "vggsound", "--train", "audioset", "--fail-on-overlap")[0] == 10
    arguments = ("overlaps", "--test", "avsync15", "--train", "fsd50k", "--fail-on-overlap")
    assert curate(*arguments)[0] == 0


def test_fail_on_overlap_asks_for_what_match_says(make_tiny, curate):
    """Two cuts of one recording that lie apart, and two that meet and start differently."""

    def cut(name: str, source_id: str, start_s: float) -> Clip:
        return Clip(dataset=name, clip_id=f"{name}{source_id}{start_s}", source="local",
                    source_id=source_id, start_s=start_s, end_s=start_s + 10)  # fmt: skip

    ends = {}
    for case, offset_s in (("apart", 100), ("meet", 5), ("same", 0)):
        tiny = make_tiny(
            {"one": [(cut("one", "x", 0), "test")], "two": [(cut("two", "x", offset_s), "train")]}
        )
        for match in ("id", "interval", "start"):
            ends[case, match] = curate(
                "overlaps", "--test", "one", "--train", "two", "--match", match, "--fail-on-overlap",
                "--manifests", tiny.manifests, "--cards", tiny.cards_folder,
            )[0]  # fmt: skip
    assert {key for key, code in ends.items() if code == 10} == {
        ("apart", "id"), ("meet", "id"), ("meet", "interval"),
        ("same", "id"), ("same", "interval"), ("same", "start"),
    }  # fmt: skip
    assert set(ends.values()) == {0, 10}


def test_list_that_is_the_test_list_leaves_nothing_to_overlap(in_folder, curate):
    code, out, _ = curate("overlaps", "--test", "vggsound", "--train", "vggsound@github-test", "--json")
    assert code == 0
    cell = json.loads(out)["tests"]["vggsound"]["overlap"]["vggsound@github-test"]
    assert cell["train_rows"] == 0
    assert set(cell["test_items"].values()) == {0}


@pytest.mark.parametrize("format_", ["table", "markdown", "latex", "csv"])
def test_matrix_is_printed_with_counts_and_percentages(in_folder, curate, format_):
    code, out, err = curate(
        "overlaps", "--test", "audiocaps", "--train", "audioset,vggsound", "--format", format_
    )
    assert code == 0
    lines = [line for line in out.splitlines() if "vggsound" in line]
    cells = [cell.strip(" |&\\") for cell in lines[0].replace(",", " , ").split()]
    assert {"10", "16.7", "9"} <= set(cells)
    assert ("evidence rows" in out) == (format_ == "table")
    assert "next: curate clean --test audiocaps" in err
