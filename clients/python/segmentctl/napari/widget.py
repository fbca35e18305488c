"""The plugin's window beside the viewer (Qt)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSlider,
    QWidget,
)

from segmentctl.napari.session import Session
from segmentctl.resources import DEFAULT_ADDRESS

_ALL = "all folders"


class _InWindow(QObject):  # type: ignore[misc,unused-ignore]
    """Runs functions in the thread that made it."""

    _asked = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._asked.connect(_run, Qt.QueuedConnection)

    def __call__(self, function: Callable[[], None]) -> None:
        self._asked.emit(function)


class SegmentdWidget(QWidget):  # type: ignore[misc,unused-ignore]
    """Connect, follow a folder, segment the selected image, hide what the model is unsure of."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._in_window = _InWindow()
        self._status = QLabel("Not connected.", wordWrap=True)
        self.session = Session(napari_viewer, self._in_window, self._status.setText)
        self._address = QLineEdit(os.environ.get("SEGMENTCTL_ADDRESS", DEFAULT_ADDRESS))
        self._models, self._watches = QComboBox(), QComboBox()
        self._follow = QCheckBox("Follow live")
        self._percent = QLabel("0 %", minimumWidth=40)
        self._confidence = QSlider(Qt.Horizontal, minimum=0, maximum=100)
        self._lay_out()
        self.destroyed.connect(self.session.close)

    def _lay_out(self) -> None:
        connect, segment = QPushButton("Connect"), QPushButton("Segment selected image")
        connect.clicked.connect(self._connect)
        self._address.returnPressed.connect(self._connect)
        segment.clicked.connect(lambda: self.session.submit(self._models.currentText()))
        self._follow.toggled.connect(self._follow_or_not)
        self._watches.currentTextChanged.connect(lambda _: self._follow_or_not(self._follow.isChecked()))
        self._confidence.valueChanged.connect(self._set_confidence)
        form = QFormLayout(self)
        form.addRow("Daemon", _beside(self._address, connect))
        form.addRow("Model", self._models)
        form.addRow("", segment)
        form.addRow("Folder", _beside(self._watches, self._follow))
        form.addRow("Min. confidence", _beside(self._confidence, self._percent))
        form.addRow(self._status)

    def _connect(self) -> None:
        self._follow.setChecked(False)
        models, watches = self.session.connect(self._address.text().strip())
        self._models.clear()
        self._models.addItems(models)
        self._watches.clear()
        self._watches.addItems([_ALL, *watches])

    def _follow_or_not(self, follow: bool) -> None:
        watch = self._watches.currentText()
        if follow and watch:
            self.session.follow("-" if watch == _ALL else watch)
        else:
            self.session.unfollow()

    def _set_confidence(self, percent: int) -> None:
        self._percent.setText(f"{percent} %")
        self.session.layers.min_confidence = percent


def _run(function: Callable[[], None]) -> None:
    function()


def _beside(first: QWidget, second: QWidget) -> QWidget:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(first, 1)
    layout.addWidget(second)
    return row
