"""What bad input gets: one list of cases, each of which is run here and printed in curation/README.md.

A case changes something (a metadata file before `fetch`, a card, a built file, the surroundings),
runs one command, and states the exit code and the first words of what the user reads. Whatever
happens, no temporary file stays, nothing is half written, and the run after the repair works.

`python tests/curation/test_bad_input.py` prints the table for the README.
"""

# ruff: noqa: E501 - the cases are a table: one to three lines each read better than five

import contextlib
import csv
import errno
import fcntl
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from curation.cli import curate, run
from curation.tables import render

README = Path(__file__).resolve().parents[2] / "curation" / "README.md"
BEGIN, END = "<!-- bad input -->\n", "<!-- /bad input -->"

# ---- the whole files, in miniature ------------------------------------------------------------------

VGGSOUND = """\
---g-f_I2yQ,1,people marching,test
FhaYvI1yrUM,60,skateboarding,test
--0PQM4-hqg,30,waterfall burbling,train
4PjEi5fFD6A,0,skateboarding,train
--56QUhyDQM,185,playing tennis,train
--9O4XZOge4,30,"female speech, woman speaking",train
-Aa4M484QMc,40,"café, crowd",train
"""
AUDIOSET = """\
# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=5, num_segs=5, num_unique_labels=527, num_positive_labels=9
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
--ZhevVpy1s, 0.000, 10.000, "/m/012xff"
---g-f_I2yQ, 0.000, 9.000, "/m/03fwl,/m/04rlf,/m/09x0r,/m/012xff"
--0PQM4-hqg, 30.000, 40.000, "/m/03fwl"
--aE2O5G5WE, 10.500, 20.500, "/m/03fwl"
"""
AUDIOCAPS = """\
audiocap_id,youtube_id,start_time,caption
97151,--0PQM4-hqg,30,"A waterfall, and a café"
97152,--PJHxphWEs,30,A person “speaks”
97153,--ZhevVpy1s,0,Brushing of teeth
"""
AVSYNC15 = """\
vid,label,split
--0PQM4-hqg_000030_000040_1.0_2.0,waterfall,test
--9O4XZOge4_000030_000040_6.5_9.5,speech,train
--56QUhyDQM_000185_000195_0.0_4.0,tennis,train
"""
CLOTHO = """\
file_name,caption_1,caption_2,caption_3,caption_4,caption_5
Distorted AM Radio noise.wav,a,b,c,d,e
Paper_Parchment_Rustling.wav,a,b,c,d,e
"""
WAVCAPS = json.dumps(
    {
        "num_captions_per_audio": 1,
        "data": [
            {"title": "Dog", "author": "Mike", "caption": "A dog barks.", "id": "2219", "duration": 1.5},
            {"title": "Bell", "author": "Zoë", "caption": "A bell rings.", "id": "2218", "duration": 2},
            {"title": "Rain", "author": "", "caption": "Rain falls.", "id": "17", "duration": 9.25},
        ],
    },
    ensure_ascii=False,
)
V, A, C = "vggsound/vggsound.csv", "audioset/balanced_train_segments.csv", "audiocaps/dataset/test.csv"
S, K = "avsync15/asva_metadata.csv", "clotho/clotho_captions_development.csv"
W = "wavcaps/json_files/SoundBible/sb_final.json"
WHOLE: dict[str, str | bytes] = {
    V: VGGSOUND, A: AUDIOSET, C: AUDIOCAPS, S: AVSYNC15, K: CLOTHO, W: WAVCAPS,
}  # fmt: skip
TOML = """\
title = "Mine"
homepage = "-"
citation = "-"
metadata_licence = "-"
media_licence = "-"
[files.list]
path = "list.csv"
url = "-"
columns = ["id", "start"]
[splits.train]
role = "train"
"""
SQL = "select id as clip_id, 'train' as split, 'local' as source, id as source_id, file, row from list"
LIST = '[[lists]]\nname = "some"\ntitle = "-"\n'
TEXT_OF = "select content as clip_id, 'train' as split, 'local' as source, '1' as source_id, "
TEXT_OF += "'x' as file, 1 as row from read_text('{}')"
# ids that are paths, options, commands, SQL, terminal codes, or equal to the eye
HOSTILE = [
    "../../x", "/etc/passwd", "-rf", "--help", "$(id)", "`id`", "; drop table clips", "a'b", 'a"b',
    "''", "*", "%s%n", "{id}", "two\nlines", "nul\0byte", "\x1b[2J", "\u202egpj.exe", "x" * 300,
    "caf\u00e9", "cafe\u0301", "😀",
]  # fmt: skip


