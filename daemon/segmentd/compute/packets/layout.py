"""A forest laid out for the walk by packets: what is in memory, and why it is safe to walk.

Inner nodes are records of 16 bytes in level order, four to a cache line. A reference to a node or a leaf
is an int32 *code*. Its low four bits are 0: the walk puts the number of a packet there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentd.compute.forest import ForestArrays

PACKET_EDGE = 8
PACKET_PIXELS = PACKET_EDGE * PACKET_EDGE
PLANE_BYTES = 4 * PACKET_PIXELS

RECORD = np.dtype(
    [("plane_offset", np.int32), ("threshold", np.float32), ("left", np.int32), ("right", np.int32)],
    align=True,
)
CODE_STEP = RECORD.itemsize
"""Code of inner node n: `n * CODE_STEP`, which is where its record lies. Leaf n: the same plus `LEAF`."""
LEAF = -(2**31)
LARGEST_NUMBER = 2**31 // CODE_STEP - 1

MOST_CLASSES = 255
MOST_VOTING_TREES = 255
"""Votes are counted in bytes."""
TREES_AT_ONCE = 8
"""Votes are added up eight trees at a time: places for trees come in multiples of eight."""
VALUES_AT_ONCE = 4
"""Distributions are added up four classes at a time: rows are padded with zeros."""


@dataclass(frozen=True, eq=False)
class PacketForest:
    """A forest made ready for the walk by packets; made by `compile_forest`, checked on creation.

    Attributes
    ----------
    nodes : RECORD array (N,)
        Inner nodes in level order. `plane_offset`: where the node's plane begins in a packet, in bytes. A
        sample goes left where its float32 feature is <= `threshold`, so NaN goes right. `left`, `right`:
        codes.
    roots : int32 (T,)
        Codes of the trees' first nodes.
    class_count, plane_count : int
        Classes K; planes that a packet must have.
    leaf_trees : int32 (L,)
        Tree of each leaf; empty in a pure forest.
    leaf_values : float64 (L, K rounded up to a multiple of 4)
        Class distributions of the leaves; empty in a pure forest.

    A forest is *pure* when every leaf is of one class with probability 1 and there are at most 255 trees:
    then leaf numbers are `class * vote_places + tree` and scores are votes.
    """

    nodes: npt.NDArray[np.void]
    roots: npt.NDArray[np.int32]
    class_count: int
    plane_count: int
    leaf_trees: npt.NDArray[np.int32]
    leaf_values: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        """Raise ValueError unless every walk ends and stays inside the arrays."""
        self._check_arrays()
        offsets = self.nodes["plane_offset"]
        planes = offsets // PLANE_BYTES
        if np.any(offsets % PLANE_BYTES) or np.any((planes < 0) | (planes >= self.plane_count)):
            raise ValueError(f"a node names a plane that is not among the {self.plane_count} planes")
        codes = np.concatenate([self.nodes["left"], self.nodes["right"], self.roots])
        numbers, inner = (codes & ~LEAF) // CODE_STEP, codes >= 0
        if np.any(codes % CODE_STEP) or np.any(numbers >= np.where(inner, len(self.nodes), self.leaf_places)):
            raise ValueError("a child of a node lies outside the forest")
        # Children lie behind their parent and have one parent: no loops, and no pixel in two nodes.
        parents = np.concatenate([np.tile(np.arange(len(self.nodes)), 2), np.full(self.tree_count, -1)])
        if np.any(inner & (numbers <= parents)):
            raise ValueError("a child of a node lies before it")
        if np.any(np.bincount(numbers[inner]) > 1):
            raise ValueError("a node has two parents")
        self._check_trees_of_leaves(numbers, inner, parents)

    def _check_arrays(self) -> None:
        arrays = (self.nodes, self.roots, self.leaf_trees, self.leaf_values)
        if [array.dtype for array in arrays] != [RECORD, np.int32, np.int32, np.float64]:
            raise ValueError("an array of the forest has the wrong type")
        if not all(array.flags.c_contiguous and array.flags.aligned for array in arrays):
            raise ValueError("an array of the forest is not contiguous")
        if not 1 <= self.class_count <= MOST_CLASSES or not self.tree_count:
            raise ValueError(f"{self.tree_count} trees and {self.class_count} classes: need 1.. and 1..255")
        if self.pure and self.tree_count > MOST_VOTING_TREES:
            raise ValueError(f"{self.tree_count} trees cannot vote, {MOST_VOTING_TREES} at most")
        if self.leaf_values.shape != (len(self.leaf_trees), padded_classes(self.class_count)):
            raise ValueError("leaf_trees and leaf_values do not match")
        if np.any((self.leaf_trees < 0) | (self.leaf_trees >= self.tree_count)):
            raise ValueError("a leaf names a tree that does not exist")
        for array in arrays:
            array.flags.writeable = False

    def _check_trees_of_leaves(
        self, numbers: npt.NDArray[np.int32], inner: npt.NDArray[np.bool_], parents: npt.NDArray[np.int64]
    ) -> None:
        """A tree is given room for 64 leaves in a packet, so no leaf may count for another tree."""
        count = len(self.nodes)
        above = np.arange(count)
        below_node = inner & (parents >= 0)
        above[numbers[below_node]] = parents[below_node]
        while np.any(above != above[above]):
            above = above[above]  # twice as far up
        trees = np.full(count, -1)
        trees[numbers[2 * count :][inner[2 * count :]]] = np.flatnonzero(inner[2 * count :])
        owners = np.concatenate([np.tile(trees[above], 2), np.arange(self.tree_count)])[~inner]
        leaves = numbers[~inner]
        if np.any(owners != (leaves % self.vote_places if self.pure else self.leaf_trees[leaves])):
            raise ValueError("a leaf is of another tree than it says, or hangs on no tree")

    @property
    def tree_count(self) -> int:
        """T."""
        return len(self.roots)

    @property
    def pure(self) -> bool:
        """Whether scores are votes."""
        return not len(self.leaf_trees)

    @property
    def vote_places(self) -> int:
        """Places for trees in a row of votes."""
        return -(-self.tree_count // TREES_AT_ONCE) * TREES_AT_ONCE

    @property
    def width(self) -> int:
        """The most nodes of one level, and the most leaves, that the pixels of a packet can be spread over.

        All trees together. In one tree the nodes of a level share no pixel, nor do the leaves, so there are
        64 at most of either; and a forest has as many leaves as inner nodes and trees.
        """
        return min(PACKET_PIXELS * self.tree_count, len(self.nodes) + self.tree_count)

    @property
    def leaf_places(self) -> int:
        """Leaf numbers are below this."""
        return self.class_count * self.vote_places if self.pure else len(self.leaf_trees)


def compile_forest(forest: ForestArrays, plane_of_feature: npt.NDArray[np.integer]) -> PacketForest:
    """Lay a forest out for the walk by packets.

    Parameters
    ----------
    forest : ForestArrays
        Any forest: any depth, number of trees and leaf distributions; 1..255 classes.
    plane_of_feature : integer array (F,)
        Plane of a packet that holds the feature; -1 for a feature that no node uses.

    Raises
    ------
    ValueError
        The arrays do not describe trees, or a node uses a feature without a plane.
    """
    forest.check()
    inner = forest.feature >= 0
    planes = np.asarray(plane_of_feature)
    if planes.shape != (forest.feature_count,) or planes.dtype.kind not in "iu":
        raise ValueError(f"plane_of_feature must be {forest.feature_count} integers, one for each feature")
    if np.any((forest.value < 0) | (forest.value > 1)):
        raise ValueError("a class distribution has values outside 0..1")
    if np.bincount(np.concatenate([forest.left[inner], forest.right[inner], forest.roots])).max() > 1:
        raise ValueError("a node of the forest has two parents")

    order, leaves, trees = _level_order(forest)
    values = forest.value[leaves]
    pure = bool(np.all((values == 0) | (values == 1)) and np.all(values.sum(axis=1) == 1))
    pure = pure and forest.tree_count <= MOST_VOTING_TREES
    vote_places = -(-forest.tree_count // TREES_AT_ONCE) * TREES_AT_ONCE
    numbers = values.argmax(axis=1) * vote_places + trees if pure else np.arange(len(leaves))
    if max(len(order), int(numbers.max())) > LARGEST_NUMBER:
        raise ValueError(f"a forest can have {LARGEST_NUMBER} nodes and leaves at most")

    codes = np.zeros(len(forest.feature), np.int32)
    codes[order] = np.arange(len(order)) * CODE_STEP
    codes[leaves] = numbers * CODE_STEP + LEAF
    used_planes = planes[forest.feature[order]].astype(np.int64)
    if np.any(used_planes < 0):
        raise ValueError("a node uses a feature that has no plane")
    nodes = _aligned_records(len(order))
    nodes["plane_offset"] = used_planes * PLANE_BYTES
    nodes["threshold"] = round_down(forest.threshold[order])
    nodes["left"], nodes["right"] = codes[forest.left[order]], codes[forest.right[order]]
    padded = np.zeros((len(leaves), padded_classes(forest.class_count)))
    padded[:, : forest.class_count] = values
    return PacketForest(
        nodes=nodes,
        roots=codes[forest.roots],
        class_count=forest.class_count,
        plane_count=int(used_planes.max(initial=-1)) + 1,
        leaf_trees=np.empty(0, np.int32) if pure else trees.astype(np.int32),
        leaf_values=np.empty((0, padded.shape[1])) if pure else padded,
    )


def padded_classes(class_count: int) -> int:
    """Values in a row of a class distribution, with the zeros that fill it up."""
    return -(-class_count // VALUES_AT_ONCE) * VALUES_AT_ONCE


def round_down(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 <= each threshold: for a float32 x, `x <= threshold` stays the same test."""
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
    above = rounded.astype(np.float64) > thresholds
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return rounded


def _level_order(
    forest: ForestArrays,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Inner nodes and leaves level by level over all trees, and the tree of each leaf."""
    level, trees = forest.roots, np.arange(forest.tree_count)
    inner_nodes, leaves, leaf_trees = [], [], []
    while len(level):
        inner = forest.feature[level] >= 0
        leaves.append(level[~inner])
        leaf_trees.append(trees[~inner])
        level, trees = level[inner], trees[inner]
        inner_nodes.append(level)
        level = np.column_stack([forest.left[level], forest.right[level]]).ravel()
        trees = np.repeat(trees, 2)
    return np.concatenate(inner_nodes), np.concatenate(leaves), np.concatenate(leaf_trees)


def _aligned_records(count: int) -> npt.NDArray[np.void]:
    memory = np.empty(count * CODE_STEP + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count * CODE_STEP].view(RECORD)
