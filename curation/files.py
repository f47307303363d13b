"""Files that are never half written, one writer per folder, and what a full disk means.

Everything that lasts is written to `<name>.tmp-<pid>` beside its target, fsynced and renamed; what
a killed process left behind under such a name is swept by the next one that holds the lock. The
names of living processes stay: readers spill without the lock.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curation.errors import Locked, NoSpace, NotWritable, UsageProblem

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENOTEMPTY, errno.ENAMETOOLONG,
)  # fmt: skip
_LOOKS_S = 0.1  # how often one looks whether a lock is free
# A folder that was replaced is `<name>.former.tmp-<pid>` until the new one is in its place.
_TEMPORARY = re.compile(r"(?P<former>\.former)?\.tmp-(?P<pid>[0-9]+)$")


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of the bytes of `path`."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spare blanks and no escapes: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest_of(document: dict[str, Any]) -> str:
    """`sha256:…` of a document's canonical JSON without its key `digest`, which is where it goes."""
    rest = {key: value for key, value in document.items() if key != "digest"}
    return "sha256:" + hashlib.sha256(canonical_json(rest).encode()).hexdigest()


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its name when the block ends without an error.

    Raises:
        NoSpace: the disk filled up; `target` is as it was.
        NotWritable: the system refuses a file or folder there.
    """
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        with disk_space(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            fsync(temporary)
            os.replace(temporary, target)
            fsync(target.parent)
    finally:
        remove(temporary)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Like `replacing`, for a folder of files: it appears whole or not at all.

    Between its two renames the folder is missing; whoever dies there leaves the former one to `sweep`.
    """
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    former = target.with_name(f"{target.name}.former.tmp-{os.getpid()}")
    try:
        with disk_space(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _settle(former, target)
            remove(temporary)
            temporary.mkdir()
            yield temporary
            for path in temporary.iterdir():
                fsync(path)
            fsync(temporary)
            if target.exists():
                os.replace(target, former)
            os.replace(temporary, target)
            fsync(target.parent)
    finally:
        remove(temporary)
        _settle(former, target)


def _settle(former: Path, target: Path) -> None:
    """Put a former folder back where no new one took its place, else remove it."""
    if former.is_dir() and not target.exists():
        with contextlib.suppress(OSError):  # it stays under its name, for the next sweep
            former.rename(target)
    else:
        remove(former)


@contextlib.contextmanager
def staged(folder: Path, *, last: str) -> Iterator[Path]:
    """A temporary folder whose files take their places in `folder` when the block ends without error.

    Each file must be whole and fsynced by then, as `replacing` leaves it; `last` is the name of the
    completion record, which follows all others.
    """
    stage = folder / f"stage.tmp-{os.getpid()}"
    try:
        with disk_space(folder):
            remove(stage)
            stage.mkdir(parents=True)
            yield stage
            for path in sorted(stage.iterdir(), key=lambda path: (path.name == last, path.name)):
                os.replace(path, folder / path.name)
            fsync(folder)
    finally:
        remove(stage)


def outside(target: Path, manifests: Path, *, option: str) -> None:
    """Raise UsageProblem where what is written would lie among the manifests, and might replace one."""
    if target.resolve().is_relative_to(manifests.resolve()):
        raise UsageProblem(
            f"{option} {target}: lies in {manifests}, where it could replace a manifest, expected a "
            "place elsewhere — give another"
        )


def write_json(target: Path, value: Any) -> None:
    """Write `value` as readable JSON with sorted keys and a final newline, atomically."""
    with replacing(target) as temporary:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def disk_space(place: Path) -> Iterator[None]:
    """Turn "no space left" and "not allowed", from the system or from DuckDB, into our errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _no_space(place) from error
        if error.errno in _REFUSED:
            raise _not_writable(error.filename2 or error.filename or place, error) from error
        raise
    except Exception as error:  # duckdb is not imported here; its errors carry the text
        if says_full(error):
            raise _no_space(place) from error
        text = str(error)
        if type(error).__name__ == "IOException" and any(os.strerror(c) in text for c in _REFUSED):
            raise _not_writable(place, error) from error
        raise


def free_bytes(place: Path) -> int:
    """Room on the disk that a folder lies on, or will."""
    place = place.absolute()
    while not place.is_dir():
        place = place.parent
    return shutil.disk_usage(place).free


def says_full(error: Exception) -> bool:
    """Whether an error of DuckDB is about a full disk."""
    text = str(error)
    return "max_temp_directory_size" in text or any(os.strerror(code) in text for code in _FULL)


def _no_space(place: Path) -> NoSpace:
    return NoSpace(
        f"{place}: no space left on the disk; nothing was half written, expected room for it — "
        "free some space and run the same command again"
    )


def _not_writable(place: str | Path, error: Exception) -> NotWritable:
    why = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return NotWritable(
        f"{place}: {why}; expected a place that can be read and written — change what is there, or "
        "give another"
    )


@contextlib.contextmanager
def holding(lock: Path, *, patience_s: float = 0.0) -> Iterator[bool]:
    """Hold the lock of a file, which is made where it is missing; the kernel drops it with the process.

    False where another holds it, and keeps it for so long.
    """
    with disk_space(lock):
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError as error:  # a place where nothing can be made, such as /proc
            raise _not_writable(lock.parent, error) from error
    until_s = time.monotonic() + patience_s
    try:
        while not (taken := _taken(handle, lock)) and time.monotonic() < until_s:
            time.sleep(_LOOKS_S)
        yield taken
    finally:
        os.close(handle)


def _taken(handle: int, lock: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise NotWritable(
            f"{lock}: {error.strerror}; expected a disk whose files can be locked — give a place on "
            "another, or mount it with locks"
        ) from error
    return True


@contextlib.contextmanager
def locked(
    folder: Path,
    *,
    patience_s: float = 0.0,
    of: str = "these manifests",
    option: str = "--manifests",
    deep: bool = True,
) -> Iterator[None]:
    """Hold the one writer's lock of `folder`, swept.

    Args:
        patience_s: for another process that holds it.
        of: what lies there, and
        option: how another such folder is given, for the message.
        deep: see `sweep`.

    Raises:
        Locked: another process holds it.
    """
    with holding(folder / ".lock", patience_s=patience_s) as taken:
        if not taken:
            raise Locked(
                f"{folder}: another process is working on {of}, expected nobody — wait until it ends "
                f"and run the same command again, or use another {option}"
            )
        sweep(folder, deep=deep)
        yield


def sweep(folder: Path, *, deep: bool = True) -> None:
    """Remove what dead processes left under temporary names, and put former folders back.

    Which processes live, this machine alone knows of its own: below a folder that machines share, a
    sweep must not be deep, and the lock of whoever sweeps must be that of all who write there.

    Our own process id in a name is that of a dead process too: whoever holds the lock has not begun.
    """
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            found = _TEMPORARY.search(name)
            if found is None or _is_another_living(int(found["pid"])):
                continue
            path = Path(place, name)
            if found["former"]:
                _settle(path, path.with_name(name[: found.start()]))
            else:
                remove(path)
        folders[:] = [name for name in folders if deep and not _TEMPORARY.search(name)]


def _is_another_living(pid: int) -> bool:
    """Whether `pid` is a process that runs now, and is not this one."""
    if pid in (0, os.getpid()):  # to `kill`, 0 is a group
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):  # on a read-only disk, not even what is not there can be removed
        path.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Have the system write a file or folder to its disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
