"""Later editions, files that nobody here has seen, and the lists others train on, in miniature."""

import json
import re
import shutil
from pathlib import Path

import duckdb
import pytest

from curation.catalog.build import Built, build
from curation.catalog.cards import find_cards
from curation.catalog.record import read_record
from curation.decision.clean import clean
from curation.decision.policy import CleanConfig

MMAUDIO = ("vggsound@mmaudio-train", "audiocaps@mmaudio-train")


def _query(folder: Path, dataset: str, sql: str) -> list[tuple]:
    return duckdb.sql(sql.format(clips=f"'{folder}/{dataset}/clips.parquet'")).fetchall()


def _without(corpus, tmp_path: Path, dataset: str, *patterns: str) -> tuple[Path, Built]:
    """The manifest of a dataset made without some of its files."""
    raw = corpus.manifests / dataset / "raw"
    shutil.copytree(raw, tmp_path / dataset / "raw", ignore=shutil.ignore_patterns(*patterns))
    (result,) = build([corpus.cards[dataset]], tmp_path)
    assert result.state == "built", result
    return tmp_path, result


# -- rows that only a later edition has ------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "split"), [("audiocaps", "train_v2"), ("vggsound", "train_199467")])
def test_rows_of_a_later_edition_are_not_meant_by_the_name_of_the_dataset(
    in_folder, curate, dataset, split
):
    code, out, _ = curate("overlaps", "--test", "audioset", "--json")
    cells = json.loads(out)["tests"]["audioset"]["overlap"]
    planted = in_folder.planted.num_clips[dataset]
    assert code == 0
    assert cells[dataset]["train_rows"] == planted["train"]
    assert cells[f"{dataset}/{split}"]["train_rows"] == planted[split]
    code, out, _ = curate("datasets", "--json")
    (told,) = (d for d in json.loads(out)["datasets"] if d["dataset"] == dataset)
    assert told["train_rows"] == planted["train"]


def test_test_rows_of_a_longer_list_are_not_meant_by_the_name_either(corpus):
    card = corpus.cards["vggsound"]
    assert card.splits["test_199467"].role == "test"
    assert card.test_splits == ("test",)


def test_rows_of_a_later_edition_are_input_where_they_are_named(corpus, tmp_path):
    shutil.copytree(corpus.manifests, tmp_path / "m", ignore=shutil.ignore_patterns("clean", "raw"))
    config = CleanConfig(tests=("vggsound", "audiocaps"), train=("audiocaps", "audiocaps/train_v2"))
    made = clean(config, name="named", manifests=tmp_path / "m", cards=corpus.cards)
    planted = corpus.planted.num_clips["audiocaps"]
    assert made.tally.seen == planted["train"] + planted["train_v2"]
    assert made.tally.dropped["same_recording_as_heldout"] >= 4
    total = sum(sum(splits.values()) for splits in corpus.planted.num_clips.values())
    assert made.tally.seen + made.held_out + made.not_chosen == total


def test_captions_that_go_on_in_a_line_of_their_own_are_whole_again(corpus):
    rows = _query(corpus.manifests, "audiocaps", "select captions from {clips} where split = 'train_v2'")
    raw = (corpus.manifests / "audiocaps/raw/dataset2.0/train.csv").read_text()
    broken = [line for line in raw.splitlines() if "," not in line]
    assert len(broken) == 3
    assert all(re.search(r" (distance|road|chirp|indoors|blows|night)$", text) for ((text,),) in rows)


def test_list_without_starts_stays_what_it_was_beside_a_later_edition(corpus, tmp_path):
    """A test recording has another clip in version 2.0; the test lists do not grow by it."""
    folder, _ = _without(corpus, tmp_path, "audiocaps", "dataset2.0")
    alone, beside = (read_record(path, "audiocaps")["lists"] for path in (folder, corpus.manifests))
    for name in ("audiocaps@audioldm", "audiocaps@wavcaps", "audiocaps@v1"):
        assert alone[name] == beside[name]
    assert alone.keys() - beside.keys() == set()
    assert beside.keys() - alone.keys() == {
        "audiocaps@v2", "audiocaps@v2-val", "audiocaps@v2-train",
    }  # fmt: skip


def test_strong_segments_are_found_by_the_millisecond(corpus):
    rows = _query(
        corpus.manifests,
        "audioset",
        "select count(*), count(*) filter (where start_s % 1 > 0) from {clips} "
        "where list_contains(lists, 'audioset@strong-train')",
    )
    assert rows[0][0] == corpus.planted.list_sizes["audioset@strong-train"]
    assert rows[0][1] > 0


