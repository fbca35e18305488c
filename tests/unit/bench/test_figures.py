"""From made-up measurements to results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd_bench import latency, load, saturate
from segmentd_bench.arrivals import Arrival
from segmentd_bench.subscribers import Subscriber, crowd

PLAN = load.Plan(
    subscribers=4,
    slow=1,
    stopped=1,
    pause_s=0.1,
    folders=2,
    images=3,
    size_px=64,
    repeats=2,
    threads=1,
    limit_s=10.0,
)


def arrival(at: float, compute_ms: int, latency_ms: int) -> Arrival:
    segmentation = pb.Segmentation()
    segmentation.compute_duration.FromMilliseconds(compute_ms)
    segmentation.latency.FromMilliseconds(latency_ms)
    return Arrival(segmentation, at + 0.1, at + 0.11, at + 0.12)


def test_the_legs_of_latency() -> None:
    closed = [float(second) for second in range(10)]
    found = latency.timings(closed, [arrival(at, 80, 95) for at in closed], megapixels=1.5)
    medians = {leg: figures["p50"] for leg, figures in found["ms"].items()}
    assert medians == {
        "head": 100.0,
        "first_block": 110.0,
        "event": 120.0,
        "daemon": 95.0,
        "compute": 80.0,
        "overhead": 40.0,
    }
    assert found["event_series_ms"] == [120.0] * 10
    assert found["falls_behind"] is False
    assert found["returned_mpx_per_s"] == 1.5
    assert json.loads(json.dumps(found)) == found


def test_the_ratio_is_the_median_of_each_repeats_ratio() -> None:
    found = saturate.ratios([9.0, 4.0, 8.0], [10.0, 5.0, 8.0])
    assert found == {
        "mpx_per_s": 8.0,
        "spread_percent": 62.5,
        "compute_mpx_per_s": 8.0,
        "compute_spread_percent": 62.5,
        "ratio_percent": 90.0,
    }


def subscribed(numbers: list[int], **kind: Any) -> Subscriber:
    one = Subscriber(**{"with_pixels": False, **kind})
    one.numbers = numbers
    one.lags_s = {f"/hot/image-{number}.tif": number / 1000 for number in numbers}
    return one


def test_load_counts_what_every_kind_of_subscriber_got() -> None:
    everything = list(range(1, PLAN.events + 1))
    assert PLAN.events == 14
    people = [
        subscribed(everything),
        subscribed(everything, with_pixels=True),
        subscribed(everything, pause_s=0.1),
        subscribed(everything, stops=True),
    ]
    found = load.figures(PLAN, people, [2.0, 3.0], [100.0, 101.0, 104.5, 110.0], 7)
    assert found["subscribers"] == {"live": 2, "slow": 1, "stopped": 1, "with_pixels": 1}
    assert found["complete"] is True
    assert found["lag_ms"]["pixels"] == {"p50": 7.0, "p95": 14.0, "p99": 14.0, "max": 14.0}
    assert found["files_per_s"] == 2.5
    assert found["memory_mib"] == {
        "before": 100.0,
        "after_rounds": [101.0, 104.5],
        "peak": 110.0,
        "growth": 4.5,
    }
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("numbers", "kind", "where"),
    [
        (list(range(1, 14)), {}, "missing_live"),
        (list(range(1, 14)), {"stops": True}, "missing_slow_and_stopped"),
        ([2, 1, *range(3, 15)], {}, "out_of_order"),
        ([1, 1, *range(2, 15)], {}, "out_of_order"),
    ],
)
def test_load_is_not_complete(numbers: list[int], kind: dict[str, Any], where: str) -> None:
    people = [subscribed(list(range(1, 15))), subscribed(numbers, **kind)]
    found = load.figures(PLAN, people, [1.0], [1.0, 1.0, 1.0], 0)
    assert found["complete"] is False
    counts = ("missing_live", "missing_slow_and_stopped", "out_of_order")
    assert {name: found[name] for name in counts} == {name: int(name == where) for name in counts}


def test_a_crowd_has_as_many_of_each_kind_as_asked_for() -> None:
    people = crowd(50, slow=5, stopped=4, pause_s=0.2)
    assert len(people) == 50
    assert sum(one.live for one in people) == 41
    assert sum(one.pause_s == 0.2 for one in people) == 5
    assert sum(one.stops for one in people) == 4
    assert {one.with_pixels for one in people if one.stops} == {True, False}
