"""What `curate overlaps` is measured against: the same joins and counts by a bare DuckDB script.

Reads built manifests. For each test set (all rows of one split) and each training set (the train
splits of a dataset) or other split: how many test items, test ids, training items and pairs meet by
id, by interval and by the same start. Writes the evidence rows of the training sets as Parquet and
prints the counts. It believes its input: no checks, digests, re-uploads or published lists.

    python bare_overlaps.py MANIFESTS OUT.parquet [DATASET/SPLIT...]
"""

import json
import sys
from pathlib import Path

import duckdb

TRAIN_SPLITS = {
    "audiocaps": ("train",),
    "audioset": ("balanced", "unbalanced"),
    "avsync15": ("train",),
    "clotho": ("development",),
    "fsd50k": ("dev",),
    "synthetic": ("train",),
    "vggsound": ("train",),
    "wavcaps": ("soundbible",),
}
TIMES = "round(start_s * 1000)::bigint as start_ms, round(end_s * 1000)::bigint as end_ms"
COUNTED = {
    "test_items": "h_clip",
    "test_ids": "source || ':' || source_id",
    "train_items": "dataset || '/' || clip_id",
    "pairs": "h_clip || '/' || dataset || '/' || clip_id",
}
MATCHES = {"id": "true", "interval": "same_interval", "same_start": "same_start"}


def main(manifests: Path, out: Path, tests: list[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Counts by test set, training set and `<counted>_<match>`; writes the evidence."""
    db = duckdb.connect()
    db.execute("set enable_progress_bar = false")
    heldout = " union all ".join(
        f"""select '{test}' as test, dataset as h_dataset, split as h_split, clip_id as h_clip, source,
            source_id, {TIMES} from '{manifests / test.split("/")[0]}/clips.parquet'
        where split = '{test.split("/")[1]}'"""
        for test in tests
    )
    db.execute(f"create temp table heldout as {heldout}")
    files = sorted(str(path) for path in manifests.glob("*/clips.parquet"))
    db.execute(
        f"""create temp table pairs as
        select h.test, h.h_dataset, h.h_clip, source, source_id, t.dataset, t.split, t.clip_id,
               coalesce(h.start_ms < t.end_ms and t.start_ms < h.end_ms, true) as same_interval,
               coalesce(h.start_ms = t.start_ms, false) as same_start,
               greatest(0, least(h.end_ms, t.end_ms) - greatest(h.start_ms, t.start_ms)) / 1000
                   as shared_s,
               (h.start_ms - t.start_ms) / 1000 as offset_s
        from (select dataset, split, clip_id, source, source_id, {TIMES} from read_parquet({files})) t
        join heldout h using (source, source_id)
        where t.dataset <> h.h_dataset or t.split <> h.h_split"""
    )
    trains = ", ".join(f"('{name}', {list(splits)})" for name, splits in TRAIN_SPLITS.items())
    db.execute(
        f"""create temp table cells as
        select p.*, r.splits is not null as trains,
               if(r.splits is null, p.dataset || '/' || p.split, p.dataset) as cell
        from pairs p left join (values {trains}) r(dataset, splits)
          on r.dataset = p.dataset and list_contains(r.splits, p.split)"""
    )
    counted = ", ".join(
        f"count(distinct {value}) filter ({match}) as {name}_{label}"
        for name, value in COUNTED.items()
        for label, match in MATCHES.items()
    )
    found = db.execute(f"select test, cell, {counted} from cells group by all order by 1, 2")
    names = [column[0] for column in found.description][2:]
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for test, cell, *values in found.fetchall():
        counts.setdefault(test, {})[cell] = dict(zip(names, values, strict=True))
    evidence = " union all ".join(
        f"select *, '{rule}' as rule, {order} as rule_order from cells where trains and {match}"
        for order, (rule, match) in enumerate(
            (("same_id", "true"), ("same_interval", "same_interval"), ("same_start", "same_start"))
        )
    )
    db.execute(
        f"""copy (select test as test_list, h_dataset as heldout_dataset, h_clip as heldout_clip_id,
                dataset as train_dataset, clip_id as train_clip_id, rule, shared_s as measure, offset_s
            from ({evidence}) order by 1, 2, 3, 4, 5, rule_order)
        to '{out}' (format parquet, compression zstd)"""
    )
    return counts


if __name__ == "__main__":
    wanted = sys.argv[3:] or ["vggsound/test", "audiocaps/test"]
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), wanted), indent=1))
