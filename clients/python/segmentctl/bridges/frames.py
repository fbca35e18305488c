"""What goes over a bridge: frames one way, results the other, and how many of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segmentctl.assemble import UInt8Array
    from segmentd.v1.segmentation_service_pb2 import Segmentation


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A plane of an acquisition.

    Attributes
    ----------
    image : ndarray (Y, X) or (C, Y, X)
        Its pixels; colours in the order red, green, blue.
    name : str
        What to call it in messages and file names, such as `s0_m3_z2`.
    source : object
        What the bridge knows of it: an `MDAEvent`, or a `segmentctl.bridges.zen.Position`.
    metadata : mapping
        What else came with the pixels.
    """

    image: npt.NDArray[np.generic]
    name: str
    source: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """A frame that was segmented.

    Attributes
    ----------
    frame : Frame
        What was sent.
    labels, confidence : ndarray of uint8 (Y, X)
        Labels 0 (unlabelled) to K, and percent.
    summary : segmentd.v1.segmentation_service_pb2.Segmentation
        Model, classes, counts, device and time.
    seconds : float
        From handing the frame in to having its result.
    """

    frame: Frame
    labels: UInt8Array
    confidence: UInt8Array
    summary: Segmentation
    seconds: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the frames so far: `received = segmented + failed + dropped + waiting`.

    Attributes
    ----------
    received : int
        Handed in.
    segmented, failed : int
        Came back with labels; could not be segmented.
    dropped : int
        Left out because the daemon had fallen behind.
    waiting : int
        In the queue, or at the daemon.
    """

    received: int = 0
    segmented: int = 0
    failed: int = 0
    dropped: int = 0
    waiting: int = 0

    def __str__(self) -> str:
        parts = [f"{self.received} frames", f"{self.segmented} segmented"]
        rest = {"failed": self.failed, "dropped": self.dropped, "waiting": self.waiting}
        return ", ".join(parts + [f"{count} {name}" for name, count in rest.items() if count])
