"""`compare`: ours beside the usual pipeline and beside peers; same image, labels and machine, in turns."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.engine.lane import CpuLane
from segmentd.imagefile import read_simple
from segmentd.models import training
from segmentd.records import SegmentOptions
from segmentd_bench import machine, measure, peers, report, subjects
from segmentd_bench.errors import BenchmarkError
from segmentd_bench.plain import PlainPipeline

OURS, PLAIN = "segmentd", "scipy + scikit-learn"


def run(
    image: Path | None, labels: Path | None, features: str, size_px: int, repeats: int, threads: int = 1
) -> dict[str, Any]:
    """Compare on an image with its label image, or on a texture of three classes.

    Returns
    -------
    dict
        `entries`: for each program Mpx/s by wall and by CPU time, how many times the CPU seconds of
        ours it needs, and the share of pixels on which its labels agree with ours.
    """
    subject = _subject(image, labels, size_px)
    model = subjects.trained_model(subject, features)
    lane = CpuLane(threads)
    with (
        report.progress(3) as step,
        subjects.saved(model) as path,
        tempfile.TemporaryDirectory(prefix="segmentd-bench-") as folder,
    ):
        step("training")
        plain = PlainPipeline(features, training.TREES, model.card.seed)
        plain.fit(subject.pixels, subject.labels)
        others: dict[str, peers.Peer] = {PLAIN: plain}
        left_out: dict[str, str] = {}
        for name, make in peers.installed(training.TREES, model.card.seed, Path(folder)):
            peer = _trained(make, subject)
            if isinstance(peer, str):
                left_out[name] = peer
            else:
                others[name] = peer
        lane.load(path)

        def ours() -> npt.NDArray[np.uint8]:
            return lane.segment_array(path, subject.pixels, SegmentOptions()).labels

        works = [ours, *(lambda peer=peer: peer.predict(subject.pixels) for peer in others.values())]
        step("measuring in turns")
        timings = measure.interleaved(works, repeats)
        found = [work() for work in works]
    lane.close()
    entries = [
        _entry(name, subject, timing, timings[0], labels_found, found[0])
        for name, timing, labels_found in zip((OURS, *others), timings, found, strict=True)
    ]
    return {
        "subject": subject.name,
        "megapixels": subject.megapixels,
        "features": features,
        "classes": len(model.card.classes),
        "trees": model.forest.tree_count,
        "inner_nodes": subjects.inner_nodes(model),
        "threads": threads,
        "repeats": repeats,
        "ratio_to_plain": round(timings[1].cpu_median / timings[0].cpu_median, 2),
        "entries": entries,
        "left_out": left_out,
        "machine": machine.describe(),
    }


def _trained(make: Callable[[], peers.Peer], subject: subjects.Subject) -> peers.Peer | str:
    """A peer that has learnt the subject, and can label it; or why it cannot run here."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
            peer = make()
            peer.fit(subject.pixels, subject.labels)
            peer.predict(subject.pixels)
    except Exception as error:  # somebody else's program: whatever it raises is told to the user
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return peer


def _subject(image: Path | None, labels: Path | None, size_px: int) -> subjects.Subject:
    if image is None or labels is None:
        return subjects.texture(size_px, classes=3)
    pixels, drawn = read_simple(image), read_simple(labels)[0]
    if drawn.shape != pixels.shape[1:]:
        raise BenchmarkError(f"{labels}: has the size {drawn.shape}, its image {pixels.shape[1:]}")
    return subjects.Subject(image.name, pixels, drawn.astype(np.uint8))


def _entry(
    name: str,
    subject: subjects.Subject,
    timing: measure.Timing,
    ours: measure.Timing,
    labels: npt.NDArray[Any],
    our_labels: npt.NDArray[np.uint8],
) -> dict[str, Any]:
    return {
        "name": name,
        "mpx_per_s": round(subject.megapixels / timing.wall_median, 3),
        "mpx_per_cpu_s": round(subject.megapixels / timing.cpu_median, 3),
        "times_our_cpu": round(timing.cpu_median / ours.cpu_median, 2),
        "spread_percent": round(timing.spread_percent, 1),
        "agreement_percent": round(100 * float(np.mean(labels == our_labels)), 3),
    }


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    rows = [
        [
            entry["name"],
            entry["mpx_per_s"],
            entry["mpx_per_cpu_s"],
            entry["times_our_cpu"],
            entry["spread_percent"],
            entry["agreement_percent"],
        ]
        for entry in result["entries"]
    ]
    title = (
        f"{result['subject']}: {result['features']}, {result['classes']} classes, {result['trees']} trees, "
        f"{result['inner_nodes']:,} nodes, {result['threads']} thread(s)"
    )
    columns = ["program", "Mpx/s", "Mpx/CPU s", "x our CPU time", "spread %", "same labels %"]
    report.table(title, columns, rows, report.footer(result["machine"]))
    for name, why in result["left_out"].items():
        report.line(f"left out: {name} is installed but does not run here ({why})")


def plot(result: dict[str, Any], path: Path) -> None:
    """Megapixels a CPU second as bars."""
    values = [(entry["name"], float(entry["mpx_per_cpu_s"])) for entry in result["entries"]]
    title = f"{result['subject']}, {result['features']}: megapixels a CPU second"
    report.bars(path, title, "Mpx/s", values, report.footer(result["machine"]))
