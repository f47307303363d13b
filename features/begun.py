"""What a folder of shards was begun with: `extract.json`, written first, and refused to be another."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from curation.errors import ConfigDiffers, Locked
from curation.files import digest_of, disk_space, locked, remove
from curation.tasks import part_folders, write_sealed
from features import index
from features.plan import Plan
from features.shard_file import FORMAT

_PATIENCE_S = 120.0  # for other processes that begin or seal the same
_LOOKS_S = 0.2
_MOST_LINES = 6  # of differences in a message
_CLIP = ("dataset", "clip_id")


def document_of(plan: Plan) -> dict[str, Any]:
    """What `extract.json` says, but for its digest."""
    return {
        "format": FORMAT,
        "about": plan.about,
        "certificate": plan.certificate,
        "manifest": {"name": plan.manifest.name, "sha256": plan.manifest.digest},
        "tasks": {index.CLIPS: len(plan.clip_tasks)},
    }


def check(out: Path, plan: Plan) -> None:
    """Raise ConfigDiffers where a folder was begun with other options, or with another manifest."""
    if not (out / index.EXTRACT_FILE).is_file():
        return
    former, wanted = index.read_extract(out), document_of(plan)
    if former["digest"] == digest_of(wanted):
        return
    lines = _differing(former.get("about", {}), wanted["about"])
    options = bool(lines)
    if former.get("manifest") != wanted["manifest"] or former.get("certificate") != plan.certificate:
        lines += _of_manifests(out, former, plan)
    raise ConfigDiffers(
        f"{out}: was begun with {'other options' if options else 'another manifest'} "
        f"({'; '.join(lines[:_MOST_LINES]) or 'format'}), expected the same to continue — give "
        f"{'those options' if options else 'that manifest'} again, or another --out"
    )


def begin(out: Path, plan: Plan, *, changes: bool) -> None:
    """Say what is made in a folder; where tasks are to be done, it is sealed no more."""
    with _patiently(out):
        check(out, plan)
        if not (out / index.EXTRACT_FILE).is_file():
            write_sealed(out / index.EXTRACT_FILE, document_of(plan))
        if changes:
            with disk_space(out):
                remove(out / index.SHARDS_FILE)


@contextlib.contextmanager
def _patiently(out: Path) -> Iterator[None]:
    """The lock of the folder: processes that share its tasks begin at the same time, and wait."""
    until_s = time.monotonic() + _PATIENCE_S
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(out))
                break
            except Locked:
                if time.monotonic() > until_s:
                    raise
            time.sleep(_LOOKS_S)
        yield


def _differing(former: Mapping[str, Any], wanted: Mapping[str, Any], above: str = "") -> list[str]:
    """The keys in which two descriptions differ, with both values."""
    lines = []
    for key in sorted({*former, *wanted}):
        was, now = former.get(key), wanted.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            lines += _differing(was, now, f"{above}{key}.")
        elif was != now:
            lines.append(f"{above}{key} was {was}, now {now}")
    return lines


def _of_manifests(out: Path, former: Mapping[str, Any], plan: Plan) -> list[str]:
    """What the manifest says otherwise of the clips that are done, else that its bytes differ."""
    import pyarrow as pa

    folders = part_folders(out / index.CLIPS)
    rows = [index.ROWS.empty_table()]
    rejects = [index.REJECTS.empty_table()]
    rows += [index.read_table(folder / index.ROWS_FILE, index.ROWS) for folder in folders]
    rejects += [index.read_table(folder / index.REJECTS_FILE, index.REJECTS) for folder in folders]
    done, failed = pa.concat_tables(rows), pa.concat_tables(rejects)
    manifest = plan.manifest.table
    if len(folders) < former.get("tasks", {}).get(index.CLIPS, 0):  # some clips had no turn yet
        tried = pa.concat_tables([done.select(_CLIP), failed.select(_CLIP)]).group_by(list(_CLIP))
        manifest = manifest.join(tried.aggregate([]), list(_CLIP), join_type="left semi")
    lines = index.differences(done, failed, former.get("certificate"), manifest, plan.certificate)
    then, now = former.get("manifest", {}), plan.manifest
    if not lines:
        lines = [
            f"{then.get('name')} {str(then.get('sha256'))[:12]}…, now {now.name} {now.digest[:12]}…"
        ]
    return lines
