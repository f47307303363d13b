"""Parts of long sounds: those of the reference, and what holds of any."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.inputs.partition import partition


@pytest.mark.shared
def test_parts_are_those_of_the_reference(shared_golden: Path) -> None:
    golden = json.loads((shared_golden / "partition_clips.json").read_text())
    found = [
        {"id": f"{file['name']}_{i}", "name": file["name"], "start_sample": start, "end_sample": end}
        for file in golden["files"]
        for i, (start, end) in enumerate(partition(file["num_samples"], file["sample_rate"]))
    ]
    assert found == golden["clips"]


@pytest.mark.parametrize(
    ("num_samples", "sample_rate_hz", "parts"),
    [(129_599, 16_000, 0), (129_600, 16_000, 1), (259_199, 16_000, 1), (259_200, 16_000, 2)],
)
def test_a_second_part_needs_twice_eight_point_one_seconds(
    num_samples: int, sample_rate_hz: int, parts: int
) -> None:
    assert len(partition(num_samples, sample_rate_hz)) == parts


@given(
    num_samples=st.integers(0, 1 << 31),
    sample_rate_hz=st.sampled_from((8000, 11025, 16000, 22050, 44100, 48000, 96000)),
    part_s=st.floats(0.7, 30),
    max_parts=st.integers(1, 12),
)
def test_parts_are_equally_long_in_the_sound_and_do_not_overlap(
    num_samples: int, sample_rate_hz: int, part_s: float, max_parts: int
) -> None:
    parts = partition(num_samples, sample_rate_hz, part_s=part_s, max_parts=max_parts)
    assert len(parts) <= max_parts
    assert bool(parts) == (num_samples >= part_s * sample_rate_hz)
    assert {end - start for start, end in parts} <= {int(part_s * sample_rate_hz)}
    for (_, end), (start, _) in itertools.pairwise(parts):
        assert end <= start
    if len(parts) > 1:
        assert parts[0][0] == 0
        assert num_samples - len(parts) < parts[-1][1] <= num_samples
