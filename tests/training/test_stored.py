"""Checkpoints: what is saved by some ranks is read by others, bit for bit, and damage is noticed."""

import json
import math
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from some_checkpoints import ABOUT, bits, on_ranks, same, saved, state, whole

from curation.errors import (
    BadWeights,
    ConfigDiffers,
    Locked,
    UsageProblem,
)
from training.config import PRESETS
from training.state.folders import at_step, found, held, latest, step_folder, steps_of
from training.state.pieces import Piece
from training.state.reading import RECORD, Stored, opened
from training.state.staging import Staging
from training.state.stored import Checkpoints

DTYPES = (
    torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64,
)  # fmt: skip


def filled(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Any bits at all, NaN among them; of truth, the two that there are."""
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(shape) * dtype.itemsize
    content = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
    if dtype is torch.bool:
        content = content % 2
    return content.view(dtype).reshape(shape)


@st.composite
def cut_tensors(draw: st.DrawFn) -> list[tuple[torch.Tensor, list[int]]]:
    """Tensors, each with borders of rows between four ranks; one rank alone may have all."""
    made = []
    for seed in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
        tensor = filled(shape, draw(st.sampled_from(DTYPES)), seed)
        rows = shape[0] if shape else 1
        cuts = [draw(st.integers(0, rows)) for _ in range(3)] if shape else [draw(st.integers(0, 1))] * 3
        made.append((tensor, [0, *sorted(cuts), rows]))
    return made


def pieces_of(tensors: list[tuple[torch.Tensor, list[int]]], rank: int, ranks: int) -> list[Piece]:
    """Those of a rank; the last one has what is left."""
    pieces = []
    for number, (tensor, borders) in enumerate(tensors):
        first, end = borders[rank], borders[rank + 1] if rank < ranks - 1 else borders[-1]
        if not tensor.shape and first == end:
            continue
        part = tensor[first:end] if tensor.shape else tensor
        pieces.append(Piece(name=f"t{number}", tensor=part, shape=tuple(tensor.shape), offset=first))
    return pieces


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=cut_tensors(), ranks=st.integers(1, 4), data=st.data())
def test_what_some_ranks_write_other_ranks_read(
    tensors: Any, ranks: int, data: st.DataObject, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)

    def save(rank: int, gather: Any) -> None:
        with Checkpoints(run, about=ABOUT, keep=1, rank=rank, gather=gather) as checkpoints:
            checkpoints.save(3, pieces_of(tensors, rank, ranks))

    assert on_ranks(ranks, save) == [None] * ranks
    stored = latest(run)
    assert stored is not None
    named = {f"t{number}": tensor for number, (tensor, _) in enumerate(tensors)}
    same(stored.read(dict.fromkeys(named)), named)
    for name, tensor in named.items():
        if tensor.shape:
            first = data.draw(st.integers(0, tensor.shape[0]))
            rows = slice(first, data.draw(st.integers(first, tensor.shape[0])))
            same(stored.read({name: rows}), {name: tensor[rows]})
            into = torch.zeros_like(tensor[rows])
            into = into.mT.contiguous().mT if into.ndim > 1 else into
            stored.read_into([Piece(name=name, tensor=into, shape=tuple(tensor.shape), offset=first)])
            assert bits(into) == bits(tensor[rows])


def test_a_file_of_a_rank_is_what_others_read_as_safetensors(tmp_path: Path) -> None:
    run = saved(tmp_path, 5)
    path = step_folder(run, 5) / "rank-0.safetensors"
    with safe_open(path, framework="pt") as file:
        same({name: file.get_tensor(name) for name in file.keys()}, state(5))  # noqa: SIM118
        assert list(file.metadata()) == ["foleyproof"]
    document = json.loads((step_folder(run, 5) / RECORD).read_text())
    said = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
    assert document["files"] == {path.name: {"bytes": path.stat().st_size, "sha256": said.split()[0]}}
    assert (document["format"], document["step"]) == ("foleyproof-checkpoint/1", 5)
    assert document["about"]["config"] == PRESETS["tiny-16k"].document()
    assert document["tensors"]["ema/0.05/a"] == {"dtype": "BF16", "shape": [7, 50]}


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    one, two = (step_folder(saved(tmp_path / name, 5), 5) for name in "ab")
    for name in (RECORD, "rank-0.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_what_changes_after_a_save_began_is_not_in_it(tmp_path: Path) -> None:
    tensors = state(1)
    with Checkpoints(tmp_path, about=ABOUT, keep=5) as checkpoints:
        for step in (1, 2, 3):
            for name, tensor in state(step).items():
                tensors[name].copy_(tensor)
            checkpoints.save(step, whole(tensors))
            for tensor in tensors.values():
                tensor.zero_()
    for step in (1, 2, 3):
        same(at_step(tmp_path, step).read(dict.fromkeys(tensors)), state(step))


def test_weights_that_are_trained_and_turned_are_saved_and_filled(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 6).t())
    with Checkpoints(tmp_path, about=ABOUT, keep=1) as checkpoints:
        checkpoints.save(1, whole({"w": weight}))
    other = torch.nn.Parameter(torch.zeros(4, 6).t())
    opened(step_folder(tmp_path, 1)).read_into(whole({"w": other}))
    assert torch.equal(other, weight)
    assert other.requires_grad


@settings(max_examples=40, deadline=None)
@given(tensors=cut_tensors(), block_bytes=st.integers(1, 64))
def test_memory_in_blocks_holds_the_same_bytes(tensors: Any, block_bytes: int) -> None:
    pieces = pieces_of(tensors, 0, 1)
    in_blocks, at_once = Staging(block_bytes=block_bytes), Staging()
    for _ in range(2):  # the second time, in the same memory
        found = b"".join(in_blocks.take(pieces).contents())
        assert found == b"".join(at_once.take(pieces).contents())
    few = pieces[:1]
    assert b"".join(in_blocks.take(few).contents()) == b"".join(at_once.take(few).contents())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_copies_from_a_gpu_hold_what_was_there_when_they_were_asked_for(tmp_path: Path) -> None:
    one, counter = torch.randn(64, 1 << 20, device="cuda"), torch.tensor(7, device="cuda")
    expected = one.cpu()
    with Checkpoints(tmp_path, about=ABOUT, keep=1) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, whole({"one": one, "turned": one[:9, :5].t(), "counter": counter}))
            one.mul_(2)  # queued behind the copies
            same(at_step_after(checkpoints, tmp_path, step).read({"one": None}), {"one": expected})
            expected = expected * 2
    into = torch.zeros_like(one)
    opened(step_folder(tmp_path, 2)).read_into(whole({"one": into}))
    assert torch.equal(into.cpu() * 2, expected)


def at_step_after(checkpoints: Checkpoints, run: Path, step: int) -> Stored:
    checkpoints.wait()
    return at_step(run, step)


def test_a_save_waits_for_the_one_before(tmp_path: Path) -> None:
    release, begun = threading.Event(), threading.Event()

    def hold(stored: Stored) -> None:
        begun.set()
        assert release.wait(20)

    with Checkpoints(tmp_path, about=ABOUT, keep=5) as checkpoints:
        checkpoints.save(1, whole(state(1)), then=hold)  # returns while it is being written
        assert begun.wait(20)
        assert steps_of(tmp_path) == []
        threading.Timer(0.2, release.set).start()
        begun_s = time.monotonic()
        checkpoints.save(2, whole(state(2)))
        assert time.monotonic() - begun_s > 0.15
        assert steps_of(tmp_path)[:1] == [1]
    assert steps_of(tmp_path) == [1, 2]


def test_what_follows_from_a_checkpoint_is_made_before_it_has_its_name(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []

    def then(stored: Stored) -> None:
        same(stored.read(dict.fromkeys(state(4))), state(4))
        seen.append((stored.folder.name, step_folder(tmp_path, 4).exists()))

    with Checkpoints(tmp_path, about=ABOUT, keep=1) as checkpoints:
        checkpoints.save(4, whole(state(4)), keep=False, then=then)
        checkpoints.wait()
        assert list((tmp_path / "checkpoints").iterdir()) == []
        checkpoints.save(4, whole(state(4)), then=then)
    assert [exists for _, exists in seen] == [False, False]
    assert all(name.startswith("step-00000004.tmp-") for name, _ in seen)
    assert steps_of(tmp_path) == [4]


def test_retention_keeps_the_newest_and_every_so_many(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, about=ABOUT, keep=2, keep_every=4) as checkpoints:
        kept = []
        for step in range(1, 10):
            checkpoints.save(step, whole(state(step)))
            checkpoints.wait()
            kept.append(steps_of(tmp_path))
    assert kept[:5] == [[1], [1, 2], [2, 3], [3, 4], [4, 5]]
    assert kept[5:] == [[4, 5, 6], [4, 6, 7], [4, 7, 8], [4, 8, 9]]
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_what_lacks_files_does_not_count_as_kept_and_later_ones_stay(tmp_path: Path) -> None:
    run = saved(tmp_path, 1, 2, 3, 6)
    (step_folder(run, 2) / RECORD).unlink()
    (step_folder(run, 6) / "rank-0.safetensors").unlink()
    saved(run, 4, keep=3)
    assert steps_of(run) == [1, 3, 4, 6]
    stored = latest(run)
    assert stored is not None
    assert stored.step == 4


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert latest(tmp_path / "nowhere") is None
    with pytest.raises(UsageProblem, match="holds no checkpoints, expected"):
        found(tmp_path, None)
    with pytest.raises(UsageProblem, match="holds no checkpoints, expected"):
        found(tmp_path, 3)
    saved(tmp_path, 1, 5)
    with pytest.raises(UsageProblem, match="no checkpoint of step 3, expected one of 1, 5"):
        found(tmp_path, 3)
    assert found(tmp_path, 1).step == 1
    assert found(tmp_path, None).step == 5


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        (whole({"weights/z": torch.zeros(2)}), r"holds no tensor weights/z among 5"),
        (whole({"weights/b": torch.zeros(6)}), r"weights/b is F32 \(5,\), expected F32 \(6,\)"),
        (whole({"weights/b": torch.zeros(5).half()}), r"weights/b is F32 \(5,\), expected F16"),
    ],
)
def test_a_checkpoint_of_another_network_is_told(piece: Any, says: str, tmp_path: Path) -> None:
    stored = at_step(saved(tmp_path, 1), 1)
    with pytest.raises(BadWeights, match=f"{says}.* — give the --run of this network"):
        stored.read_into(piece)


def test_a_run_of_other_settings_or_shards_is_not_continued(tmp_path: Path) -> None:
    begun = at_step(saved(tmp_path, 1), 1).about
    assert begun == ABOUT
    ABOUT.continues(begun, "runs/x")
    other = replace(ABOUT, config=PRESETS["tiny-44k"].document())
    with pytest.raises(ConfigDiffers, match=r"runs/x: model is tiny-44k here and tiny-16k there"):
        other.continues(begun, "runs/x")
    other = replace(ABOUT, shards={"shards": "sha256:123"})
    with pytest.raises(ConfigDiffers, match=r"runs/x: was trained on the shards shards \(sha256:abc\)"):
        other.continues(begun, "runs/x")
    later = {**ABOUT.config, "log_every": 7}
    replace(ABOUT, config=later).continues(begun, "runs/x")


def test_what_is_no_part_of_a_run_is_not_swept(tmp_path: Path) -> None:
    """A run in a folder below, whose machine is another one; an export that is being written."""
    for name in ("S-16k/checkpoints/step-00000001.tmp-2147483647", "export/stage.tmp-2147483647"):
        (tmp_path / name).mkdir(parents=True)
    with held(tmp_path):
        assert len([path for path in tmp_path.rglob("*.tmp-*")]) == 2


def test_one_process_trains_in_a_folder_and_sweeps_what_dead_ones_left(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1)
    left = run / "checkpoints" / f"step-00000002.tmp-{2**48 + 5}"
    left.mkdir()
    (left / "rank-0.safetensors").write_bytes(b"half")
    step_folder(run, 1).rename(run / "checkpoints" / f"step-00000001.former.tmp-{2**48 + 6}")
    with held(run):
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000001"]
        with pytest.raises(Locked, match="another process is working on this run") as raised, held(run):
            pass
    assert raised.value.exit_code == 11
    with held(run):
        assert latest(run) is not None
