"""`segmentctl batch`: images with different models in one run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner, Result

from segmentctl.cli import app

from .daemon import free_port
from .images import blobs, write_blobs, write_truncated
from .scene import Scene

pytestmark = pytest.mark.e2e


def batch(address: str, *arguments: str | Path) -> Result:
    command = ["--address", address, "batch", *map(str, arguments)]
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, command)


def test_images_with_different_models_and_one_that_fails(scene: Scene, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_blobs(tmp_path / "plate" / f"{seed}.tif", seed)
    write_truncated(tmp_path / "bad.tif")
    (tmp_path / "list.csv").write_text(
        "image,model,out,min_confidence,postprocessing\n"
        "plate/*.tif,blobs,first,,\nbad.tif,blobs,,,\nplate/1.tif,nobody,third,,\n"
        "plate/1.tif,A spare model,second,70,crf\n"
    )
    done = batch(scene.daemon.address, tmp_path / "list.csv", "--json")
    assert done.exit_code == 1, done.output
    assert "2 of 5 images failed" in done.stderr
    outcomes = json.loads(done.stdout)
    assert [outcome["succeeded"] for outcome in outcomes] == [True, True, False, False, True]
    assert "bad.tif" in outcomes[2]["error"]
    assert "nobody" in outcomes[3]["error"]
    assert [outcome["segmentation"]["model"] for outcome in outcomes if outcome["succeeded"]] == [
        "models/blobs",
        "models/blobs",
        "models/spare",
    ]
    with scene.daemon.client() as client:
        expected = {
            "first/1.tif": client.segment(blobs(1), "blobs"),
            "first/2.tif": client.segment(blobs(2), "blobs"),
            "second/1.tif": client.segment(blobs(1), "spare", min_confidence=70, postprocessing="crf"),
        }
    written = sorted(str(path) for outcome in outcomes for path in outcome["files"])
    assert written == sorted(str(path) for path in tmp_path.rglob("*.ome.tif"))
    assert len(written) == 6
    for stem, (labels, confidence) in expected.items():
        assert np.array_equal(tifffile.imread(tmp_path / f"{stem}.labels.ome.tif"), labels)
        assert np.array_equal(tifffile.imread(tmp_path / f"{stem}.confidence.ome.tif"), confidence)


def test_a_table_for_people(scene: Scene, tmp_path: Path) -> None:
    write_blobs(tmp_path / "a.tif", 3)
    (tmp_path / "list.toml").write_text(
        'image = "a.tif"\n[[job]]\nmodel = "blobs"\n[[job]]\nmodel = "A spare model"\nout = "o"\n'
    )
    done = batch(scene.daemon.address, tmp_path / "list.toml")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0][:2] == ["image", "model"]
    assert [row[1] for row in rows[1:]] == ["blobs", "A"]


def test_nothing_is_begun_with_a_list_that_cannot_be_worked_off(scene: Scene, tmp_path: Path) -> None:
    write_blobs(tmp_path / "a.tif", 3)
    (tmp_path / "twice.csv").write_text("image,model\na.tif,blobs\na.tif,A spare model\n")
    (tmp_path / "once.csv").write_text("image,model\na.tif,blobs\n")
    twice = batch(scene.daemon.address, tmp_path / "twice.csv")
    assert (twice.exit_code, "different" in twice.stderr) == (2, True)
    missing = batch(scene.daemon.address, tmp_path / "none.csv")
    assert (missing.exit_code, "none.csv" in missing.stderr) == (2, True)
    nobody = batch(f"127.0.0.1:{free_port()}", tmp_path / "once.csv")
    assert (nobody.exit_code, nobody.stderr.count("No segmentd answers")) == (1, 1)
    assert not list(tmp_path.glob("*.ome.tif"))
