"""The connection to ZEN: TLS, token, and a stream of messages that is opened again when it breaks."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import Int32Value

from segmentctl.bridges.zen import experiment_streaming_pb2 as zen
from segmentctl.bridges.zen import experiment_streaming_pb2_grpc
from segmentctl.calls import GuardedStream

DEFAULT_ADDRESS = "localhost:5002"

_FIRST_DELAY, _LONGEST_DELAY = 0.2, 10.0  # seconds between attempts to connect again
_NOTHING_RUNS_SECONDS = 1.0  # until ZEN is asked again
_LARGEST_MESSAGE = (1 << 30) + (1 << 20)  # a frame of 1 GiB, and what comes with it
_Code = grpc.StatusCode
_FINAL = {
    _Code.UNAUTHENTICATED,
    _Code.PERMISSION_DENIED,
    _Code.UNIMPLEMENTED,
    _Code.INVALID_ARGUMENT,
    _Code.NOT_FOUND,
    _Code.RESOURCE_EXHAUSTED,
}


class ZenError(Exception):
    """ZEN refused, or does not answer; the text says what to do."""


@dataclass(frozen=True)
class ZenConnection:
    """Where ZEN's API is, and how to get in.

    Attributes
    ----------
    address : str
        `HOST:PORT` of the gateway.
    token : str
        The control token of the ZEN API.
    ca : Path or str or None
        PEM file of the root certificate that the ZEN API made for itself; without it, that of a public
        authority is expected.
    name : str
        The name in ZEN's certificate, where it is not that of `address`; from another machine mostly
        `localhost`.
    """

    address: str = DEFAULT_ADDRESS
    token: str = ""
    ca: Path | str | None = None
    name: str = ""

    def channel(self) -> grpc.Channel:
        """Open a channel; nothing is sent before the first call.

        Raises
        ------
        ZenError
            If the certificate cannot be read.
        """
        try:
            root = Path(self.ca).read_bytes() if self.ca else None
        except OSError as error:
            raise ZenError(f"ZEN's certificate {self.ca} cannot be read: {error.strerror}") from None
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_reconnect_backoff_ms", int(1000 * _LONGEST_DELAY)),
            # a PC that lost its power looks like a quiet one; asking more often is refused by some servers
            ("grpc.keepalive_time_ms", 300_000),
        ]
        if self.name:
            options.append(("grpc.ssl_target_name_override", self.name))
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(root), options=options)


class ZenStream:
    """Messages of ZEN's pixel stream, over interruptions.

    Parameters
    ----------
    connection : ZenConnection
        Where to.
    experiment : str
        Only the experiment with this id; by default whatever runs.
    channel : int or None
        Only this channel; what ZEN need not send costs nothing.
    partial : bool
        Parts of frames as the camera reads them out, instead of complete frames.
    on_interruption : callable
        Called with what happened and the seconds until the next attempt.
    """

    def __init__(
        self,
        connection: ZenConnection,
        *,
        experiment: str = "",
        channel: int | None = None,
        partial: bool = False,
        on_interruption: Callable[[str, float], object] = lambda cause, delay: None,
    ) -> None:
        self._connection, self._experiment, self._channel_index = connection, experiment, channel
        self._partial, self._on_interruption = partial, on_interruption
        self._closed = threading.Event()
        self._call: GuardedStream[Any] | None = None
        self._failures = 0

    def close(self) -> None:
        """End the stream, also from another thread."""
        self._closed.set()
        if self._call is not None:
            self._call.close()

    def messages(self, idle_seconds: float | None = None) -> Iterator[zen.FrameData]:
        """Yield messages until `close`, or until none came for `idle_seconds`.

        Raises
        ------
        ZenError
            If ZEN refuses, or the first attempt finds no ZEN.
        """
        heard, last = False, time.monotonic()
        with self._connection.channel() as channel:
            while not self._closed.is_set():
                try:
                    for message in self._open(channel, idle_seconds):
                        heard, last, self._failures = True, time.monotonic(), 0
                        yield message.frame_data
                        last = time.monotonic()
                    heard, delay = True, _NOTHING_RUNS_SECONDS  # nothing runs any more, or yet
                except grpc.RpcError as error:
                    over = idle_seconds is not None and time.monotonic() - last >= idle_seconds
                    if self._closed.is_set() or over:
                        return
                    delay = self._recover(error, heard)
                if idle_seconds is not None and time.monotonic() - last >= idle_seconds:
                    return
                self._closed.wait(delay)

    def _open(self, channel: grpc.Channel, idle_seconds: float | None) -> Iterator[Any]:
        stub = experiment_streaming_pb2_grpc.ExperimentStreamingServiceStub(channel)
        only = None if self._channel_index is None else Int32Value(value=self._channel_index)
        metadata = (("control-token", self._connection.token),)
        if self._experiment:
            call = stub.MonitorExperiment(
                zen.ExperimentStreamingServiceMonitorExperimentRequest(
                    experiment_id=self._experiment, channel_index=only, enable_raw_data=self._partial
                ),
                metadata=metadata,
            )
        else:
            call = stub.MonitorAllExperiments(
                zen.ExperimentStreamingServiceMonitorAllExperimentsRequest(
                    channel_index=only, enable_raw_data=self._partial
                ),
                metadata=metadata,
            )
        self._call = GuardedStream(call, idle_seconds or threading.TIMEOUT_MAX)
        if self._closed.is_set():  # by another thread, which could not see this call yet
            self._call.close()
        try:
            yield from self._call
        finally:
            self._call.close()

    def _recover(self, error: grpc.RpcError, heard: bool) -> float:
        """Give the seconds until the next attempt, longer each time."""
        code = error.code() if isinstance(error, grpc.Call) else _Code.UNKNOWN
        details = (error.details() if isinstance(error, grpc.Call) else str(error)) or "no details"
        if code in _FINAL or not heard:
            raise ZenError(self._explained(code, details)) from error
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(self._failures, 10)) * random.uniform(0.8, 1.2)
        self._failures += 1
        self._on_interruption(f"{code.name}: {details}", delay)
        return delay

    def _explained(self, code: grpc.StatusCode, details: str) -> str:
        address = self._connection.address
        if code in (_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED):
            return (
                f"ZEN at {address} refuses the control token ({details}). Copy it anew from the settings "
                "of the ZEN API."
            )
        if code is _Code.UNIMPLEMENTED:
            return f"{address} has no pixel stream ({details}). Is it the ZEN API, of ZEN 3.11 or later?"
        if any(word in details.lower() for word in ("certificate", "handshake", "verification")):
            return (
                f"ZEN at {address} does not pass for itself ({details}). Give the root certificate of the "
                "ZEN API (ca), and the name in its certificate if it is not that of the address (name)."
            )
        if code is _Code.UNAVAILABLE:
            return f"No ZEN API answers at {address} ({details}). Is ZEN running, with its API switched on?"
        return f"ZEN at {address} refuses: {code.name}, {details}"
