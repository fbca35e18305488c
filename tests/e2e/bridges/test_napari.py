"""The napari plugin without napari: a viewer without windows, a real daemon, real images."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from segmentctl import Client
from segmentctl.napari.session import Session

from ..daemon import DaemonProcess
from .conftest import NUCLEI
from .fake_viewer import FakeViewer

pytestmark = pytest.mark.e2e


@pytest.fixture
def viewer() -> FakeViewer:
    return FakeViewer()


@pytest.fixture
def session(viewer: FakeViewer, daemon: DaemonProcess) -> Iterator[Session]:
    made = Session(viewer, viewer.in_window, viewer.told.append)
    yield made
    made.close()


def test_the_live_feed_becomes_layers(
    viewer: FakeViewer, session: Session, daemon: DaemonProcess, client: Client, shared_data: Path
) -> None:
    models, watches = session.connect(daemon.address)
    assert (models, watches) == (["cells", "nuclei"], ["hot"])
    shutil.copy(shared_data / "nuclei_bbbc039" / "images" / NUCLEI, daemon.hot)
    session.follow("hot", start="oldest")
    viewer.work()
    (layer,) = viewer.layers
    assert layer.name == NUCLEI
    result = next(client.subscribe("hot", start="oldest", timeout=30))
    assert np.array_equal(layer.data, result.labels)
    assert viewer.told[-1] == f"{NUCLEI}, result 1"
    session.layers.min_confidence = 90
    assert result.labels is not None
    assert result.confidence is not None
    assert np.array_equal(layer.data, np.where(result.confidence >= 90, result.labels, 0))


def test_the_current_layer_is_segmented(
    viewer: FakeViewer,
    session: Session,
    daemon: DaemonProcess,
    client: Client,
    nuclei: npt.NDArray[np.uint16],
) -> None:
    session.connect(daemon.address)
    viewer.add_image(np.stack([nuclei, nuclei[::-1]]), name="cells", scale=(1, 0.5, 0.5), translate=(0, 0, 0))
    viewer.dims.current_step = (1, 0, 0)
    assert session.submit("nuclei") is not None
    viewer.work()
    labels, _ = client.segment(nuclei[::-1], "nuclei")
    layer = viewer.layers["cells nuclei"]
    assert np.array_equal(layer.data, labels)
    assert layer.scale == (0.5, 0.5)
    assert "confidence" in viewer.told[-1]


def test_what_goes_wrong_is_said(
    viewer: FakeViewer, session: Session, daemon: DaemonProcess, nuclei: npt.NDArray[np.uint16]
) -> None:
    session.submit("nuclei")
    session.follow()
    assert viewer.told == ["Connect first.", "Connect first."]
    assert session.connect("127.0.0.1:1") == ([], [])
    assert "No segmentd answers at 127.0.0.1:1" in viewer.told[-1]
    session.connect(daemon.address)
    session.submit("nuclei")
    assert "Select an image layer" in viewer.told[-1]
    viewer.add_image((nuclei >> 4).astype(np.uint8), name="8 bits")
    session.submit("nuclei")
    viewer.work()
    assert "uint16" in viewer.told[-1]
    session.follow("nothing")
    viewer.work()
    assert "nothing" in viewer.told[-1]


def test_the_plugin_is_announced(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["napari.manifest"] == {"segmentd": "segmentctl.napari:napari.yaml"}
    manifest = repository / "clients" / "python" / "segmentctl" / "napari" / "napari.yaml"
    assert f"name: {project['name']}\n" in manifest.read_text(encoding="utf-8")
