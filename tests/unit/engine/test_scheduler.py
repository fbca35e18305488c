"""Slots: bounded, fair between sources, higher priority first, none lost when a waiter gives up."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from segmentd.engine.scheduler import FULL_PLANE_PIXELS, MOST_IN_FLIGHT, MOST_PAUSED, WHOLE, Scheduler
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


async def test_small_planes_share_slots_where_they_share_batches() -> None:
    scheduler = Scheduler(2)
    assert {scheduler.parts_of(pixels) for pixels in (None, 1, FULL_PLANE_PIXELS)} == {WHOLE}
    scheduler.shared = True
    assert [scheduler.parts_of(pixels) for pixels in (None, 64 * 64, 1 << 20, 1 << 30)] == [16, 1, 4, 16]
    slots = [Slot(scheduler, f"watch {i % 3}", 0, pixels=512 * 512) for i in range(2 * WHOLE + 1)]
    for slot in slots[:-1]:
        await slot.acquire()  # at once
    late = asyncio.create_task(slots[-1].acquire())
    large = Slot(scheduler, "large", 0)
    coming = asyncio.create_task(large.acquire())
    await asyncio.sleep(0)
    assert (scheduler.in_flight, scheduler.waiting) == (2 * WHOLE, 2)
    slots[0].release()
    await late
    for slot in slots[1:WHOLE]:
        slot.release()
        assert not coming.done()
    slots[WHOLE].release()  # as much as a whole slot is free now
    await coming
    for slot in (*slots[WHOLE + 1 :], large):
        slot.release()
    assert (scheduler.in_flight, scheduler.waiting) == (0, 0)


async def test_who_turns_out_to_be_small_lets_others_in() -> None:
    scheduler = Scheduler(2)
    scheduler.shared = True
    slots = [Slot(scheduler, "watch", 0) for _ in range(30)]
    tasks = [asyncio.create_task(slot.acquire()) for slot in slots]
    await asyncio.sleep(0)
    assert scheduler.in_flight == 2  # their sizes are not known yet
    for opened in range(WHOLE):
        await tasks[opened]
        slots[opened].note_size(1)
    assert scheduler.in_flight == WHOLE + 1  # and one that is being opened
    for slot, task in zip(slots, tasks, strict=True):
        await task
        slot.release()
        slot.note_size(1 << 30)  # nobody holds it any longer
    assert (scheduler.in_flight, scheduler.waiting, scheduler._used) == (0, 0, 0)


async def test_there_are_never_more_in_flight_than_threads_for_them() -> None:
    scheduler = Scheduler(9)
    scheduler.shared = True
    for _ in range(MOST_IN_FLIGHT):
        await scheduler.acquire("watch", parts=1)
    waiting = asyncio.create_task(scheduler.acquire("watch", parts=1))
    await asyncio.sleep(0)
    assert not waiting.done()
    scheduler.release(1)
    await waiting


@settings(max_examples=40, deadline=None)
@given(
    slots=st.integers(1, 3),
    jobs=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(0, 2),
            st.sampled_from([None, 1, 1 << 20, 1 << 22]),
            st.sampled_from([1, 1 << 21, 1 << 24]),
            st.integers(0, 12),
        ),
        max_size=20,
    ),
)
def test_shared_slots_are_never_overbooked_and_never_stick(
    slots: int, jobs: list[tuple[str, int, int | None, int, int]]
) -> None:
    """Of a job: source, priority, size as it says and as it is, the step at which it is given up."""

    async def scenario() -> None:
        scheduler = Scheduler(slots)
        scheduler.shared = True
        taken = 0

        async def work(source: str, priority: int, said: int | None, pixels: int) -> None:
            nonlocal taken
            slot = Slot(scheduler, source, priority, pixels=said)
            await slot.acquire()
            parts = scheduler.parts_of(said)
            taken += parts
            try:
                assert taken <= slots * WHOLE or said is None
                await asyncio.sleep(0)
                if said is None:
                    slot.note_size(pixels)
                    taken += scheduler.parts_of(pixels) - parts
                    parts = scheduler.parts_of(pixels)
                taken -= parts
                await slot.give_way()
                taken += parts
                await asyncio.sleep(0)
            finally:
                taken -= parts if slot._held else 0
                slot.release()

        tasks = [asyncio.create_task(work(*job[:4])) for job in jobs]
        for step in range(12):
            await asyncio.sleep(0)
            for task, job in zip(tasks, jobs, strict=True):
                if job[4] == step:
                    task.cancel()
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
        assert (scheduler.in_flight, scheduler.waiting, scheduler.paused, scheduler._used) == (0, 0, 0, 0)

    asyncio.run(scenario())


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
