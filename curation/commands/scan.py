"""The command that looks at the media."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curation import options
from curation.console import finish

if TYPE_CHECKING:
    from curation.tasks import Share


# what decides which clips are scanned, and how: the command that ends a scan in shares needs them too
_REPEATED = ("names", "list_file", "mode", "max_duration_s", "timeout_s")


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--dataset",
    "names",
    type=options.CommaList(),
    metavar="NAMES",
    help="Whose media lie in DIR; a new name makes DIR a dataset. Without it, the name of DIR.",
)
@click.option(
    "--list",
    "list_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The clips of DIR: CSV, TSV or Parquet with a column `file`, and what else is known.",
)
@click.option(
    "--hash",
    "mode",
    type=click.Choice(("fast", "reference")),
    default="fast",
    show_default=True,
    help="How frames are hashed; reference equals imagehash.phash.",
)
@options.max_duration
@options.timeout
@options.workers
@options.share
@options.engine
@options.address
@options.shared
def scan(
    folder: Path | None,
    names: tuple[str, ...] | None,
    list_file: Path | None,
    mode: str,
    max_duration_s: float,
    timeout_s: float,
    workers: int | None,
    share: "Share | None",
    engine: str,
    address: str | None,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Decode the media below DIR once and keep fingerprints; run again to continue.

    DIR becomes a dataset of its own, or with --dataset NAME holds the media of a built dataset, found by
    the file names in its card. Without DIR, ./media and all datasets with media there. Many machines
    that see the same files: --task i/n on each, or --engine ray.

    \b
    Example: curate scan clips
    """
    from curation.tasks import one_thread

    connection = options.connected(engine, address)
    one_thread()
    from curation.media.decoder import DecoderConfig
    from curation.media.run import scan_media
    from curation.media.scan_text import as_json_of, scanned_text, summary
    from curation.progress import Progress

    config = DecoderConfig(mode=mode, max_duration_s=max_duration_s, timeout_s=timeout_s)
    with connection as cluster, Progress("scan") as progress:
        found = scan_media(
            manifests,
            cards,
            folder,
            names,
            list_file,
            config,
            workers=cluster.room() if cluster and not workers else options.num_workers(workers),
            share=share,
            engine=cluster,
            progress=progress.item,
        )
    finish(
        {"command": "scan", **as_json_of(found)},
        as_json,
        text=scanned_text(found),
        summary=summary(found),
        next_steps=(("curate duplicates",) if found.sealed else ("run the other shares", _again())),
        code=3 if found.num_failed else 0,
    )


def _again() -> str:
    """This command without its share, with the options it was given; `finish` adds the folders."""
    context = click.get_current_context()
    words = ["curate", "scan"]
    if context.params["folder"] is not None:
        words.append(str(context.params["folder"]))
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
        if name in _REPEATED and given:
            value = context.params[name]
            words += [option.opts[0], ",".join(value) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)
