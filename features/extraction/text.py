"""What an extraction will do, or did, as people and programs read it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from curation.tables import number, render, size_text
from features.extraction.extract import Extracted, waits
from features.extraction.plan import Need, Plan
from features.extraction.riding import Arrived
from features.store import index


def datasets_text(plan: Plan) -> str:
    """A line for each dataset: clips with and without a file."""
    rows = [(name, clips, found, clips - found) for name, (clips, found) in by_dataset(plan).items()]
    return render(("dataset", "clips", "found", "missing"), rows)


def by_dataset(plan: Plan) -> dict[str, tuple[int, int]]:
    """Clips, and those with a file, of each dataset."""
    counts: dict[str, tuple[int, int]] = {}
    table = plan.manifest.table
    begin = 0
    for name, clips in (pair.values() for pair in table["dataset"].value_counts().to_pylist()):
        found = sum(file is not None for file in plan.media.files[begin : begin + clips])
        counts[name] = clips, found
        begin += clips
    return counts


def files_sentence(plan: Plan) -> str:
    """The sum of media files."""
    media = plan.media
    claimed = media.num_files - media.unmatched
    return (
        f"{number(media.num_files, 'media file')} = {claimed:,} of clips + {media.unmatched:,} unmatched"
    )


def certified(plan: Plan) -> str:
    """What is known of the manifest."""
    if plan.certificate is None:
        why = plan.manifest.uncertified
        return f"{plan.manifest.name}: " + (
            f"uncertified, {why}" if why else "no certificate, no clean manifest"
        )
    return f"{plan.manifest.name}: certificate {plan.certificate['digest'][:19]}…"


def about_lines(plan: Plan) -> list[str]:
    """What decides the bytes, a line each."""
    about = plan.about
    encoders = ", ".join(f"{part} {_short(name)}" for part, name in sorted(about["encoders"].items()))
    threads = f", {number(about['threads'], 'thread')}" if about["threads"] else ""
    return [
        certified(plan),
        f"encoders: {encoders}",
        f"{about['sample_rate_hz']} Hz, {about['duration_s']:g} s, {about['precision']} on "
        f"{about['device']}{threads}, batches of {about['batch']['av']} with picture and "
        f"{about['batch']['audio']} without",
    ]


def _short(identity: str) -> str:
    return identity[:19] + "…" if identity.startswith("sha256:") else identity


def plan_text(plan: Plan, workers: str, left: tuple[int, int], need: Need, free: int) -> str:
    """What --dry-run shows.

    Args:
        left: tasks over captions and over clips that are to be done.
    """
    tasks = (
        f"{left[0]} of {number(len(plan.text_tasks), 'task')} over "
        f"{number(len(plan.captions), 'caption')} and {left[1]} of {len(plan.clip_tasks)} over clips "
        f"are to be done, by {workers}"
    )
    most = f", {size_text(need.at_most)} at most" if need.at_most > need.expected else ""
    room = f"room: {size_text(need.expected)} expected{most}; {size_text(free)} are free"
    return "\n".join([datasets_text(plan), "", *about_lines(plan), tasks, room])


def plan_summary(plan: Plan) -> str:
    """The sum of clips before anything is done."""
    clips, found = plan.manifest.table.num_rows, plan.media.found
    return (
        f"{number(clips, 'clip')} = {found:,} found + {clips - found:,} missing; {files_sentence(plan)}"
    )


def plan_json(plan: Plan, left: tuple[int, int], need: Need, free: int) -> dict[str, Any]:
    """The document of --dry-run --json."""
    return {
        **_shared_json(plan),
        "tasks": {
            "text": {"all": len(plan.text_tasks), "left": left[0]},
            "clips": {"all": len(plan.clip_tasks), "left": left[1]},
        },
        "bytes": {**asdict(need), "free": free},
    }


def _shared_json(plan: Plan) -> dict[str, Any]:
    return {
        "manifest": plan.manifest.name,
        "certificate": plan.certificate,
        "about": plan.about,
        "datasets": {
            name: {"clips": clips, "found": found, "missing": clips - found}
            for name, (clips, found) in by_dataset(plan).items()
        },
        "files": {"media": plan.media.num_files, "unmatched": plan.media.unmatched},
        "captions": len(plan.captions),
    }


def extracted_text(plan: Plan, extracted: Extracted) -> str:
    """What was made, and who waited."""
    lines = [datasets_text(plan), "", *about_lines(plan)]
    counts = extracted.counts
    for what, found in (("flags", counts.flags), ("parts rejected", counts.parts_rejected)):
        if found:
            lines.append(f"{what}: " + ", ".join(f"{name} {n:,}" for name, n in sorted(found.items())))
    if counts.rejected or counts.parts_rejected:
        lines.append(f"why each was rejected: {index.REJECTS_FILE} in the folder, once it is sealed")
    effort = extracted.effort
    if effort.clips or effort.texts:
        rate = f"{effort.clips / extracted.elapsed_s:.2f} clips a second"
        lines.append(
            f"this run: {number(effort.clips, 'clip')} with a file and "
            f"{number(effort.texts, 'caption')} in {extracted.elapsed_s:.1f} s ({rate}) "
            f"by {number(extracted.workers, 'worker')}; {waits(effort)}"
        )
    if extracted.fingerprints is not None:
        lines.append(_fingerprints(extracted.fingerprints))
    if extracted.sealed is None:
        lines.append(f"{extracted.done} of {number(extracted.tasks, 'task')} are done")
    return "\n".join(lines)


def _fingerprints(arrived: Arrived) -> str:
    """What was made beside."""
    line = f"fingerprints of {number(arrived.clips, 'clip')} for `curate scan`"
    if arrived.waiting:
        line += (
            f"; those of {number(arrived.waiting, 'dataset')} wait, since another process works there: "
            "run the same command again"
        )
    return line


def summary(plan: Plan, extracted: Extracted) -> str:
    """One line whose numbers add up."""
    rows: Mapping[str, int] = extracted.counts.rows  # type: ignore[assignment]  # by kind
    total = sum(rows.values())
    line = (
        f"{plan.manifest.name}: {extracted.counts.sentence()}; {number(total, 'row')} = "
        f"{rows.get('av', 0):,} audio-video + {rows.get('audio', 0):,} audio"
    )
    if extracted.sealed is not None:
        sealed = extracted.sealed
        line += f"; {size_text(sealed.shard_bytes)} in {number(sealed.shards, 'shard')}"
    return f"{line}; {files_sentence(plan)}"


def extracted_json(plan: Plan, extracted: Extracted) -> dict[str, Any]:
    """The document of --json."""
    sealed = None if extracted.sealed is None else asdict(extracted.sealed)
    return {
        **_shared_json(plan),
        "counts": asdict(extracted.counts),
        "tasks": {"all": extracted.tasks, "done": extracted.done},
        "sealed": sealed,
        "fingerprints": None if extracted.fingerprints is None else asdict(extracted.fingerprints),
        "effort": {
            **asdict(extracted.effort),
            "elapsed_s": extracted.elapsed_s,
            "workers": extracted.workers,
        },
    }
