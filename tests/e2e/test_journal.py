"""What the journal remembers: renames, versions, ignored files; crashes at named points; rebuilding it."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segmentctl import Result
from segmentctl.client import Client

from .daemon import DaemonProcess, run_here, wait_until
from .following import READ
from .images import write_blobs, write_truncated

pytestmark = pytest.mark.e2e


def results(client: Client, count: int, metadata_only: bool = True) -> list[Result]:
    """Follow the journal from its beginning."""
    with client.subscribe("hot", start="oldest", timeout=60, metadata_only=metadata_only) as stream:
        return [next(stream) for _ in range(count)]


def told(found: list[Result]) -> list[tuple[str, str, int]]:
    """Return what a user sees of results: how each ended, name, version."""
    return [
        (
            result.segmentation.State.Name(result.segmentation.state).removeprefix("STATE_"),
            result.segmentation.source_display,
            result.segmentation.version,
        )
        for result in found
    ]


@pytest.mark.parametrize(
    "container", ["ome-tiff", *(pytest.param(other, marks=pytest.mark.slow) for other in ("ome-zarr", "czi"))]
)
def test_renames_and_versions_are_told_and_a_lost_journal_is_rebuilt(
    place: Callable[..., DaemonProcess], container: str
) -> None:
    daemon = place(results_format=container)
    write_blobs(daemon.hot / "a.tif", 1)
    with daemon.start(), daemon.client() as client:
        results(client, 1)
        (daemon.hot / "a.tif").rename(daemon.hot / "b.tif")
        results(client, 2)
        write_blobs(daemon.hot / "a.tif", 2)
        results(client, 3)
        daemon.stop()
        (daemon.hot / "b.tif").rename(daemon.hot / "c.tif")
        daemon.start()
        found = results(client, 4, metadata_only=False)
        assert told(found) == [
            ("SUCCEEDED", "a.tif", 1),
            ("RENAMED", "b.tif", 1),
            ("SUCCEEDED", "a.tif", 2),
            ("RENAMED", "c.tif", 1),
        ]
        first, _, second, renamed = found
        assert first.labels is None, "the second version has taken the place of its files"
        assert first.error is not None and first.error.reason == "RESULT_UNAVAILABLE"
        written = READ[container](second.segmentation.files["labels"].local_path)
        np.testing.assert_array_equal(second.labels, written)
        assert (renamed.labels, renamed.segmentation.renamed_from_display) == (None, "b.tif")
        kept = renamed.segmentation.files["labels"]
        assert Path(kept.local_path).name == "c.tif.labels." + container.replace("-", ".").removesuffix("f")
        assert kept.digest == first.segmentation.files["labels"].digest
        assert client.watch("hot").done_count == 2
        daemon.stop()

        config = daemon.write_config()
        refused = run_here("rebuild-journal", "--config", config, code=1)
        assert "is sound" in refused.stderr and "--force" in refused.stderr
        journal = daemon.folder / "journal" / "journal.sqlite"
        journal.write_bytes(journal.read_bytes()[:5000])
        daemon.launch()
        assert daemon.wait_for_exit(30) == 1
        assert "segmentd rebuild-journal" in daemon.log_end()
        rebuilt = run_here("rebuild-journal", "--config", config)
        assert "journal.sqlite.old-1" in rebuilt.stdout
        daemon.start()
        run_here("rebuild-journal", "--config", config, "--force", code=73)
        write_blobs(daemon.hot / "d.tif", 3)
        again = results(client, 4)
        assert Counter(told(again)) == Counter(
            ("SUCCEEDED", name, 1) for name in ("a.tif", "b.tif", "c.tif", "d.tif")
        )
        assert again[-1].segmentation.source_display == "d.tif"
        by_name = {result.segmentation.source_display: result.segmentation for result in again}
        before, after = second.segmentation, by_name["a.tif"]
        for field in ("content_digest", "model", "model_digest", "label_pixel_counts", "height", "classes"):
            assert getattr(after, field) == getattr(before, field), field
        assert after.mean_confidence == pytest.approx(before.mean_confidence)
        assert client.server().last_event_number == 4, "nothing whose results are there was done again"


@pytest.mark.slow
def test_what_is_there_when_a_watch_is_new_can_be_ignored_and_damaged_results_are_told(
    place: Callable[..., DaemonProcess],
) -> None:
    daemon = place(existing="ignore")
    write_blobs(daemon.hot / "old.tif", 1)
    daemon.start()
    write_truncated(daemon.hot / "bad.tif")
    with daemon.client() as client:
        assert told(results(client, 1)) == [("FAILED", "bad.tif", 1)]
        daemon.stop()
        write_blobs(daemon.hot / "new.tif", 2)
        write_blobs(daemon.hot / "bad.tif", 3)
        daemon.start()
        assert sorted(told(results(client, 3))[1:]) == [
            ("SUCCEEDED", "bad.tif", 2),
            ("SUCCEEDED", "new.tif", 1),
        ]
        watch = client.watch("hot")
        assert (watch.ignored_count, watch.done_count, list(watch.warnings)) == (1, 2, [])
        daemon.stop()
        (daemon.results / "new.tif.confidence.ome.tif").unlink()
        labels = daemon.results / "bad.tif.labels.ome.tif"
        labels.write_bytes(labels.read_bytes()[:-1] + b"?")
        daemon.start()
        wait_until(lambda: len(client.watch("hot").warnings) == 1, "the results are checked")
        (warning,) = client.watch("hot").warnings
        assert "missing (1) or damaged (1), for example" in warning
        assert all(
            result.labels is None and result.error is not None and result.error.reason != ""
            for result in results(client, 3, metadata_only=False)
        )


@pytest.mark.slow
def test_a_crash_in_a_rename_loses_nothing(place: Callable[..., DaemonProcess]) -> None:
    daemon = place()
    write_blobs(daemon.hot / "a.tif", 1)
    with daemon.start(), daemon.client() as client:
        results(client, 1)
        for number, point in enumerate(("result-linked", "before-commit", "after-commit")):
            daemon.stop()
            names = ("a.tif", "b.tif", "c.tif", "d.tif")
            (daemon.hot / names[number]).rename(daemon.hot / names[number + 1])
            daemon.environment = {"SEGMENTD_CRASH_AT": point}
            daemon.launch()
            assert daemon.wait_for_exit(30) == -signal.SIGKILL
            daemon.environment = {}
            daemon.start()
            results(client, number + 2)
        found = results(client, 4)
        assert told(found) == [("SUCCEEDED", "a.tif", 1), *(("RENAMED", name, 1) for name in names[1:])]
        assert client.server().last_event_number == 4
        assert {path.name for path in daemon.results.glob("*.part")} == set()
