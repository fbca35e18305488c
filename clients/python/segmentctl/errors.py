"""What goes wrong between a client and the daemon, as Python exceptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

if TYPE_CHECKING:
    from google.rpc import status_pb2

UNREACHABLE = "DAEMON_UNREACHABLE"
"""Reason of a `DaemonError` when nothing answers; the daemon itself never gives it."""


_TOKEN_HINT = ". Give it with --token-file FILE, SEGMENTD_TOKEN_FILE, SEGMENTD_TOKEN or Client(token=...)."

# What gRPC says of a handshake that failed, and what it means here.
_HANDSHAKES = {
    "CERTIFICATE_VERIFY_FAILED": (
        "No authority that you trust vouches for the certificate of the server at {}. Give the daemon's: "
        "--ca FILE or SEGMENTD_CA."
    ),
    "Hostname Verification": (
        "The certificate of the server at {} is for another name. Use a name that is in the certificate."
    ),
    "is not in peer certificate": (
        "The certificate of the server at {} is for another name. Use a name that is in the certificate."
    ),
    "WRONG_VERSION_NUMBER": (
        "The server at {} does not use TLS. Leave --ca and --certificate, or "
        "SEGMENTD_CA and SEGMENTD_CERTIFICATE, out."
    ),
    "failed to connect to all addresses; last error: UNAVAILABLE": (
        "The server at {} closes the connection at once. If it uses TLS, give its authority: --ca FILE or "
        "SEGMENTD_CA; if it asks for client certificates, one that it accepts: --certificate FILE --key FILE."
    ),
}


class DaemonError(Exception):
    """The daemon refused or failed, or could not be reached.

    Attributes
    ----------
    reason : str
        Stable name of the cause, such as `MODEL_NOT_FOUND`; `DAEMON_UNREACHABLE` when nothing
        answers.
    message : str
        What is wrong and what to do, for people. Its text may change.
    metadata : mapping of str to str
        What varies in the message, such as `oldest_cursor` of reason `CURSOR_EXPIRED`.
    code : str
        Name of the gRPC status code, such as `NOT_FOUND`.
    """

    def __init__(
        self, reason: str, message: str, metadata: Mapping[str, str] | None = None, code: str = "UNKNOWN"
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.code = code

    def __str__(self) -> str:
        return self.message


class StreamError(DaemonError):
    """The daemon sent messages that do not fit together: a fault of the daemon or of this client."""

    def __init__(self, message: str) -> None:
        super().__init__("BAD_STREAM", message, code="DATA_LOSS")


def from_status(status: status_pb2.Status) -> DaemonError:
    """Translate a `google.rpc.Status`: a failed call, or why a segmentation failed."""
    code = _code_name(status.code)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            return DaemonError(info.reason, status.message, info.metadata, code)
    return DaemonError(code, status.message, code=code)


def from_rpc_error(error: grpc.RpcError, address: str) -> DaemonError:
    """Translate what a gRPC call raised; `address` is where the daemon was expected."""
    if not isinstance(error, grpc.Call):
        return DaemonError("UNKNOWN", str(error))
    status = _status_of(error)
    if status is not None:
        refused = from_status(status)
        if refused.reason == "UNAUTHENTICATED":
            refused.message += _TOKEN_HINT
        return refused
    code = error.code()
    details = error.details() or "no details"
    if code is grpc.StatusCode.UNAVAILABLE:
        return DaemonError(UNREACHABLE, _unreachable(address, details), {"address": address}, code.name)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        message = (
            f"The server at {address} does not know this call ({details}). "
            "Is it segmentd, and as new as this client?"
        )
        return DaemonError(code.name, message, {"address": address}, code.name)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"segmentd at {address} did not answer in time. Try again, or look at its log."
        return DaemonError(code.name, message, {"address": address}, code.name)
    return DaemonError(code.name, f"The call to {address} failed: {details}", code=code.name)


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn gRPC errors inside the block into `DaemonError`."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, address) from error


def _status_of(call: grpc.Call) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(call)
    except ValueError:  # details that contradict the call's own code: the code is what counts
        return None


def _code_name(number: int) -> str:
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return code.name
    return "UNKNOWN"


def _unreachable(address: str, details: str) -> str:
    for sign, meaning in _HANDSHAKES.items():
        if sign in details and ("handshake" in details.lower() or details.endswith("Socket closed")):
            return meaning.format(address)
    cause = details.rpartition(": ")[2]  # what comes before is gRPC's own bookkeeping
    if "[" not in cause:
        cause = cause.rstrip("]")  # that of the bookkeeping
    return (
        f"No segmentd answers at {address} ({cause}). Start it with `segmentd run`, or give the "
        "address that it printed after READY: --address HOST:PORT or SEGMENTCTL_ADDRESS."
    )
