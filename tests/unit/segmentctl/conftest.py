"""A tiny daemon on a real socket: the real stubs, a journal in memory, and faults on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from itertools import islice
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.protobuf.empty_pb2 import Empty
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from typer.testing import CliRunner

from segmentctl.cli import app
from segmentd.v1 import (
    model_service_pb2,
    model_service_pb2_grpc,
    pixels_pb2,
    segmentation_service_pb2_grpc,
    server_service_pb2,
    server_service_pb2_grpc,
    watch_service_pb2,
    watch_service_pb2_grpc,
)
from segmentd.v1 import segmentation_service_pb2 as pb

HEIGHT, WIDTH, ROWS = 6, 5, 2  # a plane of three blocks
PAGE = 2


def status(code: grpc.StatusCode, reason: str, message: str, **metadata: str) -> status_pb2.Status:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="segmentd", metadata=metadata))
    return status_pb2.Status(code=code.value[0], message=message, details=[detail])


def abort(context: grpc.ServicerContext, code: str, reason: str, message: str, **metadata: str) -> None:
    context.abort_with_status(
        rpc_status.to_status(status(grpc.StatusCode[code], reason, message, **metadata))
    )


class FakeDaemon(
    segmentation_service_pb2_grpc.SegmentationServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
    watch_service_pb2_grpc.WatchServiceServicer,
    server_service_pb2_grpc.ServerServiceServicer,
):
    """Serves `events`; `cuts` says after how many parts each stream in turn breaks off.

    A cut is a number of parts; after the last one streams last. `cut_with` is how they break.
    """

    def __init__(self) -> None:
        self.events: list[pb.Segmentation] = []
        self.changed = threading.Condition()
        self.cuts: list[int] = []
        self.cut_with = "abort"
        self.requests: list[pb.SubscribeSegmentationsRequest] = []
        self.uploads: list[Any] = []
        self.watch_requests: list[Any] = []
        self.silent = False
        self.port = 0
        self.start()

    # ------------------------------------------------------------ life

    def start(self) -> None:
        self.server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        segmentation_service_pb2_grpc.add_SegmentationServiceServicer_to_server(self, self.server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self.server)
        watch_service_pb2_grpc.add_WatchServiceServicer_to_server(self, self.server)
        server_service_pb2_grpc.add_ServerServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.stopping = False
        self.server.start()

    def stop(self) -> None:
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        self.server.stop(0).wait()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    # ------------------------------------------------------------ journal

    def publish(self, watch: str = "plate", source: str = "a.tif", **fields: Any) -> int:
        with self.changed:
            number = len(self.events) + 1
            state = fields.pop("state", pb.Segmentation.STATE_SUCCEEDED)
            self.events.append(
                pb.Segmentation(
                    name=f"watches/{watch}/segmentations/s{number}",
                    state=state,
                    source=source.encode(),
                    source_display=source,
                    height=HEIGHT,
                    width=WIDTH,
                    classes=[pixels_pb2.PixelClass(value=1, display_name="nucleus", color="#ff0000")],
                    label_pixel_counts=[10, 20],
                    plane_count=1,
                    **fields,
                )
            )
            self.changed.notify_all()
        return number

    @staticmethod
    def pixels(number: int) -> tuple[np.ndarray, np.ndarray]:
        labels = (np.arange(HEIGHT * WIDTH, dtype=np.uint8) + number).reshape(HEIGHT, WIDTH) % 3
        return labels, labels * 30

    @classmethod
    def blocks(cls, number: int) -> list[pixels_pb2.Block]:
        labels, confidence = cls.pixels(number)
        return [
            pixels_pb2.Block(
                region=pixels_pb2.Region(y=y, x=0, height=ROWS, width=WIDTH),
                labels=labels[y : y + ROWS].tobytes(),
                confidence=confidence[y : y + ROWS].tobytes(),
                encoding=pixels_pb2.ENCODING_RAW,
            )
            for y in range(0, HEIGHT, ROWS)
        ]

    # ------------------------------------------------------------ SegmentationService

    def SubscribeSegmentations(self, request, context):  # noqa: N802
        self.requests.append(request)
        position = self._position(request, context)
        cut = self.cuts.pop(0) if self.cuts else None
        parts = self._parts(request, position)
        if cut is None:
            yield from parts
        else:
            yield from islice(parts, cut)
            if self.cut_with == "end":
                return
        abort(context, "UNAVAILABLE", "SHUTTING_DOWN", "segmentd is stopping")

    def _position(self, request, context) -> int:
        if not request.cursor:
            return 0 if request.start == request.START_OLDEST else len(self.events)
        journal, _, number = request.cursor.partition("-")
        if journal != "j":
            abort(context, "FAILED_PRECONDITION", "CURSOR_UNKNOWN", "another journal")
        if int(number) < 0:
            abort(context, "OUT_OF_RANGE", "CURSOR_EXPIRED", "too old", oldest_cursor="j-0")
        return int(number)

    def _parts(self, request, position: int) -> Iterator[pb.SubscribeSegmentationsResponse]:
        part = pb.SubscribeSegmentationsResponse
        yield part(cursor=f"j-{position}")
        while True:
            with self.changed:
                while not self.stopping and (self.silent or len(self.events) <= position):
                    self.changed.wait()
                if self.stopping:
                    return
                event = self.events[position]
            position += 1
            cursor = f"j-{position}"
            if not event.name.startswith(f"{request.parent}/") and request.parent != "watches/-":
                yield part(cursor=cursor)
                continue
            pixels = event.state == event.STATE_SUCCEEDED and not request.metadata_only
            blocks = self.blocks(position) if pixels else []
            head = part.Head(segmentation=event, number=position, block_count=len(blocks))
            yield part(head=head, cursor="" if blocks else cursor)
            for index, block in enumerate(blocks):
                yield part(block=block, cursor=cursor if index == len(blocks) - 1 else "")

    def ListSegmentations(self, request, context):  # noqa: N802
        start = int(request.page_token or 0)
        end = start + PAGE
        return pb.ListSegmentationsResponse(
            segmentations=self.events[start:end], next_page_token=str(end) if end < len(self.events) else ""
        )

    def GetSegmentation(self, request, context):  # noqa: N802
        for event in self.events:
            if event.name == request.name:
                return event
        return abort(context, "NOT_FOUND", "SEGMENTATION_NOT_FOUND", f"no {request.name}")

    def ReadSegmentation(self, request, context):  # noqa: N802
        number = int(request.name.rpartition("s")[2])
        if not request.HasField("region"):
            for block in self.blocks(number):
                yield pb.ReadSegmentationResponse(block=block)
            return
        region = request.region
        labels, confidence = self.pixels(number)
        place = (slice(region.y, region.y + region.height), slice(region.x, region.x + region.width))
        block = pixels_pb2.Block(
            region=region,
            labels=labels[place].tobytes(),
            confidence=confidence[place].tobytes(),
            encoding=pixels_pb2.ENCODING_RAW,
        )
        yield pb.ReadSegmentationResponse(block=block)

    def SegmentPlane(self, request_iterator, context):  # noqa: N802
        """Label what is not 0 in the first channel, with the minimum confidence as confidence."""
        head = next(request_iterator).head
        data = b""
        for request in request_iterator:
            data += request.pixels
        self.uploads.append((head, data))
        if head.channel_count > 2:
            abort(context, "INVALID_ARGUMENT", "CHANNEL_COUNT_MISMATCH", "too many channels")
        dtype = {pixels_pb2.PIXEL_TYPE_UINT8: "u1", pixels_pb2.PIXEL_TYPE_UINT16: "<u2"}[head.pixel_type]
        image = np.frombuffer(data, dtype).reshape(head.channel_count, head.height, head.width)
        labels = (image[0] > 0).astype(np.uint8)
        for y in range(head.height):
            block = pixels_pb2.Block(
                region=pixels_pb2.Region(y=y, x=0, height=1, width=head.width),
                labels=labels[y].tobytes(),
                confidence=bytes([head.min_confidence]) * head.width,
                encoding=pixels_pb2.ENCODING_RAW,
            )
            yield pb.SegmentPlaneResponse(block=block)
        summary = pb.Segmentation(height=head.height, width=head.width, device="cpu", model=head.model)
        yield pb.SegmentPlaneResponse(summary=summary)

    # ------------------------------------------------------------ the other services

    def GetServer(self, request, context):  # noqa: N802
        device = server_service_pb2.Server.Device(name="cpu", display_name="a processor", thread_count=2)
        server = server_service_pb2.Server(name=request.name, version="1.2.3", devices=[device])
        server.uptime.FromSeconds(3700)
        server.journal_size_bytes, server.images_per_minute = 3 << 20, 12
        server.recent_failures.add(
            segmentation="watches/plate/segmentations/s4",
            source_display="bad.tif",
            reason="IMAGE_CORRUPT",
            message="it is damaged",
        )
        return server

    def ListModels(self, request, context):  # noqa: N802
        index = int(request.page_token or 0)
        model = self._model(f"models/m{index}")
        return model_service_pb2.ListModelsResponse(models=[model], next_page_token="1" if index == 0 else "")

    def GetModel(self, request, context):  # noqa: N802
        if request.name == "models/missing":
            abort(
                context,
                "NOT_FOUND",
                "MODEL_NOT_FOUND",
                "no model 'missing'",
                resource="missing",
            )
        return self._model(request.name)

    LoadModel = UnloadModel = GetModel

    def ListWatches(self, request, context):  # noqa: N802
        watch = watch_service_pb2.Watch(
            name="watches/plate",
            folder_display="/data/plate",
            model="models/m0",
            state=watch_service_pb2.Watch.STATE_UNREACHABLE,
            state_reason="the share is gone",
            mode=watch_service_pb2.Watch.MODE_POLL,
            done_count=7,
        )
        return watch_service_pb2.ListWatchesResponse(watches=[watch])

    def GetWatch(self, request, context):  # noqa: N802
        return watch_service_pb2.Watch(name=request.name, mode_reason="a share", mode=2, tile_pixels=64)

    def CreateWatch(self, request, context):  # noqa: N802
        self.watch_requests.append(request)
        if request.watch_id == "taken":
            abort(context, "ALREADY_EXISTS", "WATCH_EXISTS", "there is a watch 'taken' already")
        answer = watch_service_pb2.Watch(name=f"watches/{request.watch_id}", folder_display="/data/new")
        return answer

    def UpdateWatch(self, request, context):  # noqa: N802
        self.watch_requests.append(request)
        return request.watch

    def PauseWatch(self, request, context):  # noqa: N802
        self.watch_requests.append(request)
        return watch_service_pb2.Watch(name=request.name, state=watch_service_pb2.Watch.STATE_PAUSED)

    ResumeWatch = PauseWatch

    def DeleteWatch(self, request, context):  # noqa: N802
        self.watch_requests.append(request)
        return Empty()

    def _model(self, name: str) -> model_service_pb2.Model:
        return model_service_pb2.Model(
            name=name,
            state=model_service_pb2.Model.STATE_ACTIVE,
            pixel_type=pixels_pb2.PIXEL_TYPE_UINT16,
            channel_count=1,
        )


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    fake = FakeDaemon()
    yield fake
    fake.stop()


@pytest.fixture
def run(daemon: FakeDaemon) -> Any:
    """Run a command of `segmentctl` against the fake daemon."""

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["--address", daemon.address, *arguments])

    return invoke
