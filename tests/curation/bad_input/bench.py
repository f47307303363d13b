"""Where a case of bad input is run: a folder with metadata, cards and manifests, and full disks."""

import contextlib
import errno
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from curation.cli import curate
from curation.console import run


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
        name = 2 if words[0] == "card" else 1  # words of the command's name
        return [*filled[:name], *folders, *filled[name:]]

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
