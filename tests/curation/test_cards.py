"""The contract of every card that ships.

A new card adds no test code: it must have a place in the offline corpus, and pass all of this.
"""

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from curation.catalog.build import Built, build
from curation.catalog.cards import Card, RawFile, load_cards
from curation.catalog.fetch import fetch_from
from curation.catalog.lists import heldout_selection, train_selection
from curation.catalog.record import read_record
from curation.errors import UsageProblem
from curation.manifest import CLIP_COLUMNS

SHIPPED = load_cards()
SHA256 = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(params=sorted(SHIPPED))
def card(request) -> Card:
    return SHIPPED[request.param]


# -- what a card must say --------------------------------------------------------------------------


def test_card_says_who_made_the_dataset_and_under_which_licence(card):
    for said in (card.title, card.citation, card.metadata_licence, card.media_licence):
        assert len(said) > 2, card.dataset
    assert card.homepage.startswith("https://")
    assert re.search(r"20\d\d", card.citation)
    assert card.media
    assert card.modality in ("audio", "audio-video")


def test_files_have_addresses_and_known_digests(card):
    for file in card.files:
        assert file.url.startswith(("https://", "http://storage.googleapis.com/")), file.name
        assert all(SHA256.fullmatch(digest) for digest in file.sha256.values())
        assert all(file.sha256), "each known copy has a name"
        # nobody here has seen these, as the card says; all others are pinned by at least one digest
        assert bool(file.sha256) == (file.path not in card.unverified_files), file.name


def test_splits_have_roles_and_published_counts(card):
    assert {split.role for split in card.splits.values()} <= {"train", "validation", "test"}
    for name, split in card.splits.items():
        if not split.apart:  # of clips that only a later edition has there may be no count
            assert split.published, name
        assert bool(split.published) == bool(split.counted_by), name
    assert card.train_splits or any(split.role == "test" for split in card.splits.values())


def test_lists_are_pinned_by_size_and_digest(card):
    unseen = {file.table for file in card.files if file.path in card.unverified_files}
    for named in card.lists:
        assert named.title
        if unseen & set(re.findall(r"\bfrom\s+(\w+)", named.sql or "")):
            assert named.digest is None, named.name
            continue
        assert named.size, named.name
        assert named.digest is not None, named.name
        assert named.digest.startswith("sha256:"), named.name
        assert SHA256.fullmatch(named.digest.removeprefix("sha256:")), named.name


def test_evidence_says_who_published_it_and_concerns_known_datasets(card):
    for evidence in card.evidence:
        assert evidence.citation
        assert set(evidence.heldout) <= set(SHIPPED)
        assert bool(evidence.groups) == (evidence.rule == "known_reupload")


def test_names_of_test_and_training_sets_resolve(card):
    for named in card.lists:
        selection = heldout_selection(f"{card.dataset}@{named.name}", SHIPPED)
        assert selection.name == f"{card.dataset}@{named.name}"
        assert train_selection(f"{card.dataset}@{named.name}", SHIPPED).dataset == card.dataset
    for split in card.splits:
        assert heldout_selection(f"{card.dataset}/{split}", SHIPPED).dataset == card.dataset
    if card.train_splits:
        assert train_selection(card.dataset, SHIPPED).splits == card.train_splits
    if card.test_splits:
        assert heldout_selection(card.dataset, SHIPPED).dataset == card.dataset


# -- what a card must do ---------------------------------------------------------------------------


def _built(corpus, card: Card) -> Built:
    return next(result for result in corpus.built if result.dataset == card.dataset)


def test_miniature_is_built_with_the_rows_that_were_written(corpus, card):
    assert _built(corpus, card).missing == []
    record = read_record(corpus.manifests, card.dataset)
    planted = corpus.planted.num_clips[card.dataset]
    assert {name: entry["rows"] for name, entry in record["splits"].items()} == planted
    assert set(planted) == set(card.splits)


def test_every_list_of_the_card_comes_out_of_the_miniature(corpus, card):
    lists = read_record(corpus.manifests, card.dataset)["lists"]
    wanted = {f"{card.dataset}@{named.name}" for named in card.lists}
    assert {name: entry["size"] for name, entry in lists.items()} == {
        name: size for name, size in corpus.planted.list_sizes.items() if name in wanted
    }
    assert all(SHA256.fullmatch(entry["digest"].removeprefix("sha256:")) for entry in lists.values())


