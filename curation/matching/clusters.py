"""Groups of clips that are the same: what pairs say of each other, made transitive.

Only pairs of the tier auto connect. A clip is named by its key, "<dataset>/<clip_id>". The strength of a
pair is the sum of its scores for picture and sound, of its strongest rule.

Transitive groups grow by mistakes: one wrong pair joins two groups. Two things are done about that.
A **weak link** is a pair without which its group falls in two, while each of its two clips has a
stronger pair: two groups that hold together by themselves, and one pair between them. Weak links
connect, and are named, so that they can be looked at. And no group is larger than `max_size`: where one
would be, pairs are taken from the strongest to the weakest, weak links last, and a pair that would make
a group too large is dropped. Clips that say nothing (a title card and no more, silence, loops) can be
named, so that no pair of theirs connects.

What comes out depends on the set of pairs alone, not on their order nor on which clip comes first.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Clips. Nobody uploads one video a hundred times; such a group is a series, and somebody should look.
MAX_SIZE = 100
_HELD_OUT = ("test",)

Edge = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Groups of two or more clips; everything is in ascending order, keys within a group too."""

    components: list[list[str]]
    representatives: list[str]  # of each component, the clip that stays
    bridges: list[Edge]  # weak links
    dropped_edges: list[Edge]  # pairs that would have made a component too large

    def redundant(self) -> list[str]:
        """The clips that go where each component keeps one, in ascending order."""
        return sorted(
            key
            for component, kept in zip(self.components, self.representatives, strict=True)
            for key in component
            if key != kept
        )


@dataclass(frozen=True, slots=True)
class _Graph:
    """Clips and the pairs that connect them, each once, in ascending order."""

    keys: pa.Array  # string, ascending
    split: np.ndarray  # bool: held out
    first: np.ndarray  # int64, position in keys, less than that in second
    second: np.ndarray
    strength: np.ndarray  # float64

    def edges(self, chosen: np.ndarray) -> list[Edge]:
        """The pairs at these positions (or of this mask), by their keys."""
        names = [
            self.keys.take(pa.array(side[chosen])).to_pylist() for side in (self.first, self.second)
        ]
        return list(zip(*names, strict=True))


