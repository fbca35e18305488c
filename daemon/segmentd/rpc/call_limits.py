"""How long a call may take and how many there may be: no caller holds on to what others need."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc

from segmentd.errors import Reason, SegmentdError
from segmentd.rpc.access import is_local
from segmentd.rpc.handlers import Streaming, Unary, answers, wrapped

CALL_SECONDS = 30.0
UPLOAD_SECONDS = 60.0
MOST_CALLS = 256
_OURS = "/segmentd.v1."
# What loads, copies or trains, or waits until something is finished.
LONG_CALLS = frozenset(
    {
        "LoadModel",
        "UnloadModel",
        "UpdateModel",
        "DeleteModel",
        "CloneModel",
        "RollbackModel",
        "CreateWatch",
        "UpdateWatch",
        "DeleteWatch",
        "CreateTraining",
        "DeleteTraining",
        "CancelTraining",
        "SuggestTrainingRegions",
        "ConvertSegmentationToLabels",
        "SaveTrainingModel",
        "ModelInfer",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    }
)
"""Calls without a deadline of ours; the caller's own always counts."""


class LimitInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Gives calls a deadline that come without one, and each client a number of calls at a time.

    Parameters
    ----------
    call_seconds : float
        How long a call with one request and one answer may take if the caller sets no deadline.
    upload_seconds : float
        How long a caller may send nothing while we wait for its next message.
    most_calls : int
        Calls at a time from one address beyond this machine. Here, and there too, gRPC limits those of each
        connection.
    """

    def __init__(
        self,
        call_seconds: float = CALL_SECONDS,
        upload_seconds: float = UPLOAD_SECONDS,
        most_calls: int = MOST_CALLS,
    ) -> None:
        self._call_seconds = call_seconds
        self._upload_seconds = upload_seconds
        self._most_calls = most_calls
        self._calls: Counter[str] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        uploads = handler.request_streaming and method.startswith(_OURS)
        limited = not handler.request_streaming and method.rpartition("/")[2] not in LONG_CALLS

        def taken(request: Any) -> Any:
            return self._patient(request) if uploads else request

        def unary(behaviour: Unary) -> Unary:
            async def within(request: Any, context: Any) -> Any:
                seconds = self._call_seconds if limited and context.time_remaining() is None else None
                with self._counted(context.peer()):
                    async with _within(seconds, "the call"):
                        return await behaviour(taken(request), context)

            return within

        def streaming(behaviour: Streaming) -> Streaming:
            async def within(request: Any, context: Any) -> AsyncIterator[Any]:
                with self._counted(context.peer()):
                    async for part in answers(behaviour, taken(request), context):
                        yield part

            return within

        return wrapped(handler, unary, streaming)

    @contextmanager
    def _counted(self, peer: str) -> Iterator[None]:
        if is_local(peer):
            yield
            return
        client = peer.rpartition(":")[0]
        if self._calls[client] >= self._most_calls:
            raise SegmentdError(
                Reason.TOO_MANY_CALLS,
                f"{self._most_calls} calls from your address are in work; end some, or try again later",
            )
        self._calls[client] += 1
        try:
            yield
        finally:
            self._calls[client] -= 1
            if not self._calls[client]:
                del self._calls[client]

    async def _patient(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Pass on what a caller sends while it comes."""
        messages = aiter(requests)
        end = object()
        while True:
            async with _within(self._upload_seconds, "the next message of the call"):
                message = await anext(messages, end)
            if message is end:
                return
            yield message


@asynccontextmanager
async def _within(seconds: float | None, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise SegmentdError(
            Reason.CALL_TOO_SLOW,
            f"{what} took more than {seconds:g} s, and the daemon waits no longer; try again, or set a "
            "deadline of your own",
        ) from error
