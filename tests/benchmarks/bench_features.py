#!/usr/bin/env python
"""Everything that is promised of the speed of features, measured one part after another.

    python tests/benchmarks/bench_features.py WORK [--only PART]… [--table]

Each part is a script of its own, run in a fresh process; what it prints becomes `results/<part>.json`
with machine, commit and command, and a line for each promise in features/README.md. WORK holds what is
built to be read (1 GB). Every figure is a ratio within one run: on a machine that does something else
too, the ratios of times by the clock are worth little.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import RESULTS, ROOT, circumstances

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
CLIPS = Path(os.environ.get("FOLEYPROOF_SHARED", ROOT.parent / "shared")) / "clips"
Row = tuple[str, float, str, bool]  # what, value, limit, whether it holds


def of_encoder(name: str) -> Callable[[dict[str, Any]], list[Row]]:
    """Promises of an encoder on a CPU."""

    def rows(found: dict[str, Any]) -> list[Row]:
        title = f"{name}, fp32, {found['threads']} threads".replace("1 threads", "1 thread")
        cosine = min(found["bf16_cosine"].values())
        return [
            (f"{title}: share of the best matrix product", found["of_peak"], "≥ 0.7",
             found["of_peak"] >= 0.7),
            (f"{title}: plain modules / ours, seconds", found["plain_over_ours"], "≥ 1",
             found["plain_over_ours"] >= 1),
            (f"{name}: cosine of bf16 to fp32, the least", cosine, "≥ 0.999", cosine >= 0.999),
        ]  # fmt: skip

    return rows


def of_reader(found: dict[str, Any]) -> list[Row]:
    """Promises of the reader, and of how large files are."""
    peers = [
        (f"reader, mapped: rate / that of {peer}", found["ratio"][peer]["mmap"], f"≥ {least:g}",
         found["ratio"][peer]["mmap"] >= least)
        for peer, least in found["targets"].items()
    ]  # fmt: skip
    whole = found["files"]["folder_to_minimum"]
    return [*peers, ("bytes of a folder / payload and index", whole, "≤ 1.01", whole <= 1.01)]


def of_inputs(found: dict[str, Any]) -> list[Row]:
    """What feeding costs; nothing is promised of it."""
    return [("feeding / decode, RGB and resize, CPU", 1 / found["of_decode_and_small"], "", True)]


def of_extract(found: dict[str, Any]) -> list[Row]:
    """Promises of the whole."""
    return [(row["what"], row["value"], row["limit"], row["holds"]) for row in found["targets"]]


Part = tuple[list[str], Callable[[dict[str, Any]], list[Row]]]


def parts(work: Path) -> dict[str, Part]:
    """The words of each part, and what is promised of what it prints."""
    videos = sorted(str(path) for path in (CLIPS / "video").glob("*"))
    encoders: dict[str, Part] = {}
    for threads in ("1", "2"):
        for rate in ("16000", "44100"):
            encoders[f"vae_{rate}_{threads}"] = (
                ["bench_vae.py", "--sr", rate, "--threads", threads],
                of_encoder(f"VAE encode, {rate} Hz"),
            )
        encoders[f"synchformer_{threads}"] = (
            ["bench_synchformer.py", "--threads", threads], of_encoder("Synchformer"),
        )  # fmt: skip
    return encoders | {
        "reader": (["bench_reader.py", str(work / "reader"), "--rounds", "15"], of_reader),
        "inputs": (["bench_inputs.py", *videos], of_inputs),
        "extract": (["bench_extract.py", str(work / "extract"), "--clips", "24"], of_extract),
    }


def measure(
    family: str, name: str, words: list[str], rows: Callable[[dict[str, Any]], list[Row]]
) -> list[Row]:
    """Run a part and keep what it printed."""
    about = circumstances()
    command = [sys.executable, str(HERE / words[0]), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        raise SystemExit(f"{name}: printed no JSON, exit {done.returncode}:\n{done.stderr}") from error
    promised = rows(found)
    shown = ["python", f"tests/benchmarks/{words[0]}", *words[1:]]
    document = {
        **found, **about, "part": name,
        "command": " ".join(word if "/" not in word or word == shown[1] else "PATH" for word in shown),
        "promises": [list(row) for row in promised],
    }  # fmt: skip
    text = json.dumps(document, indent=1, ensure_ascii=False)
    (RESULTS / f"{family}_{name}.json").write_text(text + "\n", encoding="utf-8")
    return promised


def write_table(family: str, everything: dict[str, Part]) -> None:
    """Put the lines of all results between the two marks in the README of that package."""
    readme = ROOT / family / "README.md"
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{readme}: no {BEGIN} … {END}, expected both marks — write them there")
    lines = ["| what | measured | limit | | commit, load |", "|---|---:|---:|---|---|"]
    for name, (_, rows) in everything.items():
        path = RESULTS / f"{family}_{name}.json"
        if not path.is_file():
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        for what, value, limit, holds in rows(document):
            verdict = "" if not limit else "holds" if holds else "**missed**"
            where = f"{document['commit']}, {document['machine']['load_before']:g}"
            lines.append(f"| {what} | {value:.5g} | {limit} | {verdict} | {where} |")
    table = "\n".join(lines)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def run(family: str, about: str, parts_in: Callable[[Path], dict[str, Part]]) -> int:
    """The command: measure what is asked for, and make the table; 1 where a promise is missed."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", action="append", metavar="PART", help="may be given again")
    parser.add_argument("--table", action="store_true", help="only make the table anew")
    given = parser.parse_args()
    everything = parts_in(given.work.resolve())
    if unknown := set(given.only or ()) - set(everything):
        parser.error(f"--only {', '.join(sorted(unknown))}, expected some of {', '.join(everything)}")
    missed = 0
    for name in () if given.table else given.only or everything:
        for what, value, limit, holds in measure(family, name, *everything[name]):
            missed += not holds
            verdict = "holds" if holds else "MISSED"
            print(f"{what}: {value:.5g}, limit {limit or 'none'}: {verdict}", flush=True)
    write_table(family, everything)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(run("features", (__doc__ or "").splitlines()[0], parts))
