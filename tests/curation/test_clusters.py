"""Groups of clips: those of networkx, the same for any order of the pairs, and never too large."""

import random
from typing import Any

import networkx as nx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.matching.clusters import Clusters, clusters

Pair = tuple[str, str, float]
SCHEMA = pa.schema([
    *((name, pa.string()) for name in (
        "a_dataset", "a_clip_id", "a_split", "b_dataset", "b_clip_id", "b_split", "rule", "tier")),
    ("video_score", pa.float64()), ("audio_score", pa.float64()),
])  # fmt: skip


def row(one: str, other: str, score: float = 0.9, **more: Any) -> dict[str, Any]:
    """A row of duplicates.parquet; keys are written "dataset/clip_id"."""
    (a_dataset, a_clip_id), (b_dataset, b_clip_id) = one.split("/", 1), other.split("/", 1)
    return {
        "a_dataset": a_dataset, "a_clip_id": a_clip_id, "a_split": "train", "b_dataset": b_dataset,
        "b_clip_id": b_clip_id, "b_split": "train", "rule": "near_video", "tier": "auto",
        "video_score": score, "audio_score": None,
    } | more  # fmt: skip


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def facts(**clips: tuple[int | None, int | None, float | None]) -> pa.Table:
    """What is known of clips of the dataset d: width, height, duration."""
    names = ("width_px", "height_px", "duration_s")
    rows = [
        {"dataset": "d", "clip_id": key, **dict(zip(names, clips[key], strict=True))} for key in clips
    ]
    return pa.Table.from_pylist(
        rows,
        schema=pa.schema([("dataset", pa.string()), ("clip_id", pa.string()), ("width_px", pa.int32()),
                          ("height_px", pa.int32()), ("duration_s", pa.float64())]),
    )  # fmt: skip


def chain(names: str, *scores: float) -> pa.Table:
    """Each clip of the dataset d with the next."""
    ends = zip(names, names[1:], scores, strict=False)
    return table(*(row(f"d/{one}", f"d/{other}", score) for one, other, score in ends))


# Two triangles that a weaker pair joins.
DUMBBELL = [("d/a", "d/b", 0.9), ("d/b", "d/c", 0.9), ("d/a", "d/c", 0.9), ("d/c", "d/x", 0.6),
            ("d/x", "d/y", 0.8), ("d/y", "d/z", 0.8), ("d/x", "d/z", 0.8)]  # fmt: skip

random_pairs = st.lists(
    st.tuples(st.integers(0, 14), st.integers(0, 14), st.sampled_from([0.5, 0.6, 0.9])), max_size=40
).map(
    lambda found: [
        (f"d/{one:02}", f"d/{other:02}", score) for one, other, score in found if one != other
    ]
)


def graph_of(pairs: list[Pair]) -> nx.Graph:
    """The strongest of equal pairs, as networkx has them."""
    graph = nx.Graph()
    for one, other, score in pairs:
        known = graph.get_edge_data(one, other, {"score": 0.0})["score"]
        graph.add_edge(one, other, score=max(known, score))
    return graph


def weak_links(graph: nx.Graph) -> list[tuple[str, str]]:
    """Bridges weaker than the strongest pair of either end, by networkx."""
    strongest = {node: max(data["score"] for data in graph[node].values()) for node in graph}
    return sorted(
        (min(one, other), max(one, other))
        for one, other in nx.bridges(graph)
        if graph[one][other]["score"] < min(strongest[one], strongest[other])
    )


@settings(max_examples=150, deadline=None)
@given(pairs=random_pairs)
def test_components_and_weak_links_are_those_of_networkx(pairs):
    found = clusters(table(*(row(*pair) for pair in pairs)))
    graph = graph_of(pairs)
    assert found.components == sorted(sorted(part) for part in nx.connected_components(graph))
    assert found.bridges == weak_links(graph)
    assert found.dropped_edges == []
    assert found.representatives == [component[0] for component in found.components]


@settings(max_examples=150, deadline=None)
@given(pairs=random_pairs, max_size=st.integers(2, 6), seed=st.integers(0, 100))
def test_order_of_the_pairs_and_of_their_ends_changes_nothing(pairs, max_size, seed):
    shuffled = random.Random(seed)
    known = facts(**{f"{i:02}": (320 + 8 * (i % 3), 240, float(i % 4)) for i in range(0, 15, 2)})
    expected = clusters(table(*(row(*pair) for pair in pairs)), known, max_size=max_size)
    turned = [row(other, one, score) if shuffled.random() < 0.5 else row(one, other, score)
              for one, other, score in pairs]  # fmt: skip
    shuffled.shuffle(turned)
    assert clusters(table(*turned), known, max_size=max_size) == expected


@settings(max_examples=150, deadline=None)
@given(pairs=random_pairs, max_size=st.integers(2, 6))
def test_capped_groups_are_connected_and_only_dropped_pairs_lie_between_them(pairs, max_size):
    found = clusters(table(*(row(*pair) for pair in pairs)), max_size=max_size)
    graph = graph_of(pairs)
    assert all(2 <= len(component) <= max_size for component in found.components)
    group = {key: number for number, part in enumerate(found.components) for key in part}
    between = sorted(
        (min(edge), max(edge)) for edge in graph.edges
        if edge[0] not in group or group[edge[0]] != group.get(edge[1])
    )  # fmt: skip
    assert found.dropped_edges == between
    graph.remove_edges_from(between)
    parts = [sorted(part) for part in nx.connected_components(graph) if len(part) > 1]
    assert found.components == sorted(parts)


