"""`python -m training.curve`: what runs came to over their steps, as a picture.

Of each run the training loss, each line of its log thin and their running mean on top; the validation
loss; below, the learning rate. Equal logs give an equal picture, byte for byte, with one version of
matplotlib.
"""

import importlib.util
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curation import options
from curation.console import finish, run
from curation.errors import FoleyproofError, UsageProblem
from curation.files import replacing
from curation.tables import number, printable, render
from training.run.stats import FILE, read_stats

if TYPE_CHECKING:  # help is shown without what draws
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What would make equal pictures differ: a date, and the version that a PNG names.
_ABOUT: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
_LOGARITHMIC = 4.0  # the highest loss by the lowest, from which on a linear axis hides the end
_SMOOTHED = 40  # parts of a run; the running mean is over one to each side
_SIZE_INCHES, _DOTS_PER_INCH = (8.0, 5.0), 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Values over steps; NaN and infinity are None."""

    steps: tuple[int, ...]
    values: tuple[float | None, ...]

    @property
    def known(self) -> list[tuple[int, float]]:
        """Steps that have a value, with it."""
        pairs = zip(self.steps, self.values, strict=True)
        return [(step, value) for step, value in pairs if value is not None]

    def document(self, name: str) -> dict[str, Any]:
        """As JSON has it."""
        return {"steps": list(self.steps), name: list(self.values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What is drawn of a run.

    Attributes:
        mean: of the training losses, each that of its line and those beside it, `window` in all.
    """

    run: str
    name: str
    model: str
    training: Line
    mean: Line
    window: int
    validation: Line
    learning_rate: Line

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        training = self.training.document("loss")
        return {
            "run": self.run,
            "model": self.model,
            "training": {**training, "running_mean": list(self.mean.values), "window": self.window},
            "validation": self.validation.document("loss"),
            "learning_rate": self.learning_rate.document("learning_rate"),
        }


def curve_of(run: Path, *, name: str | None = None) -> Curve:
    """The numbers of a run, from its log.

    Args:
        name: what it is called in the picture; None: as its folder.

    Raises:
        UsageProblem: there is no such run, or its log has no losses yet.
    """
    if not (run / FILE).is_file():
        there = "no such folder" if not run.is_dir() else f"no {FILE} in it"
        raise UsageProblem(
            f"{run}: {there}, expected the folder of a run — give what training.launch had as --run"
        )
    lines = read_stats(run)
    training = _line(lines, "training", "loss")
    if not training.known:
        raise UsageProblem(
            f"{run / FILE}: has no losses yet, expected a line for each log_every steps — wait for the "
            "first, or let the run go on with a smaller log_every"
        )
    beside = len(training.steps) // _SMOOTHED
    return Curve(
        run=str(run),
        name=printable(name or run.resolve().name),
        model=next((str(line["model"]) for line in lines if line.get("model")), ""),
        training=training,
        mean=running_mean(training, beside),
        window=2 * beside + 1,
        validation=_line(lines, "validation", "loss"),
        learning_rate=_line(lines, "training", "learning_rate"),
    )


def _line(lines: Sequence[dict[str, Any]], kind: str, key: str) -> Line:
    chosen = [line for line in lines if line["kind"] == kind]
    return Line(
        steps=tuple(line["step"] for line in chosen), values=tuple(line.get(key) for line in chosen)
    )


def running_mean(line: Line, beside: int) -> Line:
    """Means of each value and so many to each side: it neither lags nor leads.

    Towards the ends there are fewer, as many on either side; of values that are None there is none.
    """
    means: list[float | None] = []
    for place in range(len(line.values)):
        reach = min(beside, place, len(line.values) - 1 - place)
        around = line.values[place - reach : place + reach + 1]
        some = [value for value in around if value is not None]
        means.append(sum(some) / len(some) if some else None)
    return Line(steps=line.steps, values=tuple(means))


