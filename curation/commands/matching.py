"""Commands on what is the same."""

import shlex
from pathlib import Path

import click

from curation import options
from curation.commands.catalog import bring
from curation.console import can_ask, finish


@click.command()
@options.tests
@options.train
@options.match
@options.margin
@click.option(
    "--format",
    "format_",
    type=click.Choice(("table", "markdown", "latex", "csv")),
    default="table",
    show_default=True,
    help="How the matrix is printed.",
)
@click.option(
    "--groups",
    "with_groups",
    is_flag=True,
    help="Also count shared uploaders, captions, and videos at other times.",
)
@options.yes
@click.option("--fail-on-overlap", is_flag=True, help="Exit 10 if a training set overlaps.")
@options.shared
def overlaps(
    tests: tuple[str, ...],
    train: tuple[str, ...] | None,
    match: str,
    margin_s: float,
    format_: str,
    with_groups: bool,
    yes: bool,
    fail_on_overlap: bool,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show how much of each test set lies in each training set, and write overlaps.parquet.

    Datasets that are named and not built are fetched, sizes and licences shown first.

    \b
    Example: curate overlaps --test vggsound,audiocaps
    """
    from curation.catalog.cards import load_cards
    from curation.catalog.record import stale_notes
    from curation.catalog.store import VIEWS_FILE, num_rows, refresh_views, work_connection
    from curation.commands.own import own_lists
    from curation.files import locked
    from curation.matching import overlap
    from curation.matching.comparison import check_rows, compare, not_built
    from curation.matching.groups import groups
    from curation.matching.matrix import matrix
    from curation.matching.matrix_text import groups_text, matrix_text, overlapping
    from curation.matching.near import near_notes
    from curation.progress import Progress

    own = own_lists((*tests, *(train or ())), manifests)
    known = load_cards(manifests, *cards)
    lacking = not_built(tests, train=train, manifests=manifests, cards=known)
    if lacking and (yes or can_ask()):
        bring(lacking, manifests, known, yes=yes)
    compare(tests, train=train, manifests=manifests, cards=known)  # nothing is made for a wrong name
    with (
        locked(manifests),
        work_connection(manifests) as db,
        Progress("overlaps") as progress,
    ):
        comparison = compare(tests, train=train, manifests=manifests, cards=known, margin_s=margin_s)
        progress.query(", ".join(tests), db)
        check_rows(db, comparison)
        overlap.find(db, comparison)
        tests_found = matrix(db, comparison)
        shared = groups(db, comparison, tests_found) if with_groups else {}
        outdated = near_notes(db, manifests)
        viewed = all((manifests / name).is_file() for name in (VIEWS_FILE, "overlaps.parquet"))
        rows = num_rows(db, overlap.write_evidence(db, comparison, tests_found))
        if not viewed:  # a tenth of a second, so only where there is no view of the evidence yet
            refresh_views(manifests)
    cells = (cell for test in tests_found.values() for cell in test["overlap"].values())
    by = f"{match} or content" if any(cell["near"] for cell in cells) else match
    trains = [selection.key for selection in comparison.trains]
    leaking, clean_pairs, unknown = overlapping(tests_found, trains, match)
    text, notes = matrix_text(tests_found, trains, match, format_)
    if with_groups:
        text += "\n\n" + groups_text(shared, format_)
    notes += stale_notes(manifests, comparison.datasets) + outdated
    digests = {test["list"]: test["digest"] for test in tests_found.values()}
    for one in reversed(own):
        notes = one.notes() + one.same_as(digests.get(one.name, ""), known) + notes
    if format_ != "table" and not as_json:
        click.echo("\n".join(notes), err=True)
    finish(
        {
            "command": "overlaps",
            "match": match,
            "margin_s": margin_s,
            "tests": tests_found,
            **({"groups": shared} if with_groups else {}),
            "own_lists": {one.key: one.as_json() for one in own},
        },
        as_json,
        text=text + ("\n" + "\n".join(notes) if notes and format_ == "table" else ""),
        summary=f"{len(tests_found)} test sets x {len(trains)} training sets = "
        f"{len(tests_found) * len(trains)} pairs of sets: {leaking} overlap by {by}, "
        f"{clean_pairs} do not, {unknown} cannot be told; {rows:,} evidence rows in overlaps.parquet",
        next_steps=(
            f"curate clean --test {shlex.quote(','.join(tests))}"
            + (f" --train {shlex.quote(','.join(train))}" if train else "")
            + " --name NAME",
        ),
        summary_to_stderr=format_ != "table",
        code=10 if fail_on_overlap and leaking else 0,
    )
