"""Which file is whose: never another one of the same name where the folder was named too."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from made_media import make_media

from curation.media.locate import Wanted, locate, media_folder, of_list, unmatched

Run = Callable[..., tuple[int, str, str]]


def files(folder: Path, *paths: str | bytes) -> Path:
    """The folder, with empty files in it."""
    for path in paths:
        place = os.path.join(os.fsencode(folder), os.fsencode(path))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb"):
            pass
    return folder


def test_listed_path_that_is_missing_takes_no_other_file_of_that_name(tmp_path: Path) -> None:
    folder = media_folder(files(tmp_path, "test/0.wav", "b/1.wav", "a/1.wav"))
    located = of_list(["train/0.wav", "test/0.wav", "1.wav", "./1.wav", "/0.wav", None], folder)
    assert located.files == [None, "test/0.wav", "a/1.wav", None, None, None]
    assert unmatched(folder, [located]) == 1


def test_pattern_with_a_folder_means_that_folder(tmp_path: Path) -> None:
    folder = media_folder(files(tmp_path, "test/0.wav", "train/1.wav"))
    clips = [Wanted(clip_id=name, source_id=name) for name in "01"]
    assert locate(clips, ("train/{id}.wav",), folder).files == [None, "train/1.wav"]
    assert locate(clips, ("{id}.wav",), folder).files == ["test/0.wav", "train/1.wav"]


@pytest.mark.parametrize("source_id", ["../x", "../../x", "/x", "inside/../x", "a/x"])
def test_id_that_names_a_folder_claims_no_file_elsewhere(source_id: str, tmp_path: Path) -> None:
    files(tmp_path, "x.wav", "media/x.wav", "media/inside/x.wav")
    folder = media_folder(tmp_path / "media")
    clips = [Wanted(clip_id="1", source_id=source_id)]
    assert locate(clips, ("{id}.wav",), folder).files == [None]


def test_link_to_itself_is_no_media(tmp_path: Path) -> None:
    files(tmp_path, "a.wav")
    for name in ("loop", "loop.wav"):
        (tmp_path / name).symlink_to(name)
    folder = media_folder(tmp_path)
    assert (list(folder.media), folder.not_media) == (["a.wav"], 2)


@pytest.mark.parametrize("without", [None, "none"])
def test_folder_that_cannot_be_looked_at_is_told_and_not_taken_for_seen(
    without: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "a/0.wav", "b/1.wav")
    real = Path.stat

    def refuse(path: Path, **said: bool) -> os.stat_result:
        if path.name == "none" or path.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        return real(path, **said)

    monkeypatch.setattr(Path, "stat", refuse)
    found = media_folder(tmp_path, without=None if without is None else Path(without))
    assert list(found.media) == ["a/0.wav", "b/1.wav"]


def test_two_names_of_one_text_are_two_files(tmp_path: Path) -> None:
    """One is bytes that are no UTF-8, the other the letters that stand for them."""
    names = (b"\xff.wav", rb"\xff.wav", rb"\xff~2.wav", b"d\xfe/a.wav", rb"d\xfe/a.wav")
    folder = media_folder(files(tmp_path, *names))
    assert {text: os.fsencode(path) for text, path in folder.media.items()} == {
        r"\xff.wav": rb"\xff.wav",
        r"\xff~2.wav": rb"\xff~2.wav",
        r"\xff~3.wav": b"\xff.wav",
        r"d\xfe/a.wav": rb"d\xfe/a.wav",
        r"d\xfe/a~2.wav": b"d\xfe/a.wav",
    }
    assert all(os.path.exists(folder.real_path(path)) for path in folder.media)


def test_scan_of_a_share_says_the_whole_command_that_ends_it(tmp_path: Path, curate: Run) -> None:
    folder = tmp_path / "my clips"
    for number in range(2):
        make_media(folder / f"{number}.wav", video=None, audio="pcm_s16le", samples="s16", seconds=0.2)
    listed = tmp_path / "list.csv"
    listed.write_text("file\n0.wav\n1.wav\n")
    cards = tmp_path / "cards"
    cards.mkdir()
    words = ["scan", folder, "--dataset", "mine", "--list", listed, "--hash", "reference"]
    places = ["--manifests", tmp_path / "made", "--cards", cards]
    code, _, err = curate(*words, "--timeout", "99", *places, "--task", "1/2")
    assert code == 0, err
    quoted = f"curate scan '{folder}' --dataset mine --list {listed} --hash reference --timeout 99.0"
    ends = f"--manifests {places[1]} --cards {cards}"
    assert err.splitlines()[-1] == f"next: run the other shares; {quoted} {ends}"
