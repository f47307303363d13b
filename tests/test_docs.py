"""What the READMEs say is true: commands run, every command and reason is explained."""

import re
import shlex
from pathlib import Path

import click
import pytest

import features.cli
import training.curve
import training.ema
import training.export
import training.launch
from curation import cli
from curation.verdict import Reason

ROOT = Path(__file__).resolve().parent.parent
READMES = sorted(
    path for path in ROOT.rglob("README.md") if not {".venv", "demo", "dist"} & set(path.parts)
)
GROUPS = {"curate": cli.curate, "features": features.cli.features}
DOORS: dict[str, click.Command] = {
    "launch": training.launch.launch,
    "ema": training.ema.ema,
    "export": training.export.export,
    "curve": training.curve.curve,
}


def _console_lines(text: str) -> list[str]:
    """The lines of all `console` blocks: commands behind `$ `, and what they print."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.S)
    return [line.rstrip() for block in blocks for line in block.splitlines() if line.strip()]


def test_every_command_has_help_and_is_in_a_readme() -> None:
    texts = "\n".join(path.read_text(encoding="utf-8") for path in READMES)
    named = [
        (f"{tool} {name}", command)
        for tool, group in GROUPS.items()
        for name, command in cli.commands(group)
    ]
    named += [(f"python -m training.{name}", command) for name, command in DOORS.items()]
    for name, command in named:
        assert name in texts, f"no README mentions {name}"
        assert command.help, name
        assert command.help.split("\n")[0].endswith("."), f"{name}: first line is no sentence"
        assert "Example" in command.help, f"{name}: help has no example"


def test_every_reason_is_explained() -> None:
    folders = ("curation", "features")
    text = "".join((ROOT / name / "README.md").read_text(encoding="utf-8") for name in folders)
    for reason in Reason:
        assert f"`{reason}`" in text, f"no README of {folders} explains {reason}"


def test_front_page_is_short() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= 600, f"{len(words)} words"


def test_links_of_readmes_lead_somewhere() -> None:
    for path in READMES:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path}: {target}"


@pytest.mark.parametrize("path", READMES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_of_readmes_run_and_print_what_stands_there(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In order, in an empty folder, each to its end; every line shown is a line printed."""
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    for line in _console_lines(path.read_text(encoding="utf-8")):
        if not line.startswith("$ "):
            assert line in (*printed, "…"), f"{path}: not printed: {line}"
            continue
        printed.clear()
        for command in line[2:].split("&&"):
            words = shlex.split(command, comments=True)
            assert _run(words) in (0, 3), command  # 3: done, and most of the corpus has no media
            printed += [text.rstrip() for text in capsys.readouterr().out.splitlines()]
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.S):
        exec(compile(block, str(path), "exec"), {})  # on what the commands above built


def _run(words: list[str]) -> int:
    if words[:2] == ["python", "-m"]:
        command, given = DOORS[words[2].removeprefix("training.")], words[3:]
    else:
        command, given = GROUPS[words[0]], words[1:]
    try:
        return int(command.main(given, prog_name=words[0], standalone_mode=False) or 0)
    except click.exceptions.Exit as error:
        return error.exit_code
