"""The command that looks whether shards are still what was sealed."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curation import options
from curation.console import finish
from features.installed import ComputingCommand

if TYPE_CHECKING:
    from features.store.verified import Verified


@click.command(cls=ComputingCommand)
@click.argument("out", metavar="[OUT]", type=click.Path(path_type=Path), default=Path("shards/44100"))
@click.option("--full", is_flag=True, help="Read every byte: sha256 of each file, crc32 of each row.")
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    metavar="M",
    help="Also compare certificate and captions with this manifest: exit 12 where they differ.",
)
@options.workers
@options.as_json
def verify(out: Path, full: bool, manifest: Path | None, workers: int | None, as_json: bool) -> None:
    """Compare the shards in OUT with what was sealed, and name whatever differs: exit 13.

    Without OUT, ./shards/44100. Nothing is changed or repaired.

    \b
    Example: features verify shards/44100 --full
    """
    from dataclasses import asdict

    from curation.progress import Progress
    from curation.tables import number, size_text
    from features.source import find_manifest, read_manifest
    from features.store.verify import compare_manifest
    from features.store.verify import verify as verify_folder

    now = None if manifest is None else read_manifest(find_manifest(manifest))
    with Progress("verify") as progress:
        found = verify_folder(out, full=full, workers=options.num_workers(workers), report=progress.item)
    differing = [] if now is None else compare_manifest(out, now)
    wrong = found.wrong_files
    count = number(len(found.problems), "problem")
    summary = (
        f"{number(found.files, 'file')} = {found.files - wrong:,} sound + {wrong:,} wrong"
        + (f" ({count})" if wrong else "")
        + f"; {number(found.rows, 'row')}, {number(found.texts, 'caption')}, "
        f"{size_text(found.read_bytes)} read" + _compared(manifest, differing)
    )
    finish(
        {
            "command": "verify",
            "folder": str(out),
            "full": full,
            "files": found.files,
            "wrong_files": wrong,
            "rows": found.rows,
            "captions": found.texts,
            "read_bytes": found.read_bytes,
            "problems": [asdict(problem) for problem in found.problems],
            "differences": differing,
        },
        as_json,
        text="\n".join([*map(str, found.problems), *(differing or ())]),
        summary=summary,
        next_steps=_next(out, full, found, bool(differing)),
        code=12 if differing else 13 if wrong else 0,
    )


def _compared(manifest: Path | None, differing: list[str] | None) -> str:
    from curation.tables import number

    if manifest is None:
        return ""
    if differing is None:
        return "; not compared with the manifest"
    return f"; {number(len(differing), 'difference')} from the manifest"


def _next(out: Path, full: bool, found: "Verified", differing: bool) -> tuple[str, ...]:
    from features.store.verified import remedy

    steps = remedy(out, found) if found.problems else ()
    if differing:
        steps = (*steps, "extract this manifest with another --out")
    if steps:
        return steps
    place = shlex.quote(str(out))
    again = () if full else (f"features verify {place} --full",)
    return (*again, f"features info {place}")
