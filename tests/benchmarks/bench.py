"""The speed and memory that are promised, measured: `python tests/benchmarks/bench.py`.

Whole processes, interleaved (A B A B …), medians; seconds of CPU are noted beside, because they bear
a busy machine better. Peak memory is the resident set that the kernel reports for the process: mapped
pages of files count, the page cache does not. Every part writes `results/<part>.json` with machine,
commit, versions and commands, and the tables in README.md are made from these files. Parts: build,
json, fetch, increment, overlaps, help, large, growth, search, scan, verify; see README.md.

Only the standard library is imported here: a child starts out with the peak memory of its parent.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE / "results"
CURATE = str(Path(sys.executable).with_name("curate"))
MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Command:
    """One process to measure."""

    name: str
    words: list[str]
    prepare: Callable[[], None] = lambda: None  # before every run, not measured


@dataclass(frozen=True, kw_only=True)
class Target:
    """A promise: what is measured, and the most (or least) it may be."""

    what: str
    value: float
    limit: float
    unit: str = "x"
    at_least: bool = False

    @property
    def holds(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def as_json(self) -> dict[str, Any]:
        limit = f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}"
        return {"what": self.what, "value": round(self.value, 3), "limit": limit, "holds": self.holds}


class Bench:
    """Where scratch files lie, how often things run, and what was found so far."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.metadata: Path = given.metadata
        self.clips: Path = given.clips
        self.work: Path = given.work
        self.repeats: int = given.repeats
        self.sizes: list[int] = given.sizes

    def measure(self, commands: list[Command], *, repeats: int | None = None) -> dict[str, Any]:
        """Run the commands in turn; seconds, their median and the highest peak memory, by name."""
        found: dict[str, dict[str, Any]] = {
            c.name: {"command": self._shown(c.words), "seconds": [], "cpu_s": [], "peak_rss_mib": 0.0}
            for c in commands
        }
        for _ in range(repeats or self.repeats):
            for command in commands:
                command.prepare()
                seconds, cpu_s, peak_rss_mib = _run(command.words, self.work)
                entry = found[command.name]
                entry["seconds"].append(round(seconds, 3))
                entry["cpu_s"].append(round(cpu_s, 3))
                entry["peak_rss_mib"] = max(entry["peak_rss_mib"], round(peak_rss_mib, 1))
        for name, entry in found.items():
            entry["median_s"] = round(statistics.median(entry["seconds"]), 3)
            entry["median_cpu_s"] = round(statistics.median(entry["cpu_s"]), 3)
            say(
                f"  {name}: {entry['median_s']:.2f} s, {entry['median_cpu_s']:.2f} s of CPU, "
                f"{entry['peak_rss_mib']:.0f} MiB"
            )
        return found

    def _shown(self, words: list[str]) -> str:
        """The command without what is true of one machine only."""
        text = " ".join(repr(word) if " " in word else word for word in words)
        for path, name in (
            (CURATE, "curate"), (sys.executable, "python"), (str(self.work), "WORK"),
            (str(self.metadata), "METADATA"), (str(HERE), "tests/benchmarks"),
            (str(self.clips), "CLIPS"),
        ):  # fmt: skip
            text = text.replace(path, name)
        return text

    def fetched(self, folder: Path, metadata: Path, *options: str) -> Path:
        """The manifests folder `folder` with the metadata files fetched into it."""
        if not folder.is_dir():
            _run(
                [CURATE, "fetch", "--from", str(metadata), "--manifests", str(folder), *options],
                self.work,
            )
        return folder

    def real(self) -> Path:
        """Manifests of all of the real metadata."""
        folder = self.fetched(self.work / "real", self.metadata)
        _run([CURATE, "build", "--manifests", str(folder)], self.work)
        return folder

    @contextlib.contextmanager
    def synthetic(self, num_rows: int) -> Iterator[tuple[Path, list[str]]]:
        """Fetched synthetic metadata of that size and the options that name it; removed afterwards."""
        folder = self.work / f"rows-{num_rows}"
        say(f"  making {num_rows:,} rows")
        try:
            script = [sys.executable, str(HERE / "synthetic_rows.py"), str(folder)]
            _run([*script, "--rows", str(num_rows)], self.work)
            cards = ["--cards", str(folder / "cards")]
            manifests = self.fetched(folder / "manifests", folder / "metadata", *cards)
            shutil.rmtree(folder / "metadata")
            yield manifests, [*cards, "--manifests", str(manifests)]
        finally:
            shutil.rmtree(folder, ignore_errors=True)