# -- more files tell more of the same clips --------------------------------------------------------


def test_clotho_has_ids_intervals_and_uploaders_where_the_metadata_files_are(corpus, nameless_clotho):
    select = "select clip_id, captions from {clips} order by all"
    assert _query(corpus.manifests, "clotho", select) == _query(nameless_clotho, "clotho", select)
    known, unknown = (
        _query(folder, "clotho", "select split, count(*) - count(source_id), count(source_id), "
               "count(start_s), count(licence), list_sort(list(distinct uploader)) from {clips} "
               "group by 1 order by 1")
        for folder in (corpus.manifests, nameless_clotho)
    )  # fmt: skip
    assert [row[1] for row in known] == [3, 2, 1, 1]  # 'Not found', split by split
    assert [row[2:5] for row in unknown] == [(0, 0, 0)] * 4
    for _, lost, identified, timed, licensed, uploaders in known:
        assert identified == timed == licensed - lost
        assert {"José Luis", "Müller, field"} <= set(uploaders)  # Latin-1 in the file
    (cut,) = _query(
        corpus.manifests,
        "clotho",
        "select start_s, end_s from {clips} where clip_id = 'development/twice dev near.wav'",
    )
    assert cut == (3.0, 23.0)


def test_digests_of_clotho_do_not_depend_on_the_metadata_files(corpus, nameless_clotho):
    known, unknown = (
        read_record(path, "clotho")["lists"] for path in (corpus.manifests, nameless_clotho)
    )
    for name in ("v2.1-evaluation", "v2.1-validation", "v2.1-test"):
        assert known[f"clotho@{name}"] == unknown[f"clotho@{name}"]


def test_test_recordings_of_clotho_need_no_index(corpus, tmp_path):
    folder, _ = _without(corpus, tmp_path, "clotho", "soundata_index*")
    select = "select clip_id, source_id, start_s from {clips} where split = 'test' order by 1"
    assert _query(folder, "clotho", select) == _query(corpus.manifests, "clotho", select)


def test_fsd50k_takes_each_clip_once_and_its_labels_from_the_ground_truth(corpus, tmp_path):
    folder, _ = _without(corpus, tmp_path, "fsd50k", "FSD50K.*")
    select = "select clip_id, split, source_id from {clips} order by all"
    assert _query(folder, "fsd50k", select) == _query(corpus.manifests, "fsd50k", select)
    told = "select distinct labels, licence is null, uploader is null from {clips}"
    assert _query(folder, "fsd50k", told) == [([], True, True)]
    assert _query(corpus.manifests, "fsd50k", told) == [(["Bark", "Dog", "Animal"], False, False)]
    splits = read_record(corpus.manifests, "fsd50k")["splits"]
    lists = read_record(corpus.manifests, "fsd50k")["lists"]
    parts = [lists[f"fsd50k@dev-{part}"]["size"] for part in ("train", "val")]
    assert sum(parts) == splits["dev"]["rows"]


def test_wavcaps_labels_are_the_tags_and_categories_of_its_parts(corpus):
    rows = _query(corpus.manifests, "wavcaps", "select distinct split, labels from {clips} order by 1")
    assert rows == [
        ("audioset_sl", []),
        ("bbc", ["Nature", "Children's games"]),
        ("freesound", ["field-recording", "rain"]),
        ("soundbible", []),
    ]


# -- what others train on --------------------------------------------------------------------------


def test_cleaned_training_lists_of_others_still_contain_what_was_planted(in_folder, curate):
    """By id all but one clip each are gone; the re-upload under another id is still there."""
    words = ("--test", "vggsound,audiocaps", "--train", ",".join(MMAUDIO), "--json")
    code, out, _ = curate("overlaps", *words)
    assert code == 0
    tests = json.loads(out)["tests"]
    videos, captioned = (
        {test: tests[test]["overlap"][name] for test in ("vggsound", "audiocaps")} for name in MMAUDIO
    )
    assert videos["vggsound"]["known_reupload"] == 1
    assert videos["vggsound"]["test_items"]["id"] == 0
    assert videos["audiocaps"]["test_items"]["id"] == 1
    assert captioned["vggsound"]["test_items"]["id"] == 1
    assert captioned["audiocaps"]["test_items"]["id"] == 0
    with duckdb.connect() as db:
        left = db.execute(
            "select train_clip_id, heldout_clip_id from read_parquet(?) where rule = 'known_reupload'",
            [str(in_folder.manifests / "overlaps.parquet")],
        ).fetchall()
    assert left == [("4PjEi5fFD6A_000021", "FhaYvI1yrUM_000021")]


