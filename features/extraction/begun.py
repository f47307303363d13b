"""What a folder of shards was begun with: `extract.json`, written first, and refused to be another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.errors import ConfigDiffers
from curation.files import disk_space, remove
from curation.tasks import part_folders, write_sealed
from features.extraction.plan import Plan
from features.store import index
from features.store.seal import PATIENCE_S, alone
from features.store.shard_file import FORMAT

_MOST_LINES = 6  # of differences in a message
Differing = Callable[[Mapping[str, Any]], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What shards are made from, and with which options."""

    document: dict[str, Any]  # what `extract.json` says, but for its digest
    source: str  # what they are made from, for people: "manifest"
    differing: Differing  # what a former document says otherwise of it, a line each


def of_plan(out: Path, plan: Plan) -> Origin:
    """Of an extraction."""
    document = {
        "format": FORMAT,
        "about": plan.about,
        "certificate": plan.certificate,
        "manifest": {"name": plan.manifest.name, "sha256": plan.manifest.digest},
        "tasks": {index.CLIPS: len(plan.clip_tasks)},
    }
    return Origin(document=document, source="manifest", differing=partial(_of_manifests, out, plan=plan))


def check(out: Path, origin: Origin) -> None:
    """Raise ConfigDiffers where a folder was begun with other options, or from something else."""
    if not (out / index.EXTRACT_FILE).is_file():
        return
    former = index.read_extract(out)
    was, wanted = _compared(former), _compared(origin.document)
    if was == wanted:
        return
    lines = _differing(was.get("about", {}), wanted["about"])
    what, other = ("options", "other") if lines else (origin.source, "another")
    lines = [*dict.fromkeys([*lines, *origin.differing(former)])]  # a duration is said twice
    raise ConfigDiffers(
        f"{out}: was begun with {other} {what} ({'; '.join(lines[:_MOST_LINES]) or 'format'}), expected "
        f"the same to continue — give the same {what} again, or another --out"
    )


def _compared(document: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same to continue: a manifest may be called otherwise, or lie elsewhere."""
    manifest = {"sha256": document.get("manifest", {}).get("sha256")}
    return {**document, "manifest": manifest, "digest": None}


def begin(out: Path, origin: Origin, *, changes: bool) -> None:
    """Say what is made in a folder; where tasks are to be done, it is sealed no more.

    Other machines may be at its tasks, whose files are theirs: no folder of a task is looked into.

    Raises:
        ConfigDiffers: it was begun with another configuration.
        Locked: another process seals it, for long.
    """
    with disk_space(out):
        out.mkdir(parents=True, exist_ok=True)
    with alone(out, option="--out", patience_s=PATIENCE_S):
        check(out, origin)
        if not (out / index.EXTRACT_FILE).is_file():
            write_sealed(out / index.EXTRACT_FILE, origin.document)
        if changes:
            with disk_space(out):
                remove(out / index.SHARDS_FILE)


def _differing(former: Mapping[str, Any], wanted: Mapping[str, Any], above: str = "") -> list[str]:
    """The keys in which two descriptions differ, with both values."""
    lines = []
    for key in sorted({*former, *wanted}):
        was, now = former.get(key), wanted.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            lines += _differing(was, now, f"{above}{key}.")
        elif was != now:
            place = above.removeprefix("preprocessing.")
            lines.append(f"{place}{key} was {_in_words(was)}, now {_in_words(now)}")
    return lines


def _in_words(value: Any) -> str:
    """A value of a description for people."""
    if value is None or value in ([], {}):
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return str(value)


def _of_clips(manifest: pa.Table, clips: pa.Table) -> pa.Table:
    """The rows of these clips; by their numbers, since Arrow joins no tables that have lists."""
    keys = manifest.select(index.CLIP_KEY).append_column("place", pa.array(np.arange(manifest.num_rows)))
    found = keys.join(clips, list(index.CLIP_KEY), join_type="left semi").column("place").to_numpy()
    return manifest.take(pa.array(np.sort(found)))


def _of_manifests(out: Path, former: Mapping[str, Any], plan: Plan) -> list[str]:
    """What the manifest says otherwise of the clips that are done, else that its bytes differ."""
    then, now = former.get("manifest", {}), plan.manifest
    if (then.get("sha256"), former.get("certificate")) == (now.digest, plan.certificate):
        return []
    folders = part_folders(out / index.CLIPS)
    rows = [index.ROWS.empty_table()]
    rejects = [index.REJECTS.empty_table()]
    rows += [index.read_table(folder / index.ROWS_FILE, index.ROWS) for folder in folders]
    rejects += [index.read_table(folder / index.REJECTS_FILE, index.REJECTS) for folder in folders]
    done, failed = pa.concat_tables(rows), pa.concat_tables(rejects)
    manifest = plan.manifest.table
    if len(folders) < former.get("tasks", {}).get(index.CLIPS, 0):  # some clips had no turn yet
        tried = pa.concat_tables([done.select(index.CLIP_KEY), failed.select(index.CLIP_KEY)]).group_by(
            list(index.CLIP_KEY)
        )
        manifest = _of_clips(manifest, tried.aggregate([]))
    lines = index.differences(done, failed, former.get("certificate"), manifest, plan.certificate)
    if not lines:
        lines = [
            f"{then.get('name')} {str(then.get('sha256'))[:12]}…, now {now.name} {now.digest[:12]}…"
        ]
    return lines
