"""What fetch, build and datasets found, as people read it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curation.catalog.build import Built
from curation.catalog.fetch import Fetched, Planned
from curation.catalog.twins import Twins
from curation.tables import number, render


def datasets_text(document: dict[str, Any]) -> str:
    """The cards, then the named lists, of the document that `overview` makes."""
    rows = [
        [d["dataset"], d["state"], d["train_rows"], d["rows"], d["format"], d["metadata_licence"]]
        for d in document["datasets"]
    ]
    lists = [
        [entry["list"], entry["size"] or entry["registered_size"], entry["state"],
         (entry["digest"] or entry["registered_digest"] or "")[:23], entry["title"]]
        for entry in document["lists"]
    ]  # fmt: skip
    return (
        render(["dataset", "state", "train rows", "rows", "format", "licence"], rows)
        + "\n\n"
        + render(["list", "clips", "state", "digest", "title"], lists)
    )


def plan_text(planned: Sequence[Planned]) -> str:
    """Every file with its size, licence and server."""
    rows = [
        [f"{p.dataset}/{p.path}", p.state, p.bytes, p.licence, urlsplit(p.url).hostname or p.url]
        for p in planned
    ]
    return render(["file", "state", "bytes", "licence of the metadata", "server"], rows)


def plan_summary(planned: Sequence[Planned]) -> str:
    """How many files, and how many bytes are still to come."""
    wanted = [p for p in planned if p.state == "to fetch"]
    unknown = sum(p.bytes is None for p in wanted)
    size = f"{sum(p.bytes or 0 for p in wanted):,} bytes"
    size += f" and {unknown} of unknown size" if unknown else ""
    parts = [f"{len(wanted)} to fetch ({size})"]
    parts += [f"{sum(p.state == s for p in planned)} {s}" for s in ("at hand", "by hand")]
    return f"{number(len(planned), 'file')} = {' + '.join(parts)}"


def fetched_text(results: Sequence[Fetched], source: Path | None, manifests: Path) -> str:
    """What was fetched and what failed as a table, then the files that are missing still."""
    rows = [
        [f"{r.dataset}/{r.path}", r.state, r.bytes or None, r.copy or r.detail]
        for r in results
        if r.state in ("fetched", "failed")
    ]
    lines = [render(["file", "state", "bytes", "copy"], rows)] if rows else []
    for result in results:
        if result.state == "absent":
            here = (manifests / result.dataset / "raw" / result.path).exists()
            stays = ", the copy of an earlier fetch stays" if here else ""
            lines.append(f"absent: {result.dataset}/{result.path}{stays}")
        elif result.state == "by hand":
            lines.append(
                f"by hand: {result.dataset}/{result.path}, from {result.detail}: put it under that name "
                "into a folder DIR, and: curate fetch --from DIR"
            )
    if source and not rows and results:
        first = results[0]
        lines.append(
            f"{source} holds none of these files, expected them as {source / first.dataset / first.path}"
        )
    return "\n".join(lines)


def built_text(results: Sequence[Built], twins: Twins, faults: Sequence[str]) -> str:
    """A row for each dataset, then a line for everything that somebody should look at."""
    rows = [[r.dataset, r.state, r.tally.kept or None, sum(r.tally.failed.values())] for r in results]
    lines = [render(["dataset", "state", "clips", "failed rows"], rows)]
    for result in results:
        lines += [f"{result.dataset}: not at hand: {path}" for path in result.missing]
        lines += [f"note: {note}" for note in result.notes]
        lines += [f"{result.dataset}: {n:,} {why}" for why, n in result.flagged.items()]
        if result.error:
            lines.append(f"failed: {result.error}")
    lines += [f"twins.parquet: {n:,} {why}" for why, n in twins.counts.items()]
    lines += [
        f"{why}: {dataset} has {id_}, likely {likely}" for why, dataset, id_, likely in twins.first
    ]
    lines += [f"{fault} — make it anew: curate overlaps, clean, scan or duplicates" for fault in faults]
    return "\n".join(lines)
