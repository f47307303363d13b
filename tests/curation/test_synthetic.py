"""The offline corpus: what was planted is found, by the rules it was planted for, and nothing else."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

import curation
from curation.catalog.overview import overview
from curation.catalog.record import read_record
from curation.catalog.store import VIEWS_FILE, refresh_views, work_connection
from curation.catalog.twins import _is_known_copy, find_twins
from curation.clip import Clip
from curation.corpus.film import Film, planes, read_film, write_film
from curation.corpus.media import plan_media
from curation.corpus.planted import RULES_OF_KIND, Copy, Planted
from curation.corpus.synthetic import _world, write_corpus, write_media
from curation.files import sha256_file
from curation.matching import overlap
from curation.matching.comparison import compare
from curation.matching.matrix import matrix
from curation.media.container import Unscannable
from curation.verdict import Reason

TESTS = ("vggsound", "audiocaps", "clotho", "avsync15", "audioset", "fsd50k", "esc50", "urbansound8k")
Pair = tuple[str, tuple[str, str | None], tuple[str, str]]


def _found(rows: list[dict[str, object]]) -> dict[Pair, set[str]]:
    """The rules of each pair of the evidence."""
    found: dict[Pair, set[str]] = {}
    for row in rows:
        heldout = (row["heldout_dataset"], row["heldout_clip_id"])
        train = (row["train_dataset"], row["train_clip_id"])
        found.setdefault((row["test_list"], heldout, train), set()).add(row["rule"])  # type: ignore[arg-type]
    return found


def _planted(planted: Planted, *, columns: set[str]) -> dict[Pair, set[str]]:
    expected: dict[Pair, set[str]] = {}
    for pair in planted.overlaps:
        if pair.column in columns:
            expected.setdefault((pair.test_list, pair.heldout, pair.train), set()).update(pair.rules)
    return expected


@pytest.fixture(scope="module")
def tests_found(corpus):
    """The matrix of all test sets of the corpus."""
    comparison = compare(TESTS, train=None, manifests=corpus.manifests, cards=corpus.cards)
    with work_connection(corpus.manifests) as db:
        overlap.find(db, comparison)
        return matrix(db, comparison)


def test_every_planted_overlap_is_found_by_its_rules_and_nothing_else_is_found(corpus):
    rows = curation.overlaps(TESTS, manifests=corpus.manifests).to_pylist()
    trains = {
        "audioset", "audiocaps", "clotho", "freesound", "wavcaps", "vggsound", "avsync15", "fsd50k",
    }  # fmt: skip
    expected = _planted(corpus.planted, columns=trains)
    assert _found(rows) == {
        pair: rules for pair, rules in expected.items() if not pair[0].startswith("urbansound8k@fold")
    }
    assert len(expected) > 250


@pytest.mark.parametrize("test", TESTS)
def test_every_split_that_is_held_out_shares_what_was_planted(corpus, test):
    """The other splits are no training sets, so they are asked by name."""
    columns = {pair.column for pair in corpus.planted.overlaps if "/" in pair.column}
    rows = curation.overlaps(test, train=sorted(columns), manifests=corpus.manifests).to_pylist()
    list_name = next(name for name in _test_lists(corpus.planted) if name.startswith(f"{test}@"))
    expected = _planted(corpus.planted, columns=columns)
    assert _found(rows) == {pair: rules for pair, rules in expected.items() if pair[0] == list_name}


def _test_lists(planted: Planted) -> list[str]:
    names = {pair.test_list for pair in planted.overlaps} | {"esc50@all"}
    return sorted(name for name in names if not name.startswith("urbansound8k@fold"))


def test_every_kind_of_overlap_is_planted(corpus):
    assert {pair.kind for pair in corpus.planted.overlaps} == set(RULES_OF_KIND)


def test_times_are_compared_in_whole_milliseconds(corpus):
    rows = curation.overlaps(
        "urbansound8k@fold10", train="urbansound8k/fold1", manifests=corpus.manifests
    ).to_pylist()
    found = _found(rows)
    assert found == {
        pair: rules
        for pair, rules in _planted(corpus.planted, columns={"urbansound8k/fold1"}).items()
        if pair[0] == "urbansound8k@fold10"
    }
    assert sorted(len(rules - {"published_list"}) for rules in found.values()) == [1, 2, 3]


def test_no_near_miss_is_matched(corpus):
    rows = curation.overlaps(TESTS, manifests=corpus.manifests).to_pylist()
    found = {(heldout, train) for _, heldout, train in _found(rows)}
    near = {(miss.heldout, miss.train) for miss in corpus.planted.near_misses}
    assert len(near) == 7
    assert not near & found
    with curation.open_manifests(corpus.manifests) as db:  # and both sides of each are really there
        clips = set(db.execute("select dataset, clip_id from clips").fetchall())
    assert {clip for pair in near for clip in pair} <= clips


@pytest.mark.parametrize("test", TESTS)
def test_counts_of_the_matrix_are_those_planted(corpus, tests_found, test):
    cells = tests_found[test]["overlap"]
    test_list = tests_found[test]["list"]
    assert set(cells) >= {"audioset", "audioset/eval", "vggsound", "vggsound/test", "esc50/fold1"}
    for column, cell in cells.items():
        expected = corpus.planted.counts(test_list, column)
        for name, counts in expected.items():
            told = {label: n for label, n in cell[name].items() if n is not None}
            assert told == {label: counts[label] for label in told}, f"{test_list} in {column}: {name}"


def test_counts_differ_where_they_mean_different_things(tests_found):
    """A corpus where the four counts were equal would not tell them apart."""
    cell = tests_found["audiocaps"]["overlap"]["vggsound"]
    assert (cell["test_items"]["id"], cell["pairs"]["id"]) == (10, 11)
    cell = tests_found["vggsound"]["overlap"]["audioset"]
    assert (
        cell["test_items"]["id"] > cell["test_items"]["interval"] > cell["test_items"]["same_start"] > 0
    )
    cell = tests_found["esc50"]["overlap"]["wavcaps"]  # two takes of one sound
    assert 2 * cell["test_ids"]["id"] == cell["test_items"]["id"] > 0


def test_counts_are_null_where_a_whole_side_cannot_tell(corpus, nameless_clotho, tests_found):
    nothing = {"id": None, "interval": None, "same_start": None}
    comparison = compare(TESTS, train=None, manifests=nameless_clotho, cards=corpus.cards)
    with work_connection(nameless_clotho) as db:
        overlap.find(db, comparison)
        found = matrix(db, comparison)
    assert found["clotho"]["overlap"]["fsd50k"]["test_items"] == nothing
    assert found["vggsound"]["overlap"]["clotho"]["pairs"] == nothing
    assert found["clotho"]["unidentified"] == found["clotho"]["size"] == 27
    assert found["vggsound"]["overlap"]["clotho"]["unidentified"] == 62
    by_id = tests_found["audiocaps"]["overlap"]["wavcaps"]["test_items"]
    assert by_id == {"id": 20, "interval": 20, "same_start": None}
    assert tests_found["clotho"]["unidentified"] == 2


def test_sets_of_different_sources_with_ids_count_zero(tests_found):
    zero = {"id": 0, "interval": 0, "same_start": None}  # FSD50K tells no starts
    assert tests_found["vggsound"]["overlap"]["fsd50k"]["pairs"] == zero


def test_sizes_of_datasets_and_lists_are_those_written(corpus):
    assert [result.state for result in corpus.built] == ["built"] * 10
    for result in corpus.built:
        splits = corpus.planted.num_clips[result.dataset]
        assert result.tally.kept == sum(splits.values()), result.dataset
    with curation.open_manifests(corpus.manifests) as db:
        lists = dict(db.execute("select unnest(lists), count(*) from clips group by 1").fetchall())
    assert lists == corpus.planted.list_sizes


def test_rows_add_up_and_every_damaged_row_is_reported_with_its_reason(corpus):
    with curation.open_manifests(corpus.manifests) as db:
        problems = db.execute(
            "select dataset, clip_id, source_id, reason, verdict from problems"
        ).fetchall()
        twins = db.execute("select dataset, clip_id, source_id, reason, likely_id from twins").fetchall()
        clips = set(db.execute("select dataset, clip_id from clips").fetchall())
    planted = {(d.dataset, d.clip_id, d.source_id, str(d.reason)): d for d in corpus.planted.bad_rows}
    in_build = {key: d for key, d in planted.items() if d.reason != Reason.CASE_TWIN}
    assert {row[:4] for row in problems} == set(in_build)
    assert len(problems) == len(in_build)
    for *key, verdict in problems:
        told = "unresolved" if key[3] == Reason.UNRESOLVED_ENTRY else "failed"
        assert verdict == ("kept" if in_build[tuple(key)].kept else told)
    failed = [doubt for doubt in in_build.values() if doubt.clip_id is not None and not doubt.kept]
    lost = {(doubt.dataset, doubt.clip_id) for doubt in failed if doubt.reason != Reason.DUPLICATE_CLIP}
    assert not lost & clips
    assert {(row[0], row[1], row[2], row[4]) for row in twins} == {
        (d.dataset, d.clip_id, d.source_id, d.likely_id) for d in planted.values() if d.likely_id
    }
    assert {row[3] for row in twins} == {Reason.CASE_TWIN, Reason.TRUNCATED_ID}
    for result in corpus.built:
        assert result.tally.seen == result.tally.kept + sum(result.tally.failed.values())


def test_all_reasons_of_build_are_planted(corpus):
    reasons = {Reason(doubt.reason) for doubt in corpus.planted.bad_rows}
    of_clean = {Reason.SAME_RECORDING, Reason.REUPLOAD, Reason.PUBLISHED}
    of_clean |= {Reason.NO_SUCH_CLIP, Reason.AMBIGUOUS_ID, Reason.HELD_OUT}
    of_clean |= {Reason.SAME_ANNOTATION, Reason.LICENCE, Reason.NEAR_DUPLICATE, Reason.IN_TRAINING}
    of_scan = {Reason.NO_MEDIA, Reason.NOT_MEDIA, Reason.DAMAGED, Reason.NO_STREAMS, Reason.TOO_LONG}
    of_scan |= {Reason.TOO_LARGE, Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.DECODER_CRASHED}
    of_scan |= {Reason.PARTLY_DAMAGED}
    of_extract = {Reason.NO_SOUND, Reason.TOO_SHORT, Reason.SILENT, Reason.NOT_FINITE}
    of_extract |= {Reason.UPSAMPLED, Reason.STILL, Reason.NO_PICTURE}
    revoked = {Reason.REVOKED}  # by `curate revoke`, of what is built already
    assert reasons | {Reason.TRUNCATED_ID} == set(Reason) - of_clean - of_scan - of_extract - revoked


def test_list_entries_without_id_are_counted_and_noted(corpus):
    notes = [note for result in corpus.built for note in result.notes]
    assert "wavcaps: 1 entry of wavcaps_exclude_test_ac has no readable id" in notes
    noted = [note for note in notes if "readable id" in note]
    record = read_record(corpus.manifests, "wavcaps")["evidence_unread"]
    assert len(noted) == len(record) == 5
    assert set(record.values()) == {1}


def test_datasets_tell_the_digests_of_their_known_copies(corpus):
    told = overview(corpus.cards, corpus.manifests)["datasets"]
    for entry in told:
        known = {file.path: file.sha256 for file in corpus.cards[entry["dataset"]].files}
        assert {file["path"]: file["sha256"] for file in entry["files"]} == known
    assert any(file["sha256"] for entry in told for file in entry["files"])


def test_copy_is_known_by_the_files_its_clips_come_from(corpus):
    """WavCaps' files are all optional, with a table each; those of its lists do not count."""
    card, db = corpus.cards["wavcaps"], duckdb.connect()
    assert not _is_known_copy(db, card, corpus.manifests)
    digests = read_record(corpus.manifests, "wavcaps")["inputs"]["raw"]
    used = {"soundbible", "audioset_sl", "bbc", "freesound"}
    files = [
        replace(file, sha256={"here": digests[file.path]} if file.name in used else {})
        for file in card.files
    ]
    assert _is_known_copy(db, replace(card, files=tuple(files)), corpus.manifests)
    files[1] = replace(files[1], sha256={})
    assert not _is_known_copy(db, replace(card, files=tuple(files)), corpus.manifests)
    db.close()


