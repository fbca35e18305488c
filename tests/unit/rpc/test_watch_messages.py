"""Fields of a watch as keys of the configuration, and broken rules in the words of the API."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.rpc.watch_messages import given, in_fields, masked
from segmentd.settings.schema import WatchSettings
from segmentd.v1.watch_service_pb2 import Watch


def test_fields_that_are_set_become_keys() -> None:
    message = Watch(
        folder=b"/in/\xff",
        model="models/cells",
        include_globs=["*.tif"],
        recursive=False,
        settle_duration=Duration(nanos=300_000_000),
        border_pixels=0,
        state=Watch.STATE_PAUSED,
    )
    assert given(message) == {
        "folder": "/in/\udcff",
        "model": "cells",
        "include": ["*.tif"],
        "recursive": False,
        "settle_seconds": 0.3,
        "border": 0,
    }


def test_a_mask_takes_fields_back_to_their_default() -> None:
    message = Watch(tile_pixels=64, priority=3)
    assert masked(message, ["tile_pixels", "border_pixels"]) == {"tile": 64, "border": None}
    whole = masked(message, ["*"])
    assert whole.keys() == WatchSettings.model_fields.keys() - {"id", "folder"}
    assert {key for key, value in whole.items() if value is not None} == {"tile", "priority"}


@pytest.mark.parametrize("paths", [["tile"], ["state"], ["name"], ["*", "tile_pixels"], ["folder.x"]])
def test_a_mask_of_what_cannot_be_set_is_refused(paths: list[str]) -> None:
    with pytest.raises(SegmentdError) as refused:
        masked(Watch(), paths)
    assert (refused.value.reason, refused.value.metadata["field"]) == (Reason.BAD_FIELD, "update_mask")


def test_broken_rules_name_fields() -> None:
    error = in_fields(ConfigurationError(["settle_seconds = -1.0: must be >= 0", "outputs[1] = 3: no"]))
    assert error.message == "settle_duration = -1.0: must be >= 0; outputs[1] = 3: no"
    assert error.metadata["field"] == "watch.settle_duration"
    assert in_fields(ConfigurationError(["id = 3: no"])).metadata["field"] == "watch_id"
    outside = SegmentdError(Reason.FOLDER_OUTSIDE_ROOTS, 'results = "/x": must lie elsewhere')
    assert in_fields(outside).reason is Reason.FOLDER_OUTSIDE_ROOTS
    assert in_fields(outside).message.startswith("results_folder = ")
