"""Weights and training checkpoints of MMAudio, as files that torch itself wrote."""

import json
import pickle
import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmaudio_files import FROZEN, LEGACY, NAMES, SHAPES, Training, written
from safetensors.torch import save_file
from some_checkpoints import same
from torch import Tensor

from curation.errors import BadWeights, FoleyproofError, UsageProblem, WrongWeights
from features.weights.checkpoint_files import write_safetensors
from training.model.released import trainable_names
from training.model.variants import VARIANTS
from training.network import build_network, load_network, released_state
from training.state import imported as imported_module
from training.state.imported import imported


@pytest.fixture
def trained() -> Training:
    training = Training()
    training.iterate(7)  # past the warm-up and a milestone
    return training


def without_tables(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name not in LEGACY}


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_bare_weights_are_read_without_the_tables_of_older_files(
    kind: str, trained: Training, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        save_file(trained.state(), path)
    else:
        written(path, trained.state(), _use_new_zipfile_serialization=kind == "zip")
    found = imported(path, NAMES)
    same(found.weights, without_tables(trained.state()))
    assert (found.file, found.step, found.moments, found.averages) == ("w.pth", None, {}, {})


def test_weights_that_are_read_are_those_of_a_network(tmp_path: Path) -> None:
    network = build_network(VARIANTS["tiny_16k"], seed=3)
    for buffer in network.buffers():
        buffer.fill_(0.5)
    given = released_state(network)
    found = imported(written(tmp_path / "w.pth", given), trainable_names(VARIANTS["tiny_16k"]))
    same(released_state(load_network("tiny_16k", found.weights)), given)


def test_a_training_checkpoint_goes_on_as_its_own_optimizer_would(
    trained: Training, tmp_path: Path
) -> None:
    """Moments by name in another optimizer, of another order, make the step that torch's makes."""
    found = imported(written(tmp_path / "c.pth", trained.checkpoint()), NAMES)
    assert (found.step, found.adam_step, found.averages_step) == (7, 7, 7)
    names = NAMES[::-1]
    parameters = [torch.nn.Parameter(found.weights[name].clone()) for name in names]
    optimizer = torch.optim.AdamW(
        parameters, lr=trained.optimizer.param_groups[0]["lr"], betas=(0.9, 0.95), eps=1e-6,
        weight_decay=1e-6, fused=True,
    )  # fmt: skip
    for name, parameter in zip(names, parameters, strict=True):
        first, second = found.moments[name]
        optimizer.state[parameter] = {
            "step": torch.tensor(float(found.adam_step)),
            "exp_avg": first.clone(),
            "exp_avg_sq": second.clone(),
        }
    trained.iterate()
    for name, parameter in zip(names, parameters, strict=True):
        parameter.grad = trained.weights[name].grad
    optimizer.step()
    after = {name: p.detach() for name, p in zip(names, parameters, strict=True)}
    same(after, {name: trained.weights[name].detach() for name in names})


def test_both_tracks_of_averages_are_read_by_their_width(trained: Training, tmp_path: Path) -> None:
    found = imported(written(tmp_path / "c.pth", trained.checkpoint()), NAMES)
    assert list(found.averages) == [0.05, 0.1]
    for averages, expected in zip(found.averages.values(), trained.averages, strict=True):
        same(averages, expected)


@pytest.mark.parametrize(
    ("it", "adam_steps", "step"),
    [
        (6, 7, 7),  # saved now and then: 6 was finished last
        (7, 7, 7),  # saved at the end: 7 is next
        (6, 9, 7),  # MMAudio went on twice from such a file, and repeated an iteration each time
        (0, 1, 1),
        (0, 0, 0),  # nothing was done
    ],
)
def test_a_run_goes_on_after_the_iteration_that_was_finished_last(
    it: int, adam_steps: int, step: int, tmp_path: Path
) -> None:
    training = Training()
    training.iterate(adam_steps)
    content = training.checkpoint() | {"it": it}
    found = imported(written(tmp_path / "c.pth", content), NAMES)
    assert (found.step, found.adam_step, found.averages_step) == (step, adam_steps, adam_steps)
    assert bool(found.moments) == bool(found.averages) == bool(adam_steps)


def test_a_checkpoint_at_its_end_says_so_by_the_steps_of_its_optimizer(
    trained: Training, tmp_path: Path
) -> None:
    now_and_then = written(tmp_path / "a.pth", trained.checkpoint())
    at_its_end = written(tmp_path / "b.pth", trained.checkpoint(at_its_end=True))
    assert imported(now_and_then, NAMES).step == imported(at_its_end, NAMES).step == 7


@pytest.mark.parametrize("left_out", ["optimizer", "scheduler", "ema"])
def test_what_is_left_out_of_a_checkpoint_is_not_there(
    left_out: str, trained: Training, tmp_path: Path
) -> None:
    content = trained.checkpoint() | {left_out: None}
    found = imported(written(tmp_path / "c.pth", content), NAMES)
    assert found.step == 7
    assert (not found.moments, not found.averages) == (left_out == "optimizer", left_out == "ema")


def test_parameters_that_an_optimizer_names_need_no_order(trained: Training, tmp_path: Path) -> None:
    content = trained.checkpoint()
    content["optimizer"]["param_groups"][0]["param_names"] = NAMES
    shuffled = [NAMES[1], NAMES[2], NAMES[0]]
    found = imported(written(tmp_path / "c.pth", content), shuffled)
    assert {name: first.shape for name, (first, _) in found.moments.items()} == {
        name: torch.Size(SHAPES[name]) for name in NAMES
    }


@pytest.mark.shared
def test_moments_get_the_names_of_the_published_order(shared_golden: Path, tmp_path: Path) -> None:
    published = json.loads((shared_golden / "param_groups_small_16k.json").read_text())
    (group,) = published["groups"]
    assert FROZEN not in group["names"]
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in group["names"]]
    optimizer = torch.optim.AdamW(parameters)
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.tensor([1.0 + number])
    optimizer.step()
    content = {
        "it": 0,
        "weights": {name: torch.zeros(1) for name in sorted(group["names"])},
        "optimizer": optimizer.state_dict(),
    }
    found = imported(written(tmp_path / "c.pth", content), trainable_names(VARIANTS["small_16k"]))
    for number, name in enumerate(group["names"]):
        assert found.moments[name][0].item() == pytest.approx(0.1 * (1 + number))


