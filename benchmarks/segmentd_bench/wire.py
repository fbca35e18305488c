"""`wire`: how fast labels and confidence of a large plane travel over gRPC, and planes the other way.

Beside the blocks of the API, a plane goes there and back over the Open Inference Protocol, whose messages
hold whole planes: as bytes, and through shared memory.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from segmentctl import upload
from segmentctl.assemble import PlaneAssembler
from segmentctl.calls import open_channel
from segmentctl.errors import translated
from segmentd.v1 import pixels_pb2, segmentation_service_pb2_grpc
from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd_bench import arrivals, camera, echo, machine, measure, report, subjects
from segmentd_bench.daemon import MODEL, serving

CLASSES = 3
MIB = 1 << 20
IMAGE = "plane.tif"
ECHO_BYTES, ECHO_MEMORY = "echo, bytes", "echo, shared memory"
ENCODINGS = {"raw": pixels_pb2.ENCODING_RAW, "zstd": pixels_pb2.ENCODING_ZSTD}


@dataclass
class _Counted:
    """What was counted of one kind of call each time it was made.

    `pixel_bytes` are those of the pixels before packing, `wire_bytes` those of all messages with pixels.
    """

    name: str
    pixel_bytes: int
    wire_bytes: int = 0
    compute_s: list[float] = field(default_factory=list)


class _Caller:
    """A client that counts bytes and otherwise does what `segmentctl` does.

    Parameters
    ----------
    channel
        The connection.
    plane : array (1, Y, X)
        The plane that is submitted.
    name : str
        Resource name of its segmentation, which is the only one that the daemon has.
    limit_s : float
        Seconds that a call may take.
    """

    def __init__(
        self, channel: grpc.Channel, plane: npt.NDArray[np.generic], name: str, limit_s: float
    ) -> None:
        self._stub = segmentation_service_pb2_grpc.SegmentationServiceStub(channel)
        self._plane = plane
        self._name = name
        self._limit_s = limit_s

    def subscribe(self, encoding: pixels_pb2.Encoding, counted: _Counted) -> None:
        """Subscribe until the segmentation is there."""
        request = pb.SubscribeSegmentationsRequest(
            parent=arrivals.ALL_WATCHES,
            start=pb.SubscribeSegmentationsRequest.START_OLDEST,
            encoding=encoding,
        )
        call = self._stub.SubscribeSegmentations(request, timeout=self._limit_s)
        try:
            self._receive(_first_blocks(call), counted)
        finally:
            call.cancel()

    def read(self, encoding: pixels_pb2.Encoding, counted: _Counted) -> None:
        """Read the segmentation."""
        request = pb.ReadSegmentationRequest(name=self._name, encoding=encoding)
        answers = self._stub.ReadSegmentation(request, timeout=self._limit_s)
        self._receive((answer.block for answer in answers), counted)

    def submit(self, counted: _Counted) -> None:
        """Send the plane to be segmented."""
        head = pb.SegmentPlaneRequest.Head(model=f"models/{MODEL}", encoding=pixels_pb2.ENCODING_RAW)
        upload.fill_head(head, self._plane)

        def blocks() -> Iterator[pixels_pb2.Block]:
            requests = upload.requests(head, self._plane)
            for answer in self._stub.SegmentPlane(requests, timeout=self._limit_s):
                if answer.WhichOneof("part") == "block":
                    yield answer.block
                else:
                    counted.compute_s.append(answer.summary.compute_duration.ToNanoseconds() / 1e9)

        self._receive(blocks(), counted, self._plane.nbytes)

    def _receive(self, blocks: Iterable[pixels_pb2.Block], counted: _Counted, sent: int = 0) -> None:
        assembler = PlaneAssembler(*self._plane.shape[1:])
        first = (
            not counted.wire_bytes
        )  # counting makes another copy of every block, and all calls send the same
        for block in blocks:
            if first:
                counted.wire_bytes += block.ByteSize()
            assembler.add(block)
        assembler.finish()
        if first:
            counted.wire_bytes += sent


def _first_blocks(parts: Iterable[arrivals.Part]) -> Iterator[pixels_pb2.Block]:
    """Blocks of the first segmentation of a stream."""
    for part in parts:
        kind = part.WhichOneof("part")
        if kind == "head":
            arrivals.check(part.head)
        elif kind == "block":
            yield part.block
            if part.cursor:
                return


def run(
    size_px: int, features: str, threads: int, repeats: int, limit_s: float, folder: Path | None
) -> dict[str, Any]:
    """Send a plane through a daemon once, then time every kind of call in turns.

    Returns
    -------
    dict
        `calls`: for each its `ms`, `spread_percent`, `mib` of pixels before packing, `wire_mib`,
        `mib_per_s`, and for a submitted plane `compute_ms` and `transfer_ms`; `shared_memory_speedup`: how
        many times as fast as bytes.
    """
    subject = subjects.texture(size_px, CLASSES)
    model = subjects.trained_model(subject, features)
    with report.progress(2) as step, serving(model, threads, parent=folder) as daemon:
        step("segmenting the plane")
        camera.write(daemon.folders[0], IMAGE, camera.frames(subject)[0])
        with closing(arrivals.follow(daemon.address, limit_s, metadata_only=True)) as stream:
            segmentation = arrivals.take(stream, [IMAGE])[IMAGE].segmentation
        step("measuring in turns")
        with (
            translated(daemon.address),
            closing(open_channel(daemon.address)) as channel,
            echo.opened(daemon.address, subject.pixels[0], limit_s) as echoes,
        ):
            caller = _Caller(channel, subject.pixels, segmentation.name, limit_s)
            counts, works = _works(caller, subject)
            for name, wire_bytes, call in (
                (ECHO_BYTES, echoes.moved_bytes, echoes.as_bytes),
                (ECHO_MEMORY, 0, echoes.through_memory),
            ):
                counts.append(_Counted(name, echoes.moved_bytes, wire_bytes))
                works.append(call)
            timings = measure.interleaved(works, repeats)
    entries = [_entry(*pair, repeats) for pair in zip(counts, timings, strict=True)]
    wall = {call.name: timing.wall_median for call, timing in zip(counts, timings, strict=True)}
    return {
        "subject": subject.name,
        "features": features,
        "megapixels": subject.megapixels,
        "threads": threads,
        "repeats": repeats,
        "warm_ups": 1,
        "calls": entries,
        "shared_memory_speedup": round(wall[ECHO_BYTES] / wall[ECHO_MEMORY], 1),
        "machine": machine.describe(),
    }


def _works(caller: _Caller, subject: subjects.Subject) -> tuple[list[_Counted], list[Callable[[], object]]]:
    """What is counted, and how it is called, for every kind of call."""
    answer_bytes = 2 * subject.labels.size
    works = dict[str, Callable[[_Counted], None]]()
    for text, encoding in ENCODINGS.items():
        works[f"subscribe, {text}"] = partial(caller.subscribe, encoding)
        works[f"read, {text}"] = partial(caller.read, encoding)
    counts = [_Counted(name, answer_bytes) for name in works]
    counts.append(_Counted("submit, raw", answer_bytes + subject.pixels.nbytes))
    calls = [*works.values(), caller.submit]
    return counts, [partial(call, counted) for call, counted in zip(calls, counts, strict=True)]


def _entry(call: _Counted, timing: measure.Timing, repeats: int) -> dict[str, Any]:
    mib = call.pixel_bytes / MIB
    entry = {
        "name": call.name,
        "ms": round(1000 * timing.wall_median, 2),
        "spread_percent": round(timing.spread_percent, 1),
        "mib": round(mib, 3),
        "wire_mib": round(call.wire_bytes / MIB, 3),
        "mib_per_s": round(mib / timing.wall_median, 2),
    }
    if call.compute_s:
        compute = call.compute_s[-repeats:]
        transfer = [whole - part for whole, part in zip(timing.wall, compute, strict=True)]
        entry["compute_ms"] = round(1000 * statistics.median(compute), 2)
        entry["transfer_ms"] = round(1000 * statistics.median(transfer), 2)
        entry["mib_per_s"] = round(mib / statistics.median(transfer), 2)
    return entry


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    keys = ("name", "ms", "spread_percent", "mib", "wire_mib", "mib_per_s", "compute_ms", "transfer_ms")
    rows = [[entry.get(key, "-") for key in keys] for entry in result["calls"]]
    columns = [
        "call",
        "ms",
        "spread %",
        "MiB of pixels",
        "MiB on the wire",
        "MiB/s",
        "compute ms",
        "transfer ms",
    ]
    title = f"{result['subject']} over gRPC on this machine, median of {result['repeats']}"
    speedup = f"through shared memory {result['shared_memory_speedup']} times as fast as bytes"
    report.table(title, columns, rows, f"{speedup}; {report.footer(result['machine'])}")


def plot(result: dict[str, Any], path: Path) -> None:
    """Mebibytes of pixels a second of each kind of call as bars."""
    values = [(entry["name"], float(entry["mib_per_s"])) for entry in result["calls"]]
    title = f"{result['subject']} over gRPC: pixels a second"
    report.bars(path, title, "MiB/s", values, report.footer(result["machine"]))
