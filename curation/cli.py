"""The `curate` command: what each of its commands takes, calls and prints."""

import shlex
import sys
from pathlib import Path
from typing import NoReturn

import click

from curation import __version__, options
from curation.console import finish, run


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


@curate.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def corpus(folder: Path, as_json: bool) -> None:
    """Write the small offline corpus into FOLDER: every dataset in miniature, overlaps planted.

    \b
    Example: curate corpus demo/metadata
    """
    from curation.corpus.synthetic import write_corpus

    planted = write_corpus(folder)
    finish(
        {"command": "corpus", "folder": str(folder), "files": planted.num_files},
        as_json,
        text="",
        summary=f"{planted.num_files} metadata files of {planted.num_datasets} datasets in {folder}",
        next_steps=(f"curate fetch --from {shlex.quote(str(folder))}",),
    )


@curate.command()
@options.shared
def datasets(manifests: Path, cards: tuple[Path, ...], as_json: bool) -> None:
    """List the dataset cards and the named lists, with licences, digests and what is built.

    \b
    Example: curate datasets
    """
    from curation.catalog.cards import load_cards
    from curation.catalog.catalog_text import datasets_text
    from curation.catalog.overview import overview

    document = overview(load_cards(manifests, *cards), manifests)
    known = len(document["datasets"])
    built = sum(d["state"].startswith("built") for d in document["datasets"])
    finish(
        {"command": "datasets", **document},
        as_json,
        text=datasets_text(document),
        summary=f"{known} datasets: {built} built, {known - built} not; {len(document['lists'])} lists",
        next_steps=("curate overlaps" if built else "curate fetch --from DIR",),
    )


