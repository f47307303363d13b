"""Run it again: a command killed at any moment is continued by running it, to the same bytes.

The bytes are those of every lasting file below the manifests folder. Outside the promise are the
lock, `manifests.duckdb` (absolute paths) and `fetched.json` (modification times of the raw files).
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curation.cli import curate as command
from curation.console import run

pytestmark = pytest.mark.slow
OUTSIDE = {".lock", "manifests.duckdb", "fetched.json"}
STEPS = {"build": ("build",), "clean": ("clean", "--test", "vggsound,audiocaps", "--name", "paper")}
# 300,000 segments: more than one row group of Parquet, and some seconds in which to be killed
SEGMENTS, VIDEOS, CAPTIONED = 300_000, 120_000, 5_000


@dataclass(frozen=True, slots=True)
class World:
    """Metadata of three datasets that overlap, and what unbroken runs make of them."""

    folder: Path
    before: dict[str, Path]  # by step: the manifests as they are before it
    after: dict[str, dict[str, bytes]]  # by step: the lasting files after it
    duration_s: dict[str, float]  # by step


def youtube_id(n: int) -> str:
    """Eleven characters in no order; every 997th is written in another case than its twin."""
    text = f"{n * 2_654_435_761 % 16**10:010x}A"
    return text if n % 997 else text.upper()


def write_metadata(folder: Path) -> None:
    """AudioSet, VGGSound and AudioCaps in their formats, with shared recordings and damaged rows."""
    lines = {
        "audioset/unbalanced_train_segments.csv": (
            f'{youtube_id(n)}, {n % 600}.000, {n % 600 + 10}.000, "/m/09x0r,/m/04rlf"'
            for n in range(SEGMENTS)
        ),
        "vggsound/vggsound.csv": (
            f"{youtube_id(n * 5)},{n % 400},label {n % 309},{'train' if n % 12 else 'test'}"
            for n in range(VIDEOS)
        ),
        "audiocaps/dataset/test.csv": (
            "audiocap_id,youtube_id,start_time,caption" if n == 0 else
            f'{n},{youtube_id(n * 30)},{n % 500},"Caption, number {n}"'
            for n in range(CAPTIONED)
        ),
    }  # fmt: skip
    for name, rows in lines.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\nbad,-1,row,train\n" * (name[0] == "v"))


def start(manifests: Path, *words: str, **options: Any) -> "subprocess.Popen[bytes]":
    """`curate` in a process of its own."""
    line = [sys.executable, "-c", "from curation.cli import main; main()", words[0]]
    return subprocess.Popen(
        [*line, "--manifests", str(manifests), *words[1:]],
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **options},
    )


def finish(process: "subprocess.Popen[bytes]") -> None:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()


def in_process(manifests: Path, *words: str) -> None:
    """`curate` in this process, where it can be patched."""
    former = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ["curate", words[0], "--manifests", str(manifests), *words[1:]]
    try:
        assert run(command, "curate") == 0, words
    finally:
        sys.argv = former[0]
        signal.signal(signal.SIGTERM, former[1])


def lasting(manifests: Path) -> dict[str, bytes]:
    """Every file that the promise is about, by its path."""
    return {
        str(path.relative_to(manifests)): path.read_bytes()
        for path in sorted(manifests.rglob("*"))
        if path.is_file() and path.name not in OUTSIDE and ".tmp-" not in str(path)
    }


def temporary(manifests: Path) -> list[Path]:
    return [path for path in manifests.rglob("*") if ".tmp-" in path.name]


def copied(folder: Path, target: Path) -> Path:
    """A copy in links: nothing is ever written in place, so what is linked stays as it is."""
    return Path(shutil.copytree(folder, target, copy_function=os.link))


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Names of the files that differ: less to read than the bytes."""
    return sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    write_metadata(folder / "metadata")
    manifests = folder / "fetched"
    finish(start(manifests, "fetch", "--from", str(folder / "metadata")))
    before, after, duration_s = {}, {}, {}
    for step, words in STEPS.items():
        before[step] = manifests
        manifests = copied(manifests, folder / f"after {step}")
        begun = time.monotonic()
        finish(start(manifests, *words))
        duration_s[step] = time.monotonic() - begun
        after[step] = lasting(manifests)
    assert len(after["clean"]["clean/paper/excluded.parquet"]) > 10_000, "nothing was excluded"
    return World(folder, before, after, duration_s)


