"""The records that flow through the daemon: frozen, plain, without behaviour worth a test.

Frame -> Plane(C, Y, X) -> Tile -> FeatureStack(F, h, w) -> ClassScores(K, h, w) -> Segmentation ->
ResultEvent. Tiles, feature stacks and class scores are plain arrays and have no record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class PixelType(StrEnum):
    """Pixel types the daemon computes on; names are those of numpy."""

    UINT8 = "uint8"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT32 = "uint32"
    FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class of a model: label value (1..K), name and colour (`#RRGGBB`)."""

    value: int
    name: str
    color: str


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Physical size of a pixel in micrometres; None where the file does not say."""

    y_um: float | None = None
    x_um: float | None = None
    z_um: float | None = None


@dataclass(frozen=True, slots=True, order=True)
class PlaneIndex:
    """Which plane of a frame: scene, time and Z, counted from 0."""

    scene: int = 0
    time: int = 0
    z: int = 0


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Identity of a file's content as the file system tells it; equal before and after a read."""

    size_bytes: int
    mtime_ns: int
    inode: int
    device: int


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a plane in pixels."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """What an image file holds, without pixels. Every plane has all channels."""

    format: str
    pixel_type: PixelType
    height: int
    width: int
    channel_names: tuple[str, ...]
    size_t: int = 1
    size_z: int = 1
    scenes: int = 1
    rgb: bool = False
    pixel_size: PixelSize = field(default_factory=PixelSize)

    @property
    def channel_count(self) -> int:
        """Number of channels, the same for every plane."""
        return len(self.channel_names)

    def planes(self) -> Iterator[PlaneIndex]:
        """All planes, Z fastest, then time, then scene."""
        for scene in range(self.scenes):
            for time in range(self.size_t):
                for z in range(self.size_z):
                    yield PlaneIndex(scene, time, z)

    @property
    def plane_count(self) -> int:
        """Number of planes in the file."""
        return self.scenes * self.size_t * self.size_z


@dataclass(frozen=True, slots=True)
class Plane:
    """Pixels of one plane on the host: array (C, Y, X) of the frame's pixel type."""

    frame: FrameInfo
    index: PlaneIndex
    pixels: npt.NDArray[np.generic]


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


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The result of one plane without its pixels; a failed image has one, for its first plane.

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
    files : mapping
        Output kind (`labels`, `confidence`, `classes`, `overlay`) to absolute path as text.
    digests : mapping
        Output kind to SHA-256 of the file, hex.
    device, device_reason : str
        What computed it (`cpu`, `cuda:0`) and why, if not the preferred one.
    source_time, create_time : float
        Seconds since the epoch: mtime of the input; when the result was made durable.
    compute_seconds, latency_seconds : float
        In the lane; from "file complete" to durable.
    """

    watch: str
    source: bytes
    source_path: bytes
    state: SegmentationState
    version: int = 1
    content_digest: str = ""
    fault: Fault | None = None
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


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """How a plane is segmented; None means the model's own value.

    `border_px` and `tile_px` are in pixels (`tile_px` is the edge of the core, output tile),
    `min_confidence` in percent. `pixel_size_tolerance` is the largest difference between the pixel sizes of
    image and model, as a share of the model's; None for any.
    """

    border_px: int | None = None
    tile_px: int | None = None
    min_confidence: int = 0
    pixel_size_tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """One watched folder, resolved: absolute paths, defaults filled in. Times are in seconds.

    With a `marker_file` the folder counts as there only while it holds a file of that relative path.
    """

    id: str
    folder: Path
    model: str
    results: Path
    include: tuple[str, ...] = ("*",)
    recursive: bool = True
    outputs: tuple[str, ...] = ("labels", "confidence")
    settle_seconds: float = 2.0
    give_up_seconds: float = 10.0
    poll_seconds: float = 2.0
    poll: str = "auto"
    rescan_seconds: float = 60.0
    existing: str = "process"
    priority: int = 0
    options: SegmentOptions = field(default_factory=SegmentOptions)
    marker_file: str | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is, without its arrays.

    `border_px` is the default border in pixels; `channels` names the channels it was trained on;
    `channel` and `channel_index` tell the one channel it uses of an image (by name, else by position
    from 0), None for all. `scores` holds the training scores as plain JSON values.

    `pixel_types` are all that an imported network takes, `pixel_type` the first of them; empty for a model
    that takes the one it was trained on. `bgr`: colour images go in as blue, green, red.
    `original_border_px` is the border that the model was made with, where it has been changed since.
    `volume`: it looks at several planes of a Z stack at once.
    `postprocessing` is what is done to labels by default, "none" for nothing.
    """

    id: str
    display_name: str
    kind: str
    feature_set: str
    classes: tuple[ClassInfo, ...]
    channel_count: int
    channels: tuple[str, ...]
    channel: str | None
    channel_index: int | None
    pixel_type: PixelType
    pixel_size: PixelSize
    border_px: int
    normalization: str
    seed: int
    digest: str
    created: str = ""
    description: str = ""
    library_versions: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    pixel_types: tuple[PixelType, ...] = ()
    bgr: bool = False
    original_border_px: int | None = None
    volume: bool = False
    postprocessing: str = "none"
