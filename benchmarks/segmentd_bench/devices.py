"""The device that a benchmark runs on, and what to expect of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute import fast_features
from segmentd.compute.cuda import roofline
from segmentd.compute.feature_plan import plan_features
from segmentd.compute.features import filter_sets
from segmentd.engine.choice import devices_of, look_for_cards
from segmentd.engine.device import Device
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import Lane
from segmentd.models.bundle import Model
from segmentd.process.gpu_probe import Card, Probe
from segmentd.settings import DeviceSettings
from segmentd_bench.errors import BenchmarkError

DEFAULT_TILE_PX = 512
SAMPLE_PX = 128


@dataclass(frozen=True)
class Chosen:
    """What computes: a device beside the CPU, or the CPU alone; `vgg19_weights` are for deep features.

    `cards` are those of the machine, as far as they were looked for.
    """

    device: Device | None = None
    vgg19_weights: Path | None = None
    cards: tuple[Card, ...] = ()

    @property
    def name(self) -> str:
        """As results call it."""
        return "cpu" if self.device is None else self.device.name

    @contextmanager
    def lane(self, threads: int) -> Iterator[Lane]:
        """Make the lane; a device must not turn to the CPU."""
        cpu = CpuLane(threads, vgg19_weights=self.vgg19_weights, for_devices=self.device is not None)
        lane = cpu if self.device is None else DeviceLane(self.device, cpu, required=True)
        try:
            yield lane
        finally:
            lane.close()

    def expected(self, model: Model, pixels: npt.NDArray[np.generic], tile_px: int | None) -> dict[str, Any]:
        """What the roofline says of a card and a model; empty for everything that is no card."""
        rates = None if self.device is None else _rates(self.device.name, self.cards)
        if rates is None:
            return {}
        plan = plan_features(filter_sets()[model.card.feature_set], model.card.channel_count)
        nodes = _nodes(model, pixels)
        limits = roofline.limits(rates, plan, nodes, tile_px or DEFAULT_TILE_PX)
        limit = min(limits, key=lambda name: limits[name])
        return {
            "expected_mpx_per_s": round(limits[limit], 1),
            "expected_limit": limit,
            "nodes_a_pixel": round(nodes, 1),
        }


def choose(wanted: str, vgg19_weights: Path | None = None) -> Chosen:
    """What is asked for; `auto` is what the daemon would take. BenchmarkError where there is no card."""
    if wanted == "cpu":
        return Chosen(None, vgg19_weights)
    probes: list[Probe] = []

    def look() -> Probe:
        probes.append(look_for_cards())
        return probes[-1]

    found, why_none = devices_of(DeviceSettings(prefer="cuda" if wanted == "cuda" else "auto"), look)
    if found:
        return Chosen(found[0], vgg19_weights, tuple(card for probe in probes for card in probe.cards))
    if wanted == "cuda":
        raise BenchmarkError(f"--device cuda: there is no card to measure: {why_none}")
    return Chosen(None, vgg19_weights)


def _rates(name: str, cards: Sequence[Card]) -> roofline.Rates | None:
    """The rates of `cuda:N`; None for a device that is no card, or a card that does not tell."""
    kind, _, number = name.partition(":")
    if kind != "cuda":
        return None
    card = cards[int(number)]
    if not card.multiprocessors:
        return None
    return roofline.Rates(card.multiprocessors, card.clock_hz, card.memory_bytes_per_s)


def _nodes(model: Model, pixels: npt.NDArray[np.generic]) -> float:
    """Nodes that a pixel of the image meets, of a part of it."""
    plan = plan_features(filter_sets()[model.card.feature_set], model.card.channel_count)
    reach = plan.reach_px
    part = pixels[:, :SAMPLE_PX, :SAMPLE_PX].astype(np.float32)
    around = np.pad(part, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    stack = fast_features.stack(plan, around, np.zeros(len(part), np.float32))
    return roofline.nodes_on_the_way(model.forest, stack.reshape(len(stack), -1).T)
