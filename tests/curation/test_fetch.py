"""`curate fetch` over the network: what is shown before, what comes, and what is asked for twice."""

import contextlib
import hashlib
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_transport import FILE, Server, Step, status, transport, whole

from curation.errors import TransferFailed
from curation.files import sweep
from curation.transport import Transport

CARD = """
title = "Mine"
homepage = "-"
citation = "-"
metadata_licence = "CC BY 4.0"
media_licence = "-"

[files.rows]
path = "rows.csv"
url = "{url}"
columns = ["id", "start"]

[files.more]
path = "lists/more.csv"
url = "{url}2"
columns = ["id", "start"]
optional = true

[files.page]
path = "page.csv"
url = "https://example.org/page"
columns = ["id", "start"]
optional = true
by_hand = true

[splits.train]
role = "train"
"""
SQL = """
select id || '_' || start as clip_id, 'train' as split, 'local' as source, id as source_id, file, row
from rows
"""
ROWS = b"id,start\nabc,1\ndef,2\n"
Run = Callable[..., tuple[int, str, str]]
KILLS = 3


class ByPath(Server):
    """A server with steps of its own for each path."""

    def __init__(self, **steps: list[Step]) -> None:
        super().__init__(self._step)
        self.by_path = steps

    def _step(self, handler: Any) -> None:
        steps = self.by_path[handler.path.removeprefix("/file.csv") or "first"]
        step = steps[0] if len(steps) == 1 or handler.command == "HEAD" else steps.pop(0)
        step(handler)


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], list[str]]:
    """Options that name a card whose files lie on the server, which may be asked."""
    monkeypatch.setenv("FOLEYPROOF_ALLOW_PRIVATE", "1")

    def of(server: Server) -> list[str]:
        card = tmp_path / "cards" / "mine"
        card.mkdir(parents=True)
        (card / "card.toml").write_text(CARD.replace("{url}", server.url))
        (card / "clips.sql").write_text(SQL)
        return ["mine", "--cards", str(card.parent), "--manifests", str(tmp_path / "manifests")]

    return of


def test_sizes_and_licences_are_shown_and_nothing_is_fetched(
    serve: Any, words: Any, curate: Run, tmp_path: Path
) -> None:
    server = serve(ByPath(first=[whole(content=ROWS)], **{"2": [status(405)]}))
    given = words(server)
    code, out, _ = curate("fetch", *given, "--dry-run")
    assert code == 0
    assert "CC BY 4.0" in out
    assert out.splitlines()[-1] == (
        f"3 files = 2 to fetch ({len(ROWS)} bytes and 1 of unknown size) + 0 at hand + 1 by hand"
    )
    assert {method for method, _, _ in server.requests} == {"HEAD"}
    asked = len(server.requests)
    assert curate("fetch", *given, "--offline")[0] == 0
    code, out, err = curate("fetch", *given)  # there is nobody to ask
    assert code == 2
    assert "expected --yes" in err
    assert not (tmp_path / "manifests" / "mine").exists()
    assert len(server.requests) == asked
    code, _, err = curate("fetch", *given, "--yes")
    assert code == 1  # the second file is refused
    assert "CC BY 4.0" in err  # said before it began


def test_what_is_fetched_is_built_and_never_fetched_again(serve: Any, words: Any, curate: Run) -> None:
    server = serve(ByPath(first=[whole(content=ROWS)], **{"2": [whole(content=ROWS)]}))
    given = words(server)
    code, out, _ = curate("fetch", *given, "--yes")
    assert code == 0
    assert out.splitlines()[-1] == (
        "3 files = 2 fetched (2 unrecognised copies) + 0 at hand + 1 by hand + 0 failed"
    )
    assert "by hand: mine/page.csv, from https://example.org/page" in out
    assert "2 rows = 2 kept" in curate("build", *given)[1]
    asked = len(server.requests)
    code, out, _ = curate("fetch", *given, "--yes")
    assert out.splitlines()[-1].startswith("3 files = 0 to fetch (0 bytes) + 2 at hand")
    assert len(server.requests) == asked


def test_one_bad_file_costs_no_other(serve: Any, words: Any, curate: Run, tmp_path: Path) -> None:
    page = whole(content=b"<!DOCTYPE html><title>Sorry</title>", kind="text/html")
    server = serve(ByPath(first=[page], **{"2": [whole(content=ROWS)]}))
    given = words(server)
    code, out, _ = curate("fetch", *given, "--yes", "--json")
    assert code == 1
    files = {entry["path"]: entry for entry in json.loads(out)["files"]}
    assert files["lists/more.csv"]["sha256"] == hashlib.sha256(ROWS).hexdigest()
    assert "a web page" in files["rows.csv"]["detail"]
    raw = tmp_path / "manifests" / "mine" / "raw"
    assert sorted(path.name for path in raw.rglob("*") if path.is_file()) == ["fetched.json", "more.csv"]