def moment(part: int, parts: int) -> float:
    """A random share of a run: one in each of `parts` equal parts, the last in its last fifth."""
    return 0.8 + 0.2 * random.random() if part == parts - 1 else (part + random.random()) / parts


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.soak)])
@pytest.mark.parametrize("step", STEPS)
def test_command_killed_at_any_moment_ends_in_the_same_bytes_when_run_again(
    step: str, kills: int, world: World, tmp_path: Path
) -> None:
    before, after = lasting(world.before[step]), world.after[step]
    duration_s = world.duration_s[step]
    killed = done = left = 0
    while killed < kills:
        manifests = copied(world.before[step], tmp_path / f"{killed}-{done}")
        begun = time.monotonic()
        process = start(manifests, *STEPS[step])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(duration_s * moment(killed, kills))
        took_s = time.monotonic() - begun
        process.kill()
        process.communicate(timeout=60)
        if process.returncode == -signal.SIGKILL:
            killed += 1
        else:  # over before its moment: a run takes less than it took, and this one does not count
            done, duration_s = done + 1, min(duration_s, took_s)
            assert done < 100, "the command is over before it can be killed"
        left += bool(temporary(manifests))
        for name, content in lasting(manifests).items():
            assert content in (before.get(name), after.get(name)), f"{name} is neither old nor new"
        finish(start(manifests, *STEPS[step]))
        assert differing(lasting(manifests), after) == [], f"killed after {took_s:.3f} s"
        assert temporary(manifests) == []
        shutil.rmtree(manifests)
    print(f"{step}: {killed} killed ({left} left temporary files), {done} were over before; same bytes")


# Sudden death before the n-th rename: the moments between two files, which are too short to hit.
DEATH = """
import os
left = {n}
replace = os.replace
def dying(*arguments, **options):
    global left
    left -= 1
    if left == 0:
        os._exit(99)
    return replace(*arguments, **options)
os.replace = dying
from curation.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", [pytest.param("build", marks=pytest.mark.soak), "clean"])
def test_command_that_dies_between_two_renames_ends_in_the_same_bytes_when_run_again(
    step: str, world: World, tmp_path: Path
) -> None:
    small = tmp_path / "metadata"
    step_words = STEPS[step] + ("audiocaps",) * (step == "build")
    for name in ("vggsound/vggsound.csv", "audiocaps/dataset/test.csv"):
        lines = (world.folder / "metadata" / name).read_text().splitlines(keepends=True)
        (small / name).parent.mkdir(parents=True)
        (small / name).write_text("".join(lines[:300]))
    start_at, unbroken = tmp_path / "start", tmp_path / "unbroken"
    in_process(start_at, "fetch", "--from", str(small))
    if step == "clean":
        in_process(start_at, *STEPS["build"])
    in_process(copied(start_at, unbroken), *step_words)
    before, after = lasting(start_at), lasting(unbroken)
    for n in range(1, 200):
        manifests = copied(start_at, tmp_path / str(n))
        words = [step_words[0], "--manifests", str(manifests), *step_words[1:]]
        died = subprocess.run([sys.executable, "-c", DEATH.format(n=n), *words], capture_output=True)
        if died.returncode == 0:
            break
        assert died.returncode == 99, died.stderr.decode()
        for name, content in lasting(manifests).items():
            assert content in (before.get(name), after.get(name)), (n, name)
        in_process(manifests, *step_words)
        assert differing(lasting(manifests), after) == [], f"died before rename {n}"
        assert temporary(manifests) == []
    assert 3 < n < 199, "the command renamed next to nothing, or never came to its end"


def test_two_runs_give_the_same_bytes(world: World, tmp_path: Path) -> None:
    manifests = copied(world.before["build"], tmp_path / "again")
    for step, words in STEPS.items():
        in_process(manifests, *words)
        assert differing(lasting(manifests), world.after[step]) == []


def test_running_it_again_changes_nothing(world: World, tmp_path: Path) -> None:
    manifests = copied(world.folder / "after clean", tmp_path / "again")
    for words in (*STEPS.values(), *STEPS.values()):
        in_process(manifests, *words)
    assert differing(lasting(manifests), world.after["clean"]) == []


@pytest.mark.parametrize("threads", [1, 2, 4, 16])
def test_number_of_threads_changes_no_byte(
    threads: int, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    connect: Callable[..., Any] = duckdb.connect

    def connect_with(*arguments: Any, **options: Any) -> Any:
        db = connect(*arguments, **options)
        db.execute(f"set threads = {threads}")
        return db

    monkeypatch.setattr(duckdb, "connect", connect_with)
    manifests = copied(world.before["build"], tmp_path / "manifests")
    for words in STEPS.values():
        in_process(manifests, *words)
    assert differing(lasting(manifests), world.after["clean"]) == []


def test_folder_time_zone_umask_locale_and_order_of_files_change_no_byte(
    world: World, tmp_path: Path
) -> None:
    manifests = tmp_path / "deeper" / "in another place" / "é"
    surroundings = os.environ | {
        "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANG": "C", "PYTHONHASHSEED": "7",
        "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "COLUMNS": "40",
    }  # fmt: skip
    options: dict[str, Any] = {"env": surroundings, "umask": 0o077, "cwd": tmp_path}
    for dataset in ("vggsound", "audiocaps", "audioset"):  # the last in the alphabet first
        source = str(world.folder / "metadata")
        finish(start(manifests, "fetch", dataset, "--from", source, **options))
        finish(start(manifests, "build", dataset, **options))
    finish(start(manifests, *STEPS["clean"], **options))
    assert differing(lasting(manifests), world.after["clean"]) == []
