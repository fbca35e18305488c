"""From ZEN's pixel stream through the daemon to labels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from segmentctl.bridges.frames import Counts, FrameResult
from segmentctl.bridges.submitter import Submitter
from segmentctl.bridges.zen.assembly import Assembler, BadFrameError
from segmentctl.bridges.zen.stream import ZenConnection, ZenStream

if TYPE_CHECKING:
    from segmentctl.bridges.zen.experiment_streaming_pb2 import FrameData
    from segmentctl.client import Client

_log = logging.getLogger("segmentctl.bridges")


class ZenBridge:
    """Segments what a running experiment of ZEN acquires: each tile, z, time and scene is a plane.

    Parameters
    ----------
    zen : ZenConnection
        Where ZEN is.
    client : segmentctl.Client
        The connection to the daemon; it stays open.
    model : str
        Id, display name or resource name.
    on_result : callable
        Called with a `FrameResult`, whose `frame.source` is a `Position`, from a thread of the bridge.
    experiment : str
        Only the experiment with this id; by default whatever runs.
    channels : tuple of int
        ZEN's channels to use, in this order; by default the first ones, as many as the model takes.
    partial : bool
        Take parts of frames as the camera reads them out; planes are sent when they are complete.
    on_note : callable
        Called with a sentence about what goes wrong without ending the stream; by default it is logged.
    **options
        More for `Submitter`: `on_failure`, `on_pace`, `capacity`, `when_full`, `min_confidence`...

    Raises
    ------
    DaemonError
        If there is no such model, or no daemon.

    Attributes
    ----------
    malformed : int
        Messages that contradicted themselves.
    interruptions, missing : int
        How often the stream broke, and frames that ZEN numbered meanwhile: they do not come again.
    """

    def __init__(
        self,
        zen: ZenConnection,
        client: Client,
        model: str,
        on_result: Callable[[FrameResult], object],
        *,
        experiment: str = "",
        channels: tuple[int, ...] = (),
        partial: bool = False,
        on_note: Callable[[str], object] = _log.warning,
        **options: Any,
    ) -> None:
        self._assembler = Assembler(client.model(model).channel_count, channels)
        self._note, self._told = on_note, set[str]()
        self._stream = ZenStream(
            zen,
            experiment=experiment,
            channel=channels[0] if len(channels) == 1 else None,
            partial=partial,
            on_interruption=self._interrupted,
        )
        self.malformed = self.interruptions = self.missing = 0
        self._highest: dict[str, int] = {}  # number of the last frame, by experiment
        self._after_interruption = False
        self._submitter = Submitter(client, model, on_result, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """What became of the planes so far."""
        return self._submitter.counts

    @property
    def unfinished(self) -> int:
        """Planes whose parts or channels did not all come, so far."""
        return self._assembler.unfinished

    @property
    def lost(self) -> int:
        """Planes, frames and messages that came to nothing, for whatever reason."""
        counts = self.counts
        return counts.failed + counts.dropped + self.malformed + self.missing + self.unfinished

    def run(self, count: int | None = None, idle_seconds: float | None = None) -> None:
        """Take what ZEN sends until `stop`, `count` planes, or `idle_seconds` without a message.

        ZEN calls an experiment finished before its last pixels were sent: so end by number or by silence.
        Returns when all planes so far have been dealt with.

        Raises
        ------
        ZenError
            If ZEN refuses, or the first attempt finds no ZEN.
        """
        planes = 0
        for message in self._stream.messages(idle_seconds):
            planes += self._take(message)
            if count is not None and planes >= count:
                break
        self.finish()

    def finish(self) -> None:
        """Give up what is not complete, and wait until everything else has been dealt with."""
        self._assembler.give_up()
        if self.unfinished:
            self._note(f"{self.unfinished} planes are not complete: parts or channels of theirs never came.")
        self._submitter.drain()

    def stop(self) -> None:
        """Have `run` take no more messages, from any thread."""
        self._stream.close()

    def close(self) -> None:
        """Take no more messages; what still waits is dropped, and counted."""
        self._stream.close()
        self._submitter.close()

    def _take(self, message: FrameData) -> int:
        """Take one message in; 1 if it completed a plane."""
        self._look_for_gap(message)
        try:
            frame = self._assembler.add(message)
        except BadFrameError as error:
            self.malformed += 1
            self._tell_once("malformed", f"ZEN sent a frame that cannot be used: {error}.")
            return 0
        for channel in self._assembler.skipped:
            self._tell_once(
                f"channel {channel}", f"Channel {channel} of ZEN is not used; `channels` chooses."
            )
        if frame is None:
            return 0
        self._submitter.submit(frame)
        return 1

    def _look_for_gap(self, message: FrameData) -> None:
        highest = self._highest.get(message.experiment_id, message.frame_number)
        gap = message.frame_number - highest - 1
        if self._after_interruption:
            self._after_interruption = False
            if gap > 0:
                self.missing += gap
                self._note(
                    f"{gap} frames were acquired while ZEN's stream was interrupted; they are missing."
                )
        self._highest[message.experiment_id] = max(highest, message.frame_number)

    def _interrupted(self, cause: str, delay: float) -> None:
        self.interruptions += 1
        self._after_interruption = True
        self._note(f"ZEN's stream broke ({cause}); next attempt in {delay:.1f} s.")

    def _tell_once(self, what: str, sentence: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._note(sentence)
