"""What is extracted follows from a manifest and its media: each clip's file, tasks, captions, room."""

import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_clips import row, write_manifest

from curation.decision import certificate
from curation.decision.policy import CONTENT_TIERS, CleanConfig, Policy
from curation.errors import BadManifest, ManifestChanged, UsageProblem
from curation.files import digest_of
from curation.tasks import Task, is_done, run
from features.certificate import rebuild
from features.extraction import begun
from features.extraction.media import find_media
from features.extraction.plan import Plan, row_bytes
from features.source import DatasetCard, find_manifest, read_manifest, warnings
from features.spec import SequenceSpec

FILMS = [row("films", name) for name in ("b", "a", "c")]
Place = Callable[..., Path]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    for name in ("a.mp4", "deep/b.mp4", "x/y.wav", "spare.mp4", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def films(tmp_path: Path, rows: list[dict[str, Any]] = FILMS, **about: Any) -> Path:
    said = {"dataset": "films", "media": ["{clip_id}.mp4"], "modality": "audio-video", **about}
    return write_manifest(tmp_path / "manifests" / "films" / "clips.parquet", rows, **said)


def clean(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """A manifest as clean writes it, with its certificate; without metadata of any dataset."""
    folder = tmp_path / "manifests" / "clean" / "mine"
    path = write_manifest(folder / "kept.parquet", rows, clean={})
    document = {
        "format": "foleyproof-certificate/1", "config": {"tests": ["vggsound"], "policy": "prefer-test"},
        "outputs": {"kept.parquet": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}},
    }  # fmt: skip
    (folder / "certificate.json").write_text(json.dumps({**document, "digest": digest_of(document)}))
    return path


def planned(path: Path, *places: Path, out: Path, shard_rows: int = 2, **more: Any) -> Plan:
    manifest = read_manifest(path)
    found = find_media(manifest, places, without=out, **more)
    return Plan(
        manifest=manifest, media=found, about={"version": 1}, certificate=None, shard_rows=shard_rows,
        max_parts=5,
    )  # fmt: skip


# ---- which manifest ---------------------------------------------------------------------------------


def test_without_a_name_the_manifest_is_the_clean_one_written_last(tmp_path: Path) -> None:
    for age, name in ((30, "old"), (10, "new"), (20, "middle")):
        folder = tmp_path / "clean" / name
        folder.mkdir(parents=True)
        (folder / "certificate.json").write_text("{}")
        (folder / "kept.parquet").touch()
        os.utime(folder / "certificate.json", (1e9 - age, 1e9 - age))
    assert find_manifest(None, tmp_path) == tmp_path / "clean" / "new" / "kept.parquet"
    (tmp_path / "clean" / "new" / "kept.parquet").unlink()
    said = (
        r"clean/new/kept\.parquet: is missing beside its certificate\.json, expected the rows .* — make"
    )
    with pytest.raises(BadManifest, match=said):
        find_manifest(None, tmp_path)


def test_without_any_clean_manifest_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="run: curate clean --test vggsound,audiocaps"):
        find_manifest(None, tmp_path)


def test_manifest_is_a_folder_of_clean_or_of_a_dataset_or_a_file(
    tmp_path: Path, monkeypatch: Any
) -> None:
    dataset, kept = films(tmp_path), clean(tmp_path, FILMS)
    monkeypatch.chdir(tmp_path)
    for asked, found in (
        ("clean/mine", kept.relative_to(tmp_path)), ("manifests/clean/mine", kept.relative_to(tmp_path)),
        ("films", dataset.relative_to(tmp_path)), (str(dataset), dataset),
        (str(dataset.parent), dataset),
    ):  # fmt: skip
        assert find_manifest(Path(asked)) == found
    assert read_manifest(kept).name == "clean/mine"
    assert read_manifest(dataset).name == "films"
    assert find_manifest(Path("mine")) == kept.relative_to(tmp_path)
    with pytest.raises(UsageProblem, match="--manifest nonsense: no such manifest") as caught:
        find_manifest(Path("nonsense"))
    assert str(caught.value).endswith(
        "; below manifests there is films, clean/mine — make one with: "
        "curate clean --test vggsound,audiocaps --name nonsense"
    )
    with pytest.raises(UsageProblem, match=r"there is clean/mine — make .* --name mime$"):
        find_manifest(Path("mime"))
    with pytest.raises(UsageProblem, match=r"there is films, clean/mine — make .*audiocaps$"):
        find_manifest(Path("No-Name"))