def clusters(
    pairs: pa.Table,
    facts: pa.Table | None = None,
    *,
    max_size: int = MAX_SIZE,
    ignored: Collection[str] = (),
    held_out: Collection[str] = _HELD_OUT,
) -> Clusters:
    """The groups that the pairs of the tier auto make.

    Of each, the clip stays that is held out, else has the larger picture, else is longer, else has the
    smaller key.

    Args:
        pairs: columns of duplicates.parquet.
        facts: dataset, clip_id, width_px, height_px, duration_s of clips, as fingerprints have them.
        max_size: the most clips of a group, at least 2.
        ignored: keys of clips whose pairs do not connect.
        held_out: names of splits whose clips stay first of all.
    """
    if max_size < 2:
        raise ValueError(f"max_size is {max_size}, expected 2 clips or more")
    graph = _graph(pairs, ignored, held_out)
    weak = _weak_links(graph)
    component = _components(graph, weak, max_size)
    apart = component[graph.first] != component[graph.second]
    order = np.argsort(component, kind="stable")
    order = order[np.bincount(component, minlength=len(component))[component[order]] > 1]
    begins = np.flatnonzero(np.diff(component[order], prepend=-1))
    names = graph.keys.take(pa.array(order)).to_pylist()
    ends = np.append(begins, len(order))[1:]
    members = [names[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    best = _best(graph, facts, component, order)
    return Clusters(
        components=members,
        representatives=graph.keys.take(pa.array(best)).to_pylist(),
        bridges=graph.edges(weak),
        dropped_edges=graph.edges(apart),
    )


def _keys(dataset: pa.ChunkedArray, clip_id: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(dataset.cast(pa.string()), clip_id.cast(pa.string()), "/")


def _graph(pairs: pa.Table, ignored: Collection[str], held_out: Collection[str]) -> _Graph:
    pairs = pairs.filter(pc.equal(pairs["tier"], "auto"))
    sides = [_keys(pairs[f"{side}_dataset"], pairs[f"{side}_clip_id"]) for side in "ab"]
    if ignored:
        stopped = pa.array(sorted(ignored), pa.string())
        touched = pc.or_(*(pc.is_in(side, value_set=stopped) for side in sides))
        pairs, *sides = (rows.filter(pc.invert(touched)) for rows in (pairs, *sides))
    both = pa.chunked_array([*sides[0].chunks, *sides[1].chunks], pa.string()).combine_chunks()
    encoded = both.dictionary_encode()
    # Numbers in the order of the keys, so that nothing depends on the order of the rows.
    order = pc.array_sort_indices(encoded.dictionary)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    numbers = rank[encoded.indices.to_numpy()]
    split = np.zeros(len(order), dtype=bool)
    splits = pa.array(sorted(held_out), pa.string())
    for side, part in zip("ab", np.split(numbers, 2), strict=True):
        is_held_out = pc.is_in(pairs[f"{side}_split"], value_set=splits)
        split[part[is_held_out.to_numpy().astype(bool)]] = True
    strength = np.zeros(len(pairs))
    for name in ("video_score", "audio_score"):
        strength += pc.fill_null(pairs[name].cast(pa.float64()), 0.0).to_numpy()
    ends = np.sort(numbers.reshape(2, -1), axis=0)
    first, second, strength = _once(ends[0], ends[1], strength)
    return _Graph(encoded.dictionary.take(order), split, first, second, strength)


def _once(
    first: np.ndarray, second: np.ndarray, strength: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of two clips once, with its greatest strength."""
    other = first != second
    pair = (first[other].astype(np.uint64) << np.uint64(32)) | second[other].astype(np.uint64)
    order = np.argsort(pair)
    pair, strength = pair[order], strength[other][order]
    begins = np.flatnonzero(np.append(True, pair[1:] != pair[:-1])[: len(pair)])
    if len(begins):
        strength = np.maximum.reduceat(strength, begins)
    pair = pair[begins]
    return (pair >> np.uint64(32)).astype(np.int64), pair.astype(np.uint32).astype(np.int64), strength


def _weak_links(graph: _Graph) -> np.ndarray:
    """Which edges are weak links, bool."""
    from curation.matching.cluster_kernels import find_bridges

    num_edges = len(graph.first)
    nodes = np.concatenate([graph.first, graph.second])
    order = np.argsort(nodes, kind="stable")
    neighbours = np.concatenate([graph.second, graph.first])[order]
    start = np.zeros(len(graph.keys) + 1, dtype=np.int64)
    start[1:] = np.cumsum(np.bincount(nodes, minlength=len(graph.keys)))
    is_bridge = np.zeros(num_edges, dtype=np.bool_)
    find_bridges(start, neighbours, order % max(1, num_edges), is_bridge)
    strongest = np.full(len(graph.keys), -np.inf)
    np.maximum.at(strongest, nodes, np.tile(graph.strength, 2))
    weaker = np.minimum(strongest[graph.first], strongest[graph.second]) > graph.strength
    weak: np.ndarray = is_bridge & weaker
    return weak


def _components(graph: _Graph, weak: np.ndarray, max_size: int) -> np.ndarray:
    """Of each clip, the first clip of its component, int64."""
    from curation.matching.cluster_kernels import unite

    order = np.lexsort((graph.second, graph.first, -graph.strength, weak))
    parent = np.arange(len(graph.keys))
    size = np.ones(len(graph.keys), dtype=np.int64)
    unite(graph.first[order], graph.second[order], max_size, parent, size)
    return parent


def _best(
    graph: _Graph, facts: pa.Table | None, component: np.ndarray, members: np.ndarray
) -> np.ndarray:
    """The clip that stays of each component, int64; members: all clips that are in one."""
    pixels, duration_s = np.zeros(len(graph.keys)), np.zeros(len(graph.keys))
    if facts is not None:
        place = pc.index_in(_keys(facts["dataset"], facts["clip_id"]), value_set=graph.keys)
        known = place.is_valid().to_numpy()
        rows = place.drop_null().to_numpy()
        area = pc.multiply(facts["width_px"].cast(pa.float64()), facts["height_px"].cast(pa.float64()))
        pixels[rows] = pc.fill_null(area, 0.0).to_numpy()[known]
        duration_s[rows] = pc.fill_null(facts["duration_s"].cast(pa.float64()), 0.0).to_numpy()[known]
    order = np.lexsort((members, -duration_s[members], -pixels[members], ~graph.split[members],
                        component[members]))  # fmt: skip
    ranked = members[order]
    first: np.ndarray = ranked[np.flatnonzero(np.diff(component[ranked], prepend=-1))]
    return first
