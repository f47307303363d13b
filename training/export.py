"""`python -m training.export`: weights of a run for others."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curation import options
from curation.console import finish, run
from curation.errors import UsageProblem
from curation.tables import number, size_text
from features.installed import ComputingCommand

if TYPE_CHECKING:  # help is shown without what computes
    from training.state.exported import Form


@click.command(cls=ComputingCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to write to.",
)
@click.option(
    "--step", metavar="STEP", type=int, help="A step with a checkpoint; default: the newest that loads."
)
@click.option(
    "--ema",
    "sigma_rel",
    metavar="WIDTH",
    type=float,
    help="The average of this width, such as 0.05; default: the weights as trained last.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["safetensors", "pth"]),
    default="safetensors",
    show_default=True,
    help="pth: a bare state dict, as MMAudio publishes them.",
)
@click.option(
    "--adapters",
    is_flag=True,
    help="Of a run with lora_rank, the adapters alone; DIR is then a file, *.safetensors.",
)
@click.option("--replace", is_flag=True, help="Replace what was exported to DIR before.")
@options.as_json
def export(
    run_folder: Path,
    out: Path,
    step: int | None,
    sigma_rel: float | None,
    form: "Form",
    adapters: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Write the weights of a run for others, in the released layout, with a model card.

    RUN is the folder of a run; a checkpoint of it is read, all its bytes checked first. Running it
    again with --replace writes the same.

    \b
    Example: python -m training.export runs/S-16k --ema 0.05 --out small_16k
    """
    from training.state.exported import export as write
    from training.state.exported import export_adapters
    from training.state.folders import found

    stored = found(run_folder, step)
    config = stored.about.config
    begin = f"python -m training.launch --model {config['model']} --shards DIR --run ANOTHER"
    if adapters and form == "pth":
        raise UsageProblem(
            "--format pth with --adapters, expected safetensors, which alone says what they are of — "
            "leave one of them out"
        )
    if adapters:
        count = export_adapters(stored, out, sigma_rel=sigma_rel, replace=replace)
        finish(
            {"command": "export", "out": str(out), "step": stored.step, "tensors": count},
            as_json,
            text=str(out),
            summary=f"adapters of step {stored.step:,}: {number(count, 'tensor')}",
            next_steps=(
                f"{begin} --init WEIGHTS --set lora_rank={config['lora_rank']} --set "
                f"lora_alpha={config['lora_alpha']:g} --adapters {shlex.quote(str(out))}",
            ),
        )
        return
    made = write(stored, out, run=run_folder, sigma_rel=sigma_rel, form=form, replace=replace)
    finish(
        {
            "command": "export",
            "out": str(out),
            "files": [str(path) for path in made.files],
            "variant": made.facts.variant.name,
            "step": stored.step,
            "sigma_rel": sigma_rel,
            "config_digest": made.facts.config_digest,
            "certificate": made.facts.certificate,
            "tensors": made.num_tensors,
            "bytes": made.num_bytes,
        },
        as_json,
        text="\n".join(map(str, made.files)),
        summary=f"{made.facts.title()}: {number(made.num_tensors, 'tensor')}, "
        f"{size_text(made.num_bytes)}, in {number(len(made.files), 'file')}",
        next_steps=(f"{begin} --init {shlex.quote(str(made.files[0]))}",),
    )


if __name__ == "__main__":
    sys.exit(run(export, "training.export"))