def test_manifest_without_a_column_or_with_a_clip_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"dataset": ["films"], "clip_id": ["a"]}), path)
    with pytest.raises(BadManifest, match=r"no column split, source, .*expected the columns of clips"):
        read_manifest(path)
    path.write_bytes(b"no Parquet")
    with pytest.raises(BadManifest, match="cannot be read as Parquet"):
        read_manifest(path)
    with pytest.raises(BadManifest, match="films/a stands in 2 rows, expected each clip once"):
        read_manifest(films(tmp_path, [*FILMS, row("films", "a")]))
    with pytest.raises(BadManifest, match="split is empty in a row, expected one in each"):
        read_manifest(films(tmp_path, [*FILMS, row("films", "z", split=None)]))


def test_a_folder_in_the_place_of_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="cannot be read as Parquet"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"captions": ["a dog", None]},
            r"films/z has an empty entry among its captions \['a dog', None\]",
        ),
        ({"labels": [None]}, r"films/z has an empty entry among its labels \[None\], expected text"),
        ({"start_s": float("nan"), "end_s": 1.0}, r"films/z is from nan to 1\.0 s, expected seconds"),
        ({"start_s": -1.0, "end_s": 1.0}, r"films/z is from -1\.0 to 1\.0 s, expected seconds"),
        ({"start_s": 0.0, "end_s": float("inf")}, r"films/z is from 0\.0 to inf s, expected seconds"),
        ({"start_s": 9.0, "end_s": 8.0}, r"films/z is from 9\.0 to 8\.0 s, expected seconds"),
        ({"end_s": -8.0}, r"films/z is from None to -8\.0 s, expected seconds"),
    ],
)
def test_a_row_that_says_what_cannot_be_is_refused_by_name(
    said: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    path = films(tmp_path, [*FILMS, row("films", "z", **said)])
    with pytest.raises(BadManifest, match=f"clips.parquet: {expected}.* — "):
        read_manifest(path)


@pytest.mark.parametrize(
    "name", ["x" * 300, "\u0436" * 101, "..", "../films", "/etc", "a/b", ".x", "", "a\0b"]
)
def test_a_dataset_whose_name_is_no_name_of_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "list.parquet", [*FILMS, row(name, "a")])
    with pytest.raises(
        BadManifest, match=r"list\.parquet: dataset .* expected a name that a folder may"
    ):
        read_manifest(path)


def test_odd_names_that_folders_may_have_are_datasets(tmp_path: Path) -> None:
    names = ["AudioCaps 2.0", "mine.tsv", "x..y"]
    path = write_manifest(tmp_path / "list.parquet", [row(name, "a") for name in names])
    assert sorted(read_manifest(path).cards) == sorted(names)


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    path = films(tmp_path)
    table = pq.read_table(path)
    broken = pa.array([b"\xff", b"a", b"c"]).view(pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("clip_id"), "clip_id", broken), path)
    with pytest.raises(BadManifest, match=r"cannot be read as Parquet: .*UTF8"):
        read_manifest(path)


@pytest.mark.parametrize("file", ["clips.parquet", "raw/folder.parquet"])
def test_a_neighbour_that_cannot_be_read_is_named(file: str, tmp_path: Path) -> None:
    films(tmp_path)
    path = write_manifest(tmp_path / "manifests" / "all.parquet", FILMS)
    broken = tmp_path / "manifests" / "films" / file
    broken.parent.mkdir(exist_ok=True)
    broken.write_bytes(b"no Parquet")
    said = r"manifests/films: dataset films cannot be read \(.*\), expected what all\.parquet was made"
    with pytest.raises(BadManifest, match=f"{said} from — build it anew"):
        read_manifest(path)


