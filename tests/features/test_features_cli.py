"""The commands of `features` as people and scripts meet them: help, exit codes, one JSON document.

The options are frozen in options.txt, so that changing one is a decision:
`PYTHONPATH=tests/curation python tests/features/test_features_cli.py > tests/features/options.txt`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from option_lines import option_lines
from small_clips import row, write_manifest
from small_shards import sealed_folder

from curation import console
from curation.cli import commands
from curation.errors import UsageProblem
from curation.files import digest_of, sha256_file
from features import cli
from features.extraction import extract

OPTIONS = Path(__file__).with_name("options.txt")
COMMANDS = dict(commands(cli.features))
HEAVY = ("torch", "duckdb", "av", "pandas", "pyarrow", "numpy", "ray", "safetensors")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `features …`; exit code, stdout, stderr."""

    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["features", *map(str, words)])
        code = console.run(cli.features, "features")
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_design_is_there() -> None:
    assert set(COMMANDS) == {"extract", "seal", "verify", "info", "import", "export", "weights"}


# ---- help -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_a_sentence_and_shows_an_example(name: str, features: Run) -> None:
    code, out, _ = features(name, "--help")
    sentence = (COMMANDS[name].help or "").split("\n")[0]
    assert code == 0
    assert re.fullmatch(r"[A-Z].*[^.]\.", sentence)
    assert f"Example: features {name}" in out
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
            assert parameter.help.endswith("."), f"{name} {parameter.opts[0]}"


def test_options_are_those_of_the_frozen_list() -> None:
    assert options() == OPTIONS.read_text(encoding="utf-8"), f"changed: see {Path(__file__).name}"


def options() -> str:
    """Every command with its arguments and options, a line each."""
    return option_lines("features", COMMANDS)


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys; from features.cli import features; from curation.console import run; "
        "code = run(features, 'features'); "
        f"print('heavy:', *sorted(set({HEAVY}) & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"


# ---- exit codes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, ("--help",)),
        (0, ("--version",)),
        (2, ()),
        (2, ("nonsense",)),
        (2, ("extract", "--sr", "48000")),
        (2, ("extract", "--nonsense")),
        (2, ("extract", "--task", "2/2")),
        (2, ("seal", "nowhere")),
        (2, ("verify", "nowhere")),
        (2, ("info", "nowhere")),
        (2, ("import",)),
        (2, ("export", "nowhere", "--to", "there")),
        (0, ("weights",)),
    ],
)
def test_command_ends_with_its_exit_code(
    code: int, words: tuple[str, ...], here: Path, features: Run
) -> None:
    found, _, err = features(*words)
    assert found == code, err


def test_bare_extract_names_the_command_that_makes_what_is_missing(here: Path, features: Run) -> None:
    code, out, err = features("extract", "--sr", "44100")
    assert (code, out) == (2, "")
    assert "there is no clean manifest below manifests" in err
    assert "run: curate clean --test vggsound,audiocaps" in err
    folder = here / "manifests" / "clean" / "paper"
    write_manifest(folder / "kept.parquet", [row("films", "a")])
    (folder / "certificate.json").write_text("{}")
    code, _, err = features("extract", "--sr", "44100")
    assert code == 2
    assert "there is no folder ./media" in err
    assert "the same command with --media DIR" in err
    (here / "media").mkdir()
    code, _, err = features("extract", "--sr", "44100")
    assert code == 13, "that is no certificate"


def test_extract_without_weights_names_the_command_that_fetches_them(here: Path, features: Run) -> None:
    write_manifest(here / "manifests" / "films" / "clips.parquet", [row("films", "a")], dataset="films")
    (here / "media").mkdir()
    code, _, err = features("extract", "--manifest", "films")
    assert code == 2
    assert (
        "features weights --fetch v1-44.pth open_clip_pytorch_model.bin synchformer_state_dict.pth "
        "--weights weights"
    ) in err


