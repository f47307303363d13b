"""Fetching over HTTP, against a real server on loopback that does everything a server can do wrong.

Each case of SERVERS is run here and printed in curation/README.md:
`python -m tests.curation.test_transport` prints the table.
"""

# ruff: noqa: E501 - the cases are a table: one to three lines each read better than five

import hashlib
import http.server
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from curation.errors import FoleyproofError, NotWritable, RemoteRefuses, TransferFailed
from curation.tables import render
from curation.transport import Transport

README = Path(__file__).resolve().parents[2] / "curation" / "README.md"
BEGIN, END = "<!-- servers -->\n", "<!-- /servers -->"
FILE = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(310_000)  # the file after its publisher changed it
TAG = '"one"'


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of its steps, the last one for good."""

    daemon_threads = True

    def __init__(self, *steps: "Step") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.steps = list(steps)
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path, headers
        self.sent = 0  # bytes of bodies
        self.begun: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.csv"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # whoever hung up wanted to


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.command, self.path, dict(self.headers)))
        server.begun.append(time.monotonic())
        step = server.steps.pop(0) if len(server.steps) > 1 else server.steps[0]
        step(self)
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def give(
        self,
        content: bytes = FILE,
        *,
        tag: str | None = TAG,
        cut: int | None = None,
        length: int | None = None,
        ranges: bool = True,
        kind: str = "text/csv",
        status: int = 200,
    ) -> None:
        """The file, or what was asked of it; `cut` ends after so many bytes of the body."""
        begin = 0
        asked = self.headers.get("Range")
        if ranges and asked and self.headers.get("If-Range") == tag:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            status = 206 if begin < len(content) else 416
        body = content[begin:]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if status == 416 and length is None:
            self.send_header("Content-Range", f"bytes */{len(content)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        if self.command == "GET":
            self.send(body[:cut])

    def send(self, body: bytes) -> None:
        self.wfile.write(body)
        self.server.sent += len(body)


Step = Callable[[_Handler], None]


def whole(**options: Any) -> Step:
    return lambda handler: handler.give(**options)


def status(code: int, **headers: str) -> Step:
    def step(handler: _Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return step


def stalls(handler: _Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(FILE)))
    handler.send_header("ETag", TAG)
    handler.end_headers()
    handler.send(FILE[:100_000])
    handler.wfile.flush()
    time.sleep(1.5)


def trickles(handler: _Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(FILE)))
    handler.send_header("ETag", TAG)
    handler.end_headers()
    for i in range(20):
        handler.send(FILE[i : i + 1])
        handler.wfile.flush()
        time.sleep(0.1)


def hangs_up(handler: _Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def wrong_range(handler: _Handler) -> None:
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 7-{len(FILE) - 1}/{len(FILE)}")
    handler.send_header("Content-Length", str(len(FILE) - 7))
    handler.end_headers()
    handler.send(FILE[7:])


def chunked(handler: _Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for begin in range(0, len(FILE), 70_000):
        piece = FILE[begin : begin + 70_000]
        handler.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
    handler.send(b"0\r\n\r\n")


def chunked_and_cut(handler: _Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.send(b"11170\r\n" + FILE[:60_000])


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a server does, and what comes of it."""

    server: str
    steps: tuple[Step, ...]
    outcome: str  # "the file", or the first words of the error behind the address
    content: bytes = FILE
    error: type[FoleyproofError] = TransferFailed
    requests: int | None = None  # how many it gets
    sent: int | None = None  # bytes of bodies in all, where resuming shows
    options: dict[str, Any] = field(default_factory=dict)


