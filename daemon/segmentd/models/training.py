"""Labels and planes to a forest: arrays in, arrays and scores out.

Training reads the features through the same tiles as prediction, so that a pixel has the same
features, to the bit, in both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segmentd.compute import deep, deep_cells, fast_features, normalize
from segmentd.compute.deep_sets import DeepFeatureSet
from segmentd.compute.feature_plan import plan_features
from segmentd.compute.features import AnyFeatureSet, FeatureSet
from segmentd.compute.forest import ForestArrays
from segmentd.compute.normalize import Scale
from segmentd.compute.tiling import cover, cut
from segmentd.errors import Reason, SegmentdError
from segmentd.models import cuml_forest
from segmentd.models.cuml_forest import CumlError, Fitted
from segmentd.records import Region

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

TREES = 25
# What may train a forest: the CPU, a card, or a card where there is one.
CPU, CARD, EITHER = "cpu", "cuda", "auto"
DEVICES = (CPU, CARD, EITHER)
TRAINING_TILE_PX = 256
# From the core of a tile and a mask of its pixels, bool (h, w), to their features, float32 (n, F).
TileFeatures = Callable[[Region, npt.NDArray[np.bool_]], npt.NDArray[np.float32]]
VERSIONED_LIBRARIES = ("numpy", "scipy", "scikit-learn", "opencv-python-headless", "numba")


@dataclass(frozen=True)
class Samples:
    """Labelled pixels: features float32 (n, F) and labels uint8 (n,), values 1..K."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TrainedForest:
    """A forest, its training scores (plain JSON values) and the versions that made it.

    `device` trained it; `note` says why not the one that should have, empty where it did.
    """

    forest: ForestArrays
    scores: dict[str, Any]
    library_versions: dict[str, str]
    device: str = CPU
    note: str = ""


def collect(
    pixels: npt.NDArray[np.generic],
    labels: npt.NDArray[np.uint8],
    feature_set: AnyFeatureSet,
    normalization: str,
    extractor: deep.Extractor | None = None,
) -> Samples:
    """Features of the labelled pixels of one plane.

    Parameters
    ----------
    pixels : array (C, Y, X)
        The whole plane.
    labels : uint8 array (Y, X)
        Class value 1..K, 0 = unlabelled. Pixels that are not finite are left out.
    feature_set : FeatureSet
        What to compute.
    normalization : str
        One of `segmentd.compute.normalize.METHODS`.
    extractor : Extractor, optional
        Of deep features; needed for those.
    """
    scale = normalize.measure(lambda: [pixels], normalization)
    features = (
        _deep_features(pixels, scale, extractor)
        if isinstance(feature_set, DeepFeatureSet)
        else _filtered(pixels, scale, feature_set)
    )
    mask = normalize.masked(pixels)
    if mask is not None:
        labels = np.where(mask, np.uint8(0), labels)
    drawn = []
    for core in cover(labels.shape[0], labels.shape[1], TRAINING_TILE_PX):
        window = labels[core.y : core.y + core.height, core.x : core.x + core.width]
        if window.any():
            drawn.append((core, window))
    if not drawn:
        planes = len(pixels) * len(feature_set)
        return Samples(np.empty((0, planes), np.float32), np.empty(0, np.uint8))
    with ThreadPoolExecutor(extractor.threads if extractor else 1) as pool:
        parts = list(pool.map(lambda tile: features(tile[0], tile[1] > 0), drawn))
    return Samples(np.concatenate(parts), np.concatenate([window[window > 0] for _, window in drawn]))


