"""`segmentd train`: from folders of images and strokes to a model file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmentd.models import bundle

from .conftest import link_images
from .daemon import run_here
from .images import write_blobs

pytestmark = pytest.mark.e2e


def folders(training_set: Path) -> tuple[str | Path, ...]:
    return ("--images", training_set / "images", "--labels", training_set / "labels")


def test_settings_end_up_in_the_model_and_scores_on_the_screen(training_set: Path, tmp_path: Path) -> None:
    shutil.copytree(training_set, tmp_path / "set")
    write_blobs(tmp_path / "set" / "images" / "not-drawn-on.tif", 7)
    (tmp_path / "set" / "images" / "notes.txt").write_text("no image")
    (tmp_path / "set" / "labels" / "i1.tif").rename(tmp_path / "set" / "labels" / "i1.ome.tif")
    classes = tmp_path / "classes.toml"
    second = '[[class]]\nvalue = 2\nname = "Zellkern µ"\ncolor = "#12ab34"\n'
    classes.write_text(f'{second}[[class]]\nvalue = 1\nname = "ground"\n')
    out = tmp_path / "new" / "m.segmodel"
    options = (
        "--features",
        "basic33",
        "--normalization",
        "percentile",
        "--name",
        "My Cells 2",
        "--seed",
        "3",
    )
    done = run_here("train", *folders(tmp_path / "set"), "--classes", classes, "--out", out, *options)

    assert "not-drawn-on.tif: has no labels, skipped" in done.stderr
    for text in ("ground", "Zellkern µ", "#12AB34", "out-of-bag accuracy", "most useful features", str(out)):
        assert text in done.stdout
    card = bundle.load(out).card
    assert (card.id, card.display_name, card.feature_set) == ("my-cells-2", "My Cells 2", "basic33")
    assert (card.normalization, card.seed, card.pixel_type, card.channel_count) == (
        "percentile",
        3,
        "uint16",
        1,
    )
    assert [(entry.value, entry.name) for entry in card.classes] == [(1, "ground"), (2, "Zellkern µ")]
    assert card.classes[1].color == "#12AB34"
    assert card.scores["out_of_bag_accuracy"] > 0.9
    assert np.shape(card.scores["out_of_bag_confusion"]) == (2, 2)
    assert sum(card.scores["feature_importance"].values()) == pytest.approx(1, abs=1e-3)
    assert "scikit-learn" in card.library_versions


def test_the_same_seed_gives_the_same_digest(training_set: Path, blobs_model: Path, tmp_path: Path) -> None:
    classes, out = training_set / "classes.toml", tmp_path / "m.segmodel"
    options = ("--threads", "1", "--name", "another name", "--seed", "0")
    run_here("train", *folders(training_set), "--classes", classes, "--out", out, *options)
    again, before = bundle.load(out).card, bundle.load(blobs_model).card
    assert again.display_name != before.display_name
    assert again.digest == before.digest


def test_labels_without_an_image_are_an_error(training_set: Path, tmp_path: Path) -> None:
    shutil.copytree(training_set, tmp_path / "set")
    (tmp_path / "set" / "images" / "i2.tif").unlink()
    out = tmp_path / "m.segmodel"
    message = refused(1, *folders(tmp_path / "set"), "--out", out)
    assert "i2.tif" in message
    assert "without an image" in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--out", "m.zip"), ".segmodel"),
        (("--out", "m.segmodel", "--features", "basic26"), "basic25"),
        (("--out", "m.segmodel", "--normalization", "zscore"), "percentile"),
        (("--out", "m.segmodel", "--seed", "-1"), "--seed"),
        ((), "--out"),
    ],
)
def test_usage(training_set: Path, options: tuple[str, ...], text: str) -> None:
    assert text in refused(2, *folders(training_set), *options)


def refused(code: int, *arguments: str | Path) -> str:
    return run_here("train", *arguments, code=code).stderr


def test_one_channel_by_name(shared_data: Path, tmp_path: Path) -> None:
    """The model finds its channel in an image of several, and takes an image that has only this one."""
    link_images(shared_data / "two_channel_cells", "train", tmp_path)
    image = next((tmp_path / "images").iterdir())
    with tifffile.TiffFile(image) as tiff:
        assert tiff.series[0].axes == "CYX"
        pixels = tiff.asarray()
    names, by_name = channel_names(image), tmp_path / "name.segmodel"
    run_here("train", *folders(tmp_path), "--channel", names[1], "--out", by_name)
    card = bundle.load(by_name).card
    assert (card.channel, card.channel_index, card.channel_count) == (names[1], 1, 1)

    alone = tmp_path / "alone.tif"
    tifffile.imwrite(alone, pixels[1])
    out = tmp_path / "out"
    run_here("segment", image, alone, "--model", by_name, "--out", out)
    labels = [tifffile.imread(out / f"{path.name}.labels.ome.tif") for path in (image, alone)]
    np.testing.assert_array_equal(labels[0], labels[1])
    message = refused(1, *folders(tmp_path), "--channel", "GFP?", "--out", tmp_path / "x.segmodel")
    assert names[0] in message
    assert names[1] in message


def channel_names(path: Path) -> list[str]:
    """Names of the channels as the file's OME-XML has them."""
    from xml.etree import ElementTree as ET

    with tifffile.TiffFile(path) as tiff:
        root = ET.fromstring(tiff.ome_metadata)
    return [entry.get("Name", "") for entry in root.iterfind(".//{*}Channel")]