WITHOUT_TORCH = """
import sys
for name in ("torch", "torchaudio", "torchvision", "open_clip", "safetensors"):
    sys.modules[name] = None  # as where it is not installed
from features.cli import main
main()
"""
COMPUTING: tuple[tuple[str, ...], ...] = (
    ("extract",),
    ("seal", "shards"),
    ("verify", "shards"),
    ("info", "shards"),
    ("import", "memmap", "--out", "shards"),
    ("export", "shards", "--to", "memmap"),
    ("weights", "--check"),
    ("weights", "--fetch", "--yes"),
)


def without_torch(*words: str, here: Path) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", WITHOUT_TORCH, *words]
    return subprocess.run(program, capture_output=True, text=True, cwd=here)


@pytest.mark.parametrize("words", COMPUTING, ids=" ".join)
def test_without_torch_the_command_that_installs_it_is_named(words: tuple[str, ...], here: Path) -> None:
    done = without_torch(*words, here=here)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "features: torch, torchaudio, torchvision, open_clip, safetensors: not installed here, expected "
        "what `features` computes with — run: pip install 'foleyproof[train]'\n"
    )


def test_without_torch_help_and_the_list_of_weights_are_shown(here: Path) -> None:
    assert {words[0] for words in COMPUTING} == set(COMMANDS)
    for words in (("weights",), *((name, "--help") for name in COMMANDS)):
        done = without_torch(*words, here=here)
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--devices", "cuda:0,cpu"), "expected cpu, or some of the"),
        (("--devices", "cuda:77"), "expected cpu, or some of the"),
        (("--tiny",), "--tiny without --untrained SEED"),
        (("--reject", "ugly"), "ugly: no flag, expected some of no_picture"),
        (("--duration", "0.1"), "0.1 is not in the range 0.64<=x<=3600"),
        (("--part-s", "2"), "give longer parts"),
        (("--media", "nowhere"), "nowhere: no such folder"),
        (("--media-list", "nowhere.csv"), "no such file"),
        (("--manifest", "nothing"), "no such manifest"),
        (("--address", "here:6379"), "--address here:6379 with --engine local: expected it with"),
    ],
)
def test_option_that_means_nothing_is_told(
    words: tuple[str, ...], said: str, here: Path, features: Run
) -> None:
    write_manifest(here / "manifests" / "films" / "clips.parquet", [row("films", "a")], dataset="films")
    (here / "media").mkdir()
    untrained = () if "--tiny" in words else ("--untrained", "0", "--tiny")
    code, out, err = features("extract", "--manifest", "films", *untrained, *words)
    assert (code, out) == (2, ""), err
    assert said in err


def test_next_steps_are_quoted_and_name_what_is_there(here: Path, features: Run) -> None:
    sealed_folder(here / "my shards")
    for words, steps in (
        (("seal",), "features verify 'my shards'; features info 'my shards'"),
        (("info",), "features verify 'my shards'"),
        (("verify",), "features verify 'my shards' --full; features info 'my shards'"),
        (("verify", "--full"), "features info 'my shards'"),
    ):
        code, _, err = features(*words, "my shards")
        assert code == 0, err
        assert err.splitlines()[-1] == f"next: {steps}"


