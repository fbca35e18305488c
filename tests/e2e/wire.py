"""The API without the client library: stubs, and what a refusal says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from segmentd.v1 import (
    model_service_pb2_grpc,
    segmentation_service_pb2_grpc,
    server_service_pb2_grpc,
    watch_service_pb2_grpc,
)


class Wire:
    """A channel and the stubs of all services."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.watches = watch_service_pb2_grpc.WatchServiceStub(self.channel)
        self.segmentations = segmentation_service_pb2_grpc.SegmentationServiceStub(self.channel)
        self.server = server_service_pb2_grpc.ServerServiceStub(self.channel)


@contextmanager
def connected(address: str) -> Iterator[Wire]:
    """Open a channel and close it at the end."""
    wire = Wire(address)
    try:
        yield wire
    finally:
        wire.channel.close()


@dataclass(frozen=True)
class Refusal:
    """What a call that was refused told its caller."""

    code: grpc.StatusCode
    reason: str
    message: str
    details: dict[str, Message]

    @property
    def fields(self) -> list[str]:
        """The fields that a BadRequest names."""
        request = self.details.get("BadRequest")
        return [violation.field for violation in request.field_violations] if request else []


def refusal(act: Callable[[], object]) -> Refusal:
    """Call what must be refused; streams are read to their end."""
    try:
        answer = act()
        if isinstance(answer, Iterator):
            for _ in answer:
                pass
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        status = rpc_status.from_call(error)
        assert status is not None, f"no details: {error.code()} {error.details()}"
        details: dict[str, Message] = {}
        for packed in status.details:
            name = packed.TypeName().rpartition(".")[2]
            details[name] = getattr(error_details_pb2, name)()
            assert packed.Unpack(details[name])
        info = details["ErrorInfo"]
        assert info.domain == "segmentd"
        return Refusal(error.code(), info.reason, status.message, details)
    raise AssertionError("it was not refused")
