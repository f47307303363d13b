"""The command that measures the detector on the user's own clips."""

import shlex
from pathlib import Path

import click

from curation import options
from curation.console import finish
from curation.options import CommaList


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("media"))
@click.option(
    "--clips",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="How many of the clips below FOLDER are used.",
)
@click.option(
    "--edits",
    type=CommaList(),
    metavar="NAMES",
    help="What is done to them, as mirror,crop10; without it all single edits, combinations and sound.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("selftest"),
    show_default=True,
    metavar="DIR",
    help="Where copies and fingerprints are kept; what is there is not made again.",
)
@options.workers
@click.option(
    "--format",
    "format_",
    type=click.Choice(("table", "markdown")),
    default="table",
    show_default=True,
    help="How the tables are printed.",
)
@options.shared
def selftest(
    folder: Path,
    clips: int,
    edits: tuple[str, ...] | None,
    out: Path,
    workers: int | None,
    format_: str,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Measure on the clips below FOLDER how well copies are found, and what is taken for one.

    Plants copies and near misses of your clips, scans them and looks for duplicates as `curate scan` and
    `curate duplicates` do, and prints what was found of each edit. Running it again continues.

    \b
    Example: curate selftest demo/metadata/media --clips 4 --edits mirror,crop10,crf35
    """
    from curation.tasks import one_thread

    one_thread()
    from curation.corpus.recall_text import as_json as document_of
    from curation.corpus.recall_text import summary, text
    from curation.corpus.selftest import choose, known_edits, run
    from curation.files import locked, outside
    from curation.progress import Progress

    outside(out, manifests, option="--out")
    wanted = known_edits(edits or ())
    chosen = choose(folder, clips)
    with locked(out), Progress("selftest") as progress:
        result = run(chosen, out, edits=wanted, workers=options.num_workers(workers), tell=progress.item)
    measured = result.measured
    lines = summary(measured)
    failed = len(result.unscanned) + len(result.unreadable)
    if failed:
        lines += f"; {failed:,} files cannot be read"
    shown = text(measured, format_)
    finish(
        {
            "command": "selftest",
            "clips": result.clips,
            "unreadable": result.unreadable,
            "versions": result.versions,
            "unscanned": result.unscanned,
            **document_of(measured),
            "text": shown,
        },
        as_json,
        text=shown,
        summary=lines,
        next_steps=(f"curate scan {shlex.quote(str(folder))}",),
        code=3 if failed else 0,
    )
