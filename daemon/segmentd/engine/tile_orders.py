"""Tiles of several planes that wait for a device, and which of them go together. No threads, no clock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice

from segmentd.engine.device import BatchTile, DeviceTile
from segmentd.engine.device_memory import Hold
from segmentd.engine.predictor import Predictor
from segmentd.records import Region


@dataclass
class Trail:
    """The devices that computed a plane, why not the preferred one alone, and its hold on the model.

    Once it is `ended`, what may still be in work must not hold the model again.
    """

    devices: set[str] = field(default_factory=set)
    reason: str = ""
    hold: Hold = field(default_factory=Hold)
    no_room_since: float | None = None
    ended: bool = False

    def waits_for_room(self, now: float, longest_seconds: float) -> bool:
        """Whether the plane goes on waiting for room on the device; the first call begins the time."""
        if self.no_room_since is None:
            self.no_room_since = now
        if now - self.no_room_since >= longest_seconds:
            self.no_room_since = None
        return self.no_room_since is not None

    def note(self, device: str, reason: str = "") -> None:
        """A part was computed."""
        self.devices.add(device)
        self.reason = reason or self.reason


class Order:
    """Some tiles of one plane that are to be computed with one model.

    Parameters
    ----------
    model : Predictor
        What computes them.
    trail : Trail
        Of the plane.
    cores : list of Region
        What each tile answers for, in coordinates of the plane.
    tiles : list of BatchTile
        Their pixels.
    may_cut : bool
        Whether tiles may be made smaller without changing labels.

    Attributes
    ----------
    found : dict
        What was computed, by the number of the tile.
    fault, no_room : str
        Why the device cannot be used now; why it has no room for the model now.
    error : Exception
        What nobody expected.
    alone : bool
        Whether its tiles are computed by themselves, as a batch with others went wrong in a new way.
    withdrawn : bool
        Nobody wants the tiles any longer.
    ended : Event
        Nothing more will be done about the order; what was not found has to be asked for again.
    """

    def __init__(
        self, model: Predictor, trail: Trail, cores: list[Region], tiles: list[BatchTile], may_cut: bool
    ) -> None:
        self.model, self.trail, self.cores, self.tiles, self.may_cut = model, trail, cores, tiles, may_cut
        self.found: dict[int, DeviceTile] = {}
        self.fault = self.no_room = ""
        self.error: Exception | None = None
        self.alone = self.withdrawn = False
        self.ended = threading.Event()
        self.number = -1
        self.waiting: deque[int] = deque(range(len(cores)))
        self.in_work = 0

    def missing(self) -> list[Region]:
        """What was not computed."""
        return [core for number, core in enumerate(self.cores) if number not in self.found]

    def end(self) -> None:
        """Compute no more of it."""
        self.waiting.clear()
        self.note_end()

    def note_end(self) -> None:
        """Say that nothing more will come, where that is so."""
        if not self.waiting and not self.in_work:
            self.ended.set()


@dataclass(frozen=True)
class Piece:
    """A tile in a batch: a number of an order."""

    order: Order
    number: int

    @property
    def tile(self) -> BatchTile:
        """Its pixels."""
        return self.order.tiles[self.number]

    @property
    def core(self) -> Region:
        """What it answers for."""
        return self.order.cores[self.number]


def orders_of(pieces: Sequence[Piece]) -> list[Order]:
    """The orders that pieces are of, each once."""
    return list(dict.fromkeys(piece.order for piece in pieces))


class Orders:
    """What waits, the order that came first at the front. One thread at a time."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._numbers = count()

    @property
    def first(self) -> Order | None:
        """The one whose turn it is; None where nothing waits."""
        return self._orders[0] if self._orders else None

    def add(self, order: Order) -> None:
        """Take in another one."""
        order.number = next(self._numbers)
        self._orders.append(order)

    def end(self, order: Order) -> None:
        """Compute no more of an order than is in work."""
        if order in self._orders:
            self._orders.remove(order)
        order.end()

    def end_all(self) -> None:
        """Compute nothing more."""
        for order in list(self._orders):
            self.end(order)

    def waiting(self) -> int:
        """How many tiles could go with the first one."""
        return sum(len(order.waiting) for order in self._together())

    def take(self, most: int, largest_px: int | None) -> list[Piece]:
        """Take the next batch: tiles of the first order, then of others for the same model, as they came.

        Orders with tiles of more than `largest_px` that may be cut end instead.
        """
        for order in list(self._together()):
            edge = max(max(core.height, core.width) for core in order.cores)
            if order.may_cut and largest_px is not None and edge > largest_px:
                self.end(order)
        pieces = list(islice(self._pieces(), most))
        for piece in pieces:
            piece.order.waiting.popleft()
            piece.order.in_work += 1
        self._orders = [order for order in self._orders if order.waiting]
        return pieces

    def put_back(self, pieces: Sequence[Piece]) -> None:
        """Have a batch wait again that was not computed; orders keep their places."""
        for piece in reversed(pieces):
            order = piece.order
            order.in_work -= 1
            if not order.withdrawn:
                order.waiting.appendleft(piece.number)
                if order not in self._orders:
                    self._orders.append(order)
            order.note_end()
        self._orders.sort(key=lambda order: order.number)

    def computed(self, pieces: Sequence[Piece], tiles: Sequence[DeviceTile]) -> None:
        """Give a batch out that was computed."""
        for piece, tile in zip(pieces, tiles, strict=True):
            piece.order.found[piece.number] = tile
            piece.order.in_work -= 1
            piece.order.note_end()

    def _together(self) -> Iterator[Order]:
        """Orders that the first one may share a batch with, and itself."""
        first = self.first
        for order in self._orders:
            alike = first is not None and order.model is first.model
            if order is first or (alike and not order.alone and not (first and first.alone)):
                yield order

    def _pieces(self) -> Iterator[Piece]:
        for order in self._together():
            for number in order.waiting:
                yield Piece(order, number)
