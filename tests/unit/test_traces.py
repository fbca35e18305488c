"""OpenTelemetry: a trace for each image, spans for its stages, nothing where nobody asked."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from segmentd import telemetry
from segmentd.engine.lane import CpuLane
from segmentd.engine.slot import Slot
from segmentd.errors import Reason, SegmentdError
from segmentd.telemetry import timeline, traces
from segmentd.telemetry.timeline import Timeline
from segmentd.watches.tally import Tally
from segmentd.workers import WorkerPool

from .pipeline_bench import PIXELS, Bench

STAGES = {"settle", "queue", "read", "compute", "write", "commit", "publish"}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with traces.exported(traces.Traces(provider)):
        yield exporter


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as started:
        yield started


@pytest.fixture
def bench(tmp_path: Path, pool: WorkerPool) -> Iterator[Bench]:
    lane = CpuLane(1)
    made = Bench(tmp_path, pool, lane)
    made.pipeline._ended = Tally().add
    yield made
    made.journal.close()
    lane.close()


async def process(bench: Bench, pixels: Any, **options: Any) -> None:
    """Process a file as a watch does that tells of it."""
    bench.write("a.tif", pixels, **options)
    found = bench.found()
    slot = Slot(bench.scheduler, "hot", 0)
    await slot.acquire()
    ready = found.complete_time_monotonic
    stages = [("settle", ready - 1, ready), ("queue", ready, ready)]
    await telemetry.traced(
        bench.pipeline.process(found, slot, "cells"), partial(Timeline, "image", stages, {"watch": "hot"})
    )
    slot.release()


async def test_an_image_is_a_trace_of_its_stages(bench: Bench, spans: InMemorySpanExporter) -> None:
    await bench.registry.load("cells")
    # Of three planes, which are read and written in other threads.
    await process(bench, np.stack([PIXELS] * 3), photometric="minisblack")
    image, *stages = sorted(spans.get_finished_spans(), key=lambda span: span.parent is not None)
    assert image.name == "image"
    assert image.attributes == {"segmentd.watch": "hot", "segmentd.state": "done", "segmentd.planes": 3}
    assert {span.name for span in stages} == STAGES
    count = {name: sum(span.name == name for span in stages) for name in STAGES}
    assert count["compute"] == count["write"] == 3
    assert image.context is not None
    assert {span.parent.span_id for span in stages if span.parent} == {image.context.span_id}
    assert all(_times(image)[0] <= begin <= end <= _times(image)[1] for begin, end in map(_times, stages))
    settle = next(span for span in stages if span.name == "settle")
    assert _times(settle)[1] - _times(settle)[0] == pytest.approx(1e9, rel=1e-6)


async def test_an_image_that_fails_is_a_trace_with_its_reason(
    bench: Bench, spans: InMemorySpanExporter
) -> None:
    await process(bench, PIXELS.astype(np.uint16))
    (image,) = (span for span in spans.get_finished_spans() if span.parent is None)
    assert image.attributes is not None
    assert image.attributes["segmentd.reason"] == "PIXEL_TYPE_MISMATCH"
    assert not image.status.is_ok


async def test_images_of_many_planes_keep_to_a_limit(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST_STAGES", 5)

    async def work() -> None:
        for _ in range(8):
            with telemetry.stage("read"):
                pass

    await telemetry.traced(work(), partial(Timeline, "image"))
    image, *stages = sorted(spans.get_finished_spans(), key=lambda span: span.parent is not None)
    assert len(stages) == 5
    assert image.attributes == {"segmentd.dropped_stages": 3}


def test_spans_reach_a_collector() -> None:
    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            names.extend(
                span.name
                for one in request.resource_spans
                for scope in one.scope_spans
                for span in scope.spans
            )
            told.set()
            return trace_service_pb2.ExportTraceServiceResponse()

    names: list[str] = []
    told = threading.Event()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    made = traces.to_endpoint(f"http://127.0.0.1:{port}", "1.2.3")
    made.export(Timeline("image", [("read", 1.0, 2.0)]))
    made.close()  # sends what is left
    assert told.wait(30)
    assert sorted(names) == ["image", "read"]
    server.stop(None)


def test_a_collector_that_is_not_there_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def get_tracer(self, name: str) -> None:
            pass

        def shutdown(self) -> None:
            forever.wait()

    forever = threading.Event()
    monkeypatch.setattr(traces, "FLUSH_SECONDS", 0.01)
    made: Any = Stuck()
    traces.Traces(made).close()  # returns
    forever.set()


def test_nothing_is_imported_or_noted_where_nobody_asked() -> None:
    source = (
        "import sys, asyncio, segmentd.settings; from segmentd import telemetry\n"
        "async def work(): telemetry.note('read', 0.0)\n"
        "asyncio.run(telemetry.traced(work(), lambda: 1 / 0))\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus'))]"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SegmentdError, match=r"pip install 'segmentd\[otel\]'") as caught:
        traces.to_endpoint("http://127.0.0.1:1", "1")
    assert caught.value.reason is Reason.MISSING_EXTRA


def _times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None and span.end_time is not None
    return span.start_time, span.end_time
