"""Reading files of tensors without running what is in them, whatever they are."""

# ruff: noqa: E501 - the cases are a table: a line each reads better than three

import json
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from weight_files import Bomb, bombs, no_checkpoints, saved, state

from curation.errors import BadWeights, WrongWeights
from features.weights.checkpoint_files import BARE, read_tensors, write_safetensors
from features.weights.checkpoint_kind import kind_of


def _file(tmp_path: Path, content: bytes, name: str = "a.pth") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("case", no_checkpoints())
def test_what_is_no_checkpoint_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    content, message = no_checkpoints()[case]
    path = _file(tmp_path, content)
    with pytest.raises(WrongWeights, match=message.replace("{}", re.escape(str(path)))) as caught:
        read_tensors(path)
    assert caught.value.exit_code == 13


@pytest.mark.parametrize("case", bombs(Path()))
def test_a_pickle_with_code_is_refused_and_nothing_of_it_runs(case: str, tmp_path: Path) -> None:
    made = tmp_path / "made by the pickle"
    path = _file(tmp_path, bombs(made)[case])
    with pytest.raises(BadWeights, match=r"when it is read|cannot be read") as caught:
        read_tensors(path)
    assert not made.exists()
    if not isinstance(caught.value, WrongWeights):
        assert "refused; get the file from where it was published" in str(caught.value)
        assert caught.value.exit_code == 1
    if case == "zip":
        assert f"{path}: asks to run posix.mkdir when it is read, expected tensors" in str(caught.value)
    if case == "pickle":
        pickle.loads(path.read_bytes())  # it is as bad as it looks
        assert made.exists()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"model": state(), "epoch": 3}, r"holds model \(dict\), epoch \(int\), expected only tensors by name"),
        ([torch.zeros(3)], "holds a list, expected tensors by name"),
        ({}, "holds nothing, expected only tensors"),
        ({"weight": torch.zeros(2).to_sparse()}, r"holds weight \(Tensor\), expected only tensors by name"),
        ({"generator": {"weight": 1.5}}, r"holds weight \(float\)"),
    ],
)  # fmt: skip
def test_what_holds_other_things_than_tensors_is_refused(
    what: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadWeights, match=message):
        read_tensors(_file(tmp_path, saved(what)), inside="generator")


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (saved(state()), "zip"),
        (saved(state(), _use_new_zipfile_serialization=False), "pickle"),
        (save(state()), "safetensors"),
        (saved({"generator": state(), "steps": 5}), "zip"),
        (saved({name: torch.nn.Parameter(t, requires_grad=t.is_floating_point()) for name, t in state().items()}), "zip"),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_tensors(content: bytes, kind: str, tmp_path: Path) -> None:
    path = _file(tmp_path, content, "any.name")
    assert kind_of(path) == kind
    tensors = read_tensors(path, inside="generator")
    assert _equal(tensors, state())
    assert not any(tensor.requires_grad for tensor in tensors.values())


def test_a_tensor_without_a_name_is_read(tmp_path: Path) -> None:
    assert _equal(
        read_tensors(_file(tmp_path, saved(torch.ones(1, 77, 4)))), {BARE: torch.ones(1, 77, 4)}
    )


def test_conversion_keeps_every_value_and_is_the_same_each_time(tmp_path: Path) -> None:
    base = torch.randn(6, 8)
    tensors = state() | {
        "tied": state()["encoder.weight"], "a view": base[2:], "its base": base, "turned": base.T,
        "nothing": torch.zeros(0, 3), "small": torch.randn(4).to(torch.bfloat16),
    }  # fmt: skip
    tensors["tied too"] = tensors["tied"]
    path = _file(tmp_path, saved(tensors))
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for target in (one, two):
        write_safetensors(target, read_tensors(path), {"source": "sha256:00", "name": "a.pth"})
    assert _equal(load_file(one), {name: tensor.contiguous() for name, tensor in tensors.items()})
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_mode & 0o777 == 0o644
    with safe_open(one, framework="pt") as file:
        assert {key: json.loads(value) for key, value in file.metadata().items()} == {
            "foleyproof": {"name": "a.pth", "source": "sha256:00"}
        }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "one.safetensors", "two.safetensors"]