def test_twins_that_only_known_copies_have_are_two_videos(make_tiny, monkeypatch):
    """Ids as published may differ by case alone; a copy nobody knows beside them changes nothing."""
    trusted = ["one", "two"]
    monkeypatch.setattr(
        "curation.catalog.twins._is_known_copy", lambda db, card, manifests: card.dataset in trusted
    )
    clips = {
        "one": [_youtube_clip(0, "4PjEi5fFD6A"), _youtube_clip(1, "FhaYvI1yrUM")],
        "two": [_youtube_clip(0, "4pjEi5fFD6A")],
        "mine": [_youtube_clip(0, "fhaYvI1yrUM")],
    }
    tiny = make_tiny(clips)
    twins = find_twins(tiny.manifests, tiny.cards)
    assert twins.first == [("case_twin", "mine", "fhaYvI1yrUM", "FhaYvI1yrUM")]
    assert twins.counts == {"case_twin": 1}


def test_every_cut_off_id_is_found_however_many_there_are(make_tiny):
    whole = [f"{n:010d}A" for n in range(1500)]
    clips = {
        "whole": [_youtube_clip(n, source_id) for n, source_id in enumerate(whole)],
        "cut": [_youtube_clip(n, source_id[:10]) for n, source_id in enumerate(whole)]
        + [_youtube_clip(n, f"{n:010d}A") for n in range(5000, 7000)]
        + [_youtube_clip(9999, whole[0][:8])],
    }
    tiny = make_tiny(clips)
    counts = find_twins(tiny.manifests, tiny.cards).counts
    assert counts == {Reason.TRUNCATED_ID: 1500}  # the shorter one begins a hundred ids


