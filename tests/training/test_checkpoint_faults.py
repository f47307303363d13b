"""What goes wrong while checkpoints are written, and what is wrong with them afterwards."""

import errno
import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_disk import mounted
from some_checkpoints import ABOUT, on_ranks, same, saved, state, whole

from curation.errors import (
    BadWeights,
    ManifestChanged,
    NoSpace,
    NotWritable,
    WorkerLost,
)
from training.state import stored as stored_module
from training.state.folders import at_step, latest, step_folder
from training.state.pieces import Piece
from training.state.reading import RECORD, Stored, opened
from training.state.stored import Checkpoints


def test_an_error_of_the_thread_reaches_the_next_save_once(tmp_path: Path) -> None:
    def fail(stored: Stored) -> None:
        raise BadWeights("what follows failed")

    checkpoints = Checkpoints(tmp_path, about=ABOUT, keep=1)
    checkpoints.save(1, whole(state(1)), then=fail)
    with pytest.raises(BadWeights, match="what follows failed"):
        checkpoints.save(2, whole(state(2)))
    checkpoints.save(3, whole(state(3)))
    checkpoints.wait()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_an_error_of_training_is_not_hidden_by_one_of_the_last_save(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(stored: Stored) -> None:
        raise BadWeights("what follows failed")

    def train() -> None:
        with Checkpoints(tmp_path, about=ABOUT, keep=1) as checkpoints:
            checkpoints.save(1, whole(state(1)), then=fail)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert "the last checkpoint was not written: what follows failed" in caplog.text


def test_a_full_disk_ends_with_14_and_leaves_the_checkpoints_before(tmp_path: Path) -> None:
    with mounted(tmp_path, 300):
        run = saved(tmp_path / "run", 1, keep=1)
        checkpoints = Checkpoints(run, about=ABOUT, keep=1)
        checkpoints.save(2, whole(state(2, values=20_000)))
        with pytest.raises(NoSpace, match=r"step-00000002: no space left .* expected room .* free some"):
            checkpoints.save(3, whole(state(3)))
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000001"]
        assert NoSpace.exit_code == 14
        checkpoints.save(3, whole(state(3)))  # there is room for a small one
        checkpoints.wait()
        stored = latest(run)
        assert stored is not None
        same(stored.read(dict.fromkeys(state(3))), state(3))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    checkpoints = Checkpoints(tmp_path, about=ABOUT, keep=1)
    checkpoints.save(1, whole(state(1)))
    with pytest.raises(NotWritable, match="Not a directory; expected a place"):
        checkpoints.wait()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_on_one_rank_is_tried_again_by_all_and_told_to_all(
    failing: int, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    write, left = stored_module.write_hashed, list(range(times))

    def write_or_fail(path: Path, contents: Any) -> str:
        if path.name == f"rank-{failing}.safetensors" and left:
            path.write_bytes(b"half")
            left.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, contents)

    monkeypatch.setattr(stored_module, "write_hashed", write_or_fail)

    def save(rank: int, gather: Any) -> str:
        parts = list(state(2).items())[rank::2]
        checkpoints = Checkpoints(tmp_path, about=ABOUT, keep=1, rank=rank, gather=gather)
        checkpoints.save(2, whole(dict(parts)))
        try:
            checkpoints.wait()
        except NoSpace as error:
            assert times == 2
            checkpoints.save(2, whole(dict(parts)))
            checkpoints.wait()
            return str(error)
        assert times == 1
        return ""

    messages = on_ranks(2, save)
    assert messages[0] == messages[1]
    assert ("step-00000002: no space left on the disk" in messages[0]) == (times == 2)
    same(opened(step_folder(tmp_path, 2)).read(dict.fromkeys(state(2))), state(2))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_what_is_no_error_of_ours_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, contents: Any) -> str:
        if path.name == "rank-1.safetensors":
            raise ZeroDivisionError("oh")
        return hashlib.sha256().hexdigest()

    monkeypatch.setattr(stored_module, "write_hashed", fail)

    def save(rank: int, gather: Any) -> None:
        checkpoints = Checkpoints(tmp_path, about=ABOUT, keep=1, rank=rank, gather=gather)
        checkpoints.save(2, [])
        checkpoints.wait()

    first, second = on_ranks(2, save)
    assert isinstance(first, WorkerLost)
    assert "rank 1 failed to save (ZeroDivisionError: oh)" in str(first)
    assert isinstance(second, ZeroDivisionError)


