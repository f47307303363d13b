"""The reader: every row as it was written, whatever way it is read, and a clear word for each damage."""

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from small_shards import (
    ABOUT,
    CERTIFICATE,
    Planned,
    sealed_folder,
    some_rows,
    text_of,
    values_of,
    write_tasks,
)

from curation.errors import FoleyproofError, ManifestChanged, UsageProblem
from curation.files import digest_of, sha256_file
from features.shards import ShardReader
from features.spec import SequenceSpec
from features.store import gather, index
from features.store.inventory import inventory
from features.store.shard_file import columns_of, read_header, spec_of
from features.store.statistics import Group, read_groups

COLUMNS = ("latent_mean", "latent_std", "clip", "sync")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reader") / "shards"
    sealed_folder(out)
    return out


@pytest.fixture(scope="module")
def rows() -> list[Planned]:
    return sorted(some_rows(), key=lambda row: (row.dataset, row.clip_id, row.part))


@pytest.fixture(params=["mmap", "pread"])
def reader(request: pytest.FixtureRequest, folder: Path) -> Any:
    with ShardReader(folder, io=request.param, threads=2) as opened:
        yield opened


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    shutil.copytree(folder, tmp_path / "shards")
    return tmp_path / "shards"


def assert_row(batch: dict[str, Any], at: int, planned: Planned) -> None:
    values = values_of(planned)
    for name in COLUMNS:
        expected = values.get(name, torch.zeros_like(batch[name][at]))
        assert torch.equal(batch[name][at], expected), (name, planned)
    assert bool(batch["has_video"][at]) == (planned.kind == "av")
    assert torch.equal(batch["text"][at], text_of(planned.captions[0]))


def test_every_row_comes_as_it_was_written(reader: ShardReader, rows: list[Planned]) -> None:
    assert len(reader) == len(rows) == 9
    order = [8, 0, 3, 3, 7, 1, 2, 4, 5, 6]
    batch = reader.batch(order)
    for at, row in enumerate(order):
        assert_row(batch, at, rows[row])
    assert batch["clip_id"] == [rows[row].clip_id for row in order]
    assert batch["dataset"] == [rows[row].dataset for row in order]
    assert batch["caption"] == [rows[row].captions[0] for row in order]
    assert all(batch[name].dtype == torch.bfloat16 for name in (*COLUMNS, "text"))


def test_one_row_comes_without_a_batch_dimension(reader: ShardReader, rows: list[Planned]) -> None:
    row = reader[5]
    assert row["clip_id"] == rows[5].clip_id
    assert row["clip"].shape == (8, 1024)
    assert bool(row["has_video"])
    assert torch.equal(reader[-1]["sync"], reader[8]["sync"])
    assert torch.equal(reader[-9]["latent_mean"], reader[0]["latent_mean"])
    for row in (9, -10, -100):
        with pytest.raises(IndexError, match=f"row {row}, expected -9 to 8"):
            reader[row]
    assert len(list(reader)) == 9


def test_the_safetensors_package_finds_the_same_rows_by_the_index(folder: Path) -> None:
    with ShardReader(folder) as reader:
        batch = reader.batch(range(len(reader)))
        for at, entry in enumerate(reader.index.to_pylist()):
            shard = safetensors.torch.load_file(folder / entry["shard"])
            for name, values in shard.items():
                assert torch.equal(batch[name][at], values[entry["row"]])


@pytest.mark.parametrize(
    "rows", [[4, 1], np.array([4, 1], np.int32), torch.tensor([4, 1]), range(4, 0, -3)]
)
def test_rows_are_given_as_any_list_of_integers(reader: ShardReader, rows: Any) -> None:
    assert reader.batch(rows)["clip_id"] == reader.batch([4, 1])["clip_id"]


@pytest.mark.parametrize("rows", [[0, 9], [-1], [[1, 2]], [0.5], [True]])
def test_a_row_that_is_none_is_an_error(reader: ShardReader, rows: Any) -> None:
    with pytest.raises(IndexError, match="expected"):
        reader.batch(rows)


def test_no_rows_are_an_empty_batch(reader: ShardReader) -> None:
    batch = reader.batch([])
    assert batch["clip"].shape == (0, 8, 1024)
    assert batch["caption"] == []


