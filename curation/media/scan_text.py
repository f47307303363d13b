"""What a scan found, as people and programs read it."""

from typing import Any

from curation.media.run import Found, Part
from curation.media.scan import Counts
from curation.tables import number, render


def scanned_text(found: Found) -> str:
    """A line for each dataset, and what people should look at."""
    header = ("dataset", "clips", "found", "missing", "scanned", "partly damaged", "failed")
    rows = []
    for part in found.parts:
        counts = part.scanned.counts
        rows.append((
            part.scanned.dataset, len(part.located.files), part.located.found, part.located.missing,
            counts.scanned, counts.partly_damaged, sum(counts.failed.values()),
        ))  # fmt: skip
    return "\n".join([render(header, rows), *notes(found)])


def notes(found: Found) -> list[str]:
    """Rows of a list that are no clips, and shares that are left to others."""
    lines = []
    for part in found.parts:
        if part.built and sum(part.built.tally.failed.values()):
            lines.append(
                f"{part.scanned.dataset}: list: {part.built.tally.sentence()}; see problems.parquet"
            )
        if not part.scanned.sealed:
            lines.append(
                f"{part.scanned.dataset}: {part.scanned.done} of {part.scanned.tasks} parts are done"
            )
    return lines


def summary(found: Found) -> str:
    """One line whose numbers add up."""
    counts = Counts()
    for part in found.parts:
        one = part.scanned.counts
        counts.add({"clips": one.clips, "scanned": one.scanned, "partly_damaged": one.partly_damaged,
                    "failed": one.failed})  # fmt: skip
    names = ", ".join(part.scanned.dataset for part in found.parts)
    media = len(found.media.media)
    files = media + found.media.not_media
    return (
        f"{names}: {sentence(counts)}; {number(files, 'file')} = {media - found.unmatched:,} of clips + "
        f"{found.unmatched:,} unmatched + {found.media.not_media:,} not media"
    )


def sentence(counts: Counts) -> str:
    """The sum of clips, e.g. "43 clips = 41 scanned (1 partly_damaged) + 2 failed (no_media 2)"."""
    scanned = f"{counts.scanned:,} scanned"
    if counts.partly_damaged:
        scanned += f" ({counts.partly_damaged:,} partly_damaged)"
    line = f"{number(counts.clips, 'clip')} = {scanned}"
    if failed := sum(counts.failed.values()):
        listed = ", ".join(f"{reason} {n:,}" for reason, n in sorted(counts.failed.items()))
        line += f" + {failed:,} failed ({listed})"
    return line


def as_json_of(found: Found) -> dict[str, Any]:
    """The document of --json."""
    return {
        "datasets": [_part(part) for part in found.parts],
        "files": {
            "media": len(found.media.media),
            "unmatched": found.unmatched,
            "not_media": found.media.not_media,
        },
    }


def _part(part: Part) -> dict[str, Any]:
    counts = part.scanned.counts
    return {
        "dataset": part.scanned.dataset,
        "clips": counts.clips,
        "found": part.located.found,
        "missing": part.located.missing,
        "scanned": counts.scanned,
        "partly_damaged": counts.partly_damaged,
        "failed": counts.failed,
        "parts": part.scanned.tasks,
        "parts_done": part.scanned.done,
        "complete": part.scanned.sealed,
    }
