"""Calls that take too long, uploads that stall, and too many calls of one address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.rpc.access import SCOPES
from segmentd.rpc.call_limits import LONG_CALLS, LimitInterceptor
from segmentd.rpc.faults import FaultInterceptor

REMOTE = "ipv4:192.0.2.7"


def test_long_calls_are_calls() -> None:
    assert {method.rpartition("/")[2] for method in SCOPES} >= LONG_CALLS


async def never(request: Any, context: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


async def count(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return str([len(request) async for request in requests]).encode()


@asynccontextmanager
async def served(folder: Path, limits: LimitInterceptor) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[FaultInterceptor(), limits])
    handlers = {
        "GetModel": grpc.unary_unary_rpc_method_handler(never),
        "LoadModel": grpc.unary_unary_rpc_method_handler(never),
        "ImportModel": grpc.stream_unary_rpc_method_handler(count),
    }
    generic = grpc.method_handlers_generic_handler("segmentd.v1.ModelService", handlers)
    server.add_generic_rpc_handlers((generic,))
    server.add_insecure_port(f"unix:{folder}/s")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{folder}/s") as channel:
            yield channel
    finally:
        await server.stop(0)


async def test_a_call_without_a_deadline_gets_one_unless_it_is_long(tmp_path: Path) -> None:
    async with served(tmp_path, LimitInterceptor(call_seconds=0.05)) as channel:
        service = "/segmentd.v1.ModelService/"
        with pytest.raises(grpc.aio.AioRpcError, match="the call took more than") as caught:
            await channel.unary_unary(service + "GetModel")(b"")
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for method, deadline in (("LoadModel", None), ("GetModel", 60.0)):
            call = channel.unary_unary(service + method)(b"", timeout=deadline)
            done, _ = await asyncio.wait([asyncio.ensure_future(call.code())], timeout=0.3)
            assert not done
            call.cancel()


async def test_an_upload_may_not_stall(tmp_path: Path) -> None:
    more = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        for size in range(4):
            yield bytes(size)
        await more.wait()

    method = "/segmentd.v1.ModelService/ImportModel"
    async with served(tmp_path, LimitInterceptor(upload_seconds=0.05)) as channel:
        with pytest.raises(
            grpc.aio.AioRpcError, match="the next message of the call took more than"
        ) as caught:
            await channel.stream_unary(method)(parts())
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    more.set()
    async with served(tmp_path, LimitInterceptor()) as channel:
        assert await channel.stream_unary(method)(parts()) == b"[0, 1, 2, 3]"


async def test_an_address_beyond_this_machine_has_so_many_calls_at_a_time() -> None:
    limits = LimitInterceptor(most_calls=2)
    go = asyncio.Event()

    async def wait(request: Any, context: Any) -> str:
        await go.wait()
        return "done"

    async def make(_: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(wait)

    handler = await limits.intercept_service(make, SimpleNamespace(method="/segmentd.v1.X/Y"))  # type: ignore[arg-type]

    def call(peer: str) -> asyncio.Task[Any]:
        context = SimpleNamespace(peer=lambda: peer, time_remaining=lambda: None)
        return asyncio.create_task(handler.unary_unary(None, context))

    held = [call(f"{REMOTE}:{port}") for port in (1, 2)]
    held += [call("ipv4:192.0.2.8:1"), *(call("unix:") for _ in range(5))]
    await asyncio.sleep(0)
    with pytest.raises(SegmentdError, match="2 calls from your address") as refused:
        await call(f"{REMOTE}:3")
    assert refused.value.reason is Reason.TOO_MANY_CALLS
    go.set()
    assert await asyncio.gather(*held) == ["done"] * 8
    assert await call(f"{REMOTE}:3") == "done"
    assert not limits._calls  # nothing is kept of callers who have gone
