"""`python -m training.launch`: parsing and printing only."""

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curation import __version__, options
from curation.console import finish, run
from curation.errors import ConfigDiffers, UsageProblem
from curation.progress import Notes
from features.installed import ComputingCommand
from training.config import KEYS, PRESETS, TrainConfig, configured
from training.keys import text_of

if TYPE_CHECKING:
    from training.run.asked import Asked

_FOLDER = click.Path(path_type=Path, file_okay=False)


class LaunchCommand(ComputingCommand):
    """One process of many under torchrun: what all would say alike, the first of a machine says."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command; of other ranks only errors are shown that are theirs alone."""
        try:
            return super().main(*args, **extra)
        except (click.ClickException, UsageProblem, ConfigDiffers) as error:
            # folders and devices may be amiss on one machine alone
            if os.environ.get("LOCAL_RANK", "0") == "0":
                raise
            raise click.exceptions.Exit(error.exit_code) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run it with its options; an interrupt is told by the first rank."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if _is_first():
                raise
            ctx.exit(130)


@click.command(cls=LaunchCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="training.launch")
@click.option(
    "--model",
    metavar="NAME",
    help=f"The preset: {', '.join(PRESETS)}; without it S of the shards' rate.",
)
@click.option(
    "--shards",
    type=_FOLDER,
    metavar="DIR",
    help="What is trained on: sealed shards; without it ./shards/44100, or ./shards/16000.",
)
@click.option(
    "--val-shards",
    type=_FOLDER,
    metavar="DIR",
    help="What validates; without it 1 % of the sources in --shards, see held_back.",
)
@click.option(
    "--run",
    "--run-folder",  # torchrun takes --run for an option of its own
    "run_folder",
    type=_FOLDER,
    metavar="DIR",
    help="Where checkpoints and the log go, and come from; without it ./runs/NAME. Under torchrun "
    "write --run-folder.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value than the preset's, as batch=256; --dry-run shows all of them.",
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Begin with these weights: released ones, exported ones, or a training checkpoint of MMAudio.",
)
@click.option(
    "--adapters",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With lora_rank: begin with these adapters, of python -m training.export --adapters.",
)
@click.option(
    "--allow-untrained",
    is_flag=True,
    help="Take shards of encoders with random weights, for trials.",
)
@click.option(
    "--preflight",
    is_flag=True,
    help="Only try 20 steps, learning one batch by heart, and a checkpoint there and back.",
)
@click.option(
    "--profile",
    "profile_steps",
    type=click.IntRange(1, 1000),
    metavar="STEPS",
    help="Write a trace of so many steps, once the run is warm.",
)
@click.option(
    "--device",
    metavar="NAME",
    help="As cpu or cuda:0; without it a GPU for each process, or the CPU where there is none.",
)
@click.option(
    "--gpu",
    metavar="NAME",
    help="With --dry-run: which GPU, as H100, or cpu; without it what is here, or H100.",
)
@click.option(
    "--gpus",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="With --dry-run: how many of them; without it those here, or 8.",
)
@click.option(
    "--mfu",
    "mfu_percent",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    help="With --dry-run: the share of their peak to reckon with.",
)
@options.dry_run
@options.as_json
def launch(
    model: str | None,
    shards: Path | None,
    val_shards: Path | None,
    run_folder: Path | None,
    settings: tuple[str, ...],
    init: Path | None,
    adapters: Path | None,
    allow_untrained: bool,
    preflight: bool,
    profile_steps: int | None,
    device: str | None,
    gpu: str | None,
    gpus: int | None,
    mfu_percent: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the network on sealed shards; run again to continue.

    Whatever ends it, the same command goes on from the last checkpoint, and ends with the weights of a
    run that nothing has ended. Many GPUs: torchrun --standalone --nproc-per-node 8 -m training.launch …

    \b
    Example: python -m training.launch --model L-44k --dry-run
    """
    from training.run.asked import Asked, found_shards, model_for

    if dry_run and preflight:
        raise UsageProblem("--dry-run with --preflight, expected one of them — leave one out")
    planned = {"--gpu": gpu, "--gpus": gpus, "--mfu": mfu_percent}
    if not dry_run and (given := [name for name, value in planned.items() if value is not None]):
        raise UsageProblem(
            f"{given[0]} without --dry-run: a run takes the GPUs that are there; expected it with "
            "--dry-run — add that, or leave it out"
        )
    unread = {
        "--profile": profile_steps and (dry_run or preflight),
        "--device": device and dry_run,
    }
    if given := [name for name, value in unread.items() if value]:
        raise UsageProblem(
            f"{given[0]} with {'--dry-run' if dry_run else '--preflight'}, which does not use it; "
            "expected one of them — leave the other out"
        )
    configured(model or next(iter(PRESETS)), settings)  # what is misspelt is told before what is missing
    shards = found_shards(shards, model, must_be=not dry_run)
    model = model or model_for(shards, must_be=not dry_run)
    config = configured(model, settings)
    asked = Asked(
        shards=shards,
        val_shards=val_shards,
        run=run_folder or Path("runs") / model,
        init=init,
        adapters=adapters,
        allow_untrained=allow_untrained,
        device=device,
        profile_steps=profile_steps or 0,
    )
    if dry_run:
        share = None if mfu_percent is None else mfu_percent / 100
        _plan(config, asked, gpu=gpu, gpus=gpus, mfu=share, as_json=as_json)
    else:
        _train(config, asked, preflight=preflight, as_json=as_json)


def _plan(
    config: TrainConfig,
    asked: "Asked",
    *,
    gpu: str | None,
    gpus: int | None,
    mfu: float | None,
    as_json: bool,
) -> None:
    """End with what would be done."""
    from training.run.dry_run import Planned, document_of
    from training.run.machine import machine_for
    from training.run.plan_text import plan_summary, plan_text

    machine = machine_for(config.precision, name=gpu, ranks=gpus)
    document = document_of(Planned(config=config, asked=asked, machine=machine, mfu=mfu))
    if not _is_first():
        click.get_current_context().exit(0)
    finish(
        {"command": "launch", "dry_run": True, "run": str(asked.run), **document},
        as_json,
        text=plan_text(document, config),
        summary=plan_summary(document),
        next_steps=(
            "the same command with --preflight, then without either"
            if document["memory"]["fits"]
            else "the same command with settings that fit",
        ),
    )


def _train(config: TrainConfig, asked: "Asked", *, preflight: bool, as_json: bool) -> None:
    """Train, or only try to, and end with what it came to."""
    if preflight:
        from training.run.preflight import preflight as work
    else:
        from training.run.loop import train as work

    logging.basicConfig(format="%(message)s", handlers=[Notes()])
    logging.getLogger("training").setLevel(logging.INFO if _is_first() else logging.WARNING)
    if _is_first():
        told = (f"{key}={text_of(getattr(config, key))}" for key in KEYS)
        click.echo(f"{'preflight of' if preflight else 'training'}: {' '.join(told)}", err=True)
    found = work(config, asked)
    if not _is_first():
        click.get_current_context().exit(0)
    export = f"python -m training.export {shlex.quote(str(asked.run))} --out {config.model}"
    finish(
        {"command": "launch", "model": config.model, "run": str(asked.run), **found},
        as_json,
        text=str(asked.run),
        summary=found["summary"],
        next_steps=("the same command without --preflight" if preflight else export,),
    )


def _is_first() -> bool:
    """Whether this process is the one that talks; torchrun numbers them."""
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    sys.exit(run(launch, "training.launch"))
