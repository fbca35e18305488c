"""The same bridge with the real pymmcore-plus and useq-schema: its runner and signals, no hardware."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from segmentctl import Client
from segmentctl.bridges.frames import Counts, FrameResult
from segmentctl.bridges.pymmcore import MdaBridge

from ..daemon import DaemonProcess

pytestmark = [pytest.mark.e2e, pytest.mark.bridges]

LONG = 60.0


def test_an_acquisition_of_useq(client: Client, nuclei: npt.NDArray[np.uint16], repository: Path) -> None:
    import runpy

    from pymmcore_plus.mda import MDARunner
    from useq import MDASequence

    example = runpy.run_path(str(repository / "clients" / "examples" / "smart_acquisition.py"))
    runner = MDARunner()
    runner.set_engine(example["ImageEngine"](nuclei))
    sequence = MDASequence(
        stage_positions=[(200, 200, 0), (400, 260, 0)],
        time_plan={"interval": 0, "loops": 2},
        z_plan={"range": 1, "step": 1},
    )
    results: list[FrameResult] = []
    with MdaBridge(runner, client, "nuclei", capacity=16) as bridge:
        bridge.events.segmented.connect(results.append)
        runner.run(sequence)
        assert bridge.drain(LONG)
        assert bridge.counts == Counts(received=8, segmented=8)
    assert len({result.frame.name for result in results}) == 8
    for result in results:
        event = result.frame.source
        y, x = int(event.y_pos) - 128, int(event.x_pos) - 128
        labels, _ = client.segment(nuclei[y : y + 256, x : x + 256], "nuclei")
        assert np.array_equal(result.labels, labels)


def test_the_example_runs(daemon: DaemonProcess, repository: Path, shared_data: Path) -> None:
    example = repository / "clients" / "examples" / "smart_acquisition.py"
    image = shared_data / "nuclei_bbbc039" / "images" / "IXMtest_D04_s9.tif"
    options = ["--model", "nuclei", "--class", "nucleus", "--visits", "3", "--simulate", image]
    done = subprocess.run(
        [sys.executable, example, "--address", daemon.address, *options],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("visit ") == 3
    assert "done: 4 frames, 4 segmented" in done.stdout
