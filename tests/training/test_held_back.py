"""Which sources are held back: by their digest alone, whole, and never in training."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from small_shards import Planned, sealed_folder
from small_training import mixture_of, small_config

from curation.errors import UsageProblem
from features.shards import ShardReader
from training.data.held_back import held_back, read_sources, split_rows
from training.data.mixture import Mixture


def fraction(source_id: str) -> float:
    digest = hashlib.sha256(f"youtube:{source_id}".encode()).hexdigest()
    return int(digest, 16) / 2**256


def rows_of_sources() -> list[Planned]:
    """40 videos; every second is also a sound in another set, with two parts; and sounds alone."""
    rows = [Planned(clip_id=f"v{i:02d}", dataset="seen") for i in range(40)]
    rows += [
        Planned(clip_id=f"v{i:02d}", dataset="heard", kind="audio", part=part)
        for i in range(0, 40, 2)
        for part in range(2)
    ]
    return rows + [Planned(clip_id=f"s{i:02d}", dataset="heard", kind="audio") for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("held") / "shards"
    sealed_folder(out, rows_of_sources(), shard_rows=64, task_rows=200)
    return out


def in_index_order() -> list[Planned]:
    return sorted(rows_of_sources(), key=lambda row: (row.dataset, row.clip_id, row.part))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.4, 0.9, 1.0])
def test_rows_of_video_sources_below_the_share_are_held_back_whole(folder: Path, share: float) -> None:
    planned = in_index_order()
    videos = {row.clip_id for row in planned if row.kind == "av"}
    expected = [
        number
        for number, row in enumerate(planned)
        if row.clip_id in videos and fraction(row.clip_id) < share
    ]
    with ShardReader(folder) as reader:
        split = split_rows(reader, share)
        everything = set(range(len(reader)))
    assert split.left_out == len(expected)
    assert set(split.training_rows.tolist()) == everything - set(expected)
    seen = {number for number in expected if planned[number].kind == "av"}
    assert set(split.validation_rows.tolist()) == seen, "validation is on rows with pictures"


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_no_source_that_validates_is_trained_on(folder: Path, share: float) -> None:
    planned = in_index_order()
    with ShardReader(folder) as reader:
        split = split_rows(reader, share)
        mixture = mixture_of(reader, small_config(held_back=share))
    trained = {planned[row].clip_id for row in mixture.rows.tolist()}
    validating = {planned[row].clip_id for row in split.validation_rows.tolist()}
    assert validating
    assert not trained & validating
    assert trained | validating == {row.clip_id for row in planned}


def test_without_pictures_all_sources_are_asked(tmp_path: Path) -> None:
    rows = [Planned(clip_id=f"s{i:02d}", kind="audio") for i in range(30)]
    planned = sealed_folder(tmp_path / "shards", rows, task_rows=40)
    with ShardReader(tmp_path / "shards") as reader:
        split = split_rows(reader, 0.3)
    expected = {number for number, row in enumerate(planned) if fraction(row.clip_id) < 0.3}
    assert expected
    assert set(split.validation_rows.tolist()) == expected


def test_a_source_stays_on_its_side_when_others_come(folder: Path, tmp_path: Path) -> None:
    few = [row for row in rows_of_sources() if row.clip_id < "v20"]
    planned = sealed_folder(tmp_path / "shards", few, task_rows=200)
    with ShardReader(tmp_path / "shards") as reader, ShardReader(folder) as whole:
        validating = {planned[row].clip_id for row in split_rows(reader, 0.4).validation_rows.tolist()}
        among = [
            in_index_order()[row].clip_id for row in split_rows(whole, 0.4).validation_rows.tolist()
        ]
    assert validating == {clip for clip in among if clip < "v20"}


def test_validation_is_in_the_order_of_digests(folder: Path) -> None:
    with ShardReader(folder) as reader:
        split = split_rows(reader, 0.4)
    fractions = [fraction(in_index_order()[row].clip_id) for row in split.validation_rows.tolist()]
    assert fractions == sorted(fractions)


def test_sources_of_other_shards_that_validate_are_left_out_of_training(
    folder: Path, tmp_path: Path
) -> None:
    others = [Planned(clip_id=name, dataset="other") for name in ("v03", "v04", "x01")]
    sealed_folder(tmp_path / "val", others)
    with ShardReader(folder) as reader, ShardReader(tmp_path / "val") as validation:
        split = split_rows(reader, 0.5, validation=validation)
    left_out = [row.clip_id in ("v03", "v04") for row in in_index_order()]
    assert split.validation is validation
    assert sorted(split.validation_rows.tolist()) == [0, 1, 2], "all of them, and nothing else"
    assert split.left_out == sum(left_out) == 4
    np.testing.assert_array_equal(split.training_rows, np.flatnonzero(~np.array(left_out)))


def test_about_one_source_in_a_hundred_falls_below_a_hundredth() -> None:
    digests = [hashlib.sha256(f"youtube:{i}".encode()).hexdigest() for i in range(20_000)]
    sources = np.array([int(digest[:16], 16) for digest in digests], np.uint64)
    out = held_back(sources, np.ones(20_000, bool), 0.01)
    assert 150 < out.sum() < 250


def test_sources_are_the_first_64_bits_of_their_digests(folder: Path) -> None:
    with ShardReader(folder) as reader:
        sources, video = read_sources(reader)
    for number, row in enumerate(in_index_order()):
        digest = hashlib.sha256(f"youtube:{row.clip_id}".encode()).digest()
        assert sources[number] == int.from_bytes(digest[:8])
        assert video[number] == (row.kind == "av")


def test_nothing_left_to_train_on_is_said(folder: Path) -> None:
    with ShardReader(folder) as reader:
        rows = np.zeros(0, np.int64)
        with pytest.raises(UsageProblem, match=r"of 100 rows none is left .* smaller held_back"):
            Mixture.read(reader, small_config(), rows)
