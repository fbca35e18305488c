"""When the stages of one image ran, noted only where somebody wants to know.

The timeline of an image goes with the context of its task; threads that work for it are started in that
context (`in_context`). What runs in others, as tiles do, is not noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

# Of an image of very many planes or bands only so many stages are kept.
MOST_STAGES = 1000

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Timeline:
    """Stages as name, begin and end in seconds of the monotonic clock; any thread may add one.

    `dropped` counts those beyond the most that are kept; `about` is what else is known of the image.
    """

    name: str
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    about: dict[str, str | int | float] = field(default_factory=dict)
    dropped: int = 0

    def add(self, name: str, begin: float, end: float) -> None:
        """Note that a stage ran."""
        if len(self.stages) < MOST_STAGES:
            self.stages.append((name, begin, end))
        else:
            self.dropped += 1


Sink = Callable[[Timeline], None]
_current: ContextVar[Timeline | None] = ContextVar("timeline", default=None)
_sinks: list[Sink] = []


def add_sink(sink: Sink) -> None:
    """Have the timeline of every image from now on."""
    _sinks.append(sink)


def remove_sink(sink: Sink) -> None:
    """Undo `add_sink`."""
    _sinks.remove(sink)


def note(name: str, begin: float, end: float | None = None) -> None:
    """Note a stage of the image at hand, until now by default."""
    timeline = _current.get()
    if timeline is not None:
        timeline.add(name, begin, time.perf_counter() if end is None else end)


def annotate(**about: str | int | float) -> None:
    """Note something about the image at hand."""
    timeline = _current.get()
    if timeline is not None:
        timeline.about.update(about)


def in_context(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function for another thread that notes its stages here."""
    if _current.get() is None:
        return function
    context = copy_context()
    # A copy for each call: one context cannot be entered twice at the same time.
    return lambda *args, **options: context.copy().run(function, *args, **options)


async def traced(work: Coroutine[Any, Any, T], timeline: Callable[[], Timeline]) -> T:
    """Wait for what is done with an image, in a task of its own, and pass its timeline on."""
    if not _sinks:
        return await work
    mine = timeline()
    _current.set(mine)
    try:
        return await work
    finally:
        for sink in _sinks:
            sink(mine)