def test_no_damage_ends_in_anything_but_its_message(tmp_path: Path) -> None:
    """400 files with flipped, removed and repeated bytes: each is read or refused."""
    dice, refused = random.Random(5), []
    safe = tmp_path / "whole.safetensors"
    save_file(state(), safe)
    wholes = [saved(state()), saved(state(), _use_new_zipfile_serialization=False), safe.read_bytes()]
    for number in range(400):
        content = bytearray(dice.choice(wholes))
        for _ in range(dice.randint(1, 5)):
            at = dice.randrange(min(len(content), dice.choice((60, 700, 10**6))))
            change = dice.randrange(3)
            if change == 0:
                content[at] = dice.randrange(256)
            elif change == 1:
                del content[at : at + dice.randint(1, 40)]
            else:
                content[at:at] = content[at : at + dice.randint(1, 40)]
        path = _file(tmp_path, bytes(content), f"{number}.pth")
        try:
            read_tensors(path)
        except BadWeights as error:
            refused.append((str(path), str(error)))
        path.unlink()
    assert len(refused) > 150
    assert all(path in message for path, message in refused)


@pytest.mark.parametrize("length", [128, 384, 640, 1152])
def test_safetensors_whose_header_begins_like_a_pickle_is_safetensors(
    length: int, tmp_path: Path
) -> None:
    """The length of the header is what a file begins with: 640 is 80 02, as is protocol 2."""
    content = save(state())
    begin = 8 + int.from_bytes(content[:8], "little")
    header = content[8:begin].rstrip(b" ")
    tensors = state()
    if len(header) > length:
        content = save({"w": torch.ones(3)})
        begin, tensors = 8 + int.from_bytes(content[:8], "little"), {"w": torch.ones(3)}
        header = content[8:begin].rstrip(b" ")
    content = length.to_bytes(8, "little") + header.ljust(length) + content[begin:]
    path = _file(tmp_path, content, "a.safetensors")
    assert kind_of(path) == "safetensors"
    assert _equal(read_tensors(path), tensors)
    path.write_bytes(content[: length - 20])
    with pytest.raises(
        WrongWeights, match=f"with a header of {length:,} bytes, expected a header within"
    ):
        read_tensors(path)


def test_a_pickle_that_begins_like_safetensors_is_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made by the pickle"
    bomb = pickle.dumps(Bomb(made), protocol=2)
    content = b"\x80\x02X\x02\0\0\0a{0" + bomb[2:]  # a text that is forgotten, then the bomb
    path = _file(tmp_path, content)
    assert kind_of(path) == "pickle"
    with pytest.raises(WrongWeights, match="when it is read, expected tensors"):
        read_tensors(path)
    assert not made.exists()
    path.write_bytes((640).to_bytes(8, "little") + b"{" + bomb + bytes(1000))
    assert kind_of(path) == "safetensors"
    with pytest.raises(WrongWeights, match="cannot be read"):
        read_tensors(path)
    assert not made.exists()
    pickle.loads(content)  # it is as bad as it looks
    assert made.exists()


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from curation.errors import FoleyproofError
from features.weights.checkpoint_files import read_tensors
status = Path("/proc/self/status").read_text().splitlines()
used = int(next(line for line in status if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20),) * 2)
for path in sys.argv[1:]:
    try:
        read_tensors(Path(path))
    except FoleyproofError as error:
        print(error.exit_code, error)
"""


def test_too_little_memory_is_not_told_as_damage(tmp_path: Path) -> None:
    tensors = {"weight": torch.zeros(16 << 20)}
    names = ["zip.pth", "old.pth", "a.safetensors"]
    torch.save(tensors, tmp_path / names[0])
    torch.save(tensors, tmp_path / names[1], _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / names[2])
    paths = [str(tmp_path / name) for name in names]
    ran = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, *paths], capture_output=True, text=True, check=True
    )
    for path, line in zip(paths, ran.stdout.splitlines(), strict=True):
        assert line.startswith(f"1 {path}: 67.1 MB of it did not fit into memory, expected so much"), (
            line
        )
        assert "damaged" not in line


class Clones(TorchDispatchMode):
    """Counts the copies that are made."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "clone" in str(function)
        return function(*args, **(kwargs or {}))


def test_a_turned_tensor_is_copied_once(tmp_path: Path) -> None:
    with Clones() as clones:
        write_safetensors(tmp_path / "a.safetensors", {"turned": torch.ones(5, 7).T}, {})
    assert clones.count == 1
    assert load_file(tmp_path / "a.safetensors")["turned"].shape == (7, 5)
