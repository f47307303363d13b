"""The options that several commands of `curate` have, each with one meaning everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


class CommaList(click.ParamType[tuple[str, ...]]):
    """`a,b,c` as a tuple of names without blanks."""

    name = "list"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = value if isinstance(value, tuple) else value.split(",")
        names = tuple(name.strip() for name in names if name.strip())
        if not names:
            self.fail("is empty, expected names separated by commas", param, ctx)
        return names


class Seconds(click.FloatRange):
    """A length of time that is a number: FloatRange lets NaN through."""

    def __init__(self) -> None:
        super().__init__(min=0, max=1e6)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail(f"{value!r}, expected a number of seconds", param, ctx)
        return seconds


def shared(command: _Command) -> _Command:
    """The options that every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
        click.option(
            "--cards",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            metavar="DIR",
            multiple=True,
            help="Also read dataset cards from DIR; build keeps a copy beside what it makes.",
        ),
        click.option(
            "--manifests",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("manifests"),
            show_default=True,
            metavar="DIR",
            help="Where built manifests lie.",
        ),
    ):
        command = option(command)
    return command


tests = click.option(
    "--test",
    "tests",
    type=CommaList(),
    default="vggsound,audiocaps",
    show_default=True,
    metavar="NAMES",
    help="Test sets: a dataset, dataset@list, dataset/split, or a file as my.csv.",
)
train = click.option(
    "--train",
    type=CommaList(),
    metavar="NAMES",
    help="Training sets, named alike; without it the train splits of all that is built.",
)
match = click.option(
    "--match",
    type=click.Choice(("id", "interval", "start")),
    default="id",
    show_default=True,
    help="What makes an overlap: the recording, shared time, or the same start.",
)
match_content = click.option(
    "--match-content",
    type=click.Choice(("auto", "review", "none")),
    default="auto",
    show_default=True,
    help="Near-duplicates that are dropped: the sure ones, also those to be looked at, or none.",
)
margin = click.option(
    "--margin",
    "margin_s",
    type=Seconds(),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Count intervals that lie closer than this as shared time.",
)
replace = click.option(
    "--replace", is_flag=True, help="Make it anew though there is another of its name."
)
yes = click.option("--yes", is_flag=True, help="Fetch without asking.")
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
