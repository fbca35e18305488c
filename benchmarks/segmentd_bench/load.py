"""`load`: many subscribers, some of them slow or asleep, and many folders with many small images."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segmentctl.errors import translated
from segmentd_bench import camera, machine, measure, report, subjects
from segmentd_bench.daemon import Served, serving
from segmentd_bench.errors import BenchmarkError
from segmentd_bench.subscribers import Subscriber, crowd

CLASSES = 3
FEATURES = "basic25"
WARM_UP = "warm-up"
_LOOK_S = 0.005


@dataclass(frozen=True)
class Plan:
    """Who subscribes and what is written.

    Attributes
    ----------
    subscribers, slow, stopped : int
        How many subscribe, and how many of these pause after each event or stop reading at once.
    pause_s : float
        How long a slow one pauses.
    folders, images : int
        How many folders are watched, and how many images each gets in a round.
    size_px : int
        Edge of an image.
    repeats : int
        Rounds.
    threads : int
        How many threads of the daemon compute.
    limit_s : float
        After how many seconds the run is given up.
    folder : Path, optional
        Where the temporary folders are made: on the disk to be measured.
    """

    subscribers: int
    slow: int
    stopped: int
    pause_s: float
    folders: int
    images: int
    size_px: int
    repeats: int
    threads: int
    limit_s: float
    folder: Path | None = None

    @property
    def events_a_round(self) -> int:
        """Results of one round."""
        return self.folders * self.images

    @property
    def events(self) -> int:
        """All results, that of the warm-up in each folder included."""
        return self.folders + self.repeats * self.events_a_round


def run(plan: Plan) -> dict[str, Any]:
    """Run the rounds, then let those that stopped read on; see `figures` for the result."""
    subject = subjects.texture(max(plan.size_px, 256), CLASSES)
    model = subjects.trained_model(subject, FEATURES)
    cut = subjects.Subject("", subject.pixels[:, : plan.size_px, : plan.size_px], subject.labels)
    with (
        report.progress(plan.repeats + 2) as step,
        serving(model, plan.threads, plan.folders, plan.folder) as daemon,
        translated(daemon.address),
    ):
        return asyncio.run(_Run(plan, daemon, camera.frames(cut), step).run())


class _Run:
    """One run against a daemon, in an event loop."""

    def __init__(self, plan: Plan, daemon: Served, content: Sequence[bytes], step: report.Step) -> None:
        self._plan = plan
        self._daemon = daemon
        self._content = content
        self._step = step
        self._crowd = crowd(plan.subscribers, plan.slow, plan.stopped, plan.pause_s)
        self._live = [one for one in self._crowd if one.live]
        self._tasks: list[asyncio.Task[None]] = []
        self._deadline = time.monotonic() + plan.limit_s
        self._seconds: list[float] = []
        self._memory_mib: list[float] = []
        self._slow_behind = 0

    async def run(self) -> dict[str, Any]:
        """Figures, also when the time ran out in a later round."""
        follow = (one.follow(self._daemon.address, self._plan.events) for one in self._crowd)
        self._tasks = [asyncio.create_task(one) for one in follow]
        try:
            with suppress(TimeoutError):
                await self._rounds()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._seconds:
            raise BenchmarkError(
                f"the first round was not over in {self._plan.limit_s:g} s: ask for fewer or smaller images, "
                "or for a higher --limit"
            )
        peak = measure.peak_mib(self._daemon.pid)
        return figures(self._plan, self._crowd, self._seconds, [*self._memory_mib, peak], self._slow_behind)

    async def _rounds(self) -> None:
        self._step("connecting")
        await self._until(lambda: all(one.connected for one in self._crowd))
        await self._write(WARM_UP, 1)
        total = self._plan.folders
        await self._until(lambda: self._live_have(total))
        self._memory_mib.append(measure.resident_mib(self._daemon.pid))
        for number in range(self._plan.repeats):
            self._step(f"round {number + 1}")
            total += self._plan.events_a_round
            start = time.monotonic()
            await self._write(f"round-{number}", self._plan.images)
            await self._until(partial(self._live_have, total))
            self._seconds.append(max(one.last_event for one in self._live) - start)
            self._memory_mib.append(measure.resident_mib(self._daemon.pid))
        self._slow_behind = max((total - len(one.numbers) for one in self._crowd if one.pause_s), default=0)
        self._step("slow and stopped ones read on")
        for one in self._crowd:
            one.resume.set()
        await self._until(lambda: all(task.done() for task in self._tasks))

    def _live_have(self, total: int) -> bool:
        return all(len(one.numbers) >= total for one in self._live)

    async def _write(self, prefix: str, images: int) -> None:
        """Write images to all folders in turns, as fast as the disk takes them."""
        for index, name in enumerate(camera.names(images, prefix)):
            frame = self._content[index % len(self._content)]
            for folder in self._daemon.folders:
                await asyncio.to_thread(camera.write, folder, name, frame)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            for task in self._tasks:
                if task.done():
                    task.result()  # a subscription that broke ends the run
            if time.monotonic() > self._deadline:
                raise TimeoutError
            await asyncio.sleep(_LOOK_S)


def figures(
    plan: Plan,
    crowd: Sequence[Subscriber],
    seconds: Sequence[float],
    memory_mib: Sequence[float],
    slow_behind: int,
) -> dict[str, Any]:
    """Put the result together.

    Parameters
    ----------
    plan, crowd
        Who subscribed, and what each got.
    seconds
        Of each round: from the first file to the last event at the last live subscriber.
    memory_mib
        Resident memory of the daemon before the first round and after each, and its peak.
    slow_behind
        Events by which the slowest was behind when the live ones had all.
    """
    missing = [plan.events - len(one.lags_s) for one in crowd]
    files = [plan.events_a_round / each for each in seconds]
    before, *after, peak = (round(value, 1) for value in memory_mib)
    return {
        "subscribers": {
            "live": sum(one.live for one in crowd),
            "slow": sum(one.pause_s > 0 for one in crowd),
            "stopped": sum(one.stops for one in crowd),
            "with_pixels": sum(one.with_pixels for one in crowd),
        },
        "folders": plan.folders,
        "images_a_folder": plan.images,
        "size_px": plan.size_px,
        "threads": plan.threads,
        "repeats": plan.repeats,
        "events": plan.events,
        "missing_live": sum(count for one, count in zip(crowd, missing, strict=True) if one.live),
        "missing_slow_and_stopped": sum(
            count for one, count in zip(crowd, missing, strict=True) if not one.live
        ),
        "out_of_order": sum(not one.in_order for one in crowd),
        "complete": not any(missing) and all(one.in_order for one in crowd),
        "lag_ms": _lags(crowd),
        "slow_behind": slow_behind,
        "round_seconds": [round(each, 3) for each in seconds],
        "files_per_s": round(statistics.median(files), 2),
        "spread_percent": round(measure.spread_percent(files), 1),
        "memory_mib": {
            "before": before,
            "after_rounds": after,
            "peak": peak,
            "growth": round(max(after, default=before) - before, 1),
        },
        "machine": machine.describe(),
    }


def _lags(crowd: Sequence[Subscriber]) -> dict[str, dict[str, float]]:
    found = {}
    for name, with_pixels in (("metadata", False), ("pixels", True)):
        kind = [one for one in crowd if one.live and one.with_pixels is with_pixels]
        lags = [lag for one in kind for path, lag in one.lags_s.items() if WARM_UP not in Path(path).name]
        if lags:
            found[name] = measure.percentiles_ms(lags)
    return found


def show(result: dict[str, Any]) -> None:
    """The result as a table, and whether every subscriber got everything."""
    who, memory = result["subscribers"], result["memory_mib"]
    title = (
        f"{who['live']} live, {who['slow']} slow, {who['stopped']} stopped subscribers, "
        f"{who['with_pixels']} with pixels; {result['folders']} folders, "
        f"{result['images_a_folder']} images of {result['size_px']} px in each, {result['repeats']} rounds"
    )
    rows = [
        [
            f"lag of live subscribers, {kind}: p50 / p95 / max ms",
            f"{lag['p50']} / {lag['p95']} / {lag['max']}",
        ]
        for kind, lag in result["lag_ms"].items()
    ]
    after = " / ".join(str(value) for value in memory["after_rounds"])
    rows += [
        ["files a second, until every live subscriber has all (median)", str(result["files_per_s"])],
        ["spread of the rounds, %", str(result["spread_percent"])],
        ["slowest subscriber behind then, events", str(result["slow_behind"])],
        ["daemon's memory before / after each round, MiB", f"{memory['before']} / {after}"],
        ["daemon's memory, peak / growth, MiB", f"{memory['peak']} / {memory['growth']}"],
    ]
    report.table(title, ["", ""], rows, report.footer(result["machine"]))
    report.line(_verdict(result))


def _verdict(result: dict[str, Any]) -> str:
    if result["complete"]:
        return f"every subscriber got all {result['events']} events in order, those that stopped in the end"
    return (
        f"EVENTS ARE MISSING: {result['missing_live']} at live subscribers, "
        f"{result['missing_slow_and_stopped']} at slow and stopped ones; "
        f"{result['out_of_order']} subscribers got events out of order or twice"
    )


def plot(result: dict[str, Any], path: Path) -> None:
    """Lags of the live subscribers as bars."""
    values = [
        (f"{kind}, {name}", lag[name])
        for kind, lag in result["lag_ms"].items()
        for name in ("p50", "p95", "max")
    ]
    title = f"From durable to {result['subscribers']['live']} live subscribers"
    report.bars(path, title, "ms", values, report.footer(result["machine"]))