CUT = len(FILE) // 3
SERVERS = [
    Case(server="sends the file", steps=(whole(),), outcome="the file", requests=1, sent=len(FILE)),
    Case(server="sends it in chunks, without a length", steps=(chunked,), outcome="the file"),
    Case(server="ends the connection early, twice", steps=(whole(cut=CUT), whole(cut=CUT), whole()),
         outcome="the file", requests=3, sent=len(FILE)),
    Case(server="ends a body in chunks early", steps=(chunked_and_cut, whole()), outcome="the file"),
    Case(server="ends early and knows no ranges", steps=(whole(cut=CUT), whole(ranges=False)),
         outcome="the file", sent=len(FILE) + CUT),
    Case(server="ends early and names no version", steps=(whole(cut=CUT, tag=None), whole(tag=None)),
         outcome="the file", sent=len(FILE) + CUT),
    Case(server="changes the file between two attempts", steps=(whole(cut=CUT), whole(content=OTHER, tag='"two"')),
         outcome="the file", content=OTHER, sent=len(OTHER) + CUT),
    Case(server="sends another range than was asked for", steps=(whole(cut=CUT), wrong_range, whole()),
         outcome="the file"),
    Case(server="says more bytes than it sends, always", steps=(whole(length=len(FILE) + 9),),
         outcome="ended after 300,000 of 300,009 bytes, 3 times"),
    Case(server="stalls, then sends it", steps=(stalls, whole()), outcome="the file", requests=2, sent=len(FILE)),
    Case(server="sends a byte now and then", steps=(trickles,), outcome="stalled at"),
    Case(server="hangs up at once, then sends it", steps=(hangs_up, whole()), outcome="the file"),
    Case(server="hangs up, always", steps=(hangs_up,), outcome="Remote end closed connection without response, 3 times"),
    Case(server="500, then the file", steps=(status(500), whole()), outcome="the file", requests=2),
    Case(server="502, always", steps=(status(502),), outcome="502 Bad Gateway, 3 times", requests=3),
    Case(server="503 with Retry-After, then the file", steps=(status(503, Retry_After="2"), whole()),
         outcome="the file", requests=2),
    Case(server="429 with Retry-After, then the file", steps=(status(429, Retry_After="1"), whole()),
         outcome="the file", requests=2),
    Case(server="429 with an hour to wait", steps=(status(429, Retry_After="3600"),), error=RemoteRefuses,
         outcome="429 Too Many Requests, asks to wait 60 minutes", requests=1),
    Case(server="429, always", steps=(status(429),), error=RemoteRefuses, outcome="429 Too Many Requests, 3 times"),
    Case(server="401", steps=(status(401),), error=RemoteRefuses, outcome="401 Unauthorized", requests=1),
    Case(server="403", steps=(status(403),), error=RemoteRefuses, outcome="403 Forbidden", requests=1),
    Case(server="404", steps=(status(404),), outcome="404 Not Found", requests=1),
    Case(server="410", steps=(status(410),), outcome="410 Gone", requests=1),
    Case(server="redirects to the file", steps=(status(302, Location="/there.csv"), whole()), outcome="the file",
         requests=2),
    Case(server="redirects without end", steps=(status(302, Location="/again.csv"),),
         outcome="more than 5 redirects", requests=6),
    Case(server="redirects to nowhere", steps=(status(302),), outcome="a redirect to nowhere"),
    Case(server="redirects to a file of this machine", steps=(status(302, Location="file:///etc/passwd"),),
         outcome="expected http(s)://host/path"),
    Case(server="redirects to an address that is none", steps=(status(302, Location="http://[x"),),
         outcome="expected http(s)://host/path"),
    Case(server="redirects to a port that is none", steps=(status(302, Location="http://127.0.0.1:99999/x"),),
         outcome="expected http(s)://host/path"),
    Case(server="503 with a Retry-After that is none", steps=(status(503, Retry_After="\u00b2"), whole()),
         outcome="the file", requests=2),
    Case(server="redirects to another scheme", steps=(status(302, Location="ftp://example.org/x"),),
         outcome="expected http(s)://host/path"),
]  # fmt: skip


def transport(**options: Any) -> tuple[Transport, list[float]]:
    """One that may talk to loopback, waits in name only, and what it would have waited."""
    waited: list[float] = []
    given = {"allow_private": True, "attempts": 3, "timeout_s": 0.5, **options}
    return Transport(**given, sleep=waited.append), waited


@pytest.mark.parametrize("case", SERVERS, ids=lambda case: case.server)
def test_server_gets_what_the_table_says(case: Case, serve: Any, tmp_path: Path) -> None:
    server = serve(Server(*case.steps))
    target = tmp_path / "raw" / "file.csv"
    fetcher, _ = transport(**case.options)
    if case.outcome == "the file":
        digest, size = fetcher.fetch(server.url, target)
        assert target.read_bytes() == case.content
        assert (digest, size) == (hashlib.sha256(case.content).hexdigest(), len(case.content))
        assert [path.name for path in target.parent.iterdir()] == ["file.csv"]
    else:
        with pytest.raises(case.error) as raised:
            fetcher.fetch(server.url, target)
        assert f": {case.outcome}" in str(raised.value)
        assert not target.exists()
    if case.requests is not None:
        assert len(server.requests) == case.requests
    if case.sent is not None:
        assert server.sent == case.sent


def test_file_that_was_whole_but_not_yet_named_is_not_fetched_again(serve: Any, tmp_path: Path) -> None:
    """Killed between the last byte and the rename."""
    server, target = serve(Server(whole())), tmp_path / "file.csv"

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transport()[0].fetch(server.url, target, check=killed)
    assert not target.exists()
    digest, size = transport()[0].fetch(server.url, target)
    assert (digest, size) == (hashlib.sha256(FILE).hexdigest(), len(FILE))
    assert target.read_bytes() == FILE
    assert server.sent == len(FILE)
    assert [path.name for path in tmp_path.iterdir()] == ["file.csv"]


def test_place_where_no_folder_can_be_made_is_said(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(NotWritable, match="expected a place that can be read and written"):
        transport()[0].fetch(serve(Server(whole())).url, tmp_path / "a file" / "x")


def test_readme_holds_the_table() -> None:
    assert table() in README.read_text(encoding="utf-8"), f"stale: {__doc__}"


def table() -> str:
    """The section of curation/README.md between its two marks."""
    rows = [
        [case.server, 0 if case.outcome == "the file" else case.error.exit_code, case.outcome]
        for case in SERVERS
    ]
    text = render(["a server that", "exit", "gives, or first words"], rows, "markdown")
    return f"{BEGIN}{text}\n{END}"


if __name__ == "__main__":
    print(table())
