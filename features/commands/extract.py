"""The command that turns clips into shards."""

import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from curation import options
from curation.console import finish
from features import options as own
from features.installed import ComputingCommand

if TYPE_CHECKING:
    from curation.ray_engine import Engine
    from curation.tasks import Share
    from features.extraction.asked import Asked
    from features.extraction.extract import Extraction

_FLAGS = "no_picture, partly_damaged, still, upsampled"


@click.command(cls=ComputingCommand)
@click.option(
    "--sr",
    "sample_rate_hz",
    type=click.Choice(("16000", "44100")),
    default="44100",
    show_default=True,
    metavar="HZ",
    help="Sample rate of the sound that is encoded: 16000 or 44100.",
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="clean/NAME, the folder of a dataset, or Parquet with its columns; else the newest clean one.",
)
@click.option(
    "--media",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Where the files lie, ./media if not given; of several folders the first that has one.",
)
@click.option(
    "--media-list",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Whose file is which: CSV, TSV or Parquet with the columns `file` and `id`, maybe `dataset`.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where shards go, ./shards/HZ if not given.",
)
@own.weights
@click.option(
    "--offline",
    is_flag=True,
    help="Where weights are missing, say how to bring them by hand; nothing is fetched here anyway.",
)
@click.option(
    "--untrained",
    type=click.IntRange(0),
    metavar="SEED",
    help="Random weights instead, for trials; shards say so, and training refuses them.",
)
@click.option("--tiny", is_flag=True, help="With --untrained: small networks of the same shapes.")
@click.option(
    "--precision",
    type=click.Choice(("fp32", "bf16")),
    help="Of the encoders; without it bf16 on a GPU and fp32 on a CPU.",
)
@own.duration("Of an example.")
@click.option(
    "--compat",
    type=click.Choice(("mmaudio",)),
    help="Take frames and sound as MMAudio's own scripts do, for comparisons.",
)
@click.option(
    "--peak",
    type=click.Choice(("track", "none")),
    default="track",
    show_default=True,
    help="Normalise sound to 0.95 at the peak of its whole track, or leave it as it is.",
)
@click.option(
    "--part-s",
    "part_s",
    type=options.Seconds(),
    metavar="SECONDS",
    help="Length of the parts of long sounds; without it 0.1 s more than an example.",
)
@click.option(
    "--max-parts",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    metavar="N",
    help="Of a long sound, at most.",
)
@click.option(
    "--reject",
    type=options.CommaList(),
    metavar="FLAGS",
    help=f"Flags that a row is not made for: {_FLAGS}.",
)
@options.max_duration
@options.timeout
@own.shard_rows("Rows of a shard at most, and clips of a task.")
@click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    default=8,
    show_default=True,
    metavar="N",
    help="Clips with picture that are encoded at once; four times as many of sound alone.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Processes that encode; without it one a GPU, else one for each --threads cores.",
)
@click.option(
    "--devices",
    type=options.CommaList(),
    metavar="NAMES",
    help="What they encode on, as cpu or cuda:0,cuda:1; without it all GPUs, else the CPU.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=2,
    show_default=True,
    metavar="N",
    help="Of each worker's encoders; on a CPU they decide the last bits.",
)
@click.option(
    "--decoders",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Processes that decode for each worker; without it the cores are shared among workers.",
)
@click.option(
    "--scan",
    is_flag=True,
    help="Make the fingerprints of `curate scan` on the same decode; it carries them over.",
)
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("manifests"),
    show_default=True,
    metavar="DIR",
    help="Where built manifests lie, for --manifest and cards, and the fingerprints of --scan.",
)
@options.share
@options.engine
@options.address
@options.dry_run
@options.as_json
def extract(
    sample_rate_hz: str,
    manifest: Path | None,
    media: tuple[Path, ...],
    media_list: Path | None,
    out: Path | None,
    weights_folder: Path,
    offline: bool,
    untrained: int | None,
    tiny: bool,
    scan: bool,
    manifests: Path,
    share: "Share | None",
    engine: str,
    address: str | None,
    dry_run: bool,
    as_json: bool,
    precision: "Literal['fp32', 'bf16'] | None",
    duration_s: float,
    compat: str | None,
    peak: "Literal['track', 'none']",
    part_s: float | None,
    max_parts: int,
    reject: tuple[str, ...] | None,
    max_duration_s: float,
    timeout_s: float,
    shard_rows: int,
    batch: int,
    workers: int | None,
    devices: tuple[str, ...] | None,
    threads: int,
    decoders: int | None,
) -> None:
    """Encode the clips of a manifest into shards; run again to continue.

    Files are found by the file names in the cards of their datasets. Each clip ends as a row, or in
    rejects.parquet with a reason. Many machines: --task i/n on each, or --engine ray; all must see
    manifest, media and --out at the same paths.

    \b
    Example: features extract --sr 44100
    """
    from features.extraction.asked import Asked, media_folders
    from features.inputs.prepared import InputConfig
    from features.source import find_manifest
    from features.weights.published import WeightChoice

    connection = options.connected(engine, address)
    rate_hz = int(sample_rate_hz)
    found = find_manifest(manifest, manifests)
    places = media_folders(media)
    asked = Asked(
        weights=WeightChoice(
            folder=weights_folder if untrained is None else None,
            untrained_seed=untrained,
            tiny=tiny,
            offline=offline,
        ),
        inputs=InputConfig(
            sample_rate_hz=rate_hz,
            duration_s=duration_s,
            compat=compat is not None,
            peak=peak,
            part_s=part_s,
            max_parts=max_parts,
            reject=tuple(reject or ()),
            max_duration_s=max_duration_s,
            timeout_s=timeout_s,
        ),
        precision=precision,
        batch=batch,
        shard_rows=shard_rows,
        devices=devices,
        workers=workers,
        threads=threads,
        decoders=decoders,
    )
    _extract(
        asked, found, places, media_list, out or Path("shards") / sample_rate_hz,
        manifests=manifests, scan=manifests if scan else None, share=share,
        connection=connection, dry_run=dry_run, as_json=as_json,
    )  # fmt: skip


