"""Models that a device computes array by array: imported networks, and the networks of deep features.

What goes around the network (cutting, deciding, the forest on its features) stays on the CPU, so it is the
same code wherever the network is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segmentd.compute import deep, network
from segmentd.compute.deep_sets import DeepFeatureSet, Floats
from segmentd.compute.on_card import OnCard
from segmentd.records import ModelCard, PixelType

Compute = Callable[[Floats], Floats]

# What a network takes beside its weights, for each pixel of a batch: about 256 planes of float32, as many as
# are alive at once in a U-Net that begins with 64 filters. Corrected when the network has run on the device.
WORKSPACE_PER_PIXEL = 1024
# The same of VGG19 for a tile of one channel.
DEEP_WORKSPACE_BYTES = 130 << 20
# Values of images and features are the same if they differ by no more than this part of the largest.
SAME_VALUE = 1e-3
TRIAL_CORE_PX = 64


class ArrayModel(Protocol):
    """A model of which the lane knows that it makes arrays of arrays, one for one along the first axis."""

    def __hash__(self) -> int:
        """By identity."""

    @property
    def card(self) -> ModelCard:
        """What it is."""

    @property
    def size_bytes(self) -> int:
        """What it takes on a device, weights and working memory, as far as that can be foreseen."""

    @property
    def largest_batch(self) -> int:
        """How many arrays are computed at once."""

    def made(self, taken: Sequence[int]) -> tuple[int, ...]:
        """The shape of what is made of an array of a shape."""

    def on_cpu(self) -> Compute:
        """What computes here."""

    def on_card(self, card: OnCard) -> Compute:
        """Bring it to a card; only in a device's own process."""

    @property
    def trial(self) -> tuple[Floats, Floats]:
        """A made-up array, and what the CPU makes of it: one of the batch."""

    def equal_share(self, found: Floats, expected: Floats) -> float:
        """Share of the values that mean the same."""


Evaluate = Callable[[ArrayModel, Floats], Floats]


@dataclass(frozen=True, eq=False)
class DeviceNetwork:
    """An imported network: tiles (N, C, h, w) to scores (N, h, w, outputs); volumes have a depth before h.

    Attributes
    ----------
    data : bytes
        The checked network.
    here : callable, optional
        Computes on the CPU; by default a session is made when it is first needed.
    """

    card: ModelCard
    data: bytes
    spec: network.NetworkSpec
    here: Compute | None = None

    @property
    def size_bytes(self) -> int:
        """Weights, and working memory for a full batch."""
        return len(self.data) + self.spec.batch * math.prod(self.spec.tile_shape) * WORKSPACE_PER_PIXEL

    @property
    def largest_batch(self) -> int:
        """Tiles that are computed at once."""
        return self.spec.batch

    def made(self, taken: Sequence[int]) -> tuple[int, ...]:
        """The shape of the scores."""
        return (taken[0], *taken[2:], self.spec.outputs)

    def on_cpu(self) -> Compute:
        """What computes here."""
        return self.here or self._session

    @cached_property
    def _session(self) -> Compute:
        return network.Network(self.data, self.spec).scores

    def on_card(self, card: OnCard) -> Compute:
        """Bring it to a card."""
        return network.Network(self.data, self.spec, card=card).scores

    @cached_property
    def trial(self) -> tuple[Floats, Floats]:
        """A tile of blobs, and its scores."""
        spec = self.spec
        plane = _made_up(spec.channels, self.card.pixel_type, max(spec.tile_height, spec.tile_width))
        tile = network.prepare(plane, spec.scale_by_bit_depth)[:, : spec.tile_height, : spec.tile_width]
        if spec.tile_depth:
            tile = np.repeat(tile[:, None], spec.tile_depth, axis=1)
        return tile[None], self.on_cpu()(tile[None])

    def equal_share(self, found: Floats, expected: Floats) -> float:
        """Share of the pixels with the same label; of a network for images, with the same values."""
        if self.spec.task == "regression":
            return _same_values(found, expected)
        return float((found.argmax(axis=-1) == expected.argmax(axis=-1)).mean())


@dataclass(frozen=True, eq=False)
class DeviceFeatures:
    """The network of deep features: grey values (C, h, w) to cells (C, features, y, x).

    Attributes
    ----------
    feature_set, layers, projection
        As for `segmentd.compute.deep.Extractor`.
    here : callable, optional
        Computes on the CPU; by default an extractor is made when it is first needed.
    """

    card: ModelCard
    feature_set: DeepFeatureSet
    layers: deep.Layers
    projection: Floats | None
    here: Compute | None = None

    @property
    def size_bytes(self) -> int:
        """Weights, and working memory for the channels of a tile."""
        weights = sum(kernel.nbytes + bias.nbytes for kernel, bias in self.layers)
        return weights + self.largest_batch * DEEP_WORKSPACE_BYTES

    @property
    def largest_batch(self) -> int:
        """Channels, which are computed together."""
        return self.card.channel_count

    def made(self, taken: Sequence[int]) -> tuple[int, ...]:
        """The shape of the cells."""
        return deep.cells_shape(self.feature_set, taken)

    def on_cpu(self) -> Compute:
        """What computes here."""
        return self.here or self._extractor.run

    @cached_property
    def _extractor(self) -> deep.Extractor:
        return deep.Extractor(self.feature_set, self.layers, self.projection, 1)

    def on_card(self, card: OnCard) -> Compute:
        """Bring it to a card."""
        return deep.Extractor(self.feature_set, self.layers, self.projection, 1, card).run

    @cached_property
    def trial(self) -> tuple[Floats, Floats]:
        """A tile of blobs, and its cells."""
        edge = TRIAL_CORE_PX + 2 * self.feature_set.reach_px
        grey = deep.grey_values(_made_up(1, PixelType.UINT8, edge), None)
        return grey, self.on_cpu()(grey)

    def equal_share(self, found: Floats, expected: Floats) -> float:
        """Share of the cells' values that are the same."""
        return _same_values(found, expected)


def _made_up(channels: int, pixel_type: PixelType, edge_px: int) -> npt.NDArray[np.generic]:
    from segmentd.engine.selftest import made_up_plane  # brings scikit-learn, which training needs

    return made_up_plane(channels, pixel_type, edge_px)


def _same_values(found: Floats, expected: Floats) -> float:
    allowed = SAME_VALUE * float(np.abs(expected).max(initial=0.0))
    return float((np.abs(found - expected) <= allowed).mean())
