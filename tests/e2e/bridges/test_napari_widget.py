"""The window of the napari plugin with the real napari and Qt, without drawing anything."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segmentctl import Client

from ..daemon import DaemonProcess
from .conftest import NUCLEI

pytestmark = [pytest.mark.e2e, pytest.mark.bridges]


@pytest.fixture(scope="module")
def windows() -> Any:
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() or QApplication([])


def test_the_window(
    windows: Any,
    daemon: DaemonProcess,
    client: Client,
    nuclei: npt.NDArray[np.uint16],
    shared_data: Path,
) -> None:
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QCheckBox, QComboBox, QLineEdit, QPushButton, QSlider

    from segmentctl.napari.widget import SegmentdWidget

    def wait(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            windows.processEvents()
            assert time.monotonic() < end
            time.sleep(0.01)

    def names() -> list[str]:
        return [layer.name for layer in viewer.layers]

    viewer = ViewerModel()
    widget = SegmentdWidget(viewer)
    models, watches = widget.findChildren(QComboBox)
    buttons = {button.text(): button for button in widget.findChildren(QPushButton)}
    (address,) = widget.findChildren(QLineEdit)
    (slider,) = widget.findChildren(QSlider)
    (follow,) = widget.findChildren(QCheckBox)

    address.setText(daemon.address)
    buttons["Connect"].click()
    models.setCurrentText("nuclei")
    viewer.add_image(nuclei, name="camera", scale=(0.5, 0.5))
    buttons["Segment selected image"].click()
    wait(lambda: "camera nuclei" in names())
    labels, confidence = client.segment(nuclei, "nuclei")
    layer = viewer.layers["camera nuclei"]
    assert np.array_equal(layer.data, labels)
    assert tuple(layer.scale) == (0.5, 0.5)
    assert layer.get_color(2)[:3].tolist() == pytest.approx([0xE6 / 255, 0x9F / 255, 0], abs=0.01)
    slider.setValue(90)
    assert np.array_equal(layer.data, np.where(confidence >= 90, labels, 0))

    watches.setCurrentText("hot")
    follow.setChecked(True)
    # the feed begins with the next result: copies until one comes
    for number in range(600):
        if any(name.startswith("live") for name in names()):
            break
        if number % 100 == 0:
            shutil.copy(shared_data / "nuclei_bbbc039" / "images" / NUCLEI, daemon.hot / f"live{number}.tif")
        windows.processEvents()
        time.sleep(0.05)
    assert any(name.startswith("live") for name in names())
    follow.setChecked(False)
    widget.session.close()
    widget.deleteLater()
    windows.processEvents()
