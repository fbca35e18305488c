"""`latency --saturate`: how much of the compute throughput a hot folder keeps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from segmentd.engine.lane import CpuLane
from segmentd.models import bundle
from segmentd.records import SegmentOptions
from segmentd_bench import arrivals, camera, machine, measure, report, subjects
from segmentd_bench.daemon import serving
from segmentd_bench.latency import CLASSES, WARM_UPS, Plan

MOST_COMPUTED_FRAMES = 10  # enough for a steady figure


def run(plan: Plan, repeats: int) -> dict[str, Any]:
    """Drop all frames at once, and measure the compute throughput, in turns in the same run.

    The hot folder's time runs from the first frame that gets its name to the last result at a subscriber;
    the files lie complete on disk before. Compute is plane in memory to labels and confidence in memory,
    with as many threads, while the daemon has nothing to do.

    Returns
    -------
    dict
        `mpx_per_s` and `compute_mpx_per_s` (medians), `ratio_percent` (median of each repeat's ratio).
    """
    subject = subjects.texture(plan.size_px, CLASSES)
    model = subjects.trained_model(subject, plan.features)
    content = camera.frames(subject)
    warm = camera.names(WARM_UPS, "warm-up")
    hot, compute = list[float](), list[float]()
    with (
        report.progress(repeats * plan.frames + 1) as step,
        _computing(model, subject, plan) as compute_seconds,
        serving(model, plan.threads, parent=plan.folder) as daemon,
        closing(arrivals.follow(daemon.address, plan.limit_s, metadata_only=True)) as stream,
    ):
        step("warm-up")
        folder = daemon.folders[0]
        camera.stage(folder, warm, content)
        camera.drop(folder, warm)
        arrivals.take(stream, warm)
        for repeat in range(repeats):
            compute.append(subject.megapixels / compute_seconds())
            wanted = camera.names(plan.frames, f"frame-{repeat}")
            camera.stage(folder, wanted, content)
            start = camera.drop(folder, wanted)
            found = arrivals.take(stream, wanted, step)
            end = max(arrival.complete for arrival in found.values())
            hot.append(plan.frames * subject.megapixels / (end - start))
    return {
        "subject": subject.name,
        "features": plan.features,
        "megapixels": subject.megapixels,
        "threads": plan.threads,
        "frames": plan.frames,
        "repeats": repeats,
        "warm_ups": WARM_UPS,
        **ratios(hot, compute),
        "machine": machine.describe(),
    }


def ratios(hot: list[float], compute: list[float]) -> dict[str, float]:
    """Figures from the megapixels a second of each repeat: through the hot folder, and computing alone."""
    return {
        "mpx_per_s": round(statistics.median(hot), 3),
        "spread_percent": round(measure.spread_percent(hot), 1),
        "compute_mpx_per_s": round(statistics.median(compute), 3),
        "compute_spread_percent": round(measure.spread_percent(compute), 1),
        "ratio_percent": round(100 * statistics.median(h / c for h, c in zip(hot, compute, strict=True)), 1),
    }


@contextmanager
def _computing(model: bundle.Model, subject: subjects.Subject, plan: Plan) -> Iterator[Callable[[], float]]:
    """Yield a function that gives the seconds that a plane takes without any daemon."""
    with subjects.saved(model) as path, closing(CpuLane(plan.threads)) as lane:
        count = min(plan.frames, MOST_COMPUTED_FRAMES)
        lane.load(path)
        lane.segment_array(path, subject.pixels, SegmentOptions())

        def seconds() -> float:
            start = time.perf_counter()
            for _ in range(count):
                lane.segment_array(path, subject.pixels, SegmentOptions())
            return (time.perf_counter() - start) / count

        yield seconds


def show(result: dict[str, Any]) -> None:
    """The result as a table, and the ratio."""
    title = (
        f"{result['frames']} frames of {result['megapixels']:.2f} Mpx at once: {result['features']}, "
        f"{result['threads']} thread(s), median of {result['repeats']}"
    )
    rows = [
        ["hot folder: first file named to last result", result["mpx_per_s"], result["spread_percent"]],
        ["compute alone", result["compute_mpx_per_s"], result["compute_spread_percent"]],
    ]
    report.table(title, ["", "Mpx/s", "spread %"], rows, report.footer(result["machine"]))
    report.line(f"the hot folder reaches {result['ratio_percent']} % of the compute throughput")


def plot(result: dict[str, Any], path: Path) -> None:
    """Both throughputs as bars."""
    values = [("hot folder", result["mpx_per_s"]), ("compute alone", result["compute_mpx_per_s"])]
    title = f"{result['frames']} frames at once: hot folder and compute alone"
    report.bars(path, title, "Mpx/s", values, report.footer(result["machine"]))
