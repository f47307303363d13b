"""The self-test on the clips of ../shared/clips that were not used to tune the matcher.

    nice python tests/benchmarks/selftest_clips.py ../shared/clips OUT

Writes OUT/clips (the clips of the held-out half, see plant_clips.py) and runs `curate selftest` on
them; OUT/selftest.json is what tests/golden/selftest.json holds. Its `versions` are those of the whole
detector: where one of them changes, test_selftest.py asks for this to be run again.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from plant_clips import REPEATS, is_held_out, source_of

# The same sound or recording in another file.
SAME_SOUND = ("data__audio__456440__inspectorj__bird-whistling-robin-single-13.hq",)


def held_out(clips: Path, *, held: bool = True) -> list[Path]:
    """The clips of one half, one of those that show or sound the same."""
    paths = sorted(
        path for name in ("video", "video_more", "audio") for path in (clips / name).iterdir()
    )
    stems = [path.stem for path in paths]
    kept = []
    for path in paths:
        name = path.stem if stems.count(path.stem) == 1 else f"{path.stem}_{path.suffix[1:]}"
        if not name.startswith((*REPEATS, *SAME_SOUND)) and is_held_out(source_of(name)) == held:
            kept.append(path)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--half", choices=("held", "tune"), default="held")
    args, more = parser.parse_known_args()
    folder = args.out / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = held_out(args.clips, held=args.half == "held")
    for path in chosen:
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    command = [str(Path(sys.executable).with_name("curate")), "selftest", str(folder), "--json"]
    command += ["--clips", str(len(chosen)), "--out", str(args.out / "run"), *more]
    ran = subprocess.run(command, capture_output=True, text=True)
    print(ran.stderr, file=sys.stderr)
    if ran.returncode not in (0, 3):
        sys.exit(ran.returncode)
    document = json.loads(ran.stdout)
    tables = document.pop("text")
    assert document["versions"].keys() >= {"picture", "sound", "judge"}, (
        "of the detector, not the hashes"
    )
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (args.out / "selftest.json").write_text(text, encoding="utf-8")
    print(tables)


if __name__ == "__main__":
    main()
