"""Stored profiles, and the command that makes averages of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from some_profiles import same, some_profiles, write_profiles

from curation.console import run
from curation.errors import UsageProblem, WrongWeights
from training.ema import SIGMAS, ema, synthesize
from training.state.profiles import profile_name, profiles_in


def test_a_folder_is_read_as_the_same_profiles_in_memory(tmp_path: Path) -> None:
    profiles = some_profiles(5, 10, 100)  # as text, 100 comes before 5
    wanted = synthesize(profiles, 0.08, 100)
    run_folder = write_profiles(tmp_path / "run" / "ema", profiles).parent
    (run_folder / "ema" / "100-0.05.safetensors.tmp-77").write_text("half written")
    (run_folder / "config.json").write_text("{}")
    for place in (run_folder, str(run_folder), run_folder / "ema"):
        same(synthesize(place, 0.08, 100), wanted)
    assert [(one.step, one.sigma_rel) for one in profiles_in(run_folder)] == [
        (step, sigma) for sigma in SIGMAS for step in (5, 10, 100)
    ]


def test_published_profiles_are_read_without_what_surrounds_them(tmp_path: Path) -> None:
    profiles = some_profiles(5, 10)
    folder = tmp_path / "ema_ckpts"
    folder.mkdir()
    for step, sigma, tensors in profiles:
        state: dict[str, Any] = {f"ema_model.{name}": tensor for name, tensor in tensors.items()}
        state["_extra_state"] = {"initted": True, "step": step}
        torch.save(state, folder / f"{SIGMAS.index(sigma)}.{step}.pt")
    same(synthesize(tmp_path, 0.08, 10), synthesize(profiles, 0.08, 10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 and then nothing", "cannot be read"),
        ({"weight": torch.ones(2)}, "no tensor under a name that begins with ema_model"),
        ([torch.ones(2)], "no tensor under a name that begins with ema_model"),
        ({"ema_model.a": Path("x")}, "asks to run pathlib.PosixPath .* expected tensors, numbers"),
    ],
)
def test_published_profiles_that_are_none_are_refused(
    content: object, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "0.10.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WrongWeights, match=message) as raised:
        synthesize(tmp_path, 0.05, 10)
    assert str(path) in str(raised.value)


def test_a_damaged_profile_is_named(tmp_path: Path) -> None:
    write_profiles(tmp_path, some_profiles(10, 20))
    damaged = tmp_path / profile_name(10, 0.1)
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.raises(WrongWeights, match=f"{damaged}.* truncated or damaged"):
        synthesize(tmp_path, 0.08, 20)


def test_a_track_whose_width_nobody_knows_is_refused(tmp_path: Path) -> None:
    torch.save({"ema_model.a": torch.ones(2)}, tmp_path / "2.10.pt")
    with pytest.raises(UsageProblem, match=r"2\.10\.pt: of track 2, expected 0 .* or 1"):
        synthesize(tmp_path, 0.05, 10)


def test_folders_without_profiles_say_what_they_should_hold(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="no such folder, expected that of a run"):
        synthesize(tmp_path / "missing", 0.05, 10)
    (tmp_path / "ema").mkdir()
    with pytest.raises(UsageProblem, match=r"no profiles .* ema/5000-0\.05\.safetensors or ema_ckpts"):
        synthesize(tmp_path, 0.05, 10)


def command(*words: object) -> int:
    argv = sys.argv
    sys.argv = ["training.ema", *map(str, words)]
    try:
        return run(ema, "training.ema")
    finally:
        sys.argv = argv


def test_the_command_writes_the_average(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profiles = some_profiles(10, 20)
    write_profiles(tmp_path / "ema", profiles)
    out = tmp_path / "made" / "ema.safetensors"
    assert command(tmp_path, "--sigma", 0.08, "--out", out, "--json") == 0
    same(load_file(out), synthesize(profiles, 0.08, 20))
    told = json.loads(capsys.readouterr().out)
    assert (told["step"], told["sigma_rel"], told["out"]) == (20, 0.08, str(out))
    assert sum(one["weight"] for one in told["profiles"]) == pytest.approx(1, abs=0.05)
    former = out.read_bytes()
    words = (tmp_path, "--sigma", 0.08, "--step", 20, "--out", out)
    assert command(*words) == 2
    assert "is there already, expected the file to write — give another, or --replace" in (
        capsys.readouterr().err
    )
    assert command(*words, "--replace") == 0
    assert out.read_bytes() == former, "the same command makes the same bytes"
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}\nwidth 0.08 at step 20: 2 tensors, ")
    assert f" --run ANOTHER --init {out}" in said.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--out", "x.pth"], 2, "expected a name that ends in .safetensors"),
        (["--out", "ema/x.safetensors"], 2, "lies among the profiles and would be taken for one"),
        (["--sigma", "0", "--out", "x.safetensors"], 2, "width 0, expected a number above 0"),
        (["--step", "30", "--out", "x.safetensors"], 2, "step 30, expected one after 0 and up to 20"),
        ([], 2, "Missing option '--out'"),
    ],
)
def test_the_command_refuses_what_cannot_be(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_profiles(tmp_path / "ema", some_profiles(10, 20))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert command(tmp_path, *words) == code
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_help_needs_nothing_that_computes() -> None:
    code = (
        "import sys\nfrom training.ema import ema\n"
        "try: ema(['--help'])\nexcept SystemExit as end: assert not end.code\n"
        "print([name for name in ('torch', 'numpy') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "Make averaged weights of any width" in said
    assert said.endswith("[]\n")
