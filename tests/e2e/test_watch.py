"""The main job: files come into a folder in many ways, results come out on disk and to subscribers."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import imagecodecs
import numpy as np
import pytest
import tifffile

from segmentctl import Client, DaemonError, Result

from .daemon import DaemonProcess, run, wait_until
from .images import CLASSES, SHAPE, blobs, draw, write_blobs

pytestmark = pytest.mark.e2e
OUTPUTS = ["labels", "confidence", "classes", "overlay"]
NAMESPACE = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}


@dataclass(frozen=True)
class Harvest:
    """What came back from a daemon that is still running."""

    daemon: DaemonProcess
    results: list[Result]

    def by_source(self) -> dict[str, Result]:
        return {result.segmentation.source_display: result for result in self.results}


def arrive(daemon: DaemonProcess, scratch: Path) -> set[str]:
    """Let files arrive in all the ways that acquisition software has; return what must come back."""
    hot = daemon.hot
    shutil.copyfile(write_blobs(scratch / "copied.tif", 12), hot / "copied.tif")

    part = hot / "renamed.tif.part"
    shutil.copyfile(write_blobs(scratch / "renamed.tif", 13), part)
    part.rename(hot / "renamed.tif")

    (hot / "new" / "deeper").mkdir(parents=True)
    shutil.copyfile(write_blobs(scratch / "deep.tif", 14), hot / "new" / "deeper" / "deep.tif")

    for seed, name in ((15, "one.tif"), (16, "two.tif")):
        write_blobs(scratch / "moved" / name, seed)
    (scratch / "moved").rename(hot / "moved")

    shutil.copyfile(scratch / "copied.tif", hot / "a copy of it, µm.tif")

    data = write_blobs(scratch / "slow.tif", 17).read_bytes()
    with daemon.client() as client, (hot / "slow.tif").open("wb") as file:
        for start in range(0, len(data), len(data) // 4 + 1):
            file.write(data[start : start + len(data) // 4 + 1])
            file.flush()
            wait_until(lambda: client.watch("hot").waiting_count >= 1, "the growing file is seen")
            assert not (daemon.results / "slow.tif.labels.ome.tif").exists()
    return {
        "copied.tif",
        "renamed.tif",
        "new/deeper/deep.tif",
        "moved/one.tif",
        "moved/two.tif",
        "a copy of it, µm.tif",
        "slow.tif",
    }


@pytest.fixture(scope="module")
def harvest(blobs_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harvest]:
    folder = tmp_path_factory.mktemp("watch")
    daemon = DaemonProcess(
        folder, blobs_model.parent, model="blobs", settle_seconds=0.3, give_up_seconds=60.0, outputs=OUTPUTS
    )
    write_blobs(daemon.hot / "early.tif", 10)
    write_blobs(daemon.hot / "sub" / "early.tif", 11)
    with daemon, daemon.client() as client, client.subscribe("hot", start="oldest", timeout=60) as results:
        wanted = {"early.tif", "sub/early.tif"} | arrive(daemon, folder / "scratch")
        got: list[Result] = []
        for result in results:
            got.append(result)
            if wanted <= {each.segmentation.source_display for each in got}:
                break
        yield Harvest(daemon, got)


def test_every_file_comes_back_once_in_order_without_gaps(harvest: Harvest) -> None:
    sources = [result.segmentation.source_display for result in harvest.results]
    assert len(sources) == len(set(sources)) == 9
    assert [result.number for result in harvest.results] == list(range(1, 10))
    for result in harvest.results:
        segmentation = result.segmentation
        assert segmentation.state == segmentation.STATE_SUCCEEDED, result.error
        assert segmentation.name == f"watches/hot/segmentations/s{result.number}"
        assert (segmentation.version, segmentation.plane_count, segmentation.device) == (1, 1, "cpu")
        assert os.fsdecode(segmentation.source_path) == str(harvest.daemon.hot / segmentation.source_display)
        assert segmentation.latency.ToTimedelta().total_seconds() > 0
    assert len({result.cursor for result in harvest.results}) == 9


def test_nothing_else_is_taken_up_not_even_the_results_in_the_watched_folder(harvest: Harvest) -> None:
    with harvest.daemon.client() as client:
        watch = client.watch("hot")
        assert (watch.done_count, watch.failed_count, watch.waiting_count) == (9, 0, 0)
        assert client.server().last_event_number == 9
        names = [segmentation.name for segmentation in client.segmentations("hot")]
    assert names == [result.segmentation.name for result in harvest.results]


def test_what_a_subscriber_got_is_what_lies_on_disk(harvest: Harvest) -> None:
    for result in harvest.results:
        segmentation = result.segmentation
        files = {kind: Path(file.local_path) for kind, file in segmentation.files.items()}
        base = harvest.daemon.results / segmentation.source_display
        assert files == {
            "labels": Path(f"{base}.labels.ome.tif"),
            "confidence": Path(f"{base}.confidence.ome.tif"),
            "classes": Path(f"{base}.classes.ome.tif"),
            "overlay": Path(f"{base}.overlay.png"),
        }
        for kind, path in files.items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == segmentation.files[kind].digest
        source = (harvest.daemon.hot / segmentation.source_display).read_bytes()
        assert hashlib.sha256(source).hexdigest() == segmentation.content_digest
        assert result.labels is not None
        assert result.confidence is not None
        np.testing.assert_array_equal(tifffile.imread(files["labels"]), result.labels)
        np.testing.assert_array_equal(tifffile.imread(files["confidence"]), result.confidence)
        counts = np.bincount(result.labels.ravel(), minlength=3).tolist()
        assert list(segmentation.label_pixel_counts) == counts
        assert segmentation.mean_confidence == pytest.approx(result.confidence.mean())


def test_the_labels_find_the_blobs(harvest: Harvest) -> None:
    result = harvest.by_source()["copied.tif"]
    assert result.labels is not None
    assert np.mean((result.labels == 2) == draw(12)[1]) > 0.95


def test_segmentd_segment_writes_the_same_files(harvest: Harvest, blobs_model: Path, tmp_path: Path) -> None:
    sources = [result.segmentation.source_display for result in harvest.results]
    options = ("--model", blobs_model, "--out", tmp_path, "--keep-paths", "--overlay")
    run("segment", *sources, *options, folder=harvest.daemon.hot)
    for source in sources:
        for kind in ("labels.ome.tif", "confidence.ome.tif", "overlay.png"):
            from_command = (tmp_path / f"{source}.{kind}").read_bytes()
            assert from_command == (harvest.daemon.results / f"{source}.{kind}").read_bytes(), source


def test_pixels_sent_over_the_wire_give_the_same_labels(harvest: Harvest) -> None:
    with harvest.daemon.client() as client:
        for result in harvest.results:
            pixels = tifffile.imread(harvest.daemon.hot / result.segmentation.source_display)
            labels, confidence = client.segment(pixels, "blobs")
            np.testing.assert_array_equal(labels, result.labels)
            np.testing.assert_array_equal(confidence, result.confidence)


def test_result_files_open_elsewhere(harvest: Harvest) -> None:
    result = harvest.by_source()["early.tif"]
    assert result.labels is not None
    files = {kind: Path(file.local_path) for kind, file in result.segmentation.files.items()}
    with tifffile.TiffFile(files["labels"]) as tiff:
        assert (tiff.is_ome, tiff.series[0].axes, tiff.series[0].shape) == (True, "YX", SHAPE)
        root = ET.fromstring(tiff.ome_metadata)
    texts = [entry.text or "" for entry in root.iterfind(".//ome:M", NAMESPACE)]
    for name in CLASSES:
        assert any(text.startswith(f"{name} #") for text in texts)
    with tifffile.TiffFile(files["classes"]) as tiff:
        assert tiff.series[0].axes == "CYX"
        channels = tiff.asarray()
        names = [
            entry.get("Name")
            for entry in ET.fromstring(tiff.ome_metadata).iterfind(".//ome:Channel", NAMESPACE)
        ]
    assert names == list(CLASSES)
    np.testing.assert_array_equal(
        channels, np.stack([result.labels == 1, result.labels == 2]) * np.uint8(255)
    )
    assert imagecodecs.png_decode(files["overlay"].read_bytes()).shape == (*SHAPE, 3)


def test_stdout_holds_ready_and_nothing_else(harvest: Harvest) -> None:
    assert harvest.daemon.further_output() == []


@pytest.fixture(scope="module")
def daemon(blobs_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with the watches `hot` and `lean`, which writes labels only."""
    folder = tmp_path_factory.mktemp("versions")
    (folder / "lean").mkdir()
    watches: list[dict[str, Any]] = [
        {"id": name, "folder": name, "model": "blobs", "settle_seconds": 0.3} for name in ("hot", "lean")
    ]
    watches[1]["outputs"] = ["labels"]
    with DaemonProcess(folder, blobs_model.parent, watches) as started:
        yield started