# Compiled modules are kept, as on the machines of users.
_ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(words: list[str], work: Path) -> tuple[float, float, float]:
    """Wall seconds, seconds of CPU and peak resident MiB of one process."""
    with tempfile.TemporaryFile(dir=work) as errors:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors, env=_ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{' '.join(words)}: exit {process.returncode}\n{errors.read().decode()}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _forget(manifests: Path) -> Callable[[], None]:
    """What makes `curate build` build again: the completion records go."""

    def forget() -> None:
        for record in manifests.glob("*/build.json"):
            record.unlink()

    return forget


def _script(name: str, *words: object) -> list[str]:
    return [sys.executable, str(HERE / name), *(str(word) for word in words)]


def _ratio(found: dict[str, Any], name: str, base: str) -> float:
    return float(found[name]["median_s"]) / float(found[base]["median_s"])


def bench_build(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """`curate build` of all real metadata against a script that only reads and writes."""
    manifests = bench.real()
    out = bench.work / "bare"
    found = bench.measure([
        Command(name="bare", words=_script("bare_build.py", manifests, out)),
        Command(
            name="curate",
            words=[CURATE, "build", "--manifests", str(manifests)],
            prepare=_forget(manifests),
        ),
    ])  # fmt: skip
    _same_rows(manifests, out)
    return {"measured": found}, [
        Target(what="build / bare script, 2.4 M rows", value=_ratio(found, "curate", "bare"), limit=1.3),
        Target(what="build, peak memory", value=found["curate"]["peak_rss_mib"], limit=1536, unit="MiB"),
    ]


def _same_rows(manifests: Path, out: Path) -> None:
    """The bare script does the same work, or the ratio says nothing."""
    code = (
        "import duckdb, pathlib, sys\n"
        "duckdb.execute('set enable_progress_bar = false')\n"
        "for path in sorted(pathlib.Path(sys.argv[2]).glob('*.parquet')):\n"
        "    ours, bare = f\"from '{sys.argv[1]}/{path.stem}/clips.parquet'\", f\"from '{path}'\"\n"
        "    for one, other in ((ours, bare), (bare, ours)):\n"
        "        n = duckdb.sql(f'select count(*) from ({one} except all {other})').fetchall()[0][0]\n"
        "        assert n == 0, f'{path.stem}: {n} rows differ'\n"
    )
    subprocess.run([sys.executable, "-c", code, str(manifests), str(out)], check=True)


def bench_json(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """`curate build` of one JSON object of 200 MB against DuckDB alone."""
    folder, out = bench.work / "json", bench.work / "json-bare"
    _run(_script("wavcaps_rows.py", folder / "metadata", "--megabytes", 200), bench.work)
    manifests = folder / "manifests"
    fetch = [CURATE, "fetch", "wavcaps", "--from", str(folder / "metadata")]
    _run([*fetch, "--manifests", str(manifests)], bench.work)
    found = bench.measure([
        Command(name="bare", words=_script("bare_json.py", manifests, out)),
        Command(
            name="curate",
            words=[CURATE, "build", "wavcaps", "--manifests", str(manifests)],
            prepare=_forget(manifests),
        ),
    ])  # fmt: skip
    _same_rows(manifests, out)
    shutil.rmtree(folder)
    return {"measured": found}, [
        Target(
            what="build / DuckDB alone, 200 MB of JSON", value=_ratio(found, "curate", "bare"), limit=2
        ),
        Target(
            what="build of 200 MB of JSON, peak memory",
            value=found["curate"]["peak_rss_mib"],
            limit=1536,
            unit="MiB",
        ),
    ]


_FETCH = """
import sys
from pathlib import Path
from curation.transport import Transport
Transport(allow_private=True).fetch(sys.argv[1], Path(sys.argv[2]))
"""


def bench_fetch(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """One gigabyte from loopback, as `curate fetch` gets it (hashed, fsynced), against curl."""
    source, target, port = bench.work / "source", bench.work / "fetched", 8799
    with source.open("wb") as out:
        for _ in range(1000):
            out.write(os.urandom(MILLION))

    def forget() -> None:
        target.unlink(missing_ok=True)
        os.sync()  # so that nobody writes out what the other left

    url = f"http://127.0.0.1:{port}/rows.csv"
    server = subprocess.Popen(_script("file_server.py", source, port), stdout=subprocess.PIPE)
    assert server.stdout is not None, "the server has a pipe"
    server.stdout.readline()
    try:
        found = bench.measure([
            Command(name="curl", prepare=forget,
                    words=["curl", "--silent", "--output", str(target), url]),
            Command(name="fetch", prepare=forget,
                    words=[sys.executable, "-c", _FETCH, url, str(target)]),
        ])  # fmt: skip
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        forget()
        source.unlink()
    return {"measured": found}, [
        Target(what="curl / fetch, 1 GB from loopback", value=_ratio(found, "curl", "fetch"), limit=0.9,
               at_least=True),
    ]  # fmt: skip


def bench_increment(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """One more test list, beside building and comparing everything."""
    manifests, tests = bench.real(), "vggsound,audiocaps"
    mine = bench.work / "mine.csv"
    rows = (f"https://youtu.be/{i:010d}A?t={i % 300},dog" for i in range(15_000))
    mine.write_text("clip,label\n" + "\n".join(rows) + "\n")

    def forget_list() -> None:
        shutil.rmtree(manifests / "lists", ignore_errors=True)

    def forget_all() -> None:
        forget_list()
        _forget(manifests)()

    all_of_it = f"{CURATE} build --manifests {manifests} && {CURATE} overlaps --test {tests},{mine}"
    found = bench.measure([
        Command(
            name="everything",
            words=["sh", "-c", f"{all_of_it} --manifests {manifests}"],
            prepare=forget_all,
        ),
        Command(
            name="one more list",
            words=[CURATE, "overlaps", "--test", f"{tests},{mine}", "--manifests", str(manifests)],
            prepare=forget_list,
        ),
    ])  # fmt: skip
    shutil.rmtree(manifests / "lists")
    return {"measured": found}, [
        Target(
            what="one more test list of 15,000 / everything, 2.4 M rows",
            value=_ratio(found, "one more list", "everything"),
            limit=0.2,
        )
    ]


def bench_overlaps(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """`curate overlaps` on the real manifests against the same joins in SQL and in pandas."""
    manifests = bench.real()
    found = bench.measure([
        Command(name="bare", words=_script("bare_overlaps.py", manifests, bench.work / "b.parquet")),
        Command(name="curate", words=[CURATE, "overlaps", "--manifests", str(manifests)]),
        Command(name="pandas", words=_script("pandas_overlaps.py", manifests, bench.work / "p.parquet")),
    ])  # fmt: skip
    extra = found["curate"]["median_s"] - found["bare"]["median_s"]
    return {"measured": found}, [
        Target(what="overlaps minus bare script, 2.4 M rows", value=extra, limit=0.4, unit="s"),
        Target(
            what="pandas / overlaps, 2.4 M rows",
            value=_ratio(found, "pandas", "curate"),
            limit=5,
            at_least=True,
        ),
    ]


def bench_large(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """`curate overlaps` against pandas at 24 M rows."""
    with bench.synthetic(24 * MILLION) as (manifests, options):
        _run([CURATE, "build", "synthetic", "heldout", *options], bench.work)
        found = bench.measure([
            Command(name="curate", words=[CURATE, "overlaps", "--test", "heldout", *options]),
            Command(
                name="pandas",
                words=_script("pandas_overlaps.py", manifests, bench.work / "p.parquet", "heldout/test"),
            ),
        ])  # fmt: skip
        _expected_counts(options)
    return {"measured": found}, [
        Target(
            what="pandas / overlaps, 24 M rows",
            value=_ratio(found, "pandas", "curate"),
            limit=10,
            at_least=True,
        )
    ]


def _expected_counts(options: list[str]) -> None:
    """The planted overlaps, all of them and no others."""
    sys.path.insert(0, str(HERE))
    from synthetic_rows import EXPECTED

    words = [CURATE, "overlaps", "--json", "--test", "heldout", *options]
    document = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    counts = document["tests"]["heldout"]["overlap"]["synthetic"]["test_items"]
    assert counts == EXPECTED, f"{counts}, planted {EXPECTED}"


def bench_growth(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """build, overlaps and clean from one million rows to a hundred: seconds per million, memory."""
    sizes: dict[str, Any] = {}
    for num_rows in bench.sizes:
        say(f"  {num_rows:,} rows")
        with bench.synthetic(num_rows) as (manifests, options):
            # minutes at a hundred million: once; the others as often as everything else
            few = 1 if num_rows >= 50 * MILLION else bench.repeats
            build = [CURATE, "build", "synthetic", "heldout", *options]
            found = bench.measure(
                [Command(name="build", words=build, prepare=_forget(manifests))], repeats=few
            )
            bare = _script("bare_overlaps.py", manifests, bench.work / "bare.parquet", "heldout/test")
            overlaps = [CURATE, "overlaps", "--test", "heldout", *options]
            found |= bench.measure(
                [Command(name="bare overlaps", words=bare), Command(name="overlaps", words=overlaps)]
            )
            _expected_counts(options)
            found |= bench.measure(
                [Command(name="clean", words=[CURATE, "clean", "--test", "heldout", *options])],
                repeats=few,
            )
        for entry in found.values():
            entry["s_per_million"] = round(entry["median_s"] / (num_rows / MILLION), 4)
        sizes[str(num_rows)] = found
    first, last = (sizes[str(size)] for size in (bench.sizes[0], bench.sizes[-1]))
    at = f"{bench.sizes[-1] // MILLION} M rows"
    targets = [
        Target(what=f"overlaps / bare script, {at}", value=_ratio(last, "overlaps", "bare overlaps"),
               limit=1.2),
        Target(what=f"overlaps, peak memory, {at}", value=last["overlaps"]["peak_rss_mib"], limit=1024,
               unit="MiB"),
    ]  # fmt: skip
    for name in ("build", "clean"):
        peak = last[name]["peak_rss_mib"]
        targets.append(Target(what=f"{name}, peak memory, {at}", value=peak, limit=4096, unit="MiB"))
    for name in ("build", "overlaps", "clean"):
        growth = last[name]["s_per_million"] / first[name]["s_per_million"]
        targets.append(Target(what=f"{name}, time per row, {at} / first size", value=growth, limit=1.5))
    return {"sizes": sizes}, targets


def bench_help(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """`curate --help` against importing click."""
    found = bench.measure(
        [
            Command(name="import click", words=[sys.executable, "-c", "import click"]),
            Command(name="curate --help", words=[CURATE, "--help"]),
        ],
        repeats=max(bench.repeats, 15),
    )
    ratio = _ratio(found, "curate --help", "import click")
    return {"measured": found}, [Target(what="curate --help / import click", value=ratio, limit=3)]


def _search(bench: Bench, what: str, **options: object) -> dict[str, Any]:
    """One call of bench_search.py, in a process of its own; its document."""
    words = _script("bench_search.py", what)
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, env=_ENVIRONMENT)
    document: dict[str, Any] = json.loads(done.stdout)
    say(f"  {bench._shown(words)}: {json.dumps(document)}")
    return {"command": bench._shown(words), **document}


def bench_search(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """All pairs within a radius against brute force and faiss; a hundred million; the whole way."""
    rates = []
    for radius, faiss in ((8, "3x21x2,4x16x2"), (10, "3x21x3,4x16x2")):
        common = {"radius": radius, "repeats": 3, "faiss_queries": 500}
        rates += [
            _search(
                bench, "rates", size=size, queries=queries, brute=brute, faiss=f"flat,{faiss}", **common
            )
            for size, queries, brute in ((1e5, 1e5, 20_000), (1e6, 1e6, 2000))
        ]
        # Beyond, faiss takes milliseconds a query: one of its indexes, and few queries.
        rates.append(_search(bench, "rates", size=1e7, queries=1e6, brute=300, faiss=faiss.split(",")[0],
                             **(common | {"faiss_queries": 100})))  # fmt: skip
    large = []
    for size in (1e7, 1e8):
        _search(bench, "data", size=size, queries=1e6, work=bench.work)
        large += [_search(bench, "memory", radius=radius, work=bench.work) for radius in (8, 10)]
        for name in ("database", "queries"):
            (bench.work / f"{name}.npy").unlink()
    way = _search(bench, "way", radius=10)
    found = {(run["radius"], run["size"]): run["methods"] for run in rates}
    at_1e6, at_1e7 = found[8, 10**6], found[8, 10**7]
    brute = at_1e7["brute, eight at once"]["us_per_query"]
    multi_hash = min(at_1e6[name]["us_per_query"] for name in ("faiss 3x21x2", "faiss 4x16x2"))
    for methods in found.values():
        same = {methods[name]["pairs"] for name in methods if name.startswith("brute")}
        assert same == {methods["ours"]["brute_pairs"]}, f"brute force found other pairs: {methods}"
    assert way["planted"] == way["planted_found"], way
    return {"rates": rates, "large": large, "way": way, "table": _search_table(rates, large, way)}, [
        Target(what="brute force / search, 10 M hashes, radius 8",
               value=brute / at_1e7["ours"]["us_per_query"], limit=80, at_least=True),
        Target(what="faiss MultiHash / search, 1 M hashes, radius 8, all pairs",
               value=multi_hash / at_1e6["ours"]["us_per_query"], limit=5, at_least=True),
        Target(what="search, peak memory, 10 M hashes, radius 8",
               value=large[0]["peak_mib"], limit=572, unit="MiB"),
    ]  # fmt: skip


def _search_table(
    rates: list[dict[str, Any]], large: list[dict[str, Any]], way: dict[str, Any]
) -> list[str]:
    """The lines of README.md about the search."""
    names = ["ours", "brute, eight at once", "brute, plain loop", "faiss flat", "faiss 3x21x2",
             "faiss 3x21x3", "faiss 4x16x2"]  # fmt: skip
    lines = [
        "", "| search, µs of CPU a query | " + " | ".join(
            f"{run['size']:,}, radius {run['radius']}" for run in rates) + " |",
        "|---|" + "---:|" * len(rates),
    ]  # fmt: skip
    for name in names:
        cells = [f"{run['methods'][name]['us_per_query']:,.3g}" if name in run["methods"] else ""
                 for run in rates]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| a million queries against | radius | s of CPU | pairs | peak MiB |",
        "|---:|---:|---:|---:|---:|",
    ]
    for run in large:
        lines.append(f"| {run['size']:,} | {run['radius']} | {run['cpu_s']:.1f} | {run['pairs']:,} "
                     f"| {run['peak_mib']:,.0f} |")  # fmt: skip
    # Of two million clips the database has 120 M hashes, as good as the hundred million above.
    per_query_us = large[-1]["us_per_query"]
    test_s = way["queries"] * per_query_us / 1e6
    all_h = 2e6 * 20 * per_query_us / 1e6 / 3600
    lines += [
        "",
        f"VGGSound, test against train, radius {way['radius']}: {way['queries']:,} hashes of "
        f"{way['test_clips']:,} clips (20 frames, 6 views) and {way['size']:,} of "
        f"{way['train_clips']:,} (3 views): {way['wall_s']:.0f} s on two cores, {way['cpu_s']:.0f} s of "
        f"CPU, {way['pairs']:,} pairs of frames, all {way['planted']:,} planted ones within the radius "
        f"among them. The same test set against 2 M clips: {way['queries']:,} x {per_query_us:.1f} µs = "
        f"{test_s:.0f} s of one core. 2 M clips among themselves, one view against three: 40 M x "
        f"{per_query_us:.1f} µs = {all_h:.1f} h of one core, at most (each pair is looked for once).",
    ]
    return lines


def _linked(folder: Path, sources: list[Path]) -> Path:
    """A folder of links to these files."""
    folder.mkdir()
    for path in sources:
        (folder / path.name).symlink_to(path)
    return folder


def _print_of(words: list[str]) -> Any:
    """The JSON that a process prints; what it says where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, env=_ENVIRONMENT, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


_PEERS = {  # what pip is asked for, into a folder of its own; Pillow 10 took away what videohash calls
    "videohash": ("videohash", "pillow<10"),
}


def _peer(bench: Bench, name: str, folder: Path) -> dict[str, Any]:
    """Seconds of CPU of another program, measured once, or why there are none."""
    target = bench.work / f"peer-{name}"
    if name in _PEERS:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)]
        done = subprocess.run([*pip, *_PEERS[name]], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return {"why_not": (done.stderr.strip().splitlines() or ["pip failed"])[-1]}
    words = _script("bench_scan.py", name, folder, "--peers", target)
    try:
        _, cpu_s, peak_rss_mib = _run(words, bench.work)
    except SystemExit as failed:
        return {"why_not": str(failed).strip().splitlines()[-1]}
    say(f"  {name}: {cpu_s:.2f} s of CPU")
    return {"command": bench._shown(words), "median_cpu_s": round(cpu_s, 3),
            "peak_rss_mib": round(peak_rss_mib, 1), "cpu_s": [round(cpu_s, 3)]}  # fmt: skip


def bench_scan(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """`curate scan` of real clips against a bare decode of picture and sound, and against peers."""
    os.environ["OPENBLAS_NUM_THREADS"] = _ENVIRONMENT["OPENBLAS_NUM_THREADS"] = "1"
    folders = {"clips": ("video", "video_more"), "sounds": ("audio",)}
    pictures, sounds = (
        _linked(bench.work / name, [path for part in parts for path in (bench.clips / part).iterdir()])
        for name, parts in folders.items()
    )
    manifests, nothing = bench.work / "scanned", _linked(bench.work / "nothing", [])

    def scan(folder: Path, mode: str = "fast") -> Command:
        words = [CURATE, "scan", str(folder), "--workers", "1", "--hash", mode]
        name = "scan" if mode == "fast" else f"scan, {mode} mode"
        return Command(name=name, words=[*words, "--manifests", str(manifests)],
                       prepare=lambda: shutil.rmtree(manifests, ignore_errors=True))  # fmt: skip

    found = bench.measure([
        Command(name="bare decode", words=_script("bench_scan.py", "bare", pictures)),
        scan(pictures),
        Command(name="bare decode, start-up", words=_script("bench_scan.py", "bare", nothing)),
        Command(name="scan, start-up", words=_script("bench_scan.py", "start")),
    ])  # fmt: skip
    found |= bench.measure([
        scan(pictures, "reference"),
        Command(name="imagehash, 2 frames a second",
                words=_script("bench_scan.py", "imagehash", pictures)),
    ], repeats=min(bench.repeats, 2))  # fmt: skip
    num_files = len(list(pictures.iterdir()))
    for name in ("chromaprint", "videohash"):
        found[name] = _peer(bench, name, pictures)
    of_sounds = bench.measure([scan(sounds)], repeats=min(bench.repeats, 3))["scan"]
    each = _print_of(_script("bench_scan.py", "sounds", sounds))
    seconds = sum(row["seconds"] for row in each)
    per_10_s = {
        "child": sum(row["cpu_ms"] for row in each) / seconds * 10,
        "bare decode": sum(row["bare_cpu_ms"] for row in each) / seconds * 10,
        "scan, start-up included": of_sounds["median_cpu_s"] * 1e4 / seconds,
    }
    worst = max(row["cpu_ms"] / row["seconds"] * 10 for row in each)
    cpu_s = {name: entry.get("median_cpu_s", 0.0) for name, entry in found.items()}
    without = {name: cpu_s[name] - cpu_s[f"{name}, start-up"] for name in ("scan", "bare decode")}
    ratio = without["scan"] / without["bare decode"]
    document = {
        "measured": found, "files": num_files, "without_start_up_cpu_s": without,
        "without_start_up_ratio": round(ratio, 3),
        "sounds": {"files": each, "seconds": round(seconds, 1), "cpu_ms_per_10_s": per_10_s,
                   "highest_of_one_file": round(worst, 1), "scan": of_sounds},
    }  # fmt: skip
    document["table"] = _scan_table(document)
    return document, [
        Target(what=f"scan / bare decode, {num_files} video files, CPU with start-up",
               value=cpu_s["scan"] / cpu_s["bare decode"], limit=1.15),
        Target(what="scan of sound files, 10 s", value=per_10_s["child"], limit=40, unit="ms"),
    ]  # fmt: skip


def _scan_table(document: dict[str, Any]) -> list[str]:
    """The lines of README.md about the scan."""
    found, sounds = document["measured"], document["sounds"]
    bare_s = found["bare decode"]["median_cpu_s"]
    lines = [
        "",
        f"| scan, {document['files']} video files | s of CPU | / bare decode |",
        "|---|---:|---:|",
    ]
    for name, entry in found.items():
        if "why_not" in entry:
            lines.append(f"| {name} | not measured: {entry['why_not']} | |")
        elif name.endswith("start-up"):
            lines.append(f"| {name} | {entry['median_cpu_s']:.2f} | |")
        else:
            lines.append(
                f"| {name} | {entry['median_cpu_s']:.2f} | {entry['median_cpu_s'] / bare_s:.2f} |"
            )
    without = document["without_start_up_cpu_s"]
    lines += [
        f"| scan without start-up / bare decode without | {without['scan']:.2f} / "
        f"{without['bare decode']:.2f} | {document['without_start_up_ratio']:.3f} |",
        "",
        f"| {len(sounds['files'])} sound files, {sounds['seconds']:.0f} s | ms of CPU for 10 s |",
        "|---|---:|",
    ]
    lines += [f"| {name} | {ms:.1f} |" for name, ms in sounds["cpu_ms_per_10_s"].items()]
    lines.append(f"| child, the dearest file | {sounds['highest_of_one_file']:.1f} |")
    return lines


def bench_verify(bench: Bench) -> tuple[dict[str, Any], list[Target]]:
    """CPU per candidate pair, of copies and of clips that only look or sound alike."""
    os.environ["OPENBLAS_NUM_THREADS"] = _ENVIRONMENT["OPENBLAS_NUM_THREADS"] = "1"
    planted = _print_of(_script("bench_verify.py", "plant", bench.clips, bench.work))
    options = ("--repeats", min(bench.repeats, 3), "--most", 1500)
    words = _script("bench_verify.py", "pairs", bench.work, *options)
    found = _print_of(words)
    document = {"command": bench._shown(words), "planted": planted, **found}
    document["table"] = _verify_table(document)
    return document, [
        Target(what="verify, mean of a candidate pair", value=found["kinds"]["all"]["mean_ms"], limit=15,
               unit="ms"),
    ]  # fmt: skip


def _verify_table(document: dict[str, Any]) -> list[str]:
    """The lines of README.md about what a pair costs."""
    planted = document["planted"]
    title = f"verify, candidate pairs among {document['clips']} files of {planted['clips']} clips"
    columns = "pairs | auto | review | mean ms of CPU | picture | sound | reading | median | 95 % | most"
    lines = ["", f"| {title} | {columns} |", "|---|" + "---:|" * 10]
    for kind, row in document["kinds"].items():
        cells = [str(row[name]) for name in ("pairs", "auto", "review")]
        cells += [f"{row[name]:.2f}" for name in ("mean_ms", "picture_ms", "sound_ms", "reading_ms",
                                                  "median_ms", "p95_ms", "max_ms")]  # fmt: skip
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return lines


PARTS = {
    "build": bench_build,
    "json": bench_json,
    "fetch": bench_fetch,
    "increment": bench_increment,
    "overlaps": bench_overlaps,
    "help": bench_help,
    "large": bench_large,
    "growth": bench_growth,
    "search": bench_search,
    "scan": bench_scan,
    "verify": bench_verify,
}


def circumstances() -> dict[str, Any]:
    """What the numbers depend on: machine, commit, versions. No host name, no path."""
    cpu = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": {
            "cpu": cpu,
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(memory / 2**30, 1),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "curation", "manifests")),
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("duckdb", "pandas", "pyarrow", "click", "numpy", "numba", "av")
            },
        },
    }


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def write_tables() -> None:
    """Put the tables made from `results/` between the two marks in README.md."""
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition("<!-- results -->")
    _, _, after = rest.partition("<!-- end of results -->")
    documents = {
        name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in PARTS
        if (RESULTS / f"{name}.json").is_file()
    }
    lines = ["| what | measured | limit | |", "|---|---:|---:|---|"]
    for document in documents.values():
        for target in document["targets"]:
            unit = target["limit"].split()[-1]
            verdict = "holds" if target["holds"] else "**missed**"
            lines.append(
                f"| {target['what']} | {target['value']:.4g} {unit} | {target['limit']} | {verdict} |"
            )
    if "growth" in documents:
        lines += ["", "| | rows | seconds | of CPU | s per million rows | peak MiB |"]
        lines.append("|---|---:|---:|---:|---:|---:|")
    for size, found in documents.get("growth", {}).get("sizes", {}).items():
        for name, entry in found.items():
            lines.append(
                f"| {name} | {int(size):,} | {entry['median_s']:.2f} | {entry['median_cpu_s']:.2f} "
                f"| {entry['s_per_million']:.3f} "
                f"| {entry['peak_rss_mib']:,.0f} |"
            )
    for document in documents.values():
        lines += document.get("table", [])
    lines += ["", "| part | commit | machine |", "|---|---|---|"]
    for name, document in documents.items():
        machine = document["machine"]
        commit = document["commit"] + (" and changes" if document["uncommitted_changes"] else "")
        lines.append(f"| {name} | {commit} | {machine['cores']} x {machine['cpu']}, "
                     f"{machine['memory_gib']:g} GiB, load {machine['load_before']:g} |")  # fmt: skip
    table = "\n".join(lines)
    readme.write_text(
        f"{before}<!-- results -->\n{table}\n<!-- end of results -->{after}", encoding="utf-8"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--metadata", type=Path, default=ROOT.parent / "shared" / "metadata")
    shared = Path(os.environ.get("FOLEYPROOF_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--clips", type=Path, default=shared / "clips", help="real video and sound")
    parser.add_argument("--work", type=Path, help="scratch; at 100 M rows about 20 GB at a time")
    parser.add_argument("--only", choices=tuple(PARTS), action="append", help="may be given again")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=lambda text: [int(float(n)) for n in text.split(",")],
                        default=[MILLION, 10 * MILLION, 100 * MILLION], metavar="N,…")  # fmt: skip
    parser.add_argument("--table", action="store_true", help="only make the table in README.md anew")
    given = parser.parse_args()
    if given.table:
        write_tables()
        return 0
    RESULTS.mkdir(exist_ok=True)
    missed = 0
    with contextlib.ExitStack() as stack:
        if given.work is None:
            given.work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foleyproof-")))
        given.metadata, given.work = given.metadata.resolve(), given.work.resolve()
        given.clips = given.clips.resolve()
        given.work.mkdir(parents=True, exist_ok=True)
        bench = Bench(given)
        for name in given.only or PARTS:
            say(f"{name}: {PARTS[name].__doc__}")
            about = circumstances()
            measured, targets = PARTS[name](bench)
            document = {"part": name, **about, "repeats": given.repeats, **measured,
                        "targets": [target.as_json() for target in targets]}  # fmt: skip
            text = json.dumps(document, indent=1, ensure_ascii=False)
            (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            for target in targets:
                missed += not target.holds
                say(f"  {target.what}: {target.value:.3g} {target.unit}, limit {target.limit:g}: "
                    f"{'holds' if target.holds else 'MISSED'}")  # fmt: skip
            write_tables()
    say(f"{len(given.only or PARTS)} parts measured, {missed} limits missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