def cells(text: str) -> list[list[str]]:
    """The rows of a miniature, comments left out, every cell without blanks around it."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [[cell.strip() for cell in row] for row in csv.reader(lines, skipinitialspace=True)]


def saved(
    rows: list[list[str]], *, delimiter: str = ",", quoting: Any = csv.QUOTE_MINIMAL, end: str = "\n"
) -> str:
    """The rows as a spreadsheet writes them."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    return out.getvalue()


def whole_numbers(rows: list[list[str]]) -> list[list[str]]:
    """`0.000` as `0`, `10.500` as `10.5`."""
    return [
        [f"{float(c):g}" if re.fullmatch(r"\d+\.\d+", c) else c for c in row] for row in rows
    ]  # fmt: skip


AUDIOSET_ROWS = whole_numbers(cells(AUDIOSET))
AUDIOSET_HEADER = [["# YTID", "start_seconds", "end_seconds", "positive_labels"]]
VGGSOUND_ROWS, AUDIOCAPS_ROWS = cells(VGGSOUND), cells(AUDIOCAPS)
VGGSOUND_HEADER = [["youtube_id", "start", "label", "split"]]
CLOTHO_OF_HOSTILE = saved([*cells(CLOTHO)[:1], *([name, *"abcde"] for name in HOSTILE)])


