"""`throughput`: how many megapixels a second from plane in memory to labels and confidence in memory."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentd import telemetry
from segmentd.engine.lanes import whole_plane
from segmentd.engine.segmenter import BandResult
from segmentd.engine.source import ArraySource
from segmentd.ingest.readers import open_image
from segmentd.models import bundle
from segmentd.records import FrameInfo, PlaneIndex, SegmentOptions
from segmentd.results.store import ResultWriter
from segmentd.workers import WorkerPool
from segmentd_bench import devices, machine, measure, report, subjects


@dataclass(frozen=True)
class Matrix:
    """All combinations that are run; the device, and how many planes are in work at the same time."""

    features: Sequence[str]
    tiles: Sequence[int | None]
    threads: Sequence[int]
    classes: Sequence[int]
    trees: Sequence[int]
    device: str = "cpu"
    at_once: int = 1

    def __len__(self) -> int:
        values: Iterable[Sequence[object]] = (
            self.features,
            self.tiles,
            self.threads,
            self.classes,
            self.trees,
        )
        return math.prod(map(len, values))


@dataclass(frozen=True)
class Given:
    """An image and a model of the user's; they replace the texture and what is trained on it.

    `vgg19_weights` is the file of weights for deep features; Keras' cache for None.
    """

    image: Path | None = None
    model: Path | None = None
    vgg19_weights: Path | None = None


def run(matrix: Matrix, given: Given, size_px: int, repeats: int) -> dict[str, Any]:
    """Run all combinations; the best one's figures are on top of the result."""
    runs = []
    chosen = devices.choose(matrix.device, given.vgg19_weights)
    with report.progress(len(matrix)) as step:
        for features, classes, trees in itertools.product(matrix.features, matrix.classes, matrix.trees):
            step(f"{features}, {classes} classes, {trees} trees")
            subject, model = _subject(given, size_px, features, classes, trees, max(matrix.threads))
            with subjects.saved(model) as path:
                for index, (tile, threads) in enumerate(itertools.product(matrix.tiles, matrix.threads)):
                    if index:
                        step(f"{features}, {classes} classes, {trees} trees, tile {tile}, {threads} threads")
                    runs.append(
                        _measure(subject, model, path, (tile, threads), repeats, chosen, matrix.at_once)
                    )
    best = max(runs, key=lambda entry: float(entry["mpx_per_s"]))
    result = {**best, "machine": machine.describe()}
    if len(runs) > 1:
        result["runs"] = runs
    return result


def _subject(
    given: Given, size_px: int, features: str, classes: int, trees: int, threads: int
) -> tuple[subjects.Subject, bundle.Model]:
    subject = subjects.texture(size_px, classes)
    if given.image is not None:
        with WorkerPool(1) as pool, open_image(pool, given.image) as image:
            pixels = image.read_plane(PlaneIndex()).pixels
        labels = subjects.texture(max(pixels.shape[1:]), classes).labels[: pixels.shape[1], : pixels.shape[2]]
        subject = subjects.Subject(given.image.name, pixels, labels)
    if given.model is not None:
        return subject, bundle.load(given.model)
    # TensorFlow is told once how many threads it may use: the most that are tried.
    deep = subjects.deep_features(features, given.vgg19_weights, threads)
    return subject, subjects.trained_model(subject, features, trees, deep=deep)