def from_now(client: Client) -> str:
    """Return the cursor after what there is."""
    server = client.server()
    return f"{server.journal_id}-{server.last_event_number}"


def test_a_stack_is_a_segmentation_for_each_plane(daemon: DaemonProcess) -> None:
    planes, stack = np.stack([blobs(seed) for seed in (20, 21, 22)]), daemon.hot / "stack.tif"
    with daemon.client() as client:
        with client.subscribe("hot", from_now(client), timeout=60) as results:
            tifffile.imwrite(stack, planes, imagej=True, metadata={"axes": "ZYX"})
            got = [next(results) for _ in planes]
        for index, result in enumerate(got):
            plane, labels = result.segmentation.plane, client.segment(planes[index], "blobs")[0]
            assert (plane.scene, plane.time, plane.z, result.segmentation.plane_count) == (0, 0, index, 3)
            assert result.number == got[0].number + index
            np.testing.assert_array_equal(result.labels, labels)
    stored = tifffile.imread(got[0].segmentation.files["labels"].local_path)
    np.testing.assert_array_equal(stored, np.stack([result.labels for result in got]))


def test_a_file_that_is_touched_is_done_and_one_that_is_replaced_is_a_new_version(
    daemon: DaemonProcess,
) -> None:
    path = daemon.hot / "touched.tif"
    with daemon.client() as client, client.subscribe("hot", from_now(client), timeout=60) as results:
        write_blobs(path, 23)
        assert next(results).segmentation.version == 1
        os.utime(path)  # nobody closes it, so it settles; so does what is moved in after it
        write_blobs(daemon.folder / "other.tif", 24).rename(daemon.hot / "other.tif")
        assert next(results).segmentation.source_display == "other.tif"
        write_blobs(path, 25)
        replaced = next(results)
        assert (replaced.segmentation.source_display, replaced.segmentation.version) == ("touched.tif", 2)
        np.testing.assert_array_equal(replaced.labels, client.segment(blobs(25), "blobs")[0])


