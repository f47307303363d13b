"""Averages of the weights whose width is chosen after training; `python -m training.ema`.

While a network trains, two tracks average its weights, one narrow and one wide (see `powers`). Both are
stored now and then; later, any other average is made as the sum of stored ones that comes nearest to it.

Source: arXiv:2312.02696 (Karras et al.), Sec. 3 and C; MMAudio@974010a with nitrous-ema 0.0.1.
"""

import logging
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curation import options
from curation.console import finish, run
from curation.errors import UsageProblem
from curation.progress import note
from curation.tables import number, size_text
from features.installed import ComputingCommand
from training.powers import beta, gamma_of, solve

if TYPE_CHECKING:  # help is shown without what computes
    from torch import Tensor

    from training.state.profiles import Profile

__all__ = ["SIGMAS", "Tracks", "beta", "gamma_of", "synthesize"]
logger = logging.getLogger(__name__)
SIGMAS = (0.05, 0.10)  # Source: MMAudio `train.py`@974010a
_SHOWN = 8  # steps in a message
_ROUGH = 0.1  # what is said: 0.02 is usual between stored widths, 0.3 to 0.6 between stored steps


class Tracks:
    """Averages of tensors by name, in float32 where the tensors are, updated in place after each step.

    Of sharded tensors (DTensor), the averages are those of this rank's part; which tensors it is given
    is the caller's affair, so that ranks may share the work. An update waits for no GPU.

    Attributes:
        averages: of each width, by name; the tensors that updates write to.
        step: updates so far.
    """

    def __init__(
        self,
        tensors: Mapping[str, "Tensor"],
        *,
        sigmas: Sequence[float] = SIGMAS,
        corrected: bool = True,
    ) -> None:
        """Begin with copies of all floating tensors, parameters and buffers alike."""
        import torch

        self.step = 0
        self._gammas = {sigma: gamma_of(sigma) for sigma in sigmas}
        self._corrected = corrected
        parts = {name: _own_part(tensor) for name, tensor in tensors.items()}
        self._names = [name for name, part in parts.items() if part.is_floating_point()]
        self.averages: dict[float, dict[str, Tensor]] = {
            sigma: {name: parts[name].to(torch.float32, copy=True) for name in self._names}
            for sigma in sigmas
        }

    def update(self, tensors: Mapping[str, "Tensor"]) -> None:
        """Move all averages towards the tensors, which have the names and shapes of the first ones."""
        import torch

        self.step += 1
        latest = [_own_part(tensors[name]).float() for name in self._names]
        if not latest:  # a rank may own nothing
            return
        with torch.no_grad():
            for sigma, averages in self.averages.items():
                if self.step == 1:
                    torch._foreach_copy_(list(averages.values()), latest)
                else:
                    moved = 1 - beta(self.step, self._gammas[sigma], corrected=self._corrected)
                    torch._foreach_lerp_(list(averages.values()), latest, moved)


def _own_part(tensor: "Tensor") -> "Tensor":
    """The part of a tensor that lies on this rank, detached."""
    tensor = tensor.detach()
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def synthesize(
    profiles: Iterable[tuple[int, float, Mapping[str, "Tensor"]]] | Path | str,
    sigma_rel: float,
    step: int | None = None,
) -> dict[str, "Tensor"]:
    """The averaged weights of a width at a step, float32 on the CPU, made of stored ones.

    Every profile counts, also later ones. Of a folder, one profile is in memory at a time.

    Args:
        profiles: (step, sigma_rel, tensors by name) of each, or a folder; see `state.profiles`.
        step: None: the last one that is stored.

    Raises:
        UsageProblem: there are no profiles, one is there twice, or width and step are out of reach.
        BadWeights: profiles hold other tensors than the first, or values that are not finite.
    """
    from training.state.profiles import given_profiles, profiles_in, weighted_sum

    if isinstance(profiles, str | Path):
        stored = profiles_in(Path(profiles))
    else:
        stored = given_profiles(profiles)
    weights, missed = _solved(stored, sigma_rel=sigma_rel, step=step)
    if missed > _ROUGH:
        logger.warning("width %g at step %s: %.0f %% of it is missed", sigma_rel, step, 100 * missed)
    return weighted_sum(stored, weights)


