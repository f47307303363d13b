"""The command that shows and fetches published weights."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from curation import options
from curation.console import finish
from features import options as own
from features.installed import check_installed

if TYPE_CHECKING:
    from features.weights.fetch import Fetched

_WRONG = 13  # a file is not the one it should be
_FIRST_CODES = (15, _WRONG)  # of several errors, the one that a command ends in; else 1


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--fetch", is_flag=True, help="Fetch the files named, or those that extract reads.")
@click.option("--check", is_flag=True, help="Read every file that is there: digests, conversion.")
@click.option("--offline", is_flag=True, help="Do not touch the network; say what is missing.")
@own.weights
@options.yes
@options.as_json
def weights(
    names: tuple[str, ...],
    fetch: bool,
    check: bool,
    offline: bool,
    weights_folder: Path,
    yes: bool,
    as_json: bool,
) -> None:
    """Show which files of published weights are there, and fetch what is missing on request.

    NAME is a file, or vae-16k, vae-44k, synchformer, clip, vocoder-16k, vocoder-44k, empty-string,
    encoders (what extract reads), all. Files are looked for in DIR, in DIR/ext_weights and DIR/weights,
    in folders of these names beside DIR, and those of the hub in DIR/clip or under the model's name.
    What was fetched or checked is kept as safetensors in DIR/converted, which is what extract reads. A
    download that was cut off is continued by the same command.

    \b
    Example: features weights
    """
    from curation.progress import Progress
    from features.weights.fetch import survey
    from features.weights.table import ENCODERS, find_files
    from features.weights.text import as_json as told
    from features.weights.text import found_counts, found_summary, found_text

    if fetch or check:
        check_installed()
    files = find_files(names or (ENCODERS if fetch else ()))
    if fetch and not offline:
        results = _fetch(weights_folder, names, yes=yes)
        if not check or any(result.code for result in results):
            _say_fetched(weights_folder, names, results, as_json=as_json)

    with Progress("weights") as progress:
        found = survey(weights_folder, files, check=check or fetch, progress=progress.bytes)
    codes = [entry.code for entry in found]
    missing = tuple(e.file.name for e in found if e.state in ("missing", "begun"))
    wrong = {e.file.name: e.path for e in found if e.path is not None and e.code == _WRONG}
    if fetch and missing:
        codes.append(1)  # what was asked for is not there
    finish(
        {
            "command": "weights",
            "folder": str(weights_folder),
            "files": [told(entry) for entry in found],
            "counts": found_counts(found),
        },
        as_json,
        text=found_text(found),
        summary=found_summary(found),
        next_steps=_next(weights_folder, names, missing, wrong, others=_others(codes)),
        code=_code(codes) if check or fetch else 0,
    )


def _fetch(folder: Path, names: tuple[str, ...], *, yes: bool) -> "list[Fetched]":
    """Fetch what is missing, once somebody agreed."""
    from curation.console import agreed, can_ask
    from curation.errors import Locked, UsageProblem
    from curation.files import locked
    from curation.progress import Progress
    from curation.transport import Transport
    from features.weights.fetch import fetch, refuse_full_disk, survey
    from features.weights.table import ENCODERS, find_files
    from features.weights.text import found_text, plan_summary

    files = find_files(names or ENCODERS)
    found = survey(folder, files)
    refuse_full_disk(folder, found)
    if any(entry.state in ("missing", "begun") for entry in found):
        if not (yes or can_ask()):
            raise UsageProblem(
                "nobody can be asked here whether files shall be fetched over the network, expected "
                f"--yes — `features weights` shows them with sizes and licences ({plan_summary(found)})"
            )
        agreed(found_text(found), plan_summary(found), yes=yes)
    transport = Transport.for_users()
    transport.by_hand = "--weights"
    try:
        with locked(folder), Progress("weights") as progress:
            transport.waiting = progress.waiting
            return fetch(folder, files, transport, progress=progress.bytes)
    except Locked as error:
        raise Locked(
            f"{folder}: another process is fetching into this folder, expected to be the only one — "
            "wait until it ends and run the same command again, or use another --weights"
        ) from error


def _say_fetched(
    folder: Path, names: tuple[str, ...], results: "list[Fetched]", *, as_json: bool
) -> NoReturn:
    """End with what became of the files."""
    from features.weights.text import as_json as told
    from features.weights.text import fetched_counts, fetched_summary, fetched_text

    wrong = {
        r.file.name: r.path
        for r in results
        if r.code == _WRONG and r.path is not None and r.path.is_file()
    }
    failed = tuple(r.file.name for r in results if r.state == "failed" and r.file.name not in wrong)
    finish(
        {
            "command": "weights",
            "folder": str(folder),
            "files": [told(result) for result in results],
            "counts": fetched_counts(results),
        },
        as_json,
        text=fetched_text(results),
        summary=fetched_summary(results),
        next_steps=_next(folder, names, failed, wrong),
        code=_code([result.code for result in results]),
    )


def _next(
    folder: Path,
    names: tuple[str, ...],
    missing: tuple[str, ...],
    wrong: dict[str, Path],
    *,
    others: bool = False,
) -> tuple[str, ...]:
    """What comes next: remove what is wrong, and fetch that and what is missing of what was named."""
    from features.weights.table import ENCODERS

    place = f" --weights {shlex.quote(str(folder))}" if folder != Path("weights") else ""
    wanted = [*wrong, *(name for name in missing if names or name in ENCODERS)]
    remove = (f"rm {shlex.join(map(str, wrong.values()))}",) if wrong else ()
    if wanted:
        return (*remove, f"features weights --fetch {shlex.join(wanted)}{place}")
    if others:
        return ("do what the message says, and run the same command again",)
    return (f"features extract --sr 44100{place}",)


def _others(codes: list[int]) -> bool:
    """Whether something other than a wrong file is in the way, as a folder that cannot be written."""
    return any(code not in (0, _WRONG) for code in codes)


def _code(codes: list[int]) -> int:
    """The exit code of a command in which several files failed, by the order of the documented codes."""
    return next((code for code in _FIRST_CODES if code in codes), 1 if any(codes) else 0)
