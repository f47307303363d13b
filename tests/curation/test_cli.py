"""The commands as people and scripts meet them: exit codes, help, JSON, sums, talk and silence.

The options are frozen in options.txt, so that changing one is a decision:
`python tests/curation/test_cli.py > tests/curation/options.txt`.
"""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from duckdb.func import PythonUDFType
from option_lines import option_lines

from curation import cli, console, errors
from curation.catalog.store import one_thread, work_connection
from curation.corpus.synthetic import write_media
from curation.media.decoder import DecoderConfig
from curation.media.run import scan_media

OPTIONS = Path(__file__).with_name("options.txt")
COMMANDS = dict(cli.commands())
HEAVY = ("torch", "duckdb", "av", "pandas", "pyarrow", "numpy")
Run = Callable[..., tuple[int, str, str]]

# How each command is run below, in this order; CORPUS is its metadata.
# options that mean something of their own there, which their help says
OTHERWISE = {
    ("sql", "--format"), ("selftest", "--format"), ("selftest", "--out"), ("scan", "--dataset"),
    ("duplicates", "--test"), ("duplicates", "--train"),
}  # fmt: skip
LINES: dict[str, tuple[str, ...]] = {
    "corpus": ("corpus", "small"),
    "datasets": ("datasets",),
    "fetch": ("fetch", "--from", "CORPUS"),
    "build": ("build",),
    "card new": ("card", "new", "CORPUS/avsync15/asva_metadata.csv", "--dataset", "mine", "--replace",
                 "--manifests", "other"),
    "sql": ("sql", "select dataset, count(*) as clips from clips group by all order by all"),
    "overlaps": ("overlaps", "--test", "vggsound,audiocaps"),
    "scan": ("scan", "media", "--dataset", "clotho"),
    "duplicates": ("duplicates", "--test", "clotho"),
    "selftest": ("selftest", "media/clotho", "--clips", "1", "--edits", "sound_offset_2.1s"),
    "clean": ("clean", "--test", "vggsound,audiocaps,clotho", "--name", "paper"),
    "blame": ("blame", "4PjEi5fFD6A"),
    "verify": ("verify",),
    "export": ("export", "clean/paper", "--to", "huggingface", "--out", "exported"),
    "revoke": ("revoke", "4PjEi5fFD6A", "--dry-run"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(corpus: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of our own in which the corpus is fetched and built."""
    folder: Path = tmp_path_factory.mktemp("cli")
    shutil.copytree(corpus.manifests, folder / "manifests")
    shutil.rmtree(folder / "manifests" / "clean", ignore_errors=True)
    write_media(folder / "media")
    scan_media(
        folder / "manifests", (), folder / "media", ("clotho",), None, DecoderConfig(),
        workers=2, share=None, progress=lambda *told: None,
    )  # fmt: skip
    return folder


@pytest.fixture
def here(place: Path, corpus: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """The words of a command, with that folder as the working folder."""
    monkeypatch.chdir(place)
    return lambda name: [word.replace("CORPUS", str(corpus.metadata)) for word in LINES[name]]


# ---- exit codes -------------------------------------------------------------------------------------


def test_every_error_has_a_documented_exit_code() -> None:
    readme = Path(cli.__file__).with_name("README.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"(?:Exit codes: |·\s)(\d+) ", readme)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {kind.exit_code for kind in kinds} | {0, 3, 10, 130} == documented
    for kind in kinds:
        assert kind.__name__ in (errors.__doc__ or ""), f"{kind.__name__} is not in the tree"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, ("datasets",)),
        (0, ("--help",)),
        (0, ("--version",)),
        (1, ("build", "esc50", "--manifests", "empty")),
        (2, ()),
        (2, ("nonsense",)),
        (2, ("datasets", "--nonsense")),
        (2, ("overlaps", "--test", "nonsense")),
        (2, ("blame",)),
        (2, ("blame", "4PjEi5fFD6A", "--test-item", "4PjEi5fFD6A")),
        (2, ("verify", "nonsense")),
        (10, ("overlaps", "--fail-on-overlap")),
        (0, ("overlaps", "--fail-on-overlap", "--train", "esc50/fold1")),
        (12, ("clean", "--name", "taken", "--policy", "report")),
    ],
)
def test_command_ends_with_its_exit_code(
    code: int, words: tuple[str, ...], here: Any, curate: Run
) -> None:
    if "taken" in words:
        assert curate("clean", "--name", "taken")[0] == 0
    found, _, err = curate(*words)
    assert found == code, err


@pytest.mark.parametrize("error", [kind for kind in vars(errors).values() if isinstance(kind, type)])
def test_error_is_one_message_and_its_exit_code(
    error: type[errors.FoleyproofError], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    @click.command()
    def failing() -> None:
        raise error("came in, expected, do")

    monkeypatch.setattr(sys, "argv", ["failing"])
    assert console.run(failing, "curate") == error.exit_code
    assert capsys.readouterr().err == "curate: came in, expected, do\n"


def test_interrupted_command_ends_with_130_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["interrupted"])
    assert console.run(interrupted, "curate") == 130
    assert "curate: interrupted; run the same command again" in capsys.readouterr().err


def _signal_soon(after_s: float = 0.3) -> None:
    threading.Timer(after_s, os.kill, [os.getpid(), signal.SIGINT]).start()


@pytest.mark.parametrize(
    "slow", ["sum(range)", "sum(slow(range))"], ids=["in a query", "in our part of it"]
)
def test_signal_during_a_query_ends_with_130(
    slow: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    @click.command()
    def querying() -> None:
        with work_connection(tmp_path) as db:
            db.create_function(
                "slow", lambda values: values, ["BIGINT"], "BIGINT", type=PythonUDFType.ARROW
            )
            with one_thread(db):
                _signal_soon()
                db.execute(f"select {slow} from range(100_000_000_000)")

    monkeypatch.setattr(sys, "argv", ["querying"])
    begun = time.monotonic()
    assert console.run(querying, "curate") == 130
    assert time.monotonic() - begun < 30
    assert "curate: interrupted; run the same command again" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_signal_that_was_swallowed_once_comes_again(capsys: Any, monkeypatch: Any) -> None:
    swallowed = []

    @click.command()
    def deaf() -> None:
        _signal_soon()
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            swallowed.append(True)
        time.sleep(30)

    monkeypatch.setattr(sys, "argv", ["deaf"])
    former, begun = signal.getsignal(signal.SIGINT), time.monotonic()
    assert console.run(deaf, "curate") == 130
    assert swallowed
    assert time.monotonic() - begun < 20
    assert signal.getsignal(signal.SIGINT) is former


def test_our_own_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["broken"])
    with pytest.raises(ZeroDivisionError):
        console.run(broken, "curate")


# ---- help -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_a_sentence_and_shows_an_example(name: str, curate: Run) -> None:
    code, out, _ = curate(*name.split(), "--help")
    sentence = (COMMANDS[name].help or "").split("\n")[0]
    assert code == 0
    assert re.fullmatch(r"[A-Z].*[^.]\.", sentence)
    assert f"Example: curate {name}" in out
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
            assert parameter.help.endswith("."), f"{name} {parameter.opts[0]}"


def test_same_option_means_the_same_everywhere() -> None:
    meanings: dict[str, set[tuple[Any, ...]]] = {}
    for name, command in COMMANDS.items():
        for parameter in command.params:
            # blame asks a clean manifest where others make one
            asks = name == "blame" and parameter.opts[0] in ("--name", "--test")
            asks = asks or (name, parameter.opts[0]) in OTHERWISE
            if isinstance(parameter, click.Option) and not asks:
                meaning = (parameter.help, parameter.metavar, str(parameter.default))
                meanings.setdefault(parameter.opts[0], set()).add(meaning)
    assert [option for option, found in meanings.items() if len(found) > 1] == []


def test_options_are_those_of_the_frozen_list() -> None:
    assert options() == OPTIONS.read_text(encoding="utf-8"), f"changed: see {Path(__file__).name}"


def options() -> str:
    """Every command with its arguments and options, a line each."""
    return option_lines("curate", COMMANDS)


@pytest.mark.parametrize(
    "words", [["--help"], *([*name.split(), "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    assert imported_by(words) == set()


@pytest.mark.parametrize("name", ["datasets", "sql", "overlaps", "blame", "verify"])
def test_command_imports_neither_torch_nor_pandas(name: str, here: Any) -> None:
    assert imported_by(here(name)) & {"torch", "pandas", "av"} == set()


def imported_by(words: list[str]) -> set[str]:
    """Which of the heavy packages a fresh interpreter has imported after `curate …`."""
    program = (
        "import sys; from curation.cli import curate; from curation.console import run; "
        "sys.argv[0] = 'curate'; "
        "code = run(curate, 'curate'); "
        f"print('heavy:', *sorted(set({HEAVY}) & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


# ---- what is printed --------------------------------------------------------------------------------


def test_every_command_is_run_here() -> None:
    assert list(LINES) == list(COMMANDS)


# what takes longest is left to the soak
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.soak) if name in ("duplicates", "selftest") else name
        for name in LINES
    ],
)
def test_json_is_one_document_on_stdout_and_the_talk_is_on_stderr(
    name: str, here: Any, curate: Run
) -> None:
    if name in ("blame", "verify", "export"):
        curate(*here("clean"))
    code, out, err = curate(*here(name), "--json")
    assert code == (3 if name in ("scan", "duplicates") else 0), err  # most of Clotho has no media
    document = json.loads(out)
    assert document["command"] == name
    assert err.splitlines() == [document["summary"], err.splitlines()[-1]]
    assert err.splitlines()[-1].startswith("next: ")


@pytest.mark.parametrize(
    "words", [("overlaps", "--test", "nonsense"), ("build", "nonsense"), ("fetch",)]
)
def test_json_of_a_command_that_cannot_start_leaves_stdout_empty(
    words: tuple[str, ...], here: Any, curate: Run
) -> None:
    code, out, err = curate(*words, "--json")
    assert (code, out) == (2, "")
    assert err.startswith("curate: ")


@pytest.mark.parametrize("name", LINES)
def test_last_line_is_a_summary_whose_numbers_add_up(name: str, here: Any, curate: Run) -> None:
    if name in ("blame", "verify", "export"):
        curate(*here("clean"))
    code, out, err = curate(*here(name))
    assert code == (3 if name in ("scan", "duplicates") else 0), err
    summary = out.splitlines()[-1]
    sums = [added_up(part) for part in re.split(r"; ", summary)]
    if name == "corpus":  # what was written, no sum
        assert re.match(r"\d+ metadata files of \d+ datasets", summary)
    else:
        assert any(sums), summary
    assert all(found is not False for found in sums), summary
    assert err.splitlines()[-1].startswith("next: ")


def added_up(text: str) -> bool | None:
    """Whether "7 rows = 5 kept + 2 failed (…)" or "7 sets: 5 built, 2 not" holds; None: no sum."""
    text = re.sub(r"^clean/\w+: |\(.*?\)", "", text)
    sides = re.match(r"(?:.*= )?([\d,]+) [^=:+]*?(?::|=) (\d.*)", text)
    if not sides:
        return None
    parts = re.split(r" \+ |, ", sides[2])
    numbers = [re.match(r"[\d,]+", part) for part in parts]
    assert all(numbers), text
    total = int(sides[1].replace(",", ""))
    return total == sum(int(number[0].replace(",", "")) for number in numbers if number)


def test_sums_that_do_not_add_up_are_seen() -> None:
    assert added_up("8 rows = 7 kept + 1 failed (bad_id 1)")
    assert added_up("8 rows = 7 kept + 2 failed (bad_id 2)") is False
    assert added_up("2 test sets x 3 training sets = 6 pairs of sets: 5 overlap by id, 1 do not")
    assert (
        added_up("2 test sets x 3 training sets = 6 pairs of sets: 5 overlap by id, 2 do not") is False
    )
    assert added_up("3 evidence rows in overlaps.parquet") is None


@pytest.mark.parametrize("format_", ["markdown", "latex", "csv"])
def test_formats_for_papers_leave_the_summary_to_stderr(format_: str, here: Any, curate: Run) -> None:
    code, out, err = curate("overlaps", "--format", format_)
    assert code == 0
    assert "pairs of sets" not in out
    assert "pairs of sets" in err


@pytest.mark.parametrize("name", LINES)
def test_no_progress_where_stderr_is_no_terminal(name: str, here: Any, curate: Run) -> None:
    _, out, err = curate(*here(name))
    assert not set("\r\x1b\b") & set(out + err)


def test_progress_is_on_a_terminal_and_never_on_stdout(tmp_path: Path) -> None:
    metadata = tmp_path / "metadata" / "audioset"
    metadata.mkdir(parents=True)
    rows = (f'{n:010d}A, {n % 600}.000, {n % 600 + 10}.000, "/m/09x0r"\n' for n in range(300_000))
    (metadata / "balanced_train_segments.csv").write_text("".join(rows))
    manifests = ["--manifests", str(tmp_path / "manifests")]
    program = [sys.executable, "-c", "from curation.cli import main; main()"]
    terminal, side = pty.openpty()
    fetch = [*program, "fetch", *manifests, "--from", str(metadata.parent)]
    subprocess.run(fetch, check=True, capture_output=True)
    process = subprocess.Popen([*program, "build", *manifests], stdout=subprocess.PIPE, stderr=side)
    os.close(side)
    shown = b""
    while True:
        try:
            shown += (chunk := os.read(terminal, 1 << 16))
        except OSError:  # how Linux says that the other side was closed
            break
        if not chunk:
            break
    out, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == 0
    assert b"\r\x1b[Kbuild " in shown
    assert not set(b"\r\x1b") & set(out)


def test_next_step_names_the_folders_that_were_given(here: Any, curate: Run, tmp_path: Path) -> None:
    folder = tmp_path / "my manifests"
    code, _, err = curate("fetch", "--from", tmp_path, "--manifests", folder)
    assert code == 0
    assert err.splitlines()[-1] == f"next: curate fetch --from DIR --manifests '{folder}'"
    assert "--manifests" not in curate("datasets")[2]


def test_fetch_that_finds_nothing_says_where_it_looked(curate: Run, tmp_path: Path) -> None:
    _, out, _ = curate("fetch", "esc50", "--from", tmp_path, "--manifests", tmp_path / "m")
    expected = tmp_path / "esc50" / "esc50.csv"
    assert f"{tmp_path} holds none of these files, expected them as {expected}" in out


def test_clean_says_what_is_incomplete(corpus: Any, curate: Run, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    shutil.copytree(corpus.manifests / "audioset" / "raw", manifests / "audioset" / "raw")
    shutil.copytree(corpus.manifests / "vggsound" / "raw", manifests / "vggsound" / "raw")
    (manifests / "audioset" / "raw" / "balanced_train_segments.csv").unlink()
    at = ("--manifests", manifests)
    assert curate("build", *at)[0] == 0
    code, out, err = curate("clean", "--test", "vggsound", *at)
    assert code == 0, err
    assert "audioset: INCOMPLETE, built without balanced_train_segments.csv\n" in out


def test_build_goes_on_past_a_damaged_output_of_another_command(
    place: Path, corpus: Any, curate: Run, tmp_path: Path
) -> None:
    manifests = tmp_path / "manifests"
    shutil.copytree(corpus.manifests, manifests)
    (manifests / "overlaps.parquet").write_bytes(b"no Parquet")
    code, out, err = curate("build", "--manifests", manifests)
    assert code == 0, err
    assert re.search(r"^no view overlaps: .* — make it anew: curate overlaps", out, flags=re.M)


# ---- ids that look like options ---------------------------------------------------------------------


def test_id_that_begins_with_a_dash_needs_no_quoting(here: Any, curate: Run, corpus: Any) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(corpus.manifests / "audioset" / "clips.parquet", columns=["source_id"])
    dashed = [i for i in table["source_id"].to_pylist() if i and i.startswith("-")][:3]
    assert dashed, "the corpus has no id that begins with -"
    for clip in dashed:
        for words in (("blame", clip), ("blame", "--", clip), ("blame", f"--test-item={clip}")):
            code, out, err = curate(*words)
            assert code == 0, err
            assert out.startswith(f"{clip}: read as youtube:{clip}"), words


@pytest.mark.parametrize("text", ["-rf", "-I-UtrFl4m8x", "--unknown-thing"])
def test_text_that_begins_with_a_dash_is_asked_for_not_obeyed(text: str, here: Any, curate: Run) -> None:
    code, _, err = curate("blame", text)
    assert code == 2
    assert err.startswith(f"curate: {text!r}: no built manifest has such a clip")


if __name__ == "__main__":
    print(options(), end="")