def test_manifest_is_what_its_certificate_is_about_or_refused(tmp_path: Path) -> None:
    path = clean(tmp_path, FILMS)
    document = read_manifest(path).certificate
    assert document is not None
    assert document["config"]["tests"] == ["vggsound"]
    assert read_manifest(films(tmp_path)).certificate is None
    write_manifest(path, FILMS[:2])
    home = path.parents[2]
    again = f"make it anew with: curate clean --test vggsound --name mine --replace --manifests {home}"
    with pytest.raises(ManifestChanged, match=f"its certificate records .* {re.escape(again)}$"):
        read_manifest(path)
    (path.parent / "certificate.json").write_text("{}")
    with pytest.raises(ManifestChanged, match="not the certificate that clean wrote"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("excluded.parquet", "rows that clean removed"),
        ("heldout_excluded.parquet", "rows that clean removed"),
        ("heldout_kept.parquet", "test rows that clean held out"),
        ("mine.parquet", "certificate.json does not name it"),
    ],
)
def test_only_what_clean_kept_is_certified(file: str, why: str, tmp_path: Path) -> None:
    folder = clean(tmp_path, FILMS).parent
    path = write_manifest(folder / file, [row("films", "z")])
    document = json.loads((folder / "certificate.json").read_text())
    del document["digest"]
    if file != "mine.parquet":
        document["outputs"][file] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (folder / "certificate.json").write_text(json.dumps({**document, "digest": digest_of(document)}))
    manifest = read_manifest(path)
    assert (manifest.certificate, manifest.uncertified) == (None, why)
    assert f"{path}: uncertified ({why}), expected kept.parquet" in warnings(manifest)[0]
    kept = read_manifest(folder / "kept.parquet")
    assert kept.certificate is not None
    assert not any("uncertified" in line for line in warnings(kept))


