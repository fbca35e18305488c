"""Subscriptions that survive restarts of the daemon."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc

from segmentctl.assemble import PlaneAssembler, Planes, UInt8Array
from segmentctl.calls import GuardedStream, StreamCall
from segmentctl.errors import DaemonError, StreamError, from_rpc_error, from_status
from segmentd.v1 import segmentation_service_pb2 as messages

Part = messages.SubscribeSegmentationsResponse
Head = Part.Head
Connect = Callable[..., StreamCall[Part]]
Interrupted = Callable[[DaemonError, float], None]

_RESUMABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0  # seconds between attempts to connect again


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One segmentation as a subscriber sees it.

    Attributes
    ----------
    number : int
        Its number in the daemon's journal; larger is later.
    cursor : str
        Store it when the result is dealt with; `Client.subscribe(cursor=...)` goes on after it.
    segmentation : segmentd.v1.segmentation_service_pb2.Segmentation
        What it is, how it ended, and where its files are.
    labels, confidence : ndarray of uint8 (Y, X), or None
        Labels 0 (unlabelled) to K, and percent. Both are None without pixels: see `error`, or
        `metadata_only` was asked for. Confidence is None when the watch does not write it.
    error : DaemonError or None
        Why the segmentation failed, or why its pixels are gone.
    preview : bool
        The image is still in work: `number` is 0, `cursor` is empty, and a result follows.
    """

    number: int
    cursor: str
    segmentation: messages.Segmentation
    labels: UInt8Array | None = None
    confidence: UInt8Array | None = None
    error: DaemonError | None = None
    preview: bool = False


class Subscription(Iterator[Result]):
    """Results in the order of the journal, each once, without a gap; see `Client.subscribe`.

    When the stream breaks, it is opened again after the last result that came completely. Use it as
    an iterator; `close` ends it, also from another thread.
    """

    def __init__(
        self,
        connect: Connect,
        request: messages.SubscribeSegmentationsRequest,
        *,
        address: str,
        timeout: float | None = None,
        idle_seconds: float = 60.0,
        on_interruption: Interrupted | None = None,
    ) -> None:
        self._connect = connect
        self._request = request
        self._address = address
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._idle_seconds = idle_seconds
        self._on_interruption = on_interruption
        self._closed = threading.Event()
        self._stream: GuardedStream[Part] | None = None
        self._items: Iterator[Result | str] = iter(())
        self._heard = False
        self._failures = 0

    @property
    def cursor(self) -> str:
        """The position so far. Heartbeats move it on, also past results of other watches."""
        return self._request.cursor

    def __next__(self) -> Result:
        while not self._closed.is_set():
            try:
                item = self._next_item()
            except StopIteration:
                self._recover(DaemonError("STREAM_ENDED", f"segmentd at {self._address} ended the stream."))
            except grpc.RpcError as error:
                self._recover_from(error)
            except DaemonError:
                self.close()
                raise
            else:
                if isinstance(item, Result):
                    return item
        raise StopIteration

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self.close()

    def close(self) -> None:
        """End the subscription."""
        self._closed.set()
        if self._stream is not None:
            self._stream.close()

    def _next_item(self) -> Result | str:
        if self._stream is None:
            call = self._connect(self._request, timeout=self._remaining())
            self._stream = GuardedStream(call, self._idle_seconds)
            self._items = collect(self._stream)
            if self._closed.is_set():  # by another thread, which could not see this stream yet
                self._stream.close()
        item = next(self._items)
        cursor = item if isinstance(item, str) else item.cursor
        if cursor:  # a preview has none
            self._request.cursor = cursor
        self._heard, self._failures = True, 0
        return item

    def _recover_from(self, error: grpc.RpcError) -> None:
        code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
        if self._closed.is_set():
            return
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and self._deadline is not None:
            self.close()
        elif code in _RESUMABLE and self._heard:
            self._recover(from_rpc_error(error, self._address))
        else:
            self.close()
            raise from_rpc_error(error, self._address) from error

    def _recover(self, cause: DaemonError) -> None:
        """Wait a little, longer each time, and let the next attempt begin."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(self._failures, 10)) * random.uniform(0.8, 1.2)
        self._failures += 1
        if self._on_interruption is not None:
            self._on_interruption(cause, delay)
        remaining = self._remaining()
        self._closed.wait(delay if remaining is None else min(delay, remaining))
        if remaining is not None and remaining <= delay:
            self.close()

    def _remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())


def collect(parts: Iterator[Part]) -> Iterator[Result | str]:
    """Turn the parts of one stream into results, and heartbeats into their cursors.

    A segmentation that the stream breaks off in the middle of is dropped.

    Raises
    ------
    StreamError
        If the parts are not in the order that the API promises.
    """
    for part in parts:
        kind = part.WhichOneof("part")
        if kind == "block":
            raise StreamError("a block came without the head of its segmentation")
        if kind == "head":
            result = _complete(part, parts)
            if result is None:
                return
            yield result
        elif part.cursor:
            yield part.cursor
        else:
            raise StreamError("a heartbeat came without a cursor")


def _complete(first: Part, parts: Iterator[Part]) -> Result | None:
    """Read the rest of a segmentation; None if the stream ends before it does."""
    head = first.head
    if head.block_count == 0:
        return _result(head, first.cursor)
    assembler = PlaneAssembler(head.segmentation.height, head.segmentation.width)
    cursor = first.cursor
    for _ in range(head.block_count):
        part = next(parts, None)
        if part is None:
            return None
        if part.WhichOneof("part") == "head" and part.head.number == head.number:
            return _complete(part, parts)  # the pixels turned out to be unreadable
        if cursor or part.WhichOneof("part") != "block":
            raise StreamError(f"segmentation {head.number} has fewer blocks than its head says")
        assembler.add(part.block)
        cursor = part.cursor
    return _result(head, cursor, assembler.finish())


def _result(head: Head, cursor: str, planes: Planes | None = None) -> Result:
    if bool(cursor) == head.preview:
        what = "a preview ended with" if cursor else f"segmentation {head.number} ended without"
        raise StreamError(f"{what} a cursor")
    labels, confidence = planes or (None, None)
    return Result(head.number, cursor, head.segmentation, labels, confidence, _error_of(head), head.preview)


def _error_of(head: Head) -> DaemonError | None:
    if head.segmentation.HasField("error"):
        return from_status(head.segmentation.error)
    return from_status(head.blocks_error) if head.HasField("blocks_error") else None
