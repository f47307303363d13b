"""What `curate duplicates` found, as people read it."""

from typing import Any

from curation.matching.clusters import clusters
from curation.matching.compare_media import Duplicated
from curation.matching.near import RULES
from curation.tables import number, render

_MOST_ROWS = 60


def duplicates_text(found: Duplicated) -> str:
    """A table of pairs, those that clean acts on first."""
    if not found.sealed:
        return ""
    rows = sorted(found.pairs.to_pylist(), key=lambda row: (row["tier"] != "auto", row["rule"]))
    header = ["a", "b", "rule", "tier", "offset s", "speed", "picture", "sound"]
    text = render(header, [_cells(row) for row in rows[:_MOST_ROWS]]) if rows else ""
    if len(rows) > _MOST_ROWS:
        text += f"\n… {len(rows) - _MOST_ROWS:,} more in duplicates.parquet"
    groups = clusters(found.pairs)
    notes = [
        f"weak link: {one} and {other} alone hold two groups together"
        for one, other in groups.bridges[:_MOST_ROWS]
    ]
    reasons: dict[str, int] = {}
    for _, reason in found.unknown.clips:
        reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        told = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
        notes.append(f"unknown, as their media could not be scanned: {told}")
    return "\n".join([*([text] if text else []), *notes])


def _cells(row: dict[str, Any]) -> list[Any]:
    return [
        f"{row['a_dataset']}/{row['a_clip_id']}",
        f"{row['b_dataset']}/{row['b_clip_id']}",
        row["rule"],
        row["tier"],
        f"{row['offset_s'] + 0.0:.2f}",
        f"{row['speed']:.2f}",
        *(None if row[name] is None else f"{row[name]:.2f}" for name in ("video_score", "audio_score")),
    ]


def summary(found: Duplicated) -> str:
    """The sum of it in one line."""
    if not found.sealed:
        return "this share is done, others are not"
    pairs = found.pairs.to_pylist()
    auto = sum(row["tier"] == "auto" for row in pairs)
    rules = [(rule, sum(row["rule"] == rule for row in pairs)) for rule in RULES]
    told = ", ".join(f"{rule} {n:,}" for rule, n in rules if n)
    groups = clusters(found.pairs).components
    parts = [
        f"{number(len(pairs), 'pair')} = {auto:,} auto + {len(pairs) - auto:,} review"
        + (f" ({told})" if told else "")
        + f" among {number(found.clips, 'clip')}",
        f"{number(len(groups), 'cluster')}, {number(found.aligned, 'pair')} aligned",
        f"{len(found.unknown.clips):,} unknown",
    ]
    for test in found.compared.tests:
        size = len(found.compared.items[test.name])
        parts.append(
            f"{test.name}: at most {found.unknown.at_most(size, test.name):,} of {size:,} items may "
            "have copies nobody could look for"
        )
    return "; ".join(parts)
