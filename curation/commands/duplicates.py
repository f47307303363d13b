"""The command that compares the media."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curation import options
from curation.console import finish

if TYPE_CHECKING:
    from curation.tasks import Share


@click.command()
@click.option(
    "--test",
    "tests",
    type=options.CommaList(),
    metavar="NAMES",
    help="Pairs that touch an item of these test sets; without it all pairs of what was scanned.",
)
@click.option(
    "--train",
    type=options.CommaList(),
    metavar="NAMES",
    help="Only in these sets; without it in everything that was scanned.",
)
@options.workers
@options.share
@options.shared
def duplicates(
    tests: tuple[str, ...] | None,
    train: tuple[str, ...] | None,
    workers: int | None,
    share: "Share | None",
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Find the same picture or sound under another id, and write duplicates.parquet.

    Needs fingerprints: curate scan. Run again to continue.

    \b
    Example: curate duplicates --test vggsound,audiocaps
    """
    from curation.tasks import ALL, one_thread

    one_thread()
    from curation.catalog.cards import load_cards
    from curation.catalog.store import refresh_views
    from curation.commands.own import own_lists
    from curation.decision.certificate import outdated
    from curation.files import locked
    from curation.matching.compare_media import as_json as json_of
    from curation.matching.compare_media import compared, find_duplicates
    from curation.matching.duplicates_text import duplicates_text, summary
    from curation.progress import Progress

    own = own_lists((*(tests or ()), *(train or ())), manifests)
    known = load_cards(manifests, *cards)
    chosen = compared(tests or (), train, manifests=manifests, cards=known)
    with Progress("duplicates") as progress:
        found = find_duplicates(
            chosen,
            workers=options.num_workers(workers),
            share=share or ALL,
            progress=progress.item,
        )
    if found.sealed:
        with locked(manifests):
            refresh_views(manifests)
    notes = [note for one in own for note in one.notes()]
    notes += outdated(manifests) if found.sealed else []
    finish(
        {"command": "duplicates", **json_of(found)},
        as_json,
        text="\n".join([*notes, duplicates_text(found)]),
        summary=summary(found),
        next_steps=(
            f"curate clean --test {shlex.quote(','.join(tests or ('NAMES',)))} --name NAME"
            if found.sealed
            else f"the other shares, then: curate duplicates{options.given(test=tests, train=train)}",
        ),
        code=3 if found.unknown.clips else 0,
    )
