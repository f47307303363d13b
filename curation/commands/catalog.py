"""Commands on what there is: the offline corpus, the cards, metadata files and manifests."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curation import options
from curation.console import finish

if TYPE_CHECKING:
    from curation.catalog.cards import Card


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@options.as_json
def corpus(folder: Path, as_json: bool) -> None:
    """Write the small offline corpus into FOLDER: every dataset in miniature, overlaps planted.

    A few clips have media, in FOLDER/media, with copies under other ids among them.

    \b
    Example: curate corpus demo/metadata
    """
    from curation.corpus.synthetic import write_corpus, write_media

    planted = write_corpus(folder)
    write_media(folder / "media")
    media = len(planted.media.files)
    finish(
        {"command": "corpus", "folder": str(folder), "files": planted.num_files, "media_files": media},
        as_json,
        text="",
        summary=f"{planted.num_files} metadata files of {planted.num_datasets} datasets "
        f"and {media} media files in {folder}",
        next_steps=(f"curate fetch --from {shlex.quote(str(folder))}",),
    )


@click.command()
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


@click.command()
@click.argument("names", metavar="[DATASET]...", nargs=-1)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Take files from DIR/<dataset>/<path in the card>, with or without .gz.",
)
@options.dry_run
@options.yes
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
            transport.waiting = progress.waiting
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


def bring(names: list[str], manifests: Path, known: "dict[str, Card]", *, yes: bool) -> None:
    """Fetch what these datasets need and is not at hand, if somebody agrees, and build them.

    What cannot be fetched is said on stderr; whoever needs it says what is not built.
    """
    from curation.catalog.build import build as build_manifests
    from curation.catalog.cards import find_cards
    from curation.catalog.catalog_text import plan_summary, plan_text
    from curation.catalog.fetch import fetch as fetch_from_network
    from curation.catalog.fetch import plan
    from curation.catalog.store import refresh_views
    from curation.catalog.twins import find_twins
    from curation.console import agreed
    from curation.errors import RemoteRefuses
    from curation.files import locked
    from curation.progress import Progress
    from curation.transport import Transport

    chosen, transport = find_cards(known, tuple(names)), Transport.for_users()
    with Progress("fetch") as progress:
        planned = plan(chosen, manifests, transport, progress=progress.item)
    results = []
    if any(entry.state == "to fetch" for entry in planned):
        agreed(plan_text(planned), plan_summary(planned), yes=yes)
        with locked(manifests), Progress("fetch") as progress:
            transport.waiting = progress.waiting
            results = fetch_from_network(chosen, manifests, transport, progress=progress.bytes)
    for result in results:
        if result.state in ("failed", "by hand"):
            click.echo(f"{result.dataset}/{result.path}: {result.state}: {result.detail}", err=True)
    with locked(manifests), Progress("build") as progress:
        made = build_manifests(chosen, manifests, progress=progress.query)
        find_twins(manifests, known)
        refresh_views(manifests)
    for built in made:
        if built.error is not None:
            raise built.error
        refused = next((r for r in results if r.refused and r.dataset == built.dataset), None)
        if built.state == "missing" and refused:
            raise RemoteRefuses(refused.detail)


@click.command()
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


# what `--read` may say of a column
_TOLD = ("start", "end", "duration", "split", "caption", "label", "licence", "uploader")


@click.group()
def card() -> None:
    """Make the card of a dataset."""


@card.command("new")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", metavar="NAME", help="Its name; without it that of FILE.")
@click.option("--id", "id_column", metavar="COLUMN", help="The column of ids, instead of searching it.")
@click.option(
    "--read",
    "columns",
    type=(click.Choice(_TOLD), str),
    metavar="WHAT COLUMN",
    multiple=True,
    help="What a column holds, where its name does not say it, as: --read start Anfang.",
)
@click.option(
    "--role",
    type=click.Choice(("train", "validation", "test")),
    default="train",
    show_default=True,
    help="Of all rows, where FILE has no column of splits.",
)
@options.replace
@options.shared
def new_card(
    file: Path,
    dataset: str | None,
    id_column: str | None,
    columns: tuple[tuple[str, str], ...],
    role: str,
    replace: bool,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write a card for FILE, a list of clips as CSV, TSV, text or Parquet, whatever its layout.

    \b
    Example: curate card new annotations.csv --dataset mine
    """
    from dataclasses import asdict

    from curation.catalog.newcard import described, new_dataset
    from curation.files import locked
    from curation.tables import number

    name = dataset or re.sub(r"[^a-z0-9]+", "_", file.stem.lower()).strip("_")
    given = dict(columns) | ({"id": id_column} if id_column else {})
    with locked(manifests):
        shape = new_dataset(file, name, manifests, columns=given, role=role, replace=replace)
    folder, total = manifests / name, len(shape.columns)
    read = len(shape.roles) + len(shape.captions)
    finish(
        {"command": "card new", "dataset": name, "folder": str(folder), "shape": asdict(shape)},
        as_json,
        text="\n".join(described(shape)),
        summary=f"{number(total, 'column')} = 1 of ids + {read} also read + {total - read - 1} not; "
        f"fill in licences and citation in {folder / 'card.toml'}",
        next_steps=(f"curate build {name}",),
    )


# A SELECT may begin with a comment, `-- why`.
@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("select", metavar="SELECT", type=click.UNPROCESSED)
@click.option(
    "--format",
    "format_",
    type=click.Choice(("table", "csv", "jsonl", "parquet")),
    default="table",
    show_default=True,
    help="How the rows are written; parquet needs --out.",
)
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Where it is written.",
)
@options.shared
def sql(
    select: str,
    format_: str,
    target: Path | None,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Ask the manifests anything: one SELECT over their views, which can write nothing.

    \b
    Example: curate sql "select dataset, split, count(*) from clips group by all order by all"
    """
    from curation.catalog.query import LINES, answer, json_lines, summary, write
    from curation.console import stream

    if as_json and target:
        raise click.UsageError("--json prints one document, --out writes a file: expected one of them")
    if format_ == "parquet" and not (target or as_json):
        raise click.UsageError("--format parquet is no text, expected --out FILE with it")
    whole = True
    with answer(select, manifests) as found:
        if target:
            write(found, format_, target, manifests)
        else:
            whole = stream(json_lines(found) if as_json else LINES[format_](found))
    total = summary(found, format="" if as_json else format_, target=target)
    finish(
        {},
        False,  # the document is printed already, in pieces
        text="",
        summary=total if whole else f"{total} until the reader left",
        next_steps=('curate sql "show tables"',),
        summary_to_stderr=as_json or (target is None and format_ != "table"),
    )
