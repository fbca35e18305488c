from __future__ import annotations

import socket
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from segmentctl import Client, DaemonError
from segmentctl.errors import from_rpc_error, from_status


def packed(*messages: Any) -> list[any_pb2.Any]:
    details = [any_pb2.Any() for _ in messages]
    for detail, message in zip(details, messages, strict=True):
        detail.Pack(message)
    return details


def test_error_info_is_found_among_other_details() -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1))
    info = error_details_pb2.ErrorInfo(reason="DEVICE_BUSY", domain="segmentd", metadata={"device": "cpu"})
    error = from_status(status_pb2.Status(code=8, message="too much to do", details=packed(retry, info)))
    assert (error.reason, error.message, error.metadata, error.code) == (
        "DEVICE_BUSY",
        "too much to do",
        {"device": "cpu"},
        "RESOURCE_EXHAUSTED",
    )
    assert str(error) == "too much to do"


def test_without_error_info_the_code_is_the_reason() -> None:
    error = from_status(status_pb2.Status(code=5, message="not here"))
    assert (error.reason, error.code) == ("NOT_FOUND", "NOT_FOUND")
    assert from_status(status_pb2.Status(code=99)).code == "UNKNOWN"


def test_a_refusal_arrives_whole(daemon: Any) -> None:
    with Client(daemon.address) as client, pytest.raises(DaemonError) as caught:
        client.model("missing")
    error = caught.value
    assert (error.reason, error.message, error.code) == ("MODEL_NOT_FOUND", "no model 'missing'", "NOT_FOUND")
    assert error.metadata == {"resource": "missing"}


def test_nobody_there_names_the_address_and_the_remedy() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with Client(address) as client, pytest.raises(DaemonError) as caught:
            client.server()
    assert caught.value.reason == "DAEMON_UNREACHABLE"
    assert caught.value.code == "UNAVAILABLE"
    for expected in (address, "segmentd run", "--address", "SEGMENTCTL_ADDRESS"):
        assert expected in caught.value.message


class FakeCall(grpc.RpcError, grpc.Call):
    """A failed call without details of the daemon."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def initial_metadata(self) -> tuple[()]:
        return ()

    def trailing_metadata(self) -> tuple[()]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Any) -> bool:
        return False


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, "Is it segmentd"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "did not answer in time"),
        (grpc.StatusCode.INTERNAL, "call to here:1 failed: strange"),
    ],
)
def test_faults_of_the_connection_have_a_sentence(code: grpc.StatusCode, expected: str) -> None:
    error = from_rpc_error(FakeCall(code, "strange"), "here:1")
    assert expected in error.message
    assert error.code == code.name


@pytest.mark.parametrize(
    ("details", "cause"),
    [
        (
            "errors resolving h:1: [field:x error:lookup failed for h:1: Domain name not found]",
            "Domain name not found",
        ),
        ("last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused", "Connection refused"),
        ("no route to: [::1]", "[::1]"),
    ],
)
def test_the_cause_is_said_without_the_bookkeeping_around_it(details: str, cause: str) -> None:
    error = from_rpc_error(FakeCall(grpc.StatusCode.UNAVAILABLE, details), "h:1")
    assert error.message.startswith(f"No segmentd answers at h:1 ({cause}). Start it")
