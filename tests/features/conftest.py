"""What the tests of extraction share: small datasets with media, and what an unbroken run makes."""

import json
import time
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from made_once import made_once
from small_clips import SmallClips, extract_words, finish, start, write_small_clips

from curation import console

Result = namedtuple("Result", "code out err")


@dataclass(frozen=True, slots=True)
class Unbroken:
    """A finished extraction, for reading: another process may read it at the same time."""

    out: Path
    result: Result  # of its command, with --json
    duration_s: float


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> SmallClips:
    """The two datasets; nobody changes them."""
    folder = made_once(tmp_path_factory, "small_clips", write_small_clips)
    return SmallClips(manifest=folder / "manifests" / "all.parquet", media=folder / "media")


@pytest.fixture(scope="session")
def unbroken(clips: SmallClips, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    """What `extract` makes of them, undisturbed, by a process of its own."""

    def make(folder: Path) -> None:
        begun_s = time.monotonic()
        said = finish(start(extract_words(clips, folder / "out", "--workers", "1", "--json")))
        assert said[0] == 3, said
        (folder / "said.json").write_text(json.dumps([said, time.monotonic() - begun_s]))

    folder = made_once(tmp_path_factory, "unbroken", make)
    said, duration_s = json.loads((folder / "said.json").read_text())
    return Unbroken(folder / "out", Result(*said), duration_s)


@pytest.fixture(scope="session")
def done(unbroken: Unbroken) -> tuple[Path, Result]:
    """Its folder and what its command said."""
    return unbroken.out, unbroken.result


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`features …` in this process; its encoders have one of their own."""
    from features import cli

    def run_words(*words: Any) -> Result:
        monkeypatch.setattr("sys.argv", ["features", *map(str, words)])
        code = console.run(cli.features, "features")
        return Result(code, *capsys.readouterr())

    return run_words
