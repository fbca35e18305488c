"""Slots: bounded, fair between sources, higher priority first, none lost when a waiter gives up."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from segmentd.engine.scheduler import Scheduler
from segmentd.engine.slot import Slot
from segmentd.models.residency import MOST_OVERTAKING


async def served(scheduler: Scheduler, asks: list[tuple[str, int]]) -> list[str]:
    """The order in which waiters are served while one slot is taken."""
    order: list[str] = []

    async def work(source: str, priority: int) -> None:
        async with scheduler.slot(source, priority):
            order.append(source)

    await scheduler.acquire("first")
    tasks = []
    for source, priority in asks:
        tasks.append(asyncio.create_task(work(source, priority)))
        await asyncio.sleep(0)
    scheduler.release()
    await asyncio.gather(*tasks)
    return order


async def test_sources_take_turns() -> None:
    order = await served(Scheduler(1), [("a", 0), ("a", 0), ("a", 0), ("b", 0), ("c", 0), ("b", 0)])
    assert order == ["a", "b", "c", "a", "b", "a"]


async def test_higher_priority_goes_first() -> None:
    assert await served(Scheduler(1), [("a", 0), ("b", 5), ("c", 1), ("b", 5)]) == ["b", "b", "c", "a"]


async def test_a_waiter_that_gives_up_costs_no_slot() -> None:
    scheduler = Scheduler(1)
    await scheduler.acquire("a")
    quitter = asyncio.create_task(scheduler.acquire("b"))
    heir = asyncio.create_task(scheduler.acquire("c"))
    await asyncio.sleep(0)
    quitter.cancel()
    scheduler.release()
    await heir
    scheduler.release()
    assert (scheduler.in_flight, scheduler.waiting) == (0, 0)


async def test_a_slot_handed_to_a_waiter_that_gives_up_at_once_goes_on() -> None:
    scheduler = Scheduler(1)
    await scheduler.acquire("a")
    quitter = asyncio.create_task(scheduler.acquire("b"))
    await asyncio.sleep(0)
    scheduler.release()  # hands the slot over
    quitter.cancel()  # before it could run
    await asyncio.gather(quitter, return_exceptions=True)
    await asyncio.wait_for(scheduler.acquire("c"), 1)
    assert scheduler.in_flight == 1


async def test_a_slot_may_be_given_back_for_a_while_and_more_than_once() -> None:
    scheduler = Scheduler(1)
    held = Slot(scheduler, "held", 0)
    await held.acquire()
    held.release()
    held.release()
    assert scheduler.in_flight == 0
    async with scheduler.slot("other"):
        assert scheduler.in_flight == 1
    await held.acquire()
    held.release()
    assert scheduler.in_flight == 0


@settings(max_examples=40, deadline=None)
@given(
    slots=st.integers(1, 3),
    jobs=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=25
    ),
)
def test_never_more_than_the_slots_and_never_stuck(
    slots: int, jobs: list[tuple[str, int, int, bool]]
) -> None:
    async def scenario() -> None:
        scheduler = Scheduler(slots)
        running = 0

        async def work(source: str, priority: int, steps: int) -> None:
            nonlocal running
            async with scheduler.slot(source, priority):
                running += 1
                assert running <= slots
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0)
                finally:
                    running -= 1

        tasks = []
        for source, priority, steps, gives_up in jobs:
            task = asyncio.create_task(work(source, priority, steps))
            tasks.append(task)
            await asyncio.sleep(0)
            if gives_up:
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert (scheduler.in_flight, scheduler.waiting, running) == (0, 0, 0)

    asyncio.run(scenario())


async def test_planes_whose_model_is_at_hand_go_first_but_not_always() -> None:
    scheduler = Scheduler(1)
    scheduler.at_hand = {"there"}.__contains__
    order: list[str] = []

    async def work(source: str, model: str) -> None:
        async with scheduler.slot(source, model=model):
            order.append(source)

    await scheduler.acquire("first")
    tasks = [asyncio.create_task(work("far", "elsewhere"))]
    await asyncio.sleep(0)
    for _ in range(MOST_OVERTAKING + 2):
        tasks.append(asyncio.create_task(work("near", "there")))
        await asyncio.sleep(0)
    assert scheduler.wanted() == ("elsewhere", *["there"] * (MOST_OVERTAKING + 2))
    scheduler.release()
    await asyncio.gather(*tasks)
    assert order == ["near"] * MOST_OVERTAKING + ["far", "near", "near"]
    assert scheduler.wanted() == ()
