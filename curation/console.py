"""How a command talks: stdout is data, stderr is talk, and every end has its documented exit code."""

import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from curation.errors import FoleyproofError, UsageProblem

_LINES_AT_ONCE = 1_000
_AGAIN_S = 0.5  # after which a signal that had no effect is raised again


def finish(
    document: dict[str, Any],
    as_json: bool,
    *,
    text: str,
    summary: str,
    next_steps: tuple[str, ...],
    summary_to_stderr: bool = False,
    code: int = 0,
) -> NoReturn:
    """Print the data, the summary line and the next step; end with the exit code.

    Args:
        document: what --json prints, together with the summary.
        next_steps: commands, which get the folders this one was given, or words.
    """
    if as_json:
        text = json.dumps({**document, "summary": summary}, ensure_ascii=False, indent=1)
    _say(text)
    _say(summary, err=as_json or summary_to_stderr)
    context = click.get_current_context()
    steps = [step + _places(context) if step.startswith("curate") else step for step in next_steps]
    _say(f"next: {'; '.join(steps)}", err=True)
    context.exit(code)


def stream(lines: Iterable[str]) -> bool:
    """Print data as it comes; whether somebody read all of it, as in `curate … | head` nobody does."""
    from curation.files import disk_space

    def write(text: str) -> None:
        with disk_space(Path("standard output")):
            sys.stdout.write(text)
            sys.stdout.flush()

    held: list[str] = []
    try:
        for line in lines:
            held.append(line + "\n")
            if len(held) >= _LINES_AT_ONCE:
                write("".join(held))
                held.clear()
        write("".join(held))
    except BrokenPipeError:
        _give_up(sys.stdout)
        return False
    return True


def agreed(text: str, summary: str, *, yes: bool) -> None:
    """Say what will be fetched, and ask whether it shall be.

    Raises:
        click.Abort: the answer was no.
    """
    _say(text, err=True)
    _say(summary, err=True)
    if not yes:
        click.confirm("Fetch it?", abort=True, err=True)


def can_ask() -> bool:
    """Whether somebody sits before a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def can_agree(*, yes: bool) -> None:
    """Raise UsageProblem where nobody has agreed to a download, and nobody can be asked."""
    if not yes and not can_ask():
        raise UsageProblem(
            "nobody can be asked here whether files shall be fetched over the network, expected --yes "
            "(--dry-run shows them with sizes and licences) — or --from DIR, a folder that has them"
        )


def _places(context: click.Context) -> str:
    """`--manifests` and `--cards` as they were given, for the command that comes next."""
    words: list[str] = []
    for name, option in (("manifests", "--manifests"), ("cards", "--cards")):
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            value = context.params[name]
            for folder in value if isinstance(value, tuple) else (value,):
                words += [option, str(folder)]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _say(text: str, *, err: bool = False) -> None:
    """Print; a reader who left, as in `curate … | head`, changes neither what was done nor its code."""
    if not text:
        return
    from curation.files import disk_space

    try:
        with disk_space(Path("standard error" if err else "standard output")):
            click.echo(text, err=err)
    except BrokenPipeError:
        _give_up(sys.stderr if err else sys.stdout)


def _give_up(stream: Any) -> None:
    """Let what is still buffered for a stream go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # None, closed, or no real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, and again after a moment: C code, as of an import, may swallow it."""
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    on_its_way = sys.exc_info()[0] is not None
    if number != signal.SIGALRM or not on_its_way:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM end the block with KeyboardInterrupt."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    former = {number: signal.signal(number, _interrupt) for number in signals}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in former.items():
            signal.signal(number, handler)


def run(command: click.Command, name: str) -> int:
    """Run a click command; the exit code, with one message for each error a user can meet."""
    try:
        with _interruptible():
            result = command.main(prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say(f"{name}: interrupted; run the same command again to continue", err=True)
        return 130
    except click.ClickException as error:
        with contextlib.suppress(BrokenPipeError):
            error.show()
        return error.exit_code
    except FoleyproofError as error:
        if error.exit_code == 14:
            _give_up(sys.stdout)
        _say(f"{name}: {error}", err=True)
        return error.exit_code
    except SystemExit:  # click's answer to a reader who left, here of a help page
        _give_up(sys.stdout)
        return 0
