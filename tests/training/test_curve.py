"""`python -m training.curve`: what it draws, what it says, and that equal logs give equal bytes."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from curation import console
from training import curve
from training.curve import Curve, Line, curve_of, figure_of, running_mean
from training.run.stats import FILE, Stats


def logged(run: Path, losses: list[float], *, validated: dict[int, float] | None = None) -> Path:
    """The log of a run that told of every tenth step."""
    run.mkdir(parents=True, exist_ok=True)
    with Stats(run, resumed_step=0) as stats:
        stats.add("begin", 0, model="tiny-16k")
        for number, loss in enumerate(losses, 1):
            stats.add("training", 10 * number, loss=loss, learning_rate=1e-5 * number)
        for step, loss in (validated or {}).items():
            stats.add("validation", step, loss=loss, num_samples=4)
    return run


def command(*words: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["training.curve", *map(str, words)])
    return console.run(curve.curve, "training.curve")


def axes_of(*curves: Curve) -> list[Axes]:
    return figure_of(curves).axes


def drawn(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """Steps and values of each line, as matplotlib has them."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]  # type: ignore[arg-type]


# ---- the numbers ------------------------------------------------------------------------------------


def test_losses_and_rates_over_steps_are_what_is_drawn(tmp_path: Path) -> None:
    run = logged(tmp_path / "run", [2.0, 1.5, 1.25], validated={10: 2.5, 30: 1.75})
    losses, rates = axes_of(curve_of(run))
    assert drawn(losses) == [([10, 20, 30], [2.0, 1.5, 1.25]), ([10, 30], [2.5, 1.75])]
    assert drawn(rates) == [([10, 20, 30], pytest.approx([1e-5, 2e-5, 3e-5]))]


def test_running_mean_takes_as_many_on_either_side() -> None:
    line = Line(steps=(1, 2, 3, 4, 5, 6), values=(1.0, 3.0, 5.0, 9.0, 7.0, 2.0))
    assert running_mean(line, 2).values == (1.0, 3.0, 5.0, 26 / 5, 6.0, 2.0)
    assert running_mean(line, 0) == line


def test_running_mean_of_a_straight_line_is_that_line() -> None:
    line = Line(steps=tuple(range(50)), values=tuple(float(n) for n in range(50)))
    assert running_mean(line, 3).values == pytest.approx(line.values)


def test_long_logs_get_a_mean_and_a_thin_line_of_all_that_was_told(tmp_path: Path) -> None:
    losses = [1.0 + n % 2 for n in range(200)]
    found = curve_of(logged(tmp_path / "run", losses))
    assert found.window == 11
    thin, mean = axes_of(found)[0].get_lines()
    assert list(thin.get_ydata()) == losses  # type: ignore[arg-type]
    assert thin.get_linewidth() < mean.get_linewidth()
    inner = list(mean.get_ydata())[5:-5]  # type: ignore[arg-type]
    assert inner == pytest.approx([1.5] * 190, abs=0.05)


def test_losses_that_are_not_finite_are_gaps(tmp_path: Path) -> None:
    found = curve_of(logged(tmp_path / "run", [2.0, float("nan"), 1.0]))
    assert found.training.values == (2.0, None, 1.0)
    assert found.mean.values == (2.0, None, 1.0)
    values = drawn(axes_of(found)[0])[0][1]
    assert values[1] != values[1], "NaN, where matplotlib draws nothing"
    assert figure_of([found]) is not None


def test_losses_of_one_run_on_another_lie_in_one_picture_with_their_names(tmp_path: Path) -> None:
    first = curve_of(logged(tmp_path / "_first", [2.0, 1.0], validated={20: 3.0}))
    second = curve_of(logged(tmp_path / "cost_$x^$", [1.0, 0.5]))
    axes = axes_of(first, second)[0]
    legend = axes.get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["training, _first", "validation, _first", r"training, cost_\$x^\$"]
    assert len({line.get_color() for line in axes.get_lines()}) == 2


@pytest.mark.parametrize(
    ("losses", "scale"), [([9.0, 1.0], "log"), ([2.0, 1.0], "linear"), ([9.0, 0.0], "linear")]
)
def test_the_axis_is_logarithmic_where_losses_are_far_apart(
    tmp_path: Path, losses: list[float], scale: str
) -> None:
    assert axes_of(curve_of(logged(tmp_path / "run", losses)))[0].get_yscale() == scale


