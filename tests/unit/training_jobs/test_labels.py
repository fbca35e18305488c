from __future__ import annotations

import numpy as np

from segmentd.compute.uncertainty import least_certain
from segmentd.records import Region
from segmentd.training_jobs import labels as ops

DRAWN = np.array([[0, 1, 1, 2], [2, 0, 0, 3]], np.uint8)


def test_labels_are_drawn_over_others() -> None:
    over = np.array([[3, 0, 2, 0], [0, 0, 0, 0]], np.uint8)
    assert ops.merged(DRAWN, over).tolist() == [[3, 1, 2, 2], [2, 0, 0, 3]]


def test_a_mask_replaces_its_class_and_nothing_else() -> None:
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
    assert ops.with_mask(DRAWN, 2, mask).tolist() == [[2, 2, 1, 0], [0, 0, 0, 3]]


def test_some_pixels_of_a_mask_are_always_the_same_ones() -> None:
    mask = np.ones((40, 50), bool)
    empty = np.zeros(mask.shape, np.uint8)
    once = ops.with_mask(empty, 1, mask, 100)
    assert np.count_nonzero(once == 1) == 100
    assert np.array_equal(once, ops.with_mask(empty, 1, mask, 100))
    assert np.count_nonzero(ops.with_mask(empty, 1, mask, 5000)) == mask.size


def test_a_segmentation_fills_only_what_is_not_labelled() -> None:
    segmentation = np.full(DRAWN.shape, 3, np.uint8)
    segmentation[0, 0] = 1
    everywhere = np.ones(DRAWN.shape, bool)
    assert ops.with_segmentation(DRAWN, segmentation, everywhere).tolist() == [[1, 1, 1, 2], [2, 3, 3, 3]]
    assert ops.with_segmentation(DRAWN, segmentation, everywhere, 1).tolist() == [[1, 1, 1, 2], [2, 0, 0, 3]]
    assert ops.with_segmentation(DRAWN, segmentation, ~everywhere).tolist() == DRAWN.tolist()


def test_a_class_that_goes_takes_its_labels_and_others_move_down() -> None:
    assert ops.without_class(DRAWN, 1).tolist() == [[0, 0, 0, 1], [1, 0, 0, 2]]
    assert ops.counts(ops.without_class(DRAWN, 1), 2) == (2, 1)


def test_the_least_certain_boxes_come_first_and_labelled_ones_not_at_all() -> None:
    confidence = np.full((100, 130), 90, np.uint8)
    confidence[0:32, 32:64] = 50
    confidence[64:96, 96:128] = 40
    confidence[32:64, 0:32] = 30
    labelled = np.zeros(confidence.shape, bool)
    labelled[32:64, 0:16] = True
    found = least_certain(confidence, labelled, 32, 3)
    assert found[0] == (Region(64, 96, 32, 32), 40.0)
    assert found[1] == (Region(0, 32, 32, 32), 50.0)
    assert found[2][1] == 90.0
    # Slivers at the lower and right edge are left out.
    assert all(region.height >= 8 and region.width >= 8 for region, _ in found)
    assert least_certain(confidence, np.ones_like(labelled), 32, 3) == []
