"""What a model is, and how it is put to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segmentd.records.images import PixelSize, PixelType


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class of a model: label value (1..K), name and colour (`#RRGGBB`)."""

    value: int
    name: str
    color: str


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """How a plane is segmented; None means the model's own value.

    `border_px` and `tile_px` (edge of the core, output tile) are in pixels, `min_confidence` in percent;
    with the `postprocessing` `crf`, `confidence` is 100 (`map`) or the probability after it (`marginal`).
    `pixel_size_tolerance` is the largest difference of the pixel sizes of image and model, as a share.
    """

    border_px: int | None = None
    tile_px: int | None = None
    min_confidence: int = 0
    postprocessing: str | None = None
    confidence: str = "map"
    pixel_size_tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is, without its arrays.

    `border_px` is the default border in pixels; `channels` names the channels it was trained on;
    `channel` and `channel_index` tell the one channel it uses of an image (by name, else by position
    from 0), None for all. `scores` holds the training scores as plain JSON values.

    `pixel_types` are all that an imported network takes, `pixel_type` the first of them; empty for a model
    that takes the one it was trained on. `bgr`: colour images go in as blue, green, red. `volume`: it looks
    at several planes of a Z stack at once. `original_border_px` is the border that it was made with, where
    that was changed. `postprocessing` is what is done to labels by default. `weights_sha256` is the checksum
    of the weights that deep features were trained with. `verification` is what `segmentd verify` found last,
    as plain JSON values.
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
    weights_sha256: str = ""
    verification: Mapping[str, Any] = field(default_factory=dict)
