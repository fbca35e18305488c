"""Does a device find what the CPU finds? Asked whenever a network is brought there, before any plane."""

from __future__ import annotations

import numpy as np

from segmentd.compute import crf
from segmentd.compute.fast_features import Floats
from segmentd.engine.array_models import ArrayModel
from segmentd.engine.device import Device, DeviceLostError, DeviceOutOfMemoryError, DeviceRefusesError

# Libraries add up in another order on cards, so scores differ in their last digits, and labels where two
# classes are as good as equal.
LEAST_EQUAL_SHARE = 0.999
NOT_NUMBERS = "it returned values that are not numbers"
FIELD_EDGE_PX = 64


def try_model(device: Device, model: ArrayModel) -> None:
    """Compute a test image with as many copies as are computed at once, so that its memory shows, too.

    Raises
    ------
    DeviceRefusesError
        Less than `LEAST_EQUAL_SHARE` of what it finds is what the CPU finds.
    DeviceOutOfMemoryError
        Not a single one fits; with a batch of 0.
    DeviceLostError
        As `Device`; also for values that are not numbers.
    """
    values, expected = model.trial
    found = _largest_that_fits(device, model, values)[:1]
    if np.isfinite(expected).all() and not np.isfinite(found).all():
        raise DeviceLostError(NOT_NUMBERS)
    _compare(model.equal_share(found, expected), f"model '{model.card.id}'")


def try_field(device: Device) -> None:
    """Put a test image through the conditional random field; raises as `try_model`."""
    rows, columns = np.mgrid[:FIELD_EDGE_PX, :FIELD_EDGE_PX]
    stripes = (rows + 2 * columns) // 24 % 2
    likely = np.where(np.random.default_rng(0).random(stripes.shape) < 0.1, 1 - stripes, stripes)
    scores = np.stack([0.8 - 0.6 * likely, 0.2 + 0.6 * likely]).astype(np.float32)
    window = crf.Window(scores, stripes[None].astype(np.float32))
    parameters = crf.Parameters()
    found = device.marginals(window, parameters)
    if not np.isfinite(found).all():
        raise DeviceLostError(NOT_NUMBERS)
    expected = crf.infer(window, parameters)
    share = float((found.argmax(axis=0) == expected.argmax(axis=0)).mean())
    _compare(share, "the conditional random field")


def _largest_that_fits(device: Device, model: ArrayModel, values: Floats) -> Floats:
    count = model.largest_batch
    while True:
        try:
            return device.evaluate(model, np.repeat(values, count, axis=0))
        except DeviceOutOfMemoryError as error:
            if count == 1:
                raise DeviceOutOfMemoryError(0) from error
            count //= 2


def _compare(share: float, what: str) -> None:
    if share < LEAST_EQUAL_SHARE:
        raise DeviceRefusesError(
            f"{what}: only {100 * share:.2f} % of what it finds in a test image is what the CPU finds, "
            f"{100 * LEAST_EQUAL_SHARE:g} % are needed"
        )
