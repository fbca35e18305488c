"""gRPC's handlers of the four kinds of calls, wrapped the same way."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc

Unary = Callable[[Any, Any], Awaitable[Any]]
Streaming = Callable[[Any, Any], AsyncIterator[Any]]


def wrapped(
    handler: Any, unary: Callable[[Unary], Unary], streaming: Callable[[Streaming], Streaming]
) -> Any:
    """Wrap what a handler does: by `unary` where the answer is one message, else by `streaming`."""
    if handler is None:
        return None
    codec = (handler.request_deserializer, handler.response_serializer)
    if handler.response_streaming:
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        return make(streaming(handler.stream_stream or handler.unary_stream), *codec)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(unary(handler.stream_unary), *codec)
    return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), *codec)


def around(handler: Any, enter: Callable[[Any], AbstractContextManager[None]]) -> Any:
    """Run what a handler does inside of what `enter` gives for the call's context."""

    def unary(behaviour: Unary) -> Unary:
        async def inside(request: Any, context: Any) -> Any:
            with enter(context):
                return await behaviour(request, context)

        return inside

    def streaming(behaviour: Streaming) -> Streaming:
        async def inside(request: Any, context: Any) -> AsyncIterator[Any]:
            with enter(context):
                async for part in answers(behaviour, request, context):
                    yield part

        return inside

    return wrapped(handler, unary, streaming)


async def answers(behaviour: Streaming, request: Any, context: Any) -> AsyncIterator[Any]:
    """Yield what a call answers; one that writes by itself, as that of health does, yields nothing."""
    work: Any = behaviour(request, context)
    if inspect.isawaitable(work):
        await work
        return
    async for part in work:
        yield part
