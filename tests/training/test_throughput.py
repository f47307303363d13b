"""Whether data are fast enough: what is measured, and what is said of it."""

import threading
import time
from pathlib import Path

import pytest
from small_training import mixture_of, small_config, training_folder

from features.shards import ShardReader
from training.data.throughput import Throughput, mean_sample_bytes, measure


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("throughput") / "shards"
    training_folder(out)
    return out


def test_bytes_of_a_sample_are_the_mean_over_an_epoch(folder: Path) -> None:
    """Of 1 s at 16 kHz: 10 rows with pictures, three times each, and 6 sounds."""
    sound = 2 * (2 * 32 * 20 + 77 * 1024)
    video = sound + 2 * (8 * 1024 + 16 * 768)
    with ShardReader(folder) as reader:
        mixture = mixture_of(reader, small_config(repeat_audio_video=3))
        assert mean_sample_bytes(reader, mixture) == (30 * video + 6 * sound) / 36


def test_a_trial_takes_about_as_long_as_it_is_given_and_leaves_no_thread(folder: Path) -> None:
    with ShardReader(folder) as reader:
        config = small_config()
        mixture, before = mixture_of(reader, config), threading.active_count()
        begun = time.perf_counter()
        found = measure(reader, mixture, config, seconds=0.2)
        assert 0.2 <= time.perf_counter() - begun < 2
        assert threading.active_count() == before
    assert found.samples_per_s > 100
    assert found.sample_bytes == mean_sample_bytes(reader, mixture)


def test_a_slow_disk_is_measured_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ShardReader.batch

    def batch(self: ShardReader, *args: object, **options: object) -> object:
        time.sleep(0.05)
        return plain(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardReader, "batch", batch)
    with ShardReader(folder) as reader:
        config = small_config()
        found = measure(reader, mixture_of(reader, config), config, seconds=0.4)
    assert 50 < found.samples_per_s < 250, "8 samples in 0.05 s, and some ahead"
    assert found.limits(1000)


def test_what_is_fast_enough_is_said_in_one_sentence() -> None:
    found = Throughput(sample_bytes=402_000.0, samples_per_s=5000.0)
    assert not found.limits(3000.0)
    assert found.sentence(3000.0) == (
        "data: 402.0 kB a sample, 2.01 GB/s measured (5,000 samples/s), 1.21 GB/s needed for "
        "3,000 samples/s"
    )


def test_what_is_too_slow_is_said_with_what_helps() -> None:
    found = Throughput(sample_bytes=402_000.0, samples_per_s=2000.0)
    assert found.limits(3000.0)
    assert "1.21 GB/s needed for 3,000 samples/s: data will be the limit — put the shards" in (
        found.sentence(3000.0)
    )


def test_less_than_a_hundredth_to_spare_is_a_limit() -> None:
    assert Throughput(sample_bytes=1.0, samples_per_s=3020.0).limits(3000.0)
    assert not Throughput(sample_bytes=1.0, samples_per_s=3040.0).limits(3000.0)
