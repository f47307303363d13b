"""Near-duplicates from end to end: what is planted in the corpus, and every way to run it."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_once import made_once

from curation.catalog.build import build
from curation.catalog.cards import find_cards, load_cards
from curation.catalog.fetch import fetch_from
from curation.catalog.ownlists import take_lists
from curation.corpus.planted import Planted
from curation.corpus.synthetic import write_corpus, write_media
from curation.errors import UsageProblem
from curation.manifest import DUPLICATE_COLUMNS
from curation.matching import compare_media
from curation.matching.compare_media import STAGE, Duplicated, compared, find_duplicates
from curation.media.decoder import DecoderConfig
from curation.media.run import scan_media
from curation.tasks import Share

SETS = ("vggsound", "audiocaps", "clotho", "avsync15")
TESTS = ("vggsound", "audiocaps", "clotho", "avsync15")
Curate = Callable[..., tuple[int, str, str]]


def silent(*told: Any) -> None:
    """No progress."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """The corpus with its media scanned."""

    manifests: Path
    planted: Planted


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    def make(folder: Path) -> None:
        (folder / "planted").write_bytes(pickle.dumps(write_corpus(folder / "metadata")))
        write_media(folder / "media")
        manifests = folder / "manifests"
        cards = find_cards(load_cards(), SETS)
        fetch_from(folder / "metadata", cards, manifests)
        build(cards, manifests)
        scan_media(
            manifests, (), folder / "media", SETS, None, DecoderConfig(),
            workers=2, share=None, progress=silent,
        )  # fmt: skip

    made = made_once(tmp_path_factory, "scanned_corpus", make)
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("media") / "corpus"))
    manifests, planted = folder / "manifests", pickle.loads((folder / "planted").read_bytes())
    return Scanned(manifests, planted)


def look(
    manifests: Path, *tests: str, train: tuple[str, ...] | None = None, **options: Any
) -> Duplicated:
    chosen = compared(tests, train, manifests=manifests, cards=load_cards(manifests))
    return find_duplicates(chosen, progress=silent, **options)


@pytest.fixture(scope="module")
def found(scanned: Scanned) -> Duplicated:
    return look(scanned.manifests, *TESTS)


def rows_of(found: Duplicated) -> dict[tuple[tuple[str, str], tuple[str, str]], dict[str, Any]]:
    return {
        ((row["a_dataset"], row["a_clip_id"]), (row["b_dataset"], row["b_clip_id"])): row
        for row in found.pairs.to_pylist()
    }


# ---- what is found --------------------------------------------------------------------------------


def test_every_planted_copy_is_found_where_and_as_it_was_made(
    scanned: Scanned, found: Duplicated
) -> None:
    rows = rows_of(found)
    assert len(scanned.planted.media.copies) >= 7
    for copy in scanned.planted.media.copies:
        row = rows.get((copy.heldout, copy.train))
        assert row is not None, copy
        assert row["rule"] == copy.rule, (copy, row)
        assert row["offset_s"] == pytest.approx(copy.offset_s, abs=0.15), copy
        assert row["speed"] == pytest.approx(copy.speed, abs=0.02), copy
        assert bool(row["mirrored"]) == copy.mirrored, copy


def test_near_misses_and_unrelated_clips_are_never_auto(scanned: Scanned, found: Duplicated) -> None:
    media = scanned.planted.media
    meant = {(copy.heldout, copy.train) for copy in media.copies}
    auto = {pair for pair, row in rows_of(found).items() if row["tier"] == "auto"}
    assert auto <= meant
    assert len(media.near_misses) >= 3


def test_the_two_uploads_that_the_paper_names_are_found_by_content(found: Duplicated) -> None:
    row = rows_of(found)[("vggsound", "FhaYvI1yrUM_000021"), ("vggsound", "4PjEi5fFD6A_000021")]
    assert (row["rule"], row["tier"], row["a_split"], row["b_split"]) == (
        "near_av",
        "auto",
        "test",
        "train",
    )


@pytest.mark.slow
def test_without_test_sets_all_pairs_are_found_the_smaller_key_first(
    scanned: Scanned, found: Duplicated, tmp_path: Path
) -> None:
    manifests = copied(scanned.manifests, tmp_path)
    every = rows_of(look(manifests))
    assert all(a < b for a, b in every)
    for (a, b), row in rows_of(found).items():
        other = every[min(a, b), max(a, b)]
        assert (other["rule"], other["tier"]) == (row["rule"], row["tier"])


def test_train_narrows_the_other_side(scanned: Scanned, found: Duplicated, tmp_path: Path) -> None:
    manifests = copied(scanned.manifests, tmp_path)
    narrow = rows_of(look(manifests, *TESTS, train=("audiocaps",)))
    wanted = {
        pair: row
        for pair, row in rows_of(found).items()
        if pair[1][0] == "audiocaps" and row["b_split"] == "train"
    }
    assert narrow == wanted
    assert narrow


def test_clips_without_media_are_unknown_and_bound_the_leakage(
    scanned: Scanned, found: Duplicated
) -> None:
    unknown = dict(found.unknown.clips)
    for dataset, clip_id in scanned.planted.media.damaged:
        assert unknown[f"{dataset}/{clip_id}"] == "damaged"
    size = len(found.compared.items["audiocaps@v1"])
    files = scanned.planted.media.files
    without = size - sum(key in files for key in found.compared.items["audiocaps@v1"])
    flat = [key for key, reason in unknown.items() if reason == "nothing_to_compare"]
    assert flat, "a black and silent clip is among the near misses"
    items = {f"{dataset}/{clip_id}" for dataset, clip_id in found.compared.items["audiocaps@v1"]}
    assert found.unknown.tests["audiocaps@v1"] == without + len(items & set(flat))
    assert found.unknown.at_most(size, "audiocaps@v1") == size  # training clips lack media, too


# ---- the command ----------------------------------------------------------------------------------


def test_the_document_says_of_each_pair_who_where_and_how_sure(
    scanned: Scanned, found: Duplicated, curate: Curate, tmp_path: Path
) -> None:
    manifests = copied(scanned.manifests, tmp_path)
    code, out, err = curate("duplicates", "--test", ",".join(TESTS), "--manifests", manifests, "--json")
    document = json.loads(out)
    assert code == 3  # some clips have no media
    assert document["command"] == "duplicates"
    assert len(document["pairs"]) == len(found.pairs)
    pair = next(p for p in document["pairs"] if p["a"] == "vggsound/FhaYvI1yrUM_000021")
    assert pair["b"] == "vggsound/4PjEi5fFD6A_000021"
    assert {"rule", "tier", "offset_s", "video_score", "audio_score", "a_split", "b_split"} <= set(pair)
    assert [pair["a"], pair["b"]] in [sorted(c, reverse=True) for c in document["clusters"]]
    assert {"clip", "reason"} == set(document["unknown"][0])
    assert "next: curate clean --test vggsound,audiocaps,clotho,avsync15 --name NAME" in err
    table = pq.read_table(manifests / "duplicates.parquet")
    assert table.schema.names == [name for name, _ in DUPLICATE_COLUMNS]


def test_nothing_scanned_and_wrong_names_say_what_helps(scanned: Scanned, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"no media were scanned, .* run: curate scan DIR"):
        look(tmp_path)
    with pytest.raises(UsageProblem, match=r"nosuch.*expected"):
        look(scanned.manifests, "nosuch")
    (tmp_path / "my.csv").write_text("id\nFhaYvI1yrUM\n")
    take_lists([str(tmp_path / "my.csv")], scanned.manifests)
    with pytest.raises(UsageProblem, match=r"a list has no media .*: curate scan DIR --list"):
        look(scanned.manifests, str(tmp_path / "my.csv"))
    shutil.copytree(scanned.manifests, tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "fingerprints" / "clotho")
    with pytest.raises(
        UsageProblem, match="the media of clotho were not scanned, expected one of: audiocaps"
    ):
        look(tmp_path / "m", "clotho")


def test_hashes_of_two_versions_are_never_compared(scanned: Scanned, tmp_path: Path) -> None:
    manifests = copied(scanned.manifests, tmp_path)
    scan_media(
        manifests, (), scanned.manifests.parent / "media", ("clotho",), None,
        DecoderConfig(mode="reference"), workers=2, share=None, progress=silent,
    )  # fmt: skip
    with pytest.raises(UsageProblem, match="fingerprints of several versions"):
        look(manifests, "vggsound")


def test_a_share_says_that_others_are_not_done(scanned: Scanned, curate: Curate, tmp_path: Path) -> None:
    manifests = copied(scanned.manifests, tmp_path)
    words = ("duplicates", "--test", "clotho", "--task", "0/2", "--manifests", manifests)
    code, out, err = curate(*words, "--json")
    document = json.loads(out)
    assert (code, document["complete"], document["pairs"], document["clusters"]) == (
        3,
        False,
        None,
        None,
    )
    code, out, err = curate(*words)
    assert code == 3
    assert "this share is done, others are not" in out
    assert "then: curate duplicates --test clotho" in err


def test_clean_manifests_made_from_former_pairs_are_named(
    scanned: Scanned, curate: Curate, tmp_path: Path
) -> None:
    manifests = copied(scanned.manifests, tmp_path)
    at = ("--manifests", manifests)
    curate("duplicates", "--test", "clotho", *at)
    assert curate("clean", "--test", "clotho", "--name", "former", *at)[0] == 0
    _, out, _ = curate("duplicates", "--test", "audiocaps", *at)
    assert "clean/former: was made from other pairs — run again: curate clean --test clotho" in out


def test_which_pairs_are_found_follows_from_the_pairs_alone(
    scanned: Scanned, found: Duplicated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_media, "_MOST_TASKS", 1)
    manifests = copied(scanned.manifests, tmp_path)
    assert look(manifests, *TESTS).pairs.to_pylist() == found.pairs.to_pylist()


# ---- every way to run it --------------------------------------------------------------------------


def copied(manifests: Path, folder: Path) -> Path:
    """The scanned manifests without anything that duplicates wrote."""
    ignored = shutil.ignore_patterns(STAGE, "duplicates.parquet")
    return Path(shutil.copytree(manifests, folder / "manifests", ignore=ignored))


def bytes_of(manifests: Path) -> dict[str, bytes]:
    """What duplicates wrote, by path."""
    stage = {
        str(path.relative_to(manifests)): path.read_bytes()
        for path in sorted((manifests / STAGE).rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
    return {**stage, "duplicates.parquet": (manifests / "duplicates.parquet").read_bytes()}


@pytest.fixture(scope="module")
def wanted(scanned: Scanned, found: Duplicated) -> dict[str, bytes]:
    return bytes_of(scanned.manifests)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "apart"), [(1, True), (2, True), (5, False)])
def test_any_number_of_workers_writes_the_same_bytes(
    workers: int,
    apart: bool,
    scanned: Scanned,
    wanted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(compare_media, "_FEW_CLIPS", 0 if apart else 10**9)
    manifests = copied(scanned.manifests, tmp_path)
    look(manifests, *TESTS, workers=workers)
    assert bytes_of(manifests) == wanted


@pytest.mark.slow
def test_shares_write_the_same_bytes(scanned: Scanned, wanted: dict[str, bytes], tmp_path: Path) -> None:
    manifests = copied(scanned.manifests, tmp_path)
    sealed = [look(manifests, *TESTS, share=Share(index=index, count=3)).sealed for index in (2, 0, 1)]
    assert sealed == [False, False, True]
    assert bytes_of(manifests) == wanted


def test_a_second_run_aligns_nothing(
    scanned: Scanned, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_media, "finding", None)  # whoever works fails
    look(scanned.manifests, *TESTS)
    assert bytes_of(scanned.manifests) == wanted


def _killed_at(manifests: Path, delay_s: float) -> bool:
    """Run the command and kill it after a while; whether it was still running."""
    words = [sys.executable, "-c", "from curation.cli import main; main()", "duplicates"]
    words += ["--test", ",".join(TESTS), "--manifests", str(manifests), "--workers", "2"]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(delay_s)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_and_run_again_writes_the_same_bytes(
    kills: int, scanned: Scanned, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    begun = time.monotonic()
    assert not _killed_at(copied(scanned.manifests, tmp_path / "whole"), 300)
    whole_s = time.monotonic() - begun
    killed = 0
    for number in range(kills):
        manifests = copied(scanned.manifests, tmp_path / str(number))
        killed += _killed_at(manifests, whole_s * (0.05 + 0.7 * number / kills))
        look(manifests, *TESTS)
        assert bytes_of(manifests) == wanted
        shutil.rmtree(tmp_path / str(number))
    assert killed >= kills // 2
