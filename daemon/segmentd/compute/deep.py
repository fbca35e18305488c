"""Deep features: VGG19 up to a layer, through TensorFlow and Keras (extra `deep`).

TensorFlow is imported when the first extractor is made. On the CPU a tile is computed by one thread, so that
its numbers do not depend on how many there are; several tiles are computed side by side.
Weights are arrays; nothing of Keras' own loading is used, and nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segmentd.compute import tensorflow_device
from segmentd.compute.deep_cells import MARGIN_CELLS
from segmentd.compute.deep_sets import DeepFeatureSet, Floats
from segmentd.compute.normalize import Scale, to_float
from segmentd.compute.on_card import OnCard
from segmentd.compute.tiling import cut
from segmentd.records import Region

if TYPE_CHECKING:
    import keras

TILE_PX = 256
ALIGNMENT_PX = 8
"""Tiles begin and end at multiples of this: of every stride, and of the forest's packets."""
# Blue, green, red: what Keras' preprocessing of the kind `caffe` takes off.
MEAN_BGR = (103.939, 116.779, 123.68)
HIGHEST_GREY = 255.0

Layers = Sequence[tuple[Floats, Floats]]


def aligned(core: Region) -> Region:
    """The core with its far edges moved out to multiples of 8 pixels; what is added is mirrored or unused."""
    height, width = (-(-edge // ALIGNMENT_PX) * ALIGNMENT_PX for edge in (core.height, core.width))
    return Region(core.y, core.x, height, width)


def grey_values(tile: npt.NDArray[np.generic], scale: Scale | None) -> Floats:
    """Pixels as the network takes them: float32, 0..255 for the range of their pixel type.

    Whole numbers: the type's smallest value becomes 0, its largest 255. Floats, and pixels that were
    normalised by `scale`: 0 becomes 0 and 1 becomes 255, other values follow. What is not finite counts as 0.
    """
    values = to_float(tile, scale)
    if scale is not None or tile.dtype.kind == "f":
        values *= np.float32(HIGHEST_GREY)
        return values
    limits = np.iinfo(tile.dtype.name)
    values -= np.float32(limits.min)
    values *= np.float32(HIGHEST_GREY / (limits.max - limits.min))
    return values


class Extractor:
    """A deep feature set in memory; may be used by several threads at once.

    Parameters
    ----------
    feature_set : DeepFeatureSet
        What to compute.
    layers : sequence of (kernel, bias)
        Weights of the set's layers: float32 (3, 3, inputs, outputs) and (outputs,).
    projection : float32 array (features, outputs of the last layer), optional
        Of sets that have one.
    threads : int
        How many calls may compute at once; the first extractor of a process decides for all.
    card : OnCard, optional
        Where to compute instead, in a device's own process.

    Attributes
    ----------
    library_versions : dict
        Of what computes.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA.
    """

    def __init__(
        self,
        feature_set: DeepFeatureSet,
        layers: Layers,
        projection: Floats | None,
        threads: int,
        card: OnCard | None = None,
    ) -> None:
        tensorflow_device.require_extra()
        tensorflow, device = tensorflow_device.told(threads, card)
        import keras

        self.feature_set = feature_set
        self.layers = layers
        self.projection = projection
        self.threads = threads
        self.library_versions = {"keras": keras.__version__, "tensorflow": tensorflow.__version__}
        self._run = _compiled(tensorflow, device, feature_set, layers, projection)

    def run(self, grey: Floats) -> Floats:
        """Cells (C, features, y, x) of grey values (C, h, w), see `tile` and `cells_shape`."""
        return self._run(grey)

    def tile(
        self,
        pixels: npt.NDArray[np.generic],
        core: Region,
        border_px: int,
        scale: Scale | None,
        first_row: int = 0,
        plane_height: int | None = None,
    ) -> Floats:
        """The grey values (C, h, w) that the cells of a tile are made of; parameters as for `cells`."""
        if core.y % ALIGNMENT_PX or core.x % ALIGNMENT_PX:
            raise ValueError(f"a tile that begins at {core.y}, {core.x} does not lie on the network's grid")
        reach = self.feature_set.reach_px
        return grey_values(cut(pixels, aligned(core), reach, border_px, first_row, plane_height), scale)

    def cells(
        self,
        pixels: npt.NDArray[np.generic],
        core: Region,
        border_px: int,
        scale: Scale | None,
        first_row: int = 0,
        plane_height: int | None = None,
    ) -> Floats:
        """The cells of a tile, each channel by itself, for `deep_cells`.

        Parameters
        ----------
        pixels, border_px, first_row, plane_height
            As for `segmentd.compute.tiling.cut`.
        core : Region
            Begins at multiples of 8 pixels, and ends there or at the plane's edge.
        scale : Scale, optional
            From `segmentd.compute.normalize.measure`.

        Returns
        -------
        float32 array (C * features, height / stride + 2, width / stride + 2)
            Of the core with its far edges at multiples of 8 pixels; one cell of margin on each side.
        """
        return flat(self._run(self.tile(pixels, core, border_px, scale, first_row, plane_height)))


def flat(cells: Floats) -> Floats:
    """Cells (C, features, y, x) as planes, for `deep_cells`."""
    return cells.reshape(-1, *cells.shape[2:])


def cells_shape(feature_set: DeepFeatureSet, grey: Sequence[int]) -> tuple[int, ...]:
    """The shape of the cells that `Extractor.run` makes of grey values of a shape (C, h, w)."""
    stride = feature_set.stride_px
    margin = 2 * (feature_set.reach_px // stride - MARGIN_CELLS)
    channels, height, width = grey
    return channels, len(feature_set), height // stride - margin, width // stride - margin


def _compiled(
    tensorflow: Any, device: str, feature_set: DeepFeatureSet, layers: Layers, projection: Floats | None
) -> Callable[[Floats], Floats]:
    """A function from grey values (C, h, w) to cells (C, features, y, x)."""
    with tensorflow.device(device):
        network = _network(feature_set, layers, projection)
    crop = feature_set.reach_px // feature_set.stride_px - MARGIN_CELLS
    means = tensorflow.constant(MEAN_BGR, "float32")

    @tensorflow.function(  # type: ignore[untyped-decorator,unused-ignore]
        input_signature=[tensorflow.TensorSpec((None, None, None), "float32")]
    )
    def run(grey: Any) -> Any:
        # A grey channel stands for blue, green and red alike.
        found = network(grey[..., None] - means, training=False)
        return tensorflow.transpose(found[:, crop:-crop, crop:-crop], (0, 3, 1, 2))

    def cells(grey: Floats) -> Floats:
        with tensorflow.device(device):
            found: Floats = run(tensorflow.convert_to_tensor(grey)).numpy()
        return found

    return cells


def _network(feature_set: DeepFeatureSet, layers: Layers, projection: Floats | None) -> keras.Model:
    import keras

    options = {"padding": "same", "data_format": "channels_last", "dtype": "float32"}
    place = image = keras.Input((None, None, 3), dtype="float32")
    made = []
    for layer in feature_set.layers:
        if layer.pooled:
            place = keras.layers.MaxPooling2D(2, data_format="channels_last", dtype="float32")(place)
        made.append(keras.layers.Conv2D(layer.outputs, 3, activation="relu", name=layer.name, **options))
        place = made[-1](place)
    for layer, (kernel, bias) in zip(made, layers, strict=True):
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
    if projection is not None:
        mixing = keras.layers.Conv2D(len(feature_set), 1, use_bias=False, name="projection", **options)
        place = mixing(place)
        mixing.kernel.assign(projection.T[None, None])
    return keras.Model(image, place)
