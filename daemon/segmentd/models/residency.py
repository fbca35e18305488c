"""Which models stay in a device's memory. Pure: told sizes, times and free memory; loads nothing itself.

What was used least of late goes first: each use counts, half as much with every few planes that have come
since, so of models used once the one used longest ago. A model that a plane is computed with has a lease and
never goes; a pinned one goes only when it is asked to, or when the device is lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

# How many planes that came later may go before a plane whose model is not in memory.
MOST_OVERTAKING = 8
# A use of a model counts half as much after so many planes.
HALF_LIFE_PLANES = 3.0


class Verdict(Enum):
    """What comes of asking for a model.

    `READY`: it is there. `LOAD`: load it, after those that have to go. `WAIT`: others that are in use take
    the room. `NEVER`: it is larger than what may ever be taken beside the pinned models.
    """

    READY = "ready"
    LOAD = "load"
    WAIT = "wait"
    NEVER = "never"


@dataclass(frozen=True)
class Answer(Generic[Key]):
    """The verdict, and the models that go for it, which are no longer resident from now on."""

    verdict: Verdict
    evict: tuple[Key, ...] = ()


class _Uses(Generic[Key]):
    """How much each model was used of late, whether it is resident or not."""

    def __init__(self) -> None:
        self._planes = 0
        self._sums: dict[Key, tuple[float, int]] = {}  # and the number of the plane that it was right for

    def note(self, key: Key) -> None:
        """A plane came."""
        self._planes += 1
        self._sums[key] = (self.of(key) + 1.0, self._planes)

    def of(self, key: Key) -> float:
        """What the uses of a model count now."""
        total, plane = self._sums.get(key, (0.0, 0))
        return total * math.exp2((plane - self._planes) / HALF_LIFE_PLANES)

    def forget(self, key: Key) -> None:
        """Nobody will ask for the model again."""
        self._sums.pop(key, None)


@dataclass
class _Resident:
    size: int
    used: float
    leases: int = 0


class Residency(Generic[Key]):
    """The models in the memory of one device.

    Parameters
    ----------
    budget_bytes : int
        What all models may take together.

    Attributes
    ----------
    loads : int
        How often a model had to be loaded.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.loads = 0
        self._resident: dict[Key, _Resident] = {}
        self._pinned: set[Key] = set()
        self._uses: _Uses[Key] = _Uses()

    @property
    def held_bytes(self) -> int:
        """What the resident models take."""
        return sum(model.size for model in self._resident.values())

    def models(self) -> list[Key]:
        """The resident models, the one used longest ago first."""
        return list(self._resident)

    def has(self, key: Key) -> bool:
        """Whether a model is resident."""
        return key in self._resident

    def lease(
        self,
        key: Key,
        size: int,
        now: float,
        free_bytes: int | None = None,
        wanted: Sequence[Key] = (),
    ) -> Answer[Key]:
        """Ask for a model; with READY and LOAD it is resident from now on, and leased once more.

        Parameters
        ----------
        key : hashable
            The model.
        size : int
            What it takes, in bytes; may differ from the last time only when it is not resident.
        now : float
            Monotonic seconds.
        free_bytes : int, optional
            What is free on the device now, whoever uses the rest; unknown by default.
        wanted : sequence of hashable
            Models that other planes wait for, the next one first: where something has to go, they go last.
        """
        there = self._resident.get(key)
        if there is not None:
            there.leases += 1
            self._use(key, now)
            self._uses.note(key)
            return Answer(Verdict.READY)
        fixed = sum(model.size for other, model in self._resident.items() if other in self._pinned)
        if size + fixed > self.budget_bytes:
            return Answer(Verdict.NEVER)
        evict = self._to_make_room(self._allowed(free_bytes) - size, wanted)
        if evict is None:
            return Answer(Verdict.WAIT)
        self._take_off(evict)
        self._resident[key] = _Resident(size, now, leases=1)
        self._uses.note(key)
        self.loads += 1
        return Answer(Verdict.LOAD, tuple(evict))

    def end_lease(self, key: Key, now: float) -> None:
        """A plane that was computed with the model has ended. Nothing where the model was lost meanwhile."""
        there = self._resident.get(key)
        if there is not None and there.leases:
            there.leases -= 1
            self._use(key, now)

    def pin(self, key: Key) -> None:
        """Keep a model from going by itself."""
        self._pinned.add(key)

    def unpin(self, key: Key) -> None:
        """Let a model go again when room is needed."""
        self._pinned.discard(key)

    def unload(self, key: Key) -> bool:
        """Take a model off, pinned or not; False while planes use it."""
        there = self._resident.get(key)
        if there is not None and there.leases:
            return False
        self._pinned.discard(key)
        self._resident.pop(key, None)
        self._uses.forget(key)
        return True

    def resize(self, key: Key, size: int) -> None:
        """A model that is there takes more or less than was thought; nothing goes for it at once."""
        there = self._resident.get(key)
        if there is not None:
            there.size = size

    def drop(self, key: Key) -> None:
        """A model is not there after all: loading failed. Its leases have ended."""
        self._resident.pop(key, None)

    def lose_all(self) -> None:
        """The device was lost, and all that was on it. Pinned models are to be brought back."""
        self._resident.clear()

    def give_way(self, free_bytes: int | None) -> list[Key]:
        """Models that go since other programs need the memory; they come back when they are asked for."""
        evict = self._to_make_room(self._allowed(free_bytes), as_far_as_possible=True) or []
        self._take_off(evict)
        return evict

    def give_one(self) -> Key | None:
        """The next model that goes, where the device has less room than it said; None where none may."""
        goers = self._goers()[:1]
        self._take_off(goers)
        return goers[0] if goers else None

    def idle(self, now: float, seconds: float) -> list[Key]:
        """Models that go since no plane has used them for so long."""
        evict = [key for key in self._goers() if now - self._resident[key].used >= seconds]
        self._take_off(evict)
        return evict

    def _use(self, key: Key, now: float) -> None:
        """To the end of the line."""
        there = self._resident.pop(key)
        there.used = now
        self._resident[key] = there

    def _allowed(self, free_bytes: int | None) -> int:
        """What models may take now: the budget, or less where others have taken the memory."""
        if free_bytes is None:
            return self.budget_bytes
        return min(self.budget_bytes, self.held_bytes + free_bytes)

    def _goers(self) -> list[Key]:
        """Who may go, in the order in which they do."""
        free = [k for k in self.models() if k not in self._pinned and not self._resident[k].leases]
        return sorted(free, key=self._uses.of)

    def _to_make_room(
        self, limit: int, wanted: Sequence[Key] = (), as_far_as_possible: bool = False
    ) -> list[Key] | None:
        """Who has to go so that the rest takes at most `limit` bytes; None where that cannot be had."""
        held, evict = self.held_bytes, []
        goers = self._goers()
        unwanted = [key for key in goers if key not in wanted]
        needed_last_first = [key for key in reversed(list(dict.fromkeys(wanted))) if key in goers]
        for key in unwanted + needed_last_first:
            if held <= limit:
                break
            held -= self._resident[key].size
            evict.append(key)
        return evict if held <= limit or as_far_as_possible else None

    def _take_off(self, keys: Sequence[Key]) -> None:
        for key in keys:
            del self._resident[key]


