"""`segmentd-bench`, each command in small, against a real daemon where it needs one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from typer.testing import CliRunner

from segmentd_bench.cli import app

pytestmark = pytest.mark.e2e


def bench(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The JSON of a command, which also drew a plot."""
    plot = tmp_path / "plot.png"
    result = CliRunner().invoke(app, [*arguments, "--json", "--plot", str(plot)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert cv2.imread(str(plot)) is not None
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["machine"]["cores"] >= 1
    assert "numpy" in found["machine"]["libraries"]
    assert found.get("repeats", 1) >= 1
    return found


def test_throughput(tmp_path: Path) -> None:
    found = bench(
        tmp_path, "throughput", "--size", "128", "--repeats", "1", "--tile", "64,auto", "--threads", "1"
    )
    assert found["mpx_per_s"] == max(run["mpx_per_s"] for run in found["runs"]) > 0
    assert found["mpx_per_cpu_s"] > 0
    assert [run["tile_px"] for run in found["runs"]] == [64, None]
    assert {"repeats", "stages", "peak_mib", "inner_nodes"} <= found.keys()


def test_compare(tmp_path: Path) -> None:
    found = bench(tmp_path, "compare", "--size", "128", "--repeats", "1")
    ours, plain = found["entries"][:2]
    assert (ours["times_our_cpu"], ours["agreement_percent"]) == (1.0, 100.0)
    assert plain["agreement_percent"] > 99
    assert found["ratio_to_plain"] == plain["times_our_cpu"] > 0


@pytest.mark.slow
def test_latency(tmp_path: Path) -> None:
    found = bench(tmp_path, "latency", "--size", "128", "--frames", "4", "--rate", "10")
    assert found["falls_behind"] is None
    assert len(found["event_series_ms"]) == 4
    for figures in found["ms"].values():
        assert 0 < figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["max"]
    assert found["ms"]["head"]["p50"] <= found["ms"]["first_block"]["p50"] <= found["ms"]["event"]["p50"]


@pytest.mark.slow
def test_saturate(tmp_path: Path) -> None:
    found = bench(tmp_path, "latency", "--saturate", "--size", "128", "--frames", "4", "--repeats", "1")
    assert found["mpx_per_s"] > 0
    assert found["ratio_percent"] == pytest.approx(
        100 * found["mpx_per_s"] / found["compute_mpx_per_s"], rel=0.01
    )


@pytest.mark.slow
def test_wire(tmp_path: Path) -> None:
    found = bench(tmp_path, "wire", "--size", "128", "--repeats", "1")
    calls = {entry["name"]: entry for entry in found["calls"]}
    blocks = ["subscribe, raw", "read, raw", "subscribe, zstd", "read, zstd", "submit, raw"]
    assert list(calls) == [*blocks, "echo, bytes", "echo, shared memory"]
    assert (calls["echo, bytes"]["wire_mib"], calls["echo, shared memory"]["wire_mib"]) == (0.062, 0)
    assert found["shared_memory_speedup"] > 0
    assert calls["read, zstd"]["wire_mib"] < calls["read, raw"]["wire_mib"]
    assert calls["submit, raw"]["compute_ms"] + calls["submit, raw"]["transfer_ms"] == pytest.approx(
        calls["submit, raw"]["ms"], abs=0.1
    )


def test_load(tmp_path: Path) -> None:
    crowd = ["--subscribers", "6", "--slow", "1", "--stopped", "2", "--pause-ms", "20"]
    images = ["--folders", "2", "--images", "3", "--size", "64", "--repeats", "1"]
    found = bench(tmp_path, "load", *crowd, *images)
    assert found["complete"] is True
    assert (found["events"], found["missing_live"], found["out_of_order"]) == (8, 0, 0)
    assert found["lag_ms"].keys() == {"metadata", "pixels"}
    assert found["memory_mib"]["peak"] >= found["memory_mib"]["before"] > 10