def test_server_that_refuses_ends_in_15(serve: Any, words: Any, curate: Run) -> None:
    server = serve(ByPath(first=[status(403)], **{"2": [status(404)]}))
    code, out, _ = curate("fetch", *words(server), "--yes")
    assert code == 15
    assert "403 Forbidden" in out
    assert "404 Not Found" in out


def test_private_addresses_are_refused_unless_allowed(
    serve: Any, words: Any, curate: Run, monkeypatch: Any
) -> None:
    server = serve(ByPath(first=[whole(content=ROWS)], **{"2": [whole(content=ROWS)]}))
    given = words(server)
    monkeypatch.delenv("FOLEYPROOF_ALLOW_PRIVATE")
    code, out, _ = curate("fetch", *given, "--yes")
    assert code == 1
    assert "127.0.0.1 is 127.0.0.1, expected a public address — refused" in out
    assert server.requests == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "192.168.1.1", "169.254.169.254", "172.16.0.1",
     "0.0.0.0", "[::ffff:127.0.0.1]", "[fe80::1]", "[fc00::1]", "100.64.0.1", "224.0.0.1", "2130706433"],
)  # fmt: skip
def test_address_of_this_machine_or_network_is_never_asked(host: str, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match="expected a public address"):
        Transport(attempts=1).fetch(f"http://{host}:1/x", tmp_path / "x")


