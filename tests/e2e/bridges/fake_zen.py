"""A ZEN API that plays experiments of real images: TLS, token, tiles, stacks, breaks in the connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.wrappers_pb2 import DoubleValue

from segmentctl.bridges.zen import experiment_streaming_pb2 as zen
from segmentctl.bridges.zen import experiment_streaming_pb2_grpc as services

from ..certificates import Pair

TOKEN = "f00d-control"
MICROMETRE = 1e-6
_TYPES = {
    ("uint8", 2): zen.PIXEL_TYPE_GRAY8,
    ("uint16", 2): zen.PIXEL_TYPE_GRAY16,
    ("uint8", 3): zen.PIXEL_TYPE_BGR24,
    ("uint16", 3): zen.PIXEL_TYPE_BGR48,
}

Step = zen.FrameData | Callable[[], object]


def message(
    pixels: npt.NDArray[np.generic],
    number: int = 0,
    *,
    experiment: str = "exp-1",
    at: tuple[int, int] = (0, 0),
    rows: slice = slice(None),
    **position: int,
) -> zen.FrameData:
    """Make a message of a frame (Y, X) or (Y, X, BGR), or of some rows of it."""
    part = pixels[rows]
    return zen.FrameData(
        experiment_id=experiment,
        frame_number=number,
        frame_position=zen.FramePosition(x=at[1], y=at[0], **position),
        frame_size=zen.IntSize(width=pixels.shape[1], height=pixels.shape[0]),
        frame_stage_position=zen.FrameStagePosition(
            x=DoubleValue(value=at[1] * MICROMETRE), y=DoubleValue(value=at[0] * MICROMETRE)
        ),
        scaling=zen.Scaling(x=MICROMETRE / 2, y=MICROMETRE / 2),
        pixel_data=zen.FramePixelData(
            start_position=zen.IntPoint(x=0, y=rows.start or 0),
            size=zen.IntSize(width=part.shape[1], height=part.shape[0]),
            pixel_type=_TYPES[pixels.dtype.name, pixels.ndim],
            raw_data=part.tobytes(),
        ),
    )


def partly(frame: zen.FrameData, lines: int) -> list[zen.FrameData]:
    """Cut the message of a complete frame as `enable_raw_data` does."""
    data, size = frame.pixel_data, frame.frame_size
    stride = len(data.raw_data) // size.height
    parts = []
    for top in range(0, size.height, lines):
        height = min(lines, size.height - top)
        part = zen.FrameData()
        part.CopyFrom(frame)
        part.pixel_data.start_position.y = top
        part.pixel_data.size.height = height
        part.pixel_data.raw_data = data.raw_data[top * stride : (top + height) * stride]
        parts.append(part)
    return parts


@dataclass
class FakeZen(services.ExperimentStreamingServiceServicer):
    """Plays one list of steps for each call; a step that is callable is called, and may abort it.

    Attributes
    ----------
    experiments : list of list of steps
        What the calls get, one after the other; later ones get nothing, as when nothing runs.
    requests : list
        What the calls asked for.
    """

    experiments: list[Sequence[Step]]
    lines: int = 64
    requests: list[Any] = field(default_factory=list)
    address: str = ""

    def MonitorAllExperiments(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        answer = zen.ExperimentStreamingServiceMonitorAllExperimentsResponse
        return (answer(frame_data=frame) for frame in self._play(request, context))

    def MonitorExperiment(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        answer = zen.ExperimentStreamingServiceMonitorExperimentResponse
        frames = self._play(request, context)
        return (answer(frame_data=each) for each in frames if each.experiment_id == request.experiment_id)

    def _play(self, request: Any, context: Any) -> Iterator[zen.FrameData]:
        if dict(context.invocation_metadata()).get("control-token") != TOKEN:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")
        self.requests.append(request)
        for step in self.experiments.pop(0) if self.experiments else ():
            if not isinstance(step, zen.FrameData):
                step_result = step()
                if isinstance(step_result, grpc.StatusCode):
                    context.abort(step_result, "the gateway was restarted")
                continue
            if request.HasField("channel_index") and step.frame_position.c != request.channel_index.value:
                continue
            yield from partly(step, self.lines) if request.enable_raw_data else [step]

    def serve(self, pair: Pair) -> grpc.Server:
        """Start at a port of its own, with TLS only; `address` is set."""
        server = grpc.server(
            ThreadPoolExecutor(4),
            options=[("grpc.max_send_message_length", 1 << 28), ("grpc.so_reuseport", 0)],
        )
        services.add_ExperimentStreamingServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        keys = [(pair.key.read_bytes(), pair.certificate.read_bytes())]
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(keys))
        self.address = f"127.0.0.1:{port}"
        server.start()
        return server


def gap() -> grpc.StatusCode:
    """A step that breaks the connection."""
    return grpc.StatusCode.UNAVAILABLE


def hold(event: threading.Event) -> Callable[[], object]:
    """A step that waits."""
    return lambda: event.wait(60)


def mosaic(
    image: npt.NDArray[np.generic], rows: int, columns: int
) -> Iterable[tuple[int, tuple[int, int], npt.NDArray[np.generic]]]:
    """Cut an image into tiles: number, corner (y, x) and pixels of each."""
    height, width = image.shape[0] // rows, image.shape[1] // columns
    for tile in range(rows * columns):
        y, x = tile // columns * height, tile % columns * width
        yield tile, (y, x), image[y : y + height, x : x + width]