def test_a_profile_of_averages_is_weights(trained: Training, tmp_path: Path) -> None:
    content: dict[str, Any] = {f"ema_model.{name}": t for name, t in trained.state().items()}
    content["_extra_state"] = {"initted": True, "step": 7}
    found = imported(written(tmp_path / "0.7.pt", content), NAMES)
    same(found.weights, without_tables(trained.state()))
    assert (found.step, found.origin) == (None, "unknown")


def test_released_files_are_known_by_their_digest(
    trained: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "w.pth", trained.state())
    assert imported(path, NAMES).origin == "unknown"
    said = subprocess.run(["md5sum", path], capture_output=True, text=True, check=True).stdout
    monkeypatch.setitem(imported_module.RELEASED, said.split()[0], "mmaudio_small_16k.pth")
    assert imported(path, NAMES).origin == "mmaudio"


@pytest.mark.parametrize(
    ("said", "origin"), [("scratch", "scratch"), ("mmaudio", "mmaudio"), ("nobody", "unknown")]
)
def test_exports_say_where_their_weights_are_from(
    said: str, origin: str, trained: Training, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, trained.state(), {"origin": said})
    assert imported(path, NAMES).origin == origin


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"args": Namespace(lr=1)}, r"argparse\.Namespace"),
        ({"loss": np.float64(1.5)}, r"numpy\._?core\.multiarray\.scalar"),
        ({"where": Path("x")}, r"pathlib\.PosixPath"),
    ],
)
def test_a_checkpoint_that_asks_to_run_code_is_refused(
    extra: dict[str, Any], named: str, trained: Training, tmp_path: Path
) -> None:
    path = written(tmp_path / "c.pth", trained.checkpoint() | extra)
    with pytest.raises(WrongWeights, match=f"asks to run {named} .* get the file from where it was"):
        imported(path, NAMES)


def test_what_a_refusal_advises_helps(trained: Training, tmp_path: Path) -> None:
    path = written(tmp_path / "my c.pth", trained.checkpoint() | {"args": Namespace(lr=1)})
    said = refusal(path)
    assert said is not None
    assert "If you made it yourself, write what is needed of it anew: python -c" in said
    words = shlex.split(said[said.index("python -c") :])
    subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True)
    assert imported(tmp_path / "plain.pth", NAMES).step == 7


class Attack:
    def __reduce__(self) -> Any:
        return (print, ("code ran",))


def test_code_in_a_file_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.pth"
    for content in (Attack(), {"it": 1, "weights": Attack()}):
        path.write_bytes(pickle.dumps(content, 2))
        with pytest.raises(WrongWeights, match=r"expected tensors, numbers and nothing else"):
            imported(path, NAMES)
        written(path, content)
        with pytest.raises(WrongWeights, match=r"asks to run .*print"):
            imported(path, NAMES)
    assert capsys.readouterr().out == ""


