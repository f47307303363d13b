"""Exports of a run: exact weights in the released layout, and a card that says what they are."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_disk import mounted
from some_checkpoints import ABOUT, same, whole
from torch import Tensor

from curation.console import run as run_command
from training.config import PRESETS
from training.export import export
from training.model.adapters import adapters, add_adapters
from training.model.released import from_released
from training.model.variants import VARIANTS, Switches
from training.network import Network, load_network, released_state
from training.state.about import About
from training.state.exported import released_weights
from training.state.folders import step_folder
from training.state.imported import imported
from training.state.pieces import WEIGHTS, averages
from training.state.reading import opened
from training.state.stored import Checkpoints


def some_network(seed: int, **switches: Any) -> Network:
    with torch.device("meta"):
        network = Network(VARIANTS["tiny_16k"], Switches(**switches))
    generator = torch.Generator().manual_seed(seed)
    state = {n: torch.randn(t.shape, generator=generator) for n, t in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network


def saved_run(run: Path, *, about: About = ABOUT, **states: dict[str, Tensor]) -> Path:
    """A run with a checkpoint for each step of `states`, named as s10; all by prefix."""
    with Checkpoints(run, about=about, keep=9) as checkpoints:
        for name, state in states.items():
            checkpoints.save(int(name[1:]), whole(state))
    return run


def weights_and_averages(seed: int) -> dict[str, Tensor]:
    state = {}
    for number, prefix in enumerate((WEIGHTS, averages(0.05), averages(0.1))):
        network = some_network(seed + number)
        state |= {prefix + name: tensor for name, tensor in network.state_dict().items()}
    return state


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return saved_run(folder, s10=weights_and_averages(10), s20=weights_and_averages(20))


def command(*words: object) -> int:
    argv = sys.argv
    sys.argv = ["training.export", *map(str, words)]
    try:
        return run_command(export, "training.export")
    finally:
        sys.argv = argv


@pytest.mark.parametrize("form", ["safetensors", "pth"])
@pytest.mark.parametrize(
    ("words", "seed"),
    [([], 20), (["--step", 10], 10), (["--ema", "0.05"], 21), (["--ema", "0.1", "--step", 10], 12)],
)
def test_what_is_exported_is_the_network_exactly(
    form: str, words: list[Any], seed: int, run: Path, tmp_path: Path
) -> None:
    assert command(run, "--out", tmp_path, "--format", form, *words) == 0
    expected = released_state(some_network(seed))
    name = "model.safetensors" if form == "safetensors" else "tiny_16k.pth"
    if form == "pth" and "--ema" in words:
        name = f"tiny_16k_ema_{words[words.index('--ema') + 1]}.pth"
    path = tmp_path / name
    found = load_file(path) if form == "safetensors" else torch.load(path, weights_only=True)
    same(found, expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "README.md", "config.json"])
    same(released_state(load_network("tiny_16k", found)), expected)
    assert path.stat().st_size < 1.02 * sum(t.nbytes for t in expected.values()) + 50_000, "once each"
    same(imported(path, []).weights, expected)


def test_adapters_go_into_the_weights_they_are_on(tmp_path: Path) -> None:
    about = replace(ABOUT, config={**ABOUT.config, "lora_rank": 3, "lora_alpha": 6.0})
    network = some_network(1)
    beneath = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    add_adapters(network, rank=3, alpha=6.0, seed=0)
    expected, changes = dict(beneath), {}
    for name, adapter in adapters(network):
        torch.nn.init.normal_(adapter.up)
        delta = 2.0 * (adapter.up.detach() @ adapter.down.detach())
        expected[name] = beneath[name] + delta.view(beneath[name].shape)
        changes[name] = adapter
    state = {WEIGHTS + name: tensor for name, tensor in network.state_dict().items()}
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    average = {averages(0.1) + name: torch.zeros_like(p) for name, p in trained.items()}
    saved_run(tmp_path / "run", about=about, s5=state | average)
    stored = opened(step_folder(tmp_path / "run", 5))
    found = from_released(released_weights(stored))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)
        assert torch.equal(found[name], beneath[name]) == (name not in changes)
    # beside adapters, these alone are averaged: here to nothing
    same(from_released(released_weights(stored, sigma_rel=0.1)), beneath)


def network_of(card: str) -> Any:
    """What the code on a card makes."""
    code = card.partition("```python\n")[2].partition("```")[0]
    made: dict[str, Any] = {}
    exec(code, made)
    return made["network"]


def test_another_fill_is_exported_with_what_it_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = replace(ABOUT, config={**ABOUT.config, "fill": "learned"})
    network = some_network(4, fill="learned")
    state = {WEIGHTS + name: tensor for name, tensor in network.state_dict().items()}
    run = saved_run(tmp_path / "run", about=about, s5=state)
    out = tmp_path / "out"
    assert command(run, "--out", out) == 0
    same(load_file(out / "model.safetensors"), released_state(network))
    card = (out / "README.md").read_text()
    monkeypatch.chdir(out)
    same(released_state(network_of(card)), released_state(network))
    assert 'MMAudio has no network with these switches (fill="learned")' in card


@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_the_code_on_the_card_loads_the_weights(
    form: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(run, "--out", tmp_path, "--format", form) == 0
    monkeypatch.chdir(tmp_path)
    found = network_of((tmp_path / "README.md").read_text())
    same(released_state(found), released_state(some_network(20)))


def test_what_is_said_is_what_was_saved(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(run, "--out", tmp_path, "--ema", 0.1, "--json") == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    config = PRESETS["tiny-16k"]
    assert (told["command"], told["variant"], told["step"], told["sigma_rel"]) == (
        "export", "tiny_16k", 20, 0.1,
    )  # fmt: skip
    assert told["config_digest"] == config.digest()
    assert told["certificate"] == "sha256:def"
    assert told["files"][0] == str(tmp_path / "model.safetensors")
    assert (
        "next: python -m training.launch --model tiny-16k --shards DIR --run ANOTHER --init " in said.err
    )
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["config"] == config.document()
    assert (document["step"], document["sigma_rel"], document["certificate"]) == (
        20, 0.1, ABOUT.certificate,
    )  # fmt: skip
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        ((key, value),) = file.metadata().items()
    assert key == "foleyproof"
    assert json.loads(value) == {
        "format": "foleyproof-weights/1", "variant": "tiny_16k", "step": "20", "sigma_rel": "0.1",
        "config_digest": config.digest(), "origin": "scratch",
    }  # fmt: skip
    assert imported(tmp_path / "model.safetensors", []).origin == "scratch"


def test_the_same_export_is_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "a"):
        assert command(run, "--out", tmp_path / name, "--replace") == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--ema", "0.08", "--out", "x"],
            "keeps averages of the widths 0.05, 0.1, expected one",
        ),
        (["--step", "15", "--out", "x"], "no checkpoint of step 15, expected one of 10, 20"),
        (["--out", "."], "is where the run keeps its own files"),
        (["--out", "checkpoints/step-00000010"], "is where the run keeps its own files"),
        ([], "Missing option '--out'"),
        (["--out", "x", "--format", "bin"], "'bin' is not one of 'safetensors', 'pth'"),
    ],
)
def test_what_cannot_be_exported_is_told_and_leaves_nothing(
    words: list[str],
    message: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run)
    before = sorted(run.rglob("*"))
    assert command(run, *words) == 2
    assert message in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


def test_exports_are_replaced_only_where_it_is_asked_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    for more in ((), ("--replace",)):
        assert command(run, "--out", tmp_path, *more) == 2
        assert "README.md there already by something else, expected a folder without — give another" in (
            capsys.readouterr().err
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "notes.txt"]
    (tmp_path / "README.md").unlink()
    assert command(run, "--out", tmp_path) == 0
    (tmp_path / "README.md").write_text("of an export, changed")
    assert command(run, "--out", tmp_path) == 2
    assert (
        "README.md, config.json there already, expected a folder without — give another, or --rep"
        in (capsys.readouterr().err)
    )
    assert command(run, "--out", tmp_path, "--replace") == 0
    assert command(run, "--out", tmp_path / "notes.txt") == 2
    assert "notes.txt: is a file, expected a folder to write to" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text().startswith("---\nlicense: other\n")
    assert (tmp_path / "notes.txt").read_text() == "mine too"


def test_adapters_are_written_as_safetensors_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(run, "--out", tmp_path / "a.pth", "--adapters", "--format", "pth") == 2
    assert "--format pth with --adapters, expected safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_full_disk_ends_with_14(
    form: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path, 1000):
        assert command(run, "--out", tmp_path / "out", "--format", form) == 14
        assert "no space left" in capsys.readouterr().err
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_run_without_checkpoints_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "--out", tmp_path / "out") == 2
    assert "holds no checkpoints, expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_part_of_a_network_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {f"{WEIGHTS}{n}": t for n, t in some_network(1).state_dict().items() if "fused" not in n}
    run = saved_run(tmp_path / "run", s1=state)
    assert command(run, "--out", tmp_path / "out") == 1
    assert "lacks 22 tensors of tiny_16k (fused_blocks.0.attn.qkv.weight" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, training.export; "
        "print([m for m in ('torch', 'numpy', 'safetensors', 'pyarrow') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
