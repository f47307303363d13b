"""Shards that change or vanish while a run reads them."""

import os
from collections import deque
from itertools import islice
from pathlib import Path

import pytest
from small_training import mixture_of, small_config, training_folder

from curation.errors import ManifestChanged
from features.shards import ShardReader
from training.data.batches import Batches


def shard_of(folder: Path, kind: str) -> Path:
    return sorted(folder.glob(f"clips/*/{kind}-*.safetensors"))[0]


def run_until_it_fails(folder: Path, reader: ShardReader, spoil: object) -> str:
    config = small_config()
    with Batches(reader, mixture_of(reader, config), config) as batches:
        next(batches)
        spoil()  # type: ignore[operator]
        with pytest.raises(ManifestChanged) as caught:
            deque(islice(batches, 500))
        with pytest.raises(ManifestChanged):
            next(batches)
    return str(caught.value)


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_a_flipped_byte_is_named_with_its_clip(tmp_path: Path, io: str) -> None:
    planned = training_folder(tmp_path / "shards", shard_rows=64, task_rows=64)
    path = shard_of(tmp_path / "shards", "av")

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)  # in sync of the last row with pictures
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([byte ^ 1]))

    with ShardReader(tmp_path / "shards", io=io) as reader:  # type: ignore[arg-type]
        said = run_until_it_fails(tmp_path / "shards", reader, flip)
    rows = reader.index.select(["shard", "row", "clip_id"]).to_pylist()
    at = max((row["row"], row["clip_id"]) for row in rows if row["shard"].endswith(path.name))[1]
    assert len(planned) == len(rows)
    assert f"{path}: crc32 of " in said
    assert f"/{at} part 0 is " in said
    assert "features verify " in said


def test_a_file_that_is_cut_ends_the_run(tmp_path: Path) -> None:
    training_folder(tmp_path / "shards")
    path = shard_of(tmp_path / "shards", "av")
    with ShardReader(tmp_path / "shards", io="pread") as reader:
        said = run_until_it_fails(tmp_path / "shards", reader, lambda: os.truncate(path, 20_000))
    assert said.startswith(f"{path}: ends at byte ")


def test_a_file_that_vanished_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training_folder(tmp_path / "shards")
    path = shard_of(tmp_path / "shards", "av")
    monkeypatch.setattr(
        "features.store.gather.resource.getrlimit", lambda what: (0, 0)
    )  # none stays open
    with ShardReader(tmp_path / "shards", io="pread") as reader:
        said = run_until_it_fails(tmp_path / "shards", reader, path.unlink)
    assert said.startswith(f"{path}: cannot be read (No such file or directory), expected it to stay")