# ---- where a case is run ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command gave back."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Bench:
    """A folder with metadata, cards and manifests, and `curate` over them."""

    folder: Path
    manifests: Path = field(init=False)

    def __post_init__(self) -> None:
        self.manifests = self.folder / "manifests"
        self.metadata.mkdir(parents=True, exist_ok=True)

    @property
    def metadata(self) -> Path:
        return self.folder / "metadata"

    @property
    def cards(self) -> Path:
        return self.folder / "cards"

    def put(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write metadata files; None removes one."""
        for name, content in files.items():
            path = self.metadata / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def arguments(self, words: tuple[str, ...]) -> list[str]:
        """The words of a command line with the folders of this bench filled in."""
        filled = [str(word).replace("METADATA", str(self.metadata)) for word in words]
        folders = ["--manifests", str(self.manifests)]
        if self.cards.is_dir():
            folders += ["--cards", str(self.cards)]
        return [filled[0], *folders, *filled[1:]]

    def curate(self, *words: str) -> Outcome:
        """Run a command in this process."""
        out, err, former = io.StringIO(), io.StringIO(), (sys.argv, signal.getsignal(signal.SIGTERM))
        sys.argv = ["curate", *self.arguments(words)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(curate, "curate")
        finally:
            sys.argv = former[0]
            signal.signal(signal.SIGTERM, former[1])
        return Outcome(code, out.getvalue(), err.getvalue())

    def done(self, *words: str) -> Outcome:
        """Run a command that must work."""
        outcome = self.curate(*words)
        assert outcome.code == 0, (words, outcome)
        return outcome

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        """Run a command in a process of its own."""
        command = [sys.executable, "-c", "from curation.cli import main; main()"]
        return subprocess.Popen(
            [*command, *self.arguments(words)],
            **{"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def rows(self, dataset: str) -> list[dict[str, Any]]:
        """The rows of a built dataset."""
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(
            self.manifests / dataset / "clips.parquet", partitioning=None
        ).to_pylist()
        return rows

    def files(self) -> dict[str, bytes]:
        """Every lasting file below the manifests folder; what is outside the promise is left out."""
        outside = {".lock", "manifests.duckdb", "fetched.json"}
        return {
            str(path.relative_to(self.manifests)): path.read_bytes()
            for path in sorted(self.manifests.rglob("*"))
            if path.is_file() and path.name not in outside
        }

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.manifests.rglob("*") if ".tmp-" in path.name]

    def shown(self, outcome: Outcome) -> list[str]:
        """What the user reads: lines, and the parts of summaries, with no folder of this machine."""
        text = outcome.out + outcome.err
        for path in (self.manifests, self.folder, Path.cwd()):
            text = text.replace(f"{path}/", "")
        text = re.sub(r"^(?:curate|failed|note|Error): ", "", text, flags=re.M)
        lines = text.splitlines()
        return lines + [part for line in lines for part in re.split(r"; |\s{2,}", line)]


class FillingUp:
    """A disk that is full from the n-th write on: COPY, fsync, rename, JSON; `calls` counts them."""

    def __init__(self, *, after: int) -> None:
        self.after, self.calls = after, 0
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> "FillingUp":
        import duckdb

        connect, write_text = duckdb.connect, Path.write_text
        for name in ("fsync", "replace"):
            self._patch.setattr(os, name, self._counted(getattr(os, name)))
        self._patch.setattr(duckdb, "connect", lambda *a, **k: _Connection(connect(*a, **k), self))
        self._patch.setattr(Path, "write_text", self._counted(write_text))
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.undo()

    def full(self) -> bool:
        self.calls += 1
        return self.calls >= self.after

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.full():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **options)

        return call


class _Connection:
    """A DuckDB connection whose COPY leaves half a file when the disk is full."""

    def __init__(self, db: Any, disk: FillingUp) -> None:
        self._db, self._disk = db, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *rest: Any) -> Any:
        target = re.search(r"^copy .* to '((?:[^']|'')+)'", sql, flags=re.S)
        if target and self._disk.full():
            import duckdb

            Path(target[1].replace("''", "'")).write_bytes(b"PAR1 and no more")
            raise duckdb.IOException(f'Could not write file "{target[1]}": No space left on device')
        return self._db.execute(sql, *rest)


# ---- the cases --------------------------------------------------------------------------------------


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
        pytest.skip("this system has no /dev/full (issue 2)")
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
         says="fetching over the network is not there yet, expected --from DIR"),
    Case(input="an unknown dataset", stage="fetch", exit=2,
         command=("fetch", "vggsond", "--from", "METADATA"),
         says="unknown dataset 'vggsond', expected one of: audiocaps, audioset"),
    Case(input="a metadata file is missing", stage="fetch", exit=0, files={V: None},
         says="absent: vggsound/vggsound.csv"),
    Case(input="metadata that the card does not know", stage="fetch", exit=0,
         says="38 files = 6 fetched (6 unrecognised copies) + 32 absent + 0 failed"),
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
         command=("build",), says="9 datasets = 5 built + 4 without files + 0 failed"),
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
    # -- folders
    Case(input="a manifests folder named `it's two \"words\" é`", stage="all of them", exit=0,
         act=in_a_folder_named("it's two \"words\" é"), says="1 rows = 1 dropped"),
    Case(input="a manifests folder named `$(id); -x \\ ~ {a,b}`", stage="all of them", exit=0,
         act=in_a_folder_named("$(id); -x \\ ~ {a,b}"), says="1 rows = 1 dropped"),
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


# ---- the tests --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The miniatures, built, with the clean manifest `paper`; tests work on copies."""
    bench = Bench(tmp_path_factory.mktemp("ready"))
    bench.put(WHOLE)
    for words in (("fetch", "--from", "METADATA"), ("build",), ("clean", "--name", "paper")):
        bench.done(*words)
    (bench.manifests / "overlaps.parquet").unlink()
    return bench


@pytest.fixture
def bench(ready: Bench, tmp_path: Path) -> Bench:
    """The metadata of what is ready."""
    shutil.copytree(ready.metadata, tmp_path / "bench" / "metadata")
    return Bench(tmp_path / "bench")


def prepare(case: Case, ready: Bench, bench: Bench) -> None:
    """Everything before the command of the case."""
    bench.put(case.files)
    if not (case.files or case.card or case.stage == "fetch"):
        shutil.copytree(ready.manifests, bench.manifests, symlinks=True)
    if case.card:
        folder = bench.cards / "mine"
        folder.mkdir(parents=True)
        for name, text in zip(("card.toml", "clips.sql"), case.card, strict=True):
            if text is not None:
                (folder / name).write_text(text)
        raw = bench.manifests / "mine" / "raw"
        raw.mkdir(parents=True)
        (raw / "list.csv").write_text("id,start\na,1\nb,2\n")
    elif case.files and case.stage != "fetch":
        chosen = () if case.command else (case.dataset,)
        bench.done("fetch", *chosen, "--from", "METADATA")
    if case.around and case.stage == "build":
        (bench.manifests / "vggsound" / "build.json").unlink()
    if case.damage:
        case.damage(bench.manifests)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.stage}: {case.input}")
def test_input_gets_what_the_table_says(case: Case, ready: Bench, bench: Bench) -> None:
    prepare(case, ready, bench)
    with case.around(bench) if case.around else contextlib.nullcontext():
        outcome = case.act(bench) if case.act else bench.curate(*case.words())
    shown = bench.shown(outcome)
    assert outcome.code == case.exit, "\n".join(shown)
    assert any(
        line.startswith(case.says) or (case.says[0] == ":" and case.says in line) for line in shown
    ), "\n".join(shown)
    assert "Traceback" not in outcome.err
    assert not bench.leftovers()
    if case.same:
        assert bench.rows(case.dataset) == ready.rows(case.dataset)
    if case.exit != 0 and case.files:
        repair(case, ready, bench)


def repair(case: Case, ready: Bench, bench: Bench) -> None:
    """The whole file put back, the next run works and makes what an undisturbed one makes."""
    bench.put({name: WHOLE.get(name) for name in case.files})
    bench.done("fetch", case.dataset, "--from", "METADATA")
    bench.done("build", case.dataset)
    assert bench.rows(case.dataset) == ready.rows(case.dataset)


