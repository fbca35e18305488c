"""One model on every device and kernel there is, to see whether they give the same labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmentd.compute import normalize, tiling
from segmentd.compute.decide import decide
from segmentd.compute.features import compute_features, filter_sets
from segmentd.compute.forest import predict
from segmentd.compute.packets import Kernel
from segmentd.compute.packets.choice import runnable_kernels
from segmentd.engine.choice import devices_of
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.device_turns import MemoryRules
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import whole_plane
from segmentd.engine.loaded import ForestJob
from segmentd.engine.predictor import make_predictor
from segmentd.engine.source import ArraySource
from segmentd.errors import SegmentdError
from segmentd.models.bundle import Model
from segmentd.models.deep_features import is_deep
from segmentd.models.files import AnyModel
from segmentd.records import SegmentOptions
from segmentd.settings import DeviceSettings

Bytes = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.generic]
Way = Callable[[Pixels], tuple[Bytes, Bytes]]

# At most one pixel in so many may get another label on another device; of networks, which libraries add up in
# another order on cards, and fields.
PIXELS_FOR_EACH_DIFFERENCE = 100_000
NETWORK_PIXELS_FOR_EACH_DIFFERENCE = 1_000
ORACLE = "plain formulas"


@dataclass
class Found:
    """How a device or kernel compares with the first one, over all images.

    Attributes
    ----------
    name : str
        Of the device or kernel.
    pixels, different : int
        Pixels compared, and those with another label.
    confidence_difference : int
        The largest, in percent.
    seconds : float
        Time it took.
    fault : str
        Why it gave no result; empty where it did.
    promised : int
        Pixels for each that may differ.
    """

    name: str
    pixels: int = 0
    different: int = 0
    confidence_difference: int = 0
    seconds: float = 0.0
    fault: str = ""
    promised: int = PIXELS_FOR_EACH_DIFFERENCE

    @property
    def equal_share(self) -> float:
        """Share of the pixels with the same label."""
        return 1.0 - self.different / max(1, self.pixels)

    @property
    def mpx_per_s(self) -> float:
        """Megapixels a second; 0 where nothing was computed."""
        return self.pixels / 1e6 / self.seconds if self.seconds else 0.0

    @property
    def agrees(self) -> bool:
        """Whether it computed, and as few labels differ as is promised."""
        return not self.fault and self.different <= -(-self.pixels // self.promised)


def compare(
    model: AnyModel,
    path: Path,
    images: Sequence[Pixels],
    settings: DeviceSettings,
    with_kernels: bool = True,
    vgg19_weights: Path | None = None,
) -> list[Found]:
    """Run a model in every way there is on this machine.

    Parameters
    ----------
    model : Model or NetworkModel
        The model.
    path : Path
        Its file.
    images : sequence of arrays (C, Y, X)
        The channels that the model uses, in its pixel type.
    settings : DeviceSettings
        Threads, and the devices that are wanted.
    with_kernels : bool
        Also the plain formulas and every kernel of the processor; otherwise devices only.
    vgg19_weights : Path, optional
        What deep features are computed with.

    Returns
    -------
    list of Found
        The first is what the others were compared with.
    """
    cpu = CpuLane(settings.threads, vgg19_weights=vgg19_weights, for_devices=True)
    filters = model if isinstance(model, Model) and not is_deep(model) else None
    try:
        cpu.load(path)
        ways: list[tuple[str, Way]] = []
        if filters is not None and with_kernels:
            ways.append((ORACLE, partial(by_formulas, filters)))
            ways += [(f"kernel {kernel}", _by_kernel(filters, kernel)) for kernel in runnable_kernels()]
        expected: list[tuple[Bytes, Bytes]] = []
        found = [_measure(Found(name), way, images, expected) for name, way in ways]
        promised = NETWORK_PIXELS_FOR_EACH_DIFFERENCE if filters is None else PIXELS_FOR_EACH_DIFFERENCE
        for name, way in _devices(cpu, path, settings):
            found.append(_measure(Found(name, promised=promised), way, images, expected))
        return found
    finally:
        cpu.close()


def by_formulas(model: Model, pixels: Pixels) -> tuple[Bytes, Bytes]:
    """Labels and confidence of a plane by scipy's filters and one tree after the other: the oracle."""
    card, height, width = model.card, *pixels.shape[1:]
    feature_set = filter_sets()[card.feature_set]
    scale = normalize.measure(lambda: [pixels], card.normalization)
    reach = feature_set.reach_px
    labels, confidence = np.empty((2, height, width), np.uint8)
    # As far as a border narrower than the reach changes labels, they depend on the tiles: no oracle for that.
    for core in tiling.cover(height, width, 256):
        tile = normalize.to_float(tiling.cut(pixels, core, reach, reach), scale)
        labels[core.window], confidence[core.window] = decide(
            predict(model.forest, compute_features(tile, feature_set))
        )
    bad = normalize.masked(pixels)
    if bad is not None:
        labels[bad] = confidence[bad] = 0
    return labels, confidence


def _by_kernel(model: Model, kernel: Kernel) -> Way:
    def run(pixels: Pixels) -> tuple[Bytes, Bytes]:
        job = ForestJob(make_predictor(model, kernel), ArraySource(pixels), slice(None), _options(model))
        labels, confidence = np.empty((2, *pixels.shape[1:]), np.uint8)
        for rows in job.bands():
            band = job.read(*rows)
            for core in job.tiles(band):
                tile = job.run_tile(band, core)
                labels[core.window], confidence[core.window] = tile.labels, tile.confidence
        return labels, confidence

    return run


def _devices(cpu: CpuLane, path: Path, settings: DeviceSettings) -> Iterator[tuple[str, Way]]:
    """The CPU with all threads, and every other device, which must not turn to the CPU.

    A device is given back when the next one is asked for.
    """
    options = SegmentOptions(border_px=None)

    def on_cpu(pixels: Pixels) -> tuple[Bytes, Bytes]:
        done = cpu.segment_array(path, pixels, options)
        return done.labels, done.confidence

    threads = "1 thread" if cpu.threads == 1 else f"{cpu.threads} threads"
    yield f"cpu, {threads}", on_cpu
    for device in devices_of(settings)[0]:
        lane = DeviceLane(device, cpu, required=True, rules=MemoryRules(settings.memory_budget))

        def on_device(pixels: Pixels, lane: DeviceLane = lane) -> tuple[Bytes, Bytes]:
            done = whole_plane(pixels, lane.segment(path, ArraySource(pixels), options))
            return done.labels, done.confidence

        yield device.name, on_device
        lane.give_back()


def _measure(found: Found, way: Way, images: Sequence[Pixels], expected: list[tuple[Bytes, Bytes]]) -> Found:
    """Run one way, and note what is found; the first fills `expected`."""
    results = []
    try:
        way(images[0][:, :64, :64])  # compiled and loaded before the time is taken
        for pixels in images:
            began = time.perf_counter()
            results.append(way(pixels))
            found.seconds += time.perf_counter() - began
    except SegmentdError as error:
        found.fault = error.message.partition(", and device.require_gpu")[0]
        return found
    expected += results if not expected else []
    for (labels, confidence), (right, sure) in zip(results, expected, strict=True):
        found.pixels += labels.size
        found.different += int(np.count_nonzero(labels != right))
        difference = np.abs(confidence.astype(np.int16) - sure)
        found.confidence_difference = max(found.confidence_difference, int(difference.max(initial=0)))
    return found


def _options(model: Model) -> SegmentOptions:
    return SegmentOptions(border_px=model.card.border_px)
