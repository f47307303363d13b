"""Files of weights that ask to run code, are damaged, or hold what does not belong together."""

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
from mmaudio_files import NAMES, Training, written

from curation.errors import BadWeights, FoleyproofError, UsageProblem, WrongWeights
from training.model.released import trainable_names
from training.model.variants import VARIANTS
from training.state.imported import imported


def test_what_a_refusal_advises_helps(trained: Training, tmp_path: Path) -> None:
    path = written(tmp_path / "my c.pth", trained.checkpoint() | {"args": Namespace(lr=1)})
    said = refusal(path)
    assert said is not None
    assert "Only if you made it yourself, as this runs what is in it, write what is needed" in said
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


def test_the_folder_of_an_export_is_answered_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageProblem, match=r"is a folder, .* — give .*/model\.safetensors$"):
        imported(tmp_path, NAMES)


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
