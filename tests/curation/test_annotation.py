"""`same_annotation`: pairs by brute force, chance by permutation, and what is done about them."""

import json
import random
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

import curation
from curation.catalog.build import build
from curation.catalog.cards import find_cards, load_cards

SETS = ("dog", "cat", "sea", "car", "rain", "bell", "song")
Clip = tuple[str, int, str]  # id, start in seconds, split
Labels = dict[tuple[str, int], tuple[str, ...]]


def _id(number: int) -> str:
    return f"{number:010d}A"


@pytest.fixture
def built(tmp_path: Path):
    """A function that builds VGGSound clips, and the AudioSet segments that have these labels."""

    def make(clips: list[Clip], labels: Labels) -> Path:
        segments = [
            f'{id_}, {start}.000, {start + 10}.000, "{",".join(names)}"'
            for (id_, start), names in labels.items()
        ]
        files = {
            "vggsound/raw/vggsound.csv": "".join(
                f"{i},{start},dog,{split}\n" for i, start, split in clips
            ),
            "audioset/raw/unbalanced_train_segments.csv": "\n".join(["# YTID", *segments]) + "\n",
        }
        for name, text in files.items():
            path = tmp_path / "manifests" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        results = build(find_cards(load_cards(), ("vggsound", "audioset")), tmp_path / "manifests")
        assert {result.state for result in results} <= {"built", "up to date"}
        return tmp_path / "manifests"

    return make


def _random(seed: int) -> tuple[list[Clip], Labels]:
    """Clips that often share starts and labels, in any order, some with fewer than five labels."""
    chosen = random.Random(seed)
    starts = [0, 7, 10, 21, 30, 40]
    clips = [
        (_id(i), chosen.choice(starts), chosen.choice(("train", "train", "test"))) for i in range(120)
    ]
    labels: Labels = {}
    for id_, start, _ in clips:
        if chosen.random() < 0.9:
            names = chosen.choice([SETS[:5], SETS[1:6], SETS[:6], SETS[:4]])
            at = start if chosen.random() < 0.9 else start + 1
            labels[id_, at] = tuple(chosen.sample(names, len(names)))
    return clips, labels


def _brute_force(clips: list[Clip], labels: Labels) -> set[tuple[str, str]]:
    """The definition, word for word, over all pairs."""
    pairs = set()
    for (a, start, a_split), (b, other, b_split) in product(clips, clips):
        one, two = labels.get((a, start)), labels.get((b, other))
        if (a_split, b_split) != ("test", "train") or a == b or start != other or start in (0, 30):
            continue
        if one and two and len(set(one)) >= 5 and set(one) == set(two):
            pairs.add((f"{a}_{start:06d}", f"{b}_{start:06d}"))
    return pairs


def _found(manifests: Path) -> set[tuple[str, str]]:
    rows = curation.overlaps("vggsound", train="vggsound", manifests=manifests).to_pylist()
    assert {row["offset_s"] for row in rows} <= {0.0}
    return {
        (row["heldout_clip_id"], row["train_clip_id"])
        for row in rows
        if row["rule"] == "same_annotation"
    }


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_those_of_brute_force(seed, built):
    clips, labels = _random(seed)
    expected = _brute_force(clips, labels)
    assert len(expected) > 10
    assert _found(built(clips, labels)) == expected


def test_chance_is_the_mean_over_permutations_of_the_starts(built, curate):
    clips, labels = _random(7)
    code, out, _ = curate(
        "overlaps", "--test", "vggsound", "--train", "vggsound", "--json",
        "--manifests", built(clips, labels),
    )  # fmt: skip
    cell = json.loads(out)["tests"]["vggsound"]["overlap"]["vggsound"]["same_annotation"]
    assert code == 0
    assert cell["pairs"] == len(_brute_force(clips, labels))
    annotated = [
        (frozenset(labels[id_, start]), start, split)
        for id_, start, split in clips
        if start not in (0, 30) and len(labels.get((id_, start), ())) >= 5
    ]
    for entry, some in ((cell, annotated), (cell["at_odd_starts"], [a for a in annotated if a[1] % 10])):
        trained = Counter((names, start) for names, start, split in some if split == "train")
        tests = [(names, start) for names, start, split in some if split == "test"]
        starts, total, tries = [start for _, start in tests], 0, 4000
        chosen = random.Random(1)
        for _ in range(tries):
            chosen.shuffle(starts)
            total += sum(trained[names, s] for (names, _), s in zip(tests, starts, strict=True))
        assert entry["by_chance"] == pytest.approx(total / tries, rel=0.03)


PAIR = [(_id(1), 21, "test"), (_id(2), 21, "train"), (_id(3), 21, "train"), (_id(4), 40, "train")]
FIVE = SETS[:5]
PAIR_LABELS = {(id_, start): FIVE if id_ != _id(3) else SETS[1:6] for id_, start, _ in PAIR}


def test_measure_is_the_share_of_clips_that_start_there(built):
    rows = curation.overlaps(
        "vggsound", train="vggsound", manifests=built(PAIR, PAIR_LABELS)
    ).to_pylist()
    assert [(row["train_clip_id"], row["measure"]) for row in rows] == [(f"{_id(2)}_000021", 0.75)]


def test_suspicion_is_told_and_acted_on_only_when_asked(built, curate):
    manifests = built(PAIR, PAIR_LABELS)
    words = ("--test", "vggsound", "--train", "vggsound", "--manifests", manifests)
    code, out, _ = curate("clean", *words, "--name", "told")
    assert code == 0
    assert "3 rows = 3 kept" in out
    assert "same_annotation suspects 1 items" in out
    code, out, _ = curate("blame", f"{_id(2)}_000021", "--name", "told", "--manifests", manifests)
    assert "kept" in out
    assert "has the start and the labels of test clip vggsound/0000000001A_000021" in out
    code, out, _ = curate("clean", *words, "--use-annotations", "--name", "acted")
    assert "3 rows = 2 kept + 1 dropped (same_annotation_as_heldout 1)" in out
    assert curate("verify", "--manifests", manifests)[0] == 0
    certificate = json.loads((manifests / "clean" / "acted" / "certificate.json").read_text())
    assert certificate["rules"]["same_annotation"] == "review"
    assert "audioset/annotations.parquet" in certificate["manifests"]


def test_changed_annotations_are_noticed(built, curate):
    manifests = built(PAIR, PAIR_LABELS)
    path = manifests / "audioset" / "annotations.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    words = ("--test", "vggsound", "--train", "vggsound", "--manifests", manifests)
    assert curate("clean", *words, "--name", "x")[0] == 13
    assert curate("verify", "--manifests", manifests)[0] == 13


def test_annotations_gone_from_the_source_are_not_used(built):
    manifests = built(PAIR, PAIR_LABELS)
    assert _found(manifests)
    few = {key: names[:4] for key, names in PAIR_LABELS.items()}
    assert not _found(built(PAIR, few))
