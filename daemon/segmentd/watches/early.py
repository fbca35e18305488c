"""One plane of an image that is still being written: computed now, recalled when the image is complete."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.engine.lanes import Lane
from segmentd.engine.segmenter import BandResult, Tally
from segmentd.engine.source import ArraySource, PlaneSource
from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.frame import plane_bytes
from segmentd.ingest.growing import GrowingImage, Grown
from segmentd.models.fit import check_pixel_size, used_channels
from segmentd.models.registry import Lease
from segmentd.records import FrameInfo, ModelCard, PlaneIndex, Segmentation, SegmentOptions
from segmentd.results.early_planes import EarlyPlane, EarlyPlanes
from segmentd.results.previews import Show
from segmentd.results.recent import FreshPlane
from segmentd.segmentation import STREAM_ABOVE_BYTES, Early, record_of


def compute(
    opened: GrowingImage,
    grown: Grown,
    position: int,
    lease: Lease,
    lane: Lane,
    options: SegmentOptions,
    planes: EarlyPlanes,
    show: Show,
) -> None:
    """Segment a complete plane, keep it in `planes`, and show it; blocks.

    Planes of zeros are left alone: they may be room that was taken in advance.

    Raises
    ------
    OSError, SegmentdError
        IMAGE_UNSUPPORTED where only whole images can be segmented; else what is wrong with image or model.
    """
    card, info, index = lease.card, grown.info, grown.planes[position]
    _check_plane_by_plane(card, info, opened.name)
    channels = used_channels(card, info.pixel_type, info.channel_names, opened.name, info.rgb)
    check_pixel_size(card, info.pixel_size, options.pixel_size_tolerance, opened.name)
    pixels = opened.read(info, index)
    key = _key(card, channels, options, pixels)
    if not pixels.any() or key in planes:
        return
    tally, fresh = Tally(len(card.classes)), FreshPlane(position)
    for band in lane.segment(lease.path, ArraySource(pixels), options, channels, digest=card.digest):
        if planes.closed:
            return
        tally.add(band)
        fresh.add(band.labels, band.confidence)
    labels, confidence = fresh.whole()
    assert confidence is not None
    seconds, device = tally.compute_seconds, (tally.device, tally.device_reason)
    telemetry.observe("compute", seconds)
    if planes.put(key, EarlyPlane(labels, confidence, tally.masked_pixels, seconds, *device)):
        telemetry.count("early_planes")
    show(_record(info, grown.total, card, position, index, tally), fresh)


def recalled(planes: EarlyPlanes, options: SegmentOptions) -> Early:
    """What gives the planes of an image that were computed early, where their pixels stayed the same."""

    def early(source: PlaneSource, card: ModelCard, channels: slice) -> BandResult | None:
        if not planes or not isinstance(source, ArraySource):
            return None
        found = planes.get(_key(card, channels, options, source.pixels))
        if found is None:
            return None
        telemetry.count("early_planes_used")
        return BandResult(
            0,
            found.labels,
            found.confidence,
            source.pixels,
            found.masked_pixels,
            found.compute_seconds,
            device=found.device,
            device_reason=found.device_reason,
        )

    return early


def _key(card: ModelCard, channels: slice, options: SegmentOptions, pixels: npt.NDArray[np.generic]) -> bytes:
    """All that labels and confidence depend on: model, settings, pixels."""
    about = f"{card.digest} {channels} {options} {pixels.shape} {pixels.dtype.name}"
    digest = hashlib.blake2b(about.encode(), digest_size=32)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _check_plane_by_plane(card: ModelCard, info: FrameInfo, name: str) -> None:
    why = ""
    if card.volume:
        why = "its model looks at several planes at once"
    elif not card.classes:
        why = "its model makes images"
    elif plane_bytes(info, info.height) > STREAM_ABOVE_BYTES:
        why = f"its planes have more than {STREAM_ABOVE_BYTES >> 20} MiB"
    if why:
        raise SegmentdError(Reason.IMAGE_UNSUPPORTED, f"{name} is segmented when it is complete: {why}")


def _record(
    info: FrameInfo, total: int, card: ModelCard, position: int, index: PlaneIndex, tally: Tally
) -> Segmentation:
    return replace(record_of(info, card, position, index, tally), plane_count=total)