def test_a_rank_whose_disk_is_another_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_module, "write_hashed", lambda path, contents: "0" * 64)
    checkpoints = Checkpoints(tmp_path, about=ABOUT, keep=1)
    checkpoints.save(1, whole(state(1)))
    with pytest.raises(NotWritable, match=r"is not seen on the machine of the first rank.* share"):
        checkpoints.wait()
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("cut", [[(0, 3), (4, 7)], [(0, 4), (3, 7)], [(0, 7), (0, 7)], [(0, 4), (4, 6)]])
def test_rows_that_ranks_leave_out_or_give_twice_are_no_checkpoint(
    cut: list[tuple[int, int]], tmp_path: Path
) -> None:
    tensor = state(1)["weights/a"]

    def save(rank: int, gather: Any) -> None:
        first, end = cut[rank]
        checkpoints = Checkpoints(tmp_path, about=ABOUT, keep=1, rank=rank, gather=gather)
        checkpoints.save(1, [Piece(name="a", tensor=tensor[first:end], shape=(7, 50), offset=first)])
        checkpoints.wait()

    first, second = on_ranks(2, save)
    assert isinstance(first, AssertionError)
    assert "expected each row once" in str(first)
    assert isinstance(second, WorkerLost)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def damage_file(folder: Path) -> None:
    path = folder / "rank-0.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def cut_file(folder: Path) -> None:
    path = folder / "rank-0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def lose_file(folder: Path) -> None:
    (folder / "rank-0.safetensors").unlink()


def lose_record(folder: Path) -> None:
    (folder / RECORD).unlink()


def cut_record(folder: Path) -> None:
    path = folder / RECORD
    path.write_bytes(path.read_bytes()[:-9])


def damage_record(folder: Path) -> None:
    path = folder / RECORD
    path.write_text(path.read_text().replace('"batch": 8', '"batch": 9'))


def age_record(folder: Path) -> None:
    path = folder / RECORD
    path.write_text(path.read_text().replace("checkpoint/1", "checkpoint/2"))


def hollow_record(folder: Path) -> None:
    (folder / RECORD).write_text("[]")


def file_in_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_file, r"rank-0\.safetensors: its sha256 is .*, not"),
        (cut_file, r"rank-0\.safetensors: has [\d,]+ bytes, not the [\d,]+ that were written"),
        (lose_file, r"rank-0\.safetensors: cannot be read \(No such file"),
        (lose_record, r"checkpoint\.json: cannot be read \(No such file"),
        (cut_record, r"checkpoint\.json: is not readable \(JSONDecodeError"),
        (damage_record, r"checkpoint\.json: its digest is not that of its content"),
        (age_record, r"checkpoint\.json: its format is 'foleyproof-checkpoint/2', not"),
        (hollow_record, r"checkpoint\.json: is not readable \(TypeError"),
        (file_in_place, r"checkpoint\.json: cannot be read \(Not a directory"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    damage: Any, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = saved(tmp_path, 1, 2)
    damage(step_folder(run, 2))
    with caplog.at_level(logging.WARNING):
        stored = latest(run)
    assert stored is not None
    same(stored.read(dict.fromkeys(state(1))), state(1))
    (record,) = caplog.records
    assert "passed over a damaged checkpoint: " in record.message
    with pytest.raises(ManifestChanged, match=says) as raised:
        at_step(run, 2)
    assert str(raised.value) in record.message
    assert "expected the file as a run wrote it — copy it anew, or remove" in record.message
    damage(step_folder(run, 1))
    with pytest.raises(ManifestChanged, match=r"none of its checkpoints loads \(steps 1, 2; ") as raised:
        latest(run)
    assert raised.value.exit_code == 13


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    stored = opened(step_folder(saved(tmp_path, 1), 1))
    cut_file(stored.folder)
    with pytest.raises(ManifestChanged, match=r"rank-0\.safetensors: ends before byte"):
        stored.read(dict.fromkeys(stored.tensors))


def test_a_folder_under_the_name_of_another_step_is_no_checkpoint(tmp_path: Path) -> None:
    run = saved(tmp_path, 1)
    step_folder(run, 1).rename(step_folder(run, 7))
    with pytest.raises(ManifestChanged, match="is the checkpoint of step 1 under another name"):
        at_step(run, 7)


def test_a_damaged_checkpoint_is_replaced_when_the_run_comes_there_again(tmp_path: Path) -> None:
    run = saved(tmp_path, 1, 2)
    damage_file(step_folder(run, 2))
    saved(run, 2)
    same(at_step(run, 2).read(dict.fromkeys(state(2))), state(2))
    assert not list(run.rglob("*.tmp-*"))
