"""One shard: what other programs read of it, and what a full disk or wrong bytes leave."""

import errno
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from small_shards import ABOUT, CERTIFICATE, Planned, values_of

from curation.errors import ManifestChanged, NoSpace
from features.spec import SequenceSpec
from features.store.shard_file import (
    FORMAT,
    KINDS,
    ShardSeries,
    ShardWriter,
    columns_of,
    encode_header,
    read_header,
    spec_of,
)

ROWS = [values_of(Planned(clip_id=f"c{i}")) for i in range(5)]
COLUMNS = columns_of("av", spec_of(ABOUT))


def write(path: Path, rows: list[dict[str, torch.Tensor]] = ROWS) -> list[int]:
    with ShardWriter(path, "av", COLUMNS, ABOUT, CERTIFICATE) as writer:
        return [writer.add(row) for row in rows]


def test_the_safetensors_package_reads_every_row_as_it_was_given(tmp_path: Path) -> None:
    write(tmp_path / "s.safetensors")
    read = safetensors.torch.load_file(tmp_path / "s.safetensors")
    assert set(read) == set(COLUMNS)
    for name, values in read.items():
        assert values.dtype == torch.bfloat16
        assert torch.equal(values, torch.stack([row[name] for row in ROWS]))


def test_the_header_has_one_metadata_key_with_canonical_json(tmp_path: Path) -> None:
    write(tmp_path / "s.safetensors")
    with safe_open(tmp_path / "s.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert list(metadata) == ["foleyproof"]
    document = json.loads(metadata["foleyproof"])
    assert document == {
        "format": FORMAT,
        "about": ABOUT,
        "certificate": CERTIFICATE,
        "kind": "av",
        "rows": len(ROWS),
    }
    assert metadata["foleyproof"] == json.dumps(document, sort_keys=True, separators=(",", ":"))


def test_equal_rows_give_equal_bytes_however_they_were_added(tmp_path: Path) -> None:
    one_by_one = write(tmp_path / "a.safetensors")
    with ShardWriter(tmp_path / "b.safetensors", "av", COLUMNS, ABOUT, CERTIFICATE) as writer:
        first = writer.add_batch({name: torch.stack([r[name] for r in ROWS[:2]]) for name in COLUMNS})
        rest = writer.add_batch({name: torch.stack([r[name] for r in ROWS[2:]]) for name in COLUMNS})
    assert first + rest == one_by_one
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_columns_begin_at_multiples_of_eight_and_follow_one_another(tmp_path: Path) -> None:
    write(tmp_path / "s.safetensors")
    header = read_header(tmp_path / "s.safetensors")
    assert list(header.columns) == ["latent_mean", "latent_std", "clip", "sync"]
    offsets = [column.offset_bytes for column in header.columns.values()]
    assert all(offset % 8 == 0 for offset in offsets)
    assert header.file_bytes == (tmp_path / "s.safetensors").stat().st_size
    ends = [c.offset_bytes + c.row_bytes * header.rows for c in header.columns.values()]
    assert offsets[1:] == ends[:-1]


@pytest.mark.parametrize("sample_rate_hz", [16000, 44100])
@pytest.mark.parametrize("duration_s", [0.64, 1.0, 4.0, 8.0, 10.0])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_length_are_whole_words_of_eight_bytes(
    sample_rate_hz: int, duration_s: float, kind: Any
) -> None:
    columns = columns_of(kind, SequenceSpec(sample_rate_hz=sample_rate_hz, duration_s=duration_s))
    for shape in columns.values():
        assert torch.Size(shape).numel() * 2 % 8 == 0


def test_shapes_at_eight_seconds_are_those_of_the_spec() -> None:
    spec = SequenceSpec(sample_rate_hz=44100)
    assert columns_of("av", spec) == {
        "latent_mean": (345, 40), "latent_std": (345, 40), "clip": (64, 1024), "sync": (192, 768),
    }  # fmt: skip
    assert columns_of("text", spec) == {"text": (77, 1024)}
    low = SequenceSpec(sample_rate_hz=16000)
    assert columns_of("audio", low) == {"latent_mean": (250, 20), "latent_std": (250, 20)}


def test_the_crc32_of_a_row_is_that_of_its_bytes_in_the_order_of_columns(tmp_path: Path) -> None:
    crcs = write(tmp_path / "s.safetensors")
    read = safetensors.torch.load_file(tmp_path / "s.safetensors")
    for i, crc in enumerate(crcs):
        held = b"".join(
            read[name][i].contiguous().view(torch.uint8).numpy().tobytes() for name in COLUMNS
        )
        assert zlib.crc32(held) == crc


def test_a_file_is_at_most_a_hundredth_above_its_payload(tmp_path: Path) -> None:
    columns = columns_of("audio", SequenceSpec(sample_rate_hz=16000))  # the smallest rows there are
    with ShardWriter(tmp_path / "s.safetensors", "audio", columns, ABOUT, CERTIFICATE) as writer:
        writer.add_batch({n: torch.zeros((64, *s), dtype=torch.bfloat16) for n, s in columns.items()})
    payload = 64 * 2 * 250 * 20 * 2
    assert (tmp_path / "s.safetensors").stat().st_size <= 1.01 * payload


def test_a_full_shard_begins_the_next_file(tmp_path: Path) -> None:
    with ShardSeries(tmp_path, "av", ABOUT, CERTIFICATE, shard_rows=2) as series:
        places = [series.add(row)[:2] for row in ROWS]
    assert places == [
        ("av-0000.safetensors", 0), ("av-0000.safetensors", 1), ("av-0001.safetensors", 0),
        ("av-0001.safetensors", 1), ("av-0002.safetensors", 0),
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == series.files


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    write(tmp_path / "s.safetensors", [])
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_writes_nothing(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "s.safetensors", "av", COLUMNS, ABOUT)
    writer.add(ROWS[0])
    with pytest.raises(KeyError), writer:
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.safetensors"
    write(path, ROWS[:1])
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("curation.files.os.fsync", full)
    with pytest.raises(NoSpace, match="no space left on the disk; nothing was half written") as caught:
        write(path)
    assert caught.value.exit_code == 14
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_of_another_type_or_shape_is_refused() -> None:
    writer = ShardWriter(Path("s.safetensors"), "av", COLUMNS, ABOUT)
    with pytest.raises(AssertionError, match="expected bfloat16"):
        writer.add({**ROWS[0], "clip": ROWS[0]["clip"].float()})
    with pytest.raises(AssertionError, match="expected rows"):
        writer.add({**ROWS[0], "clip": ROWS[0]["clip"][:1]})


def spoiled(path: Path, **changes: Any) -> None:
    """The header of a shard written with other facts, over the same columns."""
    write(path)
    header = read_header(path)
    document = {
        "format": FORMAT,
        "about": ABOUT,
        "certificate": None,
        "kind": "av",
        "rows": header.rows,
        **changes,
    }
    data = path.read_bytes()[header.columns["latent_mean"].offset_bytes :]
    path.write_bytes(encode_header(COLUMNS, header.rows, json.dumps(document)) + data)


def test_another_format_version_is_told(tmp_path: Path) -> None:
    spoiled(tmp_path / "s.safetensors", format="foleyproof-shards/2")
    with pytest.raises(
        ManifestChanged, match="its format is 'foleyproof-shards/2', expected a shard of"
    ):
        read_header(tmp_path / "s.safetensors")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "ends within its header"),
        (b"\x10\x00", "ends within its header"),
        (b"\xff" * 64, "ends within its header"),
        ((20).to_bytes(8, "little") + b"{" * 20, "its header is not readable"),
        ((2).to_bytes(8, "little") + b"{}", "its header is not readable"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "its header is not readable .RecursionError"),
    ],
)
def test_what_is_no_shard_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "s.safetensors").write_bytes(content)
    with pytest.raises(ManifestChanged, match=said):
        read_header(tmp_path / "s.safetensors")


def test_a_file_of_another_program_is_told(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(3)}, tmp_path / "s.safetensors")
    with pytest.raises(ManifestChanged, match="its header is not readable"):
        read_header(tmp_path / "s.safetensors")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestChanged, match=r"s\.safetensors: cannot be read \(No such file"):
        read_header(tmp_path / "s.safetensors")
