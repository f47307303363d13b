"""The cases of bad input that are lists of somebody's own, given to --test, --train or `card new`."""

# ruff: noqa: E501 - the cases are a table: one to three lines each read better than five

import random
from collections.abc import Callable
from pathlib import Path

from bad_input.cases import Case

IDS = ("FhaYvI1yrUM", "4PjEi5fFD6A", "--PJHxphWEs", "abcdefghijk")


def beside(**files: str | bytes) -> Callable[[Path], None]:
    """Damage: these files, `_` for a dot, lie in the folder of the metadata."""

    def write(manifests: Path) -> None:
        for name, content in files.items():
            path = manifests.parent / "metadata" / name.replace("_", ".", 1).replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def with_garbage(every: int) -> str:
    """1,000 lines, each `every`th of which is no row of ids."""
    garbage = random.Random(0)
    alphabet = "abc,;\"' \t#éß0123"
    lines = ["id,start,label"]
    for i in range(1000):
        row = f"{IDS[0][:8]}{i:03d},{i},dog"
        lines.append("".join(garbage.choices(alphabet, k=20)) if i % every == 7 else row)
    return "\n".join(lines) + "\n"


def test_of(name: str) -> tuple[str, ...]:
    return ("overlaps", "--test", f"METADATA/{name}", "--train", "vggsound")


_TWICE = "".join(f"{id_},30\n" for id_ in IDS)
LIST_CASES = [
    Case(input="`--test my.csv` that is not there", stage="overlaps", exit=2, command=test_of("my.csv"),
         says="metadata/my.csv: no such file, expected a list of clips"),
    Case(input="`--test my.csv` that is a folder", stage="overlaps", exit=2, command=test_of("my.csv"),
         damage=beside(my_csv__x="a"), says="metadata/my.csv: no such file, expected a list of clips"),
    Case(input="`--test my.csv` of zero bytes", stage="overlaps", exit=1, command=test_of("my.csv"),
         damage=beside(my_csv=""), says="metadata/my.csv: is empty, expected metadata"),
    Case(input="`--test my.csv` with a header and no rows", stage="overlaps", exit=2, command=test_of("my.csv"),
         damage=beside(my_csv="id,start\n"), says="metadata/my.csv: no column of ids"),
    Case(input="`--test my.csv` without a column of ids", stage="overlaps", exit=2, command=test_of("my.csv"),
         damage=beside(my_csv="n,name\n1,dog\n2,cat\n"),
         says="metadata/my.csv: no column of ids: cells that name a YouTube or Freesound recording are ('n': '1' 0%; 'name': 'dog' 0%)"),
    Case(input="`--test my.csv` that is a video", stage="overlaps", exit=2, command=test_of("my.csv"),
         damage=beside(my_csv=random.Random(1).randbytes(5000)), says="metadata/my.csv: no column of ids"),
    Case(input="`--test my.parquet` that is none", stage="overlaps", exit=1, command=test_of("my.parquet"),
         damage=beside(my_parquet="id\na\n"), says="metadata/my.parquet: not Parquet"),
    Case(input="two lists of one name", stage="overlaps", exit=2,
         command=("overlaps", "--test", "METADATA/my.csv,METADATA/../my.csv", "--train", "vggsound"),
         damage=beside(my_csv=_TWICE), says="metadata/my.csv and metadata/../my.csv are two lists of one name"),
    Case(input="a list with 1 % garbage lines", stage="overlaps", exit=0, command=test_of("my.csv"),
         damage=beside(my_csv=with_garbage(100)),
         says="my.csv: 1,000 rows = 990 clips + 0 that repeat one + 10 unknown; ids: column 'id'"),
    Case(input="a list with a quote that never ends", stage="overlaps", exit=0, command=test_of("my.csv"),
         damage=beside(my_csv=f'id,label\n{IDS[0]},"dog\n{IDS[1]},cat\n{IDS[2]},cat\n'),
         says="my.csv: 3 rows = 3 clips + 0 that repeat one + 0 unknown"),
    Case(input="a list in UTF-16 with tabs, links, file names and a blank line", stage="overlaps", exit=0,
         command=test_of("my.txt"),
         damage=beside(my_txt=f"https://youtu.be/{IDS[0]}?t=21\ta\n\nY{IDS[1]}.wav\tb\nyoutube:{IDS[2]}\tc\n/x/{IDS[3]}_000030.mp4\td\n".encode("utf-16")),
         says="my.txt: 4 rows = 4 clips + 0 that repeat one + 0 unknown"),
    Case(input="a list that is mostly garbage", stage="overlaps", exit=2, command=test_of("my.csv"),
         damage=beside(my_csv="id\n" + f"{IDS[0]}\nx\ny\n" * 9), says="metadata/my.csv: no column of ids"),
    Case(input="a list that is mostly garbage, after 2,000 lines", stage="overlaps", exit=1, command=test_of("my.csv"),
         damage=beside(my_csv="".join(f"{IDS[0][:7]}{i:04d}\n" for i in range(2000)) + "x\n" * 2100),
         says="lists/my.csv/raw/my.csv: row 2001: bad_id: id 'x'"),
    Case(input="a list whose columns have no names, or one name", stage="overlaps", exit=0, command=test_of("my.csv"),
         damage=beside(my_csv=f"a,a,\n{IDS[0]},1,2\n{IDS[1]},2,3\n"),
         says="my.csv: 2 rows = 2 clips + 0 that repeat one + 0 unknown; ids: column 'a'"),
    Case(input="`card new` of a file that is not there", stage="card new", exit=2,
         command=("card", "new", "METADATA/none.csv"), says="metadata/none.csv: no such file"),
    Case(input="`card new` with a column that is not there", stage="card new", exit=2,
         command=("card", "new", "METADATA/my.csv", "--id", "x"), damage=beside(my_csv=f"id\n{IDS[0]}\n"),
         says="metadata/my.csv: no column 'x', expected one of: id"),
    Case(input="`card new` named like a card that ships", stage="card new", exit=2,
         command=("card", "new", "METADATA/vggsound.csv"), damage=beside(vggsound_csv=_TWICE),
         says="vggsound: there is a card of that name, expected a new name"),
    Case(input="`card new` with a path for a name", stage="card new", exit=2,
         command=("card", "new", "METADATA/my.csv", "--dataset", "../x"), damage=beside(my_csv=_TWICE),
         says="--dataset '../x', expected lower case letters"),
]  # fmt: skip
