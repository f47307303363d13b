"""Batches that validate: the same samples and draws in each pass and on any number of ranks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from small_shards import Planned, text_of
from small_training import bits_of, small_config, training_folder, training_rows

from curation.errors import UsageProblem
from features.shards import ShardReader
from training.data.held_back import split_rows
from training.data.validation import Validation

ROWS = [2, 9, 4, 0, 7, 11, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("validation") / "shards"
    training_folder(out)
    return out


def in_index_order() -> list[Planned]:
    return sorted(training_rows(), key=lambda row: (row.dataset, row.clip_id, row.part))


def counted(
    folder: Path, *, world: int = 1, passes: int = 1, **changes: object
) -> list[list[tuple[int, dict[str, bytes]]]]:
    """Slot and bits of the samples of each pass, by slot."""
    found: list[list[tuple[int, dict[str, bytes]]]] = [[] for _ in range(passes)]
    config = small_config(**changes)
    with ShardReader(folder) as reader:
        for rank in range(world):
            validation = Validation(reader, np.array(ROWS), config, rank=rank, world=world)
            for number in range(passes):
                batches = 0
                for batch in validation:
                    batches += 1
                    found[number] += [
                        (int(slot), bits_of(batch, place))
                        for place, slot in enumerate(batch.slots)
                        if batch.counted[place]
                    ]
                assert batches == len(validation)
    return [sorted(one, key=lambda sample: sample[0]) for one in found]


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[tuple[int, dict[str, bytes]]]:
    return counted(folder)[0]


def test_samples_are_the_rows_in_their_order_with_draws_of_seed_and_row(
    folder: Path, whole: list[tuple[int, dict[str, bytes]]]
) -> None:
    assert [slot for slot, _ in whole] == list(range(len(ROWS)))
    for (_, sample), row in zip(whole, ROWS, strict=True):
        small, *large = (
            np.random.Generator(
                np.random.Philox(
                    key=np.array([14159265, 1], np.uint64),
                    counter=np.array([0, row, 0, part], np.uint64),
                )
            )
            for part in range(3)
        )
        clip, _, text = small.random((32, 3))[0]
        z = small.standard_normal(32, np.float32)[:1]
        noise, x0 = (draw.standard_normal((32, 20), np.float32) for draw in large)
        caption = text_of(in_index_order()[row].captions[0])
        assert sample["row"] == np.int64(row).tobytes()
        assert (sample["z"], sample["noise"], sample["x0"]) == (
            z.tobytes(),
            noise.tobytes(),
            x0.tobytes(),
        )
        assert sample["drop_clip"] == sample["drop_sync"] == np.bool_(clip < 0.1).tobytes()
        assert sample["drop_text"] == np.bool_(text < 0.1).tobytes()
        assert sample["text"] == caption.view(torch.uint8).numpy().tobytes(), "the first caption"


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("micro", [None, 1, 2])
def test_ranks_and_micro_batches_change_no_bit(
    folder: Path, whole: list[tuple[int, dict[str, bytes]]], world: int, micro: int | None
) -> None:
    if micro == 2 and world == 8:
        micro = None
    assert counted(folder, world=world, micro_batch=micro) == [whole]


def test_each_pass_is_the_same(folder: Path, whole: list[tuple[int, dict[str, bytes]]]) -> None:
    assert counted(folder, world=2, passes=3) == [whole] * 3


def test_all_ranks_have_as_many_batches_of_one_size(folder: Path) -> None:
    config = small_config(batch=16, micro_batch=2)
    shapes = Counter[tuple[int, int]]()
    with ShardReader(folder) as reader:
        for rank in range(4):
            validation = Validation(reader, np.array(ROWS), config, rank=rank, world=4)
            shapes.update((rank, len(batch.x0)) for batch in validation)
    assert shapes == {(rank, 2): 1 for rank in range(4)}


def test_only_so_many_samples_are_asked_as_the_config_says(folder: Path) -> None:
    found = counted(folder, validate_samples=3)[0]
    assert [sample["row"] for _, sample in found] == [np.int64(row).tobytes() for row in ROWS[:3]]


def test_rows_that_are_held_back_validate_also_from_other_shards(folder: Path, tmp_path: Path) -> None:
    training_folder(tmp_path / "val", [Planned(clip_id=f"x{i}", dataset="other") for i in range(3)])
    config = small_config(held_back=0.4)
    with ShardReader(folder) as reader, ShardReader(tmp_path / "val") as other:
        for split in (split_rows(reader, 0.4), split_rows(reader, 0.4, validation=other)):
            validation = Validation(split.validation, split.validation_rows, config)
            rows = [row for batch in validation for row in batch.rows[batch.counted.numpy()].tolist()]
            assert rows == split.validation_rows.tolist() != []


def test_a_pass_that_is_left_early_leaves_nothing_behind(folder: Path) -> None:
    import threading

    with ShardReader(folder) as reader:
        before = threading.active_count()
        validation = Validation(reader, np.array(ROWS), small_config(micro_batch=1))
        for _ in validation:
            break
        passes = iter(validation)
        next(passes)
        passes.close()  # type: ignore[attr-defined]
        assert threading.active_count() == before
        assert len([batch for batch in validation]) == len(validation)


def test_without_rows_it_is_refused(folder: Path) -> None:
    with (
        ShardReader(folder) as reader,
        pytest.raises(UsageProblem, match="no row is left for validation"),
    ):
        Validation(reader, np.zeros(0, np.int64), small_config())
