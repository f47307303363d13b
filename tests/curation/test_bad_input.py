"""What bad input gets: each case of `bad_input/cases.py` is run here and printed in curation/README.md.

Whatever happens, no temporary file stays, nothing is half written, and the run after the repair
works. `python tests/curation/test_bad_input.py` prints the table for the README.
"""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from bad_input.bench import Bench, FillingUp
from bad_input.cases import CASES as STAGE_CASES
from bad_input.cases import Case
from bad_input.list_cases import LIST_CASES
from bad_input.miniatures import CLOTHO_OF_HOSTILE, HOSTILE, WHOLE, K
from small_disk import mounted

from curation.tables import render

CASES = [*STAGE_CASES, *LIST_CASES]
README = Path(__file__).resolve().parents[2] / "curation" / "README.md"
BEGIN, END = "<!-- bad input -->\n", "<!-- /bad input -->"


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


@pytest.mark.slow
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
        assert "1 row = 1 kept" in outcome.out
        assert outcome.out.count("\n") == 4, "an id ended a line"
        assert not set(outcome.out) & {"\x1b", "\0", "\u202e"}
    after = {path for path in tmp_path.rglob("*") if bench.manifests not in path.parents}
    assert after == before | {bench.manifests}
    allowed = re.compile(r"[a-z0-9_./]+|raw/.*|[a-z0-9_]+/raw/.*|\.lock")
    for path in bench.manifests.rglob("*"):
        assert allowed.fullmatch(str(path.relative_to(bench.manifests))), path


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("stage", ["fetch", "build", "overlaps", "clean"])
def test_disk_that_fills_up_at_any_write_leaves_whole_files_and_the_next_run_works(
    stage: str, every: int, ready: Bench, tmp_path: Path
) -> None:
    """For each n: full at the n-th write; each file is as before or as after, none in between."""

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
    for n in range(1, 200, every):
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
@pytest.mark.parametrize(
    "sizes", [(20, 80, 320), pytest.param((12, 20, 40, 80, 160, 320), marks=pytest.mark.soak)]
)
def test_small_disk_ends_in_exit_14_and_works_once_it_is_larger(
    sizes: tuple[int, ...], ready: Bench, tmp_path: Path
) -> None:
    """The real thing, where this user may mount a disk in memory; the test above runs everywhere."""
    disk = tmp_path / "disk"
    disk.mkdir()
    bench = Bench(tmp_path / "bench")
    bench.put(WHOLE)
    met = set()
    for kib in sizes:
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


if __name__ == "__main__":
    print(table())