def test_the_command_that_makes_a_manifest_anew_is_the_one_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CleanConfig(
        tests=("vggsound", "clotho"), train=("audioset",), policy=Policy.DROP_BOTH, match="interval",
        margin_s=1.5, match_content=[*CONTENT_TIERS][-1], dedup=True, use_published=True,
        use_annotations=True, licences=("cc0", "cc-by"),
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for one in (config, CleanConfig(tests=("vggsound",))):
        folder = Path("manifests") / "clean" / "paper"
        folder.mkdir(parents=True, exist_ok=True)
        document = {"config": asdict(one)}
        (folder / "certificate.json").write_text(json.dumps(document))
        made = certificate.command(folder, {"config": asdict(one)})
        words = shlex.split(rebuild(folder))
        assert words[-1] == "--replace"
        assert sorted(words[:-1]) == sorted(shlex.split(made))
    (folder / "certificate.json").write_text("nonsense")
    assert rebuild(folder) == "curate clean --name paper --replace"


def test_cards_of_a_mixed_manifest_come_from_the_datasets_beside_it(tmp_path: Path) -> None:
    films(tmp_path, modality="audio", splits={"train": "train", "eval": "test"})
    found = read_manifest(clean(tmp_path, [*FILMS, row("other", "z")])).cards
    assert found["films"].patterns == ("{clip_id}.mp4",)
    assert found["films"].sound_only
    assert found["films"].roles == {"train": "train", "eval": "test"}
    assert found["other"] == DatasetCard(known=False)  # by clip_id, as nothing is known of it


def test_cards_come_from_the_folder_of_manifests_too_and_missing_ones_are_told(tmp_path: Path) -> None:
    films(tmp_path)
    far = write_manifest(tmp_path / "a" / "b" / "c" / "list.parquet", [*FILMS, row("other", "z")])
    home = tmp_path / "manifests"
    manifest = read_manifest(far, home)
    assert manifest.cards["films"].patterns == ("{clip_id}.mp4",)
    (line,) = warnings(manifest, home)
    assert f"no clips.parquet of other beside it or in {home}" in line
    assert "count as audio-video" in line
    (line,) = warnings(read_manifest(far, tmp_path / "empty"))
    assert "no clips.parquet of films, other beside it" in line
    assert warnings(read_manifest(films(tmp_path))) == []


def test_what_a_folder_was_begun_with_is_told_in_words() -> None:
    former = {"batch": {"av": 8}, "preprocessing": {"compat": None, "reject": ["still", "upsampled"]}}
    wanted = {"batch": {"av": 4}, "preprocessing": {"compat": "mmaudio", "reject": []}}
    assert begun._differing(former, wanted) == [
        "batch.av was 8, now 4",
        "compat was not given, now mmaudio",
        "reject was still, upsampled, now not given",
    ]


# ---- which file -------------------------------------------------------------------------------------


def test_files_are_found_by_the_patterns_of_the_card_and_counted(tmp_path: Path, media: Path) -> None:
    plan = planned(films(tmp_path), media, out=tmp_path / "out")
    assert plan.manifest.table["clip_id"].to_pylist() == ["a", "b", "c"]
    assert plan.media.files == ["a.mp4", "deep/b.mp4", None]
    assert (plan.media.found, plan.media.num_files, plan.media.unmatched) == (2, 4, 2)


def test_files_of_a_folder_made_a_dataset_are_those_of_its_own_list(tmp_path: Path, media: Path) -> None:
    path = films(tmp_path, [row("films", "first"), row("films", "second")])
    listed = pa.table({"clip_id": ["first", "second"], "media": ["x/y.wav", "gone.mp4"]})
    (path.parent / "raw").mkdir()
    pq.write_table(listed, path.parent / "raw" / "folder.parquet")
    assert planned(path, media, out=tmp_path / "out").media.files == ["x/y.wav", None]


def test_of_several_folders_the_first_that_has_a_file_counts(tmp_path: Path, media: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(media / "a.mp4", other / "a.mp4")
    (other / "c.mp4").write_bytes(b"c")
    plan = planned(films(tmp_path), other, media, out=tmp_path / "out")
    assert plan.media.files == ["a.mp4", "deep/b.mp4", "c.mp4"]
    assert plan.media.real_path("a.mp4") == str(other / "a.mp4")
    assert plan.media.real_path("deep/b.mp4") == str(media / "deep/b.mp4")


def test_shards_that_lie_among_the_media_are_no_media(tmp_path: Path, media: Path) -> None:
    (media / "shards").mkdir()
    (media / "shards" / "c.mp4").write_bytes(b"c")
    assert planned(films(tmp_path), media, out=media / "shards").media.files[2] is None


# ---- tasks ------------------------------------------------------------------------------------------


def test_tasks_are_consecutive_rows_and_hold_no_path_of_the_machine(tmp_path: Path, media: Path) -> None:
    plan = planned(films(tmp_path), media, out=tmp_path / "out")
    first, second = plan.clip_tasks
    assert [said[:2] for said in first.inputs["rows"]] == [["films", "a"], ["films", "b"]]
    assert [said[:2] for said in second.inputs["rows"]] == [["films", "c"]]
    assert str(tmp_path) not in json.dumps([first.inputs, second.inputs])
    assert plan.paths(first) == [str(media / "a.mp4"), str(media / "deep/b.mp4")]
    assert plan.paths(second) == [None]


def test_planned_task_is_like_one_with_its_inputs_at_hand(tmp_path: Path, media: Path) -> None:
    (task,) = planned(films(tmp_path), media, out=tmp_path / "out", shard_rows=9).clip_tasks
    plain = Task(task.index, task.count, task.inputs)
    assert (task.name, task.key) == (plain.name, plain.key)
    assert task.inputs is not task.inputs, "made anew each time"


def test_new_media_change_their_task_alone(tmp_path: Path, media: Path) -> None:
    path = films(tmp_path)
    before = planned(path, media, out=tmp_path / "out")
    (media / "c.mp4").write_bytes(b"c")
    after = planned(path, media, out=tmp_path / "out")
    assert before.clip_tasks[0].key == after.clip_tasks[0].key
    assert before.clip_tasks[1].key != after.clip_tasks[1].key


def test_order_of_rows_in_the_manifest_changes_no_task(tmp_path: Path, media: Path) -> None:
    keys = []
    for rows in (FILMS, FILMS[::-1]):
        plan = planned(films(tmp_path, rows), media, out=tmp_path / "out")
        keys.append([task.key for task in plan.clip_tasks])
    assert keys[0] == keys[1]


def test_role_of_a_split_goes_with_each_row(tmp_path: Path, media: Path) -> None:
    path = films(tmp_path, [row("films", "a", split="unbalanced")], splits={"unbalanced": "train"})
    (task,) = planned(path, media, out=tmp_path / "out").clip_tasks
    assert task.inputs["rows"][0][2:4] == ["unbalanced", "train"]


# ---- captions and room ------------------------------------------------------------------------------


def test_captions_are_unique_sorted_and_of_clips_with_media_with_the_empty_one_first(
    tmp_path: Path, media: Path
) -> None:
    rows = [
        row("films", "a", captions=["zebra", "ant"]),
        row("films", "b", labels=["Dog", "Bark"]),
        row("films", "c", captions=["never encoded"]),
    ]
    plan = planned(films(tmp_path, rows), media, out=tmp_path / "out")
    assert plan.captions == ["", "Dog, Bark", "ant", "zebra"]
    assert [task.inputs["captions"] for task in plan.text_tasks] == [["", "Dog, Bark"], ["ant", "zebra"]]


def test_room_is_the_arithmetic_of_rows_and_captions(tmp_path: Path, media: Path) -> None:
    spec = SequenceSpec(sample_rate_hz=44100)
    assert row_bytes("audio", spec) == 345 * 40 * 2 * 2
    assert row_bytes("av", spec) == (345 * 40 * 2 + 64 * 1024 + 192 * 768) * 2
    assert row_bytes("text", spec) == 77 * 1024 * 2
    plan = planned(films(tmp_path), media, out=tmp_path / "out")
    need = plan.need(spec, plan.clip_tasks, plan.text_tasks)
    shards = 2 * row_bytes("av", spec) + row_bytes("text", spec)
    assert shards <= need.expected <= shards * 1.01
    assert need.at_most == need.expected
    assert plan.need(spec, (), ()).expected == 0


def test_room_of_parts_that_are_replaced_is_that_of_new_rows_and_of_the_largest_part(
    tmp_path: Path, media: Path
) -> None:
    spec = SequenceSpec(sample_rate_hz=44100)
    before = planned(films(tmp_path), media, out=tmp_path / "out")
    sizes = [before.need(spec, [task], ()).expected for task in before.clip_tasks]
    (media / "c.mp4").write_bytes(b"c")
    after = planned(films(tmp_path), media, out=tmp_path / "out")
    need = after.need(spec, after.clip_tasks, (), former=lambda task: sizes[task.index])
    assert need.expected == row_bytes("av", spec) + max(sizes)
    assert after.need(spec, after.clip_tasks, ()).expected == row_bytes("av", spec) + sum(sizes)


def test_room_of_whole_sounds_is_between_one_part_and_all(tmp_path: Path, media: Path) -> None:
    path = films(tmp_path, modality="audio")
    plan = planned(path, media, out=tmp_path / "out")
    need = plan.need(SequenceSpec(sample_rate_hz=16000), plan.clip_tasks, ())
    one = row_bytes("audio", SequenceSpec(sample_rate_hz=16000))
    assert need.at_most - need.expected == 2 * 4 * one
    cut = films(tmp_path, [row("films", "a", start_s=1.0, end_s=11.0)], modality="audio")
    plan = planned(cut, media, out=tmp_path / "out")
    need = plan.need(SequenceSpec(sample_rate_hz=16000), plan.clip_tasks, ())
    assert need.at_most == need.expected


def test_planned_tasks_run_as_any_others_do(tmp_path: Path, media: Path) -> None:
    plan = planned(films(tmp_path), media, out=tmp_path / "out")

    @contextmanager
    def worker(stop: Any) -> Any:
        yield lambda task, folder: {"rows": len(task.inputs["rows"])}

    run(tmp_path / "stage", plan.clip_tasks, worker)
    assert all(is_done(tmp_path / "stage", task) for task in plan.clip_tasks)
    other = replace(plan, about={"version": 2})
    assert not any(is_done(tmp_path / "stage", task) for task in other.clip_tasks)
