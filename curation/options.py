"""The options that several commands of `curate` have, each with one meaning everywhere."""

import os
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from curation.ray_engine import Engine
    from curation.tasks import Share

Command = TypeVar("Command", bound=Callable[..., Any])


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

    def __init__(self, least_s: float = 0, most_s: float = 1e6) -> None:
        super().__init__(min=least_s, max=most_s)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail(f"{value!r}, expected a number of seconds", param, ctx)
        return seconds


class TaskShare(click.ParamType["Share"]):
    """`i/n`: the tasks that one of n processes does."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Share":
        from curation.tasks import Share

        if isinstance(value, Share):
            return value
        index, mark, count = str(value).partition("/")
        numbers = mark and index.isdecimal() and count.isdecimal()
        if not numbers or not int(index) < int(count) <= 1_000_000:
            self.fail(f"{value!r}, expected i/n with i from 0 to n - 1, as 0/8", param, ctx)
        return Share(index=int(index), count=int(count))


def given(**lists: tuple[str, ...] | None) -> str:
    """Options that are comma lists, as they were given, for the command that comes next."""
    words = (f" --{name} {shlex.quote(','.join(names))}" for name, names in lists.items() if names)
    return "".join(words)


def num_workers(asked: int | None) -> int:
    """How many work at a time: as many as were asked for, else one for each core of this process."""
    return asked or len(os.sched_getaffinity(0))


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


def shared(command: Command) -> Command:
    """The options that every command has."""
    for option in (
        as_json,
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
workers = click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="How many work at a time; without it one a core.",
)
max_duration = click.option(
    "--max-duration",
    "max_duration_s",
    type=Seconds(least_s=0.001),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Longer clips fail as too_long.",
)
timeout = click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(least_s=0.001),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="For one clip; then its decoder is killed.",
)
share = click.option(
    "--task", "share", type=TaskShare(), metavar="i/n", help="Only this share, for schedulers of jobs."
)
engine = click.option(
    "--engine",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="Who works: processes of this machine, or actors of a Ray cluster that shares its files.",
)
address = click.option(
    "--address", metavar="HOST:PORT", help="Of the head of the Ray cluster; without it this machine's."
)


def connected(engine: str, address: str | None) -> AbstractContextManager["Engine | None"]:
    """The cluster that works, connected to on entering; None where processes of this machine do.

    Raises:
        UsageProblem: there is the address of a cluster that nobody works on; at once.
    """
    if engine == "ray":
        from curation.ray_engine import cluster

        return cluster(address)
    if address is not None:
        from curation.errors import UsageProblem

        raise UsageProblem(
            f"--address {address} with --engine {engine}: expected it with --engine ray — add that, or "
            "leave --address out"
        )
    return nullcontext()


yes = click.option("--yes", is_flag=True, help="Fetch without asking.")
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
