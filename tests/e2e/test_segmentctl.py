"""`segmentctl` against a real daemon."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from google.protobuf.json_format import ParseDict
from typer.testing import CliRunner

from segmentctl.cli import app
from segmentd.v1 import segmentation_service_pb2 as pb

from .daemon import free_port, run
from .images import CLASSES, write_blobs, write_truncated
from .scene import SOURCES, Scene

pytestmark = pytest.mark.e2e


def ctl(scene: Scene, *arguments: str | Path, code: int = 0) -> str:
    """Run `segmentctl` in this process, which is quick; return its results, or what it says on failing."""
    command = ["--address", scene.daemon.address, *map(str, arguments)]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def test_tail_json_is_one_line_of_proto_json_for_each_event(scene: Scene) -> None:
    command = ("tail", "--from", "oldest", "--count", "5", "--json")
    out = run("--address", scene.daemon.address, *command, module="segmentctl").stdout
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["number"] for line in lines] == [1, 2, 3, 4, 5]
    for line, result in zip(lines, scene.in_order(), strict=True):
        assert line.pop("cursor") == result.cursor
        assert line.pop("number") == result.number
        assert ParseDict(line, pb.Segmentation()) == result.segmentation
        assert line["source_display"] in SOURCES  # the names of the proto file, not their camelCase
    failed = next(line for line in lines if line["state"] == "STATE_FAILED")
    assert failed["error"]["details"][0]["reason"] == "IMAGE_INCOMPLETE"


def test_tail_goes_on_after_a_cursor_and_says_when_nothing_comes(scene: Scene) -> None:
    cursor = scene.in_order()[2].cursor
    out = ctl(scene, "tail", "--since", cursor, "--count", "2", "--json")
    assert [json.loads(line)["number"] for line in out.splitlines()] == [4, 5]
    assert "0 of 1" in ctl(scene, "tail", "--count", "1", "--timeout", "0.5", code=1)
    assert ctl(scene, "tail", "--timeout", "0.5") == ""
    assert "CURSOR" in ctl(scene, "tail", "--since", "abc", "--count", "1", code=1).upper()


def test_tail_for_people_and_saved_pixels(scene: Scene, tmp_path: Path) -> None:
    out = ctl(scene, "tail", "--from", "oldest", "--count", "5", "--watch", "hot", "--save", tmp_path)
    lines = out.splitlines()
    assert len(lines) == 5
    for line, result in zip(lines, scene.in_order(), strict=True):
        assert result.segmentation.source_display in line
        stem = f"{result.number:08d}_{result.segmentation.source_display}"
        if result.labels is None:
            assert "IMAGE_INCOMPLETE" in line
            assert not list(tmp_path.glob(f"{stem}*"))
        else:
            np.testing.assert_array_equal(tifffile.imread(tmp_path / f"{stem}.labels.ome.tif"), result.labels)
            saved = tifffile.imread(tmp_path / f"{stem}.confidence.ome.tif")
            np.testing.assert_array_equal(saved, result.confidence)


def test_submit(scene: Scene, tmp_path: Path) -> None:
    good, bad = scene.daemon.hot / "2.tif", write_truncated(tmp_path / "bad.tif")
    message = ctl(scene, "submit", good, bad, "--model", "blobs", "--out", tmp_path, code=1)
    assert "bad.tif" in message
    assert "1 of 2" in message
    for kind, pixels in (
        ("labels", scene.results["2.tif"].labels),
        ("confidence", scene.results["2.tif"].confidence),
    ):
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"2.tif.{kind}.ome.tif"), pixels)
    floats = tmp_path / "floats.tif"
    tifffile.imwrite(floats, np.zeros((32, 32), np.float32))
    assert "uint16" in ctl(scene, "submit", floats, "--model", "blobs", code=1)
    write_blobs(tmp_path / "m.tif", 3)
    assert "no model 'none'" in ctl(scene, "submit", tmp_path / "m.tif", "--model", "none", code=1)


def test_status_models_and_watches(scene: Scene) -> None:
    status = ctl(scene, "status")
    server = scene.client.server()
    for text in (scene.daemon.address, server.version, "cpu", server.journal_id):
        assert text in status
    assert json.loads(ctl(scene, "status", "--json"))["last_event_number"] == "5"

    models = ctl(scene, "models", "list")
    for text in ("blobs", "A spare model", "twin-a", "broken", "basic25", *CLASSES):
        assert text in models
    listed = json.loads(ctl(scene, "models", "list", "--json"))
    assert [model["name"] for model in listed] == [model.name for model in scene.client.models()]
    assert listed[0]["pixel_type"] == "PIXEL_TYPE_UINT16"

    watches = ctl(scene, "watch", "list")
    for text in ("hot", "another", str(scene.daemon.hot), "active"):
        assert text in watches
    listed = json.loads(ctl(scene, "watch", "list", "--json"))
    assert [(watch["name"], watch["done_count"]) for watch in listed] == [
        ("watches/another", 0),
        ("watches/hot", 4),
    ]


def test_models_load_and_unload(scene: Scene) -> None:
    assert "spare is loaded on cpu" in ctl(scene, "models", "load", "A spare model")
    assert "spare is unloaded" in ctl(scene, "models", "unload", "spare")
    assert "twin-a" in ctl(scene, "models", "load", "Twin", code=1)


def test_nobody_there() -> None:
    address = f"127.0.0.1:{free_port()}"
    done = run("--address", address, "tail", "--count", "1", module="segmentctl", code=1)
    assert address in done.stderr
    assert "segmentd run" in done.stderr
