"""Does the next piece of work while the last one is being used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

from segmentd import telemetry

Item = TypeVar("Item")
Done = TypeVar("Done")


def one_ahead(work: Callable[[Item], Done], items: Iterable[Item]) -> Iterator[Done]:
    """Yield `work(item)` in order; the next one is done in a thread meanwhile.

    A single item needs no thread.
    """
    several = iter(items)
    work = telemetry.in_context(work)
    first = list(islice(several, 2))
    if len(first) < 2:
        yield from map(work, first)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming: deque[Future[Done]] = deque()
        for item in chain(first, several):
            coming.append(thread.submit(work, item))
            if len(coming) == 2:
                yield coming.popleft().result()
        if coming:
            yield coming.popleft().result()
