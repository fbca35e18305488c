"""`latency`: from the moment that a camera closes a file to the result at a subscriber of a real daemon."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentd_bench import arrivals, camera, machine, measure, pace, report, subjects
from segmentd_bench.arrivals import Arrival
from segmentd_bench.daemon import serving
from segmentd_bench.errors import BenchmarkError

CLASSES = 3
WARM_UPS = 3


@dataclass(frozen=True)
class Plan:
    """What is written, and how it is segmented.

    Attributes
    ----------
    size_px : int
        Edge of a frame; frames are square, uint16, uncompressed TIFF.
    frames : int
        How many are written.
    features : str
        Feature set of the model.
    threads : int
        How many threads of the daemon compute.
    limit_s : float
        After how many seconds the run is given up.
    folder : Path, optional
        Where the temporary folders are made: on the disk to be measured.
    """

    size_px: int
    frames: int
    features: str
    threads: int
    limit_s: float
    folder: Path | None = None


def run(plan: Plan, rate_per_s: float) -> dict[str, Any]:
    """Write frames at a rate into the folder of a daemon and time what a subscriber gets.

    Returns
    -------
    dict
        `ms`: p50, p95, p99 and max, in milliseconds, of the legs in `LEGS`; `falls_behind` and a
        `verdict` in words; `event_series_ms`: closed to event for each frame in order.
    """
    subject = subjects.texture(plan.size_px, CLASSES)
    model = subjects.trained_model(subject, plan.features)
    content = camera.frames(subject)
    warm, wanted = camera.names(WARM_UPS, "warm-up"), camera.names(plan.frames, "frame")
    with (
        report.progress(len(wanted) + 1) as step,
        serving(model, plan.threads, parent=plan.folder) as daemon,
        ThreadPoolExecutor(1) as pool,
        closing(arrivals.follow(daemon.address, plan.limit_s)) as stream,
    ):
        step("warm-up")
        for name in warm:
            camera.write(daemon.folders[0], name, content[0])
        arrivals.take(stream, warm)
        shots = pool.submit(camera.shoot, daemon.folders[0], wanted, content, rate_per_s)
        try:
            found = arrivals.take(stream, wanted, step)
        except BenchmarkError:
            if shots.done():
                shots.result()  # what stopped the camera is the better explanation
            raise
        closed = shots.result()
    return {
        "subject": subject.name,
        "features": plan.features,
        "megapixels": subject.megapixels,
        "threads": plan.threads,
        "frames": plan.frames,
        "warm_ups": WARM_UPS,
        "rate_per_s": rate_per_s,
        **timings(closed, [found[name] for name in wanted], subject.megapixels),
        "machine": machine.describe(),
    }


LEGS = {
    "head": "file closed to head: what it is, without pixels",
    "first_block": "file closed to first block of pixels",
    "event": "file closed to whole result",
    "daemon": "latency as the daemon gives it: complete to durable",
    "compute": "time that the device worked on the plane",
    "overhead": "file closed to whole result, less compute",
}


def timings(closed: Sequence[float], found: Sequence[Arrival], megapixels: float) -> dict[str, Any]:
    """Figures from when each frame was closed and its arrival, in the order of writing."""
    pairs = list(zip(closed, found, strict=True))
    compute = [_seconds(arrival.segmentation.compute_duration) for arrival in found]
    event = [arrival.complete - start for start, arrival in pairs]
    legs = {
        "head": [arrival.head - start for start, arrival in pairs],
        "first_block": [arrival.first_block - start for start, arrival in pairs],
        "event": event,
        "daemon": [_seconds(arrival.segmentation.latency) for arrival in found],
        "compute": compute,
        "overhead": [whole - part for whole, part in zip(event, compute, strict=True)],
    }
    judged = pace.judge(closed, [arrival.complete for arrival in found])
    return {
        "ms": {name: measure.percentiles_ms(legs[name]) for name in LEGS},
        "falls_behind": judged.falls_behind,
        "verdict": str(judged),
        "backlog_at_end": judged.backlog,
        "growth_ms": round(1000 * judged.growth_s, 1),
        "written_per_s": round(judged.written_per_s, 3),
        "returned_per_s": round(judged.returned_per_s, 3),
        "returned_mpx_per_s": round(judged.returned_per_s * megapixels, 3),
        "event_series_ms": [round(1000 * seconds, 2) for seconds in event],
    }


def _seconds(duration: Any) -> float:
    return float(duration.ToNanoseconds()) / 1e9


def show(result: dict[str, Any]) -> None:
    """The result as a table, and whether the daemon keeps up."""
    columns = ["leg", "p50 ms", "p95 ms", "p99 ms", "max ms"]
    rows = [[LEGS[name], *figures.values()] for name, figures in result["ms"].items()]
    title = (
        f"Latency of {result['frames']} frames of {result['megapixels']:.2f} Mpx, "
        f"{result['rate_per_s']:g} a second: {result['features']}, {result['threads']} thread(s)"
    )
    report.table(title, columns, rows, report.footer(result["machine"]))
    report.line(result["verdict"])


def plot(result: dict[str, Any], path: Path) -> None:
    """Each frame's way from file to result, in the order of writing: a rising line falls behind."""
    title = f"File closed to result, {result['frames']} frames at {result['rate_per_s']:g} a second"
    report.series(path, title, "ms", result["event_series_ms"], report.footer(result["machine"]))
