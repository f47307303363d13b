"""The command that says what shards hold."""

import shlex
from pathlib import Path

import click

from curation import options
from curation.console import finish
from features.installed import ComputingCommand


@click.command(cls=ComputingCommand)
@click.argument("out", metavar="[OUT]", type=click.Path(path_type=Path), default=Path("shards/44100"))
@options.as_json
def info(out: Path, as_json: bool) -> None:
    """Say what the sealed shards in OUT hold, how they were made and under which certificate.

    Without OUT, ./shards/44100.

    \b
    Example: features info shards/44100
    """
    from features.store.inventory import inventory, inventory_summary, inventory_text

    found = inventory(out)
    finish(
        {"command": "info", **found},
        as_json,
        text=inventory_text(found),
        summary=inventory_summary(found),
        next_steps=(f"features verify {shlex.quote(str(out))}",),
    )
