"""Slots: bounded, fair between sources, higher priority first, none lost when a waiter gives up."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from segmentd.engine.scheduler import MOST_PAUSED, Scheduler
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


# ---------------------------------------------------------------- giving way


async def in_turns(
    scheduler: Scheduler, work: list[tuple[str, int, int]], slots_taken: int = 1
) -> list[tuple[str, int]]:
    """The order in which bands are done: `work` is source, priority and number of bands."""
    order: list[tuple[str, int]] = []

    async def one(number: int, source: str, priority: int, bands: int) -> None:
        slot = Slot(scheduler, source, priority)
        await slot.acquire()
        for band in range(bands):
            if band:
                await slot.give_way()
            order.append((source, number))
        slot.release()

    for _ in range(slots_taken):
        await scheduler.acquire("first")
    tasks = []
    for number, entry in enumerate(work):
        tasks.append(asyncio.create_task(one(number, *entry)))
        await asyncio.sleep(0)
    for _ in range(slots_taken):
        scheduler.release()
    await asyncio.gather(*tasks)
    assert (scheduler.in_flight, scheduler.waiting, scheduler.paused) == (0, 0, 0)
    return order


async def test_large_work_lets_other_sources_go_between_its_bands() -> None:
    order = await in_turns(Scheduler(1), [("big", 0, 5), ("small", 0, 1), ("small", 0, 1), ("other", 0, 1)])
    assert [source for source, _ in order] == ["big", "small", "other", "big", "small", "big", "big", "big"]


async def test_two_large_ones_of_one_source_do_not_hold_up_another_source() -> None:
    order = await in_turns(Scheduler(2), [("big", 0, 9), ("big", 0, 9), ("small", 0, 1), ("small", 0, 1)], 2)
    last_small = max(i for i, (source, _) in enumerate(order) if source == "small")
    assert last_small <= 4


async def test_work_of_the_same_source_is_finished_before_the_next_begins() -> None:
    order = await in_turns(Scheduler(1), [("big", 0, 3), ("big", 0, 3)])
    assert [number for _, number in order] == [0, 0, 0, 1, 1, 1]
    order = await in_turns(Scheduler(1), [("big", 0, 3), ("big", 0, 1), ("other", 0, 3)])
    assert [number for _, number in order if number != 2] == [0, 0, 0, 1]


async def test_lower_priorities_wait_for_the_end_and_higher_ones_for_a_band() -> None:
    order = await in_turns(Scheduler(1), [("big", 5, 3), ("low", 0, 1)])
    assert [source for source, _ in order] == ["big", "big", "big", "low"]
    scheduler = Scheduler(1)
    slot = Slot(scheduler, "same", 0)
    await slot.acquire()
    urgent = asyncio.create_task(scheduler.acquire("same", 9))
    await asyncio.sleep(0)
    giving_way = asyncio.create_task(slot.give_way())
    await urgent
    assert not giving_way.done()
    scheduler.release()
    await giving_way
    slot.release()
    assert (scheduler.in_flight, scheduler.waiting, scheduler.paused) == (0, 0, 0)


async def test_no_more_than_a_few_are_paused() -> None:
    scheduler = Scheduler(1)
    slots = [Slot(scheduler, f"big {i}", i) for i in range(MOST_PAUSED + 1)]
    tasks = []
    await slots[0].acquire()
    for below, above in pairwise(slots):  # each has to let the next one go first
        acquiring = asyncio.create_task(above.acquire())
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(below.give_way()))
        await acquiring
    assert scheduler.paused == MOST_PAUSED
    urgent = asyncio.create_task(scheduler.acquire("urgent", 999))
    await asyncio.sleep(0)
    await slots[-1].give_way()  # does not wait
    slots[-1].release()
    await urgent
    scheduler.release()
    for task, slot in zip(reversed(tasks), reversed(slots[:-1]), strict=True):
        await task
        slot.release()
    assert (scheduler.in_flight, scheduler.waiting, scheduler.paused) == (0, 0, 0)


async def test_giving_up_while_paused_costs_no_slot() -> None:
    scheduler = Scheduler(1)
    slot = Slot(scheduler, "big", 0)
    await slot.acquire()
    other = asyncio.create_task(scheduler.acquire("other"))
    await asyncio.sleep(0)
    giving_way = asyncio.create_task(slot.give_way())
    await other
    giving_way.cancel()
    await asyncio.gather(giving_way, return_exceptions=True)
    slot.release()  # nothing to give back
    scheduler.release()
    assert (scheduler.in_flight, scheduler.waiting, scheduler.paused) == (0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(
    slots=st.integers(1, 3),
    jobs=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 4), st.integers(0, 12)),
        max_size=20,
    ),
)
def test_giving_way_never_overbooks_and_never_sticks(
    slots: int, jobs: list[tuple[str, int, int, int]]
) -> None:
    """The last number of a job is the step at which it is given up."""

    async def scenario() -> None:
        scheduler = Scheduler(slots)
        running = 0

        async def band() -> None:
            nonlocal running
            running += 1
            try:
                assert running <= slots
                await asyncio.sleep(0)
            finally:
                running -= 1

        async def work(source: str, priority: int, bands: int) -> None:
            slot = Slot(scheduler, source, priority)
            await slot.acquire()
            try:
                for _ in range(bands):
                    await band()
                    await slot.give_way()
            finally:
                slot.release()

        tasks = [asyncio.create_task(work(*job[:3])) for job in jobs]
        for step in range(12):
            await asyncio.sleep(0)
            for task, job in zip(tasks, jobs, strict=True):
                if job[3] == step:
                    task.cancel()
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
        assert (scheduler.in_flight, scheduler.waiting, scheduler.paused) == (0, 0, 0)

    asyncio.run(scenario())