def test_list_by_audiocap_id_names_the_clips_of_the_published_captions(corpus):
    ids = (corpus.manifests / "audiocaps/raw/lists/mmaudio_audiocaps.tsv").read_text().splitlines()[1:]
    assert all(re.match(r"\d+\t", line) for line in ids)
    size = read_record(corpus.manifests, "audiocaps")["lists"]["audiocaps@mmaudio-train"]["size"]
    assert len(ids) == size == corpus.planted.list_sizes["audiocaps@mmaudio-train"]


def test_laions_cleaned_list_is_asked_like_any_other(in_folder, curate):
    code, out, _ = curate(
        "overlaps",
        "--test",
        "clotho,fsd50k,esc50",
        "--train",
        "freesound,freesound@no-overlap",
        "--json",
    )
    assert code == 0
    left = {
        test: [cells[name]["test_items"]["id"] for name in ("freesound", "freesound@no-overlap")]
        for test, cells in ((t, entry["overlap"]) for t, entry in json.loads(out)["tests"].items())
    }
    lists = {"clotho": "clotho@v2.1-evaluation", "fsd50k": "fsd50k@eval", "esc50": "esc50@all"}
    planted = {
        test: in_folder.planted.counts(name, "freesound")["test_items"]["id"]
        for test, name in lists.items()
    }
    assert {test: counts[0] for test, counts in left.items()} == planted
    assert {test: counts[1] for test, counts in left.items()} == {"clotho": 1, "fsd50k": 1, "esc50": 0}


# -- what nobody here has seen ---------------------------------------------------------------------


def test_build_says_which_files_it_believed_unseen(corpus, tmp_path):
    _, result = _without(corpus, tmp_path, "vggsound", "mmaudio_vgg-train.tsv")
    said = "vggsound: format unverified, look at some of their rows before you trust them: "
    assert said + "github/vggsound.csv" in result.notes
    (again,) = build([corpus.cards["vggsound"]], tmp_path)
    assert (again.state, again.notes) == ("up to date", result.notes)
    _, result = _without(corpus, tmp_path / "seen", "vggsound", "mmaudio_vgg-train.tsv", "github")
    assert not any("unverified" in note for note in result.notes)


def test_file_is_verified_once_its_digest_is_known(corpus, tmp_path):
    from dataclasses import replace

    card = corpus.cards["vggsound"]
    digests = read_record(corpus.manifests, "vggsound")["inputs"]["raw"]
    files = tuple(replace(file, sha256={"mine": digests[file.path]}) for file in card.files)
    shutil.copytree(corpus.manifests / "vggsound" / "raw", tmp_path / "vggsound" / "raw")
    (result,) = build([replace(card, files=files)], tmp_path)
    assert not any("unverified" in note for note in result.notes), result.notes


def test_datasets_say_which_formats_are_verified(corpus, curate, tmp_path):
    code, out, _ = curate("datasets", "--json", "--manifests", tmp_path)
    assert code == 0
    told = {d["dataset"]: d["format"] for d in json.loads(out)["datasets"]}
    assert told["esc50"] == "verified"
    assert told["freesound"] == "format unverified"
    assert told["vggsound"] == "verified, 2 files not"
    (card,) = find_cards(corpus.cards, ("vggsound",))
    entries = next(d["files"] for d in json.loads(out)["datasets"] if d["dataset"] == "vggsound")
    assert {e["path"] for e in entries if e["unverified"]} == set(card.unverified_files)


def test_published_list_of_a_dataset_says_nothing_against_its_own_rows(corpus, tmp_path):
    """Clotho's ids are on the list, those of its training sounds, too."""
    shutil.copytree(corpus.manifests, tmp_path / "m", ignore=shutil.ignore_patterns("clean", "raw"))
    config = CleanConfig(tests=("clotho",), train=("clotho", "freesound"), use_published=True)
    made = clean(config, name="own", manifests=tmp_path / "m", cards=corpus.cards)
    with duckdb.connect() as db:
        rows = db.execute(
            "select dataset, rule, count(*) from read_parquet(?) group by all order by all",
            [str(made.folder / "excluded.parquet")],
        ).fetchall()
    assert rows == [("clotho", "same_id", 2), ("freesound", "published_list", 4),
                    ("freesound", "same_id", 8)]  # fmt: skip