def refusal(path: Path) -> str | None:
    try:
        imported(path, NAMES)
    except FoleyproofError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_a_file_that_is_cut_or_damaged_is_told(kind: str, trained: Training, tmp_path: Path) -> None:
    whole = tmp_path / "c.pth"
    written(whole, trained.checkpoint(), _use_new_zipfile_serialization=kind == "zip")
    content, damaged = whole.read_bytes(), tmp_path / "d.pth"
    for size in (0, 1, 3, 64, len(content) // 2, len(content) - 20):
        damaged.write_bytes(content[:size])
        with pytest.raises(WrongWeights, match=str(damaged)):
            imported(damaged, NAMES)
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(content), 60):
        changed = bytearray(content)
        changed[place] ^= int(generator.integers(1, 256))
        damaged.write_bytes(changed)
        said = refusal(damaged)
        assert said is None or str(damaged) in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.ones(2)], "holds a list, expected tensors by name"),
        ({}, "holds nothing, expected tensors by name"),
        ({"model": {"a": torch.ones(2)}}, r"holds model \(dict\), expected tensors by name"),
        ({"it": 3, "weights": {"a": 1}}, r"its weights are a \(int\), expected tensors by name"),
        ({"it": 3, "weights": [1]}, r"its weights are a list, expected tensors by name"),
        ({"it": -1, "weights": {}}, r"its `it` is -1, expected the number of an iteration"),
        ({"optimizer": None, "weights": {}}, r"its `it` is None, expected the number of an iteration"),
    ],
)
def test_a_file_of_something_else_is_told(content: Any, says: str, tmp_path: Path) -> None:
    path = written(tmp_path / "c.pth", content)
    with pytest.raises(WrongWeights, match=f"{path}: {says}.* — give"):
        imported(path, NAMES)


def test_folders_and_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"is a folder, .* make one: python -m training\.export"):
        imported(tmp_path, NAMES)
    with pytest.raises(UsageProblem, match=r"x\.pth: no such file"):
        imported(tmp_path / "x.pth", NAMES)


def lose_moments(content: dict[str, Any]) -> None:
    del content["optimizer"]["state"][1]


def two_groups(content: dict[str, Any]) -> None:
    content["optimizer"]["param_groups"] *= 2


def no_optimizer(content: dict[str, Any]) -> None:
    content["optimizer"] = [1]


def misshape(content: dict[str, Any]) -> None:
    content["optimizer"]["state"][1]["exp_avg"] = torch.zeros(3)


def spoil(content: dict[str, Any]) -> None:
    content["optimizer"]["state"][1]["exp_avg"][0] = float("nan")


def negate(content: dict[str, Any]) -> None:
    content["optimizer"]["state"][1]["exp_avg_sq"] -= 1


def momentum(content: dict[str, Any]) -> None:
    content["optimizer"]["state"] = {key: {"momentum_buffer": None} for key in range(3)}


def differ(content: dict[str, Any]) -> None:
    content["optimizer"]["state"][1]["step"] += 1


def lose_a_track(content: dict[str, Any]) -> None:
    content["ema"] = {k: v for k, v in content["ema"].items() if not k.startswith("ema_models.1")}


def other_averages(content: dict[str, Any]) -> None:
    content["ema"]["ema_models.1.ema_model.conv.bias"] = torch.zeros(6)


def uncounted(content: dict[str, Any]) -> None:
    content["ema"]["ema_models.1._extra_state"] = {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lose_moments, "its optimizer has 3 parameters, 2 of them with moments, expected the 3"),
        (two_groups, r"its optimizer is not an AdamW with one group \(ValueError"),
        (no_optimizer, r"its optimizer is not an AdamW with one group \(TypeError"),
        (misshape, r"the moments of conv\.weight are missing, of another shape"),
        (spoil, r"the moments of conv\.weight are .* not finite"),
        (negate, r"the moments of conv\.weight are .* negative"),
        (momentum, r"the moments of sync_pos_emb are missing"),
        (differ, "its parameters have made 7, 8 steps, expected one count"),
        (lose_a_track, "its ema holds 1 track after 7 steps; expected two"),
        (other_averages, "its ema holds 2 tracks after 7 steps, of other tensors than its weights"),
        (uncounted, "its ema holds 2 tracks after -1, 7 steps; expected two of one count"),
    ],
)
def test_what_does_not_belong_to_the_weights_is_told(
    change: Any, says: str, trained: Training, tmp_path: Path
) -> None:
    content = trained.checkpoint()
    change(content)
    path = written(tmp_path / "c.pth", content)
    with pytest.raises(BadWeights, match=f"{path}: {says}.* — give .*its weights alone"):
        imported(path, NAMES)


def test_moments_of_another_network_are_told(trained: Training, tmp_path: Path) -> None:
    path = written(tmp_path / "c.pth", trained.checkpoint())
    with pytest.raises(BadWeights, match="has 3 parameters, 3 of them with moments, expected the 108"):
        imported(path, trainable_names(VARIANTS["tiny_16k"])[:108])
