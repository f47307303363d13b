"""Files over HTTP: resumed where they were cut off, and only from public addresses.

A file grows as `<name>.part` beside its target, with `<name>.part.json` saying of which version of
which address it is; it takes its name when it is whole and was looked at. Every address, that of a
redirect too, is resolved once, checked, and connected to as checked. One request at a time, with a
pause between two to the same host; what a server asks for with Retry-After is done, and one that
refuses every request, or asks to wait long, is not asked again in the same run.
"""

import http.client
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import curation
from curation.connection import Connection, is_public, no_address
from curation.errors import FoleyproofError, RemoteRefuses, TransferFailed
from curation.files import disk_space, remove, sha256_file, write_json
from curation.partfile import CHUNK_BYTES, about_part, forget, hashing, read_about, size_of, write_out

_Given = TypeVar("_Given")
_LONGEST_FILL_S = 0.2  # a buffer that fills slowly is passed on as it is
_WRITE_OUT_BYTES = 1 << 28
_MAX_REDIRECTS = 5
_REFUSED = (401, 402, 403, 407, 429, 451)
_REDIRECTS = (301, 302, 303, 307, 308)
_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+)")
_WHOLE = re.compile(r"bytes \*/([0-9]+)")


class _Broken(Exception):
    """One attempt failed and another may not: a connection that ended, a server that is busy."""

    def __init__(self, why: str, *, wait_s: float | None = None, refused: bool = False) -> None:
        super().__init__(why)
        self.wait_s, self.refused = wait_s, refused


