"""What to compute for a forest: each plane that it reads once, with the steps in the order that shares most.

A forest seldom reads all features, and some features are the same plane (Gabor filters at t and t + 180
degrees). The plan drops the one and merges the other, and gathers all filters that begin with the same
weights along x behind a single pass along x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentd.compute.features import FeatureSet
from segmentd.compute.separable import Product, Separable, Taps

# Operations of a step
ALONG_X, ALONG_Y, ALONG_Y_ONTO, ALONG_Y_FOR_SOBEL, SOBEL = range(5)

# One step; a column is eight pixels wide and as high as the tile.
STEP = np.dtype(
    [
        ("operation", np.int64),
        ("channel", np.int64),
        ("weights", np.int64),  # where the weights begin in FeaturePlan.weights
        ("radius", np.int64),  # distance of the last weight
        ("odd", np.int64),
        ("even_length", np.int64),
        ("reach", np.int64),  # ALONG_X: rows above and below that the steps along y read
        ("ahead", np.int64),  # works one column ahead, as the Sobel filter needs its neighbours
        ("image", np.int64),  # which of the images between Gaussian and Sobel filter
        ("gain", np.float64),  # what the whole filter makes of an even grey level of 1
        ("plane", np.int64),  # where the result goes; -1 = nowhere
        ("other", np.int64),  # ALONG_Y_ONTO: for the sum, `plane` for the difference. SOBEL: the magnitude
    ]
)


@dataclass(frozen=True)
class FeaturePlan:
    """What `fast_features` carries out.

    Attributes
    ----------
    channel_count : int
        Channels of a tile.
    plane_of_feature : int32 array (F,)
        The plane that holds each feature; -1 for a feature that is not computed.
    plane_count : int
        Distinct planes.
    reach_px : int
        How far around a pixel the planes read, on each side.
    steps : array of STEP
        In the order in which they are carried out.
    weights : float32 array
        All one-dimensional filters, one behind the other.
    sobel_images : int
        Images that are kept between a Gaussian and its Sobel filter.
    """

    channel_count: int
    plane_of_feature: npt.NDArray[np.int32]
    plane_count: int
    reach_px: int
    steps: npt.NDArray[np.void]
    weights: npt.NDArray[np.float32]
    sobel_images: int


def plan_features(
    feature_set: FeatureSet, channel_count: int, used: npt.NDArray[np.bool_] | None = None
) -> FeaturePlan:
    """Plan the features of all channels.

    Parameters
    ----------
    feature_set : FeatureSet
        What is computed for each channel.
    channel_count : int
        C.
    used : bool array (C * len(feature_set),), optional
        The features that are needed; all by default.
    """
    count = channel_count * len(feature_set)
    used = np.ones(count, np.bool_) if used is None else used
    if used.shape != (count,):
        raise ValueError(f"used has shape {used.shape}, {count} features need ({count},)")
    plane_of_feature = np.full(count, -1, np.int32)
    planes: dict[tuple[int, Separable], int] = {}
    for slot in np.flatnonzero(used):
        channel, index = divmod(int(slot), len(feature_set))
        key = channel, feature_set.features[index].separable
        plane_of_feature[slot] = planes.setdefault(key, len(planes))
    steps = _Steps()
    for channel in range(channel_count):
        steps.add_channel(channel, {key[1]: plane for key, plane in planes.items() if key[0] == channel})
    return FeaturePlan(
        channel_count=channel_count,
        plane_of_feature=plane_of_feature,
        plane_count=len(planes),
        reach_px=max((separable.reach_px for _, separable in planes), default=0),
        steps=steps.table(),
        weights=np.array(steps.weights or [0.0], np.float32),
        sobel_images=steps.sobel_images,
    )


class _Steps:
    """Gathers steps behind the pass along x that they share."""

    def __init__(self) -> None:
        self.weights: list[float] = []
        self.sobel_images = 0
        self._starts: dict[tuple[float, ...], int] = {}
        self._groups: dict[tuple[int, Taps, bool], list[dict[str, float]]] = {}

    def add_channel(self, channel: int, planes: dict[Separable, int]) -> None:
        """Add all planes of a channel."""
        copied = set()
        for separable, plane in planes.items():
            if separable.sobel:
                copied.add(separable.first)
                self._add_sobel(channel, separable.first, planes.get(Separable(separable.first), -1), plane)
        pairs: dict[tuple[Product, Product], dict[int, int]] = {}
        for separable, plane in planes.items():
            if separable.second is not None:
                pairs.setdefault((separable.first, separable.second), {})[separable.sign] = plane
            elif not separable.sobel and separable.first not in copied:
                gain = separable.first.gain
                self._along_y(channel, separable.first, ALONG_Y, plane=plane, gain=gain)
        for (first, second), by_sign in pairs.items():
            minus, plus = by_sign.get(-1, -1), by_sign.get(1, -1)
            self._along_y(channel, first, ALONG_Y, plane=plus if minus < 0 else minus, gain=first.gain)
            self._along_y(channel, second, ALONG_Y_ONTO, plane=minus, other=plus)

    def table(self) -> npt.NDArray[np.void]:
        """All steps, each pass along x followed by what it is for.

        Passes of odd filters come last: their steps add to planes that the others have written.
        """
        rows = []
        for (channel, taps, ahead), users in sorted(self._groups.items(), key=lambda group: group[0][1].odd):
            reach = max(user["radius"] for user in users)
            rows.append(self._step(ALONG_X, channel, taps, reach=reach, ahead=int(ahead)))
            rows += users
        table = np.zeros(len(rows), STEP)
        for name in STEP.names or ():
            table[name] = [row[name] for row in rows]
        return table

    def _add_sobel(self, channel: int, gaussian: Product, copy: int, plane: int) -> None:
        image = self.sobel_images
        self.sobel_images += 1
        self._along_y(channel, gaussian, ALONG_Y_FOR_SOBEL, ahead=1, image=image)
        users = self._groups[channel, gaussian.along_x, True]
        users.append(
            self._step(SOBEL, channel, None, image=image, gain=gaussian.gain, plane=copy, other=plane)
        )

    def _along_y(self, channel: int, product: Product, operation: int, **fields: float) -> None:
        ahead = bool(fields.get("ahead", 0))
        users = self._groups.setdefault((channel, product.along_x, ahead), [])
        users.append(self._step(operation, channel, product.along_y, **fields))

    def _step(self, operation: int, channel: int, taps: Taps | None, **fields: float) -> dict[str, float]:
        step = dict.fromkeys(STEP.names or (), 0) | {"plane": -1, "other": -1, **fields}
        step |= {"operation": operation, "channel": channel}
        if taps is not None:
            if taps.weights not in self._starts:
                self._starts[taps.weights] = len(self.weights)
                self.weights += taps.weights
            step |= {"weights": self._starts[taps.weights], "radius": taps.reach_px}
            step |= {"odd": int(taps.odd), "even_length": int(taps.even_length)}
        return step
