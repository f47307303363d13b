"""The cases of bad input: each is run by test_bad_input.py and printed in curation/README.md.

A case changes something (a metadata file before `fetch`, a card, a built file, the surroundings),
runs one command, and states the exit code and the first words of what the user reads.
"""

# ruff: noqa: E501 - the cases are a table: one to three lines each read better than five

import contextlib
import csv
import errno
import fcntl
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bad_input.bench import Bench, FillingUp, Outcome
from bad_input.miniatures import (
    AUDIOCAPS,
    AUDIOCAPS_ROWS,
    AUDIOSET,
    AUDIOSET_HEADER,
    AUDIOSET_ROWS,
    CLOTHO_OF_HOSTILE,
    HOSTILE,
    LIST,
    SQL,
    TEXT_OF,
    TOML,
    VGGSOUND,
    VGGSOUND_HEADER,
    VGGSOUND_ROWS,
    WAVCAPS,
    WHOLE,
    A,
    C,
    K,
    V,
    W,
    cells,
    saved,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input and what it gets."""

    input: str
    stage: str
    exit: int
    says: str  # first words of a line that is printed
    files: Mapping[str, str | bytes | None] = field(default_factory=dict)  # instead of the whole ones
    card: tuple[str | None, str | None] | None = None  # card.toml and clips.sql of the dataset `mine`
    damage: Callable[[Path], None] | None = None  # done to the manifests folder before the command
    around: Callable[[Bench], contextlib.AbstractContextManager[None]] | None = None
    command: tuple[str, ...] = ()  # where it is not that of the stage
    act: Callable[[Bench], Outcome] | None = None  # where it is more than one command
    same: bool = False  # whether the rows are those of the whole file
    repaired: tuple[str, ...] = ()  # commands that work after all

    @property
    def dataset(self) -> str:
        return next(iter(self.files), V).split("/")[0]

    def words(self) -> tuple[str, ...]:
        """The command."""
        return (
            self.command
            or {
                "fetch": ("fetch", "--from", "METADATA"),
                "build": ("build", "mine" if self.card else self.dataset),
                "overlaps": ("overlaps",),
                "clean": ("clean", "--name", "paper"),
                "blame": ("blame", "4PjEi5fFD6A"),
                "verify": ("verify",),
                "datasets": ("datasets",),
            }[self.stage]
        )


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Damage: the file `name` below the manifests folder gets other bytes."""

    def damage(manifests: Path) -> None:
        path = manifests / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def one_bit(content: bytes) -> bytes:
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


def no_footer(content: bytes) -> bytes:
    return content[:-64] + bytes(64)


def same_size_text(content: bytes) -> bytes:
    return (b"no Parquet at all\n" * len(content))[: len(content)]


def one_digit(content: bytes) -> bytes:
    return content.replace(b'"kept": 11', b'"kept": 12')


def without_key(key: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        document = json.loads(content)
        del document[key]
        return json.dumps(document).encode()

    return change


@contextlib.contextmanager
def locked_elsewhere(bench: Bench) -> Iterator[None]:
    """Another holder of the lock: flock tells two open files of one process apart."""
    bench.manifests.mkdir(exist_ok=True)
    with (bench.manifests / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def read_only_disk(bench: Bench) -> Iterator[None]:
    """root may write anywhere, so the system's answer is put in its mouth."""

    def refuse(path: Any, *rest: Any, **options: Any) -> int:
        if str(path).startswith(str(bench.manifests)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        opened = os.open
        patch.setattr(os, "open", refuse)
        yield


@contextlib.contextmanager
def full_disk(bench: Bench) -> Iterator[None]:
    with FillingUp(after=1):
        yield


def in_a_file(bench: Bench) -> Outcome:
    bench.manifests = bench.metadata / V
    return bench.curate("build")


def below_a_file(bench: Bench) -> Outcome:
    bench.manifests = bench.metadata / V / "below"
    return bench.curate("build")


def in_a_folder_named(name: str) -> Callable[[Bench], Outcome]:
    """Everything, in a manifests folder of that name, beside one that a pattern would also find."""

    def act(bench: Bench) -> Outcome:
        bench.manifests.rename(bench.folder / "mm")
        bench.manifests = bench.folder / name
        for words in (
            ("fetch", "--from", "METADATA"),
            ("build",),
            ("overlaps",),
            ("clean",),
            ("verify",),
        ):
            outcome = bench.curate(*words)
            if outcome.code:
                return outcome
        with contextlib.chdir(bench.folder):
            import curation

            assert curation.overlaps("vggsound", manifests=name).num_rows
            with curation.open_manifests(name) as db:
                assert db.execute("select count(*) from vggsound").fetchone() == (7,)
        return bench.curate("blame", "4PjEi5fFD6A")

    return act


def through_a_link(bench: Bench) -> Outcome:
    moved = bench.manifests.rename(bench.folder / "elsewhere")
    bench.manifests.symlink_to(moved)
    bench.put({V: VGGSOUND})
    bench.done("fetch", "vggsound", "--from", "METADATA")
    shutil.rmtree(moved / "vggsound" / "build.json", ignore_errors=True)
    return bench.curate("build", "vggsound")


def asked_about(*names: str) -> Callable[[Bench], Outcome]:
    """blame for each name; the last outcome."""

    def act(bench: Bench) -> Outcome:
        return [bench.curate("blame", name) for name in names][-1]

    return act


def built_with_a_link(target: str, sql: str) -> Callable[[Bench], Outcome]:
    """A card whose SQL reads raw/link, which leads out of the dataset's folder."""

    def act(bench: Bench) -> Outcome:
        (bench.manifests / "mine" / "raw" / "link").symlink_to(target)
        (bench.cards / "mine" / "clips.sql").write_text(
            sql.format(bench.manifests / "mine" / "raw" / "link")
        )
        return bench.curate("build", "mine")

    return act


def raw_is_a_link(bench: Bench) -> Outcome:
    raw = bench.manifests / "vggsound" / "raw" / "vggsound.csv"
    raw.rename(bench.folder / "outside.csv")
    raw.symlink_to(bench.folder / "outside.csv")
    (bench.manifests / "vggsound" / "build.json").unlink()
    return bench.curate("build", "vggsound")


def one_after_another(bench: Bench) -> Outcome:
    """clean/paper is there; the same name with another meaning is refused, then replaced."""
    refused = bench.curate("clean", "--name", "paper", "--match", "interval")
    bench.done("clean", "--name", "paper", "--match", "interval", "--replace")
    return refused


def interrupted_by(number: signal.Signals) -> Callable[[Bench], Outcome]:
    """A long build that gets a signal while it writes; it is there whole or not at all."""

    def act(bench: Bench) -> Outcome:
        process = bench.start("build", "audioset")
        wait_for(bench.manifests / "audioset", "stage.tmp-*", process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        made = {path.name for path in (bench.manifests / "audioset").glob("*.*")}
        assert made in (set(), {"clips.parquet", "problems.parquet", "evidence.parquet", "build.json"})
        return Outcome(process.returncode, out, err)

    return act


def with_features(change: Callable[[Path], Any], *words: str) -> Callable[[Bench], Outcome]:
    """clean --extracted over two rows of features, damaged by `change`."""

    def act(bench: Bench) -> Outcome:
        folder = bench.folder / "features" / "x"
        folder.mkdir(parents=True)
        folder.with_suffix(".tsv").write_text("id\tlabel\na\tb\nc\td\n")
        meta = {"mean": {"shape": [2, 3], "dtype": "torch.float32"}, "shape": []}
        (folder / "meta.json").write_text(json.dumps(meta))
        (folder / "mean.memmap").write_bytes(bytes(24))
        change(folder)
        given = words or (f"vggsound={folder}.tsv",)
        out = str(bench.folder / "out")
        return bench.curate("clean", "--name", "paper", "--extracted", *given, "--extracted-out", out)

    return act


def exported(*words: str) -> Callable[[Bench], Outcome]:
    """export into a folder that is somebody else's."""

    def act(bench: Bench) -> Outcome:
        (bench.folder / "mine").mkdir()
        (bench.folder / "mine" / "notes.txt").write_text("mine")
        return bench.curate("export", *words, "--out", str(bench.folder / "mine"))

    return act


def second_build(bench: Bench) -> Outcome:
    """A real second process while the first builds; the first is not disturbed."""
    first = bench.start("build", "audioset")
    wait_for(bench.manifests / "audioset", "stage.tmp-*", first)
    second = bench.curate("build")
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, (out, err)
    return second


def wait_for(folder: Path, pattern: str, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{folder}/{pattern} did not appear"
        time.sleep(0.001)


def reader_left(*words: str) -> Callable[[Bench], Outcome]:
    """Its standard output is a pipe that nobody reads, as behind `| head -0`."""

    def act(bench: Bench) -> Outcome:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            process = bench.start(*words, stdout=writer)
        finally:
            os.close(writer)
        _, err = process.communicate(timeout=60)
        return Outcome(process.returncode, "", err)

    return act


def to_a_full_device(bench: Bench) -> Outcome:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        process = bench.start("datasets", stdout=full)
        _, err = process.communicate(timeout=60)
    return Outcome(process.returncode, "", err)


def many_segments() -> str:
    """A build that takes long enough to be met in the middle of it."""
    rows = (
        f'{i:010d}A, {i % 600}.000, {i % 600 + 10}.000, "/m/09x0r,/m/04rlf"\n' for i in range(300_000)
    )
    return "".join(rows)


def big_json() -> str:
    """One object above DuckDB's default limit of 16 MB, as the parts of WavCaps are."""
    item = {"caption": "x" * 220, "author": "m"}
    text = json.dumps({"data": [{"id": str(i + 1), **item} for i in range(80_000)]})
    assert len(text) > 20_000_000
    return text


def rows_case(input: str, name: str, row: str, reasons: str, *, total: int, kept: int) -> Case:
    """One damaged row behind the whole file's."""
    return Case(
        input=f"a row with {input}",
        stage="build",
        exit=0,
        says=f"{total} rows = {kept} kept" + (f" + 1 failed ({reasons})" if kept < total else ""),
        files={name: str(WHOLE[name]) + row + "\n"},
    )


CASES = [
    # -- fetch
    Case(input="the folder of `--from` is not there", stage="fetch", exit=2,
         command=("fetch", "--from", "METADATA/nowhere"), says="--from metadata/nowhere: not a folder"),
    Case(input="`fetch` without `--from`", stage="fetch", exit=2, command=("fetch",),
         says="nobody can be asked here whether files shall be fetched over the network"),
    Case(input="an unknown dataset", stage="fetch", exit=2,
         command=("fetch", "vggsond", "--from", "METADATA"),
         says="unknown dataset 'vggsond', expected one of: audiocaps, audioset"),
    Case(input="a metadata file is missing", stage="fetch", exit=0, files={V: None},
         says="absent: vggsound/vggsound.csv"),
    Case(input="metadata that the card does not know", stage="fetch", exit=0,
         says="58 files = 6 fetched (6 unrecognised copies) + 52 absent + 0 failed"),
    Case(input="gzip cut off", stage="fetch", exit=1, says="metadata/vggsound/vggsound.csv.gz: not a whole",
         files={V: None, V + ".gz": gzip.compress(VGGSOUND.encode() * 50)[:-30]}),
    Case(input="gzip in name only", stage="fetch", exit=1, files={V: None, V + ".gz": VGGSOUND},
         says="metadata/vggsound/vggsound.csv.gz: not a whole gzip file (Not a gzipped file"),
    Case(input="an empty file", stage="fetch", exit=1, files={V: ""},
         says="metadata/vggsound/vggsound.csv: is empty, expected metadata"),
    Case(input="an empty file, packed", stage="fetch", exit=1,
         files={V: None, V + ".gz": gzip.compress(b"")},
         says="metadata/vggsound/vggsound.csv.gz: is empty, expected metadata"),
    # -- build: files that are not there, or not whole
    Case(input="the metadata of a named dataset is missing", stage="build", exit=1, files={V: None},
         says="vggsound: not at hand: vggsound.csv"),
    Case(input="metadata is missing, no dataset named", stage="build", exit=0, files={V: None},
         command=("build",), says="10 datasets = 5 built + 5 without files + 0 failed"),
    Case(input="an unknown dataset", stage="build", exit=2, command=("build", "vggsond"),
         says="unknown dataset 'vggsond', expected one of: audiocaps, audioset"),
    Case(input="CSV cut off inside a row", stage="build", exit=1, files={V: VGGSOUND[:-7]},
         says="vggsound/raw/vggsound.csv: line 7: 3 columns; expected 4 columns (youtube_id, start"),
    Case(input="CSV cut off inside quotes", stage="build", exit=1, files={A: AUDIOSET[:-4]},
         says="audioset/raw/balanced_train_segments.csv: line 8: a quote in the wrong place, or one that"),
    Case(input="CSV cut off between rows", stage="build", exit=0,
         files={V: "".join(VGGSOUND.splitlines(keepends=True)[:4])}, says="4 rows = 4 kept"),
    Case(input="CSV cut off between rows: the counts", stage="build", exit=0,
         files={V: "".join(VGGSOUND.splitlines(keepends=True)[:4])},
         says="vggsound: unexplained difference: train 2 of 183,730 rows"),
    Case(input="CSV cut off in the last cell", stage="build", exit=0, files={V: VGGSOUND[:-3]},
         says="7 rows = 6 kept + 1 failed (unknown_split 1)"),
    Case(input="comments and no row", stage="build", exit=1,
         files={A: "".join(AUDIOSET.splitlines(keepends=True)[:3])},
         says="audioset/raw/balanced_train_segments.csv: has no rows, expected 4 columns"),
    Case(input="a header and no row", stage="build", exit=1, files={C: AUDIOCAPS.splitlines()[0] + "\n"},
         says="audiocaps/raw/dataset/test.csv: has no rows, expected 4 columns"),
    Case(input="blank lines and no row", stage="build", exit=1, files={V: "\n\n\n"},
         says="vggsound/raw/vggsound.csv: has no rows, expected 4 columns"),
    Case(input="HTML instead of CSV", stage="build", exit=1,
         files={V: "<!DOCTYPE html>\n<html><body>404</body></html>\n"},
         says="vggsound/raw/vggsound.csv: line 1: a web page, expected 4 columns"),
    Case(input="a line of more than 2 MB", stage="build", exit=1,
         files={V: VGGSOUND + '4PjEi5fFD6A,10,"' + "x" * 3_000_000 + '",train\n'},
         says="vggsound/raw/vggsound.csv: line 8: longer than 2000000 bytes; expected 4 columns"),
    # -- build: encodings and line ends
    Case(input="UTF-16 with byte order mark", stage="build", exit=0, same=True,
         files={V: VGGSOUND.encode("utf-16")}, says="7 rows = 7 kept"),
    Case(input="UTF-16, big end first, with byte order mark", stage="build", exit=0, same=True,
         files={V: b"\xfe\xff" + VGGSOUND.encode("utf-16-be")}, says="7 rows = 7 kept"),
    Case(input="UTF-16 without byte order mark", stage="build", exit=0, same=True,
         files={V: VGGSOUND.encode("utf-16-le")}, says="7 rows = 7 kept"),
    Case(input="UTF-16, big end first, without byte order mark", stage="build", exit=0, same=True,
         files={V: VGGSOUND.encode("utf-16-be")}, says="7 rows = 7 kept"),
    Case(input="UTF-16 cut off inside a character", stage="build", exit=1,
         files={V: VGGSOUND.encode("utf-16")[:-1]},
         says="vggsound/raw/vggsound.csv: not utf-16 text"),
    Case(input="UTF-32", stage="build", exit=0, same=True,
         files={V: VGGSOUND.encode("utf-32")}, says="7 rows = 7 kept"),
    Case(input="Latin-1", stage="build", exit=0, same=True,
         files={V: VGGSOUND.encode("latin-1")}, says="7 rows = 7 kept"),
    Case(input="Windows' cp1252", stage="build", exit=0, same=True,
         files={C: AUDIOCAPS.encode("cp1252")}, says="3 rows = 3 kept"),
    Case(input="UTF-8 with byte order mark", stage="build", exit=0, same=True,
         files={V: VGGSOUND.encode("utf-8-sig")}, says="7 rows = 7 kept"),
    Case(input="UTF-8 with byte order mark before a header", stage="build", exit=0, same=True,
         files={C: AUDIOCAPS.encode("utf-8-sig")}, says="3 rows = 3 kept"),
    Case(input="UTF-8 with byte order mark before comments", stage="build", exit=0, same=True,
         files={A: AUDIOSET.encode("utf-8-sig")}, says="5 rows = 5 kept"),
    Case(input="CRLF", stage="build", exit=0, same=True,
         files={A: AUDIOSET.replace("\n", "\r\n")}, says="5 rows = 5 kept"),
    Case(input="CR alone", stage="build", exit=0, same=True,
         files={A: AUDIOSET.replace("\n", "\r")}, says="5 rows = 5 kept"),
    Case(input="LF and CRLF mixed", stage="build", exit=0, same=True,
         files={V: VGGSOUND.replace("\n", "\r\n", 3)}, says="7 rows = 7 kept"),
    Case(input="CRLF, and LF inside a cell", stage="build", exit=0,
         files={C: AUDIOCAPS.replace("\n", "\r\n").replace("waterfall, ", "waterfall,\n")},
         says="3 rows = 3 kept"),
    # -- build: saved again by a spreadsheet
    Case(input="a spreadsheet's `30,40` for ` 30.000, 40.000`, one line of header", stage="build", exit=0,
         files={A: saved(AUDIOSET_HEADER + AUDIOSET_ROWS)}, same=True, says="5 rows = 5 kept"),
    Case(input="the same, separated by `;`", stage="build", exit=0, same=True,
         files={A: saved(AUDIOSET_HEADER + AUDIOSET_ROWS, delimiter=";")}, says="5 rows = 5 kept"),
    Case(input="the same, separated by tabs", stage="build", exit=0, same=True,
         files={A: saved(AUDIOSET_HEADER + AUDIOSET_ROWS, delimiter="\t")}, says="5 rows = 5 kept"),
    Case(input="the same without any header", stage="build", exit=0, same=True,
         files={A: saved(AUDIOSET_ROWS)}, says="5 rows = 5 kept"),
    Case(input="the same with a header that lost its `#`", stage="build", exit=0,
         files={A: saved(AUDIOSET_HEADER + AUDIOSET_ROWS)[2:]},
         says="6 rows = 5 kept + 1 failed (bad_id 1)"),
    Case(input="decimal commas", stage="build", exit=1,
         files={A: saved([[c.replace(".", ",") for c in row] for row in cells(AUDIOSET)], delimiter=";")},
         says="audioset/raw/balanced_train_segments.csv: row 1: bad_time: id '--PJHxphWEs', nan to nan s"),
    Case(input="`30.0` for 30", stage="build", exit=0, same=True, says="7 rows = 7 kept",
         files={V: saved([[a, b + ".0", c, d] for a, b, c, d in VGGSOUND_ROWS])}),
    Case(input="every cell quoted", stage="build", exit=0, same=True, says="7 rows = 7 kept",
         files={V: saved(VGGSOUND_ROWS, quoting=csv.QUOTE_ALL)}),
    Case(input="separated by `;`, as captions with commas", stage="build", exit=0, same=True,
         files={C: saved(AUDIOCAPS_ROWS, delimiter=";")}, says="3 rows = 3 kept"),
    Case(input="`#NAME?` for one id that begins with -", stage="build", exit=0,
         files={V: VGGSOUND.replace("---g-f_I2yQ", "#NAME?")},
         says="7 rows = 6 kept + 1 failed (bad_id 1)"),
    Case(input="`#NAME?` for most ids", stage="build", exit=1,
         files={V: re.sub("^-[^,]*", "#NAME?", VGGSOUND, flags=re.M)},
         says="vggsound/raw/vggsound.csv: row 1: bad_id: id '#NAME?', 1.0 to 11.0 s, split 'test'"),
    # -- build: other columns
    Case(input="columns swapped, with a header", stage="build", exit=0, same=True,
         files={C: saved([row[::-1] for row in AUDIOCAPS_ROWS])}, says="3 rows = 3 kept"),
    Case(input="a header where none is published, columns swapped", stage="build", exit=0, same=True,
         files={V: saved([row[::-1] for row in VGGSOUND_HEADER + VGGSOUND_ROWS])}, says="7 rows = 7 kept"),
    Case(input="columns swapped, without a header: id and start", stage="build", exit=1,
         files={V: saved([[b, a, c, d] for a, b, c, d in VGGSOUND_ROWS])},
         says="vggsound/raw/vggsound.csv: row 1: bad_id: id '1', nan to nan s, split 'test'"),
    Case(input="columns swapped, without a header: label and split", stage="build", exit=1,
         files={V: saved([[a, b, d, c] for a, b, c, d in VGGSOUND_ROWS])},
         says="vggsound/raw/vggsound.csv: row 1: unknown_split: id '---g-f_I2yQ', 1.0 to 11.0 s, split"),
    Case(input="columns swapped, without a header: start and end", stage="build", exit=1,
         files={A: saved([[a, c, b, d] for a, b, c, d in AUDIOSET_ROWS])},
         says="audioset/raw/balanced_train_segments.csv: row 1: empty_interval: id '--PJHxphWEs', 40.0"),
    Case(input="a column is missing", stage="build", exit=1,
         files={V: saved([row[:3] for row in VGGSOUND_ROWS])},
         says="vggsound/raw/vggsound.csv: line 1: 3 columns ('---g-f_I2yQ,1,people marching'), expected"),
    Case(input="a column is missing, with a header", stage="build", exit=1,
         files={C: saved([row[:3] for row in AUDIOCAPS_ROWS])},
         says="audiocaps/raw/dataset/test.csv: line 1: 3 columns ('audiocap_id,youtube_id,start_time')"),
    Case(input="the header is missing", stage="build", exit=1, files={C: saved(AUDIOCAPS_ROWS[1:])},
         says="audiocaps/raw/dataset/test.csv: line 1: 4 columns ('97151,--0PQM4-hqg,30,"),
    Case(input="a column more, with a header", stage="build", exit=0, same=True,
         files={C: saved([["n", *AUDIOCAPS_ROWS[0]]] + [["1", *row] for row in AUDIOCAPS_ROWS[1:]])},
         says="3 rows = 3 kept"),
    Case(input="a column more, without a header", stage="build", exit=1,
         files={V: saved([[*row, "x"] for row in VGGSOUND_ROWS])},
         says="vggsound/raw/vggsound.csv: line 1: 5 columns ('---g-f_I2yQ,1,people marching,test,x')"),
    Case(input="a column twice", stage="build", exit=1,
         files={C: saved([[*row, row[1]] for row in AUDIOCAPS_ROWS])},
         says="audiocaps/raw/dataset/test.csv: line 1: 5 columns"),
    Case(input="a column more from some line on", stage="build", exit=1,
         files={V: VGGSOUND.replace("185,playing", "185,playing,", 1)},
         says="vggsound/raw/vggsound.csv: line 5: 5 columns; expected 4 columns"),
    # -- build: JSON
    Case(input="JSON cut off", stage="build", exit=1, files={W: WAVCAPS[:-20]},
         says="wavcaps/raw/json_files/SoundBible/sb_final.json: Malformed JSON at byte"),
    Case(input="HTML instead of JSON", stage="build", exit=1, files={W: "<html>\n<body>404</body></html>"},
         says="wavcaps/raw/json_files/SoundBible/sb_final.json: line 1: a web page, expected JSON objects"),
    Case(input="JSON with other keys", stage="build", exit=1, files={W: '{"rows": [1, 2]}'},
         says="wavcaps/raw/json_files/SoundBible/sb_final.json: has no rows, expected JSON objects with data"),
    Case(input="JSON of another type", stage="build", exit=1, files={W: '{"data": 5}'},
         says="wavcaps/raw/json_files/SoundBible/sb_final.json: has no rows, expected JSON objects with data"),
    Case(input="a JSON list in place of an object", stage="build", exit=1, files={W: '[{"id": "1"}]'},
         says="wavcaps/raw/json_files/SoundBible/sb_final.json: has no rows, expected JSON objects with data"),
    Case(input="JSON without items", stage="build", exit=1, files={W: '{"data": []}'},
         says="wavcaps/raw/json_files/SoundBible/sb_final.json: has no rows, expected JSON objects with data"),
    Case(input="JSON items without ids", stage="build", exit=1, files={W: '{"data": [{"caption": "a"}]}'},
         says="wavcaps/raw/json_files/SoundBible/sb_final.json: row 1: missing_id: id None"),
    Case(input="JSON with byte order mark", stage="build", exit=0, same=True,
         files={W: WAVCAPS.encode("utf-8-sig")}, says="3 rows = 3 kept"),
    Case(input="JSON in UTF-16", stage="build", exit=0, same=True,
         files={W: WAVCAPS.encode("utf-16")}, says="3 rows = 3 kept"),
    Case(input="JSON in Latin-1", stage="build", exit=0, same=True,
         files={W: WAVCAPS.encode("latin-1")}, says="3 rows = 3 kept"),
    Case(input="one JSON object of 22 MB", stage="build", exit=0, files={W: big_json()},
         says="80,000 rows = 80,000 kept"),
    # -- build: damaged rows
    rows_case("an id too short", V, "4PjEi5,1,x,train", "bad_id 1", total=8, kept=7),
    rows_case("no id", V, ",1,x,train", "missing_id 1", total=8, kept=7),
    rows_case("an id cut off", V, "4PjEi5fFD6,0,x,train", "bad_id 1", total=8, kept=7),
    Case(input="a row with an id cut off: the likely one", stage="build", exit=0,
         files={V: VGGSOUND + "4PjEi5fFD6,0,x,train\n"}, says="twins.parquet: 1 truncated_id"),
    Case(input="a row with an id in another case", stage="build", exit=0,
         files={V: VGGSOUND + "4pjei5ffd6a,0,x,train\n"}, says="twins.parquet: 1 case_twin"),
    Case(input="a row with an id that YouTube cannot have given", stage="build", exit=0,
         files={V: VGGSOUND + "4PjEi5fFD6B,7,x,train\n"}, says="vggsound: 1 unlikely_id"),
    rows_case("an empty interval", A, '--PJHxphWEs, 40.000, 40.000, "/m/1"', "empty_interval 1",
              total=6, kept=5),
    rows_case("an end before its start", A, '--PJHxphWEs, 50.000, 40.000, "/m/1"', "empty_interval 1",
              total=6, kept=5),
    rows_case("an interval of less than a millisecond", A, '--PJHxphWEs, 0.0001, 0.0002, "/m/1"',
              "empty_interval 1", total=6, kept=5),
    rows_case("a negative start", V, "4PjEi5fFD6A,-5,x,train", "bad_time 1", total=8, kept=7),
    rows_case("a start that is a word", V, "4PjEi5fFD6A,soon,x,train", "bad_time 1", total=8, kept=7),
    rows_case("NaN for a start", A, '--PJHxphWEs, nan, 40.000, "/m/1"', "bad_time 1", total=6, kept=5),
    rows_case("an infinite end", A, '--PJHxphWEs, 0.000, inf, "/m/1"', "bad_time 1", total=6, kept=5),
    rows_case("`1e400` for a start", A, '--PJHxphWEs, 1e400, 40.000, "/m/1"', "bad_time 1",
              total=6, kept=5),
    rows_case("a start of `1e300`", A, '--PJHxphWEs, 1e300, 1e301, "/m/1"', "bad_time 1",
              total=6, kept=5),
    rows_case("a clip that was there", V, "4PjEi5fFD6A,0,x,train", "duplicate_clip 1", total=8, kept=7),
    rows_case("a clip that was there, in another split", V, "4PjEi5fFD6A,0,x,test", "duplicate_clip 1",
              total=8, kept=7),
    rows_case("an unknown split", V, "4PjEi5fFD6A,10,x,trian", "unknown_split 1", total=8, kept=7),
    rows_case("a path for an id", V, "../../../../x,0,x,train", "bad_id 1", total=8, kept=7),
    rows_case("SQL for an id", V, "';drop table--,0,x,train", "bad_id 1", total=8, kept=7),
    rows_case("NUL in a label", V, '4PjEi5fFD6A,10,"a\0b",train', "", total=8, kept=8),
    Case(input="names such as `../../x`, `-rf`, `$(id)`, `a'b`, newline, NUL, 300 characters, NFC and NFD",
         stage="build", exit=0, files={K: CLOTHO_OF_HOSTILE},
         says=f"{len(HOSTILE)} rows = {len(HOSTILE)} kept"),
    # -- build: cards
    Case(input="a card whose SQL is no SELECT", stage="build", exit=1, card=(TOML, "create table x as " + SQL),
         says="cards/mine/clips.sql: expected exactly one SELECT, nothing else"),
    Case(input="a card with two statements", stage="build", exit=1, card=(TOML, f"{SQL}; drop table list"),
         says="cards/mine/clips.sql: expected exactly one SELECT, nothing else"),
    Case(input="a card with COPY", stage="build", exit=1,
         card=(TOML, f"copy ({SQL}) to 'x.parquet' (format parquet)"),
         says="cards/mine/clips.sql: expected exactly one SELECT, nothing else"),
    Case(input="a card with COPY inside its SELECT", stage="build", exit=1,
         card=(TOML, f"with made as (copy ({SQL}) to 'x.parquet') from made"), says="cards/mine/clips.sql: "),
    Case(input="a card whose SELECT runs another statement", stage="build", exit=1,
         card=(TOML, "from json_execute_serialized_sql(json_serialize_sql('select 1 as clip_id'))"),
         says="cards/mine/clips.sql: calls a function that runs other statements"),
    Case(input="a card with an empty SQL file", stage="build", exit=1, card=(TOML, "-- nothing\n"),
         says="cards/mine/clips.sql: expected exactly one SELECT, nothing else"),
    Case(input="a card whose SELECT ends with `;`", stage="build", exit=0, card=(TOML, SQL + ";\n"),
         says="2 rows = 2 kept"),
    Case(input="a card that reads an absolute path", stage="build", exit=1,
         card=(TOML, TEXT_OF.format("/etc/hostname")),
         says="cards/mine/clips.sql: reads outside its raw folder: Permission Error"),
    Case(input="a card that reads `..`", stage="build", exit=1,
         card=(TOML, TEXT_OF.format("../" * 12 + "etc/hostname")),
         says="cards/mine/clips.sql: reads outside its raw folder: Permission Error"),
    Case(input="a card that lists a folder", stage="build", exit=1,
         card=(TOML, "select file as clip_id, 'train' as split, 'local' as source, file as source_id, "
                     "'x' as file, 1 as row from glob('/etc/*')"),
         says="cards/mine/clips.sql: reads outside its raw folder: Permission Error"),
    Case(input="a card that reads over the network", stage="build", exit=1,
         card=(TOML, TEXT_OF.format("http://127.0.0.1:9/x")),
         says="cards/mine/clips.sql: reads outside its raw folder: Permission Error"),
    Case(input="a card that reads a symlink out of its folder", stage="build", exit=1, card=(TOML, SQL),
         act=built_with_a_link("/etc/hostname", TEXT_OF),
         says="cards/mine/clips.sql: reads outside its raw folder: Permission Error"),
    Case(input="a metadata file that is a symlink out of its folder", stage="build", exit=1,
         act=raw_is_a_link, says="vggsound/raw/vggsound.csv: a link that leaves the folder of its dataset"),
    Case(input="a card whose SELECT lacks columns", stage="build", exit=1,
         card=(TOML, "select id as clip_id from list"),
         says="cards/mine/clips.sql: columns clip_id; expected clip_id, split, source, source_id, file, row"),
    Case(input="a card whose SELECT names no column of the file", stage="build", exit=1,
         card=(TOML, SQL.replace("select id", "select name")),
         says="cards/mine/clips.sql: Binder Error: Referenced column"),
    Case(input="a card whose SELECT fails on a row", stage="build", exit=1,
         card=(TOML, SQL.replace(" from", ", id::double as start_s from")),
         says="cards/mine/clips.sql: Conversion Error: Could not convert string 'a' to DOUBLE"),
    Case(input="a card without its SQL", stage="build", exit=1, card=(TOML, None),
         says="cards/mine/clips.sql: missing, expected beside card.toml"),
    Case(input="TOML broken", stage="build", exit=1, card=(TOML + "[[", SQL),
         says="cards/mine/card.toml: not TOML and SQL in UTF-8: "),
    Case(input="a card without a title", stage="build", exit=1, card=(TOML.split("\n", 1)[1], SQL),
         says="cards/mine/card.toml: the card has no 'title', expected text"),
    Case(input="a card with an unknown key", stage="build", exit=1, card=("colour = 1\n" + TOML, SQL),
         says="cards/mine/card.toml: the card has 'colour', expected"),
    Case(input="a card with a number for a text", stage="build", exit=1,
         card=(TOML.replace('"Mine"', "5"), SQL),
         says="cards/mine/card.toml: the card has title = 5, expected text"),
    Case(input="a card whose file lies outside raw/", stage="build", exit=1,
         card=(TOML.replace("list.csv", "../list.csv"), SQL),
         says="cards/mine/card.toml: path '../list.csv' of list, expected a path below raw/"),
    Case(input="a card with SQL for a type", stage="build", exit=1,
         card=(TOML.replace('["id", "start"]', '{ id = "varchar; drop table list" }\nformat = "json"'), SQL),
         says="cards/mine/card.toml: type 'varchar; drop table list' of id in list, expected a DuckDB type"),
    Case(input="a card with an unknown role", stage="build", exit=1,
         card=(TOML.replace('role = "train"', 'role = "training"'), SQL),
         says="cards/mine/card.toml: role 'training' of split 'train', expected one of train"),
    Case(input="a named list without split and SQL", stage="build", exit=1, card=(TOML + LIST, SQL),
         says="cards/mine/card.toml: list 'some', expected either split or sql"),
    Case(input="a named list of an unknown split", stage="build", exit=1,
         card=(TOML + LIST + 'split = "trian"\n', SQL),
         says="cards/mine/card.toml: split 'trian' of list 'some', expected one of train"),
    Case(input="a named list with COPY", stage="build", exit=1,
         card=(TOML + LIST + "sql = \"copy (select 1) to 'x.csv'\"\n", SQL),
         says="cards/mine/card.toml: list 'some': expected exactly one SELECT"),
    Case(input="a named list that reads outside", stage="build", exit=1,
         card=(TOML + LIST + "sql = \"select 'local' as source, content as source_id "
                             "from read_text('/etc/hostname')\"\n", SQL),
         says="cards/mine/card.toml: list 'some': reads outside its raw folder: Permission Error"),
    Case(input="a named list that lacks columns", stage="build", exit=1,
         card=(TOML + LIST + 'sql = "select id from list"\n', SQL),
         says="cards/mine/card.toml: list 'some': columns id, expected source, source_id"),
    # -- names that are not there
    Case(input="nothing is built", stage="overlaps", exit=2, damage=shutil.rmtree,
         says="manifests: nothing is built there; without --train the six training sets"),
    Case(input="nothing is built", stage="clean", exit=2, damage=shutil.rmtree,
         says="manifests: nothing is built there; without --train the six training sets"),
    Case(input="nothing is built", stage="verify", exit=2, damage=shutil.rmtree,
         says="manifests: nothing is built there, expected <dataset>/clips.parquet — run: curate fetch --from"),
    Case(input="an unknown dataset", stage="overlaps", exit=2, command=("overlaps", "--test", "vggsond"),
         says="unknown dataset 'vggsond', expected one of: audiocaps, audioset"),
    Case(input="an unknown list", stage="overlaps", exit=2, command=("overlaps", "--test", "vggsound@mm"),
         says="unknown list 'vggsound@mm', expected one of: vggsound@official, vggsound@mmaudio"),
    Case(input="a list whose file was not there", stage="overlaps", exit=2,
         command=("overlaps", "--test", "vggsound@mmaudio"),
         says="vggsound@mmaudio has no clips in manifests: the file of that list was not there"),
    Case(input="an unknown training set", stage="clean", exit=2, command=("clean", "--train", "freesond"),
         says="unknown dataset 'freesond', expected one of: audiocaps, audioset"),
    Case(input="a dataset that is not built", stage="clean", exit=2, command=("clean", "--test", "esc50"),
         says="esc50 is not built in manifests, expected esc50/clips.parquet"),
    Case(input="no name at all", stage="overlaps", exit=2, command=("overlaps", "--test", ","),
         says="Invalid value for '--test': is empty, expected names separated by commas"),
    Case(input="NaN for a margin", stage="overlaps", exit=2, command=("overlaps", "--margin", "nan"),
         says="Invalid value for '--margin': 'nan', expected a number of seconds"),
    Case(input="a path for `--name`", stage="clean", exit=2, command=("clean", "--name", "../x"),
         says="--name '../x', expected lower case letters, digits and _"),
    Case(input="an unknown clean manifest", stage="verify", exit=2, command=("verify", "papre"),
         says="no clean manifest 'papre', expected one of: paper"),
    Case(input="an unknown clean manifest", stage="blame", exit=2,
         command=("blame", "4PjEi5fFD6A", "--name", "../../x"),
         says="no clean manifest '../../x', expected one of: paper"),
    Case(input="a clip that is nowhere", stage="blame", exit=2, command=("blame", "../../x"),
         says="'../../x': no built manifest has such a clip (read as a clip_id)"),
    Case(input="an id that begins with -", stage="blame", exit=0,
         act=asked_about("---g-f_I2yQ", "-Aa4M484QMc", "--0PQM4-hqg"),
         says="--0PQM4-hqg: read as youtube:--0PQM4-hqg"),
    Case(input="`clean/NAME` was made with other options", stage="clean", exit=12, act=one_after_another,
         says="clean/paper: was made with other options (match was id, now interval)"),
    # -- built files that were changed
    Case(input="Parquet of zero bytes", stage="overlaps", exit=13,
         damage=rewritten("vggsound/clips.parquet", lambda content: b""),
         says="vggsound/clips.parquet: 0 bytes, build completed it with"),
    Case(input="Parquet cut off", stage="overlaps", exit=13,
         damage=rewritten("vggsound/clips.parquet", lambda content: content[:-10]),
         says="vggsound/clips.parquet: "),
    Case(input="Parquet without footer, of the same size", stage="overlaps", exit=1,
         damage=rewritten("vggsound/clips.parquet", no_footer),
         says="vggsound/clips.parquet: cannot be read as Parquet (Invalid Input Error: No magic bytes"),
    Case(input="text of the same size in place of Parquet", stage="overlaps", exit=1,
         damage=rewritten("vggsound/clips.parquet", same_size_text),
         says="vggsound/clips.parquet: cannot be read as Parquet (Invalid Input Error: No magic bytes"),
    Case(input="Parquet without footer, of the same size", stage="blame", exit=1,
         damage=rewritten("vggsound/clips.parquet", no_footer),
         says="manifests: a built file cannot be read (Invalid Input Error: No magic bytes"),
    Case(input="another manifest in its place", stage="overlaps", exit=13,
         damage=lambda manifests: shutil.copy(manifests / "audioset" / "clips.parquet",
                                              manifests / "vggsound" / "clips.parquet"),
         says="vggsound/clips.parquet: "),
    Case(input="a manifest is gone", stage="overlaps", exit=13,
         damage=lambda manifests: (manifests / "vggsound" / "clips.parquet").unlink(),
         says="vggsound/clips.parquet: 0 bytes, build completed it with"),
    Case(input="one bit of a manifest changed", stage="clean", exit=13,
         damage=rewritten("vggsound/clips.parquet", one_bit),
         says="vggsound/clips.parquet: sha256 is "),
    Case(input="one bit of a manifest changed", stage="verify", exit=13,
         damage=rewritten("vggsound/clips.parquet", one_bit),
         says="vggsound/clips.parquet: sha256 is "),
    Case(input="one bit of a manifest changed: made anew", stage="build", exit=0, command=("build", "vggsound"),
         damage=rewritten("vggsound/clips.parquet", one_bit), says="7 rows = 7 kept"),
    Case(input="one bit of the published evidence changed", stage="clean", exit=13,
         damage=rewritten("vggsound/evidence.parquet", one_bit),
         says="vggsound/evidence.parquet: sha256 is "),
    Case(input="the published evidence is gone", stage="overlaps", exit=13,
         damage=lambda manifests: (manifests / "vggsound" / "evidence.parquet").unlink(),
         says="vggsound/evidence.parquet: 0 bytes, build completed it with"),
    *(
        Case(input="text in place of duplicates.parquet", stage=stage, exit=1,
             damage=lambda manifests: (manifests / "duplicates.parquet").write_bytes(b"no Parquet"),
             says="duplicates.parquet: cannot be read as Parquet (Invalid Input Error")
        for stage in ("overlaps", "clean")
    ),
    Case(input="a completion record that is no JSON", stage="overlaps", exit=13,
         damage=rewritten("vggsound/build.json", lambda content: content[:40]),
         says="vggsound/build.json: not the record that build wrote, expected JSON with the digest"),
    Case(input="a completion record with another count", stage="verify", exit=13,
         damage=rewritten("vggsound/build.json", lambda content: content.replace(b'"kept": 7', b'"kept": 8')),
         says="vggsound/build.json: not the record that build wrote, expected JSON with the digest"),
    Case(input="a completion record that lost a key: made anew", stage="build", exit=0,
         damage=rewritten("vggsound/build.json", without_key("outputs")), command=("build", "vggsound"),
         says="7 rows = 7 kept"),
    Case(input="one bit of kept.parquet changed", stage="verify", exit=13,
         damage=rewritten("clean/paper/kept.parquet", one_bit),
         says="clean/paper/kept.parquet: sha256 is "),
    Case(input="excluded.parquet is gone", stage="verify", exit=13,
         damage=lambda manifests: (manifests / "clean" / "paper" / "excluded.parquet").unlink(),
         says="clean/paper/excluded.parquet: sha256 is missing"),
    Case(input="one digit of a certificate changed", stage="verify", exit=13,
         damage=rewritten("clean/paper/certificate.json", one_digit),
         says="clean/paper/certificate.json: its digest does not match its content"),
    Case(input="a certificate that lost a key", stage="verify", exit=13,
         damage=rewritten("clean/paper/certificate.json", without_key("not_covered")),
         says="clean/paper/certificate.json: its digest does not match its content"),
    Case(input="a certificate that is no JSON", stage="verify", exit=13,
         damage=rewritten("clean/paper/certificate.json", lambda content: b"{"),
         says="clean/paper/certificate.json: not JSON"),
    Case(input="one digit of a certificate changed", stage="blame", exit=13,
         damage=rewritten("clean/paper/certificate.json", one_digit),
         says="clean/paper/certificate.json: its digest does not match its content"),
    Case(input="a certificate that is no JSON: made anew", stage="clean", exit=0,
         damage=rewritten("clean/paper/certificate.json", lambda content: b"{"),
         says="clean/paper: 17 rows = 11 kept + 6 dropped"),
    # -- sql
    Case(input="COPY", stage="sql", exit=2, command=("sql", "copy (select 1) to 'x.csv'"),
         says="\"copy (select 1) to 'x.csv'\": expected exactly one SELECT, nothing else"),
    Case(input="COPY inside a SELECT", stage="sql", exit=2,
         command=("sql", "with x as (copy (select 1) to 'x.csv') from x"),
         says=": Binder Error: WITH clause containing a COPY statement must be at the top level"),
    Case(input="a function that runs a statement", stage="sql", exit=2,
         command=("sql", "from json_execute_serialized_sql(json_serialize_sql('select 1'))"),
         says=": calls a function that runs other statements"),
    Case(input="two statements", stage="sql", exit=2, command=("sql", "select 1; select 2"),
         says="'select 1; select 2': expected exactly one SELECT, nothing else"),
    Case(input="a setting", stage="sql", exit=2, command=("sql", "set enable_external_access = true"),
         says="'set enable_external_access = true': expected exactly one SELECT, nothing else"),
    Case(input="a file outside the manifests", stage="sql", exit=2,
         command=("sql", "from read_text('/etc/hostname')"),
         says=': Permission Error: Cannot access file "/etc/hostname"'),
    Case(input="an address", stage="sql", exit=2, command=("sql", "from read_csv('http://127.0.0.1:9/x')"),
         says=": Permission Error: Cannot access file"),
    Case(input="an unknown column", stage="sql", exit=2, command=("sql", "select colour from clips"),
         says="'select colour from clips': Binder Error: Referenced column"),
    Case(input="no SQL", stage="sql", exit=2, command=("sql", ""), says="'': expected exactly one SELECT"),
    Case(input="parquet on standard output", stage="sql", exit=2,
         command=("sql", "from clips", "--format", "parquet"),
         says="--format parquet is no text, expected --out FILE with it"),
    Case(input="nothing is built", stage="sql", exit=2, damage=shutil.rmtree, command=("sql", "select 1"),
         says="manifests: nothing is built there"),
    Case(input="Parquet without footer, of the same size", stage="sql", exit=1,
         damage=rewritten("vggsound/clips.parquet", no_footer), command=("sql", "from vggsound"),
         says="manifests: no view clips: Invalid Input Error: No magic bytes"),
    # -- export
    Case(input="an unknown name", stage="export", exit=2,
         command=("export", "vggsond", "--to", "ids", "--out", "METADATA/ids"),
         says="unknown dataset 'vggsond', expected one of: audiocaps, audioset"),
    Case(input="an unknown clean manifest", stage="export", exit=2,
         command=("export", "clean/papre", "--to", "ids", "--out", "METADATA/ids"),
         says="no clean manifest 'papre', expected one of: paper"),
    Case(input="a dataset that is not built", stage="export", exit=2,
         command=("export", "esc50/fold1", "--to", "ids", "--out", "METADATA/ids"),
         says="esc50/fold1: esc50 is not built in manifests, expected"),
    Case(input="a folder that export did not make", stage="export", exit=2,
         act=exported("clean/paper", "--to", "huggingface"),
         says="--out mine: is there, and export did not make "),
    Case(input="one bit of a manifest changed", stage="export", exit=13,
         damage=rewritten("vggsound/clips.parquet", one_bit),
         command=("export", "vggsound", "--to", "ids", "--out", "METADATA/ids"),
         says="vggsound/clips.parquet: sha256 is "),
    Case(input="one bit of kept.parquet changed", stage="export", exit=13,
         damage=rewritten("clean/paper/kept.parquet", one_bit),
         command=("export", "clean/paper", "--to", "mmaudio", "--out", "METADATA/out"),
         says="clean/paper/kept.parquet: sha256 is "),
    Case(input="no space", stage="export", exit=14, around=full_disk,
         command=("export", "clean/paper", "--to", "croissant", "--out", "METADATA/out"),
         says=": no space left on the disk"),
    # -- clean --extracted
    Case(input="features: no such tsv", stage="clean", exit=2,
         act=with_features(lambda folder: folder.with_suffix(".tsv").unlink()),
         says=": no such file, expected a tsv with a column id"),
    Case(input="features: no dataset named", stage="clean", exit=2,
         act=with_features(lambda folder: None, "x.tsv"),
         says="Invalid value for '--extracted': 'x.tsv', expected DATASET=FILE"),
    Case(input="features: other rows in the tsv than in the tensors", stage="clean", exit=1,
         act=with_features(lambda folder: folder.with_suffix(".tsv").write_text("id\na\n")),
         says="features/x: mean has shape [2, 3], expected 1 rows"),
    Case(input="features: a tensor cut off", stage="clean", exit=1,
         act=with_features(lambda folder: os.truncate(folder / "mean.memmap", 20)),
         says="features/x: mean.memmap has 20 bytes, expected 24 bytes"),
    Case(input="features: meta.json is no JSON", stage="clean", exit=1,
         act=with_features(lambda folder: (folder / "meta.json").write_text("{")),
         says="features/x: meta.json cannot be read"),
    Case(input="features: a tensor named as a path", stage="clean", exit=1,
         act=with_features(lambda folder: (folder / "meta.json").write_text('{"../x": {"shape": [2]}}')),
         says="features/x: '../x' has dtype None and shape [2], expected tensors of numbers"),
    Case(input="features: ids that no clip has", stage="clean", exit=0,
         act=with_features(lambda folder: None), says="x.tsv: 2 rows = 0 kept + 0 dropped + 2 unknown"),
    # -- folders
    Case(input="a manifests folder named `it's two \"words\" é`", stage="all of them", exit=0,
         act=in_a_folder_named("it's two \"words\" é"), says="1 row = 1 dropped"),
    Case(input="a manifests folder named `$(id); -x \\ ~ {a,b}`", stage="all of them", exit=0,
         act=in_a_folder_named("$(id); -x \\ ~ {a,b}"), says="1 row = 1 dropped"),
    Case(input="a manifests folder named `m*`, `m?` or `[m]m`, which DuckDB takes for a pattern",
         stage="build", exit=2, act=in_a_folder_named("m*"), says="'m*' holds one of * ? [, which make it a pattern"),
    Case(input="a manifests folder that is a symlink", stage="build", exit=0, act=through_a_link,
         says="7 rows = 7 kept"),
    Case(input="`--manifests` is a file", stage="build", exit=2, act=in_a_file,
         says="Invalid value for '--manifests': Directory"),
    Case(input="`--manifests` lies below a file", stage="build", exit=1, act=below_a_file,
         says="metadata/vggsound/vggsound.csv/below: Not a directory; expected a place that can be read and"),
    Case(input="the disk is read-only", stage="build", exit=1, around=read_only_disk,
         says=".lock: Read-only file system; expected a place that can be read and written"),
    Case(input="a folder in place of a built file", stage="clean", exit=1,
         damage=lambda manifests: (manifests / "overlaps.parquet").mkdir(),
         says="overlaps.parquet: Is a directory; expected a place that can be read and written"),
    # -- other processes, signals, full disks
    Case(input="another process holds the lock", stage="fetch", exit=11, around=locked_elsewhere,
         says="manifests: another process is working on these manifests"),
    Case(input="another process holds the lock", stage="overlaps", exit=11, around=locked_elsewhere,
         says="manifests: another process is working on these manifests"),
    Case(input="another process holds the lock", stage="clean", exit=11, around=locked_elsewhere,
         says="manifests: another process is working on these manifests"),
    Case(input="two builds at once", stage="build", exit=11, files={A: many_segments()}, act=second_build,
         says="manifests: another process is working on these manifests"),
    Case(input="SIGINT", stage="build", exit=130, files={A: many_segments()},
         act=interrupted_by(signal.SIGINT), says="interrupted; run the same command again to continue"),
    Case(input="SIGTERM", stage="build", exit=130, files={A: many_segments()},
         act=interrupted_by(signal.SIGTERM), says="interrupted; run the same command again to continue"),
    Case(input="no space", stage="fetch", exit=14, around=full_disk, says=": no space left on the disk"),
    Case(input="no space", stage="build", exit=14, around=full_disk, says=": no space left on the disk"),
    Case(input="no space", stage="clean", exit=14, around=full_disk, says=": no space left on the disk"),
    Case(input="no space where standard output goes", stage="datasets", exit=14, act=to_a_full_device,
         says="standard output: no space left on the disk"),
    Case(input="nobody reads the output (`| head -0`)", stage="datasets", exit=0, act=reader_left("datasets"),
         says="next: curate overlaps"),
    Case(input="nobody reads the output, and sets overlap", stage="overlaps", exit=10,
         act=reader_left("overlaps", "--fail-on-overlap", "--json"), says="next: curate clean --test"),
]  # fmt: skip
