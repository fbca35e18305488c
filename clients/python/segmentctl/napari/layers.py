"""Label layers of a viewer: what comes from the daemon, seen from a confidence on. No Qt, no threads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from segmentctl.assemble import UInt8Array
    from segmentctl.subscription import Result
    from segmentd.v1.pixels_pb2 import PixelClass

OPACITY = 0.5


class Viewer(Protocol):
    """The part of `napari.Viewer` that is used here."""

    layers: Any
    dims: Any

    def add_labels(self, data: Any, **options: Any) -> Any:
        """Add a layer of labels."""
        ...


@dataclass
class Shown:
    """A layer of ours: planes of labels and confidence (N, Y, X), of which the first `count` have come."""

    layer: Any
    labels: UInt8Array
    confidence: UInt8Array
    count: int = 1


class LabelLayers:
    """Puts results into a viewer and takes old ones out. Call it in the thread of the window only.

    Parameters
    ----------
    viewer : napari.Viewer
        Where to.
    keep : int
        How many images of the live feed stay; what was segmented on request always does.
    """

    def __init__(self, viewer: Viewer, keep: int = 5) -> None:
        self._viewer, self._keep = viewer, keep
        self._min_confidence = 0
        self._live: dict[tuple[str, int], Shown] = {}
        self._requested: list[Shown] = []

    @property
    def min_confidence(self) -> int:
        """Labels below this confidence in percent are not shown."""
        return self._min_confidence

    @min_confidence.setter
    def min_confidence(self, percent: int) -> None:
        self._min_confidence = percent
        for shown in self._all():
            shown.layer.data = self._visible(shown)

    def show_result(self, result: Result) -> None:
        """Show a result of the live feed; the planes of a stack become one layer."""
        if result.labels is None:
            return
        segmentation = result.segmentation
        key = (segmentation.source_display, segmentation.version)
        confidence = result.confidence
        if confidence is None:  # the watch writes none: nothing is hidden then
            confidence = np.full_like(result.labels, 100)
        shown = self._live.get(key)
        if shown is not None and shown.layer in self._viewer.layers and shown.count < len(shown.labels):
            shown.labels[shown.count], shown.confidence[shown.count] = result.labels, confidence
            shown.count += 1
            shown.layer.data = self._visible(shown)
            return
        shape = (max(1, segmentation.plane_count), *result.labels.shape)
        labels, sure = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        labels[0], sure[0] = result.labels, confidence
        self._live[key] = self._add(segmentation.source_display, labels, sure, segmentation.classes)
        for old in list(self._live)[: -self._keep]:
            self._remove(self._live.pop(old))

    def show_plane(
        self,
        name: str,
        labels: UInt8Array,
        confidence: UInt8Array,
        classes: Iterable[PixelClass],
        like: Any = None,
    ) -> None:
        """Show a plane (Y, X) that was segmented on request, where the layer `like` lies."""
        place = {} if like is None else {"scale": like.scale[-2:], "translate": like.translate[-2:]}
        self._requested.append(self._add(name, labels[np.newaxis], confidence[np.newaxis], classes, **place))

    def _add(
        self,
        name: str,
        labels: UInt8Array,
        confidence: UInt8Array,
        classes: Iterable[PixelClass],
        **place: Any,
    ) -> Shown:
        entries = list(classes)
        shown = Shown(None, labels, confidence)
        shown.layer = self._viewer.add_labels(
            self._visible(shown),
            name=name,
            opacity=OPACITY,
            colormap=colors(entries),
            metadata={"classes": {entry.value: entry.display_name for entry in entries}},
            **place,
        )
        return shown

    def _visible(self, shown: Shown) -> UInt8Array:
        visible = np.where(shown.confidence >= self._min_confidence, shown.labels, np.uint8(0))
        return visible[0] if len(visible) == 1 else visible

    def _all(self) -> list[Shown]:
        """Give the layers that the user has not deleted."""
        self._live = {key: shown for key, shown in self._live.items() if shown.layer in self._viewer.layers}
        self._requested = [shown for shown in self._requested if shown.layer in self._viewer.layers]
        return [*self._live.values(), *self._requested]

    def _remove(self, shown: Shown) -> None:
        if shown.layer in self._viewer.layers:
            self._viewer.layers.remove(shown.layer)


def colors(classes: Iterable[PixelClass]) -> dict[int | None, str]:
    """Give the colours of labels as napari wants them; label 0 and values without a class are not drawn."""
    table: dict[int | None, str] = {None: "#00000000", 0: "#00000000"}
    return table | {entry.value: entry.color or "#FFFFFF" for entry in classes}


def current_plane(viewer: Viewer) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """Read what the selected image layers, or the only one, show right now.

    Returns
    -------
    image : ndarray (Y, X) or (C, Y, X)
        One channel for each selected layer, from the bottom up; red, green and blue of a colour image.
    layers : list
        The layers.

    Raises
    ------
    ValueError
        If no image is selected, or images of different sizes are.
    """
    images = [layer for layer in viewer.layers if is_image(layer)]
    # a layer of labels that has just come is selected instead of the image below it
    chosen = [layer for layer in images if layer in viewer.layers.selection] or images
    if not any(layer in viewer.layers.selection for layer in images) and len(images) != 1:
        raise ValueError("Select an image layer first; several ones for a model of several channels.")
    planes = [_plane(layer, viewer.dims.current_step) for layer in chosen]
    if len({plane.shape[1:] for plane in planes}) > 1 or len({plane.dtype for plane in planes}) > 1:
        raise ValueError(
            "The selected images differ in size or pixel type: they cannot be channels of one plane."
        )
    image = np.concatenate(planes)
    return (image[0] if len(image) == 1 else image), chosen


def is_image(layer: Any) -> bool:
    """Return whether a layer holds pixels of an image: layers of labels have no `rgb`."""
    return hasattr(layer, "rgb")


def _plane(layer: Any, current_step: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Give the plane (C, Y, X) of a layer at the position of the viewer's sliders."""
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    step = tuple(int(position) for position in current_step[-layer.ndim :][: layer.ndim - 2])
    plane = np.asarray(data[step])
    return np.moveaxis(plane[..., :3], -1, 0) if layer.rgb else plane[np.newaxis]
