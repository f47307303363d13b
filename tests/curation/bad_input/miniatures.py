"""The whole files in miniature, as their publishers write them, and as a spreadsheet saves them."""

import csv
import io
import json
import re
from typing import Any

VGGSOUND = """\
---g-f_I2yQ,1,people marching,test
FhaYvI1yrUM,60,skateboarding,test
--0PQM4-hqg,30,waterfall burbling,train
4PjEi5fFD6A,0,skateboarding,train
--56QUhyDQM,185,playing tennis,train
--9O4XZOge4,30,"female speech, woman speaking",train
-Aa4M484QMc,40,"café, crowd",train
"""
AUDIOSET = """\
# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=5, num_segs=5, num_unique_labels=527, num_positive_labels=9
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
--ZhevVpy1s, 0.000, 10.000, "/m/012xff"
---g-f_I2yQ, 0.000, 9.000, "/m/03fwl,/m/04rlf,/m/09x0r,/m/012xff"
--0PQM4-hqg, 30.000, 40.000, "/m/03fwl"
--aE2O5G5WE, 10.500, 20.500, "/m/03fwl"
"""
AUDIOCAPS = """\
audiocap_id,youtube_id,start_time,caption
97151,--0PQM4-hqg,30,"A waterfall, and a café"
97152,--PJHxphWEs,30,A person “speaks”
97153,--ZhevVpy1s,0,Brushing of teeth
"""
AVSYNC15 = """\
vid,label,split
--0PQM4-hqg_000030_000040_1.0_2.0,waterfall,test
--9O4XZOge4_000030_000040_6.5_9.5,speech,train
--56QUhyDQM_000185_000195_0.0_4.0,tennis,train
"""
CLOTHO = """\
file_name,caption_1,caption_2,caption_3,caption_4,caption_5
Distorted AM Radio noise.wav,a,b,c,d,e
Paper_Parchment_Rustling.wav,a,b,c,d,e
"""
WAVCAPS = json.dumps(
    {
        "num_captions_per_audio": 1,
        "data": [
            {"title": "Dog", "author": "Mike", "caption": "A dog barks.", "id": "2219", "duration": 1.5},
            {"title": "Bell", "author": "Zoë", "caption": "A bell rings.", "id": "2218", "duration": 2},
            {"title": "Rain", "author": "", "caption": "Rain falls.", "id": "17", "duration": 9.25},
        ],
    },
    ensure_ascii=False,
)
V, A, C = "vggsound/vggsound.csv", "audioset/balanced_train_segments.csv", "audiocaps/dataset/test.csv"
S, K = "avsync15/asva_metadata.csv", "clotho/clotho_captions_development.csv"
W = "wavcaps/json_files/SoundBible/sb_final.json"
WHOLE: dict[str, str | bytes] = {
    V: VGGSOUND, A: AUDIOSET, C: AUDIOCAPS, S: AVSYNC15, K: CLOTHO, W: WAVCAPS,
}  # fmt: skip
TOML = """\
title = "Mine"
homepage = "-"
citation = "-"
metadata_licence = "-"
media_licence = "-"
[files.list]
path = "list.csv"
url = "-"
columns = ["id", "start"]
[splits.train]
role = "train"
"""
SQL = "select id as clip_id, 'train' as split, 'local' as source, id as source_id, file, row from list"
LIST = '[[lists]]\nname = "some"\ntitle = "-"\n'
TEXT_OF = "select content as clip_id, 'train' as split, 'local' as source, '1' as source_id, "
TEXT_OF += "'x' as file, 1 as row from read_text('{}')"
# ids that are paths, options, commands, SQL, terminal codes, or equal to the eye
HOSTILE = [
    "../../x", "/etc/passwd", "-rf", "--help", "$(id)", "`id`", "; drop table clips", "a'b", 'a"b',
    "''", "*", "%s%n", "{id}", "two\nlines", "nul\0byte", "\x1b[2J", "\u202egpj.exe", "x" * 300,
    "caf\u00e9", "cafe\u0301", "😀",
]  # fmt: skip


def cells(text: str) -> list[list[str]]:
    """The rows of a miniature, comments left out, every cell without blanks around it."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [[cell.strip() for cell in row] for row in csv.reader(lines, skipinitialspace=True)]


def saved(
    rows: list[list[str]], *, delimiter: str = ",", quoting: Any = csv.QUOTE_MINIMAL, end: str = "\n"
) -> str:
    """The rows as a spreadsheet writes them."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    return out.getvalue()


def whole_numbers(rows: list[list[str]]) -> list[list[str]]:
    """`0.000` as `0`, `10.500` as `10.5`."""
    return [
        [f"{float(c):g}" if re.fullmatch(r"\d+\.\d+", c) else c for c in row] for row in rows
    ]  # fmt: skip


AUDIOSET_ROWS = whole_numbers(cells(AUDIOSET))
AUDIOSET_HEADER = [["# YTID", "start_seconds", "end_seconds", "positive_labels"]]
VGGSOUND_ROWS, AUDIOCAPS_ROWS = cells(VGGSOUND), cells(AUDIOCAPS)
VGGSOUND_HEADER = [["youtube_id", "start", "label", "split"]]
CLOTHO_OF_HOSTILE = saved([*cells(CLOTHO)[:1], *([name, *"abcde"] for name in HOSTILE)])
