"""The bound on what identity cannot tell is an upper bound, counted by hand for small cases."""

from pathlib import Path

import pytest

from curation.clip import Clip
from curation.decision.clean import clean
from curation.decision.policy import CleanConfig, Policy
from curation.errors import UsageProblem
from curation.matching.comparison import compare
from curation.matching.matrix_text import overlapping


def _clip(dataset: str, clip_id: str, source_id: str | None, start_s: float | None = None) -> Clip:
    end_s = None if start_s is None else start_s + 10
    return Clip(
        dataset=dataset,
        clip_id=clip_id,
        source="freesound",
        source_id=source_id,
        start_s=start_s,
        end_s=end_s,
    )


def _bound(tiny, **options) -> int:
    config = CleanConfig(**{"tests": ("held",), "train": ("mine",), **options})
    made = clean(config, name="one", manifests=tiny.manifests, cards=tiny.cards, replace=True)
    (entry,) = made.document["unknown"].values()
    return entry["leaked_test_items_at_most"]


@pytest.fixture
def two_clips_of_one_sound(make_tiny):
    """One unidentified training row; of three test items two are cut from one recording."""
    held = [_clip("held", "a", "11"), _clip("held", "b", "11"), _clip("held", "c", "12")]
    rows = [(_clip("mine", "x", None), "train"), (_clip("mine", "y", "99"), "train")]
    return make_tiny({"held": [(clip, "test") for clip in held], "mine": rows})


def test_one_unidentified_row_may_be_all_items_of_one_recording(two_clips_of_one_sound) -> None:
    assert _bound(two_clips_of_one_sound) == 2


def test_row_that_two_selections_name_counts_once(two_clips_of_one_sound) -> None:
    assert _bound(two_clips_of_one_sound, train=("mine", "mine/train")) == 2


def test_report_adds_what_was_found_and_stays(make_tiny) -> None:
    held = [(_clip("held", name, source_id), "test") for name, source_id in (("a", "11"), ("b", "12"))]
    tiny = make_tiny({"held": held, "mine": [(_clip("mine", "x", "11"), "train")]})
    assert _bound(tiny) == 0
    assert _bound(tiny, policy=Policy.REPORT) == 1


def test_match_by_start_leaves_open_what_has_no_start(make_tiny) -> None:
    held = [(_clip("held", "a", "11", 5.0), "test")]
    tiny = make_tiny({"held": held, "mine": [(_clip("mine", "x", "11"), "train")]})
    assert _bound(tiny) == 0
    assert _bound(tiny, match="start") == 1


def test_id_with_other_capitals_may_be_the_recording(make_tiny) -> None:
    """Two items of one id, one more whose twin no row spells; Freesound ids have no capitals."""

    def video(dataset: str, clip_id: str, source_id: str) -> Clip:
        return Clip(dataset=dataset, clip_id=clip_id, source="youtube", source_id=source_id)

    held = [video("held", "a", "4PjEi5fFD6A"), video("held", "b", "4PjEi5fFD6A"),
            video("held", "c", "FhaYvI1yrUM")]  # fmt: skip
    mine = [video("mine", "x", "4pjEi5fFD6A"), video("mine", "y", "1MQkMdlBezY")]
    tiny = make_tiny(
        {"held": [(clip, "test") for clip in held], "mine": [(clip, "train") for clip in mine]}
    )
    assert _bound(tiny) == 2
    other = make_tiny({"held": [(held[2], "test")], "mine": [(clip, "train") for clip in mine]})
    assert _bound(other) == 0


def test_row_that_failed_may_be_a_test_item(make_tiny) -> None:
    """Its id is readable and in training, but nothing was compared with it."""
    held = [(_clip("held", "a", "11", 0.0), "test"), (_clip("held", "b", "12", -5.0), "test")]
    tiny = make_tiny({"held": held, "mine": [(_clip("mine", "x", "12", 0.0), "train")]})
    assert _bound(tiny) == 1


def test_one_list_under_two_names_is_refused(two_clips_of_one_sound) -> None:
    tiny = two_clips_of_one_sound
    with pytest.raises(UsageProblem, match="are one list"):
        compare(("held", "held@official"), train=None, manifests=tiny.manifests, cards=tiny.cards)


def test_built_dataset_without_a_card_is_not_left_out_silently(two_clips_of_one_sound) -> None:
    tiny = two_clips_of_one_sound
    cards = {name: card for name, card in tiny.cards.items() if name != "mine"}
    with pytest.raises(UsageProblem, match="no card is known of that name"):
        compare(("held",), train=None, manifests=Path(tiny.manifests), cards=cards)


def test_what_cannot_be_told_is_counted_apart() -> None:
    def cell(n: int | None) -> dict[str, object]:
        return {"test_items": {"id": n, "interval": n, "same_start": n}, "known_reupload": 0,
                "empty_splits": []}  # fmt: skip

    tests = {"t": {"overlap": {"a": cell(3), "b": cell(0), "c": cell(None)}}}
    assert overlapping(tests, ["a", "b", "c"], "id") == (1, 1, 1)
    tests["t"]["overlap"]["b"]["empty_splits"] = ["train"]  # finding none there tells nothing
    assert overlapping(tests, ["a", "b", "c"], "id") == (1, 0, 2)
