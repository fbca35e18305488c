"""Faults on the wire: reasons become gRPC codes and `google.rpc.Status` details, in one place."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from segmentd import telemetry
from segmentd.errors import Reason, SegmentdError
from segmentd.records import Fault
from segmentd.rpc.handlers import Streaming, Unary, answers, wrapped

DOMAIN = "segmentd"
RETRY_SECONDS = 2

# The class is generic for type checkers only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_Code = grpc.StatusCode
CODES: dict[Reason, grpc.StatusCode] = {
    Reason.IMAGE_INCOMPLETE: _Code.FAILED_PRECONDITION,
    Reason.IMAGE_CORRUPT: _Code.INVALID_ARGUMENT,
    Reason.IMAGE_UNSUPPORTED: _Code.INVALID_ARGUMENT,
    Reason.IMAGE_TOO_LARGE: _Code.RESOURCE_EXHAUSTED,
    Reason.IMAGE_CHANGED: _Code.ABORTED,
    Reason.IMAGE_VANISHED: _Code.NOT_FOUND,
    Reason.IMAGE_UNREADABLE: _Code.PERMISSION_DENIED,
    Reason.PIXEL_TYPE_MISMATCH: _Code.INVALID_ARGUMENT,
    Reason.CHANNEL_COUNT_MISMATCH: _Code.INVALID_ARGUMENT,
    Reason.PIXEL_SIZE_MISMATCH: _Code.INVALID_ARGUMENT,
    Reason.WORKER_CRASHED: _Code.INTERNAL,
    Reason.WORKER_DEADLINE: _Code.DEADLINE_EXCEEDED,
    Reason.WORKER_MEMORY: _Code.RESOURCE_EXHAUSTED,
    Reason.MODEL_NOT_FOUND: _Code.NOT_FOUND,
    Reason.MODEL_AMBIGUOUS: _Code.INVALID_ARGUMENT,
    Reason.MODEL_UNUSABLE: _Code.FAILED_PRECONDITION,
    Reason.MODEL_IN_USE: _Code.FAILED_PRECONDITION,
    Reason.MODEL_EXISTS: _Code.ALREADY_EXISTS,
    Reason.MODEL_TOO_LARGE: _Code.RESOURCE_EXHAUSTED,
    Reason.WATCH_NOT_FOUND: _Code.NOT_FOUND,
    Reason.WATCH_EXISTS: _Code.ALREADY_EXISTS,
    Reason.WATCH_READ_ONLY: _Code.FAILED_PRECONDITION,
    Reason.WATCH_CHANGED: _Code.ABORTED,
    Reason.SEGMENTATION_NOT_FOUND: _Code.NOT_FOUND,
    Reason.RESULT_UNAVAILABLE: _Code.FAILED_PRECONDITION,
    Reason.BAD_FIELD: _Code.INVALID_ARGUMENT,
    Reason.FOLDER_OUTSIDE_ROOTS: _Code.PERMISSION_DENIED,
    Reason.FOLDER_UNREACHABLE: _Code.FAILED_PRECONDITION,
    Reason.PLANE_TOO_LARGE: _Code.RESOURCE_EXHAUSTED,
    Reason.DEVICE_BUSY: _Code.RESOURCE_EXHAUSTED,
    Reason.DEVICE_UNAVAILABLE: _Code.FAILED_PRECONDITION,
    Reason.CURSOR_EXPIRED: _Code.OUT_OF_RANGE,
    Reason.CURSOR_UNKNOWN: _Code.FAILED_PRECONDITION,
    Reason.SHUTTING_DOWN: _Code.UNAVAILABLE,
    Reason.UNAUTHENTICATED: _Code.UNAUTHENTICATED,
    Reason.NOT_ALLOWED: _Code.PERMISSION_DENIED,
    Reason.RESULTS_NOT_WRITABLE: _Code.FAILED_PRECONDITION,
    Reason.DISK_FULL: _Code.RESOURCE_EXHAUSTED,
    Reason.JOURNAL_DAMAGED: _Code.DATA_LOSS,
    Reason.JOURNAL_NEWER: _Code.FAILED_PRECONDITION,
    Reason.JOURNAL_NOT_WRITABLE: _Code.FAILED_PRECONDITION,
    Reason.LOCKED: _Code.FAILED_PRECONDITION,
    Reason.BAD_CONFIGURATION: _Code.FAILED_PRECONDITION,
    Reason.BAD_TRAINING_DATA: _Code.INVALID_ARGUMENT,
    Reason.TRAINING_NOT_FOUND: _Code.NOT_FOUND,
    Reason.TRAINING_EXISTS: _Code.ALREADY_EXISTS,
    Reason.TRAINING_RUNNING: _Code.FAILED_PRECONDITION,
    Reason.TRAINING_CANCELLED: _Code.CANCELLED,
    Reason.NOT_TRAINED: _Code.FAILED_PRECONDITION,
    Reason.MISSING_EXTRA: _Code.FAILED_PRECONDITION,
    Reason.INTERNAL: _Code.INTERNAL,
}

_RESOURCE_TYPES = {
    Reason.MODEL_NOT_FOUND: "segmentd/Model",
    Reason.MODEL_EXISTS: "segmentd/Model",
    Reason.TRAINING_NOT_FOUND: "segmentd/Training",
    Reason.TRAINING_EXISTS: "segmentd/Training",
    Reason.WATCH_NOT_FOUND: "segmentd/Watch",
    Reason.WATCH_EXISTS: "segmentd/Watch",
    Reason.WATCH_READ_ONLY: "segmentd/Watch",
    Reason.WATCH_CHANGED: "segmentd/Watch",
    Reason.SEGMENTATION_NOT_FOUND: "segmentd/Segmentation",
}
_log = telemetry.get_logger(__name__)


def bad_field(field: str, message: str) -> SegmentdError:
    """A request whose `field` is wrong; the message says what it must be."""
    return SegmentdError(Reason.BAD_FIELD, f"{field}: {message}", field=field)


def status_of(fault: Fault) -> status_pb2.Status:
    """A fault as `google.rpc.Status` with an `ErrorInfo` and what else belongs to its reason."""
    reason = Reason(fault.reason)
    message = _sayable(fault.message)
    metadata = {key: _sayable(str(value)) for key, value in fault.metadata.items()}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)]
    code = CODES[reason]
    if code is _Code.INVALID_ARGUMENT and "field" in metadata:
        violation = error_details_pb2.BadRequest.FieldViolation(field=metadata["field"], description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if reason in _RESOURCE_TYPES:
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=_RESOURCE_TYPES[reason],
                resource_name=metadata.get("resource", ""),
                description=message,
            )
        )
    if reason in (Reason.SHUTTING_DOWN, Reason.DEVICE_BUSY):
        delay = duration_pb2.Duration(seconds=RETRY_SECONDS)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


def _sayable(text: str) -> str:
    """Text that protobuf can carry: file names may hold bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def fault_of(error: SegmentdError) -> Fault:
    """The record of an error."""
    return Fault(error.reason, error.message, error.metadata)


class FaultInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Ends calls that raise with a `google.rpc.Status`; nothing internal leaves the daemon."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        return wrapped(handler, _unary, _streaming)


def _unary(behaviour: Unary) -> Unary:
    async def guarded(request: Any, context: Any) -> Any:
        try:
            return await behaviour(request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await _abort(context, error)

    return guarded


def _streaming(behaviour: Streaming) -> Streaming:
    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for part in answers(behaviour, request, context):
                yield part
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception as error:
            await _abort(context, error)

    return guarded


async def _abort(context: Any, error: Exception) -> None:
    if isinstance(error, SegmentdError):
        fault = fault_of(error)
    else:
        identity = secrets.token_hex(4)
        _log.error("call failed", exc_info=error, id=identity)
        fault = Fault(
            Reason.INTERNAL, f"internal error {identity}: the daemon's log has the details; report it"
        )
    await context.abort_with_status(rpc_status.to_status(status_of(fault)))