def _extract(
    asked: "Asked",
    manifest: Path,
    media: list[Path],
    media_list: Path | None,
    out: Path,
    *,
    manifests: Path,
    scan: Path | None,
    share: "Share | None",
    connection: "AbstractContextManager[Engine | None]",
    dry_run: bool,
    as_json: bool,
) -> None:
    from curation.files import free_bytes
    from curation.progress import Progress
    from curation.tasks import ALL
    from features.extraction import text
    from features.extraction.asked import devices_of, job_of
    from features.extraction.extract import Extraction, Machines
    from features.extraction.plan import make_plan

    with connection as cluster, Progress("extract") as progress:
        devices = devices_of(asked, cluster)
        job = job_of(asked, devices, cluster)
        plan = make_plan(manifest, media, media_list, job, out, progress.bytes, progress.item, manifests)
        extraction = Extraction(plan, job, out, progress.item, scan=scan, hashing=progress.bytes)
        machines = Machines(devices=devices, engine=cluster, workers=asked.workers, share=share or ALL)
        extracted = None if dry_run else extraction.run(machines)
    if extracted is None:
        _say_plan(extraction, machines, free_bytes(out), as_json=as_json)
        return
    failed = sum(extracted.counts.rejected.values()) + sum(extracted.counts.parts_rejected.values())
    place = shlex.quote(str(out))
    finish(
        {"command": "extract", "out": str(out), **text.extracted_json(plan, extracted)},
        as_json,
        text=text.extracted_text(plan, extracted),
        summary=text.summary(plan, extracted),
        next_steps=(
            (f"features verify {place}",)
            if extracted.sealed
            else ("run the other shares", f"features seal {place}")
        ),
        code=3 if failed else 0,
    )


def _say_plan(extraction: "Extraction", machines: Any, free: int, *, as_json: bool) -> None:
    """End with what would be done."""
    from features.extraction import begun, text

    begun.check(extraction.out, begun.of_plan(extraction.out, extraction.plan))
    extraction.check_media()
    texts, clips = extraction.left(machines.share)
    need = extraction.need(texts, clips)
    left = (len(texts), len(clips))
    finish(
        {
            "command": "extract",
            "out": str(extraction.out),
            **text.plan_json(extraction.plan, left, need, free),
        },
        as_json,
        text=text.plan_text(extraction.plan, machines.text(), left, need, free),
        summary=text.plan_summary(extraction.plan),
        next_steps=("the same command without --dry-run",),
    )
