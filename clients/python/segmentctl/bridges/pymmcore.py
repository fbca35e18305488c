"""pymmcore-plus: frames of a running acquisition are segmented as they come (extra `pymmcore`)."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from segmentctl.bridges.extras import need
from segmentctl.bridges.frames import Counts, Frame, FrameResult
from segmentctl.bridges.submitter import Submitter, log_pace

if TYPE_CHECKING:
    import numpy.typing as npt

    from segmentctl.client import Client

_log = logging.getLogger("segmentctl.bridges")
_MOST_UNFINISHED = 64  # planes that wait for further channels

Place = tuple[tuple[str, int], ...]


class MdaBridge:
    """Segments the frames that an acquisition engine announces with its signal `frameReady`.

    The acquisition is not slowed down: frames wait in a bounded queue, and when the daemon falls behind,
    frames are dropped, counted and told (or, with `when_full="wait"`, the acquisition waits).

    A model of several channels gets the channels of one place together, in the order of their index `c`.

    Parameters
    ----------
    core : CMMCorePlus or MDARunner
        Or anything with `events.frameReady` and `events.sequenceFinished`, perhaps under `mda`.
    client : segmentctl.Client
        The connection to the daemon; it stays open.
    model : str
        Id, display name or resource name.
    on_result : callable
        Called with a `FrameResult`, from a thread of the bridge. Without it, `events` has the signal
        `segmented` instead.
    on_failure, on_pace : callable
        As for `Submitter`.
    channels : set of str
        Only frames of these channels (`MDAEvent.channel.config`), by default all.
    **options
        More for `Submitter`: `capacity`, `when_full`, `workers`, `min_confidence`...

    Raises
    ------
    DaemonError
        If there is no such model, or no daemon.

    Attributes
    ----------
    events
        psygnal signals `segmented(FrameResult)`, `failed(Frame, Exception)` and
        `pace(behind: bool, Counts)`.
    unfinished : int
        Planes that were given up because a channel of theirs never came.

    Examples
    --------
    >>> with Client() as client, MdaBridge(core, client, "nuclei") as bridge:       # doctest: +SKIP
    ...     bridge.events.segmented.connect(lambda result: print(result.frame.name))
    ...     core.run_mda(MDASequence(z_plan={"range": 4, "step": 1}), block=True)
    ...     bridge.drain()
    """

    def __init__(
        self,
        core: Any,
        client: Client,
        model: str,
        on_result: Callable[[FrameResult], object] | None = None,
        *,
        on_failure: Callable[[Frame, Exception], object] | None = None,
        on_pace: Callable[[bool, Counts], object] | None = None,
        channels: set[str] | None = None,
        **options: Any,
    ) -> None:
        self.events: Any = None
        if on_result is None:
            self.events = result_signals()
            on_result = self.events.segmented.emit
        self._on_result = on_result
        self._on_failure, self._on_pace = on_failure, on_pace
        self._channels = channels
        self._needed = client.model(model).channel_count  # a wrong name is said before anything runs
        self._pending: dict[Place, dict[int, npt.NDArray[np.generic]]] = {}
        self._steering: queue.SimpleQueue[FrameResult | Exception] | None = None
        self.unfinished = 0
        self._signals = getattr(core, "mda", core).events
        self._submitter = Submitter(
            client,
            model,
            self._deliver,
            on_failure=self._tell_failure,
            on_pace=self._tell_pace,
            **options,
        )
        self._signals.frameReady.connect(self._frame_ready)
        self._signals.sequenceFinished.connect(self._sequence_finished)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """What became of the planes so far."""
        return self._submitter.counts

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all frames so far are dealt with; False if `timeout` seconds were not enough."""
        return self._submitter.drain(timeout)

    def close(self) -> None:
        """Take no more frames; what still waits is dropped, and counted."""
        self._signals.frameReady.disconnect(self._frame_ready)
        self._signals.sequenceFinished.disconnect(self._sequence_finished)
        self._submitter.close()

    def steer(
        self, first: Any, decide: Callable[[FrameResult], Any | None], timeout: float = 60.0
    ) -> Iterator[Any]:
        """Yield events for `CMMCorePlus.run_mda`, each decided from the labels of the one before.

        Parameters
        ----------
        first : useq.MDAEvent or list of it
            Where to begin. For a model of several channels, the events of one plane.
        decide : callable
            Gets the `FrameResult` and gives what comes next, like `first`; None ends the acquisition.
        timeout : float
            Seconds that a result may take.

        Raises
        ------
        RuntimeError
            If a frame was not segmented: the acquisition ends rather than go on blindly.
        """
        answers = self._steering = queue.SimpleQueue()
        events: Any | None = first
        try:
            while events is not None:
                yield from events if isinstance(events, list) else [events]
                try:
                    answer = answers.get(timeout=timeout)
                except queue.Empty:
                    raise RuntimeError(f"no labels within {timeout:g} s ({self.counts})") from None
                if isinstance(answer, Exception):
                    raise RuntimeError(f"there are no labels to decide from: {answer}") from answer
                events = decide(answer)
        finally:
            self._steering = None

    # ---------------------------------------------------------------- from the acquisition

    def _frame_ready(self, image: npt.NDArray[np.generic], event: Any, metadata: Mapping[str, Any]) -> None:
        channel = getattr(event.channel, "config", None)
        if self._channels is not None and channel not in self._channels:
            return
        planes = np.moveaxis(image, -1, 0) if image.ndim == 3 and image.shape[-1] == 3 else image
        index = {str(axis): int(number) for axis, number in event.index.items()}
        if planes.ndim == 2 and "c" in index and self._needed > 1:
            complete = self._joined(index, planes)
            if complete is None:
                return
            planes = complete
            index.pop("c")
        name = "_".join(f"{axis}{number}" for axis, number in index.items()) or f"n{self.counts.received}"
        self._submitter.submit(Frame(planes, name, event, metadata))

    def _joined(
        self, index: Mapping[str, int], plane: npt.NDArray[np.generic]
    ) -> npt.NDArray[np.generic] | None:
        """Keep a channel until all of its place are there, then give them (C, Y, X)."""
        place = tuple(sorted((axis, number) for axis, number in index.items() if axis != "c"))
        channels = self._pending.setdefault(place, {})
        channels[index["c"]] = plane
        if len(channels) == self._needed:
            del self._pending[place]
            return np.stack([channels[number] for number in sorted(channels)])
        if len(self._pending) > _MOST_UNFINISHED:
            self._give_up([next(iter(self._pending))])
        return None

    def _sequence_finished(self, _: Any) -> None:
        self._give_up(list(self._pending))

    def _give_up(self, places: list[Place]) -> None:
        for place in places:
            have = len(self._pending.pop(place))
            self.unfinished += 1
            where = " ".join(f"{axis}{number}" for axis, number in place)
            _log.error("%s of %s channels came at %s: not segmented", have, self._needed, where)

    # ---------------------------------------------------------------- from the daemon

    def _deliver(self, result: FrameResult) -> None:
        if self._steering is not None:
            self._steering.put(result)
        self._on_result(result)

    def _tell_failure(self, frame: Frame, error: Exception) -> None:
        if self._steering is not None:
            self._steering.put(error)
        if self.events is not None:
            self.events.failed.emit(frame, error)
        if self._on_failure is not None:
            self._on_failure(frame, error)
        else:
            _log.error("frame %s was not segmented: %s", frame.name, error)

    def _tell_pace(self, behind: bool, counts: Counts) -> None:
        if self.events is not None:
            self.events.pace.emit(behind, counts)
        (self._on_pace or log_pace)(behind, counts)


def result_signals() -> Any:
    """Make the signals of `MdaBridge.events`.

    Raises
    ------
    ImportError
        If psygnal, which comes with pymmcore-plus, is not installed; it names the extra.
    """
    signal = need("psygnal", "pymmcore").Signal
    namespace = {
        "segmented": signal(object),
        "failed": signal(object, object),
        "pace": signal(bool, object),
    }
    return cast("Any", type("ResultSignals", (), namespace)())