def _youtube_clip(number: int, source_id: str) -> tuple[Clip, str]:
    clip = Clip(
        dataset="-", clip_id=f"c{number}", source="youtube", source_id=source_id, start_s=0, end_s=1
    )
    return clip, "train"


def test_views_of_the_evidence_and_of_test_items_are_made(in_folder, tmp_path, curate):
    manifests = tmp_path / "manifests"
    shutil.copytree(in_folder.manifests, manifests, ignore=shutil.ignore_patterns("clean", "raw"))
    (manifests / "overlaps.parquet").unlink(missing_ok=True)
    refresh_views(manifests)
    assert curate("overlaps", "--manifests", manifests)[0] == 0
    assert {"overlaps", "clips"} <= _views(manifests)
    stamp = (manifests / VIEWS_FILE).stat().st_mtime_ns
    assert curate("overlaps", "--manifests", manifests)[0] == 0
    assert (manifests / VIEWS_FILE).stat().st_mtime_ns == stamp, "it takes a tenth of a second"
    (manifests / VIEWS_FILE).unlink()
    assert curate("overlaps", "--manifests", manifests)[0] == 0
    assert "overlaps" in _views(manifests)
    words = ("clean", "--policy", "prefer-train", "--name", "paper")
    assert curate(*words, "--manifests", manifests)[0] == 0
    of_clean = {"kept", "excluded", "heldout_kept", "heldout_excluded"}
    assert {f"paper_{kind}" for kind in of_clean} <= _views(manifests)
    shutil.copytree(manifests / "clean" / "paper", manifests / "clean" / "paper.former.tmp-1")
    refresh_views(manifests)
    assert not any("tmp" in view for view in _views(manifests))