def _solved(
    stored: Sequence["Profile"], *, sigma_rel: float, step: int | None
) -> tuple[list[float], float]:
    """See `solve`."""
    steps, sigmas = [one.step for one in stored], [one.sigma_rel for one in stored]
    return solve(steps, sigmas, sigma_rel=sigma_rel, step=step)


@click.command(cls=ComputingCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--sigma",
    metavar="WIDTH",
    type=float,
    default=0.05,
    show_default=True,
    help="Width of the profile, relative to the step.",
)
@click.option(
    "--step", metavar="STEP", type=int, help="The step to average at; default: the last stored."
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write, *.safetensors.",
)
@click.option("--replace", is_flag=True, help="Replace the file, where it is there.")
@options.as_json
def ema(
    run_folder: Path, sigma: float, step: int | None, out: Path, replace: bool, as_json: bool
) -> None:
    """Make averaged weights of any width at any step, of the profiles that a run stored.

    RUN is the folder of a run, or one with profiles, also those that MMAudio wrote (ema_ckpts/). The
    file has the layout of the released weights; of a run with lora_rank, it holds adapters.

    \b
    Example: python -m training.ema runs/S-16k --sigma 0.08 --out small_16k_ema.safetensors
    """
    from features.weights.checkpoint_files import write_safetensors
    from training.state.exported import adapters_about
    from training.state.profiles import profiles_in, weighted_sum

    stored = profiles_in(run_folder)
    _refuse_target(out, [profile.name for profile in stored], replace=replace)
    step = max(profile.step for profile in stored) if step is None else step
    weights, missed = _solved(stored, sigma_rel=sigma, step=step)
    averaged = weighted_sum(stored, weights)
    if missed > _ROUGH:
        kept = ", ".join(f"{one:,}" for one in sorted({profile.step for profile in stored})[-_SHOWN:])
        note(f"{missed:.0%} of this profile is missed: profiles of the steps {kept} are stored")
    adapters = adapters_about(Path(stored[0].name))
    about = {"sigma_rel": f"{sigma:g}", "step": str(step), "profiles": str(len(stored)), **adapters}
    write_safetensors(out, averaged, about)
    size = size_text(sum(tensor.numel() * tensor.element_size() for tensor in averaged.values()))
    finish(
        {
            "command": "ema",
            "out": str(out),
            "sigma_rel": sigma,
            "step": step,
            "missed": missed,
            "profiles": [
                {"step": one.step, "sigma_rel": one.sigma_rel, "weight": weight}
                for one, weight in zip(stored, weights, strict=True)
            ],
        },
        as_json,
        text=str(out),
        summary=f"width {sigma:g} at step {step:,}: {number(len(averaged), 'tensor')}, {size}, of "
        f"{number(len(stored), 'profile')}; {missed:.1%} of the profile is missed",
        next_steps=(
            "python -m training.launch --model MODEL --shards DIR --run ANOTHER --init "
            + (f"WEIGHTS --set lora_rank={adapters['rank']} --adapters " if adapters else "")
            + shlex.quote(str(out)),
        ),
    )


def _refuse_target(out: Path, profiles: Sequence[str], *, replace: bool) -> None:
    """Raise UsageProblem where the file is there, of another kind, or would lie among the profiles."""
    if out.exists() and not replace:
        raise UsageProblem(
            f"--out {out}: is there already, expected the file to write — give another, or --replace"
        )
    if out.suffix != ".safetensors":
        raise UsageProblem(
            f"--out {out}: expected a name that ends in .safetensors — for other formats, run: "
            "python -m training.export"
        )
    if out.resolve().parent in {Path(name).resolve().parent for name in profiles}:
        raise UsageProblem(
            f"--out {out}: lies among the profiles and would be taken for one, expected a place "
            "elsewhere — give another"
        )


if __name__ == "__main__":
    sys.exit(run(ema, "training.ema"))
