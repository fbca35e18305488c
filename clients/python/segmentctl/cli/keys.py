"""Single keys from a terminal, without Return."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

_WINDOWS_PAUSE_SECONDS = 0.05


class Keys:
    """Keys while the block runs; where stdin is no terminal there are none, only time passes."""

    def __init__(self) -> None:
        self._settings: list[Any] | None = None

    def __enter__(self) -> Self:
        if sys.platform != "win32" and sys.stdin.isatty():
            import termios
            import tty

            self._settings = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.platform != "win32" and self._settings is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._settings)

    def pressed(self, key: str, seconds: float) -> bool:
        """Wait for a key, at most so long; other keys are passed over."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._read(left).lower() == key:
                return True
        return False

    def _read(self, seconds: float) -> str:
        """Return the next key, or "" after that time."""
        if sys.platform == "win32":
            import msvcrt

            if msvcrt.kbhit():
                return msvcrt.getwch()
            time.sleep(min(seconds, _WINDOWS_PAUSE_SECONDS))
            return ""
        if self._settings is None:
            time.sleep(seconds)
            return ""
        import select

        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        if not ready:
            return ""
        read = os.read(sys.stdin.fileno(), 1)
        if not read:  # the terminal is gone
            raise EOFError("the terminal was closed")
        return read.decode("ascii", "replace")
