"""Imported networks: tiles of pixels in, class scores out, through onnxruntime (`onnx_session`).

Networks of old packages are graphs of TensorFlow's (`tensorflow_graph`).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segmentd.compute import onnx_session, tensorflow_graph
from segmentd.compute.on_card import OnCard
from segmentd.errors import Reason, SegmentdError

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

BATCH_PIXELS = 1 << 20
MAX_BATCH = 8


@dataclass(frozen=True)
class NetworkSpec:
    """How pixels go into a network and scores come out.

    Attributes
    ----------
    task : str
        `semantic`: class probabilities. `regression`: an image.
    tile_height, tile_width : int
        Of a tile with its borders, in pixels.
    channels, outputs : int
        Of the input; classes or channels of the output.
    batch_free : bool
        The network takes several tiles at once.
    size_free : bool
        The network takes tiles of other sizes, too.
    channels_last : bool
        Axes are (N, y, x, c), else (N, c, y, x).
    scale_by_bit_depth : bool
        Grey values are divided by the maximum of the pixel type, else go in as they are.
    softmax : bool
        The network gives logits; softmax makes probabilities of them.
    source : str
        The format that it was imported from.
    tile_depth, border_planes : int
        Of networks for volumes: planes of a tile with its borders, and of the border on each side. 0 planes:
        the network takes planes.
    """

    task: Literal["semantic", "regression"]
    tile_height: int
    tile_width: int
    channels: int
    outputs: int
    batch_free: bool
    size_free: bool
    channels_last: bool = True
    scale_by_bit_depth: bool = True
    softmax: bool = False
    source: str = ""
    tile_depth: int = 0
    border_planes: int = 0

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """Height and width of a tile, of volumes behind their depth."""
        return (self.tile_depth, self.tile_height, self.tile_width)[0 if self.tile_depth else 1 :]

    @property
    def batch(self) -> int:
        """How many tiles to compute at once."""
        if not self.batch_free:
            return 1
        return min(MAX_BATCH, max(1, BATCH_PIXELS // math.prod(self.tile_shape)))


class Network:
    """A network in memory. Calls from several threads are allowed.

    Parameters
    ----------
    network : bytes
        An ONNX file that `segmentd.models.onnx_check` has passed, or a graph that `tf_check` has.
    spec : NetworkSpec
        What goes in and out.
    threads : int
        To compute with.
    card : OnCard, optional
        Where to compute instead, in a device's own process.

    Attributes
    ----------
    calls_at_once : int
        How many calls together use them.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA; MODEL_UNUSABLE where the runtime refuses the network.
    """

    def __init__(
        self, network: bytes, spec: NetworkSpec, threads: int = 1, card: OnCard | None = None
    ) -> None:
        self.spec = spec
        graph = tensorflow_graph.is_graph(network)
        self.calls_at_once = threads if graph else 1
        runtime = tensorflow_graph if graph else onnx_session
        self._runtime = runtime.NAME
        try:
            self._run = runtime.opened(network, threads, card)
        except SegmentdError:
            raise
        except Exception as error:  # the runtimes' errors have no common class
            raise _unusable(f"{self._runtime} refuses it: {_first_line(error)}") from error

    def scores(self, tiles: Floats) -> Floats:
        """Scores of tiles: float32 (N, C, h, w) to (N, h, w, outputs); of volumes (N, C, d, h, w).

        Raises
        ------
        SegmentdError
            MODEL_UNUSABLE where the runtime fails, or the scores have another shape.
        """
        spec = self.spec
        feed = np.ascontiguousarray(np.moveaxis(tiles, 1, -1) if spec.channels_last else tiles)
        try:
            out = self._run(feed)
        except Exception as error:  # the runtimes' errors have no common class
            raise _unusable(f"{self._runtime} cannot run it: {_first_line(error)}") from error
        count, _, *space = tiles.shape
        scores: Floats = np.asarray(out, np.float32)
        if not spec.channels_last and scores.ndim == tiles.ndim:
            scores = np.moveaxis(scores, 1, -1)
        announced = (count, *space, spec.outputs)
        if scores.shape != announced:
            raise _unusable(f"it makes {scores.shape} of {feed.shape}, where {announced} was announced")
        return scores


def prepare(pixels: npt.NDArray[np.generic], scale_by_bit_depth: bool) -> Floats:
    """Pixels as a network takes them: float32, whole numbers over the maximum of their type on request.

    Pixels that are not finite become 0.
    """
    out = pixels.astype(np.float32)
    if pixels.dtype.kind == "f":
        out[~np.isfinite(out)] = 0.0
    elif scale_by_bit_depth:
        out /= np.float32(np.iinfo(pixels.dtype.name).max)
    return out


def decide(scores: Floats, softmax: bool) -> tuple[Bytes, Bytes]:
    """Label and confidence of every pixel.

    Parameters
    ----------
    scores : float32 array (h, w, K)
        Probabilities, or logits with `softmax`. Pixels with scores that are not numbers get label 0 and
        confidence 0.

    Returns
    -------
    labels, confidence : uint8 arrays (h, w)
        1..K, the first class of highest score; and that score in percent.
    """
    winner = scores.argmax(axis=2)
    best = np.take_along_axis(scores, winner[..., None], axis=2)[..., 0]
    if softmax:
        with np.errstate(invalid="ignore"):  # of what is not a number comes none
            best = 1.0 / np.exp(scores - best[..., None]).sum(axis=2)
    valid = np.isfinite(best)
    percent = np.rint(100.0 * np.clip(np.where(valid, best, 0.0), 0.0, 1.0))
    return np.where(valid, winner + 1, 0).astype(np.uint8), percent.astype(np.uint8)


def probabilities(scores: Floats, softmax: bool) -> Floats:
    """Scores of a tile (h, w, K) as probabilities (K, h, w).

    Where a score is not a number, all classes have the same.
    """
    out = np.moveaxis(scores, -1, 0).astype(np.float32)
    with np.errstate(invalid="ignore"):
        if softmax:
            out = np.exp(out - out.max(axis=0))
            out /= out.sum(axis=0)
    out[:, ~np.isfinite(out).all(axis=0)] = 1 / len(out)
    return np.clip(out, 0.0, 1.0)


def restore(values: Floats, dtype: np.dtype[np.generic], scale_by_bit_depth: bool) -> npt.NDArray[np.generic]:
    """An image that a network made, in the pixel type and range of the image that went in.

    Whole numbers are rounded and clipped; floats stay as they are.
    """
    if dtype.kind == "f":
        return values.astype(dtype)
    highest = np.iinfo(dtype.name).max
    scaled = np.nan_to_num(values) * (np.float32(highest) if scale_by_bit_depth else np.float32(1))
    out: npt.NDArray[np.generic] = np.clip(np.rint(scaled), 0, highest).astype(dtype)
    return out


def trial(args: dict[str, Any], fds: list[int]) -> tuple[Any, list[npt.NDArray[Any]]]:
    """Run a network once on zeros; called in a worker process (`segmentd.workers`).

    `args` is a NetworkSpec as a mapping, `fds` holds the network.
    """
    spec = NetworkSpec(**args)
    network = os.pread(fds[0], os.fstat(fds[0]).st_size, 0)
    tiles = np.zeros((spec.batch, spec.channels, *spec.tile_shape), np.float32)
    scores = Network(network, spec).scores(tiles)
    if not np.isfinite(scores).all():
        raise _unusable("it makes values that are not numbers of an empty image")
    return None, []


def _unusable(what: str) -> SegmentdError:
    return SegmentdError(Reason.MODEL_UNUSABLE, f"the network cannot be used: {what}; export it again")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
