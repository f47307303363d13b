"""Which file is whose where a list says so: in whatever folder, before all that cards say."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_clips import row, write_manifest

from curation.errors import BadMetadata, UsageProblem
from features.extraction.media import Media, find_media
from features.source import read_manifest


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Has a file of clip `a` by its pattern."""
    return folder(tmp_path / "first", "a.mp4", "deep/x.mp4")


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Has what a list means."""
    return folder(tmp_path / "second", "deep/b.mp4", "take 1.mov", "x/y.wav")


def folder(place: Path, *names: str) -> Path:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"")
    return place


def found(tmp_path: Path, listed: str | Path | None, *places: Path, names: str = "abc") -> Media:
    """The media of clips of that names, by the text of a list."""
    rows = [row("films", name) for name in names]
    path = tmp_path / "manifests" / "films" / "clips.parquet"
    write_manifest(path, rows, dataset="films", media=["{clip_id}.mp4"], modality="audio-video")
    if isinstance(listed, str):
        (tmp_path / "list.csv").write_text(listed)
        listed = tmp_path / "list.csv"
    return find_media(read_manifest(path), places, media_list=listed, without=tmp_path / "out")


@pytest.mark.parametrize(
    "text",
    [
        "file,id\nx/y.wav,c\n",
        "id\tfile\nc\tx/y.wav\n",
        "File;ID\nx/y.wav;c\n",
        "FILE|Clip_Id\nx/y.wav|c\n",
        "\ufeffid , file \n c , x/y.wav \n",
        "dataset,file,clip_id\nfilms,x/y.wav,c\nz,a.mp4,c\n",
        "id,file\nc,./x/y.wav\n",
        "id,file\nc,SECOND/x/y.wav\n",
        "id,file\nc,SECOND/./x/y.wav\n",
        "id,file\nc,y.wav\n",
        "clip_id,id,file\nz,c,x/y.wav\n",
    ],
)
def test_list_may_have_any_delimiter_capitals_and_paths_of_each_kind(
    text: str, tmp_path: Path, first: Path, second: Path
) -> None:
    media = found(tmp_path, text.replace("SECOND", str(second)), first, second)
    assert media.files == ["a.mp4", "deep/b.mp4", "x/y.wav"]


def test_list_may_be_parquet_with_other_columns(tmp_path: Path, first: Path, second: Path) -> None:
    rows = [{"ID": "c", "File": "x/y.wav", "captions": ["a dog"], "dataset": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
    media = found(tmp_path, tmp_path / "list.parquet", first, second)
    assert media.files == ["a.mp4", "deep/b.mp4", "x/y.wav"]


def test_paths_of_a_list_may_be_as_seen_from_where_the_command_is_given(
    tmp_path: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert found(tmp_path, "file,id\nsecond/x/y.wav,c\n", Path("second")).files[2] == "x/y.wav"


def test_list_goes_before_the_patterns_of_an_earlier_folder(
    tmp_path: Path, first: Path, second: Path
) -> None:
    media = found(tmp_path, "file,id\ntake 1.mov,a\n", first, second)
    assert media.files == ["take 1.mov", "deep/b.mp4", None]
    assert media.real_path("take 1.mov") == str(second / "take 1.mov")
    assert media.unmatched == 3, "a.mp4 is nobody's now"


@pytest.mark.parametrize(
    "path", ["gone.mp4", "./x.mp4", "FIRST/x.mp4", "FIRST/gone.mp4", "/x/deep/x.mp4"]
)
def test_clip_whose_listed_file_is_in_no_folder_is_found_by_its_patterns(
    path: str, tmp_path: Path, first: Path, second: Path
) -> None:
    """Never by another file of that name: x.mp4 lies deeper."""
    media = found(tmp_path, f"file,id\n{path.replace('FIRST', str(first))},a\n", first, second)
    assert media.files == ["a.mp4", "deep/b.mp4", None]


def test_path_that_leads_to_another_file_in_an_earlier_folder_is_refused(
    tmp_path: Path, first: Path, second: Path
) -> None:
    folder(second, "a.mp4")
    text = f"file,id\n{second}/a.mp4,c\n"
    said = r"--media-list: a\.mp4 is in .*/first and in .*/second, .* — give one --media above both"
    with pytest.raises(UsageProblem, match=said):
        found(tmp_path, text, first, second)
    assert found(tmp_path, text, tmp_path).files[2] == "second/a.mp4"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("path,name\nx/y.wav,c\n", UsageProblem, r"list\.csv: columns path, name, expected `file` and "
         r"`id` among them \(and, where known, dataset\) — name `file` and `id`"),
        ("File;name\nx/y.wav;c\n", UsageProblem, "columns file, name, .* — name `id`"),
        ("file,id\n,c\nx/y.wav,\n", BadMetadata, "list.csv: no row with a file and an id"),
        ("file,id\na,b\nc," + "x" * (1 << 18), BadMetadata, "list.csv: line 3: field larger"),
        ("", BadMetadata, "list.csv: is empty"),
        ('file,id,of\na,1,one\nb,2,"a dog\nc,3,x\n', BadMetadata, "line 4: unexpected end of data"),
        ("file,id\na.mp4,1\nb.mp4,1\n", UsageProblem, r"list\.csv: 1 has the files a\.mp4 and b\.mp4"),
        ("id,file\n1,a,b.mp4\n", BadMetadata, "line 2: 3 cells under 2 names, expected a line for each"),
        ("id,file,File\n1,a,b\n", UsageProblem, "`file` stands over several columns, expected one of"),
    ],
)  # fmt: skip
def test_list_of_no_use_is_refused(text: str, error: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=said):
        found(tmp_path, text, folder(tmp_path / "media", "a.mp4"))


def test_list_that_cannot_be_read_is_refused_by_the_name_it_was_given(tmp_path: Path) -> None:
    media = folder(tmp_path / "media", "a.mp4")
    path = tmp_path / "list.parquet"
    with pytest.raises(UsageProblem, match=r"--media-list .*list\.parquet: no such file, expected"):
        found(tmp_path, path, media)
    path.write_bytes(b"no Parquet")
    with pytest.raises(BadMetadata, match=r"--media-list .*list\.parquet: not Parquet: .* — check"):
        found(tmp_path, path, media)


def test_lines_of_a_list_that_are_of_no_use_are_counted(
    tmp_path: Path, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found(tmp_path, "file,id\na.mp4,a\nnone.mp4,b\na.mp4,unknown\n", first)
    said = "of 3 clips 1 have their file from it, 1 name one that is in no media folder, 1 are not in"
    assert said in capsys.readouterr().err
