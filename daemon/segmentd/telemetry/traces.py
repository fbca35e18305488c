"""Traces for OpenTelemetry: one for each image, a span for each of its stages.

Needs the extra `otel`, and is imported only where an endpoint is configured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from segmentd.errors import Reason, SegmentdError
from segmentd.telemetry.timeline import Timeline, add_sink, remove_sink

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

FLUSH_SECONDS = 2.0
_SECOND = 1_000_000_000


class Traces:
    """Makes spans of timelines.

    Parameters
    ----------
    provider : TracerProvider
        Where they go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("segmentd")

    def export(self, timeline: Timeline) -> None:
        """Pass on the trace of an image; does not wait for the network."""
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        if not timeline.stages:
            return
        # Stages have times of a clock that never goes back, spans those of the calendar.
        shift = time.time_ns() - time.perf_counter_ns()
        begin = min(stage[1] for stage in timeline.stages)
        image = self._tracer.start_span(timeline.name, start_time=shift + round(begin * _SECOND))
        image.set_attributes({f"segmentd.{key}": value for key, value in timeline.about.items()})
        if timeline.dropped:
            image.set_attribute("segmentd.dropped_stages", timeline.dropped)
        if "reason" in timeline.about:
            image.set_status(Status(StatusCode.ERROR, str(timeline.about["reason"])))
        context = set_span_in_context(image)
        for name, begin, end in sorted(timeline.stages, key=lambda stage: stage[1]):
            span = self._tracer.start_span(name, context, start_time=shift + round(begin * _SECOND))
            span.end(shift + round(end * _SECOND))
        image.end(shift + round(max(stage[2] for stage in timeline.stages) * _SECOND))

    def close(self) -> None:
        """Send what is left, for two seconds at most."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(FLUSH_SECONDS)


def to_endpoint(endpoint: str, version: str) -> Traces:
    """Traces that go to a collector over OTLP (gRPC); `http://` is without TLS, `https://` with it.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA.
    """
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SegmentdError(
            Reason.MISSING_EXTRA,
            f"tracing.endpoint: traces need the extra 'otel' ({error.name} is missing): "
            "pip install 'segmentd[otel]', or leave the key out",
            field="tracing.endpoint",
        ) from error
    resource = Resource.create({"service.name": "segmentd", "service.version": version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(provider)


@contextmanager
def exported(traces: Traces) -> Iterator[None]:
    """Export the timelines of all images while the block runs."""
    add_sink(traces.export)
    try:
        yield
    finally:
        remove_sink(traces.export)
        traces.close()
