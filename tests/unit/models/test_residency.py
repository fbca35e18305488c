"""Which models stay on a device: leases are never broken, and six models for three places take few loads."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from segmentd.models.residency import (
    MOST_OVERTAKING,
    Residency,
    Verdict,
    Waiting,
    next_in_turn,
)

MODELS = "abcdef"
MODEL = st.sampled_from(MODELS)


def filled(budget: int, models: str) -> Residency[str]:
    """Models of size 1, used one after the other at 0, 1, 2, ... seconds."""
    residency: Residency[str] = Residency(budget)
    for now, model in enumerate(models):
        expected = Verdict.READY if residency.has(model) else Verdict.LOAD
        assert residency.lease(model, 1, now).verdict is expected
        residency.end_lease(model, now)
    return residency


def test_the_model_used_longest_ago_goes_first() -> None:
    residency = filled(3, "abc")
    assert residency.lease("a", 1, 3).verdict is Verdict.READY
    answer = residency.lease("d", 2, 4)
    assert (answer.verdict, answer.evict) == (Verdict.LOAD, ("b", "c"))
    assert residency.models() == ["a", "d"]
    assert (residency.held_bytes, residency.loads) == (3, 4)


def test_leased_and_pinned_models_stay() -> None:
    residency = filled(3, "abc")
    residency.pin("a")
    residency.lease("b", 1, 3)
    assert residency.lease("d", 2, 4).verdict is Verdict.WAIT
    assert residency.models() == ["a", "c", "b"]
    residency.end_lease("b", 5)
    assert residency.lease("d", 2, 6).evict == ("c", "b")
    residency.end_lease("d", 6)
    residency.unpin("a")
    assert residency.lease("e", 3, 7).evict == ("a", "d")


def test_what_can_never_fit_is_said_at_once() -> None:
    residency = filled(3, "a")
    residency.pin("a")
    assert residency.lease("large", 3, 1).verdict is Verdict.NEVER
    assert residency.has("a")


def test_a_model_in_use_is_not_unloaded() -> None:
    residency = filled(3, "ab")
    residency.pin("a")
    residency.lease("a", 1, 2)
    assert not residency.unload("a")
    residency.end_lease("a", 3)
    assert residency.unload("a")
    assert residency.unload("never seen")
    assert residency.models() == ["b"]


def test_other_programs_are_given_way_to_and_the_way_back_is_open() -> None:
    residency = filled(3, "abc")
    assert residency.give_way(None) == residency.give_way(0) == []
    assert residency.give_way(-2) == ["a", "b"]
    assert residency.lease("a", 1, 4, free_bytes=0).evict == ("c",)
    residency.end_lease("a", 4)
    assert residency.lease("b", 1, 5, free_bytes=5).evict == ()


def test_a_model_in_use_does_not_give_way() -> None:
    residency = filled(3, "ab")
    residency.lease("a", 1, 2)
    assert residency.give_way(-5) == ["b"]
    assert residency.models() == ["a"]


def test_idle_models_go_when_asked_to() -> None:
    residency = filled(4, "abc")
    residency.pin("a")
    residency.lease("c", 1, 2)
    assert residency.idle(10.0, 9.5) == []
    assert residency.idle(11.0, 9.5) == ["b"]
    assert residency.models() == ["a", "c"]


def test_a_model_that_takes_more_than_was_thought_makes_others_go() -> None:
    residency: Residency[str] = Residency(10)
    for name in ("a", "b"):
        residency.lease(name, 3, 0.0)
        residency.end_lease(name, 0.0)
    residency.lease("c", 3, 1.0)
    residency.resize("c", 7)
    residency.resize("gone", 7)
    assert residency.held_bytes == 13
    assert residency.give_way(None) == ["a"]
    assert residency.models() == ["b", "c"]


class Device(RuleBasedStateMachine):
    """What a lane does with the answers; the invariants are what a lane relies on."""

    @initialize(budget=st.integers(1, 12), sizes=st.lists(st.integers(1, 6), min_size=6, max_size=6))
    def begin(self, budget: int, sizes: list[int]) -> None:
        self.budget, self.sizes = budget, dict(zip(MODELS, sizes, strict=True))
        self.residency: Residency[str] = Residency(budget)
        self.now = 0.0
        self.loaded: set[str] = set()
        self.leases: Counter[str] = Counter()
        self.pinned: set[str] = set()
        self.loads = 0

    def _gone(self, models: list[str] | tuple[str, ...]) -> None:
        for model in models:
            assert not self.leases[model], "the lease of a model was broken"
            assert model not in self.pinned, "a pinned model went by itself"
            self.loaded.remove(model)

    @rule(model=MODEL, free=st.none() | st.integers(-3, 12))
    def lease(self, model: str, free: int | None) -> None:
        before = set(self.loaded)
        answer = self.residency.lease(model, self.sizes[model], self.now, free)
        self._gone(answer.evict)
        assert (answer.verdict is Verdict.READY) == (model in before)
        if answer.verdict is Verdict.LOAD:
            self.loaded.add(model)
            self.loads += 1
            held = sum(self.sizes[one] for one in before)
            assert free is None or self.residency.held_bytes <= held + free
        if answer.verdict in (Verdict.READY, Verdict.LOAD):
            self.leases[model] += 1
        else:
            assert answer.evict == ()
        if answer.verdict is Verdict.WAIT and free is None:
            stay = {one for one in before if self.leases[one] or one in self.pinned}
            assert sum(self.sizes[one] for one in stay) + self.sizes[model] > self.budget

    @rule(model=MODEL)
    def end_lease(self, model: str) -> None:
        self.residency.end_lease(model, self.now)
        self.leases[model] = max(0, self.leases[model] - 1)

    @rule(model=MODEL, pinned=st.booleans())
    def pin(self, model: str, pinned: bool) -> None:
        (self.residency.pin if pinned else self.residency.unpin)(model)
        (self.pinned.add if pinned else self.pinned.discard)(model)

    @rule(model=MODEL)
    def unload(self, model: str) -> None:
        assert self.residency.unload(model) == (not self.leases[model])
        if not self.leases[model]:
            self.loaded.discard(model)
            self.pinned.discard(model)

    @rule(model=MODEL, size=st.integers(1, 6))
    def takes_less_than_was_thought(self, model: str, size: int) -> None:
        self.sizes[model] = min(size, self.sizes[model])
        self.residency.resize(model, self.sizes[model])

    @rule(free=st.integers(-12, 3))
    def give_way(self, free: int) -> None:
        self._gone(self.residency.give_way(free))

    @rule(seconds=st.floats(0, 5))
    def idle(self, seconds: float) -> None:
        self._gone(self.residency.idle(self.now, seconds))

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def lose(self) -> None:
        self.residency.lose_all()
        self.loaded.clear()
        self.leases.clear()

    @invariant()
    def what_is_there_is_known_and_fits(self) -> None:
        if hasattr(self, "residency"):
            assert set(self.residency.models()) == self.loaded
            assert self.residency.held_bytes == sum(self.sizes[model] for model in self.loaded)
            assert self.residency.held_bytes <= self.budget
            assert self.residency.loads == self.loads


TestDevice = Device.TestCase
TestDevice.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# ------------------------------------------------------------ loads on traces

PLACES = 3
PLANES = 60


def trace(seed: int) -> list[tuple[int, str]]:
    """Arrivals (tick, model) of six folders: a few planes at once, more of one than of others."""
    chance = random.Random(seed)
    arrivals: list[tuple[int, str]] = []
    tick, busy = 0, MODELS[0]
    while len(arrivals) < PLANES:
        if chance.random() < 0.12:
            busy = chance.choice(MODELS)
        if chance.random() < 0.25:
            count = chance.randint(1, 6)
            models = [busy if chance.random() < 0.4 else chance.choice(MODELS) for _ in range(count)]
            arrivals += [(tick, model) for model in models]
        tick += 1
    return arrivals[:PLANES]


def play(arrivals: list[tuple[int, str]]) -> int:
    """One plane a tick through the policy; returns the loads."""
    residency: Residency[str] = Residency(PLACES)
    coming, tick = list(arrivals), 0
    waiting: list[Waiting[str]] = []
    while coming or waiting:
        while coming and coming[0][0] <= tick:
            waiting.append(Waiting(coming.pop(0)[1]))
        if waiting:
            place = next_in_turn(waiting, residency.has)
            model = waiting.pop(place).model
            waiting[:place] = [Waiting(one.model, one.overtaken + 1) for one in waiting[:place]]
            assert all(one.overtaken <= MOST_OVERTAKING for one in waiting)
            wanted = [one.model for one in waiting]
            assert residency.lease(model, 1, tick, wanted=wanted).verdict in (Verdict.READY, Verdict.LOAD)
            residency.end_lease(model, tick)
        tick += 1
    return residency.loads


State = tuple[tuple[int, ...], frozenset[str]]


def fewest_loads(arrivals: list[tuple[int, str]]) -> int:
    """The least that any order needs which knows the future and keeps to the same limit; all are tried.

    A state is how many planes of each model are done, and which models are loaded. Models are loaded when a
    plane needs them, as loading earlier gains nothing.
    """
    planes = {model: [i for i, (_, one) in enumerate(arrivals) if one == model] for model in MODELS}
    states: dict[State, int] = {((0,) * len(MODELS), frozenset()): 0}
    tick, done = 0, 0
    while done < len(arrivals):
        if sum(came <= tick for came, _ in arrivals) > done:
            after: dict[State, int] = {}
            for (served, loaded), loads in states.items():
                rest = zip(planes.values(), served, strict=True)
                heads = [of[count] if count < len(of) else PLANES for of, count in rest]
                for place, head in enumerate(heads):
                    if head == PLANES or arrivals[head][0] > tick or overtakes_too_many(planes, served, head):
                        continue
                    then = (*served[:place], served[place] + 1, *served[place + 1 :])
                    for kept, count in with_model(loaded, MODELS[place]):
                        after[then, kept] = min(loads + count, after.get((then, kept), PLANES))
            states, done = promising(after), done + 1
        tick += 1
    return min(states.values())


def promising(states: dict[State, int]) -> dict[State, int]:
    """Without states that another one with the same planes done can follow at no higher price.

    To go on as a state with other models does, one has to load at most those that one lacks.
    """
    rivals: dict[tuple[int, ...], list[tuple[frozenset[str], int]]] = {}
    for (served, loaded), loads in sorted(states.items(), key=lambda item: item[1]):
        better = rivals.setdefault(served, [])
        if not any(less + len(loaded - other) <= loads for other, less in better):
            better.append((loaded, loads))
    return {(served, loaded): loads for served, kept in rivals.items() for loaded, loads in kept}


def overtakes_too_many(planes: dict[str, list[int]], served: tuple[int, ...], head: int) -> bool:
    """Whether a plane before `head` that still waits has been overtaken as often as it may be."""
    done = [i for of, count in zip(planes.values(), served, strict=True) for i in of[:count]]
    waiting = [of[count] for of, count in zip(planes.values(), served, strict=True) if count < len(of)]
    first = min(waiting)
    return first < head and sum(i > first for i in done) >= MOST_OVERTAKING


def with_model(loaded: frozenset[str], model: str) -> list[tuple[frozenset[str], int]]:
    """The sets of models that can be loaded when a plane of `model` is computed, and what each costs."""
    if model in loaded:
        return [(loaded, 0)]
    if len(loaded) < PLACES:
        return [(loaded | {model}, 1)]
    return [(frozenset(kept) | {model}, 1) for kept in combinations(loaded, PLACES - 1)]


@pytest.mark.parametrize("seed", [1, 2, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 11))])
def test_loads_are_at_most_half_again_as_many_as_the_best_order_needs(seed: int) -> None:
    arrivals = trace(seed)
    loads, best = play(arrivals), fewest_loads(arrivals)
    assert best <= loads <= 1.5 * best, f"{loads} loads, {best} would do"


def test_without_draining_there_are_more_loads() -> None:
    """What the order is worth, on the same traces: first come, first served."""

    def in_order(arrivals: list[tuple[int, str]]) -> int:
        residency: Residency[str] = Residency(PLACES)
        for now, (_, model) in enumerate(arrivals):
            residency.lease(model, 1, now)
            residency.end_lease(model, now)
        return residency.loads

    traces = [trace(seed) for seed in range(1, 11)]
    assert sum(play(arrivals) for arrivals in traces) < 0.7 * sum(map(in_order, traces))


def test_turns_are_kept_where_all_models_are_there() -> None:
    waiting = [Waiting("a", planes=9), Waiting("b"), Waiting("a")]
    assert next_in_turn(waiting, lambda model: True) == 0


def test_the_model_that_is_done_with_soonest_goes_first() -> None:
    waiting = [Waiting("c", planes=9), Waiting("a", planes=5), Waiting("b", planes=2)]
    assert next_in_turn(waiting, "ab".__contains__) == 2
    assert next_in_turn(waiting, "a".__contains__) == 1
    assert next_in_turn(waiting, "z".__contains__) == 0


def test_a_model_that_is_used_a_lot_outlasts_one_that_came_once() -> None:
    residency = filled(3, "aaaabc")
    assert residency.lease("d", 1, 6).evict == ("b",)
    residency.end_lease("d", 6)
    assert residency.lease("e", 1, 7).evict == ("c",)
