"""Run it again: an extraction killed at any moment is continued to the bytes of an unbroken one."""

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_clips import SmallClips, digests, extract_words, finish, start


@dataclass(frozen=True)
class World:
    """Clips, and what an unbroken run makes of them in how many seconds."""

    clips: SmallClips
    expected: dict[str, str]
    duration_s: float


@pytest.fixture(scope="module")
def world(clips: SmallClips, unbroken: Any) -> World:
    return World(clips, digests(unbroken.out), unbroken.duration_s)


def moment(part: int, parts: int) -> float:
    """Shares of the duration, spread evenly and never at its ends."""
    return (part + 0.5) / parts


def children_of(pid: int) -> list[int]:
    """All processes below one."""
    below, found = [pid], []
    while below:
        one = below.pop()
        try:
            tasks = Path(f"/proc/{one}/task").iterdir()
            for task in tasks:
                below += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        found.append(one)
    return found[1:]


def lives(pid: int) -> bool:
    """Whether a process runs; one that ended and was not asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_extraction_killed_at_any_moment_ends_in_the_same_bytes_when_run_again(
    kills: int, world: World, tmp_path: Path
) -> None:
    killed = over = half = 0
    duration_s = world.duration_s
    while killed < kills:
        out = tmp_path / f"{killed}-{over}"
        words = extract_words(world.clips, out, "--workers", "1")
        begun_s = time.monotonic()
        process = start(words)
        while process.poll() is None and time.monotonic() < begun_s + duration_s * moment(killed, kills):
            time.sleep(0.02)
        if process.poll() is not None:
            duration_s = min(duration_s, time.monotonic() - begun_s)  # the machine was busier before
            over += 1
            assert over < 100, "the command is over before it can be killed"
            finish(process)
            shutil.rmtree(out)
            continue
        children = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        finish(process)
        killed += 1
        half += any(".tmp-" in path.name for path in out.rglob("*"))
        until_s = time.monotonic() + 10
        while any(lives(child) for child in children) and time.monotonic() < until_s:
            time.sleep(0.05)
        assert not [child for child in children if lives(child)], "children outlived their parent"
        code, _, err = finish(start(words))
        assert code == 3, err
        assert digests(out) == world.expected, f"killed at {moment(killed - 1, kills):.2f} of the time"
        shutil.rmtree(out)
    print(f"{killed} killed ({half} left temporary files), {over} were over before; same bytes")


@pytest.mark.soak  # by default test_feeding kills a child, which costs its clip
@pytest.mark.parametrize("module", ["features.inputs.child", "features.extraction.worker"])
def test_child_that_is_killed_costs_at_most_a_run(module: str, world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = extract_words(world.clips, out, "--workers", "1")
    process = start(words)
    until_s = time.monotonic() + 60
    killed = False
    while not killed and process.poll() is None and time.monotonic() < until_s:
        for child in children_of(process.pid):
            try:
                said = Path(f"/proc/{child}/cmdline").read_bytes()
            except OSError:
                continue
            if module.encode() in said:
                time.sleep(0.2)
                os.kill(child, signal.SIGKILL)
                killed = True
                break
        time.sleep(0.01)
    assert killed
    code, _, err = finish(process)
    if module == "features.extraction.worker":
        assert code == 1
        assert "died (SIGKILL)" in err
    else:  # the clip is decoded once more in another child
        assert code == 3, err
    code, _, err = finish(start(words))
    assert code == 3, err
    assert digests(out) == world.expected


@pytest.mark.slow
def test_interrupted_extraction_ends_with_130_and_takes_its_children_along(
    world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = extract_words(world.clips, out, "--workers", "1")
    process = start(words)
    until_s = time.monotonic() + 60
    while not (children := children_of(process.pid)) and time.monotonic() < until_s:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "interrupted; run the same command again to continue" in err
    assert not [child for child in children if lives(child)]
    code, _, err = finish(start(words))
    assert code == 3, err
    assert digests(out) == world.expected
