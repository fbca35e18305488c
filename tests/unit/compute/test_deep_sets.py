"""What deep feature sets are, how far they look, how pixels between cells are made; without TensorFlow."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segmentd.compute import deep, deep_cells
from segmentd.compute.deep_sets import DeepFeatureSet, deep_sets
from segmentd.compute.features import feature_names, feature_sets, filter_sets
from segmentd.compute.normalize import Scale
from segmentd.errors import Reason, SegmentdError
from segmentd.records import Region

SETS = {entry.name: entry for entry in deep_sets()}


def test_one_registry_lists_seven_sets() -> None:
    counts = {
        "basic25": 25,
        "basic33": 33,
        "deep64": 64,
        "deep128": 128,
        "deep256": 256,
        "deep50": 50,
        "deep70": 70,
    }
    assert {name: len(entry) for name, entry in feature_sets().items()} == counts
    assert list(filter_sets()) == ["basic25", "basic33"]
    for name, entry in feature_sets().items():
        assert entry.name == name and entry.description
        assert len(entry.feature_names) == len(entry)
        assert len(feature_names(entry, ("a", "b"))) == 2 * len(entry)
    assert {name: (entry.stride_px, entry.reach_px) for name, entry in SETS.items()} == {
        "deep64": (1, 2),
        "deep128": (2, 8),
        "deep256": (4, 20),
        "deep50": (2, 8),
        "deep70": (4, 20),
    }


def along_a_line(feature_set: DeepFeatureSet, line: np.ndarray) -> np.ndarray:
    """A network of the set's shape in one dimension, all weights positive; interpolated by numpy."""
    cells = line
    for layer in feature_set.layers:
        if layer.pooled:
            cells = cells.reshape(-1, 2).max(axis=1)
        cells = np.convolve(cells, [1.0, 1.3, 0.9], mode="same")
    middles = (np.arange(len(cells)) + 0.5) * feature_set.stride_px - 0.5
    return np.interp(np.arange(len(line)), middles, cells)


@pytest.mark.parametrize("name", ["deep64", "deep128", "deep256"])
def test_no_pixel_beyond_the_reach_counts_and_the_last_step_before_does(name: str) -> None:
    feature_set, length = SETS[name], 128
    plain = along_a_line(feature_set, np.ones(length))
    farthest = 0
    for place in range(48, 64):
        line = np.ones(length)
        line[place] = 5.0
        changed = np.flatnonzero(along_a_line(feature_set, line) != plain)
        farthest = max(farthest, int(np.abs(changed - place).max()))
    stride = feature_set.stride_px
    assert -(-farthest // stride) * stride == feature_set.reach_px


def test_projections_are_seeded_and_keep_lengths() -> None:
    for name, shape in (("deep50", (50, 128)), ("deep70", (70, 256))):
        projection = SETS[name].random_projection(3)
        assert projection is not None
        assert projection.shape == shape and projection.dtype == np.float32
        assert_array_equal(projection, SETS[name].random_projection(3))
        assert not np.array_equal(projection, SETS[name].random_projection(4))
        vectors = np.random.default_rng(0).normal(size=(shape[1], 500))
        ratio = np.linalg.norm(projection @ vectors, axis=0) / np.linalg.norm(vectors, axis=0)
        assert 0.95 < ratio.mean() < 1.05
    assert SETS["deep128"].random_projection(3) is None


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_packets_and_single_pixels_are_the_linear_interpolation_of_cells(stride: int) -> None:
    height, width = 24, 40
    rng = np.random.default_rng(stride)
    shape = (5, height // stride + 2, width // stride + 2)
    cells = rng.normal(size=shape).astype(np.float32)
    middles = [(np.arange(count) - 1 + 0.5) * stride - 0.5 for count in shape[1:]]
    expected = np.empty((5, height, width))
    for plane, target in zip(cells, expected, strict=True):
        rows = np.array([np.interp(np.arange(width), middles[1], row) for row in plane])
        target[:] = np.array([np.interp(np.arange(height), middles[0], column) for column in rows.T]).T
    ys, xs = np.nonzero(np.ones((height, width), bool))
    single = deep_cells.sample(cells, stride, ys, xs)
    assert_allclose(single.T.reshape(expected.shape), expected, atol=2e-6)
    planes = np.array([4, 0, 3], np.int32)
    packets = np.empty((3 * 3, 3, 64), np.float32)
    deep_cells.fill(cells, planes, stride, 2, 3, packets)
    image = packets.reshape(3, 3, 3, 8, 8).transpose(2, 0, 3, 1, 4).reshape(3, height, 24)
    assert_array_equal(image, single.T.reshape(expected.shape)[planes, :, 16:])


def test_grey_values_are_scaled_by_the_pixel_type() -> None:
    def grey(values: list[float], dtype: str, scale: Scale | None = None) -> np.ndarray:
        return deep.grey_values(np.array(values).astype(dtype).reshape(1, 1, -1), scale).ravel()

    assert_allclose(grey([0, 100, 255], "uint8"), [0, 100, 255])
    assert_allclose(grey([0, 257, 65535], "uint16"), [0, 1, 255], rtol=1e-6)
    assert_allclose(grey([-32768, 32767], "int16"), [0, 255])
    assert_allclose(grey([0, 2**32 - 1], "uint32"), [0, 255])
    assert_allclose(grey([0, 0.5, 1, np.nan], "float32"), [0, 127.5, 255, 0])
    scale = Scale(np.array([100], np.float32), np.array([50], np.float32))
    assert_allclose(grey([100, 150, 175], "uint16", scale), [0, 255, 382.5])


def test_cores_end_where_packets_do() -> None:
    assert deep.aligned(Region(8, 16, 24, 31)) == Region(8, 16, 24, 32)


def test_without_tensorflow_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(SegmentdError, match=r"segmentd\[deep\]") as caught:
        deep.Extractor(SETS["deep64"], (), None, 1)
    assert caught.value.reason is Reason.MISSING_EXTRA
    assert caught.value.metadata["extra"] == "deep"