def _filtered(pixels: npt.NDArray[np.generic], scale: Scale | None, feature_set: FeatureSet) -> TileFeatures:
    level = fast_features.grey_level(pixels[:, 0], scale)
    plan = plan_features(feature_set, len(pixels))
    reach = plan.reach_px

    def features(core: Region, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        tile = normalize.to_float(cut(pixels, core, reach, reach), scale)
        return fast_features.stack(plan, tile, level)[:, marked].T

    return features


def _deep_features(
    pixels: npt.NDArray[np.generic], scale: Scale | None, extractor: deep.Extractor | None
) -> TileFeatures:
    if extractor is None:
        raise ValueError("deep features need an extractor")
    feature_set = extractor.feature_set

    def features(core: Region, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        cells = extractor.cells(pixels, core, feature_set.reach_px, scale)
        found: npt.NDArray[np.float32] = deep_cells.sample(cells, feature_set.stride_px, *np.nonzero(marked))
        return found

    return features


def train(
    samples: Samples,
    class_count: int,
    feature_names: list[str],
    seed: int = 0,
    threads: int = 1,
    trees: int = TREES,
    device: str = CPU,
) -> TrainedForest:
    """Train a random forest of fully grown trees.

    The result depends on samples, seed and library versions only, not on `threads`. `device` is one of
    `DEVICES`; what cuML cannot train on a card, scikit-learn does on the CPU.

    Raises
    ------
    SegmentdError
        BAD_TRAINING_DATA where a class of 1..`class_count` has no labelled pixel.
    """
    counts = np.bincount(samples.labels, minlength=class_count + 1)[1:]
    if len(counts) > class_count or class_count < 2 or not counts.all():
        missing = ", ".join(str(value + 1) for value in np.flatnonzero(counts == 0)) or "none"
        raise SegmentdError(
            Reason.BAD_TRAINING_DATA,
            f"labels need at least two classes, each with labelled pixels: classes without any: {missing}, "
            f"highest label value {len(counts)}, classes named {class_count}",
        )
    fitted, used, note = None, CPU, ""
    if device != CPU:
        try:
            fitted = cuml_forest.fit(samples.features, samples.labels, class_count, seed, trees)
            used = cuml_forest.DEVICE
        except CumlError as error:
            if device == CARD or not error.absent:
                note = f"{error}; trained by scikit-learn on the CPU"
    fitted = fitted or _by_scikit_learn(samples, seed, threads, trees)
    scores = _out_of_bag(fitted.votes, samples.labels, class_count)
    scores["labelled_pixels"] = [int(count) for count in counts]
    # Filters that coincide have one name and stand in several columns.
    shares = dict.fromkeys(feature_names, 0.0)
    for name, importance in zip(feature_names, fitted.importances, strict=True):
        shares[name] += float(importance)
    scores["feature_importance"] = {name: round(share, 6) for name, share in shares.items()}
    versions = library_versions() | fitted.library_versions
    return TrainedForest(fitted.forest, scores, versions, used, note)


def _by_scikit_learn(samples: Samples, seed: int, threads: int, trees: int) -> Fitted:
    from sklearn.ensemble import RandomForestClassifier  # would be a third of a daemon's start

    classifier = RandomForestClassifier(n_estimators=trees, random_state=seed, oob_score=True, n_jobs=threads)
    with warnings.catch_warnings():
        # A pixel that every tree drew has no out-of-bag vote; `_out_of_bag` leaves it out.
        warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores")
        classifier.fit(samples.features, samples.labels)
    votes, importances = classifier.oob_decision_function_, classifier.feature_importances_
    return Fitted(forest_arrays(classifier), votes, importances)


def _out_of_bag(
    votes: npt.NDArray[np.float64], labels: npt.NDArray[np.uint8], class_count: int
) -> dict[str, Any]:
    voted = np.isfinite(votes).all(axis=1) & (votes.sum(axis=1) > 0)
    truth = labels[voted].astype(np.intp) - 1
    guess = votes[voted].argmax(axis=1)
    confusion = np.zeros((class_count, class_count), np.int64)
    np.add.at(confusion, (truth, guess), 1)
    return {
        "out_of_bag_accuracy": round(float(np.mean(truth == guess)), 6) if voted.any() else None,
        "out_of_bag_confusion": confusion.tolist(),
    }


def forest_arrays(classifier: RandomForestClassifier) -> ForestArrays:
    """The trees of a fitted scikit-learn forest as plain arrays, node numbers made global."""
    trees = [estimator.tree_ for estimator in classifier.estimators_]
    starts = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])[:-1]])

    def children(name: str) -> npt.NDArray[np.int32]:
        parts = [
            np.where(getattr(tree, name) >= 0, getattr(tree, name) + start, -1)
            for tree, start in zip(trees, starts, strict=True)
        ]
        return np.concatenate(parts).astype(np.int32)

    feature = np.concatenate([np.where(tree.children_left >= 0, tree.feature, -1) for tree in trees])
    return ForestArrays(
        feature=feature.astype(np.int32),
        threshold=np.concatenate([tree.threshold for tree in trees]).astype(np.float64),
        left=children("children_left"),
        right=children("children_right"),
        value=np.concatenate([tree.value[:, 0, :] for tree in trees]).astype(np.float64),
        roots=starts.astype(np.int32),
        feature_count=int(classifier.n_features_in_),
    )


def library_versions() -> dict[str, str]:
    """Versions of the libraries whose numbers end up in a model."""
    return {name: version(name) for name in VERSIONED_LIBRARIES}
