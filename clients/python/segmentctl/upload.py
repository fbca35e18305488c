"""One plane on its way to the daemon, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentctl.assemble import PlaneAssembler, UInt8Array
from segmentctl.errors import StreamError
from segmentd.v1 import pixels_pb2
from segmentd.v1 import segmentation_service_pb2 as messages

CHUNK_BYTES = 1 << 20

OnProgress = Callable[[int, int], None]

_PIXEL_TYPES = {
    "uint8": pixels_pb2.PIXEL_TYPE_UINT8,
    "uint16": pixels_pb2.PIXEL_TYPE_UINT16,
    "int16": pixels_pb2.PIXEL_TYPE_INT16,
    "uint32": pixels_pb2.PIXEL_TYPE_UINT32,
    "float32": pixels_pb2.PIXEL_TYPE_FLOAT32,
}


@dataclass(frozen=True, slots=True, eq=False)
class PlaneResult:
    """A plane that the daemon segmented on the spot.

    Attributes
    ----------
    labels, confidence : ndarray of uint8 (Y, X)
        Labels 0 (unlabelled) to K, and percent.
    summary : segmentd.v1.segmentation_service_pb2.Segmentation
        Model, classes, counts, device and time; it has no name and no files.
    """

    labels: UInt8Array
    confidence: UInt8Array
    summary: messages.Segmentation


def as_plane(image: npt.ArrayLike) -> npt.NDArray[np.generic]:
    """View an image as (C, Y, X), whatever its byte order.

    Raises
    ------
    ValueError
        If it is not (Y, X) or (C, Y, X), is empty, or has a pixel type that models do not take.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"an image must be (Y, X) or (C, Y, X) and not empty, not of shape {array.shape}")
    if array.dtype.name not in _PIXEL_TYPES:
        raise ValueError(
            f"pixels of type {array.dtype} cannot be sent; convert to one of {', '.join(_PIXEL_TYPES)}"
        )
    return array


def fill_head(
    head: messages.SegmentPlaneRequest.Head, plane: npt.NDArray[np.generic], deadline: float | None = None
) -> None:
    """Write type and size of a plane (C, Y, X), and its deadline in seconds, into the head of its request."""
    if deadline is not None:
        head.deadline_duration.FromNanoseconds(round(deadline * 1e9))
    head.pixel_type = _PIXEL_TYPES[plane.dtype.name]
    head.channel_count, head.height, head.width = plane.shape


def requests(
    head: messages.SegmentPlaneRequest.Head, plane: npt.NDArray[np.generic]
) -> Iterator[messages.SegmentPlaneRequest]:
    """Yield the head, then the plane's bytes in the order C, Y, X, little endian, in chunks of 1 MiB."""
    yield messages.SegmentPlaneRequest(head=head)
    little = plane.dtype.newbyteorder("<")
    for channel in plane:  # one at a time: a channel of a large plane may have to be copied
        data = np.ascontiguousarray(channel, dtype=little).reshape(-1).view(np.uint8)
        for start in range(0, data.size, CHUNK_BYTES):
            yield messages.SegmentPlaneRequest(pixels=data[start : start + CHUNK_BYTES].tobytes())


def receive(
    answers: Iterator[messages.SegmentPlaneResponse], height: int, width: int, on_progress: OnProgress | None
) -> PlaneResult:
    """Put the blocks of an answer together; `on_progress` gets pixels done and in all.

    Raises
    ------
    StreamError
        If a pixel comes twice or not at all, or the summary is missing.
    """
    assembler = PlaneAssembler(height, width)
    for answer in answers:
        if answer.WhichOneof("part") == "summary":
            labels, confidence = assembler.finish()
            if confidence is None:
                raise StreamError("the answer has no confidence")
            return PlaneResult(labels, confidence, answer.summary)
        assembler.add(answer.block)
        if on_progress is not None:
            on_progress(assembler.done, height * width)
    raise StreamError("the answer ended without a summary")
