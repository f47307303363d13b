"""The `curate` command: a group of the commands in `commands/`."""

import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from curation import __version__
from curation.commands import catalog, decision, duplicates, export, matching, scan, selftest
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
    *(catalog.corpus, catalog.datasets, catalog.fetch, catalog.build, catalog.card, catalog.sql),
    matching.overlaps,
    *(scan.scan, duplicates.duplicates, selftest.selftest),
    *(decision.clean, decision.blame, decision.verify, export.export, decision.revoke),
):
    curate.add_command(command)


def commands(group: click.Group = curate, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it: "overlaps", "card new"."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def main() -> NoReturn:
    """Run `curate` and end the process with its documented exit code."""
    sys.exit(run(curate, "curate"))
