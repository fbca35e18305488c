"""What a hostile client does to a daemon, one way after the other: `python attackers.py SOCKET TOKEN`."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd.v1 import segmentation_service_pb2_grpc as pb_grpc

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CANCELLED_CALLS = 5000
TOO_MANY_CONNECTIONS = 1300
_MIB = 1 << 20


def frame(kind: int, body: bytes) -> bytes:
    """Return a frame of HTTP/2 of the whole connection."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, 0]) + bytes(4) + body


def connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(path)
    return sock


def send(path: str, data: bytes) -> None:
    """Send bytes until they are taken or the daemon has had enough."""
    with suppress(OSError), connected(path) as sock:
        sock.sendall(data)
        sock.recv(1)


async def noise(path: str, token: str) -> None:
    for start in (b"", PREFACE, PREFACE + frame(4, b""), b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"):
        for _ in range(10):
            await asyncio.to_thread(send, path, start + os.urandom(_MIB // 4))


async def half_open(path: str, token: str) -> None:
    """More connections than there may be, of which nothing more is heard; they end by themselves."""
    held = []
    for number in range(TOO_MANY_CONNECTIONS):
        with suppress(OSError):
            held.append(await asyncio.to_thread(connected, path))
            held[-1].send(PREFACE[: number % len(PREFACE)])
    await asyncio.sleep(0.5)
    for sock in held:
        sock.close()


async def cancelled_calls(path: str, token: str) -> None:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        request = pb.SubscribeSegmentationsRequest(parent="watches/-")
        stub = pb_grpc.SegmentationServiceStub(channel)
        for number in range(CANCELLED_CALLS):
            metadata = [("authorization", f"Bearer {token}")] if number % 2 else None
            call = stub.SubscribeSegmentations(request, metadata=metadata)
            if number % 10 == 0:
                with suppress(grpc.RpcError):
                    await call.initial_metadata()
            call.cancel()
            if number % 50 == 0:
                await asyncio.sleep(0)


async def oversize(path: str, token: str) -> None:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", _MIB)]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for _ in range(10):
            for request, metadata in (("x" * (8 * _MIB), "small"), ("x", "x" * 100_000)):
                with suppress(grpc.RpcError):
                    await stub.Check(
                        health_pb2.HealthCheckRequest(service=request), metadata=[("x", metadata)]
                    )


async def ping_flood(path: str, token: str) -> None:
    for _ in range(20):
        await asyncio.to_thread(send, path, PREFACE + frame(4, b"") + frame(6, bytes(8)) * 20_000)


ATTACKS: tuple[Callable[[str, str], Awaitable[None]], ...] = (
    noise,
    half_open,
    cancelled_calls,
    oversize,
    ping_flood,
)


async def attack(path: str, token: str) -> None:
    for one in ATTACKS:
        print(one.__name__, flush=True)
        await one(path, token)


if __name__ == "__main__":
    asyncio.run(attack(sys.argv[1], sys.argv[2]))