# ---- the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_pictures_of_equal_logs_are_equal_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, begin: bytes
) -> None:
    run = logged(tmp_path / "run", [2.0, 0.25], validated={20: 0.5})
    made = [tmp_path / f"{name}.{suffix}" for name in ("first", "second")]
    for out in made:
        assert command(run, "--out", out, monkeypatch=monkeypatch) == 0
    assert made[0].read_bytes().startswith(begin)
    assert made[0].read_bytes() == made[1].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"run", *(path.name for path in made)}


def test_it_tells_where_losses_began_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(tmp_path / "some", [2.0, 0.25], validated={10: 0.5, 20: 0.75})
    logged(tmp_path / "other", [3.0])
    monkeypatch.chdir(tmp_path)
    assert command("some", "other", "--out", "loss.svg", monkeypatch=monkeypatch) == 0
    out, err = capsys.readouterr()
    assert [re.split(r"\s{2,}", line) for line in out.splitlines()] == [
        ["run", "steps", "first loss", "last loss", "last validation", "best validation", "at step"],
        ["some", "20", "2.0000", "0.2500", "0.7500", "0.5000", "10"],
        ["other", "10", "3.0000", "3.0000", "–", "–", "–"],  # noqa: RUF001
        ["loss.svg: 2 runs, 5 lines of their logs"],
    ]
    assert "next: python -m training.export some --out tiny-16k" in err


def test_json_has_all_numbers_and_needs_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = logged(tmp_path / "run", [2.0, float("inf")], validated={20: 0.5})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command(run, "--json", monkeypatch=monkeypatch) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["out"] is None
    assert document["runs"] == [
        {
            "run": str(run),
            "model": "tiny-16k",
            "training": {
                "steps": [10, 20],
                "loss": [2.0, None],
                "running_mean": [2.0, None],
                "window": 1,
            },
            "validation": {"steps": [20], "loss": [0.5]},
            "learning_rate": {"steps": [10, 20], "learning_rate": [1e-5, 2e-5]},
        }
    ]


def test_runs_of_one_name_are_told_apart_by_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("a", "b"):
        logged(tmp_path / place / "run", [1.0])
    monkeypatch.chdir(tmp_path)
    assert command("a/run", "b/run", monkeypatch=monkeypatch) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:3]] == ["a/run", "b/run"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none"], 2, "none: no such folder, expected the folder of a run"),
        (["empty"], 2, r"empty: no stats\.jsonl in it, expected the folder of a run"),
        (["young"], 2, "has no losses yet, expected a line for each log_every steps"),
        (["run", "--out", "loss.jpg"], 2, r"--out loss\.jpg, expected a name that ends in one of \.png"),
        (["none", "--out", "loss"], 2, r"--out loss, expected a name that ends in"),
        (["run", "--out", "empty/x.png/loss.png"], 1, r"empty/x\.png"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_written(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logged(tmp_path / "run", [1.0])
    logged(tmp_path / "young", [])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.png").touch()  # a file where a folder should be
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert command(*words, monkeypatch=monkeypatch) == code
    out, err = capsys.readouterr()
    assert re.search(message, err)
    assert not out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    run = logged(tmp_path / "run", [2.0, 1.0])
    with (run / FILE).open("a", encoding="utf-8") as stream:
        stream.write('{"kind": "training", "step": 30, "lo')
    assert curve_of(run).training.steps == (10, 20)


def test_matplotlib_that_is_missing_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = logged(tmp_path / "run", [1.0])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command(run, "--out", tmp_path / "loss.png", monkeypatch=monkeypatch) == 1
    assert "matplotlib: not installed here" in (err := capsys.readouterr().err)
    assert "pip install 'foleyproof[train]'" in err


def test_help_draws_and_computes_with_nothing() -> None:
    heavy = ("torch", "numpy", "matplotlib", "pyarrow", "duckdb")
    program = (
        "import sys\nfrom training.curve import curve\n"
        "try: curve(['--help'])\nexcept SystemExit as end: assert not end.code\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "Draw the loss of runs over their steps" in said
    assert "Example: python -m training.curve" in said
    assert said.endswith("[]\n")


def test_drawing_needs_no_torch_and_no_display(tmp_path: Path) -> None:
    run = logged(tmp_path / "run", [1.0])
    program = (
        "import sys\nfrom pathlib import Path\nfrom training.curve import curve_of, write_figure\n"
        f"write_figure([curve_of(Path({str(run)!r}))], Path({str(tmp_path / 'loss.png')!r}))\n"
        "print([name for name in ('torch', 'matplotlib.pyplot', 'tkinter') if name in sys.modules])"
    )
    environment = {"MPLBACKEND": "TkAgg", "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert said.stdout == "[]\n", said.stderr
