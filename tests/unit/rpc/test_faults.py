"""Reasons on the wire: each has a code, and details a program can use."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from segmentd.errors import Reason
from segmentd.records import Fault
from segmentd.rpc.convert import event_number, page_size, page_start, printable, resource_id
from segmentd.rpc.faults import CODES, SegmentdError, status_of


def details(fault: Fault) -> dict[str, object]:
    found = {}
    for packed in status_of(fault).details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        message = kind()
        assert packed.Unpack(message)
        found[kind.DESCRIPTOR.name] = message
    return found


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_code_and_an_error_info(reason: Reason) -> None:
    assert CODES[reason] is not grpc.StatusCode.OK
    info = details(Fault(reason, "text", {"key": "value"}))["ErrorInfo"]
    assert (info.reason, info.domain, dict(info.metadata)) == (reason, "segmentd", {"key": "value"})


def test_a_bad_field_names_the_field() -> None:
    request = details(Fault(Reason.BAD_FIELD, "width: must be at least 1", {"field": "width"}))["BadRequest"]
    assert [(v.field, v.description) for v in request.field_violations] == [
        ("width", "width: must be at least 1")
    ]


def test_shutting_down_says_when_to_come_back() -> None:
    assert details(Fault(Reason.SHUTTING_DOWN, "later"))["RetryInfo"].retry_delay.seconds > 0


def test_a_missing_model_is_a_resource() -> None:
    info = details(Fault(Reason.MODEL_NOT_FOUND, "no", {"resource": "cells"}))["ResourceInfo"]
    assert (info.resource_type, info.resource_name) == ("segmentd/Model", "cells")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"a b.tif", "a b.tif"),
        ("ä.tif".encode(), "ä.tif"),
        (b"\xff.tif", "\\xff.tif"),
        (b"a\n\x1b[2J", "a\\x0a\\x1b[2J"),
    ],
)
def test_paths_for_people_hold_nothing_that_a_terminal_acts_on(path: bytes, text: str) -> None:
    assert printable(path) == text


@pytest.mark.parametrize("name", ["", "models", "watches/a", "models/"])
def test_a_name_of_another_collection_is_refused(name: str) -> None:
    with pytest.raises(SegmentdError, match="must have the form models/ID"):
        resource_id(name, "models")


def test_segmentation_names() -> None:
    assert event_number("watches/a/segmentations/s12") == ("a", 12)
    with pytest.raises(SegmentdError, match="no segmentation"):
        event_number("watches/a/segmentations/x")
    with pytest.raises(SegmentdError, match="must have the form"):
        event_number("segmentations/s1")


def test_pages() -> None:
    assert [page_size(0), page_size(5), page_size(10**6)] == [100, 5, 1000]
    assert [page_start(""), page_start("7")] == [0, 7]
    for token in ("-1", "x", "٣", "9" * 30):
        with pytest.raises(SegmentdError, match="page_token"):
            page_start(token)
    with pytest.raises(SegmentdError, match="page_size"):
        page_size(-1)
