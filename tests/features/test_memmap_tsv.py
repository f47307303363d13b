"""The TSV beside a memmap folder: written so that every reader finds the same rows, read strictly."""

from pathlib import Path

import pandas
import pytest

from curation.errors import BadMetadata
from features.exchange.tsv import read_tsv, write_tsv

ODD = ["\t", "\r", "\n", '"', "\r\n", 'a "b" c', "a\rb", "a\r\nb\tc", '"\r"', "end\r", "plain", "'"]


def test_every_caption_comes_back_through_two_readers(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    rows = [(f"id{number}", caption) for number, caption in enumerate(ODD)]
    write_tsv(path, ("id", "caption"), rows)
    assert read_tsv(path) == ([name for name, _ in rows], ODD)
    table = pandas.read_csv(path, sep="\t", keep_default_na=False)
    assert list(zip(table["id"], table["caption"], strict=True)) == rows


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("abc\tfoo\tbar\n", "line 2, has 3 cells under 2 columns, expected each id once"),
        ("a\tx\n\nb\tfoo\tbar\n", "line 4, has 3 cells under 2 columns"),
        ('a\tx\nb\t"hello\nc\ty\n', "line 3, unexpected end of data, expected each id once"),
        ('a\t"dog" barks\nb\tx\n', "line 2, .* expected after '\"', .* give it as it was written"),
        ('a\t"two\nlines"\nb\n', "line 4, id 'b', has an empty cell"),
    ],
)
def test_a_line_that_would_be_cut_or_swallowed_is_named(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(f"id\tcaption\n{lines}")
    with pytest.raises(BadMetadata, match=said):
        read_tsv(path)
