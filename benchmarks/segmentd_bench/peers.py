"""Other programs behind one small face: fit on strokes, predict labels. Those not installed are left out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]


class Peer(Protocol):
    """Anything that learns from strokes and labels a plane."""

    def fit(self, pixels: npt.NDArray[np.generic], labels: Labels) -> None:
        """Train on a plane (C, Y, X) and its sparse labels (Y, X)."""

    def predict(self, pixels: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
        """Labels (Y, X)."""


class ScikitImage:
    """scikit-image's trainable segmentation: multiscale basic features and a forest of 25 trees."""

    def __init__(self, trees: int, seed: int) -> None:
        from sklearn.ensemble import RandomForestClassifier

        self._forest = RandomForestClassifier(n_estimators=trees, random_state=seed, n_jobs=1)

    def fit(self, pixels: npt.NDArray[np.generic], labels: Labels) -> None:
        """Train on the labelled pixels."""
        from skimage.future import fit_segmenter

        self._forest = fit_segmenter(labels, self._stack(pixels), self._forest)

    def predict(self, pixels: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
        """Labels of the whole plane."""
        from skimage.future import predict_segmenter

        found: npt.NDArray[Any] = predict_segmenter(self._stack(pixels), self._forest)
        return found

    @staticmethod
    def _stack(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        from skimage.feature import multiscale_basic_features

        image = np.moveaxis(pixels.astype(np.float32), 0, -1)
        # By position, for the number of workers is called differently from release to release.
        stack: npt.NDArray[np.float32] = multiscale_basic_features(
            image, True, True, True, 0.5, 16, None, 1, channel_axis=-1
        )
        return stack


class Apoc:
    """APOC's pixel classifier with its default features, through OpenCL."""

    def __init__(self, trees: int, folder: Path) -> None:
        import apoc

        self._classifier = apoc.PixelClassifier(
            opencl_filename=str(folder / "apoc.cl"), num_ensembles=trees, max_depth=10
        )

    def fit(self, pixels: npt.NDArray[np.generic], labels: Labels) -> None:
        """Train with the predefined feature set for objects of one and two pixels."""
        import apoc

        features = apoc.PredefinedFeatureSet.object_size_1_to_5_px.value
        self._classifier.train(features, labels, pixels[0].astype(np.float32))

    def predict(self, pixels: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
        """Labels of the first channel."""
        return np.asarray(self._classifier.predict(image=pixels[0].astype(np.float32)))


class Convpaint:
    """convpaint with its fastest preset: few Gaussian features and CatBoost."""

    def __init__(self) -> None:
        from napari_convpaint.convpaint_model import ConvpaintModel

        self._model = ConvpaintModel(alias="gaussian")

    def fit(self, pixels: npt.NDArray[np.generic], labels: Labels) -> None:
        """Train on the first channel."""
        self._model.train(pixels[0].astype(np.float32), labels)

    def predict(self, pixels: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
        """Labels of the first channel."""
        return np.asarray(self._model.segment(pixels[0].astype(np.float32)))


def installed(trees: int, seed: int, folder: Path) -> Iterator[tuple[str, Callable[[], Peer]]]:
    """Every peer that this installation has: its name, and how to make it.

    `folder` takes the files that a peer wants to write. Making a peer imports it, which may fail.
    """
    yield "scikit-image trainable segmentation", lambda: ScikitImage(trees, seed)
    if importlib.util.find_spec("apoc"):
        yield "APOC (OpenCL)", lambda: Apoc(trees, folder)
    if importlib.util.find_spec("napari_convpaint"):
        yield "convpaint (Gaussian features)", Convpaint