def _measure(
    subject: subjects.Subject,
    model: bundle.Model,
    path: Path,
    how: tuple[int | None, int],
    repeats: int,
    chosen: devices.Chosen,
    at_once: int,
) -> dict[str, Any]:
    tile, threads = how
    options = SegmentOptions(tile_px=tile)
    with chosen.lane(threads) as lane:
        lane.load(path)

        def segment() -> BandResult:
            return whole_plane(subject.pixels, lane.segment(path, ArraySource(subject.pixels), options))

        def all_planes() -> None:
            with ThreadPoolExecutor(at_once) as planes:
                list(planes.map(lambda _: segment(), range(at_once)))

        before = telemetry.METER.stages()
        timing = measure.repeated(segment if at_once == 1 else all_planes, repeats)
        after = telemetry.METER.stages()
        counts = lane.devices()[0].counts
        result = segment()
    stages: dict[str, float] = {
        name: (after[name].seconds - (before[name].seconds if name in before else 0.0))
        / ((repeats + 1) * at_once)
        for name in ("features", "network", "forest")
        if name in after
    }
    stages |= _files(subject, model, result.labels, result.confidence)
    speed = at_once * subject.megapixels / timing.wall_median
    expected = chosen.expected(model, subject.pixels, tile)
    if expected:
        expected["of_expected"] = round(speed / expected["expected_mpx_per_s"], 3)
    return {
        "device": chosen.name,
        **expected,
        **({"tiles_per_batch": round(counts.tiles / counts.batches, 1)} if counts and counts.batches else {}),
        "at_once": at_once,
        "subject": subject.name,
        "features": model.card.feature_set,
        "classes": len(model.card.classes),
        "trees": model.forest.tree_count,
        "inner_nodes": subjects.inner_nodes(model),
        "tile_px": tile,
        "threads": threads,
        "mpx_per_s": round(speed, 3),
        "mpx_per_cpu_s": round(at_once * subject.megapixels / timing.cpu_median, 3),
        "spread_percent": round(timing.spread_percent, 1),
        "repeats": repeats,
        "stages": {name: round(seconds / subject.megapixels, 6) for name, seconds in stages.items()},
        "stages_unit": "CPU seconds a megapixel (features, network, forest), wall seconds (read, write)",
        "peak_mib": round(measure.peak_mib(), 1),
    }


def _files(subject: subjects.Subject, model: bundle.Model, labels: Any, confidence: Any) -> dict[str, float]:
    """Wall seconds to read the plane from a deflated TIFF and to write its results durably."""
    import tifffile

    with tempfile.TemporaryDirectory(prefix="segmentd-bench-") as name:
        source = Path(name) / "plane.tif"
        tifffile.imwrite(
            source, subject.pixels, compression="zlib", tile=(256, 256), photometric="minisblack"
        )
        with WorkerPool(1) as pool:

            def read() -> FrameInfo:
                with open_image(pool, source) as image:
                    image.read_plane(PlaneIndex())
                    return image.info

            frame = read()
            reading = measure.repeated(read, 3)

        def write() -> None:
            outputs = ("labels", "confidence")
            with ResultWriter(
                Path(name), b"plane.tif", outputs, frame, model.card.classes, "digest"
            ) as writer:
                writer.write_plane(PlaneIndex(), labels, confidence, subject.pixels)
                writer.commit()

        writing = measure.repeated(write, 3)
    return {"read": reading.wall_median, "write": writing.wall_median}


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    columns = ["subject", "features", "classes", "trees", "nodes", "tile", "threads", "Mpx/s", "Mpx/CPU s"]
    runs = result.get("runs", [result])
    known = ("features", "network", "forest", "read", "write")
    stages = [name for name in known if any(name in entry["stages"] for entry in runs)]
    columns += ["spread %", *(f"{name} ns/px" for name in stages), "peak MiB"]
    keys = ("subject", "features", "classes", "trees", "inner_nodes", "tile_px", "threads", "mpx_per_s")
    rows = []
    for entry in runs:
        row = [entry[key] if entry[key] is not None else "auto" for key in keys]
        row += [entry["mpx_per_cpu_s"], entry["spread_percent"]]
        row += [1000 * entry["stages"][name] if name in entry["stages"] else "-" for name in stages]
        rows.append([*row, entry["peak_mib"]])
    report.table(
        "Throughput: plane in memory to labels and confidence",
        columns,
        rows,
        report.footer(result["machine"]),
    )
    for entry in result.get("runs", [result]):
        if "tiles_per_batch" in entry:
            report.line(f"{entry['device']}: {entry['tiles_per_batch']} tiles in a batch on average")
        if "of_expected" in entry:
            share, most = 100 * entry["of_expected"], entry["expected_mpx_per_s"]
            limit = entry["expected_limit"]
            report.line(f"{entry['device']}: {share:.0f} % of {most} Mpx/s, what its {limit} allows on paper")


def plot(result: dict[str, Any], path: Path) -> None:
    """Megapixels a second of each run as bars."""
    values = [
        (
            f"{entry['features']} {entry['classes']} classes {entry['trees']} trees, "
            f"tile {entry['tile_px'] or 'auto'}, {entry['threads']} thr",
            float(entry["mpx_per_s"]),
        )
        for entry in result.get("runs", [result])
    ]
    report.bars(path, "segmentd throughput", "Mpx/s", values, report.footer(result["machine"]))
