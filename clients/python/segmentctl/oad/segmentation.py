"""`Zen.Processing.Segmentation`: images in, labels or channels of classes and confidence out."""

from __future__ import annotations

from enum import Enum
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from segmentctl.confidence import minimum_confidence
from segmentctl.oad.connection import client
from segmentctl.oad.errors import translated
from segmentctl.oad.image import Pixels, ZenImage, as_image
from segmentd.imagefile import ClassInfo

if TYPE_CHECKING:
    from segmentctl.oad.intellesis import ZenIntellesisModel


class ZenSegmentationFormat(Enum):
    """How classes are told apart in the result."""

    MultiChannel = "MultiChannel"
    """One channel for each class: 255 where it is, 0 elsewhere."""
    Labels = "Labels"
    """One channel with values 1, 2, ... for the classes, 0 for none."""


SegmentationFormat = ZenSegmentationFormat


def segmented(
    image: ZenImage | Pixels | str | PathLike[str],
    model: str | ZenIntellesisModel,
    form: ZenSegmentationFormat = ZenSegmentationFormat.MultiChannel,
) -> list[ZenImage]:
    """Segment all planes of an image, with the post-processing of the model.

    Returns
    -------
    list
        The segmented image, and the confidence map in percent.
    """
    given = as_image(image)
    with translated():
        kind = client().model(model if isinstance(model, str) else model.Id)
        planes = given.pixels.reshape(-1, *given.pixels.shape[2:])
        results = [client().segment_plane(plane, kind.name) for plane in planes]
    classes = [ClassInfo(entry.value, entry.display_name, entry.color) for entry in kind.classes]
    labels = _stacked(given, [result.labels for result in results])
    if form is ZenSegmentationFormat.MultiChannel:
        values = np.array([entry.value for entry in classes])[:, np.newaxis, np.newaxis]
        channels = np.where(labels == values, np.uint8(255), np.uint8(0))
        found = given.derived(channels, [entry.name for entry in classes], classes)
    else:
        found = given.derived(labels, ["labels"], classes)
    confidence = _stacked(given, [result.confidence for result in results])
    return [found, given.derived(confidence, ["confidence (%)"])]


def _stacked(image: ZenImage, planes: list[Pixels]) -> Pixels:
    """Planes (Y, X) in the order of the image's own, as (T, Z, 1, Y, X)."""
    size_t, size_z, _, height, width = image.pixels.shape
    return np.stack(planes).reshape(size_t, size_z, 1, height, width)


class Segmentation:
    """The functions for trained models and imported networks."""

    @staticmethod
    def TrainableSegmentation(
        image: ZenImage | Pixels | str | PathLike[str],
        model: str | ZenIntellesisModel,
        segmentationFormat: ZenSegmentationFormat = ZenSegmentationFormat.MultiChannel,
    ) -> ZenImage:
        """Segment an image.

        Parameters
        ----------
        image
            A ZenImage, an array, or the path of a file.
        model
            Name or id of a model, or the model.
        segmentationFormat
            `MultiChannel` by default, or `Labels`.
        """
        return segmented(image, model, segmentationFormat)[0]

    @staticmethod
    def TrainableSegmentationWithConfidenceMap(
        image: ZenImage | Pixels | str | PathLike[str],
        model: str | ZenIntellesisModel,
        segmentationFormat: ZenSegmentationFormat = ZenSegmentationFormat.MultiChannel,
    ) -> list[ZenImage]:
        """Segment an image; gives the segmented image and the confidence map in percent."""
        return segmented(image, model, segmentationFormat)

    # Its older name.
    TrainableSegmentationWithProbabilityMap = TrainableSegmentationWithConfidenceMap

    @staticmethod
    def MinimumConfidence(
        image: ZenImage | Pixels | str | PathLike[str],
        confidenceMap: ZenImage | Pixels | str | PathLike[str],
        threshold: float,
    ) -> ZenImage:
        """Set pixels of a segmented image to 0 where the confidence is below a threshold in percent."""
        given, confidence = as_image(image), as_image(confidenceMap)
        with translated():
            percents = np.broadcast_to(confidence.pixels, given.pixels.shape)
            kept = minimum_confidence(given.pixels, percents, threshold)
        return given.derived(kept, given.channel_names, given.about.classes)
