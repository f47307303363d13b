"""Shards that a run may open, those that it refuses, and what it says of them."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from small_shards import ABOUT, Planned, text_of, values_of
from small_training import small_config, training_folder, training_rows

from curation.errors import FoleyproofError, ManifestChanged, UsageProblem
from features.shards import ShardReader
from training.config import PRESETS
from training.data.opening import open_shards

UNTRAINED: dict[str, Any] = {
    **ABOUT,
    "encoders": {"vae": "untrained:0:tiny", "clip": "sha256:22", "synchformer": "sha256:33"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("opening") / "shards"
    training_folder(out)
    return out


def test_statistics_are_those_of_the_rows_with_pictures(folder: Path) -> None:
    opened = open_shards(folder, small_config())
    opened.reader.close()
    means = torch.cat([values_of(row)["latent_mean"] for row in training_rows() if row.kind == "av"])
    torch.testing.assert_close(opened.latent_mean, means.double().mean(0).float())
    torch.testing.assert_close(opened.latent_std, means.double().std(0).float())


def test_the_features_of_the_empty_string_come_with_them(folder: Path) -> None:
    opened = open_shards(folder, small_config())
    opened.reader.close()
    assert opened.empty_text.dtype == torch.float32
    assert torch.equal(opened.empty_text, text_of("").float())


def test_of_certified_shards_nothing_is_said(folder: Path) -> None:
    opened = open_shards(folder, small_config())
    opened.reader.close()
    assert opened.notes == ()


def test_untrained_features_are_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    training_folder(tmp_path / "shards", about=UNTRAINED)
    with pytest.raises(
        UsageProblem, match=r"random weights \(.*vae untrained:0:tiny\), .*--allow-untrained"
    ):
        open_shards(tmp_path / "shards", small_config())
    opened = open_shards(tmp_path / "shards", small_config(), allow_untrained=True)
    opened.reader.close()
    (note,) = opened.notes
    assert "random weights" in note


@pytest.mark.parametrize(
    ("model", "rate_hz", "best"),
    [("L-44k", 16000, "S-16k"), ("S-44k", 16000, "S-16k"), ("S-16k", 44100, "S-44k"),
     ("tiny-44k", 16000, "tiny-16k"), ("tiny-16k", 44100, "tiny-44k"), ("L-44k-v2", 16000, "S-16k")],
)  # fmt: skip
def test_another_sample_rate_is_refused_with_the_preset_that_fits(
    tmp_path: Path, model: str, rate_hz: int, best: str
) -> None:
    training_folder(tmp_path / "shards", about={**ABOUT, "sample_rate_hz": rate_hz})
    expected = (
        f"shards are of {rate_hz:,} Hz and {model} is of .* --model {best}, or run: features extract"
    )
    with pytest.raises(UsageProblem, match=expected):
        open_shards(tmp_path / "shards", PRESETS[model])


def test_any_duration_is_trained_on(tmp_path: Path) -> None:
    training_folder(tmp_path / "shards", about={**ABOUT, "duration_s": 2.0})
    opened = open_shards(tmp_path / "shards", small_config())
    opened.reader.close()
    assert opened.reader.about["duration_s"] == 2.0


def test_shards_without_rows_are_refused(tmp_path: Path) -> None:
    training_folder(tmp_path / "shards", [])
    with pytest.raises(UsageProblem, match=r"holds no rows, expected some — .*rejects\.parquet"):
        open_shards(tmp_path / "shards", small_config())


def test_a_folder_that_is_not_sealed_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="holds no shards"):
        open_shards(tmp_path, small_config())


def test_uncertified_shards_are_said_with_the_splits_that_are_not_for_training(tmp_path: Path) -> None:
    rows = [*training_rows(), *(Planned(clip_id=f"t{i}", split="test") for i in range(2))]
    training_folder(tmp_path / "shards", rows, certificate=None)
    opened = open_shards(tmp_path / "shards", small_config())
    opened.reader.close()
    (note,) = opened.notes
    assert "uncertified, nothing says that no test clip is in it; it holds 2 rows of tones/test" in note
    assert "run: curate clean" in note


def test_uncertified_training_rows_are_said_without_splits(tmp_path: Path) -> None:
    training_folder(tmp_path / "shards", certificate=None)
    opened = open_shards(tmp_path / "shards", small_config())
    opened.reader.close()
    (note,) = opened.notes
    assert "uncertified" in note
    assert "it holds" not in note


@pytest.mark.parametrize(
    "change",
    [
        {"duration_s": 2.0},
        {"encoders": {**ABOUT["encoders"], "vae": "sha256:99"}},
    ],
)
def test_shards_that_validate_must_be_made_like_those_trained_on(
    folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    training_folder(tmp_path / "val", about={**ABOUT, **change})
    (key,) = change
    with (
        ShardReader(folder) as training,
        pytest.raises(UsageProblem, match=f"val: its {key} is .*, expected .* as in .* same options"),
    ):
        open_shards(tmp_path / "val", small_config(), like=training)


def test_shards_made_alike_may_validate_on_whatever_machine(folder: Path, tmp_path: Path) -> None:
    about = {**ABOUT, "device": "cuda", "shard_rows": 7}
    training_folder(tmp_path / "val", [Planned(clip_id="x")], about=about)
    with ShardReader(folder) as training:
        opened = open_shards(tmp_path / "val", small_config(), like=training)
        opened.reader.close()
    assert opened.notes == ()


def test_of_shards_that_validate_no_certificate_is_asked(folder: Path, tmp_path: Path) -> None:
    rows = [Planned(clip_id="x", split="test")]
    training_folder(tmp_path / "val", rows, certificate=None)
    with ShardReader(folder) as training:
        opened = open_shards(tmp_path / "val", small_config(), like=training)
        opened.reader.close()
    assert opened.notes == ()


def test_media_that_were_prepared_otherwise_are_said(folder: Path, tmp_path: Path) -> None:
    about = {**ABOUT, "preprocessing": {"version": "test/2"}}
    training_folder(tmp_path / "val", [Planned(clip_id="x")], about=about)
    with ShardReader(folder) as training:
        opened = open_shards(tmp_path / "val", small_config(), like=training)
        opened.reader.close()
    (note,) = opened.notes
    assert "media were prepared otherwise" in note


def test_latents_without_a_deviation_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel is the same in all rows; is too large to be added up; is no number."""
    bad = r"among the latents of .* rows of bells \(train, av\), .* some that are not finite, expected"
    for name, spoilt, message in (
        ("flat", 0.0, "its latents have mean .* expected finite numbers"),
        ("huge", 3e38, "its latents have mean .* expected finite numbers"),
        ("none", float("nan"), bad),
    ):

        def values(planned: Planned, about: dict[str, Any] = ABOUT, spoilt: float = spoilt) -> Any:
            found = values_of(planned, about)
            found["latent_mean"][:, 3] = spoilt
            return found

        with monkeypatch.context() as patched:
            patched.setattr("small_shards.values_of", values)
            training_folder(tmp_path / name)
        with pytest.raises(FoleyproofError, match=message):
            open_shards(tmp_path / name, small_config())


def test_a_flipped_byte_in_statistics_or_index_is_told(tmp_path: Path) -> None:
    for name in ("statistics.safetensors", "index.parquet"):
        training_folder(tmp_path / name)
        with (tmp_path / name / name).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))
        with pytest.raises(ManifestChanged, match=f"{name}: sha256 is "):
            open_shards(tmp_path / name, small_config())


def test_what_is_refused_is_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Path] = []
    plain = ShardReader.close

    def close(self: ShardReader) -> None:
        closed.append(self.folder)
        plain(self)

    monkeypatch.setattr(ShardReader, "close", close)
    training_folder(tmp_path / "shards", about=UNTRAINED)
    with pytest.raises(UsageProblem):
        open_shards(tmp_path / "shards", small_config())
    assert closed == [tmp_path / "shards"]
