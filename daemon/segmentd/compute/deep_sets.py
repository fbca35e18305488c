"""Feature sets that a trained network gives: what they are and how far they look. Nothing heavy is imported.

The network is VGG19, cut off behind one of its layers. Its cells are `stride_px` pixels apart; cell k lies in
the middle of pixels k * stride to (k + 1) * stride - 1, and pixels between cells are interpolated linearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Convolution:
    """A layer of 3 x 3 filters; `pooled`: on maxima of 2 x 2 cells of the layer before."""

    name: str
    inputs: int
    outputs: int
    pooled: bool = False


VGG19 = (
    Convolution("block1_conv1", 3, 64),
    Convolution("block1_conv2", 64, 64),
    Convolution("block2_conv1", 64, 128, pooled=True),
    Convolution("block2_conv2", 128, 128),
    Convolution("block3_conv1", 128, 256, pooled=True),
    Convolution("block3_conv2", 256, 256),
)


@dataclass(frozen=True)
class DeepFeatureSet:
    """What a layer of VGG19 finds, or a fixed random projection of it.

    Attributes
    ----------
    layers : tuple of Convolution
        From the network's input to the layer whose outputs are the features.
    projected_to : int, optional
        Number of random mixtures that stand for the layer's outputs; None for the outputs themselves.
    """

    name: str
    description: str
    layers: tuple[Convolution, ...]
    projected_to: int | None = None

    def __len__(self) -> int:
        return self.projected_to or self.layers[-1].outputs

    @property
    def stride_px(self) -> int:
        """Distance of cells in pixels: 1, 2 or 4."""
        return 1 << sum(layer.pooled for layer in self.layers)

    @property
    def reach_px(self) -> int:
        """How far a pixel's features read: receptive field and interpolation, rounded up to the stride."""
        stride = self.stride_px
        farthest = 0
        for pixel in range(stride):
            # A pixel of cell 0 that lies before its middle is interpolated with the cell before, else behind.
            before = 2 * pixel + 1 < stride
            first = -1 if before else 0
            last = 0 if before or stride == 1 else 1
            for layer in reversed(self.layers):
                first, last = first - 1, last + 1
                if layer.pooled:
                    first, last = 2 * first, 2 * last + 1
            farthest = max(farthest, pixel - first, last - pixel)
        return -(-farthest // stride) * stride

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        layer = self.layers[-1].name
        kind = f"mixture of {layer}" if self.projected_to else layer
        return tuple(f"{kind} {number}" for number in range(1, len(self) + 1))

    def random_projection(self, seed: int) -> Floats | None:
        """A new projection: normal numbers that keep lengths on average, float32 (features, layer's outputs).

        None where the set has none.
        """
        if self.projected_to is None:
            return None
        shape = self.projected_to, self.layers[-1].outputs
        numbers = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(self.projected_to)
        projection: Floats = numbers.astype(np.float32)
        return projection


def deep_sets() -> tuple[DeepFeatureSet, ...]:
    """All deep feature sets."""
    needs = "slow, needs the extra 'deep' and VGG19 weights"
    block1, block2, block3 = VGG19[:2], VGG19[:4], VGG19[:6]
    return (
        DeepFeatureSet("deep64", f"64 features a channel: VGG19 up to block1_conv2; {needs}", block1),
        DeepFeatureSet("deep128", f"128 features a channel: VGG19 up to block2_conv2; {needs}", block2),
        DeepFeatureSet("deep256", f"256 features a channel: VGG19 up to block3_conv2; {needs}", block3),
        DeepFeatureSet("deep50", f"50 features a channel: random mixtures of deep128; {needs}", block2, 50),
        DeepFeatureSet("deep70", f"70 features a channel: random mixtures of deep256; {needs}", block3, 70),
    )
