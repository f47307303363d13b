"""What an epoch holds: each row its number of times, and captions that take turns."""

from collections import Counter
from pathlib import Path

import numpy as np
import plain_philox
import pytest
from small_shards import Planned
from small_training import mixture_of, small_config, training_folder, training_rows

from curation.errors import UsageProblem
from features.shards import ShardReader
from training.data.draws import Stream
from training.data.mixture import Part


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mixture") / "shards"
    training_folder(out)
    return out


def in_index_order() -> list[Planned]:
    return sorted(training_rows(), key=lambda row: (row.dataset, row.clip_id, row.part))


@pytest.mark.parametrize(
    ("repeat", "times"),
    [
        ((), {"bells": 4, "birds": 4, "rain": 1}),
        ((("bells", 7),), {"bells": 7, "birds": 4, "rain": 1}),
        ((("bells", 1), ("rain", 3)), {"bells": 1, "birds": 4, "rain": 3}),
        ((("birds", 0),), {"bells": 4, "birds": 0, "rain": 1}),
    ],
)
def test_each_row_is_there_exactly_its_number_of_times(
    folder: Path, repeat: tuple[tuple[str, int], ...], times: dict[str, int]
) -> None:
    with ShardReader(folder) as reader:
        mixture = mixture_of(reader, small_config(repeat=repeat, repeat_audio_video=4))
    expected = {number: times[row.dataset] for number, row in enumerate(in_index_order())}
    counts = Counter(mixture.rows.tolist())
    assert counts == Counter({row: count for row, count in expected.items() if count})
    assert len(mixture) == sum(expected.values())


def test_a_dataset_with_and_without_pictures_is_repeated_by_row(tmp_path: Path) -> None:
    rows = [Planned(clip_id="a"), Planned(clip_id="b", kind="audio"), Planned(clip_id="c")]
    training_folder(tmp_path / "shards", rows)
    with ShardReader(tmp_path / "shards") as reader:
        plain = mixture_of(reader, small_config(repeat_audio_video=3))
        named = mixture_of(reader, small_config(repeat_audio_video=3, repeat=(("tones", 2),)))
    assert plain.rows.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert named.rows.tolist() == [0, 0, 1, 1, 2, 2]
    assert [(part.kind, part.rows, part.times) for part in plain.parts] == [
        ("audio", 1, 1),
        ("av", 2, 3),
    ]


def test_parts_add_up_and_are_said(folder: Path) -> None:
    with ShardReader(folder) as reader:
        mixture = mixture_of(reader, small_config(repeat_audio_video=5))
    assert mixture.parts == (
        Part(dataset="bells", kind="av", rows=7, times=5),
        Part(dataset="birds", kind="av", rows=3, times=5),
        Part(dataset="rain", kind="audio", rows=6, times=1),
    )
    assert sum(part.entries for part in mixture.parts) == len(mixture) == 56
    assert next(mixture.lines()) == "bells (av): 7 rows x 5 = 35 of 56 samples an epoch (62.5 %)"


def test_a_dataset_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    with (
        ShardReader(folder) as reader,
        pytest.raises(
            UsageProblem, match=r"repeat names 'vggsound', expected .*: bells, birds, rain — "
        ),
    ):
        mixture_of(reader, small_config(repeat=(("vggsound", 5),)))


def test_repeating_nothing_is_refused(folder: Path) -> None:
    repeat = (("bells", 0), ("birds", 0), ("rain", 0))
    with (
        ShardReader(folder) as reader,
        pytest.raises(UsageProblem, match=r"of 16 rows none is left to train on, .* repeat"),
    ):
        mixture_of(reader, small_config(repeat=repeat))


# ---- captions -------------------------------------------------------------------------------------


def said(folder: Path, *, seed: int, epochs: int, times: int = 3) -> dict[int, list[list[str]]]:
    """The captions of each row, by epoch."""
    with ShardReader(folder) as reader:
        mixture = mixture_of(reader, small_config(seed=seed, repeat_audio_video=times))
        captions = reader.captions.column("caption").to_pylist()
        found: dict[int, list[list[str]]] = {row: [] for row in set(mixture.rows.tolist())}
        for epoch in range(epochs):
            entries = np.arange(len(mixture))
            texts = mixture.texts(np.full(len(mixture), epoch), entries)
            for row in found:
                found[row].append([captions[text] for text in texts[mixture.rows == row]])
    return found


def test_captions_are_those_of_the_row_in_turn_from_one_by_the_seed_on(folder: Path) -> None:
    found = said(folder, seed=3, epochs=4)
    words = plain_philox.words(3, Stream.CAPTIONS)
    for row, (planned, word) in enumerate(zip(in_index_order(), words, strict=False)):
        count, times = len(planned.captions), 3 if planned.kind == "av" else 1
        expected = [
            [planned.captions[(word + epoch * times + n) % count] for n in range(times)]
            for epoch in range(4)
        ]
        assert found[row] == expected


def test_every_caption_of_a_row_comes_equally_often(folder: Path) -> None:
    for times in (1, 2, 5):
        for row, epochs in said(folder, seed=0, epochs=60, times=times).items():
            counts = Counter(caption for epoch in epochs for caption in epoch)
            assert set(counts) == set(in_index_order()[row].captions)
            assert max(counts.values()) == min(counts.values()), "60 is a multiple of 1 to 5"


def test_rows_begin_with_captions_of_their_own(tmp_path: Path) -> None:
    rows = [Planned(clip_id=f"c{i:03d}", captions=["one", "two", "three"]) for i in range(60)]
    training_folder(tmp_path / "shards", rows, task_rows=60)
    first = Counter(
        epochs[0][0] for epochs in said(tmp_path / "shards", seed=0, epochs=1, times=1).values()
    )
    assert all(10 <= first[caption] <= 30 for caption in ("one", "two", "three"))


def test_another_seed_begins_with_other_captions(folder: Path) -> None:
    assert said(folder, seed=0, epochs=1) != said(folder, seed=1, epochs=1)
