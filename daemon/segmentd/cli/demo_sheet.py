"""The table and the contact sheet of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from segmentd.imagefile import overlay_png, read_simple
from segmentd.records import ClassInfo

if TYPE_CHECKING:
    from segmentctl import Result

CELL_WIDTH_PX = 420
GAP_PX = 12
CAPTION_PX = 26
_DARK = (28, 24, 22)
_LIGHT = (235, 235, 235)

Picture = npt.NDArray[np.uint8]


def row(result: Result, data: Path) -> list[str]:
    """One line of the table."""
    record = result.segmentation
    pixels = record.height * record.width
    shares = ", ".join(
        f"{entry.display_name} {100 * count / pixels:.1f} %"
        for entry, count in zip(record.classes, record.label_pixel_counts[1:], strict=True)
    )
    agreement = "-" if result.labels is None else f"{mean_iou(result.labels, _mask(result, data)):.3f}"
    return [
        record.source_display,
        f"{record.width} x {record.height}",
        shares,
        f"{record.mean_confidence:.1f} %",
        f"{record.latency.ToMilliseconds()} ms",
        record.device,
        agreement,
    ]


def mean_iou(labels: Picture, truth: Picture) -> float:
    """Intersection over union, averaged over the classes of `truth`."""
    overlaps = []
    for value in np.unique(truth[truth > 0]):
        union = np.count_nonzero((labels == value) | (truth == value))
        overlaps.append(np.count_nonzero((labels == value) & (truth == value)) / union)
    return float(np.mean(overlaps))


def draw(results: list[Result], data: Path, path: Path) -> Path:
    """Write the contact sheet: image, labels over it, and confidence, a row for each result."""
    titles = ("image", "labels, as received over gRPC", "confidence: dark 50 %, bright 100 %")
    rows = [_titles(titles)]
    rows += [
        _row(result, result.labels, result.confidence, data)
        for result in results
        if result.labels is not None and result.confidence is not None
    ]
    sheet = np.vstack(rows)
    cv2.imwrite(str(path), sheet)
    return path


def _row(result: Result, labels: Picture, confidence: Picture, data: Path) -> Picture:
    record = result.segmentation
    pixels = read_simple(data / "images" / record.source_display)
    classes = [ClassInfo(entry.value, entry.display_name, entry.color) for entry in record.classes]
    nothing = np.zeros(labels.shape, np.uint8)
    plain = _decode(overlay_png(pixels, nothing, classes))
    overlay = _decode(overlay_png(pixels, labels, classes))
    certainty = np.clip((confidence.astype(np.float32) - 50) * 5.1, 0, 255).astype(np.uint8)
    heat = cv2.applyColorMap(certainty, cv2.COLORMAP_VIRIDIS)
    caption = (
        f"{record.source_display}   mean confidence {record.mean_confidence:.1f} %   "
        f"latency {record.latency.ToMilliseconds()} ms   {record.device}   "
        f"mIoU {mean_iou(labels, _mask(result, data)):.3f}"
    )
    cells = [_fit(cell) for cell in (plain, overlay, heat)]
    return np.vstack([_beside(cells), _text([caption], 1)])


def _mask(result: Result, data: Path) -> Picture:
    mask: Picture = read_simple(data / "masks" / result.segmentation.source_display)[0].astype(np.uint8)
    return mask


def _decode(png: bytes) -> Picture:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def _fit(picture: Picture) -> Picture:
    height = round(picture.shape[0] * CELL_WIDTH_PX / picture.shape[1])
    return np.asarray(cv2.resize(picture, (CELL_WIDTH_PX, height), interpolation=cv2.INTER_AREA), np.uint8)


def _beside(cells: list[Picture]) -> Picture:
    gap = np.full((cells[0].shape[0], GAP_PX, 3), _DARK, np.uint8)
    parts = [gap]
    for cell in cells:
        parts += [cell, gap]
    return np.hstack(parts)


def _titles(titles: tuple[str, ...]) -> Picture:
    return _text(list(titles), len(titles))


def _text(texts: list[str], columns: int) -> Picture:
    width = 3 * CELL_WIDTH_PX + 4 * GAP_PX
    strip = np.full((CAPTION_PX + GAP_PX, width, 3), _DARK, np.uint8)
    step = width // columns
    for column, text in enumerate(texts):
        origin = (GAP_PX + column * step, CAPTION_PX - 6)
        cv2.putText(strip, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, _LIGHT, 1, cv2.LINE_AA)
    return strip
