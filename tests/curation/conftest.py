"""What the tests of curation share: the offline corpus, and tiny datasets made of stated rows."""

import csv
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curation.catalog.build import Built, build
from curation.catalog.cards import Card, find_cards, load_cards
from curation.catalog.fetch import fetch_from
from curation.catalog.twins import find_twins
from curation.clip import Clip
from curation.corpus.planted import Planted
from curation.corpus.synthetic import write_corpus

_HEADER = ("clip_id", "split", "source", "source_id", "start", "end")
_TINY_CARD = """
title = "{name}"
homepage = "-"
citation = "-"
metadata_licence = "-"
media_licence = "-"
unidentified = true

[files.rows]
path = "rows.csv"
url = "-"
columns = ["clip_id", "split", "source", "source_id", "start", "end"]

[splits.train]
role = "train"

[splits.extra]
role = "train"

[splits.val]
role = "validation"

[splits.test]
role = "test"

# Any rows may be in it, of train splits too.
[[lists]]
name = "cut"
title = "the clips whose name begins with c"
sql = '''
select source, source_id, seconds(start) as start_s
from rows
where starts_with(clip_id, 'c') and source_id is not null'''

[[lists]]
name = "official"
title = "the test split"
split = "test"
default = true
{evidence}
"""
_TINY_SQL = """
select clip_id, split, source, source_id, seconds(start) as start_s, seconds("end") as end_s, file, row
from rows
"""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The offline corpus as it came out of fetch and build, and the truth about it."""

    metadata: Path
    manifests: Path
    planted: Planted
    cards: dict[str, Card]
    built: list[Built]


@dataclass(frozen=True, slots=True)
class Tiny:
    """Datasets made of stated rows, built."""

    manifests: Path
    cards_folder: Path
    cards: dict[str, Card]
    built: list[Built]
    rows: dict[str, list[tuple[Clip, str]]]  # by dataset: clip and split


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus, built once; tests may add clean manifests, and change nothing else."""
    folder = tmp_path_factory.mktemp("corpus")
    planted = write_corpus(folder / "metadata")
    cards, manifests = load_cards(), folder / "manifests"
    fetch_from(folder / "metadata", list(cards.values()), manifests)
    built = build(list(cards.values()), manifests)
    find_twins(manifests, cards)
    return Corpus(folder / "metadata", manifests, planted, cards, built)


@pytest.fixture(scope="session")
def nameless_clotho(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests of the corpus, Clotho's made without the metadata files that tell its Freesound ids."""
    folder = tmp_path_factory.mktemp("nameless") / "manifests"
    shutil.copytree(corpus.manifests, folder, ignore=shutil.ignore_patterns("clean", "raw"))
    raw = corpus.manifests / "clotho" / "raw"
    shutil.copytree(raw, folder / "clotho" / "raw", ignore=shutil.ignore_patterns("*metadata_*"))
    (result,) = build([corpus.cards["clotho"]], folder)
    assert result.state == "built", result
    return folder


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tiny]:
    """A function that builds datasets from clips: `make_tiny({"one": [(clip, "train"), …]})`."""

    def make(datasets: dict[str, list[tuple[Clip, str]]], *, evidence: str = "") -> Tiny:
        folder = tmp_path_factory.mktemp("tiny")
        for name, rows in datasets.items():
            card = folder / "cards" / name
            card.mkdir(parents=True)
            (card / "card.toml").write_text(_TINY_CARD.format(name=name, evidence=evidence))
            (card / "clips.sql").write_text(_TINY_SQL)
            raw = folder / "metadata" / name
            raw.mkdir(parents=True)
            _write_rows(raw / "rows.csv", rows)
        cards = load_cards(folder / "cards")
        chosen = find_cards(cards, tuple(datasets))
        fetch_from(folder / "metadata", chosen, folder / "manifests")
        built = build(chosen, folder / "manifests")
        assert [result.state for result in built] == ["built"] * len(datasets), built
        return Tiny(folder / "manifests", folder / "cards", cards, built, datasets)

    return make


def _write_rows(path: Path, rows: Iterable[tuple[Clip, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(_HEADER)
        for clip, split in rows:
            times = ["" if time_s is None else repr(time_s) for time_s in (clip.start_s, clip.end_s)]
            writer.writerow([clip.clip_id, split, clip.source, clip.source_id or "", *times])


@pytest.fixture
def in_folder(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """The corpus, with its folder as the working folder, so that `curate` finds ./manifests."""
    monkeypatch.chdir(corpus.manifests.parent)
    return corpus


@pytest.fixture
def curate(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs `curate` in this process: exit code, stdout, stderr."""
    from curation.cli import curate as command
    from curation.console import run

    def call(*arguments: Any) -> tuple[int, str, str]:
        import sys

        former, sys.argv = sys.argv, ["curate", *map(str, arguments)]
        try:
            code = run(command, "curate")
        finally:
            sys.argv = former
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def serve() -> Iterator[Callable[[Any], Any]]:
    """A function that runs a server of test_transport.py in a thread, until the test is over."""
    servers: list[Any] = []

    def start(server: Any) -> Any:
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