def test_pairs_for_review_do_not_connect():
    found = clusters(table(row("d/a", "d/b"), row("d/b", "d/c", tier="review")))
    assert found.components == [["d/a", "d/b"]]


def test_clips_of_one_name_in_two_datasets_are_two_clips():
    found = clusters(table(row("d/a", "e/a"), row("d/x/y", "e/a")))
    assert found.components == [["d/a", "d/x/y", "e/a"]]


def test_weak_pair_between_two_groups_is_named_and_connects():
    found = clusters(table(*(row(*pair) for pair in DUMBBELL)))
    assert found.components == [["d/a", "d/b", "d/c", "d/x", "d/y", "d/z"]]
    assert found.bridges == [("d/c", "d/x")]


@pytest.mark.parametrize("score", [0.8, 0.95])
def test_bridge_as_strong_as_what_it_joins_is_no_weak_link(score):
    pairs = [
        (one, other, score if (one, other) == ("d/c", "d/x") else old) for one, other, old in DUMBBELL
    ]
    assert clusters(table(*(row(*pair) for pair in pairs))).bridges == []


def test_pair_that_leads_to_a_single_clip_is_no_weak_link():
    assert clusters(chain("abc", 0.9, 0.6)).bridges == []
    assert clusters(chain("abcd", 0.9, 0.6, 0.9)).bridges == [("d/b", "d/c")]


def test_strength_is_that_of_picture_and_sound_together():
    pairs = [row(*pair) for pair in DUMBBELL]
    both = table(*pairs, row("d/x", "d/c", 0.6, audio_score=0.9, rule="near_av"))
    assert clusters(both).bridges == []


def test_cap_cuts_the_weak_link_first():
    found = clusters(table(*(row(*pair) for pair in DUMBBELL)), max_size=5)
    assert found.components == [["d/a", "d/b", "d/c"], ["d/x", "d/y", "d/z"]]
    assert found.dropped_edges == [("d/c", "d/x")]


def test_cap_keeps_the_strongest_pairs():
    found = clusters(chain("abcde", 0.7, 0.9, 0.7, 0.8), max_size=3)
    assert found.components == [["d/a", "d/b", "d/c"], ["d/d", "d/e"]]
    assert found.dropped_edges == [("d/c", "d/d")]


def test_pairs_of_ignored_clips_do_not_connect():
    found = clusters(chain("abcd", 0.9, 0.9, 0.9), ignored={"d/b", "d/nobody"})
    assert found.components == [["d/c", "d/d"]]


def test_what_stays_is_held_out_then_larger_then_longer_then_first_in_name():
    pairs = chain("abc", 0.9, 0.9)
    known = facts(a=(320, 240, 9.0), b=(640, 360, 8.0), c=(640, 360, 10.0))
    assert clusters(pairs).representatives == ["d/a"]
    assert clusters(pairs, known).representatives == ["d/c"]
    assert clusters(pairs, known).redundant() == ["d/a", "d/b"]
    assert clusters(pairs, facts(a=(None, None, None), b=(2, 2, None))).representatives == ["d/b"]
    tested = table(row("d/a", "d/b", a_split="test"), row("d/b", "d/c"))
    assert clusters(tested, known).representatives == ["d/a"]
    assert clusters(tested, known, held_out=("val",)).representatives == ["d/c"]


def test_no_pairs_make_no_groups():
    nothing = Clusters(components=[], representatives=[], bridges=[], dropped_edges=[])
    assert clusters(table()) == nothing
    assert clusters(table(), facts(a=(1, 1, 1.0))) == nothing
    assert clusters(table(row("d/a", "d/a"))) == nothing
    assert nothing.redundant() == []


def test_cap_below_two_clips_is_refused():
    with pytest.raises(ValueError, match="max_size is 1, expected 2"):
        clusters(table(), max_size=1)


def test_chain_of_a_hundred_thousand_clips_is_walked_without_recursion():
    names = [f"{i:06}" for i in range(100_000)]
    columns = {name: ["d"] * (len(names) - 1) for name in ("a_dataset", "b_dataset")}
    columns |= {name: ["train"] * (len(names) - 1) for name in ("a_split", "b_split")}
    scores = [0.9 - 0.3 * (i == 50_000) for i in range(len(names) - 1)]
    pairs = pa.table({
        **columns, "a_clip_id": names[:-1], "b_clip_id": names[1:], "tier": ["auto"] * (len(names) - 1),
        "video_score": scores, "audio_score": pa.nulls(len(names) - 1, pa.float64()),
    })  # fmt: skip
    found = clusters(pairs, max_size=len(names))
    assert len(found.components) == 1
    assert found.bridges == [("d/050000", "d/050001")]
    assert max(map(len, clusters(pairs).components)) == 100
