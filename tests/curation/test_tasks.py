"""Shard tasks: each done once, whole or not at all, with the same bytes whoever does it."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from curation import tasks as tasks_module
from curation.errors import Locked, NoSpace
from curation.tasks import ALL, RECORD, Share, Task, Work, is_done, read_record, run, sealing, still_busy

TASKS = [Task(index, 6, {"version": 1, "numbers": [index, index * index]}) for index in range(6)]


def write(task: Task, folder: Path) -> dict[str, Any]:
    for number in task.inputs["numbers"]:
        (folder / f"{number}.txt").write_text(f"{number}\n" * 100)
    return {"rows": len(task.inputs["numbers"])}


@contextmanager
def writer(stop: threading.Event) -> Iterator[Work]:
    yield write


def counting(calls: list[int]) -> Callable[[threading.Event], Any]:
    @contextmanager
    def worker(stop: threading.Event) -> Iterator[Work]:
        def work(task: Task, folder: Path) -> dict[str, Any]:
            calls.append(task.index)
            return write(task, folder)

        yield work

    return worker


def content(stage: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(stage)): path.read_bytes()
        for path in sorted(stage.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    run(tmp_path / "expected", TASKS, writer)
    return content(tmp_path / "expected")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers_writes_the_same_bytes(
    workers: int, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    assert run(tmp_path / "stage", TASKS, writer, workers=workers) == []
    assert content(tmp_path / "stage") == expected
    assert len(expected) == 6 * 2 + 6 - 2  # 0 and 1 are their own squares: one file each


def test_shares_in_any_order_write_the_same_bytes(tmp_path: Path, expected: dict[str, bytes]) -> None:
    for index in (2, 0, 1):
        run(tmp_path / "stage", TASKS, writer, share=Share(index=index, count=3))
        done = [task.index for task in TASKS if is_done(tmp_path / "stage", task)]
        assert index in done
    assert content(tmp_path / "stage") == expected


def test_what_is_done_is_not_done_again_unless_its_inputs_changed(tmp_path: Path) -> None:
    calls: list[int] = []
    run(tmp_path, TASKS, counting(calls))
    run(tmp_path, TASKS, counting(calls))
    assert sorted(calls) == [0, 1, 2, 3, 4, 5]
    other = [*TASKS[:3], Task(3, 6, {"version": 2, "numbers": [9]}), *TASKS[4:]]
    run(tmp_path, other, counting(calls))
    assert calls[6:] == [3]
    assert {path.name for path in (tmp_path / other[3].name).iterdir()} == {"9.txt", RECORD}


@pytest.mark.parametrize("damage", ["cut off", "no record", "record changed"])
def test_damaged_outputs_are_made_again(damage: str, tmp_path: Path, expected: dict[str, bytes]) -> None:
    stage = tmp_path / "stage"
    run(stage, TASKS, writer)
    folder = stage / TASKS[4].name
    if damage == "cut off":
        (folder / "16.txt").write_text("16")
    elif damage == "no record":
        (folder / RECORD).unlink()
    else:
        (folder / RECORD).write_text((folder / RECORD).read_text().replace("rows", "lines"))
    assert not read_record(folder)
    run(stage, TASKS, writer)
    assert content(stage) == expected


def test_task_that_fails_leaves_no_folder_and_ends_the_run(tmp_path: Path) -> None:
    @contextmanager
    def full(stop: threading.Event) -> Iterator[Work]:
        def work(task: Task, folder: Path) -> dict[str, Any]:
            (folder / "part.txt").write_text("half")
            raise OSError(28, os.strerror(28))

        yield work

    with pytest.raises(NoSpace, match="no space left"):
        run(tmp_path / "stage", TASKS, full, workers=2)
    assert not any(is_done(tmp_path / "stage", task) for task in TASKS)
    run(tmp_path / "stage", TASKS, writer)
    assert not [path for path in (tmp_path / "stage").iterdir() if ".tmp-" in path.name]


def _hold(stage: Path, begun: Any, release: Any) -> None:
    @contextmanager
    def slow(stop: threading.Event) -> Iterator[Work]:
        def work(task: Task, folder: Path) -> dict[str, Any]:
            begun.set()
            release.wait()
            return write(task, folder)

        yield work

    run(stage, TASKS[:1], slow)


def test_task_of_another_process_is_left_to_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, begun, release))
    other.start()
    try:
        assert begun.wait(20)
        busy = run(tmp_path, TASKS, writer)
        assert busy == TASKS[:1]
        with pytest.raises(Locked, match="another process works on 1 of its parts"):
            still_busy(tmp_path, busy)
        with sealing(tmp_path, TASKS) as sealed:
            assert not sealed
    finally:
        release.set()
        other.join()
    still_busy(tmp_path, busy)
    with sealing(tmp_path, TASKS) as sealed:
        assert sealed


def test_process_killed_in_a_task_leaves_it_to_the_next_run(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    context = multiprocessing.get_context("fork")
    begun, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "stage", begun, release))
    other.start()
    assert begun.wait(20)
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert [path for path in (tmp_path / "stage").iterdir() if ".tmp-" in path.name]
    assert run(tmp_path / "stage", TASKS, writer) == []
    assert content(tmp_path / "stage") == expected


def test_folder_that_was_being_replaced_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames: the former folder is what others carry rows over from."""
    run(tmp_path, TASKS, writer)
    former = tmp_path / TASKS[2].name
    former.rename(former.with_name(f"{former.name}.former.tmp-task"))
    calls: list[int] = []
    run(tmp_path, TASKS, counting(calls))
    assert calls == []
    assert is_done(tmp_path, TASKS[2])


