"""Weights and training checkpoints of MMAudio, as files that torch itself wrote."""

import json
import subprocess
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

from curation.errors import WrongWeights
from features.weights.checkpoint_files import write_safetensors
from training.model.released import trainable_names
from training.model.variants import VARIANTS
from training.network import build_network, load_network, released_state
from training.state import imported as imported_module
from training.state.imported import imported


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
