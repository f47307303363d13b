"""The command that shows and fetches published weights."""

import shlex
from pathlib import Path

import click

from curation import options
from curation.console import finish

_FIRST_CODES = (15, 13)  # of several errors, the one that a command ends in; else 1


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--fetch", is_flag=True, help="Fetch the files named, or those that extract reads.")
@click.option("--check", is_flag=True, help="Read every file that is there: digests, conversion.")
@click.option("--offline", is_flag=True, help="Do not touch the network; say what is missing.")
@click.option(
    "--weights",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("weights"),
    show_default=True,
    metavar="DIR",
    help="Where the files lie, or a checkout of MMAudio.",
)
@options.yes
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def weights(
    names: tuple[str, ...],
    fetch: bool,
    check: bool,
    offline: bool,
    folder: Path,
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
    from features.weight_fetch import survey
    from features.weight_table import ENCODERS, find_files
    from features.weight_text import as_json as told
    from features.weight_text import found_counts, found_summary, found_text

    files = find_files(names or (ENCODERS if fetch else ()))
    if fetch and not offline:
        _fetch(folder, names, yes=yes, as_json=as_json)
    from curation.progress import Progress

    with Progress("weights") as progress:
        found = survey(folder, files, check=check, progress=progress.bytes)
    missing = tuple(e.file.name for e in found if e.state in ("missing", "begun"))
    finish(
        {
            "command": "weights",
            "folder": str(folder),
            "files": [told(entry) for entry in found],
            "counts": found_counts(found),
        },
        as_json,
        text=found_text(found),
        summary=found_summary(found),
        next_steps=(_next(folder, names, missing),),
        code=_code([entry.code for entry in found]) if check else 0,
    )


def _fetch(folder: Path, names: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    from curation.console import agreed, can_ask
    from curation.errors import Locked, UsageProblem
    from curation.files import locked
    from curation.progress import Progress
    from curation.transport import Transport
    from features.weight_fetch import fetch, refuse_full_disk, survey
    from features.weight_table import ENCODERS, find_files
    from features.weight_text import as_json as told
    from features.weight_text import (
        fetched_counts,
        fetched_summary,
        fetched_text,
        found_text,
        plan_summary,
    )

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
    try:
        with locked(folder), Progress("weights") as progress:
            transport.waiting = progress.waiting
            results = fetch(folder, files, transport, progress=progress.bytes)
    except Locked as error:
        raise Locked(
            f"{folder}: another process is fetching into this folder, expected to be the only one — "
            "wait until it ends and run the same command again, or use another --weights"
        ) from error
    failed = tuple(result.file.name for result in results if result.state == "failed")
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
        next_steps=(_next(folder, names, failed),),
        code=_code([result.code for result in results]),
    )


def _next(folder: Path, names: tuple[str, ...], missing: tuple[str, ...]) -> str:
    """The command that comes next: fetch what is missing of what was named or extract needs."""
    from features.weight_table import ENCODERS

    place = f" --weights {shlex.quote(str(folder))}" if folder != Path("weights") else ""
    wanted = [name for name in missing if names or name in ENCODERS]
    if wanted:
        return f"features weights --fetch {shlex.join(wanted)}{place}"
    return f"features extract --sr 44100{place}"


def _code(codes: list[int]) -> int:
    """The exit code of a command in which several files failed, by the order of the documented codes."""
    return next((code for code in _FIRST_CODES if code in codes), 1 if any(codes) else 0)
