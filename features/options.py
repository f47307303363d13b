"""The options that several commands of `features` have, each with one meaning everywhere."""

from collections.abc import Callable
from pathlib import Path

import click

from curation.options import Command, Seconds

weights = click.option(
    "--weights",
    "weights_folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("weights"),
    show_default=True,
    metavar="DIR",
    help="Where the files lie, or a checkout of MMAudio.",
)


def duration(what: str) -> Callable[[Command], Command]:
    """`--duration`, of whatever a row of shards is made from."""
    return click.option(
        "--duration",
        "duration_s",
        type=Seconds(0.64, 3600),  # as spec.SequenceSpec has it
        default=8.0,
        show_default=True,
        metavar="SECONDS",
        help=what,
    )


def shard_rows(what: str) -> Callable[[Command], Command]:
    """`--shard-rows`, and what else is cut by it."""
    return click.option(
        "--shard-rows",
        type=click.IntRange(1, 1_000_000),
        default=2048,
        show_default=True,
        metavar="N",
        help=what,
    )
