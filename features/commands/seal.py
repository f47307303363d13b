"""The command that closes a folder of shards."""

import shlex
from pathlib import Path

import click

from curation import options
from curation.console import finish
from features.installed import ComputingCommand


@click.command(cls=ComputingCommand)
@click.argument("out", metavar="[OUT]", type=click.Path(path_type=Path), default=Path("shards/44100"))
@options.as_json
def seal(out: Path, as_json: bool) -> None:
    """Write index and statistics of OUT once all its tasks are done; for `extract --task i/n`.

    Without OUT, ./shards/44100. Nothing big is read; run again, it writes the same bytes.

    \b
    Example: features seal shards/44100
    """
    from dataclasses import asdict

    from curation.progress import Progress
    from curation.tables import number, size_text
    from features.store.seal import seal as seal_folder

    with Progress("seal") as progress:
        sealed = seal_folder(out, progress.item)
    place = shlex.quote(str(out))
    finish(
        {"command": "seal", "folder": str(out), **asdict(sealed)},
        as_json,
        text="",
        summary=(
            f"{number(sealed.rows, 'row')} = {sealed.av:,} audio-video + {sealed.audio:,} audio; "
            f"{number(sealed.captions, 'caption')}, {number(sealed.rejects, 'reject')}; "
            f"{number(sealed.shards, 'shard')} of {size_text(sealed.shard_bytes)}"
        ),
        next_steps=(f"features verify {place}", f"features info {place}"),
    )