def test_readme_holds_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert table() in text, f"stale: put the output of {Path(__file__).name} between the marks"


def table() -> str:
    """The section of curation/README.md between its two marks."""
    rows = [[case.input, f"`{case.stage}`", case.exit, _quoted(case.says)] for case in CASES]
    text = render(["input", "stage", "exit", "first words, or what is recorded"], rows, "markdown")
    return f"{BEGIN}{text}\n{END}"


def _quoted(says: str) -> str:
    mark = "``" if "`" in says else "`"
    return f"{mark}{says.strip(': ')}{mark}"


def test_hostile_names_go_through_every_stage_as_data(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench")
    bench.put({**WHOLE, K: CLOTHO_OF_HOSTILE})
    before = {path for path in tmp_path.rglob("*") if bench.manifests not in path.parents}
    for words in (("fetch", "--from", "METADATA"), ("build",), ("overlaps",), ("clean",), ("verify",)):
        bench.done(*words)
    names = [row["clip_id"] for row in bench.rows("clotho")]
    assert names == [f"development/{name}" for name in HOSTILE]
    for name in names:
        outcome = bench.done("blame", "--", f"clotho/{name}")
        assert "1 rows = 1 kept" in outcome.out
        assert outcome.out.count("\n") == 4, "an id ended a line"
        assert not set(outcome.out) & {"\x1b", "\0", "\u202e"}
    after = {path for path in tmp_path.rglob("*") if bench.manifests not in path.parents}
    assert after == before | {bench.manifests}
    allowed = re.compile(r"[a-z0-9_./]+|raw/.*|[a-z0-9_]+/raw/.*|\.lock")
    for path in bench.manifests.rglob("*"):
        assert allowed.fullmatch(str(path.relative_to(bench.manifests))), path


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fetch", "build", "overlaps", "clean"])
def test_disk_that_fills_up_at_any_write_leaves_whole_files_and_the_next_run_works(
    stage: str, ready: Bench, tmp_path: Path
) -> None:
    """For every n: full at the n-th write; each file is as before or as after, none in between."""

    def prepared(name: str) -> Bench:
        shutil.copytree(ready.folder, tmp_path / name)
        bench = Bench(tmp_path / name)
        if stage == "fetch":
            shutil.rmtree(bench.manifests)
        elif stage == "build":
            (bench.manifests / "avsync15" / "build.json").unlink()
        return bench

    words = {
        "fetch": ("fetch", "vggsound", "audiocaps", "--from", "METADATA"),
        "build": ("build", "avsync15"),
        "overlaps": ("overlaps",),
        "clean": ("clean", "--name", "paper"),
    }[stage]
    unbroken = prepared("unbroken")
    before = unbroken.files()
    unbroken.done(*words)
    after = unbroken.files()
    for n in range(1, 200):
        bench = prepared(f"full-{n}")
        with FillingUp(after=n) as disk:
            outcome = bench.curate(*words)
        if disk.calls < n:
            assert outcome.code == 0
            break
        assert outcome.code == 14, (n, outcome)
        assert "no space left on the disk; nothing was half written" in outcome.err
        assert not bench.leftovers(), n
        for name, content in bench.files().items():
            assert content in (before.get(name), after.get(name)), (n, name)
        bench.done(*words)
        assert bench.files() == after, n
        shutil.rmtree(bench.folder)
    else:
        pytest.fail("the command never came to its end")
    assert n > 3, "no write was met"


@pytest.mark.slow
def test_small_disk_ends_in_exit_14_and_works_once_it_is_larger(ready: Bench, tmp_path: Path) -> None:
    """The real thing, where this user may mount a disk in memory; the test above runs everywhere."""
    disk = tmp_path / "disk"
    disk.mkdir()
    bench = Bench(tmp_path / "bench")
    bench.put(WHOLE)
    met = set()
    for kib in (12, 20, 40, 80, 160, 320):
        with mounted(disk, kib):
            bench.manifests = disk / "manifests"
            for words in (("fetch", "--from", "METADATA"), ("build",), ("clean", "--name", "paper")):
                outcome = bench.curate(*words)
                assert outcome.code in (0, 14), outcome
                assert not bench.leftovers()
                if outcome.code == 14:
                    met.add(words[0])
                    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
                    bench.done(*words)
            bench.done("verify")
            expected = {n: c for n, c in ready.files().items() if n != "overlaps.parquet"}
            found = {n: c for n, c in bench.files().items() if n != "overlaps.parquet"}
            assert found == expected, kib
    assert met >= {"fetch", "build"}, met


@contextlib.contextmanager
def mounted(folder: Path, kib: int) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs (issue 2)")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


if __name__ == "__main__":
    print(table())
