"""Ends the process without waiting for threads that hang."""

from __future__ import annotations

import logging
import os
import sys
import threading

from segmentd import telemetry

_log = telemetry.get_logger(__name__)


class Leaver:
    """Ends this process, at once or when it has not ended by itself in time."""

    def leave(self, code: int = 0) -> None:
        """End now. What is durable stays; locks and child processes go with the process."""
        sys.stdout.flush()
        logging.shutdown()
        os._exit(code)

    def leave_after(self, seconds: float) -> None:
        """End after so long, whatever any thread does then."""
        timer = threading.Timer(seconds, self._late)
        timer.daemon = True
        timer.start()

    def _late(self) -> None:
        _log.warning("something hangs; the process ends without it")
        self.leave()
