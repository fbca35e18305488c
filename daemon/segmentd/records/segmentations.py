"""What became of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from segmentd.records.images import PlaneIndex
from segmentd.records.models import ClassInfo


@dataclass(frozen=True, slots=True)
class ResultForm:
    """How results are written: as `ome-tiff`, `ome-zarr` or `czi`, with `deflate` or `zstd`.

    Without a compression: what suits the format. CZI always has `zstd`.
    """

    compression: str | None = None
    container: str = "ome-tiff"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something failed: `segmentd.errors.Reason` as text, a sentence, and what varies in it."""

    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class SegmentationState(StrEnum):
    """End state of one input, as subscribers see it."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    RENAMED = "RENAMED"


@dataclass(frozen=True, slots=True)
class DriftMeasure:
    """What the last images of a watch look like, beside those before.

    `name` is `confidence` or that of a class, or `unlabelled`; `value` and `usual` are medians in percent, of
    the last images and of those before; `score` is how far they are apart, in spreads of single images.
    """

    name: str
    value: float
    usual: float
    score: float


@dataclass(frozen=True, slots=True)
class DriftChange:
    """The last images of a watch begin to differ from those before (`alarm`), or no longer do.

    `adopted`: they still do, but that is the usual look from now on.
    """

    alarm: bool
    adopted: bool = False
    measures: tuple[DriftMeasure, ...] = ()


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The result of one plane without its pixels; a failed or renamed image has one, for its first plane.

    Attributes
    ----------
    watch : str
        Id of the watch.
    source : bytes
        Path of the input relative to the watched folder, as the file system has it.
    source_path : bytes
        Absolute path of the input.
    version : int
        Content version of this path, from 1.
    content_digest : str
        SHA-256 of the input's bytes, hex; empty where it was never read whole.
    plane, page, plane_count
        Which plane of the image, its position in the result files, and how many the image has.
    label_pixel_counts : tuple of int
        Pixels with label 0 (unlabelled), 1, 2, ... K.
    mean_confidence : float
        In percent, over all pixels.
    masked_pixels : int
        Pixels that were NaN or infinite in the input: label 0 and confidence 0.
    renamed_from : bytes
        With state RENAMED: the relative path under which the image was segmented.
    files, digests : mapping
        Output kind (`labels`, `confidence`, `classes`, `overlay`, `thumbnail`) to absolute path, to SHA-256.
    device, device_reason : str
        What computed it (`cpu`, `cuda:0`) and why, if not the preferred one.
    source_time, create_time : float
        Seconds since the epoch: mtime of the input; when the result was made durable.
    compute_seconds, latency_seconds : float
        In the lane; from "file complete" to durable.
    drift : DriftChange or None
        What this image, on its last plane, changes in the alarm of its watch.
    """

    watch: str
    source: bytes
    source_path: bytes
    state: SegmentationState
    version: int = 1
    content_digest: str = ""
    fault: Fault | None = None
    renamed_from: bytes = b""
    plane: PlaneIndex = field(default_factory=PlaneIndex)
    page: int = 0
    plane_count: int = 1
    height: int = 0
    width: int = 0
    model: str = ""
    model_digest: str = ""
    classes: tuple[ClassInfo, ...] = ()
    label_pixel_counts: tuple[int, ...] = ()
    mean_confidence: float = 0.0
    masked_pixels: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    device_reason: str = ""
    source_time: float = 0.0
    create_time: float = 0.0
    compute_seconds: float = 0.0
    latency_seconds: float = 0.0
    drift: DriftChange | None = None


@dataclass(frozen=True, slots=True)
class ResultEvent:
    """One line of the journal that subscribers see: a number (1..n, no gaps) and a segmentation."""

    number: int
    segmentation: Segmentation

    @property
    def segmentation_id(self) -> str:
        """Last part of the resource name `watches/{watch}/segmentations/{id}`."""
        return f"s{self.number}"

    @property
    def name(self) -> str:
        """Resource name of the segmentation."""
        return f"watches/{self.segmentation.watch}/segmentations/{self.segmentation_id}"
