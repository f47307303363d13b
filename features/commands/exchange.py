"""The commands that take and give folders of memory-mapped tensors."""

import shlex
from pathlib import Path

import click

from curation import options
from curation.console import finish
from features import options as own
from features.installed import ComputingCommand


@click.command("import", cls=ComputingCommand)
@click.argument(
    "folders",
    metavar="DIR...",
    type=click.Path(path_type=Path, file_okay=False),
    nargs=-1,
    required=True,
)
@click.option(
    "--tsv",
    "tsvs",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    multiple=True,
    help="The rows of DIR: id and caption or label; one for each DIR. Without it, DIR.tsv.",
)
@click.option(
    "--dataset",
    "datasets",
    metavar="NAME",
    multiple=True,
    help="What the rows of DIR are called; one for each DIR. Without it, the name of DIR.",
)
@click.option(
    "--split", default="train", show_default=True, metavar="NAME", help="The split of all rows."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT",
    help="Where shards are written.",
)
@own.duration("How long the clips of the tensors are.")
@click.option(
    "--empty-text",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Text features of the empty caption (empty_string.pth, or safetensors); without it, zeros.",
)
@click.option(
    "--text-tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="X",
    help="By how much text features of rows with one caption may differ.",
)
@own.shard_rows("Rows of a shard.")
@options.as_json
def import_(
    folders: tuple[Path, ...],
    tsvs: tuple[Path, ...],
    datasets: tuple[str, ...],
    split: str,
    out: Path,
    duration_s: float,
    empty_text: Path | None,
    text_tolerance: float,
    shard_rows: int,
    as_json: bool,
) -> None:
    """Turn TensorDict memmap folders, as of MMAudio, into sealed shards; run again to continue.

    Rows and lines of the TSV are paired by position, as they were written: their numbers must agree.
    A row has one caption, and its id stays as it is (abc_0 of an export too). Shards say that their
    encoders are unknown ("imported"), and carry no certificate. Where a clip comes from nobody says:
    key_digest is that of NAME and id, also with --dataset vggsound, and never that of extract.

    \b
    Example: features import vgg-train --tsv vgg-train.tsv --dataset vggsound --out shards/imported
    """
    from dataclasses import asdict

    from curation.progress import Progress
    from curation.tables import number, size_text
    from features.exchange.importing import ImportConfig, Imported, import_memmap
    from features.exchange.memmap import open_memmap, read_empty_text

    for option, given in (("--tsv", tsvs), ("--dataset", datasets)):
        if given and len(given) != len(folders):
            times = number(len(given), "time")
            raise click.UsageError(f"{option}: given {times}, expected once for each DIR")
    sets = []
    for at, folder in enumerate(folders):
        named = folder.resolve() if folder.name in ("", "..") else folder  # "." has no name
        tsv = tsvs[at] if tsvs else named.parent / f"{named.name}.tsv"
        dataset = datasets[at] if datasets else folder.resolve().name
        rows = open_memmap(folder, tsv, duration_s=duration_s)
        sets.append(Imported(dataset=dataset, split=split, rows=rows))
    empty = read_empty_text(empty_text) if empty_text is not None else None
    config = ImportConfig(shard_rows=shard_rows, text_tolerance=text_tolerance, empty_text=empty)
    with Progress("import") as progress:
        sealed = import_memmap(sets, out, config, progress.item)
    seen, place = sum(len(one.rows) for one in sets), shlex.quote(str(out))
    finish(
        {"command": "import", "folder": str(out), "lines": seen, **asdict(sealed)},
        as_json,
        text="",
        summary=(
            f"{number(seen, 'row')} = {sealed.av:,} audio-video + {sealed.audio:,} audio + "
            f"{number(sealed.rejects, 'reject')}; {number(sealed.captions, 'caption')}; "
            f"{number(sealed.shards, 'shard')} of {size_text(sealed.shard_bytes)}"
        ),
        next_steps=(f"features verify {place}", f"features info {place}"),
        code=3 if sealed.rejects else 0,
    )


@click.command(cls=ComputingCommand)
@click.argument("out", metavar="[OUT]", type=click.Path(path_type=Path), default=Path("shards/44100"))
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Where the folders and their TSVs are written.",
)
@click.option("--dataset", metavar="NAME", help="Only rows of this dataset.")
@click.option("--split", metavar="NAME", help="Only rows of this split.")
@options.as_json
def export(out: Path, target: Path, dataset: str | None, split: str | None, as_json: bool) -> None:
    """Write the shards in OUT as TensorDict memmap folders in fp32, which MMAudio trains on.

    A folder and a TSV for each split of each dataset, with and without pictures apart. A row has the
    first caption of its clip; where clips have several parts, its id is ID_PART, as abc_0. DIR holds
    rows of OUT alone: exit code 12 where it has others.

    \b
    Example: features export shards/44100 --to memmap
    """
    from curation.progress import Progress
    from curation.tables import number
    from features.exchange.exporting import export_memmap

    with Progress("export") as progress:
        parts = export_memmap(out, target, dataset=dataset, split=split, report=progress.item)
    listed = " + ".join(f"{count:,} {name}" for name, count in parts.items())
    first = str(target / next(iter(parts)))
    program = f"import tensordict; print(tensordict.TensorDict.load_memmap({first!r}))"
    finish(
        {"command": "export", "folder": str(out), "to": str(target), "rows": parts},
        as_json,
        text="",
        summary=f"{number(sum(parts.values()), 'row')} = {listed}; {target}",
        next_steps=(f"python -c {shlex.quote(program)}",),
    )
