"""The connection to the daemon: channel options, and streams that notice when nobody is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import grpc

from segmentctl.access import Access
from segmentctl.errors import translated

Message = TypeVar("Message", covariant=True)

_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    # a proxy of the lab's network must not come between a client and a daemon on the same bench
    ("grpc.enable_http_proxy", 0),
    # after a restart the daemon is back in seconds; gRPC by itself would wait up to two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # no state shared with other channels of this process to the same address
    ("grpc.use_local_subchannel_pool", 1),
]


def open_channel(address: str, access: Access | None = None) -> grpc.Channel:
    """Open a channel to `HOST:PORT` or `unix:PATH`; nothing is sent before the first call."""
    return (access or Access()).channel(address, _CHANNEL_OPTIONS)


class Calls:
    """Calls with a short answer: each has a deadline and raises `DaemonError`.

    Parameters
    ----------
    address : str
        Where the daemon is, for messages.
    timeout : float
        Seconds that a call may take unless it is given its own limit.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        self._timeout = timeout

    def ask(self, method: Callable[..., Any], request: Any, timeout: float | None = None) -> Any:
        """Call `method` and give its answer."""
        with translated(self._address):
            return method(request, timeout=timeout or self._timeout)

    def pages(self, method: Callable[..., Any], request: Any) -> Iterator[Any]:
        """Yield one page after the other of a list."""
        while True:
            page = self.ask(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


class StreamCall(Protocol[Message]):
    """The part of gRPC's answer stream that is used here."""

    def __next__(self) -> Message: ...

    def cancel(self) -> bool:
        """End the call; False if it was over already."""
        ...


class GuardedStream(Iterator[Message], Generic[Message]):
    """The messages of a call; waiting too long for one of them cancels the call.

    A connection to a host that lost its power looks like a quiet one. Only the time that the
    consumer spends waiting counts, not what it does between two messages.

    Parameters
    ----------
    call
        The answer stream of a gRPC call.
    idle_seconds : float
        Longest wait for one message.
    """

    def __init__(self, call: StreamCall[Message], idle_seconds: float) -> None:
        self._call = call
        self._idle_seconds = idle_seconds
        self._waiting_since: float | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._guard, name="segmentctl-idle-guard", daemon=True).start()

    def __next__(self) -> Message:
        self._waiting_since = time.monotonic()
        try:
            return next(self._call)
        finally:
            self._waiting_since = None

    def close(self) -> None:
        """Cancel the call, also while another thread waits for its next message."""
        self._ended.set()
        self._call.cancel()

    def _guard(self) -> None:
        while not self._ended.wait(self._idle_seconds / 4):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._idle_seconds:
                self._call.cancel()
                return
