"""The metadata of `.czann` files (spec 1.0 to 2.1), and of sidecars of bare `.onnx` files: the same keys.

A sidecar may leave out what the network says itself, and has keys of its own, since such networks follow no
rule: `BorderSize` (pixels on each side), `PixelTypes`, `Colors`, `ScaleInputsByBitdepth`, `ChannelOrder`
(BGR or RGB, for colour images), `Layout` (NHWC or NCHW), `Activation` (none, or softmax where the network
gives logits). Unknown keys are ignored, which the model's description tells.
"""

from __future__ import annotations

from typing import Any

from segmentd.models import json_text
from segmentd.models.description import (
    PIXEL_TYPES,
    REGRESSION,
    SEMANTIC,
    Description,
    Task,
    choice_of,
    colors_of,
    flag_of,
    names_of,
    sizes_of,
    text_of,
)
from segmentd.records import PixelSize, PixelType

NEWEST_MAJOR = 2
MAX_EDGE = 1 << 14
# A pixel is never that large: samples hold 1.0 m where nobody knew.
PLACEHOLDER_METRES = 1e-3
_KEYS = frozenset(
    (
        "Activation",
        "BorderSize",
        "ChannelOrder",
        "Classes",
        "Colors",
        "FormatVersion",
        "Id",
        "InputShape",
        "Layout",
        "MinOverlap",
        "ModelDescription",
        "ModelName",
        "OutputShape",
        "PixelTypes",
        "ScaleInputsByBitdepth",
        "Scaling",
        "Type",
    )
)
_TASKS: dict[str, Task] = {
    "SingleClassSemanticSegmentation": SEMANTIC,
    "MultiClassSemanticSegmentation": SEMANTIC,
    "Regression": REGRESSION,
}
_OTHER_TASKS = {
    "SingleClassInstanceSegmentation": "finds single objects (instance segmentation)",
    "MultiClassInstanceSegmentation": "finds single objects (instance segmentation)",
    "SingleClassClassification": "classifies whole images",
    "MultiClassClassification": "classifies whole images",
    "ObjectDetection": "finds boxes around objects",
}


def read(data: bytes) -> Description:
    """Read `model.json` of a `.czann` file.

    Raises
    ------
    ValueError
        Saying which key breaks which rule.
    """
    values = json_text.parse(data, "model.json")
    for key in ("Type", "InputShape", "OutputShape"):
        if key not in values:
            raise ValueError(f"model.json lacks {key}")
    version = text_of(values.get("FormatVersion"), "FormatVersion")
    major = version.partition(".")[0]
    if version and not (major.isascii() and major.isdecimal() and int(major) <= NEWEST_MAJOR):
        raise ValueError(f"FormatVersion {version[:20]!r} is not known; versions up to {NEWEST_MAJOR} are")
    return _description(values, f"czann {version}".strip())


def read_sidecar(data: bytes) -> Description:
    """Read the JSON file beside a bare `.onnx` file; raises as `read`."""
    values = json_text.parse(data, "the sidecar")
    return _description({"Type": "SingleClassSemanticSegmentation", **values}, "onnx")


def _description(values: dict[str, Any], source: str) -> Description:
    shape = _shape(values.get("InputShape"), "InputShape")
    border_px, border_planes = _borders(values, shape)
    classes = values.get("Classes")
    return Description(
        name=text_of(values.get("ModelName"), "ModelName")[:200],
        text=text_of(values.get("ModelDescription"), "ModelDescription"),
        task=_task(values.get("Type")),
        source=source,
        input_shape=shape,
        output_shape=_shape(values.get("OutputShape"), "OutputShape"),
        border_px=border_px,
        border_planes=border_planes,
        class_names=names_of(classes, "Classes") if classes else None,
        colors=colors_of(values["Colors"], "Colors") if values.get("Colors") else None,
        pixel_types=_pixel_types(values.get("PixelTypes")),
        pixel_size=_pixel_size(values.get("Scaling")),
        scale_by_bit_depth=flag_of(values.get("ScaleInputsByBitdepth"), "ScaleInputsByBitdepth", True),
        bgr=choice_of(values.get("ChannelOrder"), "ChannelOrder", ("BGR", "RGB")) == "BGR",
        channels_last=choice_of(values.get("Layout"), "Layout", ("NHWC", "NCHW")) == "NHWC",
        softmax=choice_of(values.get("Activation"), "Activation", ("none", "softmax")) == "softmax",
        ignored=tuple(text_of(key[:60], "a key") for key in values if key not in _KEYS),
    )


def _task(kind: Any) -> Task:
    if isinstance(kind, str) and kind in _OTHER_TASKS:
        raise ValueError(
            f"it {_OTHER_TASKS[kind]} ({kind}); networks that classify pixels (semantic segmentation) or "
            "make images (regression) can be used"
        )
    if not isinstance(kind, str) or kind not in _TASKS:
        raise ValueError(f"Type {kind!r} is not known; it must be one of {', '.join(_TASKS)}")
    return _TASKS[kind]


def _shape(values: Any, what: str) -> tuple[int, ...] | None:
    if values is None:
        return None
    shape = sizes_of(values, what, 1, MAX_EDGE)
    if len(shape) not in (3, 4):
        raise ValueError(f"{what} must be [y, x, channels] or [z, y, x, channels], not {list(shape)}")
    return shape


def _borders(values: dict[str, Any], shape: tuple[int, ...] | None) -> tuple[int | None, int]:
    """Half the overlap of neighbouring tiles: the larger one of y and x, and that of z."""
    axes = len(shape) - 1 if shape else 2
    overlap: tuple[int, ...] = ()
    if values.get("MinOverlap") is not None:
        overlap = sizes_of(values["MinOverlap"], "MinOverlap", 0, 8192)
        if len(overlap) != axes or any(size % 2 for size in overlap):
            raise ValueError(f"MinOverlap must be an even number for each of y and x, not {list(overlap)}")
    border = max(overlap[-2:]) // 2 if overlap else None
    if values.get("BorderSize") is not None:
        border = sizes_of([values["BorderSize"]], "BorderSize", 0, 4096)[0]
    return border, overlap[0] // 2 if len(overlap) == 3 else 0


def _pixel_types(values: Any) -> tuple[PixelType, ...]:
    if values is None:
        return PIXEL_TYPES
    if not isinstance(values, list) or not values or not all(value in PIXEL_TYPES for value in values):
        raise ValueError(f"PixelTypes must be of {', '.join(PIXEL_TYPES)}, not {values!r}")
    return tuple(PixelType(value) for value in values)


def _pixel_size(values: Any) -> PixelSize:
    if values is None:
        return PixelSize()
    if not isinstance(values, list) or not 2 <= len(values) <= 3:
        raise ValueError(f"Scaling must be the pixel size along x, y (and z) in metres, not {values!r}")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise ValueError(f"Scaling must hold numbers, not {values!r}")
    known = (round(value * 1e6, 9) if 0 < value < PLACEHOLDER_METRES else None for value in (*values, 0)[:3])
    x_um, y_um, z_um = known
    return PixelSize(y_um=y_um, x_um=x_um, z_um=z_um)