def figure_of(curves: Sequence[Curve]) -> "Figure":
    """The picture: losses above, learning rates below, over the same steps."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [5, 1]})
    for place, curve in enumerate(curves):
        _draw_losses(losses, curve, f"C{place}", several=len(curves) > 1)
        _draw(rates, curve.learning_rate, color=f"C{place}", linewidth=1, alpha=0.6)
    drawn = [value for curve in curves for _, value in (*curve.training.known, *curve.validation.known)]
    if min(drawn) > 0 and max(drawn) / min(drawn) >= _LOGARITHMIC:
        losses.set_yscale("log")
        losses.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        losses.yaxis.set_major_formatter(FuncFormatter(_plain))
        losses.yaxis.set_minor_formatter(FuncFormatter(_plain))
    losses.set_ylabel("loss")
    rates.set_ylabel("learning\nrate", fontsize="small")
    rates.set_xlabel("step")
    rates.set_ylim(bottom=0)
    rates.xaxis.set_major_formatter(FuncFormatter(_plain))
    rates.yaxis.set_major_formatter(FuncFormatter(_plain))
    for axes in (losses, rates):
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    losses.legend(frameon=False)
    return figure


def _plain(value: float, place: int | None = None) -> str:
    """A number on an axis, as people write it."""
    return f"{value:,.0f}" if value == round(value) and abs(value) >= 1 else f"{value:g}"


def _draw_losses(axes: "Axes", curve: Curve, colour: str, *, several: bool) -> None:
    # of a name, mathematics would be parsed, and a label that begins with "_" would not be shown
    named = ", " + curve.name.replace("$", r"\$") if several else ""
    if curve.window > 1:
        _draw(axes, curve.training, color=colour, linewidth=0.6, alpha=0.4)
    mean = f", mean of {number(curve.window, 'line')}" if curve.window > 1 else ""
    _draw(axes, curve.mean, color=colour, linewidth=1.6, label=f"training{named}{mean}")
    if curve.validation.known:
        other = colour if several else "C1"
        style = {"linestyle": "--", "marker": "o", "markersize": 3, "linewidth": 1.2}
        _draw(axes, curve.validation, color=other, label=f"validation{named}", **style)


def _draw(axes: "Axes", line: Line, **style: Any) -> None:
    gaps = [float("nan") if value is None else value for value in line.values]
    if len(line.known) == 1:  # a line of one point is nothing to be seen
        style = {"marker": "o", "markersize": 3, **style}
    axes.plot(line.steps, gaps, **style)


def write_figure(curves: Sequence[Curve], out: Path) -> None:
    """Draw the runs into a file of the kind that its name says.

    Raises:
        UsageProblem: there is no such kind.
        FoleyproofError: matplotlib is missing.
        NoSpace, NotWritable: what was there is as it was.
    """
    refuse_kind(out)
    if importlib.util.find_spec("matplotlib") is None:
        raise FoleyproofError(
            "matplotlib: not installed here, expected it where curves are drawn — run: "
            "pip install 'foleyproof[train]'; --json without --out needs none"
        )
    from matplotlib import style

    # nobody's own settings; and names inside an SVG that do not change from time to time
    with style.context(["default", {"svg.hashsalt": "foleyproof"}]), replacing(out) as temporary:
        suffix = out.suffix.lower()
        figure_of(curves).savefig(temporary, format=suffix[1:], metadata=_ABOUT[suffix])


def refuse_kind(out: Path) -> None:
    """Raise UsageProblem where the name says no kind of picture that is known."""
    if out.suffix.lower() not in _ABOUT:
        kinds = ", ".join(_ABOUT)
        raise UsageProblem(f"--out {out}, expected a name that ends in one of {kinds} — give one")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The picture to write, *.png, *.svg or *.pdf; without it the numbers alone.",
)
@options.as_json
def curve(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Draw the loss of runs over their steps, and tell where it began and ended.

    RUN is the folder of a run, also of one that goes on at the moment. With --json come all numbers
    that are drawn.

    \b
    Example: python -m training.curve runs/S-16k --out loss.png
    """
    if out is not None:
        refuse_kind(out)  # before anything is read
    names = [one.resolve().name for one in runs]
    told = (name if names.count(name) == 1 else str(one) for name, one in zip(names, runs, strict=True))
    curves = [curve_of(one, name=name) for one, name in zip(runs, told, strict=True)]
    if out is not None:
        write_figure(curves, out)
    lines = sum(len(one.training.steps) + len(one.validation.steps) for one in curves)
    finish(
        {
            "command": "curve",
            "out": None if out is None else str(out),
            "runs": [one.document() for one in curves],
        },
        as_json,
        text=_table(curves),
        summary=("" if out is None else f"{out}: ")
        + f"{number(len(curves), 'run')}, {number(lines, 'line')} of their logs",
        next_steps=(_next(curves[0]),),
    )


def _table(curves: Sequence[Curve]) -> str:
    header = ["run", "steps", "first loss", "last loss", "last validation", "best validation", "at step"]
    rows = []
    for one in curves:
        known, validated = one.training.known, one.validation.known
        row: list[str | int | None] = [
            one.name,
            known[-1][0],
            f"{known[0][1]:.4f}",
            f"{known[-1][1]:.4f}",
        ]
        if validated:
            best_step, best = min(validated, key=lambda entry: entry[1])
            row += [f"{validated[-1][1]:.4f}", f"{best:.4f}", best_step]
        rows.append(row + [None] * (len(header) - len(row)))
    if not any(one.validation.known for one in curves):
        header, rows = header[:4], [row[:4] for row in rows]
    return render(header, rows)


def _next(first: Curve) -> str:
    out = first.model or "weights"
    return f"python -m training.export {shlex.quote(first.run)} --out {shlex.quote(out)}"


if __name__ == "__main__":
    sys.exit(run(curve, "training.curve"))