class _Later(Exception):
    """The server asks to wait longer than a run may."""

    def __init__(self, said: str, wait_s: float) -> None:
        super().__init__(said)
        self.said, self.wait_s = said, wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What a server says of a file before it sends it."""

    size: int | None  # bytes
    version: str | None  # a strong ETag or the time of the last change; None: cannot be resumed


@dataclass(slots=True, kw_only=True)
class Transport:
    """How files are fetched; one for a run, because it knows when each host was asked last."""

    allow_private: bool = False  # loopback and private addresses: for tests, and for mirrors at home
    attempts: int = 5  # without one new byte in between
    timeout_s: float = 30.0  # without any byte
    pause_s: float = 0.5  # between two requests to one host
    by_hand: str = "--from"  # the option for files that were got by hand, which messages name
    backoff_s: float = 1.0  # after a first failure; doubled after each
    longest_wait_s: float = 300.0  # of a Retry-After: above it, the run ends
    slowest_bytes_per_s: float = 512.0  # below it for as long as the timeout: stalled
    sleep: Callable[[float], None] = time.sleep
    # told of a wait that a server asks for: its host, and seconds
    waiting: Callable[[str, float], None] = lambda host, wait_s: None
    _asked: dict[str, float] = field(default_factory=dict)  # when each host was asked last
    _closed: dict[str, str] = field(default_factory=dict)  # hosts that want no more of us, and why

    @classmethod
    def for_users(cls) -> "Transport":
        """As commands use it; FOLEYPROOF_ALLOW_PRIVATE=1 lets it ask servers of one's own network."""
        return cls(allow_private=os.environ.get("FOLEYPROOF_ALLOW_PRIVATE") == "1")

    def look(self, url: str) -> Remote:
        """Size and version of a file, without fetching it.

        Raises:
            RemoteRefuses, TransferFailed: as `fetch`.
        """
        return self._again(url, lambda: self._head(url))

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        check: Callable[[Path], None] = lambda path: None,
        progress: Callable[[int, int | None], None] = lambda done, total: None,
    ) -> tuple[str, int]:
        """Fetch `url` to `target`, continuing what an earlier run left; sha256 and bytes of the file.

        Args:
            check: looks at the whole file before it takes its name, and raises if it is not wanted.
            progress: told bytes at hand and bytes in all (None: the server does not say).

        Raises:
            RemoteRefuses: 401, 403, 429, 451, or a wait longer than `longest_wait_s`.
            TransferFailed: anything else that trying again did not mend.
        """
        part = target.with_name(f"{target.name}.part")
        with disk_space(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            digest, size = self._again(url, lambda: self._get(url, part, progress), part=part)
            try:
                check(part)
            except FoleyproofError:
                forget(part)
                raise
            os.replace(part, target)
        remove(about_part(part))
        return digest, size

    # ---- trying again -------------------------------------------------------------------------------

    def _again(self, url: str, attempt: Callable[[], _Given], *, part: Path | None = None) -> _Given:
        """What `attempt` gives; it is repeated while a failure may pass, or while it gets further."""
        failures, furthest, host = 0, size_of(part), _host(url)
        if host in self._closed:
            raise RemoteRefuses(
                f"{url}: not asked for, as {host} answered {self._closed[host]} before, expected the "
                "file — run the same command again later; it continues where it stopped"
            )
        while True:
            try:
                return attempt()
            except _Later as error:
                self._closed[host] = error.said
                raise RemoteRefuses(
                    f"{url}: {error.said}, asks to wait {error.wait_s / 60:.0f} minutes, expected the "
                    "file — run the same command again then"
                ) from error
            except _Broken as error:
                failures = 1 if size_of(part) > furthest else failures + 1
                furthest = max(furthest, size_of(part))
                if failures >= self.attempts:
                    kind = RemoteRefuses if error.refused else TransferFailed
                    if error.refused:
                        self._closed[host] = str(error)
                    raise kind(
                        f"{url}: {error}, {self.attempts} times, expected the file — run the same "
                        "command again later; it continues where it stopped"
                    ) from error
                wait_s = self.backoff_s * 2 ** (failures - 1)
                if error.wait_s and error.wait_s > wait_s:
                    wait_s = error.wait_s
                    self.waiting(host, wait_s)
                self.sleep(wait_s)

    # ---- one request --------------------------------------------------------------------------------

    def _head(self, url: str) -> Remote:
        with self._answer("HEAD", url, {}) as response:
            return _remote(response)

    def _get(self, url: str, part: Path, progress: Callable[[int, int | None], None]) -> tuple[str, int]:
        headers = {}
        about = read_about(part)
        have = size_of(part)
        if have and about.get("url") == url and about.get("version"):
            headers = {"Range": f"bytes={have}-", "If-Range": about["version"]}
        with self._answer("GET", url, headers) as response:
            begin, total = _place(response, have if headers else 0)
            if response.status == 416 and total == have > 0:  # all of it came before
                return sha256_file(part), have
            if begin is None:  # what is at hand is no part of what there is now
                forget(part)
                raise _Broken("the file changed meanwhile")
            remote = _remote(response)
            if begin == 0:
                forget(part)
                write_json(about_part(part), {"url": url, "version": remote.version})
            return self._receive(response, part, begin, total, progress)

    def _receive(
        self,
        response: http.client.HTTPResponse,
        part: Path,
        begin: int,
        total: int | None,
        progress: Callable[[int, int | None], None],
    ) -> tuple[str, int]:
        """Append the body to `part`; sha256 and size of all of it."""
        with part.open("ab", buffering=0) as out, hashing() as (free, update, digest):
            with part.open("rb") as former:
                while size := former.readinto(buffer := free()):
                    update(buffer, size)
            done = begun = begin
            for buffer, size in self._chunks(response, free):
                out.write(memoryview(buffer)[:size])
                update(buffer, size)
                done += size
                progress(done, total)
                if done - begun >= _WRITE_OUT_BYTES:  # else all of it is written when it is fsynced
                    write_out(out.fileno(), begun, done)
                    begun = done
            if total is not None and done != total:
                raise _Broken(f"ended after {done:,} of {total:,} bytes")
            os.fsync(out.fileno())
        return digest(), done

    def _chunks(
        self, response: http.client.HTTPResponse, free: Callable[[], bytearray]
    ) -> Iterator[tuple[bytearray, int]]:
        """Buffers with what came, and how much of each is filled: as much as comes at once."""
        begun, received = time.monotonic(), 0
        read = _reader(response)
        while True:
            buffer = free()
            size, full_at = 0, time.monotonic() + _LONGEST_FILL_S
            while size < CHUNK_BYTES:
                try:
                    n = read(memoryview(buffer)[size:])
                except (OSError, http.client.HTTPException) as error:
                    if size:  # what came stays
                        yield buffer, size
                    raise _Broken(_words(error)) from error
                size += n
                received += n
                elapsed_s = time.monotonic() - begun
                if elapsed_s > self.timeout_s:
                    if received < self.slowest_bytes_per_s * elapsed_s:
                        raise _Broken(f"stalled at {received / elapsed_s:.0f} bytes a second")
                    begun, received = time.monotonic(), 0
                if n == 0 or time.monotonic() > full_at:
                    break
            if size:
                yield buffer, size
            if n == 0:
                return

    @contextmanager
    def _answer(
        self, method: str, url: str, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request, behind all redirects, if it is one that brings the file."""
        place = url
        for _ in range(_MAX_REDIRECTS + 1):
            connection = self._connect(place)
            try:
                try:
                    response = self._ask(connection, method, place, headers)
                except (OSError, http.client.HTTPException) as error:
                    raise _Broken(_words(error)) from error
                if response.status not in _REDIRECTS:
                    self._judge(response, url)
                    yield response
                    return
                place = self._redirected(place, response.getheader("Location"))
            finally:
                connection.close()
        raise TransferFailed(
            f"{url}: more than {_MAX_REDIRECTS} redirects, expected the file — get it by hand, and use "
            f"{self.by_hand}"
        )

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, url: str, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        host = parts.netloc
        self.sleep(max(0.0, self._asked.get(host, -1e9) + self.pause_s - time.monotonic()))
        self._asked[host] = time.monotonic()
        connection.request(
            method,
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            headers={
                "User-Agent": f"foleyproof/{curation.__version__}",
                "Accept-Encoding": "identity",  # sizes and ranges are those of the file
                **headers,
            },
        )
        return connection.getresponse()

    def _judge(self, response: http.client.HTTPResponse, url: str) -> None:
        """Pass 200, 206 and 416 on; everything else is an error of some kind."""
        status, wait_s = response.status, _retry_after(response)
        if status in (200, 206, 416):
            return
        said = f"{status} {response.reason}"
        if status in (429, 503) and wait_s is not None and wait_s > self.longest_wait_s:
            raise _Later(said, wait_s)
        if status == 429 or status >= 500 or status == 408:
            raise _Broken(said, wait_s=wait_s, refused=status == 429)
        if status in _REFUSED:
            raise RemoteRefuses(
                f"{url}: {said}, expected the file — get it by hand and give its folder with "
                f"{self.by_hand}"
            )
        raise TransferFailed(
            f"{url}: {said}, expected the file — get it by hand, and use {self.by_hand}"
        )

    def _redirected(self, url: str, location: str | None) -> str:
        if not location:
            raise TransferFailed(
                f"{url}: a redirect to nowhere, expected an address — get the file by hand, and use "
                f"{self.by_hand}"
            )
        try:
            place = urljoin(url, location)
        except ValueError as error:
            raise no_address(location, self.by_hand) from error
        if urlsplit(url).scheme == "https" and urlsplit(place).scheme != "https":
            raise TransferFailed(
                f"{url}: a redirect from https to {place} is refused — get the file by hand, and "
                f"use {self.by_hand}"
            )
        return place

    def _connect(self, url: str) -> http.client.HTTPConnection:
        """A connection to the address that was checked, whatever the name resolves to later."""
        try:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                raise no_address(url, self.by_hand)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except ValueError as error:  # a bracket too few, a port above 65,535, a host of 300 letters
            raise no_address(url, self.by_hand) from error
        except OSError as error:
            raise _Broken(f"{parts.hostname}: {error.strerror or error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if not self.allow_private and not is_public(address):
                raise TransferFailed(
                    f"{url}: {parts.hostname} is {address}, expected a public address — refused"
                )
        return Connection(parts.hostname, port, addresses, self.timeout_s, parts.scheme == "https")


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:  # said when it is asked
        return url


def _remote(response: http.client.HTTPResponse) -> Remote:
    size = response.getheader("Content-Length")
    tag = response.getheader("ETag")
    version = tag if tag and not tag.startswith("W/") else response.getheader("Last-Modified")
    return Remote(size=int(size) if size and size.isdecimal() else None, version=version)


def _place(response: http.client.HTTPResponse, have: int) -> tuple[int | None, int | None]:
    """Where the body begins and how large the file is; None where it does not go with what is here."""
    if response.status == 200:
        return 0, _remote(response).size
    if response.status == 416:
        whole = _WHOLE.fullmatch(response.getheader("Content-Range", ""))
        return None, int(whole[1]) if whole else None
    sent = _RANGE.fullmatch(response.getheader("Content-Range", ""))
    if response.status == 206 and sent and int(sent[1]) == have:
        return have, int(sent[2])
    return None, None


def _retry_after(response: http.client.HTTPResponse) -> float | None:
    """Seconds to wait, from a number or a date."""
    value = response.getheader("Retry-After")
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _reader(response: http.client.HTTPResponse) -> Callable[[memoryview], int]:
    """What reads into a buffer whatever has come; 0 at the end of the body."""
    left = response.length  # None: chunked, or until the server ends the connection

    def at_once(view: memoryview) -> int:
        nonlocal left
        assert left is not None, "only for a body of stated length"
        # past the response, whose own reads allocate a megabyte each
        size: int = response.fp.readinto1(view[: min(len(view), left)]) if left else 0
        left -= size
        return size

    def by_copy(view: memoryview) -> int:
        chunk = response.read1(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)

    return by_copy if left is None else at_once


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended early"
    return str(error) or type(error).__name__
