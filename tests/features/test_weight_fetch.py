"""`features weights`: what is there, and fetching the rest from a server on loopback."""

# ruff: noqa: E501 - the cases are a table: a line each reads better than three
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_transport import Server, Step, status, whole
from weight_files import bombs, published, saved, state

import features.weights.table
from curation.console import run
from curation.files import locked
from features.commands.weights import weights
from features.weights.table import FILES, WeightFile, file_named

CONTENT = saved(state())
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Runs `features weights` with arguments on the folder `w`: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOLEYPROOF_ALLOW_PRIVATE", "1")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["weights", "--weights", "w", *arguments])
        code = run(weights, "weights")
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Starts a server that gives `v1-44.pth`, or the file named, in these steps."""
    servers = []
    table: dict[str, WeightFile] = {}

    def start(*steps: Step, content: bytes = CONTENT, name: str = "v1-44.pth", **other: Any) -> Server:
        server = Server(*steps)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        url = server.url.replace("file.csv", name)
        table[name] = replace(published(content, name=name, **other), url=url)
        files = tuple(table.get(file.name, file) for file in FILES)
        monkeypatch.setattr(features.weights.table, "FILES", files)
        return server

    monkeypatch.setattr("curation.transport.Transport.for_users", _quick)
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _quick() -> Any:
    from curation.transport import Transport

    return Transport(allow_private=True, attempts=2, pause_s=0, backoff_s=0, timeout_s=2)


# ---- what is there --------------------------------------------------------------------------------


def test_an_empty_place_lacks_every_file_and_nothing_is_made_there(command: Command) -> None:
    code, out, err = command()
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 14
    assert lines[-1] == "12 files = 0 checked + 0 there + 0 wrong + 12 missing"
    assert (
        " ".join(lines[2].split())
        == "v1-44.pth VAE 44.1 kHz missing 1.22 CC-BY-NC-4.0 extract --sr 44100"
    )
    assert err == (
        "next: features weights --fetch v1-16.pth v1-44.pth synchformer_state_dict.pth "
        "open_clip_pytorch_model.bin --weights w\n"
    )
    assert not Path("w").exists()


def test_json_is_one_document_that_says_all_of_each_file(command: Command) -> None:
    code, out, err = command("--json", "clip", "--offline")
    document = json.loads(out)
    assert code == 0
    assert document["counts"] == {"checked": 0, "there": 0, "wrong": 0, "begun": 0, "missing": 1}
    assert document["summary"] == "1 file = 0 checked + 0 there + 0 wrong + 1 missing"
    assert document["summary"] in err
    (file,) = document["files"]
    assert file["url"].startswith("https://huggingface.co/apple/")
    assert file["expected_bytes"] == 4 * file["num_values"] == 3_946_859_524
    assert file["unverified"] == ["url", "size", "licence"]
    assert (file["md5"], file["path"], file["state"]) == (None, None, "missing")


def test_an_unknown_name_is_a_usage_error(command: Command) -> None:
    code, out, err = command("clap")
    assert (code, out) == (2, "")
    assert "clap: no file of weights has this name" in err


def test_a_file_that_is_there_is_checked_on_request(
    command: Command, serve: Callable[..., Server]
) -> None:
    serve(whole())
    Path("w/ext_weights").mkdir(parents=True)
    Path("w/ext_weights/v1-44.pth").write_bytes(CONTENT)
    assert "1 file = 0 checked + 1 there + 0 wrong + 0 missing" in command("v1-44.pth")[1]
    code, out, err = command("v1-44.pth", "--check")
    assert code == 0
    assert "checked, converted" in out
    assert err == "next: features extract --sr 44100 --weights w\n"
    assert "1 file = 1 checked + 0 there" in command("vae-44k")[1]


def test_a_wrong_file_is_shown_and_fails_only_when_it_is_to_be_checked(
    command: Command, serve: Callable[..., Server]
) -> None:
    serve(whole())
    Path("w").mkdir()
    Path("w/v1-44.pth").write_bytes(b"<html>busy</html>")
    Path("w/v1-16.pth").write_bytes(saved(state(1)))
    code, out, _ = command("v1-44.pth", "v1-16.pth")
    assert code == 0
    assert "v1-44.pth: w/v1-44.pth: is a web page of 17 bytes" in out
    assert "2 files = 0 checked + 1 there + 1 wrong + 0 missing" in out
    code, out, _ = command("v1-44.pth", "v1-16.pth", "--check")
    assert code == 13
    assert "2 files = 0 checked + 0 there + 2 wrong + 0 missing" in out
    assert (
        "expected 686,629,512 bytes and a few more (655 MiB) with md5 69f56803f59a549a1a507c93859fd4d7"
        in out
    )


def test_tensors_of_another_network_are_neither_checked_nor_noted(command: Command) -> None:
    """The digest of rubbish would make the genuine file wrong later."""
    Path("w").mkdir()
    path = Path("w/bigvgan_generator.pt")
    path.write_bytes(saved({"x": torch.zeros(3)}))
    for words in (["--check"], ["--check", "--fetch", "--yes"], ["--fetch", "--offline"], ["--fetch"]):
        code, out, err = command("vocoder-44k", *words)
        assert code == 13, words
        assert "BigVGAN v2 44.1 kHz: 565 tensors missing: conv_pre" in out, out
        assert "1 tensor unknown: x" in out
        assert err.splitlines()[-1] == (
            "next: rm w/bigvgan_generator.pt; features weights --fetch bigvgan_generator.pt --weights w"
        )
        assert not Path("w/digests.json").exists()
        assert not Path("w/converted").exists()
    path.write_bytes(saved({"generator": vocoder()}))
    code, out, err = command("vocoder-44k", "--check")
    assert (code, "1 file = 1 checked" in out) == (0, True), out
    assert err == "next: features extract --sr 44100 --weights w\n"


def test_what_is_fetched_with_the_tensors_of_another_network_is_thrown_away(
    command: Command, serve: Callable[..., Server]
) -> None:
    serve(whole(content=CONTENT), name="empty_string.pth", known=False)
    code, out, err = command("--fetch", "empty-string", "--yes")
    assert code == 13
    assert "4 tensors with 1,244 values, expected 1 tensor with" in out
    assert sorted(path.name for path in Path("w").iterdir()) == [".lock"]
    assert err.splitlines()[-1] == "next: features weights --fetch empty_string.pth --weights w"


def test_a_checkpoint_that_would_run_code_is_a_wrong_file(command: Command, tmp_path: Path) -> None:
    Path("w").mkdir()
    Path("w/empty_string.pth").write_bytes(bombs(tmp_path / "bang")["zip"])
    for words in (["--check"], ["--fetch", "--yes"], ["--fetch", "--offline"]):
        code, out, err = command("empty-string", *words)
        assert code == 13, words
        assert "asks to run" in out
        assert "next: rm w/empty_string.pth; features weights --fetch empty_string.pth" in err
    assert not (tmp_path / "bang").exists()


def vocoder() -> dict[str, torch.Tensor]:
    """Zeros in the shapes of the network at 44.1 kHz, each of one value in memory."""
    from features.encoders.vocoder import Vocoder, VocoderConfig

    with torch.device("meta"):
        shapes = Vocoder(VocoderConfig.published(44100)).state_dict()
    return {name: torch.zeros(()).expand(tensor.shape) for name, tensor in shapes.items()}


# ---- fetching -------------------------------------------------------------------------------------


def test_a_file_is_fetched_checked_and_converted(command: Command, serve: Callable[..., Server]) -> None:
    server = serve(whole(content=CONTENT))
    code, out, err = command("--fetch", "v1-44.pth", "--yes")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert code == 0, err
    assert "1 file = 1 fetched + 0 at hand + 0 failed" in out
    assert sha256[:12] in out
    assert "1 file to fetch, 7.2 kB, and 7.2 kB of safetensors copies, under: CC-BY-NC-4.0" in err
    assert Path("w/v1-44.pth").read_bytes() == CONTENT
    assert Path(f"w/converted/v1-44.pth-{sha256[:12]}.safetensors").is_file()
    assert json.loads(Path("w/digests.json").read_text())["v1-44.pth"]["sha256"] == sha256
    before = len(server.requests)
    assert "1 file = 0 fetched + 1 at hand + 0 failed" in command("--fetch", "vae-44k")[1]
    assert len(server.requests) == before


def test_fetch_and_check_together_do_both(command: Command, serve: Callable[..., Server]) -> None:
    serve(whole(content=CONTENT))
    code, out, err = command("--fetch", "--check", "v1-44.pth", "--yes", "--json")
    assert code == 0, err
    (entry,) = json.loads(out)["files"]
    assert entry["state"] == "checked"
    assert command("--check", "v1-44.pth", "--json")[1] == out
    Path("w/v1-44.pth").write_bytes(CONTENT[:-1])
    code, out, err = command("--fetch", "--check", "v1-44.pth", "--yes", "--json")
    assert (code, json.loads(out)["files"][0]["state"]) != (0, "checked")


def test_what_the_hub_holds_goes_into_a_folder_of_its_own(
    command: Command, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.weights.layout.refuse_layout", lambda path, file, tensors: None)
    serve(whole(content=CONTENT), name="open_clip_pytorch_model.bin", known=False)
    code, _, err = command("--fetch", "clip", "--yes", "--json")
    assert code == 0, err
    assert Path("w/clip/open_clip_pytorch_model.bin").read_bytes() == CONTENT


def test_a_download_that_is_cut_off_is_continued_by_the_same_command(
    command: Command, serve: Callable[..., Server]
) -> None:
    content = saved({"weight": state()["encoder.weight"].repeat(100, 1)})
    cut = len(content) // 2
    server = serve(whole(content=content, cut=cut), status(404), whole(content=content), content=content)
    code, out, _ = command("--fetch", "v1-44.pth", "--yes")
    assert code == 1
    assert "1 file = 0 fetched + 0 at hand + 1 failed" in out
    assert "use --weights" in out
    begun = json.loads(command("v1-44.pth", "--json")[1])["files"][0]
    assert (begun["state"], begun["bytes"]) == ("begun", cut)
    assert "begun, 50 %" in command("v1-44.pth")[1] or "begun, 49 %" in command("v1-44.pth")[1]
    code, out, _ = command("--fetch", "v1-44.pth", "--yes")
    assert code == 0
    assert server.requests[-1][2]["Range"] == f"bytes={cut}-"
    assert Path("w/v1-44.pth").read_bytes() == content


BAD_ANSWERS: dict[str, tuple[Step, bytes, int, str]] = {
    "another file": (whole(content=saved(state(1))), CONTENT, 13, "with md5 .*, expected .* was thrown away"),
    "a page": (whole(content=b"<!doctype html>sorry", kind="text/html"), CONTENT, 13, "is a web page of 20 bytes"),
    "a pointer": (whole(content=b"version https://git-lfs.github.com/spec/v1\nsize 7\n"), CONTENT, 13, "pointer of git-lfs"),
    "not found": (status(404), CONTENT, 1, "404 Not Found, expected the file — get it by hand, and use --weights"),
    "not allowed": (status(403), CONTENT, 15, "403 Forbidden, expected the file — get it by hand and give its folder with --weights"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_what_a_server_sends_instead_never_takes_the_name_of_the_file(
    case: str, command: Command, serve: Callable[..., Server]
) -> None:
    import re

    step, content, expected, message = BAD_ANSWERS[case]
    serve(step, content=content)
    code, out, _ = command("--fetch", "v1-44.pth", "--yes")
    assert code == expected
    assert re.search(message, out), out
    assert sorted(p.name for p in Path("w").iterdir()) == [".lock"]


def test_one_bad_file_costs_no_other(command: Command, serve: Callable[..., Server]) -> None:
    serve(status(404), name="v1-16.pth")
    serve(whole(content=CONTENT))
    code, out, err = command("--fetch", "v1-16.pth", "v1-44.pth", "--yes")
    assert code == 1
    assert "2 files = 1 fetched + 0 at hand + 1 failed" in out
    assert "next: features weights --fetch v1-16.pth --weights w" in err


def test_offline_asks_no_server(command: Command, serve: Callable[..., Server]) -> None:
    server = serve(whole(content=CONTENT))
    code, out, _ = command("--fetch", "v1-44.pth", "--yes", "--offline")
    assert code == 1, "it was asked for and is not there"
    assert "1 file = 0 checked + 0 there + 0 wrong + 1 missing" in out
    assert not server.requests


def test_nothing_is_fetched_where_nobody_can_be_asked(
    command: Command, serve: Callable[..., Server]
) -> None:
    server = serve(whole(content=CONTENT))
    code, out, err = command("--fetch", "v1-44.pth")
    assert (code, out) == (2, "")
    assert "nobody can be asked here" in err
    assert "under: CC-BY-NC-4.0" in err
    assert not server.requests


def test_a_disk_that_is_too_small_is_named_before_anything_comes(
    command: Command, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 10**9})())
    code, out, err = command("--fetch", "encoders", "--yes")
    assert (code, out) == (14, "")
    assert "1.0 GB are free, expected 13.6 GB that are still to come (6.8 GB, and 6.8 GB of safe" in err


def test_the_safetensors_copies_of_files_that_are_there_need_room_too(
    command: Command, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(whole(content=CONTENT))
    Path("w").mkdir()
    Path("w/v1-44.pth").write_bytes(CONTENT)
    free = file_named("v1-44.pth").num_bytes - 1
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": free})())
        code, out, err = command("--fetch", "v1-44.pth", "--yes")
        assert (code, out) == (14, "")
        assert "still to come (0 bytes, and 7.2 kB of safetensors copies)" in err
    assert command("--fetch", "v1-44.pth", "--yes")[0] == 0
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 0})())
    assert command("--fetch", "v1-44.pth", "--yes")[0] == 0, "all of it is there"


def test_two_at_once_do_not_fetch_into_one_folder(
    command: Command, serve: Callable[..., Server]
) -> None:
    serve(whole(content=CONTENT))
    with locked(Path("w")):
        code, _, err = command("--fetch", "v1-44.pth", "--yes")
    assert code == 11
    assert "w: another process is fetching into this folder" in err
