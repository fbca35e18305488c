"""Labels and confidence of a tile through the CUDA kernels, on the arrays of a given namespace.

With CuPy's namespace this runs on a card; with numpy's, and the kernels compiled for the host, in tests.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segmentd.compute.feature_plan import (
    ALONG_X,
    ALONG_Y,
    ALONG_Y_FOR_SOBEL,
    ALONG_Y_ONTO,
    FeaturePlan,
)
from segmentd.compute.normalize import Scale
from segmentd.compute.packets import PacketForest

Array = Any  # of the namespace
Floats = npt.NDArray[np.float32]


class Launch(Protocol):
    """Starts a kernel on the current stream."""

    def __call__(self, kernel: str, count: int, *arguments: Any) -> None:
        """Arguments are arrays, which stand for where they begin, typed scalars, or None for no array."""


class TileProgram:
    """A model on a device.

    Parameters
    ----------
    xp : module
        The namespace of the device's arrays: `cupy`, or `numpy`.
    launch : callable
        Starts a kernel of `segmentd.compute.cuda.source`.
    plan : FeaturePlan
        Which planes of features to compute.
    forest : PacketForest
        The forest, as the processor walks it.
    """

    def __init__(self, xp: ModuleType, launch: Launch, plan: FeaturePlan, forest: PacketForest) -> None:
        self._xp = xp
        self._launch = launch
        self._plan = plan
        self._forest = forest
        self._weights = xp.asarray(plan.weights)
        self._nodes = xp.asarray(forest.nodes.view(np.int32))
        self._roots = xp.asarray(forest.roots)
        self._values = None if forest.pure else xp.asarray(forest.leaf_values)

    def run(self, tile: Array, scale: Scale | None, level: Floats) -> tuple[Array, Array]:
        """Labels and confidence of a tile.

        Parameters
        ----------
        tile : array (C, h + 2 r, w + 2 r)
            Pixels on the device, with r = `plan.reach_px` pixels of surroundings on each side.
        scale, level
            As for `segmentd.compute.fast_features.load`.

        Returns
        -------
        labels, confidence : uint8 arrays (h, w)
            On the device. Confidence is in percent; 255 where it is not a number.
        """
        planes = self.features(tile, scale, level)
        labels, confidence = (self._xp.empty(planes.shape[1:], np.uint8) for _ in range(2))
        self._walk("classify", planes, labels, confidence)
        return labels, confidence

    def scores(self, tile: Array, scale: Scale | None, level: Floats) -> Array:
        """Share of the votes for each class, float32 (K, h, w) on the device; parameters as for `run`."""
        planes = self.features(tile, scale, level)
        scores = self._xp.empty((self._forest.class_count, *planes.shape[1:]), np.float32)
        self._walk("score", planes, scores)
        return scores

    def _walk(self, kernel: str, planes: Array, *results: Array) -> None:
        """Start a kernel that walks the forest."""
        forest, pixels = self._forest, int(np.prod(planes.shape[1:]))
        self._launch(
            kernel,
            pixels,
            planes,
            np.int64(pixels),
            self._nodes,
            self._roots,
            np.int32(forest.tree_count),
            np.int32(forest.class_count),
            np.int32(forest.vote_places),
            self._values,
            np.int32(forest.leaf_values.shape[1]),
            *results,
        )

    def features(self, tile: Array, scale: Scale | None, level: Floats) -> Array:
        """The planes of the plan, float32 (planes, h, w); parameters as for `run`."""
        xp, plan, reach = self._xp, self._plan, self._plan.reach_px
        pixels = xp.array(tile, np.float32)
        height, width = (edge - 2 * reach for edge in pixels.shape[1:])
        for c in range(len(pixels)):
            offset, divisor = (0, 1) if scale is None else (scale.offset[c], scale.divisor[c])
            numbers = np.int64(pixels[c].size), np.float32(offset), np.float32(divisor), np.float32(level[c])
            self._launch("prepare", pixels[c].size, pixels[c], *numbers)
        planes = xp.empty((max(1, plan.plane_count), height, width), np.float32)
        turned = gaussian = pixels  # the first step of every group is ALONG_X
        for step in plan.steps:
            taps = self._weights[int(step["weights"]) :], np.int32(step["radius"])
            even, odd = np.int32(step["even_length"]), np.int32(step["odd"])
            lacking = np.float32(step["gain"] * level[step["channel"]])
            plane, other = (planes[step[name]] if step[name] >= 0 else None for name in ("plane", "other"))
            operation, ahead = step["operation"], int(step["ahead"])
            core = _size(height, width)
            if operation == ALONG_X:
                turned = xp.empty((height + 2 * reach, width + 2 * ahead), np.float32)
                image = pixels[step["channel"], 0, reach - ahead :]
                pitch = np.int64(pixels.shape[2])
                self._launch(
                    "along_x", turned.size, image, pitch, turned, *_size(*turned.shape), *taps, odd, even
                )
            elif operation == ALONG_Y:
                source = turned[reach, ahead:], np.int64(turned.shape[1])
                self._launch("along_y", height * width, *source, plane, *core, *taps, odd, even, lacking)
            elif operation == ALONG_Y_FOR_SOBEL:
                gaussian = xp.empty((height + 2, width + 2), np.float32)
                source, zero = (turned[reach - 1], np.int64(turned.shape[1])), np.float32(0)
                size = _size(*gaussian.shape)
                self._launch("along_y", gaussian.size, *source, gaussian, *size, *taps, odd, even, zero)
            elif operation == ALONG_Y_ONTO:
                source = turned[reach, ahead:], np.int64(turned.shape[1])
                base = other if plane is None else plane
                self._launch("along_y_onto", height * width, *source, base, plane, other, *core, *taps, even)
            else:
                self._launch("sobel", height * width, gaussian, plane, other, *core, lacking)
        return planes


def _size(height: int, width: int) -> tuple[np.int32, np.int32]:
    return np.int32(height), np.int32(width)
