"""The `curate` command: a group of the commands in `commands/`."""

import sys
from typing import NoReturn

import click

from curation import __version__
from curation.commands import catalog, decision, export, matching
from curation.console import run


@click.group(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="curate")
def curate() -> None:
    """Decide which clips may be trained on.

    \b
    Try it offline:
      curate corpus demo/metadata
      curate fetch --from demo/metadata && curate build
      curate overlaps --test vggsound,audiocaps
    """


for command in (
    *(catalog.corpus, catalog.datasets, catalog.fetch, catalog.build, catalog.sql),
    matching.overlaps,
    *(decision.clean, decision.blame, decision.verify, export.export),
):
    curate.add_command(command)


def main() -> NoReturn:
    """Run `curate` and end the process with its documented exit code."""
    sys.exit(run(curate, "curate"))
