"""What Prometheus reads from a daemon that has done five images."""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from segmentctl import DaemonError

from .daemon import DaemonProcess, wait_until
from .scene import Scene

pytestmark = pytest.mark.e2e

Value = Callable[..., float]


def scraped(daemon: DaemonProcess) -> dict[str, Metric]:
    with urlopen(daemon.metrics_url(), timeout=30) as page:
        text = page.read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture(scope="module")
def families(scene: Scene) -> dict[str, Metric]:
    return scraped(scene.daemon)


@pytest.fixture(scope="module")
def value(families: dict[str, Metric]) -> Value:
    """Look up a sample: `value("segmentd_images_total", watch="hot", state="done")`."""
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    return lambda name, **labels: samples[name, frozenset(labels.items())]


def test_counts_are_those_of_the_images(scene: Scene, value: Value) -> None:
    assert value("segmentd_images_total", watch="hot", state="done") == 4
    assert value("segmentd_images_total", watch="hot", state="failed") == 1
    assert value("segmentd_image_failures_total", watch="hot", reason="IMAGE_INCOMPLETE") == 1
    assert value("segmentd_watch_images", watch="hot", state="done") == 4
    assert value("segmentd_events_total") == 5
    made = [one.segmentation for one in scene.results.values() if one.segmentation.height]
    assert value("segmentd_planes_total", watch="hot") == len(made) == 4
    assert value("segmentd_pixels_total", watch="hot") == sum(one.height * one.width for one in made)
    sources = [scene.daemon.hot / one.source_display for one in made]
    assert value("segmentd_image_read_bytes_total", watch="hot") == sum(
        path.stat().st_size for path in sources
    )
    files = [path for one in made for path in scene.daemon.results.glob(f"{one.source_display}.*")]
    assert value("segmentd_result_written_bytes_total", watch="hot") == sum(
        path.stat().st_size for path in files
    )
    assert value("segmentd_api_sent_bytes_total") > 0


def test_calls_are_counted_by_how_they_end(scene: Scene) -> None:
    def calls() -> dict[tuple[str, str], float]:
        samples = scraped(scene.daemon)["segmentd_calls"].samples
        return {(one.labels["method"].split(".")[-1], one.labels["code"]): one.value for one in samples}

    before = calls()
    scene.client.server()
    with pytest.raises(DaemonError):
        scene.client.watch("nobody")
    after = calls()
    changed = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key)}
    assert changed.pop(("ServerService/GetServer", "OK")) >= 1
    assert changed.pop(("WatchService/GetWatch", "NOT_FOUND")) == 1
    assert {method.partition("/")[0] for method, _ in changed} <= {"SegmentationService", "ServerService"}


def test_what_is_going_on_now(value: Value) -> None:
    assert value("segmentd_queue_images", watch="hot") == 0
    assert value("segmentd_planes_in_flight") == 0
    assert value("segmentd_watch_state", watch="another", state="active") == 1
    assert value("segmentd_models_loaded") >= 1  # other tests may use more
    assert value("segmentd_device_threads", device="cpu") > 0
    assert value("segmentd_device_work_seconds_total", device="cpu") > 0
    assert value("process_resident_memory_bytes") > 1e6


@pytest.mark.parametrize(
    "stage", ["settle", "queue", "read", "compute", "features", "forest", "write", "commit", "publish"]
)
def test_stages_are_histograms(families: dict[str, Metric], stage: str) -> None:
    samples = [
        sample for sample in families["segmentd_stage_seconds"].samples if sample.labels.get("stage") == stage
    ]
    buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    (count,) = (sample.value for sample in samples if sample.name.endswith("_count"))
    assert buckets == sorted(buckets)
    assert count == buckets[-1] >= 4
    assert math.isinf(
        float([sample for sample in samples if sample.name.endswith("_bucket")][-1].labels["le"])
    )


def test_the_latency_counts_images_that_are_done(value: Value) -> None:
    assert value("segmentd_image_latency_seconds_count", watch="hot") == 4
    assert value("segmentd_image_latency_seconds_sum", watch="hot") > 0


def test_names_and_labels_follow_the_conventions(families: dict[str, Metric]) -> None:
    ours = [family for family in families.values() if family.name.startswith("segmentd_")]
    assert len(ours) > 15
    allowed = {
        "measure",
        "method",
        "code",
        "watch",
        "state",
        "reason",
        "stage",
        "device",
        "le",
        "version",
        "display_name",
    }
    for family in ours:
        assert family.documentation.endswith(".")
        assert family.name.endswith(("_seconds", "_bytes")) or "second" not in family.name
        assert {label for sample in family.samples for label in sample.labels} <= allowed
        # No paths, names of images or messages: the number of series stays small.
        assert len(family.samples) < 300


def test_readers_that_say_nothing_keep_nobody_out_for_long(scene: Scene) -> None:
    where = urlsplit(scene.daemon.metrics_url())
    silent = [socket.create_connection((where.hostname, where.port)) for _ in range(8)]
    # The first four wait for a request; the others are hung up on.
    wait_until(lambda: any(_closed(one) for one in silent), "a reader too many is hung up on")
    for one in silent:
        one.close()
    wait_until(lambda: _answers(scene.daemon), "the page answers again")


def _closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def _answers(daemon: DaemonProcess) -> bool:
    try:
        return "segmentd_events" in scraped(daemon)
    except OSError:
        return False


# ---------------------------------------------------------------- the dashboard

WORDS = {"sum", "rate", "increase", "histogram_quantile", "by", "or", "vector"}
ADDED_BY_PROMETHEUS = {"instance"}


def expressions(repository: Path) -> list[str]:
    board = json.loads((repository / "systemd" / "grafana" / "segmentd.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_every_expression_of_the_dashboard_names_what_is_there(
    repository: Path, families: dict[str, Metric]
) -> None:
    labels = {name: names for family in families.values() for name, names in _labels(family)}
    found = expressions(repository)
    assert len(found) > 20
    for expression in found:
        assert expression.count("(") == expression.count(")")
        named = re.findall(r"([a-z_]+)\{([^}]*)\}", expression)
        assert named
        for name, selector in named:
            assert name in labels, expression
            grouped = re.findall(r"by \(([^)]*)\)", expression)
            used = {*re.findall(r"(\w+)[!=]~?\"", selector), *", ".join(grouped).split(", ")} - {""}
            assert used - ADDED_BY_PROMETHEUS <= labels[name], expression
        outside = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \([^)]*\)|\d[\de.]*", "", expression)
        assert set(re.findall(r"[a-z_]+", outside)) <= WORDS | {name for name, _ in named}, expression


def test_panels_of_the_dashboard_do_not_lie_on_one_another(repository: Path) -> None:
    board = json.loads((repository / "systemd" / "grafana" / "segmentd.json").read_text())
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def _labels(family: Metric) -> Iterator[tuple[str, set[str]]]:
    """Names of samples and their labels; a family without samples, as those of GPUs here, has them all."""
    for sample in family.samples:
        yield sample.name, set(sample.labels)
    if not family.samples:
        yield family.name, {"device", "watch", "measure"}
