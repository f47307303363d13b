"""What a cluster has room for, and what children of this machine import; see also test_ray."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from made_media import make_media

from curation import ray_actors
from curation.cli import curate
from curation.errors import FoleyproofError, UsageProblem, WorkerLost
from curation.media.decoder import DecoderConfig, decoding
from curation.ray_actors import ActorSize
from curation.ray_engine import Engine, cluster


def engine_of(*machines: tuple[float, float], down: tuple[float, float] | None = None) -> Engine:
    """A connection to machines with so many CPUs and GPUs each."""
    nodes = [
        {"Alive": alive, "Resources": {"CPU": cpus, "memory": 1e9, **({"GPU": gpus} if gpus else {})}}
        for alive, (cpus, gpus) in [
            *((True, one) for one in machines),
            *([(False, down)] if down else []),
        ]
    ]
    return Engine(SimpleNamespace(nodes=lambda: nodes))


@pytest.mark.parametrize(
    ("machines", "size", "room"),
    [
        ([(3, 0), (3, 0)], ActorSize(num_cpus=2), 2),  # 6 // 2 would be 3
        ([(1, 0), (1, 0)], ActorSize(num_cpus=2), 1),  # none fits; one is asked for and waited for
        ([(64, 8), (64, 8)], ActorSize(num_cpus=8, num_gpus=1), 16),
        ([(64, 8), (64, 0)], ActorSize(num_cpus=16, num_gpus=1), 4),
        ([(0, 0), (16, 0)], ActorSize(num_cpus=3), 5),
    ],
)
def test_room_is_counted_machine_by_machine(
    machines: list[tuple[float, float]], size: ActorSize, room: int
) -> None:
    assert engine_of(*machines).room(size) == room


def test_machines_that_are_down_have_neither_room_nor_gpus() -> None:
    engine = engine_of((4, 1), down=(64, 8))
    assert (engine.room(), engine.num_gpus) == (4, 1)


def test_connection_that_fails_without_a_word_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise ConnectionError

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with pytest.raises(UsageProblem, match=r"no Ray cluster there \(ConnectionError\)"), cluster(None):
        pass


def test_address_without_ray_is_a_mistake() -> None:
    result = CliRunner().invoke(curate, ["scan", "--address", "here:6379"])
    assert isinstance(result.exception, UsageProblem)
    assert "--address here:6379 with --engine local" in str(result.exception)


# ---- actors that are lost, or never begin ------------------------------------------------------------


class Actor:
    """One whose answer is known by the name of what it is asked."""

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *given: name)


class Answers:
    """Ray, whose actors all answer a question alike: an error is raised, and None never comes."""

    def __init__(self, **answers: Any) -> None:
        from ray import exceptions

        self.exceptions = exceptions
        self.answers = {"pid": 1, "told": [], "work": ({"clips": 1}, None), **answers}
        self.num_put = self.num_kinds = self.num_actors = self.num_killed = 0

    def put(self, value: Any) -> str:
        self.num_put += 1
        return "what is put"

    def remote(self, **options: Any) -> Any:
        self.num_kinds += 1
        return lambda kind: SimpleNamespace(remote=self._actor)

    def _actor(self, make: str) -> "Actor":
        assert make == "what is put"
        self.num_actors += 1
        return Actor()

    def wait(self, asked: list[str], timeout: float) -> tuple[list[str], list[str]]:
        return (asked, []) if self.answers[asked[0]] is not None else ([], asked)

    def get(self, asked: str) -> Any:
        if isinstance(self.answers[asked], Exception):
            raise self.answers[asked]
        return self.answers[asked]

    def kill(self, actor: Any) -> None:
        self.num_killed += 1

    def work(self, folder: Path) -> dict[str, Any]:
        """What comes of a task in a folder where something is half done."""
        (folder / "half").touch()
        with Engine(self).worker(pytest.fail)(threading.Event()) as work:
            return work({}, folder)


def error_of_ray(name: str, *told: Any) -> Exception:
    from ray import exceptions

    error: Exception = getattr(exceptions, name)(*told)
    return error


@pytest.mark.parametrize("asked", ["pid", "told", "work"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ActorDiedError", ()),
        ("ActorUnavailableError", ("no connection", None)),
        ("LocalRayletDiedError", ()),
        ("NodeDiedError", ("the node went",)),
        ("ObjectLostError", ("00", None, "")),
        ("OutOfMemoryError", ("the node is low on memory",)),
        ("OwnerDiedError", ("00", b"", "")),
        ("RuntimeEnvSetupError", ("no environment",)),
        ("WorkerCrashedError", ()),
    ],
)
def test_actor_lost_for_whatever_reason_costs_a_try(
    asked: str, name: str, told: tuple[Any, ...], tmp_path: Path
) -> None:
    ray = Answers(**{asked: error_of_ray(name, *told)})
    with pytest.raises(WorkerLost, match=r"4 actors died at it \(.+\), expected one to end"):
        ray.work(tmp_path)
    assert (ray.num_actors, ray.num_killed) == (4, 4)
    assert not list(tmp_path.iterdir())


def test_what_lost_actors_told_of_a_task_is_taken_back(tmp_path: Path) -> None:
    for told in (10, {"clips": 10, "busy_s": 0.5}):
        heard: list[Any] = []
        ray = Answers(told=[told], work=error_of_ray("ActorDiedError"))
        with (
            pytest.raises(WorkerLost),
            Engine(ray).worker(pytest.fail, tell=heard.append)(threading.Event()) as work,
        ):
            work({}, tmp_path)
        assert len(heard) == 8, "four actors told something, and were lost"
        numbers = [list(one.values()) if isinstance(one, dict) else [one] for one in heard]
        assert not any(map(sum, zip(*numbers, strict=True)))


def test_actors_of_a_kind_share_one_class_and_one_copy_of_what_they_run(tmp_path: Path) -> None:
    ray = Answers(work=error_of_ray("ActorDiedError"))
    with pytest.raises(WorkerLost):
        ray.work(tmp_path)
    assert (ray.num_actors, ray.num_kinds, ray.num_put) == (4, 1, 1)


def test_mistake_of_our_code_in_an_actor_is_shown_and_not_tried_again(tmp_path: Path) -> None:
    ray = Answers(work=error_of_ray("RayTaskError", "work", "a traceback", KeyError("x"), "p", 1, "ip"))
    with pytest.raises(Exception, match="a traceback") as raised:
        ray.work(tmp_path)
    assert not isinstance(raised.value, FoleyproofError)
    assert ray.num_actors == 1


def test_actor_that_can_never_be_placed_is_no_room_and_not_asked_for_again(tmp_path: Path) -> None:
    ray = Answers(pid=error_of_ray("ActorUnschedulableError", "the node it asks for is dead"))
    with pytest.raises(WorkerLost, match=r"no room for an actor .*the node it asks for is dead"):
        ray.work(tmp_path)
    assert (ray.num_actors, ray.num_killed) == (1, 1)


def test_actor_that_does_not_begin_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actors, "_START_S", 0.0)
    ray = Answers(pid=None)
    said = r"no room for an actor with 1 CPUs and 0 GPUs \(waited 0 s\), expected it on one machine"
    with pytest.raises(WorkerLost, match=said):
        ray.work(tmp_path)
    assert (ray.num_actors, ray.num_killed) == (1, 1)


# ---- decoding children ------------------------------------------------------------------------------


def test_child_imports_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_media(tmp_path / "film.mp4", seconds=2.0, size=(64, 48), fps=10)
    for name in ("json", "numpy", "av"):
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'taken')!r}, 'w')\nraise SystemExit\n"
        )
    monkeypatch.chdir(tmp_path)
    with decoding(DecoderConfig()) as decoder:
        assert decoder.scan(str(tmp_path / "film.mp4")).reason is None
    assert not (tmp_path / "taken").exists()


def test_child_that_cannot_be_started_leaves_no_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any, **options: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = os.listdir("/proc/self/fd")
    with decoding(DecoderConfig(), threading.Event()) as decoder:
        for _ in range(3):
            with pytest.raises(OSError, match="no more processes"):
                decoder.scan("film.mp4")
    assert len(os.listdir("/proc/self/fd")) == len(before)
