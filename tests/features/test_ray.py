"""Ray: two nodes write what the processes of one machine write, though an actor is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_clips import SmallClips, digests, extract_words, finish, start

from curation.errors import FoleyproofError, UsageProblem
from curation.ray_engine import cluster

# A cluster of its own process: what Ray leaves behind in one is not for the tests after it.
CLUSTER = """
import os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster
node = dict(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def started(**settings: str) -> Iterator[str]:
    """The address of a cluster of two nodes, which ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CLUSTER], env={**os.environ, **settings},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with started() as address:
        yield address


def actors() -> list[int]:
    """Processes in which an actor of ours lives."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdecimal() and b"ray::Actor" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_two_nodes_and_a_killed_actor_write_the_bytes_of_local_workers(
    address: str, clips: SmallClips, done: Any, tmp_path: Path
) -> None:
    """And of shares: what those write is compared with the same run in test_extract."""
    there = tmp_path / "ray"
    known = set(actors())
    process = start(extract_words(clips, there, "--engine", "ray", "--address", address))
    until_s = time.monotonic() + 120
    while not list(there.glob("clips/*.tmp-task")) and time.monotonic() < until_s:
        assert process.poll() is None, finish(process)
        time.sleep(0.02)
    before = set(actors()) - known
    assert before, "no actor was started"
    os.kill(min(before), signal.SIGKILL)
    after: set[int] = set()
    while process.poll() is None and time.monotonic() < until_s:
        after |= set(actors()) - known - before
        time.sleep(0.05)
    code, _, err = finish(process)
    assert code == 3, err
    assert after, "nobody took the place of the actor that was killed"
    assert digests(there) == digests(done[0])


@pytest.mark.slow
def test_scan_by_ray_writes_the_bytes_of_a_local_scan(
    address: str, clips: SmallClips, tmp_path: Path
) -> None:
    program = [sys.executable, "-c", "from curation.cli import main; main()"]
    scan = [*program, "scan", str(clips.media), "--manifests"]
    for name, more in (("local", []), ("ray", ["--engine", "ray", "--address", address])):
        done = subprocess.run([*scan, str(tmp_path / name), *more], capture_output=True, text=True)
        assert done.returncode == 3, done.stderr
    found, expected = (
        {name: digest for name, digest in digests(tmp_path / where / "fingerprints").items()}
        for where in ("ray", "local")
    )
    assert found == expected
    assert len(expected) > 3


@pytest.mark.soak
def test_relative_folders_mean_the_same_to_actors(
    address: str, clips: SmallClips, done: Any, tmp_path: Path
) -> None:
    here = Path(shutil.copytree(clips.media.parent, tmp_path / "here"))
    relative = SmallClips(manifest=clips.manifest.relative_to(clips.media.parent), media=Path("media"))
    words = extract_words(relative, Path("there"), "--engine", "ray", "--address", address)
    at = words.index("--media")
    for number, some in enumerate((words, [*words[:at], *words[at + 2 :]])):
        some[some.index("--out") + 1] = f"there{number}"
        code, _, err = finish(start(some, cwd=here))
        assert code == 3, err
        assert digests(here / f"there{number}") == digests(done[0])


FEWER = """
import os, sys, time
from contextlib import contextmanager
from pathlib import Path
from curation import ray_actors, ray_engine
from curation.tasks import Task, run
ray_actors._START_S = 15.0
address, stage, dies = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

def make(tell):
    @contextmanager
    def worker(stop):
        def work(given, folder):
            (folder / "pid").write_text(str(os.getpid()))
            time.sleep(5.0)
            if given["number"] == 6 and not dies.exists():
                dies.touch()
                os.kill(os.getpid(), 9)
            (folder / "pid").write_text("done")
            return {}
        yield work
    return worker

with ray_engine.cluster(address) as engine:
    remote = engine.worker(make)
    @contextmanager
    def worker(stop):
        with remote(stop) as work:
            yield lambda task, folder: work(task.inputs, folder)
    room = engine.room()
    run(stage, [Task(at, 7, {"number": at}) for at in range(7)], worker, workers=5)
print(room)
"""


@pytest.mark.soak
def test_more_actors_than_there_is_room_for_and_one_that_dies_at_the_last_task(
    address: str, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", FEWER, address, str(tmp_path / "stage"), str(tmp_path / "died")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2\n"
    assert (tmp_path / "died").exists()
    found = sorted((tmp_path / "stage").glob("*-of-*/pid"))
    assert [path.read_text() for path in found] == ["done"] * 7


LOST = """
import os, sys, threading, time
from contextlib import contextmanager
from pathlib import Path
from curation import ray_actors, ray_engine
from curation.errors import WorkerLost
ray_actors._START_S = 2.0
address, folder, died, num_cpus = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]

class Deadly:
    def __reduce__(self):  # where it is sent
        os.kill(os.getpid(), 9)

def make(tell):
    @contextmanager
    def worker(stop):
        def work(given, folder):
            (folder / str(os.getpid())).touch()
            if not died.exists():
                died.touch()
                tell(Deadly())
                time.sleep(60)
            return {"pid": os.getpid()}
        yield work
    return worker

try:
    with ray_engine.cluster(address) as engine:
        remote = engine.worker(make, size=ray_actors.ActorSize(num_cpus=float(num_cpus)))
        with remote(threading.Event()) as work:
            found = work({}, folder)
except WorkerLost as error:
    found = error
print(found)
"""


def answer_of(address: str, folder: Path, *, num_cpus: int = 1) -> str:
    """What is said of a task whose first actor dies while it answers how far it is."""
    words = [sys.executable, "-c", LOST, address, str(folder), f"{folder}.died", str(num_cpus)]
    folder.mkdir()
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_task_whose_actor_dies_while_it_is_asked_how_far_it_is_is_done_by_another(
    address: str, tmp_path: Path
) -> None:
    said = answer_of(address, tmp_path / "task")
    assert (tmp_path / "task.died").exists()
    (left,) = (tmp_path / "task").iterdir()
    assert said == f"{{'pid': {left.name}}}"


@pytest.mark.slow
def test_actor_larger_than_every_machine_is_told(address: str, tmp_path: Path) -> None:
    said = answer_of(address, tmp_path / "task", num_cpus=2)  # as many as both machines have
    assert said.startswith(
        "no room for an actor with 2 CPUs and 0 GPUs (waited 2 s), expected it on one"
    )


@pytest.mark.slow
def test_actors_that_ray_ends_for_their_memory_are_told(tmp_path: Path) -> None:
    with started(RAY_memory_usage_threshold="0.001", RAY_memory_monitor_refresh_ms="100") as address:
        said = answer_of(address, tmp_path / "task")
    assert "4 actors died at it" in said
    assert "low on memory" in said


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FoleyproofError, match=r"pip install 'foleyproof\[ray\]'"), cluster(None):
        pass


@pytest.mark.slow
def test_address_without_a_cluster_is_told(monkeypatch: Any) -> None:
    with pytest.raises(UsageProblem, match="no Ray cluster there"), cluster("127.0.0.1:1"):
        pass