def test_weights_are_converted_before_processes_start(
    here: Path, features: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(
        here / "manifests" / "films" / "clips.parquet", [row("films", "a")], dataset="films",
        media=["{clip_id}.mp4"],
    )  # fmt: skip
    (here / "media").mkdir()
    (here / "media" / "a.mp4").write_bytes(b"film")

    def refuse(*told: Any, **more: Any) -> None:
        raise UsageProblem("not converted")

    monkeypatch.setattr(extract, "prepare", refuse)
    monkeypatch.setattr(extract, "LocalDevices", None)  # nobody is started
    words = ("extract", "--manifest", "films", "--untrained", "0", "--tiny", "--devices", "cpu")
    code, _, err = features(*words)
    assert (code, err) == (2, "features: not converted\n")


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_folder_without_a_file_of_any_clip_is_refused_dry_or_not(
    dry_run: tuple[str, ...], here: Path, features: Run
) -> None:
    write_manifest(
        here / "manifests" / "films" / "clips.parquet", [row("films", "a")], dataset="films",
        media=["{clip_id}.mp4"],
    )  # fmt: skip
    (here / "media").mkdir()
    (here / "media" / "film_a.mp4").write_bytes(b"film")
    words = ("--manifest", "films", "--untrained", "0", "--tiny", "--devices", "cpu", *dry_run)
    code, out, err = features("extract", *words)
    assert (code, out) == (2, ""), err
    assert "holds 1 media file, none of which is of one of the 1 clip of films" in err
    assert "(looked for a.mp4, found film_a.mp4)" in err


def test_rows_that_clean_removed_have_no_certificate_and_cards_are_found_by_manifests(
    here: Path, features: Run
) -> None:
    built, media = here / "built", here / "media"
    write_manifest(
        built / "films" / "clips.parquet", [row("films", "a")], dataset="films",
        media=["film_{clip_id}.mp4"],
    )  # fmt: skip
    media.mkdir()
    (media / "film_a.mp4").write_bytes(b"film")
    path = write_manifest(
        here / "far" / "away" / "clean" / "mine" / "excluded.parquet", [row("films", "a")]
    )
    outputs = {path.name: {"sha256": sha256_file(path)}}
    document: dict[str, Any] = {"config": {"tests": ["vggsound"]}, "outputs": outputs}
    sealed = {**document, "digest": digest_of(document)}
    (path.parent / "certificate.json").write_text(json.dumps(sealed))
    words = (
        "extract",
        "--manifest",
        path,
        "--untrained",
        "0",
        "--tiny",
        "--devices",
        "cpu",
        "--dry-run",
    )
    code, out, err = features(*words, "--manifests", built)
    assert code == 0, err
    assert "excluded.parquet: uncertified, rows that clean removed" in out
    assert "excluded.parquet: uncertified (rows that clean removed), expected kept.parquet" in err
    assert "no clips.parquet" not in err
    code, _, err = features(*words)
    assert code == 2
    assert "no clips.parquet of films beside it or in manifests" in err
    assert "(looked for a.mp4, found film_a.mp4)" in err


# ---- dry run ----------------------------------------------------------------------------------------


def test_dry_run_shows_the_plan_and_writes_nothing(here: Path, features: Run) -> None:
    rows = [row("films", "a", captions=["one"]), row("films", "b", captions=["two"])]
    write_manifest(
        here / "manifests" / "films" / "clips.parquet", rows, dataset="films", media=["{clip_id}.mp4"]
    )
    (here / "media").mkdir()
    for name in ("a", "spare"):
        (here / "media" / f"{name}.mp4").write_bytes(b"film")
    words = (
        "extract",
        "--manifest",
        "films",
        "--untrained",
        "7",
        "--tiny",
        "--devices",
        "cpu",
        "--dry-run",
    )
    before = sorted(here.rglob("*"))
    code, out, err = features(*words)
    assert code == 0, err
    assert out.splitlines()[-1] == (
        "2 clips = 1 found + 1 missing; 2 media files = 1 of clips + 1 unmatched"
    )
    for said in (
        "encoders: clip untrained:7:tiny",
        "1 of 1 task over 2 captions",
        "room: 797.4 kB expected",
    ):
        assert said in out
    code, out, err = features(*words, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["command"] == "extract"
    assert document["tasks"] == {"text": {"all": 1, "left": 1}, "clips": {"all": 1, "left": 1}}
    assert document["bytes"]["expected"] < document["bytes"]["free"]
    assert err.splitlines() == [document["summary"], err.splitlines()[-1]]
    assert sorted(here.rglob("*")) == before


if __name__ == "__main__":
    print(options(), end="")