def _views(manifests: Path) -> set[str]:
    with duckdb.connect(str(manifests / VIEWS_FILE), read_only=True) as db:
        views = {name for (name,) in db.execute("select view_name from duckdb_views()").fetchall()}
        for view in views & {"overlaps", "paper_heldout_kept", "paper_heldout_excluded"}:
            assert db.execute(f'select count(*) from "{view}"').fetchone() is not None
    return views


def test_lists_of_the_corpus_are_reported_as_unknown(corpus):
    """They have the names of the real lists and not their clips."""
    lists = overview(corpus.cards, corpus.manifests)["lists"]
    registered = {entry["state"] for entry in lists if entry["registered_digest"]}
    others = {entry["state"] for entry in lists if not entry["registered_digest"]}
    assert (registered, others) == ({"unknown"}, {"not registered"})
    notes = [note for result in corpus.built for note in result.notes]
    assert any(
        note.startswith("vggsound: unknown lists") and "official 257 of" in note for note in notes
    )
    assert any(note.startswith("audioset: unexplained difference") for note in notes)


def test_ids_with_dashes_and_underscores_are_there(corpus):
    with curation.open_manifests(corpus.manifests) as db:
        ids = [row[0] for row in db.execute("select source_id from vggsound").fetchall()]
    assert sum(source_id.startswith("--") for source_id in ids) > 5
    assert sum(source_id.startswith("-") for source_id in ids) > 20
    assert sum("_" in source_id for source_id in ids) > 100


