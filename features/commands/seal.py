"""The command that closes a folder of shards."""

from pathlib import Path

import click

from curation.console import finish


@click.command()
@click.argument("out", metavar="[OUT]", type=click.Path(path_type=Path), default=Path("shards/44100"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def seal(out: Path, as_json: bool) -> None:
    """Write index and statistics of OUT once all its tasks are done; for `extract --task i/n`.

    Without OUT, ./shards/44100. Nothing big is read; run again, it writes the same bytes.

    \b
    Example: features seal shards/44100
    """
    from dataclasses import asdict

    from curation.progress import Progress
    from features.seal import seal as seal_folder

    with Progress("seal") as progress:
        sealed = seal_folder(out, progress.item)
    finish(
        {"command": "seal", "folder": str(out), **asdict(sealed)},
        as_json,
        text="",
        summary=(
            f"{sealed.rows:,} rows = {sealed.av:,} audio-video + {sealed.audio:,} audio; "
            f"{sealed.captions:,} captions, {sealed.rejects:,} rejects; {sealed.shards:,} shards of "
            f"{sealed.shard_bytes / 1e9:.3f} GB"
        ),
        next_steps=(f"features verify {out}", f"python -m training.launch --shards {out}"),
    )