@curate.command()
@click.argument("names", metavar="[DATASET]...", nargs=-1)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Take files from DIR/<dataset>/<path in the card>, with or without .gz.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched, and how large it is.")
@click.option("--yes", is_flag=True, help="Fetch without asking.")
@click.option("--offline", is_flag=True, help="Do not touch the network; say what is at hand.")
@options.shared
def fetch(
    names: tuple[str, ...],
    source: Path | None,
    dry_run: bool,
    yes: bool,
    offline: bool,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Bring metadata files into the manifests folder; run again to continue.

    \b
    Example: curate fetch --from demo/metadata
    """
    from dataclasses import asdict

    from curation.catalog.cards import find_cards, load_cards
    from curation.catalog.catalog_text import fetched_text, plan_summary, plan_text
    from curation.catalog.fetch import FROM_STATES, NETWORK_STATES, UNRECOGNISED, fetch_from, plan
    from curation.catalog.fetch import fetch as fetch_from_network
    from curation.console import agreed, can_agree
    from curation.files import locked
    from curation.progress import Progress
    from curation.tables import number
    from curation.transport import Transport

    chosen = find_cards(load_cards(manifests, *cards), names)
    if source is not None:
        with locked(manifests), Progress("fetch") as progress:
            results = fetch_from(source, chosen, manifests, progress=progress.item)
    else:
        transport = Transport.for_users()
        if not (dry_run or offline):
            can_agree(yes=yes)
        with Progress("fetch") as progress:
            planned = plan(chosen, manifests, None if offline else transport, progress=progress.item)
        wanted = [entry for entry in planned if entry.state == "to fetch"]
        if dry_run or offline or not wanted:
            finish(
                {"command": "fetch", "plan": [asdict(entry) for entry in planned]},
                as_json,
                text=plan_text(planned),
                summary=plan_summary(planned),
                next_steps=("curate fetch --yes" if wanted else "curate build",),
            )
        agreed(plan_text(planned), plan_summary(planned), yes=yes)
        with locked(manifests), Progress("fetch") as progress:
            results = fetch_from_network(chosen, manifests, transport, progress=progress.bytes)
    states = FROM_STATES if source else NETWORK_STATES
    count = {state: sum(r.state == state for r in results) for state in states}
    unknown = sum(r.copy == UNRECOGNISED for r in results)
    parts = [f"{count[state]} {state}" for state in states]
    parts[0] += f" ({unknown} unrecognised copies)"
    finish(
        {"command": "fetch", "files": [asdict(r) for r in results], "counts": count},
        as_json,
        text=fetched_text(results, source, manifests),
        summary=f"{number(len(results), 'file')} = {' + '.join(parts)}",
        next_steps=("curate build" if count["fetched"] or not source else "curate fetch --from DIR",),
        code=15 if any(r.refused for r in results) else 1 if count["failed"] else 0,
    )


@curate.command()
@click.argument("names", metavar="[DATASET]...", nargs=-1)
@options.shared
def build(names: tuple[str, ...], manifests: Path, cards: tuple[Path, ...], as_json: bool) -> None:
    """Make a manifest of every dataset whose metadata is at hand; run again to continue.

    \b
    Example: curate build
    """
    from curation.catalog.build import build as build_manifests
    from curation.catalog.cards import find_cards, load_cards
    from curation.catalog.catalog_text import built_text
    from curation.catalog.store import refresh_views
    from curation.catalog.twins import find_twins
    from curation.files import locked
    from curation.progress import Progress
    from curation.verdict import Tally

    known = load_cards(manifests, *cards)
    chosen = find_cards(known, names)
    with locked(manifests), Progress("build") as progress:
        results = build_manifests(chosen, manifests, progress=progress.query)
        progress.item("doubtful ids")
        twins = find_twins(manifests, known)
        faults = refresh_views(manifests)
    made = [r for r in results if r.state in ("built", "up to date")]
    total = Tally()
    for result in made:
        total.add(result.tally)
    failed = sum(r.state == "failed" for r in results)
    missing = sum(r.state == "missing" for r in results)
    finish(
        {
            "command": "build",
            "datasets": [r.as_json() for r in results],
            "doubtful_ids": twins.counts,
        },
        as_json,
        text=built_text(results, twins, faults),
        summary=f"{len(results)} datasets = {len(made)} built + {missing} without files + "
        f"{failed} failed; {total.sentence()}",
        next_steps=("curate overlaps" if made else "curate fetch --from DIR",),
        code=1 if failed or (names and missing) else 0,
    )


@curate.command()
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
@click.option("--fail-on-overlap", is_flag=True, help="Exit 10 if a training set overlaps.")
@options.shared
def overlaps(
    tests: tuple[str, ...],
    train: tuple[str, ...] | None,
    match: str,
    margin_s: float,
    format_: str,
    fail_on_overlap: bool,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show how much of each test set lies in each training set, and write overlaps.parquet.

    \b
    Example: curate overlaps --test vggsound,audiocaps
    """
    from curation.catalog.cards import load_cards
    from curation.catalog.record import stale_notes
    from curation.catalog.store import VIEWS_FILE, num_rows, refresh_views, work_connection
    from curation.files import locked
    from curation.matching import overlap
    from curation.matching.comparison import check_rows, compare
    from curation.matching.matrix import matrix
    from curation.matching.matrix_text import matrix_text, overlapping
    from curation.progress import Progress

    known = load_cards(manifests, *cards)
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
        viewed = all((manifests / name).is_file() for name in (VIEWS_FILE, "overlaps.parquet"))
        rows = num_rows(db, overlap.write_evidence(db, comparison, tests_found))
        if not viewed:  # a tenth of a second, so only where there is no view of the evidence yet
            refresh_views(manifests)
    trains = [selection.key for selection in comparison.trains]
    leaking, clean_pairs, unknown = overlapping(tests_found, trains, match)
    text, notes = matrix_text(tests_found, trains, match, format_)
    notes += stale_notes(manifests, comparison.datasets)
    if format_ != "table" and not as_json:
        click.echo("\n".join(notes), err=True)
    finish(
        {"command": "overlaps", "match": match, "margin_s": margin_s, "tests": tests_found},
        as_json,
        text=text + ("\n" + "\n".join(notes) if notes and format_ == "table" else ""),
        summary=f"{len(tests_found)} test sets x {len(trains)} training sets = "
        f"{len(tests_found) * len(trains)} pairs of sets: {leaking} overlap by {match}, "
        f"{clean_pairs} do not, {unknown} cannot be told; {rows:,} evidence rows in overlaps.parquet",
        next_steps=(
            f"curate clean --test {shlex.quote(','.join(tests))}"
            + (f" --train {shlex.quote(','.join(train))}" if train else "")
            + " --name NAME",
        ),
        summary_to_stderr=format_ != "table",
        code=10 if fail_on_overlap and leaking else 0,
    )


@curate.command()
@options.tests
@options.train
@click.option(
    "--policy",
    type=click.Choice(("prefer-test", "prefer-train", "drop-both", "report")),
    default="prefer-test",
    show_default=True,
    help="Which side of an overlap is dropped.",
)
@options.match
@options.margin
@click.option("--use-published", is_flag=True, help="Also drop what published lists exclude.")
@click.option("--name", default="default", show_default=True, help="The manifest is clean/NAME.")
@click.option("--replace", is_flag=True, help="Make NAME anew though its options were others.")
@options.shared
def clean(
    tests: tuple[str, ...],
    train: tuple[str, ...] | None,
    policy: str,
    match: str,
    margin_s: float,
    use_published: bool,
    name: str,
    replace: bool,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write what may be trained on: kept rows, excluded rows with reasons, and a certificate.

    \b
    Example: curate clean --test vggsound,audiocaps,clotho --name paper
    """
    from curation.catalog.cards import load_cards
    from curation.catalog.record import stale_notes
    from curation.catalog.store import built_datasets, refresh_views
    from curation.decision.clean import clean as make_clean
    from curation.decision.decision_text import clean_text
    from curation.decision.policy import CleanConfig, Policy
    from curation.files import locked
    from curation.matching.comparison import compare
    from curation.progress import Progress

    config = CleanConfig(
        tests=tests,
        train=train,
        policy=Policy(policy),
        match=match,
        margin_s=margin_s,
        use_published=use_published,
    )
    known = load_cards(manifests, *cards)
    compare(tests, train=train, manifests=manifests, cards=known)  # nothing is made for a wrong name
    with locked(manifests), Progress("clean") as progress:
        cleaned = make_clean(
            config,
            name=name,
            manifests=manifests,
            cards=known,
            replace=replace,
            progress=progress.query,
        )
        refresh_views(manifests)
    finish(
        {"command": "clean", "folder": str(cleaned.folder), "certificate": cleaned.document},
        as_json,
        text="\n".join([*stale_notes(manifests, built_datasets(manifests)), clean_text(cleaned)]),
        summary=f"clean/{name}: {cleaned.tally.sentence()}; {cleaned.held_out:,} held out, "
        f"{cleaned.not_chosen:,} not chosen",
        next_steps=("curate verify", "curate blame CLIP"),
    )


# An id may begin with `-`, and with `-h`.
@curate.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("clip", required=False, type=click.UNPROCESSED)
@click.option("--test-item", metavar="CLIP", help="Ask from the other side: what overlaps this item.")
@click.option("--name", metavar="NAME", help="The clean manifest to ask; without it the newest.")
@click.option(
    "--test",
    "tests",
    type=options.CommaList(),
    metavar="NAMES",
    help="Hold it against these test sets instead of asking a clean manifest.",
)
@options.shared
def blame(
    clip: str | None,
    test_item: str | None,
    name: str | None,
    tests: tuple[str, ...] | None,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Say why CLIP was kept or dropped, by which evidence; CLIP in any written form, also a URL.

    \b
    Example: curate blame 4PjEi5fFD6A
    """
    from dataclasses import asdict

    from curation.catalog.cards import load_cards
    from curation.decision.blame import blame as ask
    from curation.decision.decision_text import blame_text
    from curation.tables import number

    if (clip is None) == (test_item is None):
        raise click.UsageError("expected one CLIP, or --test-item CLIP")
    if name and tests:
        raise click.UsageError("--name asks a clean manifest, --test asks none: expected one of them")
    answer = ask(
        str(test_item if clip is None else clip),
        manifests=manifests,
        cards=load_cards(manifests, *cards),
        name=name,
        tests=tests or (),
        as_test_item=clip is None,
    )
    verdicts = [finding.verdict for finding in answer.findings]
    counted = " + ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    finish(
        {"command": "blame", **asdict(answer)},
        as_json,
        text=blame_text(answer),
        summary=f"{number(len(verdicts), 'row')} = {counted}",
        next_steps=("curate overlaps" if answer.manifest else "curate clean --name NAME",),
    )


@curate.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@options.shared
def verify(names: tuple[str, ...], manifests: Path, cards: tuple[Path, ...], as_json: bool) -> None:
    """Check built and clean manifests again: bytes, sums, certificates, no overlap in what is kept.

    \b
    Example: curate verify paper
    """
    from curation.catalog.cards import load_cards
    from curation.decision.verify import verify as check_again
    from curation.progress import Progress
    from curation.tables import render

    with Progress("verify") as progress:
        known = load_cards(manifests, *cards)
        checks = list(check_again(manifests, known, names=names, progress=progress.item))
    errors = [check.error for check in checks if check.error]
    cleaned = any(check.what.startswith("clean/") for check in checks)
    done = "train on clean/NAME" if cleaned else "curate clean --name NAME"
    rows = [[check.what, check.state] for check in checks]
    finish(
        {
            "command": "verify",
            "checks": [
                {"what": c.what, "ok": c.error is None, "error": str(c.error) if c.error else None}
                for c in checks
            ],
        },
        as_json,
        text="\n".join([render(["manifest", "state"], rows), *map(str, errors)]),
        summary=f"{len(checks)} manifests = {len(checks) - len(errors)} as recorded + {len(errors)} not",
        next_steps=("curate build", "curate clean") if errors else (done,),
        code=13 if any(e.exit_code == 13 for e in errors) else 1 if errors else 0,
    )


def main() -> NoReturn:
    """Run `curate` and end the process with its documented exit code."""
    sys.exit(run(curate, "curate"))
