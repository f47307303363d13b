"""Equal input gives equal bytes, also where so many rows leave that row groups are cut anew."""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.catalog.build import build
from curation.catalog.cards import Card, find_cards, load_cards
from curation.catalog.fetch import fetch_from
from curation.decision.clean import clean
from curation.decision.policy import CleanConfig

ROW_GROUP = 122_880
NUM_ROWS = 600_000  # five row groups: what is cut elsewhere shows in several places
CARD = """
title = "{name}"
homepage = "-"
citation = "-"
metadata_licence = "-"
media_licence = "-"

[files.head]
path = "head.csv"
url = "-"
columns = ["id", "start"]
table = "rows"

[files.rows]
path = "rows.csv"
url = "-"
columns = ["id", "start"]

[splits.{split}]
role = "{split}"
"""
SQL = """
select id || '_' || start as clip_id, '{split}' as split, 'local' as source, id as source_id,
       seconds(start) as start_s, seconds(start) + 10 as end_s, file, row
from rows {where}"""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Card]]:
    """Every ninth row fails, or every tenth is filtered out; every fortieth is tested on."""
    folder = tmp_path_factory.mktemp("large")
    rows = {
        "faulty": (f"id{i},{-1 if i % 9 == 0 else i % 300}" for i in range(NUM_ROWS)),
        "filtered": (f"id{i},{i % 300}" for i in range(NUM_ROWS)),
        "tested": (f"id{i},{i % 300}" for i in range(0, NUM_ROWS, 40)),
    }
    for name, lines in rows.items():
        split = "test" if name == "tested" else "train"
        card = folder / "cards" / name
        card.mkdir(parents=True)
        (card / "card.toml").write_text(CARD.format(name=name, split=split))
        where = "where right(id, 1) <> '7'" if name == "filtered" else ""
        (card / "clips.sql").write_text(SQL.format(split=split, where=where))
        raw = folder / "metadata" / name
        raw.mkdir(parents=True)
        (raw / "head.csv").write_text("id,start\nhead,0\n")
        (raw / "rows.csv").write_text("\n".join(["id,start", *lines]) + "\n")
    cards = load_cards(folder / "cards")
    fetch_from(folder / "metadata", find_cards(cards, tuple(rows)), folder / "manifests")
    return folder / "manifests", cards


@pytest.mark.slow
@pytest.mark.parametrize("runs", [2, pytest.param(3, marks=pytest.mark.soak)])
def test_build_and_clean_give_the_same_bytes_each_time(
    runs: int, large: tuple[Path, dict[str, Card]]
) -> None:
    manifests, cards = large
    names = ("faulty", "filtered", "tested")
    clips, kept = set(), set()
    for _ in range(runs):
        for record in manifests.glob("*/build.json"):
            record.unlink()
        assert [b.state for b in build(find_cards(cards, names), manifests)] == ["built"] * 3
        clips.add(tuple(_sha256(manifests / name / "clips.parquet") for name in names))
        made = clean(
            CleanConfig(tests=("tested",)), name="x", manifests=manifests, cards=cards, replace=True
        )
        kept.add(tuple(_sha256(path) for path in sorted(made.folder.glob("*.parquet"))))
    assert made.tally.dropped
    assert len(clips) == 1, "build"
    assert len(kept) == 1, "clean"
    for name in names:
        groups = pq.ParquetFile(manifests / name / "clips.parquet").metadata
        sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        assert sizes[:-1] == [ROW_GROUP] * (len(sizes) - 1), "cut where the first thread was"
