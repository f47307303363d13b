"""What a sealed folder holds, in numbers: for people, and as one document."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.tables import Cell, number, render, size_text
from features.store import index
from features.store.recorded import sealed_file, sealed_table
from features.store.shard_file import ITEM_BYTES, columns_of, spec_of
from features.store.statistics import Group, Sums, normalising, read_groups, total


def inventory(out: Path) -> dict[str, Any]:
    """Rows by dataset, split and kind, captions, bytes by column, identity, rejects, statistics.

    Raises:
        UsageProblem: the folder is not sealed.
        ManifestChanged: a file is not what seal wrote.
    """
    sealed = index.read_sealed(out)
    spec = spec_of(sealed["about"])
    columns = ["dataset", "clip_id", "split", "has_video", "text_index", "flags"]
    table = sealed_table(out, sealed, index.INDEX_FILE, columns)
    rejects = sealed_table(out, sealed, index.REJECTS_FILE, ["reason"])
    groups = read_groups(sealed_file(out, sealed, index.STATISTICS_FILE))
    totals = sealed["totals"]
    row_s = spec.num_samples / spec.sample_rate_hz
    return {
        "folder": str(out),
        "about": sealed["about"],
        "certificate": index.certificate_digest(sealed["certificate"]),
        "untrained": index.is_untrained(sealed["about"]),
        "totals": {**totals, "sound_s": round(totals["rows"] * row_s, 3)},
        "sets": _sets(table, row_s),
        "captions": {
            "unique": totals["captions"],
            "of_rows": len(table.column("text_index").combine_chunks().flatten()),
        },
        "column_bytes": _column_bytes(sealed),
        "flags": _counted(table.column("flags").combine_chunks().flatten()),
        "rejects": _counted(rejects.column("reason")),
        "statistics": _statistics(groups, spec.audio.latent_channels),
    }


def _sets(table: pa.Table, row_s: float) -> list[dict[str, Any]]:
    """Rows and clips of each split of each dataset, by kind."""
    keys = ["dataset", "split", "has_video"]
    counted = table.group_by(keys).aggregate([("clip_id", "count_distinct"), ([], "count_all")])
    rows = counted.sort_by([(name, "ascending") for name in keys]).to_pylist()
    return [
        {
            "dataset": row["dataset"],
            "split": row["split"],
            "kind": "av" if row["has_video"] else "audio",
            "clips": row["clip_id_count_distinct"],
            "rows": row["count_all"],
            "sound_s": round(row["count_all"] * row_s, 3),
        }
        for row in rows
    ]


def _column_bytes(sealed: dict[str, Any]) -> dict[str, int]:
    """Bytes of each column in all shards."""
    spec, sums = spec_of(sealed["about"]), dict[str, int]()
    for entry in sealed["files"].values():
        for name, shape in columns_of(entry["kind"], spec).items():
            sums[name] = sums.get(name, 0) + entry["rows"] * math.prod(shape) * ITEM_BYTES
    return dict(sorted(sums.items()))


def _counted(values: Any) -> dict[str, int]:
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}
    return dict(sorted(counts.items()))


def _statistics(groups: dict[Group, Sums], channels: int) -> dict[str, Any]:
    """Mean and std per channel of the posterior means and of samples, over what normalises latents."""
    over, chosen = normalising(groups)
    whole = total(chosen, channels)
    found: dict[str, Any] = {"over": over, "rows": whole.rows}
    for name, pair in (("means", whole.of_means()), ("samples", whole.of_samples())):
        mean, std = ([None if math.isnan(x) else x for x in values.tolist()] for values in pair)
        found[name] = {"mean": mean, "std": std}
    return found


def inventory_text(found: dict[str, Any]) -> str:
    """The same for people: two tables and some lines."""
    header = ("dataset", "split", "kind", "clips", "rows", "hours of sound")
    rows: list[list[Cell]] = [
        [s["dataset"], s["split"], s["kind"], s["clips"], s["rows"], f"{s['sound_s'] / 3600:.2f}"]
        for s in found["sets"]
    ]
    columns: list[list[Cell]] = [[name, n, size_text(n)] for name, n in found["column_bytes"].items()]
    about, captions = found["about"], found["captions"]
    encoders = ", ".join(f"{name} {_brief(identity)}" for name, identity in about["encoders"].items())
    lines = [
        f"sound: {about['sample_rate_hz']} Hz, {about['duration_s']:g} s a row",
        f"encoders: {encoders}" + ("; UNTRAINED, of no use but for tests" if found["untrained"] else ""),
        f"certificate: {found['certificate'] or 'uncertified'}",
        f"captions: {captions['unique']:,} unique, those of rejected clips included; rows have "
        f"{captions['of_rows']:,}",
        *(f"{name}: {_listed(found[name])}" for name in ("rejects", "flags") if found[name]),
        _statistics_line(found["statistics"]),
    ]
    parts = [render(header, rows)] if rows else []
    return "\n\n".join([*parts, render(("column", "bytes", "size"), columns), "\n".join(lines)])


def _statistics_line(found: dict[str, Any]) -> str:
    mean, std = found["means"]["mean"], found["means"]["std"]
    if None in mean:
        return "latents: too few rows for statistics"
    return (
        f"latents ({found['over']}, {number(found['rows'], 'row')}): "
        f"mean {min(mean):.3f} to {max(mean):.3f}, std {min(std):.3f} to {max(std):.3f} "
        f"over {len(mean)} channels"
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _brief(identity: str) -> str:
    return identity[:19] + "…" if len(identity) > 40 else identity


def inventory_summary(found: dict[str, Any]) -> str:
    """The counts in one line."""
    totals = found["totals"]
    return (
        f"{number(totals['rows'], 'row')} = {totals['av']:,} audio-video + {totals['audio']:,} audio; "
        f"{totals['sound_s'] / 3600:.2f} hours of sound, {number(totals['captions'], 'caption')}, "
        f"{number(totals['rejects'], 'reject')}, {number(totals['shards'], 'shard')} of "
        f"{size_text(totals['shard_bytes'])}"
    )
