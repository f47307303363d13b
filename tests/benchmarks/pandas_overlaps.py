"""What `curate overlaps` is measured against: the same counts with pandas.

The best reasonable way: only the columns that count, one dataset at a time, one merge each (dropping
rows of other recordings first, by isin, makes it slower). Prints the same counts as `bare_overlaps.py`.

    python pandas_overlaps.py MANIFESTS OUT.parquet [DATASET/SPLIT...]
"""

import json
import sys
from pathlib import Path

import pandas as pd

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
COLUMNS = ["dataset", "split", "clip_id", "source", "source_id", "start_s", "end_s"]
KEY = ["source", "source_id"]
RULES = {"id": "same_id", "interval": "same_interval", "same_start": "same_start"}


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, columns=COLUMNS)


def pairs_of(heldout: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Every pair of one recording, with how it meets."""
    pairs = heldout.dropna(subset="source_id").merge(train, on=KEY, suffixes=("_h", "_t"))
    pairs = pairs[(pairs["dataset_h"] != pairs["dataset_t"]) | (pairs["split_h"] != pairs["split_t"])]
    start_h, end_h = (pairs[f"{name}_s_h"].round(3) for name in ("start", "end"))
    start_t, end_t = (pairs[f"{name}_s_t"].round(3) for name in ("start", "end"))
    unknown = start_h.isna() | start_t.isna()
    return pairs.assign(
        id=True,
        interval=((start_h < end_t) & (start_t < end_h)) | unknown,
        same_start=start_h == start_t,
        measure=(pd.concat([end_h, end_t], axis=1).min(axis=1)
                 - pd.concat([start_h, start_t], axis=1).max(axis=1)).clip(lower=0).mask(unknown),
        offset_s=start_h - start_t,
    )  # fmt: skip


def counts_of(pairs: pd.DataFrame) -> dict[str, int]:
    counts = {}
    for label in RULES:
        met = pairs[pairs[label]]
        counts[f"test_items_{label}"] = met["clip_id_h"].nunique()
        counts[f"test_ids_{label}"] = len(met[KEY].drop_duplicates())
        counts[f"train_items_{label}"] = len(met[["dataset_t", "clip_id_t"]].drop_duplicates())
        counts[f"pairs_{label}"] = len(met[["clip_id_h", "dataset_t", "clip_id_t"]].drop_duplicates())
    return counts


def main(manifests: Path, out: Path, tests: list[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Counts by test set, training set and `<counted>_<match>`; writes the evidence."""
    parts = []
    for test in tests:
        dataset, split = test.split("/")
        rows = read(manifests / dataset / "clips.parquet")
        parts.append(rows[rows["split"] == split].assign(test=test))
    heldout = pd.concat(parts)
    counts: dict[str, dict[str, dict[str, int]]] = {test: {} for test in tests}
    evidence = []
    for path in sorted(manifests.glob("*/clips.parquet")):
        pairs = pairs_of(heldout, read(path))
        trains = pairs["split_t"].isin(TRAIN_SPLITS.get(path.parent.name, ()))
        cells = pairs["dataset_t"].where(trains, pairs["dataset_t"] + "/" + pairs["split_t"])
        for (test, cell), found in pairs.groupby([pairs["test"], cells]):
            counts[test][cell] = counts_of(found)
        for label, rule in RULES.items():
            evidence.append(pairs[trains & pairs[label]].assign(rule=rule))
    columns = {
        "test": "test_list", "dataset_h": "heldout_dataset", "clip_id_h": "heldout_clip_id",
        "dataset_t": "train_dataset", "clip_id_t": "train_clip_id", "rule": "rule",
        "measure": "measure", "offset_s": "offset_s",
    }  # fmt: skip
    rows = pd.concat(evidence)[list(columns)].rename(columns=columns)
    rows = rows.sort_values(list(columns.values())[:6])
    rows.to_parquet(out, compression="zstd", index=False)
    return counts


if __name__ == "__main__":
    wanted = sys.argv[3:] or ["vggsound/test", "audiocaps/test"]
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), wanted), indent=1))
