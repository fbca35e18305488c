"""An acquisition engine without hardware: a stage over a real image, and pymmcore-plus' signals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class Signal:
    """Calls what is connected, in the thread that emits, as psygnal does."""

    slots: list[Callable[..., object]] = field(default_factory=list)

    def connect(self, slot: Callable[..., object]) -> None:
        self.slots.append(slot)

    def disconnect(self, slot: Callable[..., object]) -> None:
        self.slots.remove(slot)

    def emit(self, *arguments: object) -> None:
        for slot in list(self.slots):
            slot(*arguments)


@dataclass(frozen=True)
class Event:
    """The fields of a `useq.MDAEvent` that matter here; positions are of the middle of the field."""

    index: Mapping[str, int] = field(default_factory=dict)
    channel: Any = None
    x_pos: float = 0.0
    y_pos: float = 0.0


def event(config: str | None = None, x: float = 0.0, y: float = 0.0, **index: int) -> Event:
    return Event(index, None if config is None else SimpleNamespace(config=config), x, y)


class FakeCore:
    """A camera that sees a square of `images[c]` around the stage; one pixel is one micrometre."""

    def __init__(self, *images: npt.NDArray[np.generic], field_of_view: int = 256) -> None:
        self._images = images
        self._half = field_of_view // 2
        events = SimpleNamespace(frameReady=Signal(), sequenceFinished=Signal())
        self.mda = SimpleNamespace(events=events)

    def run_mda(self, events: Iterable[Event]) -> list[Event]:
        """Take all frames; the acquisition goes on whatever those who listen do."""
        done = []
        for each in events:
            self.mda.events.frameReady.emit(self.snap(each), each, {"pixel_size_um": 1.0})
            done.append(each)
        self.mda.events.sequenceFinished.emit(None)
        return done

    def snap(self, each: Event) -> npt.NDArray[np.generic]:
        image = self._images[each.index.get("c", 0)]
        height, width = image.shape[:2]
        y = int(np.clip(each.y_pos - self._half, 0, height - 2 * self._half))
        x = int(np.clip(each.x_pos - self._half, 0, width - 2 * self._half))
        return image[y : y + 2 * self._half, x : x + 2 * self._half].copy()
