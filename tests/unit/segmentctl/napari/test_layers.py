"""Layers of the napari plugin, with a viewer that has no windows."""

from __future__ import annotations

import numpy as np
import pytest

from segmentctl.napari.layers import LabelLayers, colors, current_plane
from segmentctl.subscription import Result
from segmentd.v1.pixels_pb2 import PixelClass
from segmentd.v1.segmentation_service_pb2 import Segmentation

from ....e2e.bridges.fake_viewer import FakeViewer

CLASSES = [
    PixelClass(value=1, display_name="background", color="#000000"),
    PixelClass(value=2, display_name="nucleus", color="#00FF00"),
]


def result(name: str, value: int = 2, sure: int = 80, planes: int = 1, version: int = 1) -> Result:
    segmentation = Segmentation(source_display=name, version=version, plane_count=planes, classes=CLASSES)
    shape = (2, 3)
    labels, confidence = np.full(shape, value, np.uint8), np.full(shape, sure, np.uint8)
    return Result(1, "c", segmentation, labels, confidence)


def test_the_newest_images_stay() -> None:
    viewer = FakeViewer()
    layers = LabelLayers(viewer, keep=2)
    mine = viewer.add_image(np.zeros((2, 3)), name="mine")
    for name in ("a", "b", "c"):
        layers.show_result(result(name))
    assert [layer.name for layer in viewer.layers] == ["mine", "b", "c"]
    assert mine in viewer.layers
    layer = viewer.layers["c"]
    assert layer.data.tolist() == [[2, 2, 2]] * 2
    assert layer.colormap == {None: "#00000000", 0: "#00000000", 1: "#000000", 2: "#00FF00"}
    assert layer.metadata["classes"] == {1: "background", 2: "nucleus"}


def test_planes_of_a_stack_become_one_layer() -> None:
    viewer = FakeViewer()
    layers = LabelLayers(viewer)
    for value in (1, 2):
        layers.show_result(result("stack", value, planes=3))
    (layer,) = viewer.layers
    assert layer.data[:, 0, 0].tolist() == [1, 2, 0]
    layers.show_result(result("stack", 1, planes=3, version=2))
    assert len(viewer.layers) == 2, "another content is another layer"


def test_the_slider_hides_what_the_model_is_unsure_of() -> None:
    viewer = FakeViewer()
    layers = LabelLayers(viewer)
    layers.show_result(result("sure", sure=90))
    layers.show_result(result("unsure", sure=50))
    layers.show_plane("own", np.array([[1, 2]], np.uint8), np.array([[70, 60]], np.uint8), CLASSES)
    deleted = viewer.layers["sure"]
    layers.min_confidence = 70
    assert deleted.data.all()
    assert not viewer.layers["unsure"].data.any()
    assert viewer.layers["own"].data.tolist() == [[1, 0]]
    viewer.layers.remove(deleted)
    layers.min_confidence = 100
    assert deleted.data.all(), "what the user deleted is left alone"
    layers.min_confidence = 0
    assert viewer.layers["unsure"].data.all(), "hidden labels come back"
    layers.min_confidence = 75
    layers.show_result(result("later", sure=74))
    assert not viewer.layers["later"].data.any()


def test_results_without_confidence_or_pixels() -> None:
    viewer = FakeViewer()
    layers = LabelLayers(viewer)
    layers.min_confidence = 100
    full = result("a")
    layers.show_result(Result(1, "c", full.segmentation, full.labels, None))
    assert viewer.layers["a"].data.all()
    layers.show_result(Result(2, "c", Segmentation(source_display="failed")))
    assert len(viewer.layers) == 1


def test_labels_lie_where_the_image_does() -> None:
    viewer = FakeViewer()
    image = viewer.add_image(np.zeros((4, 2, 3)), scale=(9, 0.5, 0.25), translate=(0, 10, 20))
    LabelLayers(viewer).show_plane("own", *[np.ones((2, 3), np.uint8)] * 2, CLASSES, image)
    layer = viewer.layers["own"]
    assert (layer.scale, layer.translate) == ((0.5, 0.25), (10, 20))


def test_the_plane_that_one_looks_at() -> None:
    viewer = FakeViewer()
    stack = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)
    viewer.add_image(stack, name="stack")
    viewer.dims.current_step = (1, 2, 3, 4)
    image, (layer,) = current_plane(viewer)
    assert np.array_equal(image, stack[1, 2])
    assert layer.name == "stack"
    viewer.add_image(stack[0, 0], name="flat")
    image, both = current_plane(viewer)
    assert np.array_equal(image, np.stack([stack[1, 2], stack[0, 0]]))
    assert [each.name for each in both] == ["stack", "flat"]


def test_colours_of_an_image_are_channels() -> None:
    viewer = FakeViewer()
    colour = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    viewer.add_image(colour, rgb=True)
    image, _ = current_plane(viewer)
    assert np.array_equal(image, np.moveaxis(colour[..., :3], -1, 0)), "without transparency"


def test_what_cannot_be_submitted_is_said() -> None:
    viewer = FakeViewer()
    with pytest.raises(ValueError, match="Select an image layer"):
        current_plane(viewer)
    only = viewer.add_image(np.zeros((2, 3)), selected=False)
    viewer.layers.selection.add(viewer.add_labels(np.zeros((2, 3), np.uint8)))
    assert current_plane(viewer)[1] == [only], "the labels that have just come are selected"
    viewer.add_image(np.zeros((2, 3)), selected=False)
    with pytest.raises(ValueError, match="Select an image layer"):
        current_plane(viewer)
    viewer.add_image(np.zeros((2, 3)))
    viewer.add_image(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="differ in size"):
        current_plane(viewer)


def test_a_class_without_a_colour_is_white() -> None:
    assert colors([PixelClass(value=1)])[1] == "#FFFFFF"
