"""Whether a folder sends events, and the events if it does."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from segmentd.ingest.events import FolderEvents, Inbox, Mail
from segmentd.ingest.mounts import why_no_events

LIMITS_REACHED = (errno.ENOSPC, errno.EMFILE)


class Listener:
    """The events of one folder while it is within reach.

    Parameters
    ----------
    folder : bytes
        Absolute path.
    recursive : bool
        Whether to listen to subfolders.
    skip : set of bytes
        Relative paths of subfolders to leave out.
    poll : str
        `auto`: events where the file system sends them; `always`: none; `never`: events if there are any.
    now : callable
        The clock by which closes are timed.

    Attributes
    ----------
    mode : str
        `events` or `poll`.
    local : bool
        Whether the folder is on a disk of this machine.
    wake : asyncio.Event
        Set when there is something to `take`.
    """

    def __init__(
        self, folder: bytes, recursive: bool, skip: frozenset[bytes], poll: str, now: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._recursive = recursive
        self._skip = skip
        self._poll = poll
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._wake_up, now)
        self._events: FolderEvents | None = None
        self.wake = asyncio.Event()
        self.local = False
        self.mode, self._why_poll = "poll", ""

    async def start(self) -> None:
        """Listen, if events are to be had; else keep the reason."""
        remote = await asyncio.to_thread(why_no_events, self._folder)
        self.local = not remote
        if self._poll == "always":
            self._why_poll = 'poll = "always"'
            return
        if remote and self._poll == "auto":
            self._why_poll = remote
            return
        making = asyncio.to_thread(FolderEvents, self._folder, self._recursive, self._skip, self._inbox)
        starting = asyncio.ensure_future(making)
        try:
            self._events = await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._events = await starting
            raise
        except OSError as error:
            limits = "; raise fs.inotify.max_user_watches" if error.errno in LIMITS_REACHED else ""
            self._why_poll = f"the system sends no events ({error.strerror}){limits}"
        else:
            self.mode = "events"

    @property
    def mode_reason(self) -> str:
        """Why it polls, or how events fare if not all is well."""
        lost = self._events.overflows if self._events is not None else 0
        return (
            f"events were lost {lost} times, and the folder was searched instead" if lost else self._why_poll
        )

    def take(self) -> Mail:
        """Take what came since the last call."""
        self.wake.clear()
        return self._inbox.take()

    def healthy(self) -> bool:
        """Whether events still come, if they did."""
        return self._events is None or self._events.alive()

    async def stop(self) -> None:
        """Stop listening."""
        if self._events is not None:
            await asyncio.shield(asyncio.to_thread(self._events.stop))
            self._events = None

    def _wake_up(self) -> None:
        """Wake the loop; called in the thread of the events."""
        try:
            self._loop.call_soon_threadsafe(self.wake.set)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more