def test_sealing_removes_other_layouts_and_what_was_left(tmp_path: Path) -> None:
    run(tmp_path, [Task(0, 1, {"version": 1, "numbers": [7]})], writer)
    (tmp_path / "00009-of-00016.tmp-task").mkdir()
    run(tmp_path, TASKS, writer)
    with sealing(tmp_path, TASKS) as sealed:
        assert sealed
        assert (tmp_path / "00000-of-00001").is_dir(), "what others may still read goes last"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".lock", *(task.name for task in TASKS)}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where whoever started the tests lets it be ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_ends_the_run_after_the_work_in_hand(tmp_path: Path) -> None:
    @contextmanager
    def slow(stop: threading.Event) -> Iterator[Work]:
        def work(task: Task, folder: Path) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
            return write(task, folder)

        yield work

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, TASKS, slow)
    assert sum(is_done(tmp_path, task) for task in TASKS) == 1


def _look(stage: Path, begun: Any, release: Any) -> None:
    with sealing(stage, TASKS) as sealed:
        assert not sealed
        begun.set()
        release.wait()


@pytest.fixture
def looking(tmp_path: Path) -> Iterator[Any]:
    """Another process that looked whether all was done when one task was not; set, it goes."""
    run(tmp_path, TASKS[1:], writer)
    context = multiprocessing.get_context("fork")
    begun, release = context.Event(), context.Event()
    other = context.Process(target=_look, args=(tmp_path, begun, release))
    other.start()
    try:
        assert begun.wait(20)
        yield release
    finally:
        release.set()
        other.join()


def test_last_to_end_seals_though_another_just_looks(tmp_path: Path, looking: Any) -> None:
    run(tmp_path, TASKS[:1], writer)
    timer = threading.Timer(0.5, looking.set)
    timer.start()
    try:
        with sealing(tmp_path, TASKS) as sealed:
            assert sealed, "the other looked before the last task was done"
    finally:
        timer.join()


@pytest.mark.usefixtures("interruptible")
def test_who_waits_to_look_sees_signals_and_waits_not_for_ever(
    tmp_path: Path, looking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt), sealing(tmp_path, TASKS):
            pass
    finally:
        timer.cancel()
    monkeypatch.setattr(tasks_module, "_SEAL_S", 0.3)
    with sealing(tmp_path, TASKS) as sealed:
        assert not sealed


def test_share_has_every_task_once() -> None:
    shares = [Share(index=index, count=4) for index in range(4)]
    assert all(sum(share.has(task) for share in shares) == 1 for task in TASKS)
    assert all(ALL.has(task) for task in TASKS)
