"""The tiny preset learns eight clips by heart, and its first steps are those that are stored.

    PYTHONPATH=.:tests/features:tests/curation python tests/training/test_overfit.py

writes the stored ones anew, from the root of the repository.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import small_shards
from small_runs import lines_of, run_of, shards_in
from small_shards import Planned
from small_training import small_config

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "training_losses.json"
NEVER = 10**6


def eight_clips(folder: Path) -> Path:
    """Shards whose latents have hardly a spread: noise of theirs is what no network can learn."""
    made = small_shards.values_of

    def calm(planned: Planned, about: dict[str, Any] = small_shards.ABOUT) -> Any:
        values = made(planned, about)
        values["latent_std"].fill_(0.01)
        return values

    small_shards.values_of = calm
    try:
        rows = [Planned(clip_id=f"v{i}", captions=[f"take {i}"]) for i in range(8)]
        return shards_in(folder, rows=rows)
    finally:
        small_shards.values_of = made


def losses(shards: Path, run: Path, **changes: Any) -> list[float]:
    """Of the steps of a run of the tiny preset, the mean of each interval."""
    told = {"checkpoint_every": NEVER, "ema_profile_every": 0, **changes}
    run_of(shards, run, small_config(**told))
    return [line["loss"] for line in lines_of(run)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eight_clips(tmp_path_factory.mktemp("eight"))


@pytest.mark.slow
def test_tiny_preset_overfits_eight_clips(shards: Path, tmp_path: Path) -> None:
    found = losses(shards, tmp_path / "run", learning_rate=3e-3, log_every=20)
    assert min(found) == min(found[-4:])
    assert found[-1] < found[0] / 3


def test_first_twenty_losses_are_the_stored_ones(shards: Path, tmp_path: Path) -> None:
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = losses(shards, tmp_path / "run", steps=20, log_every=1)
    assert len(found) == 20
    assert found == pytest.approx(stored["losses"], rel=1e-4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = losses(eight_clips(Path(folder)), Path(folder) / "run", steps=20, log_every=1)
    document = {"made_by": "tests/training/test_overfit.py", "losses": found}
    GOLDEN.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