def test_redirect_to_a_private_address_is_refused(serve: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The first hop is taken for a public host; what it redirects to is checked anew."""
    import curation.transport as module

    target = serve(Server(whole()))
    first = serve(Server(status(302, Location=target.url.replace("127.0.0.1", "localhost"))))
    seen: list[str] = []

    def public(address: str) -> bool:
        seen.append(address)
        return len(seen) == 1

    monkeypatch.setattr(module, "is_public", public)
    with pytest.raises(TransferFailed, match=r"localhost is .*, expected a public address"):
        transport(allow_private=False)[0].fetch(first.url, tmp_path / "x")
    assert target.requests == []


def test_name_that_resolves_anew_is_connected_to_as_it_was_checked(
    serve: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """DNS rebinding: between the check and the connection nobody asks for the name again."""
    import socket

    server, asked = serve(Server(whole())), []
    real = socket.getaddrinfo

    def rebound(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        if host == "rebind.example":
            assert asked.count(host) == 1, "the name was resolved twice"
            return real("127.0.0.1", *rest, **more)
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    url = server.url.replace("127.0.0.1", "rebind.example")
    assert transport()[0].fetch(url, tmp_path / "x")[1] == len(FILE)
    assert server.requests[0][2]["Host"].startswith("rebind.example:")


def test_server_is_waited_for_as_it_asks_and_not_asked_too_often(serve: Any, tmp_path: Path) -> None:
    server = serve(Server(status(503, Retry_After="7"), status(500), whole()))
    fetcher, waited = transport(pause_s=3.0)
    fetcher.fetch(server.url, tmp_path / "x")
    assert [round(wait) for wait in waited] == [0, 7, 3, 2, 3]  # pause, Retry-After, pause, back-off, …


def test_addresses_with_a_password_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match="without a user's name"):
        Transport().fetch("https://me:secret@example.org/x", tmp_path / "x")


@pytest.mark.parametrize(
    "url", ["http://[x/y", "http://a:99999/y", f"http://{'a' * 300}/y", "ftp://a/y"]
)
def test_address_that_is_none_says_so(url: str, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match="mend the address in the card"):
        Transport().fetch(url, tmp_path / "x")


def test_redirect_from_https_to_http_is_refused() -> None:
    with pytest.raises(TransferFailed, match="a redirect from https to http://b/y is refused"):
        Transport()._redirected("https://a/x", "http://b/y")
    assert Transport()._redirected("https://a/x", "/y") == "https://a/y"


PROGRAM = """
import sys
from pathlib import Path
from curation.transport import Transport
fetcher = Transport(allow_private=True, pause_s=0.0)
for name in sys.argv[3:]:
    if not (Path(sys.argv[2]) / name).exists():
        print(fetcher.fetch(sys.argv[1] + "?" + name, Path(sys.argv[2]) / name), flush=True)
"""


def killed_at_random(serve: Any, folder: Path, kills: int) -> None:
    """Fetch three files, killed again and again: nothing complete comes twice, the bytes are right."""
    contents = {name: random.Random(name).randbytes(3_000_000) for name in ("a", "b", "c")}

    def step(handler: Any) -> None:
        content = contents[handler.path.partition("?")[2]]
        time.sleep(0.01)
        handler.give(content=content, tag=f'"{handler.path}"')

    server = serve(Server(step))
    rng = random.Random(0)
    done: dict[str, int] = {}
    for _ in range(kills):
        program = [sys.executable, "-c", PROGRAM, server.url, str(folder), *contents]
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.05, 0.35))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name in contents:
            if (folder / name).exists() and name not in done:
                done[name] = len(server.requests)
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    for name, content in contents.items():
        assert (folder / name).read_bytes() == content
    sweep(folder)  # as whoever holds the lock does first
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "c"]
    for name, before in done.items():
        later = [path for _, path, _ in server.requests[before:] if path.endswith(f"?{name}")]
        assert later == [], f"{name} was whole and fetched again"


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_where_it_was(serve: Any, tmp_path: Path) -> None:
    killed_at_random(serve, tmp_path / "files", KILLS)


@pytest.mark.soak
def test_killed_fifty_times_it_goes_on_where_it_was(serve: Any, tmp_path: Path) -> None:
    killed_at_random(serve, tmp_path / "files", 50)


# ---- a host that wants to be left alone ------------------------------------------------------------


def test_host_that_asks_to_wait_long_is_not_asked_again_in_the_run(
    serve: Any, words: Any, curate: Run
) -> None:
    later = status(429, Retry_After="3600")
    server = serve(ByPath(first=[later], **{"2": [whole(content=ROWS)]}))
    given = words(server)
    code, out, _ = curate("fetch", *given, "--yes")
    assert code == 15
    assert out.count("not asked for, as 127.0.0.1") == 2
    assert "answered 429 Too Many Requests before" in out
    assert len(server.requests) == 1, "the plan asked once, and nothing was asked after that"


def test_wait_that_a_server_asks_for_is_told(serve: Any, tmp_path: Path) -> None:
    server = serve(Server(status(429, Retry_After="7"), whole()))
    told: list[tuple[str, float]] = []
    used, slept = transport()
    used.waiting = lambda host, wait_s: told.append((host, wait_s))
    used.fetch(server.url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == FILE
    assert [wait_s for _, wait_s in told] == [7.0]
    assert told[0][0] in server.url
    assert 7.0 in slept


# ---- overlaps brings what it names -----------------------------------------------------------------


def test_overlaps_fetches_and_builds_what_it_names(
    serve: Any, words: Any, curate: Run, tmp_path: Path
) -> None:
    server = serve(ByPath(first=[whole(content=ROWS)], **{"2": [whole(content=ROWS)]}))
    given = words(server)[1:]
    (tmp_path / "my.csv").write_text("https://youtu.be/FhaYvI1yrUM\n")
    asked = ("overlaps", "--test", tmp_path / "my.csv", "--train", "mine", *given)
    code, _, err = curate(*asked)  # nobody can be asked
    assert (code, server.requests) == (2, [])
    assert "mine is not built" in err
    code, out, err = curate(*asked, "--yes", "--json")
    assert code == 0, err
    assert "CC BY 4.0" in err  # sizes and licences, before it began
    (cell,) = json.loads(out)["tests"][str(tmp_path / "my.csv")]["overlap"].values()
    assert cell["train_rows"] == 2
    asked_before = len(server.requests)
    assert curate(*asked, "--yes")[0] == 0
    assert len(server.requests) == asked_before


def test_overlaps_ends_in_15_where_a_server_refuses_what_it_needs(
    serve: Any, words: Any, curate: Run, tmp_path: Path
) -> None:
    server = serve(ByPath(first=[status(403)], **{"2": [status(403)]}))
    (tmp_path / "my.csv").write_text("FhaYvI1yrUM\n")
    given = words(server)[1:]
    code, _, err = curate("overlaps", "--test", tmp_path / "my.csv", "--train", "mine", *given, "--yes")
    assert code == 15
    assert "403 Forbidden" in err


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 130)])
def test_question_is_asked_on_a_terminal_and_its_answer_counts(
    answer: str, code: int, serve: Any, words: Any
) -> None:
    """The sizes and licences stand on the terminal before anything is fetched."""
    server = serve(ByPath(first=[whole(content=ROWS)], **{"2": [whole(content=ROWS)]}))
    master, slave = pty.openpty()
    program = "import sys; from curation.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "fetch", *words(server)],
        stdin=slave, stdout=subprocess.DEVNULL, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while b"Fetch it?" not in shown:
        shown += os.read(master, 4096)
    assert b"CC BY 4.0" in shown
    assert {method for method, _, _ in server.requests} == {"HEAD"}
    os.write(master, f"{answer}\n".encode())
    with contextlib.suppress(OSError):  # the other side closed
        while os.read(master, 4096):
            pass
    assert process.wait() == code
    os.close(master)
    assert any(method == "GET" for method, _, _ in server.requests) == (answer == "y")
