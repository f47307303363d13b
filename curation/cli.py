"""The `curate` command: parsing and printing only.

stdout is data, stderr is talk. Exit codes: 0 done, 1 failed, 2 usage, 10 overlaps found
(--fail-on-overlap), 11 locked, 12 other options than before, 13 changed files, 14 no space,
130 interrupted.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from curation import __version__
from curation.errors import FoleyproofError

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


def _shared(command: _Command) -> _Command:
    """The options that every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
        click.option(
            "--cards",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            metavar="DIR",
            multiple=True,
            help="Also read dataset cards from DIR.",
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


_tests = click.option(
    "--test",
    "tests",
    type=CommaList(),
    default="vggsound,audiocaps",
    show_default=True,
    metavar="NAMES",
    help="Test sets: a dataset, dataset@list or dataset/split.",
)
_train = click.option(
    "--train",
    type=CommaList(),
    metavar="NAMES",
    help="Training sets; without it the train splits of all that is built.",
)
_match = click.option(
    "--match",
    type=click.Choice(("id", "interval", "start")),
    default="id",
    show_default=True,
    help="What makes an overlap: the recording, shared time, or the same start.",
)
_margin = click.option(
    "--margin",
    "margin_s",
    type=Seconds(),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Count intervals that lie closer than this as shared time.",
)


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
    _finish(
        {"command": "corpus", "folder": str(folder), "files": planted.num_files},
        as_json,
        text="",
        summary=f"{planted.num_files} metadata files of {planted.num_datasets} datasets in {folder}",
        next_step=f"curate fetch --from {folder}",
    )


@curate.command()
@_shared
def datasets(manifests: Path, cards: tuple[Path, ...], as_json: bool) -> None:
    """List the dataset cards and the named lists, with licences, digests and what is built.

    \b
    Example: curate datasets
    """
    from curation.catalog.cards import load_cards
    from curation.catalog.overview import overview
    from curation.tables import render

    document = overview(load_cards(cards), manifests)
    rows = [
        [d["dataset"], d["state"], d["train_rows"], d["rows"], d["format"], d["metadata_licence"]]
        for d in document["datasets"]
    ]
    lists = [
        [entry["list"], entry["size"] or entry["registered_size"], entry["state"],
         (entry["digest"] or entry["registered_digest"] or "")[:23], entry["title"]]
        for entry in document["lists"]
    ]  # fmt: skip
    text = render(["dataset", "state", "train rows", "rows", "format", "licence"], rows)
    text += "\n\n" + render(["list", "clips", "state", "digest", "title"], lists)
    built = sum(d["state"].startswith("built") for d in document["datasets"])
    _finish(
        {"command": "datasets", **document},
        as_json,
        text=text,
        summary=f"{len(rows)} datasets: {built} built, {len(rows) - built} not; {len(lists)} lists",
        next_step="curate overlaps" if built else "curate fetch --from DIR",
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
@_shared
def fetch(
    names: tuple[str, ...],
    source: Path | None,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Bring metadata files into the manifests folder; run again to continue.

    \b
    Example: curate fetch --from demo/metadata
    """
    from curation.catalog.cards import find_cards, load_cards
    from curation.catalog.fetch import UNRECOGNISED, fetch_from
    from curation.errors import UsageProblem
    from curation.files import locked
    from curation.progress import Progress
    from curation.tables import render

    chosen = find_cards(load_cards(cards), names)
    if source is None:
        raise UsageProblem(
            "fetching over the network is not there yet, expected --from DIR with "
            "<dataset>/<metadata files> in it — curate datasets --json names files and addresses"
        )
    with locked(manifests), Progress("fetch") as progress:
        results = fetch_from(source, chosen, manifests, progress=progress.item)
    count = {state: sum(r.state == state for r in results) for state in _FETCH_STATES}
    rows = [
        [f"{r.dataset}/{r.path}", r.state, r.bytes or None, r.copy or r.detail]
        for r in results
        if r.state != "absent"
    ]
    absent = [
        f"{r.dataset}/{r.path}"
        + (
            ", the copy of an earlier fetch stays"
            if (manifests / r.dataset / "raw" / r.path).exists()
            else ""
        )
        for r in results
        if r.state == "absent"
    ]
    text = render(["file", "state", "bytes", "copy"], rows) if rows else ""
    text += "".join(f"\nabsent: {path}" for path in absent)
    unknown = sum(r.copy == UNRECOGNISED for r in results)
    _finish(
        {"command": "fetch", "files": [_fields(r) for r in results], "counts": count},
        as_json,
        text=text.lstrip("\n"),
        summary=f"{len(results)} files = {count['fetched']} fetched ({unknown} unrecognised copies) "
        f"+ {count['absent']} absent + {count['failed']} failed",
        next_step="curate build",
        code=1 if count["failed"] else 0,
    )


_FETCH_STATES = ("fetched", "absent", "failed")


@curate.command()
@click.argument("names", metavar="[DATASET]...", nargs=-1)
@_shared
def build(names: tuple[str, ...], manifests: Path, cards: tuple[Path, ...], as_json: bool) -> None:
    """Make a manifest of every dataset whose metadata is at hand; run again to continue.

    \b
    Example: curate build
    """
    from curation.catalog.build import build as build_manifests
    from curation.catalog.cards import find_cards, load_cards
    from curation.catalog.store import refresh_views
    from curation.catalog.twins import find_twins
    from curation.files import locked
    from curation.progress import Progress
    from curation.tables import render
    from curation.verdict import Tally

    known = load_cards(cards)
    chosen = find_cards(known, names)
    with locked(manifests), Progress("build") as progress:
        results = build_manifests(chosen, manifests, progress=progress.query)
        progress.item("doubtful ids")
        twins, examples = find_twins(manifests, known)
        refresh_views(manifests)
    made = [r for r in results if r.state in ("built", "up to date")]
    total = Tally()
    for result in made:
        total.add(result.tally)
    rows = [[r.dataset, r.state, r.tally.kept or None, sum(r.tally.failed.values())] for r in results]
    lines = [render(["dataset", "state", "clips", "failed rows"], rows)]
    for result in results:
        lines += [f"{result.dataset}: not at hand: {path}" for path in result.missing]
        lines += [f"note: {note}" for note in result.notes]
        lines += [f"{result.dataset}: {n:,} {why}" for why, n in result.flagged.items()]
        if result.error:
            lines.append(f"failed: {result.error}")
    lines += [f"twins.parquet: {n:,} {why}" for why, n in twins.items()]
    lines += [f"{why}: {dataset} has {id_}, likely {likely}" for why, dataset, id_, likely in examples]
    failed = sum(r.state == "failed" for r in results)
    missing = sum(r.state == "missing" for r in results)
    _finish(
        {
            "command": "build",
            "datasets": [_build_fields(r) for r in results],
            "doubtful_ids": twins,
        },
        as_json,
        text="\n".join(lines),
        summary=f"{len(results)} datasets = {len(made)} built + {missing} without files + "
        f"{failed} failed; {total.sentence()}",
        next_step="curate overlaps" if made else "curate fetch --from DIR",
        code=1 if failed or (names and missing) else 0,
    )


def _build_fields(result: Any) -> dict[str, Any]:
    return {
        "dataset": result.dataset,
        "state": result.state,
        "seen": result.tally.seen,
        "kept": result.tally.kept,
        "failed": result.tally.failed,
        "flagged": result.flagged,
        "missing": result.missing,
        "notes": result.notes,
        "error": str(result.error) if result.error else None,
    }


@curate.command()
@_tests
@_train
@_match
@_margin
@click.option(
    "--format",
    "format_",
    type=click.Choice(("table", "markdown", "latex", "csv")),
    default="table",
    show_default=True,
    help="How the matrix is printed.",
)
@click.option("--fail-on-overlap", is_flag=True, help="Exit 10 if a training set overlaps.")
@_shared
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
    from curation.catalog.store import VIEWS_FILE, num_rows, refresh_views, work_connection
    from curation.files import locked
    from curation.matching import overlap
    from curation.matching.comparison import check_rows, compare
    from curation.matching.matrix import matrix
    from curation.matching.matrix_text import matrix_text, overlapping
    from curation.progress import Progress

    known = load_cards(cards)
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
    if format_ != "table" and not as_json:
        click.echo("\n".join(notes), err=True)
    _finish(
        {"command": "overlaps", "match": match, "margin_s": margin_s, "tests": tests_found},
        as_json,
        text=text + ("\n" + "\n".join(notes) if notes and format_ == "table" else ""),
        summary=f"{len(tests_found)} test sets x {len(trains)} training sets = "
        f"{len(tests_found) * len(trains)} pairs of sets: {leaking} overlap by {match}, "
        f"{clean_pairs} do not, {unknown} cannot be told; {rows:,} evidence rows in overlaps.parquet",
        next_step=f"curate clean --test {','.join(tests)} --name NAME",
        summary_to_stderr=format_ != "table",
        code=10 if fail_on_overlap and leaking else 0,
    )


@curate.command()
@_tests
@_train
@click.option(
    "--policy",
    type=click.Choice(("prefer-test", "prefer-train", "drop-both", "report")),
    default="prefer-test",
    show_default=True,
    help="Which side of an overlap is dropped.",
)
@_match
@_margin
@click.option("--use-published", is_flag=True, help="Also drop what published lists exclude.")
@click.option("--name", default="default", show_default=True, help="The manifest is clean/NAME.")
@click.option("--replace", is_flag=True, help="Make NAME anew though its options were others.")
@_shared
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
    from curation.catalog.store import refresh_views
    from curation.decision.clean import clean as make_clean
    from curation.decision.policy import CleanConfig, Policy
    from curation.files import locked
    from curation.progress import Progress

    config = CleanConfig(
        tests=tests,
        train=train,
        policy=Policy(policy),
        match=match,
        margin_s=margin_s,
        use_published=use_published,
    )
    with locked(manifests), Progress("clean") as progress:
        cleaned = make_clean(
            config,
            name=name,
            manifests=manifests,
            cards=load_cards(cards),
            replace=replace,
            progress=progress.query,
        )
        refresh_views(manifests)
    unknown = cleaned.document["unknown"]
    lines = [
        f"{test}: at most {entry['leaked_test_items_at_most']:,} items may be left in it unseen "
        f"({entry['unidentified_test_items']:,} items and {entry['unidentified_train_rows']:,} "
        "training rows have no source id)"
        for test, entry in unknown.items()
    ]
    for test, entry in cleaned.document["heldout_counts"].items():
        lines.append(f"{test}: {entry['input']:,} items = {entry['kept']:,} kept + "
                     f"{entry['excluded']:,} excluded")  # fmt: skip
    lines += [f"not covered: {what}" for what in cleaned.document["not_covered"]]
    _finish(
        {"command": "clean", "folder": str(cleaned.folder), "certificate": cleaned.document},
        as_json,
        text="\n".join(lines),
        summary=f"clean/{name}: {cleaned.tally.sentence()}; {cleaned.held_out:,} held out, "
        f"{cleaned.not_chosen:,} not chosen",
        next_step="curate verify; curate blame CLIP",
    )


# An id may begin with `-`, and with `-h`.
@curate.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("clip", required=False, type=click.UNPROCESSED)
@click.option("--test-item", metavar="CLIP", help="Ask from the other side: what overlaps this item.")
@click.option("--name", metavar="NAME", help="The clean manifest to ask; without it the newest.")
@click.option(
    "--test",
    "tests",
    type=CommaList(),
    metavar="NAMES",
    help="Hold it against these test sets instead of asking a clean manifest.",
)
@_shared
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
    from curation.catalog.cards import load_cards
    from curation.decision.blame import blame as ask
    from curation.decision.blame import blame_text

    if (clip is None) == (test_item is None):
        raise click.UsageError("expected one CLIP, or --test-item CLIP")
    if name and tests:
        raise click.UsageError("--name asks a clean manifest, --test asks none: expected one of them")
    answer = ask(
        str(test_item if clip is None else clip),
        manifests=manifests,
        cards=load_cards(cards),
        name=name,
        tests=tests or (),
        as_test_item=clip is None,
    )
    verdicts = [finding.verdict for finding in answer.findings]
    counted = " + ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    _finish(
        {"command": "blame", **_fields(answer)},
        as_json,
        text=blame_text(answer),
        summary=f"{len(verdicts)} rows = {counted}",
        next_step="curate overlaps" if answer.manifest else "curate clean --name NAME",
    )


@curate.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_shared
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
        checks = list(check_again(manifests, load_cards(cards), names=names, progress=progress.item))
    errors = [check.error for check in checks if check.error]
    rows = [[check.what, "changed" if check.error else "as recorded"] for check in checks]
    _finish(
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
        next_step="curate build, then curate clean" if errors else "train on clean/NAME",
        code=13 if any(e.exit_code == 13 for e in errors) else 1 if errors else 0,
    )


def _fields(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)


def _finish(
    document: dict[str, Any],
    as_json: bool,
    *,
    text: str,
    summary: str,
    next_step: str,
    summary_to_stderr: bool = False,
    code: int = 0,
) -> NoReturn:
    """Print the data, the summary line and the next step; end with the exit code."""
    if as_json:
        text = json.dumps({**document, "summary": summary}, ensure_ascii=False, indent=1)
    _say(text)
    _say(summary, err=as_json or summary_to_stderr)
    _say(f"next: {next_step}", err=True)
    click.get_current_context().exit(code)


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


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run `curate` and end the process with its documented exit code."""
    sys.exit(run(curate, "curate"))


def run(command: click.Command, name: str) -> int:
    """Run a click command; the exit code, with one message for each error a user can meet."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
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
