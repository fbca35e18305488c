"""Has a device compute tiles of all planes, in batches that planes of one model share.

Nobody waits for partners: a batch is what waits when the device is free. Two threads take turns at the
device, so that the next batch is laid out while one is computed, if there is enough for a full one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from segmentd import telemetry
from segmentd.engine.device import Batch, BatchTile, Device, DeviceTile, NoRoomError
from segmentd.engine.ladder import Fit
from segmentd.engine.loaded import ForestJob
from segmentd.engine.predictor import Predictor
from segmentd.engine.segmenter import Band, TileResult
from segmentd.engine.tile_orders import Order, Orders, Piece, Trail, orders_of
from segmentd.records import Region

RUNNERS = 2
# How long a plane that must not be computed on the CPU waits for others to make room.
LONGEST_WAIT_FOR_ROOM_SECONDS = 10.0
ROOM_PAUSE_SECONDS = 0.01
_log = telemetry.get_logger(__name__)


class UseCpuError(Exception):
    """The device cannot be used now; the message says why."""


class Turns(Protocol):
    """What the queue asks of who has the device; see `segmentd.engine.device_turns.DeviceTurns`."""

    def judge(self, model: Predictor) -> tuple[Fit, str]:
        """How much of a model's work fits at once, and why the device is not to be tried now for it."""

    def run(self, batch: Batch, pieces: Sequence[Piece]) -> Sequence[DeviceTile] | None:
        """Compute a batch; None where it is to be asked for again."""


class TileQueue:
    """The tiles that wait for one device.

    Parameters
    ----------
    device : Device
        The device.
    turns : Turns
        Who uses it.
    required : bool
        Planes wait for room on it, as they must not go to the CPU.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, device: Device, turns: Turns, required: bool, clock: Callable[[], float]) -> None:
        self._device = device
        self._turns = turns
        self._required = required
        self._clock = clock
        self._lock = threading.Lock()
        self._orders = Orders()
        self._running = 0
        self._closed = False
        self._runners = ThreadPoolExecutor(RUNNERS, thread_name_prefix=device.name)

    def order(self, job: ForestJob, band: Band, left: deque[Region], trail: Trail) -> Order:
        """Ask for the next tiles of those that are left of a band.

        Raises
        ------
        UseCpuError
            The device is not to be tried now.
        """
        fit, why_not = self._turns.judge(job.predictor)
        if why_not:
            raise UseCpuError(why_not)
        cores = fit.take(left, job.seamless)
        tiles = [BatchTile(job.around(band, core), job.scale, job.level) for core in cores]
        order = Order(job.predictor, trail, cores, tiles, job.seamless)
        with self._lock:
            if self._closed:
                left.extendleft(reversed(cores))
                raise UseCpuError(f"{self._device.name} is being given back")
            self._orders.add(order)
            self._runners.submit(self._work)
        return order

    def results(self, order: Order, job: ForestJob, band: Band) -> list[TileResult]:
        """Wait for an order; what is missing in it has to be ordered again.

        Raises
        ------
        Exception
            What the device raised that devices do not raise.
        """
        order.ended.wait()
        if order.error is not None:
            raise order.error
        return [
            job.finished(band, order.cores[number], tile.labels, tile.confidence)
            for number, tile in sorted(order.found.items())
        ]

    def why_cpu(self, order: Order) -> str:
        """Why the CPU has to go on after an order has ended; empty where the device may be tried again."""
        if not order.no_room:
            order.trail.no_room_since = None
            return order.fault
        longest = LONGEST_WAIT_FOR_ROOM_SECONDS if self._required else 0.0
        if order.trail.waits_for_room(self._clock(), longest):
            time.sleep(ROOM_PAUSE_SECONDS)  # others have their turn meanwhile
            return ""
        return order.no_room

    def withdraw(self, order: Order) -> None:
        """Compute no more of an order that nobody wants any longer; others in its batches keep theirs."""
        with self._lock:
            order.withdrawn = True
            self._orders.end(order)

    def close(self) -> None:
        """Stop; a batch in work is waited for, and orders that wait end without results."""
        with self._lock:
            self._closed = True
            self._orders.end_all()
        self._runners.shutdown(wait=True)

    def _work(self) -> None:
        """Compute batches while there is something to compute; each order calls for this once."""
        while pieces := self._next():
            try:
                self._compute(pieces)
            finally:
                with self._lock:
                    self._running -= 1

    def _next(self) -> list[Piece]:
        with self._lock:
            while (first := self._orders.first) is not None:
                fit, first.fault = self._turns.judge(first.model)
                if first.fault:
                    self._orders.end(first)
                    continue
                if self._running and self._orders.waiting() < fit.batch:
                    return []  # who runs goes on with it, and with what has come until then
                pieces = self._orders.take(fit.batch, fit.tile_px)
                if pieces:
                    self._running += 1
                    return pieces
        return []

    def _compute(self, pieces: list[Piece]) -> None:
        batch = Batch(pieces[0].order.model, [piece.tile for piece in pieces])
        try:
            with self._device.prepared(batch) as ready:
                tiles = self._turns.run(ready, pieces)
        except NoRoomError as error:
            self._give_back(pieces, no_room=f"{self._device.name} {error}")
        except Exception as error:
            _log.error("a batch failed", exc_info=error, device=self._device.name)
            self._give_back(pieces, error=error)
        else:
            with self._lock:
                if tiles is None:
                    self._orders.put_back(pieces)
                else:
                    self._orders.computed(pieces, tiles)

    def _give_back(self, pieces: list[Piece], no_room: str = "", error: Exception | None = None) -> None:
        """End the orders of a batch; what nobody expected is blamed on an order only if it was alone."""
        orders = orders_of(pieces)
        with self._lock:
            self._orders.put_back(pieces)
            for order in orders:
                if error is not None and len(orders) > 1:
                    order.alone = True
                    continue
                order.no_room, order.error = no_room, error
                self._orders.end(order)
