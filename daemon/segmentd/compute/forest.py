"""Feature stack to class scores: walks a random forest stored as plain arrays.

scikit-learn trains and checks; this traversal predicts. Equal features give equal scores to the bit:
the decision is `float64(x) <= threshold`, leaf distributions are summed in float64 in the order of the
trees, and the sum is divided by the number of trees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit


@dataclass(frozen=True)
class ForestArrays:
    """A forest as arrays over all N nodes of all T trees.

    Attributes
    ----------
    feature : int32 (N,)
        Plane of the feature stack that the node compares; -1 in a leaf.
    threshold : float64 (N,)
        A sample goes left where its feature is <= the threshold. NaN goes right.
    left, right : int32 (N,)
        Children as node numbers; -1 in a leaf.
    value : float64 (N, K)
        Class distribution of the node, sums to 1.
    roots : int32 (T,)
        First node of each tree.
    feature_count : int
        Planes the forest was trained on.
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    roots: npt.NDArray[np.int32]
    feature_count: int

    @property
    def class_count(self) -> int:
        """K."""
        return int(self.value.shape[1])

    @property
    def tree_count(self) -> int:
        """T."""
        return len(self.roots)

    def check(self) -> None:
        """Raise ValueError unless every walk stays inside the arrays and ends in a leaf."""
        nodes = len(self.feature)
        lengths = {len(self.threshold), len(self.left), len(self.right), len(self.value)}
        if lengths != {nodes} or self.value.ndim != 2 or not nodes or not len(self.roots):
            raise ValueError("arrays of the forest differ in length or are empty")
        inner = self.feature >= 0
        here = np.arange(nodes)
        for child in (self.left, self.right):
            # Children lie behind their parent: no loops, whatever the file says.
            if np.any(child[inner] <= here[inner]) or np.any(child[inner] >= nodes):
                raise ValueError("a child of a node lies outside the forest")
        if np.any(self.feature >= self.feature_count) or np.any((self.roots < 0) | (self.roots >= nodes)):
            raise ValueError("a node names a feature, or the forest a root, that does not exist")
        if not np.all(np.isfinite(self.value)) or np.any(np.isnan(self.threshold)):
            raise ValueError("a threshold or a class distribution is not a number")


def predict(forest: ForestArrays, stack: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Class scores of every pixel.

    Parameters
    ----------
    forest : ForestArrays
        A checked forest of F features and K classes.
    stack : float32 array (F, h, w)
        The feature stack.

    Returns
    -------
    float64 array (K, h, w)
        Mean of the trees' class distributions, sums to 1 over K.
    """
    planes, height, width = stack.shape
    if planes != forest.feature_count:
        raise ValueError(f"feature stack has {planes} planes, the forest takes {forest.feature_count}")
    scores = np.zeros((forest.class_count, height * width))
    _walk(
        stack.reshape(planes, -1),
        forest.feature,
        forest.threshold,
        forest.left,
        forest.right,
        forest.value,
        forest.roots,
        scores,
    )
    return scores.reshape(forest.class_count, height, width)


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator,unused-ignore]
def _walk(stack, feature, threshold, left, right, value, roots, scores):  # type: ignore[no-untyped-def]
    classes, pixels = scores.shape
    for pixel in range(pixels):
        for tree in range(roots.size):
            node = roots[tree]
            while feature[node] >= 0:
                goes_left = stack[feature[node], pixel] <= threshold[node]
                node = left[node] if goes_left else right[node]
            for k in range(classes):
                scores[k, pixel] += value[node, k]
        for k in range(classes):
            scores[k, pixel] /= roots.size
