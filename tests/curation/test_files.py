"""What is left under temporary names: whose it is, what is swept, and what is put back."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation import files
from curation.errors import NotWritable
from curation.files import locked, replacing_folder, sweep


@pytest.fixture
def living() -> Iterator[int]:
    """The id of another process that runs."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate(b"\n", timeout=60)


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=60)
    return process.pid


def _write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_sweep_reaches_every_depth_and_takes_temporary_names_only(tmp_path, dead):
    stays = [_write(tmp_path / name) for name in ("a/b/c/d/x.json", "a/x.tmp-1y", "a/b/.tmp-x")]
    for name in (f"x.tmp-{dead}", f"wavcaps/raw/json_files/SoundBible/x.tmp-{dead}"):
        _write(tmp_path / name)
    _write(tmp_path / "wavcaps" / f"stage.tmp-{dead}" / "clips.parquet")
    _write(tmp_path / f"mine.tmp-{os.getpid()}")  # a number that was given again
    with locked(tmp_path):
        left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*stays, tmp_path / ".lock"}
    assert list(tmp_path.rglob(f"*.tmp-{dead}")) == []


def test_sweep_leaves_what_a_living_process_writes(tmp_path, living, monkeypatch):
    spill = _write(tmp_path / f"spill.tmp-{living}" / "block.tmp")
    sweep(tmp_path)
    assert spill.is_file()

    def not_ours(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(files.os, "kill", not_ours)
    sweep(tmp_path)
    assert spill.is_file()


def test_sweep_does_not_leave_its_folder(tmp_path, dead):
    outside = _write(tmp_path / "outside" / f"x.tmp-{dead}")
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "link").symlink_to(outside.parent)
    sweep(tmp_path / "manifests")
    assert outside.is_file()


def test_folder_stays_as_it_was_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "paper"
    _write(target / "kept", "former")
    replace, calls = os.replace, []

    def failing(source, destination):
        calls.append(destination)
        if len(calls) == 2:
            raise OSError("the second rename")
        replace(source, destination)

    monkeypatch.setattr(files.os, "replace", failing)
    with pytest.raises(OSError, match="the second rename"), replacing_folder(target) as temporary:
        _write(temporary / "kept", "new")
    assert (target / "kept").read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["paper"]


def test_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "paper"
    _write(target / "kept", "former")
    with replacing_folder(target) as temporary:
        _write(temporary / "excluded", "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["paper", "excluded"]


def test_folder_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    """Names of files too: a machine that stops after the rename must not leave an empty folder."""
    told, fsync, replace = [], files.fsync, os.replace

    def synced(path):
        told.append(path.name.partition(".tmp-")[0])
        fsync(path)

    def replaced(source, destination):
        told.append("rename")
        replace(source, destination)

    monkeypatch.setattr(files, "fsync", synced)
    monkeypatch.setattr(files.os, "replace", replaced)
    with replacing_folder(tmp_path / "paper") as temporary:
        _write(temporary / "kept", "new")
    assert told == ["kept", "paper", "rename", tmp_path.name]


KILLED = """
import os, sys
from pathlib import Path
from curation.files import replacing_folder
left, replace = int(sys.argv[2]), os.replace
def dying(*arguments):
    global left
    left -= 1
    if left == 0:
        os._exit(99)
    replace(*arguments)
os.replace = dying
with replacing_folder(Path(sys.argv[1])) as temporary:
    (temporary / "kept").write_text("new")
os._exit(0)
"""


@pytest.mark.parametrize(("rename", "code"), [(1, 99), (2, 99), (3, 0)])
def test_former_folder_outlives_a_kill_between_the_two_renames(tmp_path, rename, code):
    target = tmp_path / "clean" / "paper"
    _write(target / "kept", "former")
    died = subprocess.run([sys.executable, "-c", KILLED, str(target), str(rename)], check=False)
    assert died.returncode == code
    assert target.exists() == (rename != 2)
    with locked(tmp_path):
        assert (target / "kept").read_text() == ("former" if code else "new")
    assert [path.name for path in target.parent.iterdir()] == ["paper"]


def test_former_folder_goes_where_the_new_one_is_in_its_place(tmp_path, dead):
    _write(tmp_path / "clean" / "paper" / "kept", "new")
    _write(tmp_path / "clean" / f"paper.former.tmp-{dead}" / "kept", "former")
    sweep(tmp_path)
    assert (tmp_path / "clean" / "paper" / "kept").read_text() == "new"
    assert [path.name for path in (tmp_path / "clean").iterdir()] == ["paper"]


@pytest.mark.parametrize("write", [files.replacing, files.replacing_folder])
def test_place_where_no_folder_can_be_made_is_said(write, tmp_path):
    (tmp_path / "a file").write_text("in the way")
    with (
        pytest.raises(NotWritable, match="expected a place that can be read and written"),
        write(tmp_path / "a file" / "below" / "x"),
    ):
        pass


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with pytest.raises(NotWritable, match="No locks available; expected a disk"), locked(tmp_path):
        pass
