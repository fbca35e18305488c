"""Labels written into the OME-Zarr that was segmented: where the specification has them, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from segmentd.imagefile import Region, read_region
from segmentd.imagefile.description import read_description
from segmentd.ingest.readers import OpenImage, open_image
from segmentd.records import ClassInfo, ResultForm, WatchSpec
from segmentd.results.check import Check
from segmentd.results.contents import stamp_of
from segmentd.results.inside import INSIDE, moved_along
from segmentd.results.published import PublishedFile, ResultFault
from segmentd.results.rebuild import find_results, rebuild_image
from segmentd.results.store import ResultFile, ResultWriter
from segmentd.workers import WorkerPool

from ..unit.ingest.ome_zarr_files import write_ome_zarr

CLASSES = (ClassInfo(1, "background", "#0072B2"), ClassInfo(2, "nucleus", "#E69F00"))
FORM = ResultForm(labels_inside=True)
PIXELS = np.arange(2 * 2 * 3 * 40 * 50, dtype=np.uint16).reshape(2, 2, 3, 40, 50)


@pytest.fixture(scope="module")
def pool():  # type: ignore[no-untyped-def]
    with WorkerPool(1) as started:
        yield started


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(image: OpenImage, path: Path, value: int = 1, commit: bool = True) -> dict[str, ResultFile]:
    outputs = ("labels", "confidence")
    with ResultWriter(
        path.parent / "out",
        path.name.encode(),
        outputs,
        image.info,
        CLASSES,
        image.content_digest,
        "cd",
        form=FORM,
        image=path,
        image_folder=image.folder,
    ) as writer:
        for page, index in enumerate(image.info.planes()):
            plane = np.full((image.info.height, image.info.width), (value + page) % 3, np.uint8)
            plane[:5] = 2
            writer.write_plane(index, plane, plane, plane[np.newaxis])
        return writer.commit() if commit else {}


def segment(pool: WorkerPool, path: Path, value: int = 1, commit: bool = True) -> dict[str, ResultFile]:
    with open_image(pool, path) as image:
        digest = image.content_digest
        files = write(image, path, value, commit)
        image.check_unchanged()
    with open_image(pool, path) as image:
        assert image.content_digest == digest
    return files


def test_they_lie_on_the_image(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", PIXELS, levels=3)
    document = path / "zarr.json"
    about = json.loads(document.read_text())
    dataset = about["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    dataset["coordinateTransformations"].append({"type": "translation", "translation": [0, 0, 0, 7.5, 0.0]})
    document.write_text(json.dumps(about))
    before = tree(path)
    files = segment(pool, path)
    assert files["labels"].path == path / "labels" / "segmentd"
    assert files["confidence"].path.parent == tmp_path / "out"
    after = tree(path)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in set(after) - set(before)} == {"labels"}
    root = zarr.open_group(path, mode="r")
    assert root["labels"].attrs["ome"] == {"version": "0.5", "labels": ["segmentd"]}
    group = root["labels/segmentd"]
    (theirs,), (ours,) = (each.attrs["ome"]["multiscales"] for each in (root, group))
    assert ours["axes"] == theirs["axes"]
    scales = [one["coordinateTransformations"] for one in ours["datasets"]]
    assert scales[0] == dataset["coordinateTransformations"]
    assert scales[2][0]["scale"] == [1, 1, 0.5, 0.8, 0.4]
    assert scales[2][1]["translation"] == pytest.approx([0, 0, 0, 7.5 + 0.3, 0.15])
    assert [group[str(level)].shape for level in range(3)] == [
        (2, 1, 3, 40, 50),
        (2, 1, 3, 20, 25),
        (2, 1, 3, 10, 13),
    ]
    assert group.attrs["ome"]["image-label"]["source"] == {"image": "../../"}
    assert [one["class"] for one in group.attrs["ome"]["image-label"]["properties"]] == [
        item.name for item in CLASSES
    ]
    for page in range(6):
        time, z = divmod(page, 3)
        labels = read_region(files["labels"].path, page, Region(0, 0, 40, 50))
        np.testing.assert_array_equal(labels, group["0"][time, 0, z])
        assert labels[-1, -1] == (1 + page) % 3
    assert read_description(files["labels"].path).classes == CLASSES


def test_other_labels_stay_and_ours_are_replaced(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", PIXELS[0, 0, 0], "yx")
    drawn = zarr.open_group(path / "labels", mode="w", zarr_format=3)
    drawn.attrs.update({"ome": {"version": "0.5", "labels": ["drawn"], "more": 1}, "else": [2]})
    drawn.create_array("drawn", shape=(40, 50), dtype="uint8")[...] = 3
    kept = {name: data for name, data in tree(path / "labels").items() if name != "zarr.json"}
    left = path / "labels" / ".segmentd.segmentd-0123abcd.part"
    left.mkdir()
    assert segment(pool, path, commit=False) == {}
    assert tree(path / "labels") == kept | {"zarr.json": (path / "labels" / "zarr.json").read_bytes()}
    assert not left.exists()
    first, second = segment(pool, path, 1), segment(pool, path, 0)
    assert first["labels"].sha256 != second["labels"].sha256
    attributes = zarr.open_group(path / "labels", mode="r").attrs
    assert attributes["ome"] == {"version": "0.5", "labels": ["drawn", "segmentd"], "more": 1}
    assert attributes["else"] == [2]
    assert kept.items() <= tree(path / "labels").items()
    assert sorted(entry.name for entry in (path / "labels").iterdir()) == ["drawn", "segmentd", "zarr.json"]


@pytest.mark.parametrize("why", ["version", "theirs", "no metadata", "link", "damaged", "scenes"])
def test_images_that_do_not_take_labels_are_left_alone(pool: WorkerPool, tmp_path: Path, why: str) -> None:
    path = tmp_path / "a.zarr"
    if why == "scenes":
        zarr.open_group(path, mode="w").attrs.update({"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
        zarr.open_group(path / "OME", mode="w").attrs.update(
            {"ome": {"version": "0.5", "series": ["0", "1"]}}
        )
        for scene in "01":
            write_ome_zarr(path / scene, PIXELS[0, 0, 0], "yx")
    else:
        write_ome_zarr(path, PIXELS[0, 0, 0], "yx", version="0.4" if why == "version" else "0.5")
    if why == "theirs":
        zarr.open_group(path / "labels", mode="w").attrs.update({"ome": {"version": "0.5", "labels": []}})
        zarr.open_group(path / "labels" / "segmentd", mode="w")
    elif why == "no metadata":
        (path / "labels" / "mine").mkdir(parents=True)
    elif why == "link":
        (tmp_path / "elsewhere").mkdir()
        (path / "labels").symlink_to(tmp_path / "elsewhere")
    elif why == "damaged":
        (path / "labels").mkdir()
        (path / "labels" / "zarr.json").write_text("{")
    before = tree(path)
    files = segment(pool, path)
    assert files["labels"].path == tmp_path / "out" / "a.zarr.labels.ome.tif"
    assert tree(path) == before
    assert why == "link" or (path / "labels").exists() == (why not in ("version", "scenes"))


def test_without_a_result_nothing_is_left(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", PIXELS[0, 0, 0], "yx")
    segment(pool, path, commit=False)
    assert not (path / "labels").exists()


def test_they_go_with_the_image(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", PIXELS[0, 0, 0], "yx")
    files = [
        PublishedFile(kind, bytes(file.path), file.sha256, stamp_of(bytes(file.path)).size_bytes)
        for kind, file in segment(pool, path).items()
    ]
    assert Check().look(files) == []
    new = path.rename(tmp_path / "b.zarr")
    assert Check().look(files) == [], "they are not missing: their image is"
    (labels,), (confidence,) = moved_along(files, bytes(path), bytes(new))
    assert (labels.path, confidence) == (bytes(new) + INSIDE, files[1])
    assert Check().look([labels]) == []
    (new / "labels" / "segmentd" / "zarr.json").unlink()
    assert moved_along(files, bytes(path), bytes(new)) == ([], [files[1]])
    assert Check().look([labels])[0][1] is ResultFault.DAMAGED


def test_a_journal_is_rebuilt_from_them(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", PIXELS[0, 0, 0], "yx")
    files = segment(pool, path)
    spec = WatchSpec("w", tmp_path, "m", tmp_path / "out", form=FORM)
    (found,) = find_results(spec.results)
    outcome, (record,) = rebuild_image(spec, found, {})
    assert {file.kind: file.digest for file in outcome.files} == {
        kind: file.sha256 for kind, file in files.items()
    }
    assert record.files["labels"] == str(path / "labels" / "segmentd")
    assert record.label_pixel_counts == (0, 35 * 50, 5 * 50)