def test_memory_of_an_earlier_batch_is_used_again(reader: ShardReader, rows: list[Planned]) -> None:
    first = reader.batch([8, 7, 6], names=False)
    assert set(first) == {*COLUMNS, "text", "has_video"}
    places = {name: values.data_ptr() for name, values in first.items()}
    again = reader.batch([0, 5], out=first, names=False)
    assert {name: values.data_ptr() for name, values in again.items()} == places
    for at, row in enumerate([0, 5]):  # nothing is left of pictures that were there
        assert_row(again, at, rows[row])
    with pytest.raises(IndexError, match="3 rows, expected at most the 2 of `out`"):
        reader.batch([1, 2, 3], out=again)


def test_the_text_of_a_row_may_be_chosen(reader: ShardReader, rows: list[Planned]) -> None:
    entry = reader.index.slice(6, 1).to_pylist()[0]
    chosen = entry["text_index"][1]
    batch = reader.batch([6, 6], text=[chosen, 0])
    assert torch.equal(batch["text"][0], text_of(rows[6].captions[1]))
    assert torch.equal(batch["text"][1], text_of(""))
    assert batch["caption"] == [rows[6].captions[1], ""]
    assert reader.captions.column("caption").to_pylist() == ["", "a dog", "take 0", "take 1"]
    with pytest.raises(IndexError, match="text row 4, expected 0 to 3"):
        reader.batch([6], text=[4])
    with pytest.raises(IndexError, match="1 text rows for 2 rows"):
        reader.batch([6, 5], text=[0])


def test_what_the_shards_are_is_told(reader: ShardReader) -> None:
    assert reader.about == ABOUT
    assert reader.certificate == CERTIFICATE
    assert not reader.untrained
    assert reader.index.num_rows == 9


def test_random_weights_are_told(tmp_path: Path) -> None:
    about = {**ABOUT, "encoders": {**ABOUT["encoders"], "clip": "untrained:0:tiny"}}
    sealed_folder(tmp_path / "s", about=about)
    with ShardReader(tmp_path / "s") as reader:
        assert reader.untrained


def test_statistics_are_those_of_the_rows(reader: ShardReader, rows: list[Planned]) -> None:
    """Unbiased, over rows and time, by torch in float64 over the stored means."""
    video = Group("tones", "train", "av")
    means = torch.cat([values_of(row)["latent_mean"].double() for row in rows if row.kind == "av"])
    mean, std = reader.latent_statistics(video)
    assert torch.allclose(mean, means.mean(0).float(), atol=1e-6)
    assert torch.allclose(std, means.std(0, unbiased=True).float(), atol=1e-6)
    everything = torch.cat([values_of(row)["latent_mean"].double() for row in rows])
    whole = reader.latent_statistics(*reader.groups())
    assert torch.allclose(whole[1], everything.std(0).float(), atol=1e-6)
    assert set(reader.groups()) == {video, Group("rain", "train", "audio")}
    with pytest.raises(UsageProblem, match=r"\(nope, train, av\): .* \(tones, train, av\) — name one"):
        reader.latent_statistics(Group("nope", "train", "av"))


@pytest.mark.parametrize(("av", "over"), [(5, "av"), (0, "all")])
def test_the_default_statistics_are_those_that_the_file_and_info_say(
    tmp_path: Path, av: int, over: str
) -> None:
    """One rule of what normalises latents: rows with pictures, or all where there are none."""
    sealed_folder(tmp_path / "s", some_rows(av, 4))
    held = safetensors.torch.load_file(tmp_path / "s" / index.STATISTICS_FILE)
    with ShardReader(tmp_path / "s") as reader:
        mean, std = reader.latent_statistics()
    assert torch.equal(mean, held["mean"])
    assert torch.equal(std, held["std"])
    told = inventory(tmp_path / "s")["statistics"]
    assert told["over"] == over
    assert torch.equal(torch.tensor(told["means"]["std"], dtype=torch.float64).float(), std)