@dataclass(frozen=True)
class Waiting(Generic[Key]):
    """A plane that waits for its turn.

    Attributes
    ----------
    model : hashable
        What it is computed with.
    overtaken : int
        How many planes behind it have gone before it.
    planes : int
        Planes that stand for this one's turn, itself and those behind it in a queue of the same model.
    """

    model: Key
    overtaken: int = 0
    planes: int = 1


def next_in_turn(waiting: Sequence[Waiting[Key]], resident: Callable[[Key], bool]) -> int:
    """Which of the waiting planes to compute next: planes of resident models first, so that models stay.

    Of those the model that fewest planes wait for: it is done with soonest, and can go then, while more may
    come for the others. Where no model is resident, or all are, the first one. No plane is overtaken more
    than `MOST_OVERTAKING` times.

    Parameters
    ----------
    waiting : sequence of Waiting
        In the order in which they would go; at least one.
    resident : callable
        Whether a model is in memory.

    Returns
    -------
    int
        Index of the plane.
    """
    there = [resident(plane.model) for plane in waiting]
    fixed = (i for i, plane in enumerate(waiting) if plane.overtaken >= MOST_OVERTAKING)
    open_to_choice = range(next(fixed, len(waiting) - 1) + 1)
    if all(there):
        return 0
    planes: Counter[Key] = Counter()
    for plane in waiting:
        planes[plane.model] += plane.planes
    drained = (i for i in open_to_choice if there[i])
    return min(drained, key=lambda i: planes[waiting[i].model], default=0)
