"""What is set up for those who watch over the daemon, if they want it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from segmentd import telemetry
from segmentd.pipeline import Engine
from segmentd.results.journal import Journal
from segmentd.settings import MetricsSettings
from segmentd.watches import Watches

_log = telemetry.get_logger(__name__)


@asynccontextmanager
async def metrics_served(
    settings: MetricsSettings,
    engine: Engine,
    watches: Watches,
    journal: Journal,
    subscribers: Callable[[], int],
) -> AsyncIterator[None]:
    """Serve the page for Prometheus, if one is wanted; parameters as those of `DaemonCollector`.

    Raises
    ------
    SegmentdError
        LOCKED where the address is taken.
    """
    address = settings.address()
    if address is None:
        yield
        return
    # Not needed by those who want no page.
    from segmentd.rpc.metrics import DaemonCollector
    from segmentd.rpc.metrics_page import MetricsPage

    collector = DaemonCollector(engine, watches, journal, subscribers, asyncio.get_running_loop())
    page = MetricsPage(*address, collector)
    _log.info("metrics are served", url=f"http://{page.address}/metrics")
    try:
        yield
    finally:
        await asyncio.to_thread(page.close)