def test_real_lengths_are_read_too(tmp_path: Path) -> None:
    """8 s at 44.1 kHz, where rows are copied in pieces."""
    about = {**ABOUT, "sample_rate_hz": 44100, "duration_s": 8.0}
    rows = sealed_folder(tmp_path / "s", [Planned(clip_id=f"c{i}") for i in range(3)], about=about)
    with ShardReader(tmp_path / "s") as reader:
        batch = reader.batch([2, 0, 1])
        for at, row in enumerate([2, 0, 1]):
            for name, values in values_of(rows[row], about).items():
                assert torch.equal(batch[name][at], values)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("duration_s", [0.64, 7.0, 8.0, 10.0, 30.0, 61.0])
def test_rows_of_any_length_are_cut_into_equal_pieces(rate: int, duration_s: float) -> None:
    for shape in columns_of("av", SequenceSpec(sample_rate_hz=rate, duration_s=duration_s)).values():
        words = torch.Size(shape).numel() * 2 // 8
        pieces = gather._pieces(words)
        assert words % pieces == 0
        assert words // pieces < 1 << 15
        assert pieces <= 512


def test_reads_that_give_less_than_asked_go_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(200)))
    handle = os.open(tmp_path / "file", os.O_RDONLY)
    target = bytearray(100)
    asked = []

    def short(handle: int, buffers: list[memoryview], offset: int) -> int:
        asked.append(len(buffers[0]))
        return os.preadv(handle, [buffers[0][:30]], offset)

    try:
        gather.read_whole(handle, memoryview(target), 7, tmp_path / "file", short)
        assert target == bytes(range(7, 107))
        assert asked == [100, 70, 40, 10]
        with pytest.raises(ManifestChanged, match="ends at byte 200, expected 250 or more"):
            gather.read_whole(handle, memoryview(target), 150, tmp_path / "file", short)
    finally:
        os.close(handle)


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /data rw,relatime - nfs4 server:/export rw
41 40 0:36 / /data/local\\040disk rw,relatime - xfs /dev/sdb rw
42 22 0:37 / /gs rw - fuse.gcsfuse bucket rw
43 22 0:38 / /database rw - lustre mds:/fs rw
44 22 0:39 / /größe\\040äöü rw - nfs server:/other rw
"""


@pytest.mark.parametrize(
    ("place", "io", "reason"),
    [
        ("/home/me", "mmap", "/ is ext4"),
        ("/data/shards", "pread", "/data is nfs4"),
        ("/data/local disk/shards", "mmap", "/data/local disk is xfs"),
        ("/gs/shards", "pread", "/gs is fuse.gcsfuse"),
        ("/datab", "mmap", "/ is ext4"),
        ("/database/x", "pread", "/database is lustre"),
        ("/größe äöü/x", "pread", "/größe äöü is nfs"),
    ],
)
def test_network_disks_are_read_and_others_mapped(
    tmp_path: Path, place: str, io: str, reason: str
) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS, encoding="utf-8")
    assert gather.suitable_io(Path(place), tmp_path / "mountinfo") == (io, reason)


def test_without_a_list_of_mounts_files_are_mapped(tmp_path: Path) -> None:
    assert gather.suitable_io(tmp_path, tmp_path / "none")[0] == "mmap"


def test_more_files_than_may_be_open_are_still_read(
    folder: Path, rows: list[Planned], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (4, 4))
    with ShardReader(folder, io="pread") as reader:
        batch = reader.batch(range(9))
    for at, row in enumerate(rows):
        assert_row(batch, at, row)


def test_a_closed_reader_gives_back_files_and_maps(folder: Path) -> None:
    def held() -> tuple[int, int]:
        maps = sum(".safetensors" in line for line in Path("/proc/self/maps").read_text().splitlines())
        return len(os.listdir("/proc/self/fd")), maps

    before = held()
    for io in ("mmap", "pread"):
        ShardReader(folder, io=io).close()  # type: ignore[arg-type]
        assert held() == before
        reader = ShardReader(folder, io=io)  # type: ignore[arg-type]
        assert held() > before
        del reader
        assert held() == before


def private_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize(
    "count",
    [pytest.param(1_000, id="thousand"), pytest.param(100_000, id="all", marks=pytest.mark.soak)],
)
def test_memory_does_not_grow_with_the_number_of_batches(folder: Path, io: Any, count: int) -> None:
    rng = np.random.default_rng(0)
    with ShardReader(folder, io=io, threads=2) as reader:
        out = reader.allocate(8)
        for number in range(count):
            reader.batch(rng.integers(0, 9, 8), out=out, names=number % 10 == 0)
            if number == count // 5:
                early = private_bytes()
        assert private_bytes() - early < 4 << 20


# ---- damage ----------------------------------------------------------------------------------------


def test_a_folder_without_shards_says_which_command_makes_them(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"holds no shards.*run: features extract"):
        ShardReader(tmp_path)
    with pytest.raises(UsageProblem, match=r"no such folder.*--out .*/none"):
        ShardReader(tmp_path / "none")


def test_an_unsealed_folder_says_to_seal_it(tmp_path: Path) -> None:
    out = tmp_path / "with a blank"
    write_tasks(out, [Planned(clip_id="a")])
    with pytest.raises(UsageProblem, match=rf"is not sealed.*run: features seal '{out}'$"):
        ShardReader(out)
    index.write_table(out / index.INDEX_FILE, index.INDEX.empty_table())
    with pytest.raises(ManifestChanged, match=rf"run: features seal '{out}'$"):
        index.read_table(out / index.INDEX_FILE, index.REJECTS)


def test_a_folder_of_shards_called_like_a_task_is_sealed_and_not_removed() -> None:
    assert index.advice(Path("clips/1-of-2/index.parquet")).startswith("run: rm -r clips/1-of-2 and")
    assert index.advice(Path("best-of-all/index.parquet")) == "run: features seal best-of-all"


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def first_shard(out: Path, kind: str = "av") -> Path:
    return sorted(out.glob(f"clips/*/{kind}-*.safetensors"))[0]


def missing_index(out: Path) -> None:
    (out / index.INDEX_FILE).unlink()


def missing_shard(out: Path) -> None:
    first_shard(out).unlink()


def short_shard(out: Path) -> None:
    os.truncate(first_shard(out), first_shard(out).stat().st_size - 1)


def swapped_kind(out: Path) -> None:
    shutil.copyfile(first_shard(out, "audio"), first_shard(out))


def other_rate(out: Path) -> None:
    """The header of a folder that was made with another duration."""
    data = first_shard(out).read_bytes()
    first_shard(out).write_bytes(data.replace(b'\\"duration_s\\":1.0', b'\\"duration_s\\":2.0'))


def misshaped(out: Path) -> None:
    path = first_shard(out)
    rows = read_header(path).rows
    data = path.read_bytes()
    assert f"[{rows},8,1024]".encode() in data
    path.write_bytes(data.replace(f"[{rows},8,1024]".encode(), f"[{rows},1024,8]".encode()))


def other_version(out: Path) -> None:
    rewrite(out, format="foleyproof-shards/9")


def edited(out: Path) -> None:
    text = (out / index.SHARDS_FILE).read_text()
    (out / index.SHARDS_FILE).write_text(text.replace('"rows": 9', '"rows": 8'))


def no_json(out: Path) -> None:
    (out / index.SHARDS_FILE).write_text("{")


def other_columns(out: Path) -> None:
    table = pq.read_table(out / index.INDEX_FILE)
    resealed(out, table.rename_columns([n.replace("crc32", "crc") for n in table.column_names]))


def flipped_index(out: Path) -> None:
    flip(out / index.INDEX_FILE)


def strange_shard(out: Path) -> None:
    sealed = json.loads((out / index.SHARDS_FILE).read_text())
    name = sorted(sealed["files"])[0]
    rewrite(out, files={key: value for key, value in sealed["files"].items() if key != name})


def other_index(out: Path) -> None:
    """Of a folder with the same names and longer shards."""
    table = pq.read_table(out / index.INDEX_FILE)
    place = table.column_names.index("row")
    later = pa.array([7] * table.num_rows, pa.int32())
    resealed(out, table.set_column(place, "row", later))


def resealed(out: Path, table: pa.Table) -> None:
    """Write another index, with a digest that says that it is right."""
    pq.write_table(table, out / index.INDEX_FILE)
    tables = json.loads((out / index.SHARDS_FILE).read_text())["tables"]
    tables[index.INDEX_FILE]["sha256"] = sha256_file(out / index.INDEX_FILE)
    rewrite(out, tables=tables)


def rewrite(out: Path, **changes: Any) -> None:
    sealed = {**json.loads((out / index.SHARDS_FILE).read_text()), **changes}
    (out / index.SHARDS_FILE).write_text(json.dumps({**sealed, "digest": digest_of(sealed)}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (missing_index, r"index\.parquet: cannot be read \(No such file .*\), .* — run: features seal"),
        (
            flipped_index,
            r"index\.parquet: sha256 is \w{12}, expected \w{12} as recorded — run:",
        ),
        (missing_shard, r"av-0000\.safetensors: cannot be read \(No such file"),
        (short_shard, r"av-0000\.safetensors: its size is [\d,]+, expected [\d,]+ — copy the file anew"),
        (swapped_kind, r"av-0000\.safetensors: its kind is audio, expected av"),
        (other_rate, r"its configuration is \{'duration_s': 2\.0\}, expected \{'duration_s': 1\.0\} —"),
        (
            misshaped,
            r"its shape of columns is \{'clip': \(1024, 8\)\}, expected \{'clip': \(8, 1024\)\} —",
        ),
        (
            other_version,
            r"shards\.json: its format is 'foleyproof-shards/9', expected foleyproof-shards/1",
        ),
        (edited, r"shards\.json: its digest does not match its content"),
        (no_json, r"shards\.json: cannot be read"),
        (other_columns, r"index\.parquet: its columns differ in crc"),
        (strange_shard, r"index\.parquet: names a shard that shards\.json lacks"),
        (other_index, r"index\.parquet: row 0 is not in its shard"),
    ],
)
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_each_damage_is_told_when_the_folder_is_opened(
    copied: Path, spoil: Any, said: str, io: Any
) -> None:
    spoil(copied)
    with pytest.raises(FoleyproofError, match=said) as caught:
        ShardReader(copied, io=io)
    assert caught.value.exit_code == 13


def lost(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, 100)


READS: dict[str, list[Callable[[Path], object]]] = {
    index.INDEX_FILE: [inventory],
    index.REJECTS_FILE: [inventory],
    index.CAPTIONS_FILE: [lambda out: ShardReader(out).captions],
    index.STATISTICS_FILE: [inventory, lambda out: ShardReader(out).latent_statistics()],
}


@pytest.mark.parametrize("damage", [lost, cut, flip])
@pytest.mark.parametrize("name", READS)
def test_whatever_is_read_beside_the_shards_must_be_what_was_sealed(
    copied: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(copied / name)
    for read in READS[name]:
        with pytest.raises(ManifestChanged, match=rf"{name}: .*expected .* — run: features seal"):
            read(copied)


@pytest.mark.parametrize("damage", [lost, cut])
def test_statistics_that_cannot_be_read_are_told(copied: Path, damage: Callable[[Path], None]) -> None:
    path = copied / index.STATISTICS_FILE
    damage(path)
    with pytest.raises(ManifestChanged, match=r"cannot be read \(.*features seal"):
        read_groups(path)
    safetensors.torch.save_file({"mean": torch.zeros(3)}, path)
    with pytest.raises(ManifestChanged, match=r"cannot be read \(TypeError.*features seal"):
        read_groups(path)


def test_a_file_that_is_cut_while_it_is_open_is_told_by_reads(copied: Path) -> None:
    with ShardReader(copied, io="pread") as reader:
        os.truncate(first_shard(copied), 1000)
        with pytest.raises(ManifestChanged, match="it was cut while it was read"):
            reader.batch(range(9))


def test_spec_of_a_folder_is_that_of_its_about() -> None:
    assert spec_of(ABOUT).num_latents == 32


def test_opening_leaves_the_threads_of_pytorch_as_they_were(folder: Path) -> None:
    before = torch.get_num_threads()
    with ShardReader(folder, io="mmap", threads=3) as reader:
        reader.batch(range(9))
        assert torch.get_num_threads() == before
