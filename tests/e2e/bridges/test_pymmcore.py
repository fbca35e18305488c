"""The bridge of pymmcore-plus, between a core without hardware over real images and a real daemon."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segmentctl import Client, DaemonError
from segmentctl.bridges.frames import Counts, FrameResult
from segmentctl.bridges.pymmcore import MdaBridge, result_signals

from .fake_core import Event, FakeCore, event

pytestmark = pytest.mark.e2e

Image = npt.NDArray[np.uint16]
LONG = 60.0


def test_frames_of_an_acquisition_come_back_as_labels(client: Client, nuclei: Image) -> None:
    core = FakeCore(nuclei)
    events = [event(x=130.0 + 100 * p, y=130.0 + 60 * p, p=p, z=z) for p in range(2) for z in range(2)]
    results: list[FrameResult] = []
    with MdaBridge(core, client, "nuclei", results.append, min_confidence=60) as bridge:
        assert core.run_mda(events) == events
        assert bridge.drain(LONG)
        assert bridge.counts == Counts(received=4, segmented=4)
    core.run_mda(events)
    assert len(results) == 4, "a bridge that is closed listens no more"
    found = {result.frame.name: result for result in results}
    assert set(found) == {"p0_z0", "p0_z1", "p1_z0", "p1_z1"}
    for each in events:
        result = found["_".join(f"{axis}{number}" for axis, number in each.index.items())]
        assert result.frame.source is each
        labels, confidence = client.segment(core.snap(each), "nuclei", min_confidence=60)
        assert np.array_equal(result.labels, labels)
        assert np.array_equal(result.confidence, confidence)
        assert [entry.display_name for entry in result.summary.classes] == ["background", "nucleus"]


def test_channels_of_a_place_go_together(client: Client, cells: Image) -> None:
    core = FakeCore(*cells, field_of_view=128)
    results: list[FrameResult] = []
    with MdaBridge(core, client, "cells", results.append) as bridge:
        # tubulin before nuclei at the second time; the third time lacks a channel
        core.run_mda([event(t=t, c=c) for t, c in [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0)]])
        assert bridge.drain(LONG)
        assert bridge.unfinished == 1
    assert sorted(result.frame.name for result in results) == ["t0", "t1"]
    expected, _ = client.segment(cells[:, :128, :128], "cells")
    assert len(np.unique(expected)) == 3
    assert all(np.array_equal(result.labels, expected) for result in results)


def test_only_some_channels(client: Client, cells: Image) -> None:
    core = FakeCore(*cells, field_of_view=64)
    results: list[FrameResult] = []
    with MdaBridge(core, client, "nuclei", results.append, channels={"DAPI"}) as bridge:
        core.run_mda([event("DAPI", t=0, c=0), event("FITC", t=0, c=1)])
        assert bridge.drain(LONG)
    assert [result.frame.name for result in results] == ["t0_c0"]


def test_frames_that_do_not_fit_are_told(client: Client, nuclei: Image) -> None:
    core = FakeCore((nuclei >> 4).astype(np.uint8))
    failures: list[Exception] = []
    with MdaBridge(
        core, client, "nuclei", print, on_failure=lambda _, error: failures.append(error)
    ) as bridge:
        core.run_mda([event(t=0)])
        assert bridge.drain(LONG)
        assert bridge.counts == Counts(received=1, failed=1)
    (failure,) = failures
    assert isinstance(failure, DaemonError)
    assert failure.reason == "PIXEL_TYPE_MISMATCH"


def test_a_wrong_model_is_said_before_anything_runs(client: Client, nuclei: Image) -> None:
    with pytest.raises(DaemonError, match="nuclie"):
        MdaBridge(FakeCore(nuclei), client, "nuclie", print)


@pytest.fixture(scope="module")
def example(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / "clients" / "examples" / "smart_acquisition.py"))


def test_the_example_decides_the_next_position_from_a_mask(
    client: Client, nuclei: Image, nuclei_truth: npt.NDArray[np.bool_], example: dict[str, Any]
) -> None:
    core = FakeCore(nuclei)
    make: Callable[..., Event] = partial(Event, {})
    visits = example["Visits"]("nucleus", 4, 15.0, make)
    with MdaBridge(core, client, "nuclei", print_nothing) as bridge:
        done = core.run_mda(bridge.steer(make(x_pos=300.0, y_pos=260.0), visits, LONG))
        assert bridge.counts == Counts(received=5, segmented=5)
    assert [(each.x_pos, each.y_pos) for each in done[1:]] == visits.places
    assert len(set(visits.places)) == 4
    # the middle of a curved nucleus may lie beside it: within 3 um
    for x, y in visits.places:
        assert nuclei_truth[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].any()


def test_an_acquisition_does_not_go_on_blindly(client: Client, nuclei: Image) -> None:
    core = FakeCore((nuclei >> 4).astype(np.uint8))
    with (
        MdaBridge(core, client, "nuclei", print_nothing) as bridge,
        pytest.raises(RuntimeError, match="no labels to decide from: "),
    ):
        core.run_mda(bridge.steer(event(), lambda _: event(), LONG))


def test_the_signals_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psygnal", None)
    with pytest.raises(ImportError, match=r'pip install "segmentd\[pymmcore\]"'):
        result_signals()


def print_nothing(result: FrameResult) -> None:
    """Results that only steer."""
