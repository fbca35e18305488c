"""What is set up for those who watch over the daemon, if they want it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager

from segmentd import __version__, telemetry
from segmentd.pipeline import Engine
from segmentd.results.journal import Journal
from segmentd.rpc.server import Server
from segmentd.settings import Settings
from segmentd.watches import Watches

_log = telemetry.get_logger(__name__)


@asynccontextmanager
async def observed(
    settings: Settings,
    engine: Engine,
    watches: Watches,
    journal: Journal,
    server: Server,
) -> AsyncIterator[None]:
    """Serve the page for Prometheus and export traces, if that is wanted.

    Parameters
    ----------
    settings : Settings
        What is wanted.
    engine, watches, journal, server
        As those of `DaemonCollector`.

    Raises
    ------
    SegmentdError
        LOCKED where the address is taken, MISSING_EXTRA.
    """
    async with AsyncExitStack() as stack:
        if settings.tracing.endpoint is not None:
            stack.enter_context(_traces(settings.tracing.endpoint))
        address = settings.metrics.address()
        if address is not None:
            collect = (engine, watches, journal, server, asyncio.get_running_loop())
            await stack.enter_async_context(_page(address, *collect))
        yield


def _traces(endpoint: str) -> AbstractContextManager[None]:
    from segmentd.telemetry.traces import exported, to_endpoint

    _log.info("images are traced", endpoint=endpoint)
    return exported(to_endpoint(endpoint, __version__))


@asynccontextmanager
async def _page(
    address: tuple[str, int],
    engine: Engine,
    watches: Watches,
    journal: Journal,
    server: Server,
    loop: asyncio.AbstractEventLoop,
) -> AsyncIterator[None]:
    # Not needed by those who want no page.
    from segmentd.rpc.metrics import DaemonCollector
    from segmentd.rpc.metrics_page import MetricsPage

    collector = DaemonCollector(engine, watches, journal, server, loop)
    page = MetricsPage(*address, collector)
    _log.info("metrics are served", url=f"http://{page.address}/metrics")
    try:
        yield
    finally:
        await asyncio.to_thread(page.close)
