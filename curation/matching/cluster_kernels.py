"""The loops of clusters.py, compiled by numba as those of the search are."""

import numpy as np

from curation.matching.search_kernels import compiled


@compiled
def find_bridges(
    start: np.ndarray, neighbours: np.ndarray, edges: np.ndarray, is_bridge: np.ndarray
) -> None:
    """Mark the edges without which their component falls apart.

    Args:
        start, neighbours, edges: of node n, its neighbours and the numbers of the edges to them are at
            start[n]:start[n + 1]. There is at most one edge between two nodes, and none from a node to
            itself.
        is_bridge: by number of edge; only set to True.
    Source: Tarjan, A note on finding the bridges of a graph, 1974; with a stack instead of recursion.
    """
    num_nodes = start.size - 1
    reached = np.full(num_nodes, -1, dtype=np.int64)  # when a node was reached
    lowest = np.zeros(
        num_nodes, dtype=np.int64
    )  # when the earliest node was, to which an edge leads back
    entered_by = np.full(num_nodes, -1, dtype=np.int64)  # edge
    at = start[:-1].copy()  # the next neighbour to look at
    stack = np.empty(num_nodes, dtype=np.int64)
    now = 0
    for root in range(num_nodes):
        if reached[root] >= 0:
            continue
        depth, stack[0] = 1, root
        reached[root] = lowest[root] = now
        now += 1
        while depth > 0:
            node = stack[depth - 1]
            if at[node] < start[node + 1]:
                other, edge = neighbours[at[node]], edges[at[node]]
                at[node] += 1
                if edge == entered_by[node]:
                    continue
                if reached[other] >= 0:
                    lowest[node] = min(lowest[node], reached[other])
                    continue
                reached[other] = lowest[other] = now
                now += 1
                entered_by[other] = edge
                stack[depth] = other
                depth += 1
            else:
                depth -= 1
                if depth > 0:
                    parent = stack[depth - 1]
                    lowest[parent] = min(lowest[parent], lowest[node])
                    if lowest[node] > reached[parent]:
                        is_bridge[entered_by[node]] = True


@compiled
def find_root(parent: np.ndarray, node: int) -> int:
    """The node that stands for a node's component."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def unite(
    first: np.ndarray, second: np.ndarray, max_size: int, parent: np.ndarray, size: np.ndarray
) -> None:
    """Unite the ends of edges, in their order, but for edges that would make a component too large.

    parent: by node, itself at first, and at the end the smallest node of its component; size: ones at
    first.
    """
    for edge in range(first.size):
        one, other = find_root(parent, first[edge]), find_root(parent, second[edge])
        if one == other or size[one] + size[other] > max_size:
            continue
        low, high = min(one, other), max(one, other)
        parent[high] = low
        size[low] += size[high]
    for node in range(parent.size):
        parent[node] = find_root(parent, node)
