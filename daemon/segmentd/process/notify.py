"""What the service manager is told: systemd's `sd_notify`, one datagram for each message."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from segmentd import telemetry

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PROCESS_VARIABLE = "WATCHDOG_PID"

_log = telemetry.get_logger(__name__)


class Notifier:
    """Tells a service manager how the daemon fares; says nothing where nobody listens.

    Parameters
    ----------
    address : str
        The manager's socket: a path, or `@name` for an abstract one; "" for none.
    watchdog_seconds : float, optional
        How often the manager wants to hear `ping` at least.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        # An abstract name begins with a zero byte.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""
        self.watchdog_seconds = watchdog_seconds if address else None

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Read what systemd says, and take it out of the environment: it is not for our children."""
        address = environ.pop(SOCKET_VARIABLE, "")
        microseconds = environ.pop(WATCHDOG_VARIABLE, "")
        process = environ.pop(WATCHDOG_PROCESS_VARIABLE, "") or str(os.getpid())
        wanted = microseconds.isdecimal() and int(microseconds) > 0 and process == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if wanted else None)

    def ready(self) -> None:
        """Everything is up."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; said again only when it changes."""
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def ping(self) -> None:
        """All is well."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The daemon drains."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(errors="replace"), self._address)
        except OSError as error:
            _log.warning("the service manager cannot be told", message=message, why=error)
