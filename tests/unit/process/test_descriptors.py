"""The limit of open files."""

from __future__ import annotations

import resource

import pytest

from segmentd.process import descriptors

INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1024, 524_288), (8192, 524_288)),
        ((1024, INFINITE), (8192, INFINITE)),
        ((1024, 4096), (4096, 4096)),
        ((20_000, 20_000), (20_000, 20_000)),
        ((INFINITE, INFINITE), (INFINITE, INFINITE)),
    ],
)
def test_it_is_raised_as_far_as_the_system_lets_us(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: tuple[int, int]
) -> None:
    now = [before]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: now.append(limits))
    descriptors.allow_enough()
    assert now[-1] == after
    assert descriptors.allowed() == (8192 if after[0] == INFINITE else after[0])
