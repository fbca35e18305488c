"""What Prometheus is told: nearly all of it is looked up when it asks, so that work is not slowed down.

Labels have few values: ids of watches, names of devices and stages, states, and reasons of the error table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from segmentd import __version__, telemetry
from segmentd.engine.lanes import DeviceState
from segmentd.pipeline import Engine
from segmentd.results.journal import Journal
from segmentd.rpc.server import Server
from segmentd.settings.values import UNLIMITED
from segmentd.telemetry.meter import BOUNDS, StageTotal
from segmentd.watches import Watch, Watches, WatchStatus
from segmentd.watches.tally import device_seconds

ANSWER_SECONDS = 20.0
STATES = ("starting", "active", "paused", "failed", "unreachable")
# Counters of `telemetry.count` by name, and what they mean.
COUNTS = {
    "api_received_bytes": "Bytes of pixels that callers of SegmentPlane sent.",
    "api_sent_bytes": "Bytes of labels and confidence that were sent to subscribers and callers, as packed.",
    "early_planes": "Planes that were segmented while their image was still being written.",
    "early_planes_used": "Planes of results that were segmented while their image was still being written.",
    "expired_planes": "Planes of callers that were not done within the time that they gave them.",
    "submitted_planes": "Planes of callers of SegmentPlane that were segmented.",
}


@dataclass(frozen=True)
class _Snapshot:
    """What the event loop tells of one moment."""

    watches: list[tuple[Watch, WatchStatus]]
    devices: list[DeviceState]
    loaded_models: int
    in_flight: int
    paused: int
    slots: int
    waiting_planes: int
    subscribers: int
    calls: dict[tuple[str, str], int]
    last_event: int
    journal_bytes: int


class DaemonCollector(Collector):
    """Collects the daemon's metrics; `collect` is called in threads of the page that serves them.

    Parameters
    ----------
    engine, watches, journal, server
        What is told of.
    loop : asyncio.AbstractEventLoop
        Where these belong to.
    """

    def __init__(
        self,
        engine: Engine,
        watches: Watches,
        journal: Journal,
        server: Server,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._engine = engine
        self._watches = watches
        self._journal = journal
        self._server = server
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        """Look everything up; blocks, up to 20 s where the event loop is busy."""
        snapshot = asyncio.run_coroutine_threadsafe(self._snapshot(), self._loop).result(ANSWER_SECONDS)
        yield InfoMetricFamily("segmentd_build", "The daemon.", {"version": __version__})
        yield from _queue_metrics(snapshot)
        yield from _watch_metrics(snapshot)
        yield from _device_metrics(snapshot)
        yield from _meter_metrics(telemetry.METER.stages(), telemetry.METER.counts())

    async def _snapshot(self) -> _Snapshot:
        journal, scheduler = self._journal, self._engine.scheduler
        last, size = await asyncio.to_thread(lambda: (journal.last_number(), journal.size_bytes()))
        return _Snapshot(
            watches=[(watch, await watch.status()) for watch in self._watches.list()],
            devices=self._engine.lane.devices(),
            loaded_models=self._engine.registry.loaded_count,
            in_flight=scheduler.in_flight,
            paused=scheduler.paused,
            slots=scheduler.slots,
            waiting_planes=scheduler.waiting,
            subscribers=self._server.subscribers(),
            calls=dict(self._server.calls.ended),
            last_event=last,
            journal_bytes=size,
        )


def _queue_metrics(now: _Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily("segmentd_planes_in_flight", "Images that hold a slot.", now.in_flight)
    yield GaugeMetricFamily(
        "segmentd_planes_paused", "Images that gave way to others in their middle.", now.paused
    )
    yield GaugeMetricFamily("segmentd_slots", "Images that may be in flight at once.", now.slots)
    yield GaugeMetricFamily("segmentd_slot_waiters", "Who asks for a slot now.", now.waiting_planes)
    yield GaugeMetricFamily("segmentd_subscribers", "Open subscriptions.", now.subscribers)
    yield GaugeMetricFamily("segmentd_models_loaded", "Models in memory.", now.loaded_models)
    calls = CounterMetricFamily("segmentd_calls", "Calls of the API that ended.", labels=["method", "code"])
    for labels, number in sorted(now.calls.items()):
        calls.add_metric(labels, number)
    yield calls
    yield CounterMetricFamily("segmentd_events", "Events that the journal ever had.", now.last_event)
    yield GaugeMetricFamily("segmentd_journal_bytes", "Size of the journal on disk.", now.journal_bytes)


def _watch_metrics(now: _Snapshot) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("segmentd_queue_images", "Images seen that have not ended.", labels=["watch"])
    kept = GaugeMetricFamily(
        "segmentd_watch_images", "Images in the journal by how they ended.", labels=["watch", "state"]
    )
    alarm = GaugeMetricFamily(
        "segmentd_drift_alarm", "1 while the last images look different from those before.", labels=["watch"]
    )
    score = GaugeMetricFamily(
        "segmentd_drift_score", "How different, in spreads of single images.", labels=["watch", "measure"]
    )
    state = GaugeMetricFamily(
        "segmentd_watch_state", "1 for the state that a watch is in.", labels=["watch", "state"]
    )
    for watch, status in now.watches:
        key = watch.spec.id
        waiting.add_metric([key], status.load.waiting)
        for name in ("done", "failed", "ignored", "parts"):
            kept.add_metric([key, name], getattr(status, name))
        for name in STATES:
            state.add_metric([key, name], float(name == status.state))
        alarm.add_metric([key], watch.alarm.on)
        for measure in watch.alarm.measures:
            score.add_metric([key, measure.name], measure.score)
    yield from (waiting, kept, state, alarm, score)
    yield from _tally_metrics([watch for watch, _ in now.watches])


def _tally_metrics(watches: list[Watch]) -> Iterator[Metric]:
    """What watches did since the daemon started."""
    images = CounterMetricFamily(
        "segmentd_images", "Images that ended, by how they did.", labels=["watch", "state"]
    )
    failures = CounterMetricFamily(
        "segmentd_image_failures", "Images that failed, by reason.", labels=["watch", "reason"]
    )
    planes = CounterMetricFamily("segmentd_planes", "Planes segmented.", labels=["watch"])
    pixels = CounterMetricFamily("segmentd_pixels", "Pixels segmented.", labels=["watch"])
    read = CounterMetricFamily("segmentd_image_read_bytes", "Size of segmented images.", labels=["watch"])
    written = CounterMetricFamily("segmentd_result_written_bytes", "Size of results.", labels=["watch"])
    latency = HistogramMetricFamily(
        "segmentd_image_latency_seconds", "From a complete image to its durable result.", labels=["watch"]
    )
    for watch in watches:
        key, tally = watch.spec.id, watch.tally
        for name, value in tally.images.items():
            images.add_metric([key, name], value)
        for name, value in tally.failures.items():
            failures.add_metric([key, name], value)
        planes.add_metric([key], tally.planes)
        pixels.add_metric([key], tally.pixels)
        read.add_metric([key], tally.read_bytes)
        written.add_metric([key], tally.written_bytes)
        _add_histogram(latency, key, tally.latency.total())
    yield from (images, failures, planes, pixels, read, written, latency)


def _device_metrics(now: _Snapshot) -> Iterator[Metric]:
    devices = InfoMetricFamily("segmentd_device", "A device in use.", labels=["device"])
    threads = GaugeMetricFamily("segmentd_device_threads", "Threads that compute on it.", labels=["device"])
    for device in now.devices:
        devices.add_metric([device.name], {"display_name": device.display_name})
        threads.add_metric([device.name], device.threads)
    busy = CounterMetricFamily(
        "segmentd_device_work_seconds", "Time that devices worked on planes of watches.", labels=["device"]
    )
    seconds = {device.name: 0.0 for device in now.devices}
    seconds |= device_seconds(watch.tally for watch, _ in now.watches)
    for name, total in seconds.items():
        busy.add_metric([name], total)
    yield from (devices, threads, busy)
    yield from _residency_metrics(now)


def _residency_metrics(now: _Snapshot) -> Iterator[Metric]:
    """What devices that have a memory of their own hold and computed."""
    budget = GaugeMetricFamily(
        "segmentd_device_memory_budget_bytes", "What models may take of its memory.", labels=["device"]
    )
    used = GaugeMetricFamily(
        "segmentd_device_memory_used_bytes", "What models take of its memory.", labels=["device"]
    )
    models = GaugeMetricFamily("segmentd_device_resident_models", "Models in its memory.", labels=["device"])
    loads = CounterMetricFamily(
        "segmentd_device_model_loads", "How often a model was brought to it.", labels=["device"]
    )
    batches = CounterMetricFamily(
        "segmentd_device_batches", "Batches of tiles that it computed.", labels=["device"]
    )
    tiles = CounterMetricFamily("segmentd_device_tiles", "Tiles in these batches.", labels=["device"])
    planes = CounterMetricFamily(
        "segmentd_device_batch_planes", "Planes in these batches, once in each.", labels=["device"]
    )
    for device in now.devices:
        if device.counts is not None:
            batches.add_metric([device.name], device.counts.batches)
            tiles.add_metric([device.name], device.counts.tiles)
            planes.add_metric([device.name], device.counts.planes)
        memory = device.memory
        if memory is not None:
            if memory.budget_bytes < UNLIMITED:
                budget.add_metric([device.name], memory.budget_bytes)
            used.add_metric([device.name], memory.held_bytes)
            models.add_metric([device.name], len(memory.models))
            loads.add_metric([device.name], memory.loads)
    yield from (budget, used, models, loads, batches, tiles, planes)


def _meter_metrics(stages: Mapping[str, StageTotal], counts: Mapping[str, int]) -> Iterator[Metric]:
    """Time by stage; stages of several threads at once add up to more than the time that passed."""
    family = HistogramMetricFamily(
        "segmentd_stage_seconds", "Time that a stage of the work took.", labels=["stage"]
    )
    for name, total in sorted(stages.items()):
        _add_histogram(family, name, total)
    yield family
    for name, meaning in COUNTS.items():
        yield CounterMetricFamily(f"segmentd_{name}", meaning, counts.get(name, 0))


def _add_histogram(family: HistogramMetricFamily, key: str, total: StageTotal) -> None:
    buckets: list[tuple[str, float]] = []
    below = 0
    for bound, number in zip((*map(str, BOUNDS), "+Inf"), total.buckets, strict=True):
        below += number
        buckets.append((bound, below))
    family.add_metric([key], buckets, total.seconds)
