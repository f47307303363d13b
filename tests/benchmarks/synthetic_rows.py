"""Metadata of any size with known overlaps: a training set of N rows, a test set of 15,000.

    python synthetic_rows.py FOLDER --rows 1000000

writes `FOLDER/cards` (two small cards) and `FOLDER/metadata` (CSV), so that the rest is done by the
commands themselves:

    curate fetch --from FOLDER/metadata --cards FOLDER/cards --manifests FOLDER/manifests
    curate build --cards FOLDER/cards --manifests FOLDER/manifests synthetic heldout
    curate overlaps --test heldout --cards FOLDER/cards --manifests FOLDER/manifests

Ids look like YouTube's and come in random order, so nothing is won by their sorting. Of the test
clips 5,000 have the id and start of a training clip, 5,000 its id and a start 5 s later, 2,500 its id
and a start 100 s later, and 2,500 have ids of their own: EXPECTED.
"""

import argparse
from pathlib import Path

TEST_ROWS = 15_000
EXPECTED = {"id": 12_500, "interval": 10_000, "same_start": 5_000}

CARD = """title = "{title}"
homepage = "tests/benchmarks/synthetic_rows.py"
citation = "none"
metadata_licence = "MIT"
media_licence = "none"

[files.rows]
path = "rows.csv"
url = "none"
columns = ["youtube_id", "start", "label"]

[splits.{split}]
role = "{split}"
"""
CLIPS = """select
    trim(youtube_id) || '_' || six_digits(start) as clip_id,
    '{split}' as split,
    'youtube' as source,
    trim(youtube_id) as source_id,
    seconds(start) as start_s,
    seconds(start) + 10 as end_s,
    [label] as labels,
    file,
    row
from rows
"""


def write(folder: Path, num_rows: int) -> None:
    """Write cards and metadata into `folder`."""
    import duckdb

    for dataset, split in (("synthetic", "train"), ("heldout", "test")):
        card = folder / "cards" / dataset
        card.mkdir(parents=True, exist_ok=True)
        (card / "card.toml").write_text(CARD.format(title=f"{num_rows:,} rows", split=split))
        (card / "clips.sql").write_text(CLIPS.format(split=split))
        (folder / "metadata" / dataset).mkdir(parents=True, exist_ok=True)
    db = duckdb.connect()
    # 64 bits in base64url: eleven characters, the last one of sixteen, as YouTube's are
    db.execute(
        """create macro video(i) as
        translate(left(base64(unhex(left(md5(i::varchar), 16))), 11), '+/', '-_')"""
    )
    db.execute("create macro start_of(i) as i % 30 * 10")
    step = num_rows // 5_000
    chosen = {
        "synthetic": f"select i, 0 as later from range({num_rows}) t(i)",
        "heldout": f"""select case when k < 5000 then k * {step}
                when k < 10000 then (k - 5000) * {step} + 1
                when k < 12500 then (k - 10000) * {step} + 2
                else {num_rows} + k end as i,
            case when k < 5000 then 0 when k < 10000 then 5 else 100 end as later
        from range({TEST_ROWS}) t(k)""",
    }
    for dataset, rows in chosen.items():
        db.execute(
            f"""copy (select video(i) as youtube_id, start_of(i) + later as start,
                'sound of class ' || i % 309 as label from ({rows}))
            to '{folder / "metadata" / dataset / "rows.csv"}' (header true)"""
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    write(given.folder, given.rows)
