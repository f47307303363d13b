"""The command that hands manifests to the programs of others."""

import shlex
from pathlib import Path

import click

from curation import options
from curation.console import finish


@click.command()
@click.argument("what", metavar="WHAT")
@click.option(
    "--to",
    "format_",
    type=click.Choice(("mmaudio", "ids", "croissant", "huggingface")),
    required=True,
    help="mmaudio: a folder with a tsv for each dataset; ids: a file; the others: a folder of Parquet.",
)
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="Where it is written.",
)
@click.option(
    "--column",
    type=click.Choice(("source_id", "clip_id")),
    default="source_id",
    show_default=True,
    help="Which ids --to ids writes.",
)
@options.shared
def export(
    what: str,
    format_: str,
    target: Path,
    column: str,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write WHAT (clean/NAME, dataset, dataset@list or dataset/split) as other programs read it.

    \b
    Example: curate export clean/paper --to huggingface --out paper-clean
    """
    from curation.catalog.cards import load_cards
    from curation.decision.export import packages, text
    from curation.decision.export.rows import find_rows
    from curation.tables import number

    known = load_cards(manifests, *cards)
    rows = find_rows(what, manifests, known)
    if format_ in ("croissant", "huggingface"):
        write = packages.to_croissant if format_ == "croissant" else packages.to_huggingface
        parts = write(rows, target, manifests, known)
    elif format_ == "mmaudio":
        parts = text.to_mmaudio(rows, target, manifests, known).parts
    else:
        parts = text.to_ids(rows, target, manifests, column=column).parts
    total = sum(parts.values())
    listed = " + ".join(f"{count:,} {name}" for name, count in parts.items())
    finish(
        {"command": "export", "what": what, "to": format_, "out": str(target), "rows": parts},
        as_json,
        text="",
        summary=f"{number(total, 'row')} = {listed}; {target}",
        next_steps=({
            "mmaudio": "extract the media that the tsv files name",
            "ids": f"wc -l {shlex.quote(str(target))}",
            "croissant": f"mlcroissant validate --jsonld {shlex.quote(str(target / 'croissant.json'))}",
            "huggingface": f"datasets.load_dataset({str(target)!r})",
        }[format_],),
    )  # fmt: skip
