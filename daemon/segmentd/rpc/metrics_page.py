"""The page that Prometheus reads, over HTTP on this machine only."""

from __future__ import annotations

import errno
import socket
import sys
import threading
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from segmentd import telemetry
from segmentd.process.claims import port_taken

SCRAPES_AT_ONCE = 4
PATIENCE_SECONDS = 10.0

_log = telemetry.get_logger(__name__)


class MetricsPage:
    """Serves metrics in threads of its own.

    Parameters
    ----------
    host, port
        Address of this machine; port 0 lets the system choose one.
    collector : Collector
        What to serve, beside what is known of the process.

    Raises
    ------
    SegmentdError
        LOCKED where the address is taken.

    Attributes
    ----------
    address : str
        HOST:PORT with the real port.
    """

    def __init__(self, host: str, port: int, collector: Collector) -> None:
        shown = f"[{host}]" if ":" in host else host
        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        handler = type("Handler", (MetricsHandler.factory(registry),), {"timeout": PATIENCE_SECONDS})
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise port_taken(port, f"{shown}:{port}", "metrics.listen") from None
        self.address = f"{shown}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; blocks for up to half a second."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Answers a few readers at once, and hangs up on more."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(SCRAPES_AT_ONCE)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking a name server, as HTTPServer would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is a place for one more reader."""
        return self._places.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and give up the place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what went wrong, but not that a reader hung up."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            _log.error("metrics cannot be told", exc_info=error)