def test_clips_have_the_schema_and_unique_ids_in_the_order_of_the_files(corpus, card):
    import duckdb

    path = str(corpus.manifests / card.dataset / "clips.parquet")
    with duckdb.connect() as db:
        described = db.execute("describe from read_parquet(?)", [path]).fetchall()
        assert [(row[0], row[1].lower().replace('"', "")) for row in described] == list(CLIP_COLUMNS)
        total, unique, datasets = db.execute(
            "select count(*), count(distinct clip_id), list(distinct dataset) from read_parquet(?)",
            [path],
        ).fetchone()
        assert total == unique > 0
        assert datasets == [card.dataset]
        origins = db.execute("select origin.file, origin.row from read_parquet(?)", [path]).fetchall()
    assert {file for file, _ in origins} <= {file.path for file in card.files}
    for file in {file for file, _ in origins}:
        rows = [row for name, row in origins if name == file]
        assert rows == sorted(rows)


def test_building_again_changes_nothing(corpus, card):
    (again,) = build([card], corpus.manifests)
    assert again.state == "up to date"
    assert again.tally == _built(corpus, card).tally


def _spoiled(value: Any) -> Any:
    """The same shape with every text replaced by one that means nothing."""
    if isinstance(value, dict):
        return {key: _spoiled(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_spoiled(entry) for entry in value]
    return "?" if isinstance(value, str) else value


def _add_malformed_row(path: Path, file: RawFile) -> None:
    """Append one row (CSV) or one object (JSON) whose every cell is a question mark."""
    text = path.read_text(encoding="utf-8")
    if file.format == "csv":
        end = "\r\n" if "\r\n" in text else "\n"
        columns = (
            len(file.columns) if not file.header else len(text.splitlines()[0].split(file.delimiter))
        )
        path.write_text(text + file.delimiter.join(["?"] * columns) + end, encoding="utf-8", newline="")
        return
    document = json.loads(text)
    items = next(value for value in document.values() if isinstance(value, dict | list))
    if isinstance(items, list):
        items.append(_spoiled(items[0]))
    else:
        items["?"] = _spoiled(next(iter(items.values())))
    path.write_text(json.dumps(document), encoding="utf-8")


def _row_files(corpus, card: Card) -> list[RawFile]:
    """The files that clips come from; in Clotho's index a malformed entry is none of its test part."""
    import duckdb

    path = str(corpus.manifests / card.dataset / "clips.parquet")
    with duckdb.connect() as db:
        rows = db.execute("select distinct origin.file from read_parquet(?)", [path]).fetchall()
    origins = {file for (file,) in rows}
    csv_only = card.unidentified
    return [
        file for file in card.files if file.path in origins and (file.format == "csv" or not csv_only)
    ]


def test_malformed_row_of_any_file_is_reported_and_costs_no_other(corpus, card, tmp_path):
    before = _built(corpus, card).tally
    files = _row_files(corpus, card)
    assert files
    for file in files:
        manifests = tmp_path / file.name
        raw = manifests / card.dataset / "raw"
        shutil.copytree(corpus.manifests / card.dataset / "raw", raw)
        _add_malformed_row(raw / file.path, file)
        (result,) = build([card], manifests)
        assert result.error is None, file.path
        assert result.tally.seen == before.seen + 1, file.path
        failed, failed_before = sum(result.tally.failed.values()), sum(before.failed.values())
        # Where a clip is only a file name, `?` is a name like any other.
        assert failed - failed_before == (0 if card.unidentified else 1), file.path
        assert result.tally.kept >= before.kept, file.path


def test_dataset_without_its_files_is_missing_not_failed(card, tmp_path):
    (result,) = build([card], tmp_path / "manifests")
    assert result.state == "missing"
    assert result.missing
    assert set(result.missing) <= {file.path for file in card.files}
    assert not list(tmp_path.rglob("*.parquet"))


def test_packed_and_plain_files_build_the_same(corpus, tmp_path):
    card = SHIPPED["freesound"]
    folder = tmp_path / "metadata" / "freesound"
    shutil.copytree(corpus.metadata / "freesound", folder)
    packed = folder / "freesound_meta.csv.gz"
    (folder / "freesound_meta.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    fetch_from(tmp_path / "metadata", [card], tmp_path / "manifests")
    build([card], tmp_path / "manifests")
    made = tmp_path / "manifests" / "freesound" / "clips.parquet"
    assert made.read_bytes() == (corpus.manifests / "freesound" / "clips.parquet").read_bytes()


def test_unknown_dataset_is_refused_with_the_known_ones(curate, tmp_path):
    code, _, err = curate("build", "esc51", "--manifests", tmp_path)
    assert code == 2
    assert (
        "unknown dataset 'esc51', expected one of: audiocaps, audioset, avsync15, clotho, esc50" in err
    )
    with pytest.raises(UsageProblem):
        heldout_selection("esc51", SHIPPED)
