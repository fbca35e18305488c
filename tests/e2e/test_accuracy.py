"""Accuracy on real micrographs: trained on strokes of some images, scored on others, end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from .daemon import DaemonProcess, run

pytestmark = pytest.mark.e2e
Counts = npt.NDArray[np.int64]


def scored_entries(data: Path) -> list[dict[str, Any]]:
    return [
        entry
        for entry in json.loads((data / "dataset.json").read_text())["images"]
        if entry["split"] == "test"
    ]


def mean_iou(data: Path, labels_of: Callable[[Path], npt.NDArray[np.uint8]]) -> float:
    """Mean intersection over union of the classes in the truth; the confusion is summed over all images."""
    confusion: Counts = np.zeros((256, 256), np.int64)
    for entry in scored_entries(data):
        truth, labels = tifffile.imread(data / entry["mask"]), labels_of(data / entry["image"])
        assert labels.shape == truth.shape
        scored = truth > 0
        np.add.at(confusion, (truth[scored], labels[scored]), 1)
    both = np.diag(confusion)
    there = confusion.sum(axis=1) > 0
    return float((both[there] / (confusion.sum(axis=0) + confusion.sum(axis=1) - both)[there]).mean())


@pytest.mark.parametrize(
    ("name", "features", "least"),
    [
        ("nuclei_bbbc039", "basic25", 0.92),
        pytest.param("sandstone_xrm", "basic25", 0.77, marks=pytest.mark.slow),
        pytest.param("nuclei_bbbc039", "basic33", 0.90, marks=pytest.mark.slow),
        pytest.param("sandstone_xrm", "basic33", 0.73, marks=pytest.mark.slow),
    ],
)
def test_through_the_daemon(
    shared_data: Path,
    trained: Callable[..., Path],
    tmp_path: Path,
    name: str,
    features: str,
    least: float,
) -> None:
    model, data = trained(name, features=features), shared_data / name
    daemon = DaemonProcess(tmp_path, model.parent, model=model.stem)
    with daemon, daemon.client() as client, client.subscribe("hot", start="oldest", timeout=90) as results:
        images = [data / entry["image"] for entry in scored_entries(data)]
        for image in images:
            shutil.copy(image, daemon.hot)
        got = {result.segmentation.source_display: result for _, result in zip(images, results, strict=False)}
        daemon.stop()

    def labels_of(image: Path) -> npt.NDArray[np.uint8]:
        labels = got[image.name].labels
        assert labels is not None
        return labels

    assert mean_iou(data, labels_of) >= least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "normalization", "least"),
    [
        ("tissue_rgb", "none", 0.74),
        ("superalloy_sem", "percentile", 0.61),
        ("bacteria_phase", "percentile", 0.88),
    ],
)
def test_through_segmentd_segment(
    shared_data: Path,
    trained: Callable[..., Path],
    tmp_path: Path,
    name: str,
    normalization: str,
    least: float,
) -> None:
    model, data = trained(name, normalization), shared_data / name
    images = [data / entry["image"] for entry in scored_entries(data)]
    run("segment", *images, "--model", model, "--out", tmp_path)
    assert mean_iou(data, lambda image: tifffile.imread(tmp_path / f"{image.name}.labels.ome.tif")) >= least
