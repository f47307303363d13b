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

from curation.cli import curate
from curation.errors import UsageProblem
from curation.media.decoder import DecoderConfig, decoding
from curation.ray_engine import ActorSize, Engine, cluster


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