def test_events_of_a_version_that_was_replaced_have_no_pixels(daemon: DaemonProcess) -> None:
    """They never have those of another version, whatever its size."""
    with daemon.client() as client:
        start = from_now(client)
        with client.subscribe("hot", start, timeout=60) as results:
            for version, shape in enumerate([SHAPE, SHAPE, (40, 50)], 1):
                write_blobs(daemon.hot / "versions.tif", version, shape)
                newest = next(results)
                assert newest.segmentation.version == version
        with client.subscribe("hot", start, timeout=60) as results:
            older = [next(results), next(results)]
            np.testing.assert_array_equal(next(results).labels, newest.labels)
        for result in older:
            assert result.labels is None
            assert result.error is not None
            assert result.error.reason == "RESULT_UNAVAILABLE"
            with pytest.raises(DaemonError) as refused:
                client.read(result.segmentation)
            assert refused.value.reason == "RESULT_UNAVAILABLE"


def test_png_of_the_same_pixels_gives_the_same_labels(daemon: DaemonProcess) -> None:
    """Also: a watch that writes labels only, whose subscribers get no confidence."""
    lean = daemon.folder / "lean"
    with daemon.client() as client:
        (lean / "a.PNG").write_bytes(imagecodecs.png_encode(blobs(26)))
        with client.subscribe("lean", start="oldest", timeout=60) as results:
            result = next(results)
        np.testing.assert_array_equal(result.labels, client.segment(blobs(26), "blobs")[0])
    assert result.confidence is None
    assert [path.name for path in (lean / "segmented").iterdir()] == ["a.PNG.labels.ome.tif"]
