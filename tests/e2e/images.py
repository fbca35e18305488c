"""Small images with two classes that a model learns in a moment, strokes for them, and bad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

Pixels = npt.NDArray[np.generic]
SHAPE = (96, 120)
CLASSES = ("background", "blob")


def blobs(seed: int, shape: tuple[int, int] = SHAPE, dtype: Any = np.uint16) -> Pixels:
    """Make bright discs on a dark, noisy ground."""
    return draw(seed, shape)[0].astype(dtype)


def write_blobs(path: Path, seed: int, shape: tuple[int, int] = SHAPE, **options: Any) -> Path:
    """Write `blobs` as a TIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, blobs(seed, shape), **options)
    return path


def write_training_set(folder: Path, seeds: tuple[int, ...] = (1, 2)) -> tuple[Path, Path]:
    """Write `images` and `labels` folders with strokes on about a tenth of the pixels."""
    images, labels = folder / "images", folder / "labels"
    labels.mkdir(parents=True)
    for seed in seeds:
        pixels, inside = draw(seed, SHAPE)
        drawn = np.random.default_rng(seed).random(SHAPE) < 0.1
        images.mkdir(exist_ok=True)
        tifffile.imwrite(images / f"i{seed}.tif", pixels.astype(np.uint16))
        tifffile.imwrite(labels / f"i{seed}.tif", np.where(drawn, inside + 1, 0).astype(np.uint8))
    return images, labels


def draw(seed: int, shape: tuple[int, int] = SHAPE) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Make the pixels of `blobs`, and where the discs are."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, bool)
    for _ in range(max(3, shape[0] * shape[1] // 1500)):
        centre_y, centre_x, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(4, 9)
        inside |= (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
    values = rng.normal(60, 20, shape) + inside * rng.uniform(50, 110)
    return values.clip(0, 255), inside


def write_two_channels(path: Path, seed: int = 90) -> Path:
    """Write an OME-TIFF of two channels."""
    tifffile.imwrite(path, np.stack([blobs(seed), blobs(seed + 1)]), ome=True, metadata={"axes": "CYX"})
    return path


def write_truncated(path: Path, seed: int = 91) -> Path:
    """Write the first half of a TIFF."""
    write_blobs(path, seed)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    return path


def write_corrupt(path: Path, seed: int = 92) -> Path:
    """Write a TIFF whose structure is right and whose compressed pixels are rubbish."""
    write_blobs(path, seed, compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset, size = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x55" * size)
    return path
