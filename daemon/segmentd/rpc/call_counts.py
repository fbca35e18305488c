"""How often each call of the API was made, and how it ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from segmentd.rpc.handlers import around

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class CallCounts(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Counts calls when they end; stands outside of all other interceptors.

    Attributes
    ----------
    ended : Counter of (str, str)
        Calls by `SERVICE/METHOD` and the name of their gRPC code. Only methods that exist are counted.
    """

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix("/")
        return around(handler, lambda context: self._one(method, context))

    @contextmanager
    def _one(self, method: str, context: Any) -> Iterator[None]:
        name = ""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            name = grpc.StatusCode.CANCELLED.name
            raise
        finally:
            code = context.code()
            number = code.value[0] if isinstance(code, grpc.StatusCode) else code
            self.ended[method, name or _NAMES.get(number or 0, "UNKNOWN")] += 1
