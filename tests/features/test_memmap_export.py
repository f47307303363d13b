"""Exports that share a name, that go on, and that are told apart from those of other shards."""

import json
import shutil
from pathlib import Path

import pytest
from small_shards import Planned, sealed_folder
from tensordict import TensorDict
from test_memmap import hashes, some

from curation.errors import BadManifest, ConfigDiffers, NoSpace, UsageProblem
from features.exchange import exporting as memmap_export
from features.exchange.exporting import export_memmap
from features.exchange.tsv import read_tsv


@pytest.mark.parametrize(
    "rows",
    [
        [
            Planned(clip_id="v", dataset="a", split="b-audio"),
            Planned(clip_id="s", dataset="a", split="b", kind="audio"),
        ],
        [
            Planned(clip_id="v", dataset="fsd-dev", split="train"),
            Planned(clip_id="w", dataset="fsd", split="dev-train"),
        ],
        [Planned(clip_id="v", split="train"), Planned(clip_id="w", split="train.tsv")],
        [Planned(clip_id="v", dataset="export.json", split="")],
        [Planned(clip_id="v", dataset="a.tmp", split="999999")],
    ],
    ids=["picture and sound", "hyphens", "a name of a TSV", "the record", "a temporary name"],
)
def test_sets_that_would_share_a_name_get_folders_of_their_own(
    rows: list[Planned], tmp_path: Path
) -> None:
    sealed_folder(tmp_path / "s", rows)
    parts = export_memmap(tmp_path / "s", tmp_path / "to")
    assert sum(parts.values()) == len(parts) == len(rows)
    found = [read_tsv(tmp_path / "to" / f"{name}.tsv")[0] for name in parts]
    assert sorted(found) == sorted([row.clip_id] for row in rows)
    for name in parts:
        assert TensorDict.load_memmap(tmp_path / "to" / name)["mean"].shape[0] == 1
    before = hashes(tmp_path / "to")
    one = rows[0]
    (name,) = export_memmap(tmp_path / "s", tmp_path / "to", dataset=one.dataset, split=one.split)
    assert name in parts, "it is called the same where it is exported alone"
    assert hashes(tmp_path / "to") == before


def test_folder_of_somebody_else_beside_an_export_is_refused(tmp_path: Path) -> None:
    rows = [Planned(clip_id="v", dataset="a"), Planned(clip_id="w", dataset="b")]
    sealed_folder(tmp_path / "s", rows)
    export_memmap(tmp_path / "s", tmp_path / "to", dataset="a")
    (tmp_path / "to" / "b-train").mkdir()
    with pytest.raises(ConfigDiffers, match=r"holds b-train, which no export .* give another --to"):
        export_memmap(tmp_path / "s", tmp_path / "to")
    assert not list((tmp_path / "to" / "b-train").iterdir())


def test_damaged_record_of_an_export_is_told_as_such(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "s", some("av"))
    export_memmap(tmp_path / "s", tmp_path / "to")
    for text in ("{", "[]", '{"sets": []}'):
        (tmp_path / "to" / "export.json").write_text(text)
        with pytest.raises(BadManifest, match=r"export\.json: cannot be read .* remove it and what was"):
            export_memmap(tmp_path / "s", tmp_path / "to")


def stamps(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_ino for p in folder.iterdir() if p.name != "export.json"}


def test_an_export_that_goes_on_writes_only_what_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed_folder(tmp_path / "s", [*some("av"), *some("audio")])
    export_memmap(tmp_path / "s", tmp_path / "to")
    first, whole = stamps(tmp_path / "to"), hashes(tmp_path / "to")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
        told = export_memmap(tmp_path / "s", tmp_path / "to")
    assert told == {"old-train": 7, "old-train-audio": 7}
    assert stamps(tmp_path / "to") == first
    for spoilt in ("old-train/mean.memmap", "old-train.tsv"):
        path = tmp_path / "to" / spoilt
        path.write_bytes(path.read_bytes()[:-1])
        export_memmap(tmp_path / "s", tmp_path / "to")
        assert hashes(tmp_path / "to") == whole
    again = stamps(tmp_path / "to")
    assert again["old-train-audio"] == first["old-train-audio"]
    assert again["old-train"] != first["old-train"]


def test_room_is_reckoned_for_what_is_still_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed_folder(tmp_path / "s", [*some("av"), *some("audio")])
    export_memmap(tmp_path / "s", tmp_path / "to", split="train")
    shutil.rmtree(tmp_path / "to" / "old-train-audio")
    needed = 7 * 4 * (2 * 32 * 20 + 77 * 1024)
    for free in (needed - 1, needed):
        usage = shutil._ntuple_diskusage(free, 0, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        if free < needed:
            with pytest.raises(NoSpace, match=r"expected the 2\.2 MB that fp32 takes"):
                export_memmap(tmp_path / "s", tmp_path / "to")
        else:
            export_memmap(tmp_path / "s", tmp_path / "to")


def test_what_was_made_of_shards_that_were_sealed_otherwise_is_made_anew(tmp_path: Path) -> None:
    """The tables are equal, the digest is not: only the certificate is another one."""
    for name in "ab":
        sealed_folder(tmp_path / name, some("av"), certificate=f"sha256:{name * 64}")
    export_memmap(tmp_path / "a", tmp_path / "to")
    first = stamps(tmp_path / "to")
    export_memmap(tmp_path / "b", tmp_path / "to")
    assert stamps(tmp_path / "to")["old-train"] != first["old-train"]


def test_an_export_that_was_killed_between_two_folders_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed_folder(tmp_path / "s", [*some("av"), *some("audio")])
    export_memmap(tmp_path / "s", tmp_path / "whole")
    write = memmap_export._write

    def dying(reader, one, target):
        if one.kind == "audio":
            raise KeyboardInterrupt
        yield from write(reader, one, target)

    with monkeypatch.context() as killed:
        killed.setattr(memmap_export, "_write", dying)
        with pytest.raises(KeyboardInterrupt):
            export_memmap(tmp_path / "s", tmp_path / "to")
    sets = json.loads((tmp_path / "to" / "export.json").read_text())["sets"]
    assert [name for name, noted in sets.items() if noted] == ["old-train"]
    first = stamps(tmp_path / "to")
    export_memmap(tmp_path / "s", tmp_path / "to")
    assert stamps(tmp_path / "to")["old-train"] == first["old-train"]
    assert hashes(tmp_path / "to") == hashes(tmp_path / "whole")


def test_advice_can_be_typed_where_a_path_has_blanks(tmp_path: Path) -> None:
    sealed_folder(tmp_path / "my shards", some("av"))
    with pytest.raises(UsageProblem, match=r"see: features info '.*/my shards'$"):
        export_memmap(tmp_path / "my shards", tmp_path / "to", dataset="none")