def test_files_are_as_published(corpus):
    def head(path: str) -> bytes:
        return (corpus.metadata / path).read_bytes()[:200]

    assert head("audioset/eval_segments.csv").startswith(b"# Segments csv created ")
    assert b"\n# YTID, start_seconds, end_seconds, positive_labels\n" in head(
        "audioset/eval_segments.csv"
    )
    assert b",train\r\n" in (corpus.metadata / "vggsound/vggsound.csv").read_bytes()
    assert head("vggsound/lists/mmaudio_vgg-test.tsv").startswith(b"id\tlabel\n")
    assert head("esc50/esc50.csv").startswith(b"filename,fold,target,category,esc10,src_file,take\r\n")
    assert not (corpus.metadata / "audiocaps/dataset/train.csv").exists()
    assert (corpus.metadata / "audiocaps/dataset/train.csv.gz").read_bytes()[
        4:8
    ] == b"\0\0\0\0"  # no time
    captions = duckdb.sql(
        "select min(len(captions)), max(len(captions)) "
        f"from '{corpus.manifests}/audiocaps/clips.parquet' "
        "where split = 'test'"
    ).fetchall()
    assert captions == [(5, 5)]


def test_corpus_is_the_same_bytes_each_time(tmp_path: Path, corpus):
    again = write_corpus(tmp_path)
    assert again == corpus.planted
    digests = [
        {str(path.relative_to(root)): sha256_file(path) for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path, corpus.metadata)
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == corpus.planted.num_files == 58
    assert corpus.planted.num_datasets == 10


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The media of the corpus."""
    folder = tmp_path_factory.mktemp("media")
    write_media(folder)
    return folder


def test_media_are_small_and_all_are_named(corpus, media):
    files = {path.relative_to(media).as_posix() for path in media.rglob("*") if path.is_file()}
    assert files == set(corpus.planted.media.files.values())
    assert sum((media / file).stat().st_size for file in files) < 4_000_000


def test_media_are_of_clips_and_under_the_names_of_the_cards(corpus, media):
    with curation.open_manifests(corpus.manifests) as db:
        clips = {
            (dataset, clip_id): (source_id, start_s)
            for dataset, clip_id, source_id, start_s in db.execute(
                "select dataset, clip_id, source_id, start_s from clips"
            ).fetchall()
        }
    for key, file in corpus.planted.media.files.items():
        source_id, start_s = clips[key]
        names = [
            pattern.format(id=source_id, start=int(start_s or 0), clip_id=key[1], start_ms=0, end_ms=0)
            for pattern in corpus.cards[key[0]].media
        ]
        assert file.removeprefix(f"{key[0]}/") in names


def test_copies_and_near_misses_are_between_clips_that_have_media(corpus):
    planted = corpus.planted.media
    pairs = [(pair.heldout, pair.train) for pair in (*planted.copies, *planted.near_misses)]
    named = [clip for pair in pairs for clip in pair] + list(planted.damaged + planted.whole)
    assert len(named) == len(set(named))  # each clip is in one pair, so every other pair is unrelated
    assert set(named) == set(planted.files)
    assert {copy.rule for copy in planted.copies} == {"near_av", "near_video", "near_audio"}
    known = (("vggsound", "FhaYvI1yrUM_000021"), ("vggsound", "4PjEi5fFD6A_000021"))
    assert known in pairs


def test_no_rule_on_ids_finds_what_only_the_media_show(corpus):
    """But for the known pair, and the cut that is under the id of what it was cut from."""
    found = {
        (heldout, train)
        for _, heldout, train in _found(curation.overlaps(TESTS, manifests=corpus.manifests).to_pylist())
    }
    planted = corpus.planted.media
    copies = [copy.kind for copy in planted.copies if (copy.heldout, copy.train) in found]
    assert sorted(copies) == ["cropped and encoded again", "cut from it"]
    assert not {(miss.heldout, miss.train) for miss in planted.near_misses} & found


def test_copies_look_or_sound_like_what_they_are_of(corpus, media):
    """Seen with plain eyes: pictures at the same place, made equally large; loudness over time."""
    for copy in corpus.planted.media.copies:
        ours, theirs = (
            read_film(media / corpus.planted.media.files[key]) for key in (copy.heldout, copy.train)
        )
        if copy.rule != "near_audio":
            alike = _alike_at(ours, theirs, copy, place=1.5) - _alike_at(ours, theirs, copy, place=3.4)
            assert alike > 0.04, copy  # at the time that was planted more than at another
        if copy.rule != "near_video":
            loud = [_loudness(film) for film in (ours, theirs)]
            shift = round(copy.offset_s * 10)
            first = loud[0][max(0, -shift) : 36] if copy.speed == 1 else loud[0][:10]
            second = loud[1][max(0, shift) :][: len(first)]
            assert np.corrcoef(first[: len(second)], second)[0, 1] > 0.7, copy


def _alike_at(ours: Film, theirs: Film, copy: Copy, *, place: float) -> float:
    """Correlation of the middles of ours at 1.5 s and theirs where `place` of ours would be."""
    where = copy.offset_s + place / copy.speed
    pictures = []
    for film, time_s in ((ours, 1.5), (theirs, where)):
        picture = planes(film.frames[int(np.searchsorted(film.times_s, time_s))])[0]
        middle = picture[picture.shape[0] // 4 : -(picture.shape[0] // 4)]
        pictures.append(np.asarray(Image.fromarray(middle).resize((48, 24)), float))
    if copy.mirrored:
        pictures[1] = pictures[1][:, ::-1]
    return float(np.corrcoef(pictures[0].ravel(), pictures[1].ravel())[0, 1])


def _loudness(film: Film) -> np.ndarray:
    assert film.wave is not None
    window = film.rate_hz // 10
    mono = film.wave.mean(axis=0)
    return np.sqrt((mono[: len(mono) // window * window].reshape(-1, window) ** 2).mean(axis=1))


def test_the_damaged_file_cannot_be_read(corpus, media):
    (key,) = corpus.planted.media.damaged
    with pytest.raises(Unscannable, match="damaged"):
        read_film(media / corpus.planted.media.files[key])


def test_media_have_the_same_bytes_at_every_run(corpus, media, tmp_path):
    plan = plan_media(_world())
    for key in list(plan.films)[1:24:7]:
        write_film(plan.films[key](), tmp_path / "again.mp4")
        written = media / corpus.planted.media.files[key]
        if written.suffix == ".mp4":
            assert (tmp_path / "again.mp4").read_bytes() == written.read_bytes(), key


@pytest.mark.slow
def test_the_detector_finds_every_copy_and_leaves_near_misses_alone(corpus, media, tmp_path, curate):
    manifests = tmp_path / "manifests"
    shutil.copytree(corpus.manifests, manifests, ignore=shutil.ignore_patterns("clean", "raw"))
    sets, place = "vggsound,audiocaps,clotho,avsync15", ("--manifests", str(manifests))
    code, out, err = curate("scan", str(media), "--dataset", sets, "--json", *place)
    assert code == 3, err  # most clips have no media, one file is damaged
    code, out, err = curate("duplicates", "--test", sets, "--json", *place)
    assert code in (0, 3), err
    found = {(pair["a"], pair["b"]): pair for pair in json.loads(out)["pairs"]}
    planted = corpus.planted.media
    auto = {key: pair["rule"] for key, pair in found.items() if pair["tier"] == "auto"}
    assert auto == {("/".join(copy.heldout), "/".join(copy.train)): copy.rule for copy in planted.copies}
    for copy in planted.copies:
        pair = found["/".join(copy.heldout), "/".join(copy.train)]
        assert pair["offset_s"] == pytest.approx(copy.offset_s, abs=0.1)
        assert pair["speed"] == pytest.approx(copy.speed, abs=0.01)
        assert pair["mirrored"] in (copy.mirrored, None)
