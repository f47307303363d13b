"""Group leakage: counted as brute force counts it, told, and never removed."""

import csv
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CAPTIONS = (
    "A dog barks.",
    "a dog  barks",
    "Hund, bellt!",
    "HUND BELLT",
    "rain",
    "Rain?",
    "wind",
    "",
    "été",
)


@dataclass(frozen=True)
class Row:
    source_id: str
    start: int
    caption: str
    uploader: str


def _random_rows(seed: int, n: int) -> list[Row]:
    chosen = random.Random(seed)
    ids = [f"{i:010d}A" for i in range(12)]
    rows = {
        Row(
            chosen.choice(ids),
            chosen.randrange(4) * 5,
            chosen.choice(CAPTIONS),
            chosen.choice("abcd") * 2,
        )
        for _ in range(n)
    }
    return sorted({(row.source_id, row.start): row for row in sorted(rows, key=str)}.values(), key=str)


def _write(path: Path, rows: list[Row], *, uploader: bool = True) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "start", "duration", "caption", *(["uploader"] if uploader else [])])
        for row in rows:
            cells = [row.source_id, row.start, 5, row.caption]
            writer.writerow([*cells, *([row.uploader] if uploader else [])])
    return path


def _plain(caption: str) -> str:
    return " ".join(re.findall(r"\w+", caption.lower()))


def _counted(tests: list[Row], trains: list[Row], share: Callable[[Row, Row], bool]) -> dict[str, int]:
    pairs = [(h, t) for h in tests for t in trains if share(h, t)]
    return {"test_items": len({h for h, _ in pairs}), "train_items": len({t for _, t in pairs})}


@pytest.fixture
def ask(tmp_path: Path, curate: Any) -> Callable[..., dict[str, Any]]:
    def groups(tests: Path, trains: Path) -> dict[str, Any]:
        code, out, err = curate(
            "overlaps", "--test", tests, "--train", trains, "--groups", "--json",
            "--manifests", tmp_path / "manifests",
        )  # fmt: skip
        assert code == 0, err
        return json.loads(out)["groups"][str(tests)][str(trains)]

    return groups


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_brute_force(seed, ask, tmp_path):
    tests, trains = _random_rows(seed, 15), _random_rows(seed + 100, 25)
    found = ask(_write(tmp_path / "test.csv", tests), _write(tmp_path / "train.csv", trains))
    assert found == {
        "other_time": _counted(
            tests, trains, lambda h, t: h.source_id == t.source_id and abs(h.start - t.start) >= 5
        ),
        "uploader": _counted(tests, trains, lambda h, t: h.uploader == t.uploader),
        "caption": _counted(
            tests, trains, lambda h, t: _plain(h.caption) == _plain(t.caption) != ""
        ),
    }  # fmt: skip


def test_count_is_null_where_a_side_does_not_tell(ask, tmp_path):
    rows = _random_rows(1, 10)
    found = ask(
        _write(tmp_path / "test.csv", rows), _write(tmp_path / "train.csv", rows, uploader=False)
    )
    assert found["uploader"] is None
    assert found["caption"] is not None


def test_groups_are_told_and_nothing_is_removed(curate, tmp_path):
    tests = _write(tmp_path / "test.csv", [Row("0000000001A", 0, "rain", "x")])
    trains = _write(tmp_path / "train.csv", [Row("0000000002A", 0, "Rain.", "x")])
    words = ("--test", tests, "--train", trains, "--manifests", tmp_path / "manifests")
    code, out, _ = curate("overlaps", *words, "--groups", "--fail-on-overlap")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [str(tests), str(trains), "an", "uploader", "1", "1"] in lines
    assert [str(tests), str(trains), "a", "caption", "1", "1"] in lines
    _, out, _ = curate("clean", *words, "--name", "all")
    assert "1 row = 1 kept" in out
