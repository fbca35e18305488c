from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from google.rpc.error_details_pb2 import ErrorInfo
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from segmentctl.cli import app
from segmentctl.cli.messages import seconds_text
from segmentctl.cli.names import saved_stem
from segmentd.v1 import segmentation_service_pb2 as pb


def publish_failure(daemon: Any, message: str) -> None:
    failed = pb.Segmentation()
    failed.error.code, failed.error.message = 3, message
    failed.error.details.add().Pack(ErrorInfo(reason="IMAGE_INCOMPLETE", domain="segmentd"))
    daemon.publish(source="bad.tif", state=pb.Segmentation.STATE_FAILED, error=failed.error)


# ---------------------------------------------------------------- tail


def test_tail_tells_a_rename(daemon: Any, run: Any) -> None:
    daemon.publish(source="b.tif", state=pb.Segmentation.STATE_RENAMED, renamed_from_display="a\x1b.tif")
    result = run("tail", "--from", "oldest", "--count", "1")
    assert result.exit_code == 0
    assert result.stdout.split() == ["1", "renamed", "b.tif", "was", "a?.tif"], (
        "nothing that a terminal acts on"
    )


def test_tail_json_is_one_object_a_line(daemon: Any, run: Any) -> None:
    daemon.publish(source="plate 1/ä.tif")
    publish_failure(daemon, "ends too early")
    result = run("tail", "--from", "oldest", "--count", "2", "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    done, failed = (json.loads(line) for line in result.stdout.splitlines())
    assert (done["number"], done["cursor"]) == (1, "j-1")
    assert done["state"] == "STATE_SUCCEEDED"
    assert done["source_display"] == "plate 1/ä.tif"
    assert done["masked_pixel_count"] == "0"  # at its default, and 64 bits are text in proto3 JSON
    assert [int(count) for count in done["label_pixel_counts"]] == [10, 20]
    assert failed["error"]["message"] == "ends too early"
    assert failed["error"]["details"][0]["reason"] == "IMAGE_INCOMPLETE"
    assert daemon.requests[0].metadata_only


def test_tail_since_goes_on(daemon: Any, run: Any) -> None:
    for _ in range(3):
        daemon.publish()
    result = run("tail", "--since", "j-2", "--count", "1", "--json")
    assert json.loads(result.stdout)["number"] == 3


def test_tail_prints_a_line_for_people(daemon: Any, run: Any) -> None:
    daemon.publish(source="[bold]a\x1b.tif")
    publish_failure(daemon, "ends\x1btoo early")
    result = run("tail", "--from", "oldest", "--count", "2")
    done, failed = result.stdout.splitlines()
    assert "[bold]a?.tif" in done
    assert "unlabelled 33.3 %, nucleus 66.7 %" in done
    assert "failed" in failed and "bad.tif" in failed and "IMAGE_INCOMPLETE: ends?too early" in failed


def test_tail_timeout_with_too_few_results_fails(daemon: Any, run: Any) -> None:
    daemon.publish()
    result = run("tail", "--from", "oldest", "--count", "2", "--timeout", "0.3", "--json")
    assert result.exit_code == 1
    seen = len(result.stdout.splitlines())
    assert seen < 2
    assert f"{seen} of 2 results came within 0.3 s." in result.stderr


def test_tail_timeout_without_count_is_fine(run: Any) -> None:
    result = run("tail", "--timeout", "0.3", "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_tail_says_once_that_it_connects_again(daemon: Any, run: Any) -> None:
    daemon.cuts = [1, 1, 1]
    daemon.publish()
    result = run("tail", "--from", "oldest", "--count", "1", "--json")
    assert result.exit_code == 0
    assert result.stderr.count("segmentd is stopping") == 1
    assert json.loads(result.stdout)["number"] == 1


def test_tail_save_stays_in_its_folder(daemon: Any, run: Any, tmp_path: Path) -> None:
    sources = ["../../etc/passwd", "/abs/a.tif", "C:\\x\\con", "n" * 400 + ".tif", "\u00e9" * 200, ".."]
    for source in sources:
        daemon.publish(source=source)
    publish_failure(daemon, "nothing to save")
    folder = tmp_path / "deep" / "saved"
    count = str(len(sources) + 1)
    result = run("tail", "--from", "oldest", "--count", count, "--save", str(folder), "--json")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        path.name for path in folder.iterdir()
    }
    assert len(list(folder.glob("*.labels.ome.tif"))) == len(sources)
    labels, confidence = daemon.pixels(1)
    (first,) = folder.glob("00000001_*.labels.ome.tif")
    np.testing.assert_array_equal(tifffile.imread(first), labels)
    (first,) = folder.glob("00000001_*.confidence.ome.tif")
    np.testing.assert_array_equal(tifffile.imread(first), confidence)


@given(st.integers(1, 10**9), st.text(max_size=500))
def test_saved_names_are_short_and_plain(number: int, source: str) -> None:
    stem = saved_stem(number, source)
    assert stem.startswith(f"{number:08d}_")
    assert len(stem.encode("utf-8")) < 160
    assert not set(stem) & set('/\\:*?"<>|\0\n')


# ---------------------------------------------------------------- submit


def test_submit_writes_both_images_and_goes_on_after_a_failure(run: Any, tmp_path: Path) -> None:
    image = np.zeros((8, 9), np.uint16)
    image[2:4] = 5
    tifffile.imwrite(tmp_path / "good.tif", image)
    (tmp_path / "bad.tif").write_text("not an image")
    out = tmp_path / "out"
    result = run(
        "submit", str(tmp_path / "bad.tif"), str(tmp_path / "missing.tif"), str(tmp_path / "good.tif"),
        "--model", "nuclei", "--out", str(out), "--min-confidence", "30",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "bad.tif" in result.stderr and "missing.tif" in result.stderr
    assert "2 of 3 images failed" in result.stderr
    np.testing.assert_array_equal(tifffile.imread(out / "good.tif.labels.ome.tif"), image > 0)
    assert (tifffile.imread(out / "good.tif.confidence.ome.tif") == 30).all()
    assert len(list(out.iterdir())) == 2
    assert "8 x 9" in result.stdout


def test_submit_writes_beside_the_image_by_default(run: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), np.uint8))
    assert run("submit", str(tmp_path / "a.tif"), "--model", "nuclei").exit_code == 0
    assert (tmp_path / "a.tif.labels.ome.tif").is_file()


def test_submit_refuses_two_images_for_one_result(run: Any, tmp_path: Path) -> None:
    result = run("submit", str(tmp_path / "x/a.tif"), str(tmp_path / "y/a.tif"), "--model", "m", "--out", "o")
    assert result.exit_code == 2
    assert "a.tif.labels.ome.tif" in result.stderr.replace("\n", "").replace(" ", "").replace("│", "")


def test_submit_with_a_wrong_model_says_so_once(run: Any, tmp_path: Path) -> None:
    result = run("submit", str(tmp_path / "a.tif"), "--model", "missing")
    assert result.exit_code == 1
    assert result.stderr == "segmentctl: no model 'missing'\n"


# ---------------------------------------------------------------- the rest


def test_status(run: Any) -> None:
    text = run("status").stdout
    assert "1.2.3" in text and "cpu, a processor, 2 threads" in text and "1 h 1 min" in text
    assert "12 images, 0.00 Mpx/s" in text and "3.0 MiB" in text
    assert "unreachable: the share is gone" in text and "IMAGE_CORRUPT: it is damaged" in text
    fields = json.loads(run("status", "--json").stdout)
    assert [watch["name"] for watch in fields["watches"]] == ["watches/plate"]
    assert fields["recent_failures"][0]["source_display"] == "bad.tif"
    assert fields["version"] == "1.2.3"
    assert fields["devices"][0]["thread_count"] == 2
    assert fields["planes_in_flight"] == 0


def test_models(run: Any) -> None:
    text = run("models", "list").stdout
    assert "m0" in text and "active" in text and "uint16, 1 channel" in text
    assert [model["name"] for model in json.loads(run("models", "list", "--json").stdout)] == [
        "models/m0",
        "models/m1",
    ]
    assert run("models", "load", "nuclei").stdout == "nuclei is loaded on the daemon.\n"
    assert run("models", "unload", "nuclei").stdout == "nuclei is unloaded.\n"
    refused = run("models", "load", "missing")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "no model 'missing'" in refused.stderr


def test_watches(run: Any) -> None:
    text = run("watch", "list").stdout
    assert "plate" in text and "unreachable: the share is gone" in text and "poll" in text
    (watch,) = json.loads(run("watch", "list", "--json").stdout)
    assert (watch["state"], watch["done_count"]) == ("STATE_UNREACHABLE", 7)


def test_a_watch_is_made_of_what_is_given(daemon: Any, run: Any, tmp_path: Path) -> None:
    options = ("--include", "*.tif", "--include", "*.png", "--flat", "--settle-seconds", "0.5")
    made = run("watch", "create", "new", "--folder", str(tmp_path), "--model", "cells", *options)
    assert made.stdout == "new watches /data/new.\n"
    (request,) = daemon.watch_requests
    watch = request.watch
    assert (request.watch_id, watch.folder, watch.model) == ("new", bytes(tmp_path), "models/cells")
    assert (list(watch.include_globs), watch.recursive) == (["*.tif", "*.png"], False)
    assert watch.settle_duration.nanos == 500_000_000
    assert not any(watch.HasField(name) for name in ("border_pixels", "tile_pixels", "give_up_duration"))
    assert (list(watch.outputs), watch.results_folder, request.validate_only) == ([], b"", False)
    relative = run("watch", "create", "x", "--folder", "here", "--model", "m", "--dry-run", "--json")
    assert json.loads(relative.stdout)["name"] == "watches/x"
    assert daemon.watch_requests[-1].watch.folder == bytes(Path.cwd() / "here")
    assert daemon.watch_requests[-1].validate_only
    taken = run("watch", "create", "taken", "--folder", "/in", "--model", "m")
    assert (taken.exit_code, taken.stderr) == (1, "segmentctl: there is a watch 'taken' already\n")
    assert run("watch", "create", "new", "--folder", "/in").exit_code == 2


def test_a_watch_is_changed_where_options_are_given(daemon: Any, run: Any) -> None:
    options = ("--model", "other", "--min-confidence", "0", "--default", "tile", "--etag", "e1")
    assert (
        run("watch", "update", "new", *options, "--default", "settle-seconds").stdout == "new is changed.\n"
    )
    (request,) = daemon.watch_requests
    assert sorted(request.update_mask.paths) == ["min_confidence", "model", "settle_duration", "tile_pixels"]
    assert (request.watch.name, request.watch.etag, request.watch.model) == (
        "watches/new",
        "e1",
        "models/other",
    )
    assert not request.watch.HasField("tile_pixels")
    for nonsense in ((), ("--default", "folder"), ("--tile", "x")):
        assert run("watch", "update", "new", *nonsense).exit_code == 2


def test_a_watch_is_paused_resumed_deleted_and_shown(daemon: Any, run: Any) -> None:
    assert run("watch", "pause", "plate", "--etag", "e2").stdout == "plate is paused.\n"
    assert run("watch", "resume", "watches/plate").stdout == "watches/plate goes on.\n"
    assert "history stay" in run("watch", "delete", "plate").stdout
    names = [(request.name, request.etag) for request in daemon.watch_requests]
    assert names == [("watches/plate", "e2"), ("watches/plate", ""), ("watches/plate", "")]
    shown = run("watch", "show", "plate").stdout
    assert "poll: a share" in shown and "tile pixels" in shown
    assert json.loads(run("watch", "show", "plate", "--json").stdout)["tile_pixels"] == 64


def test_wrong_usage_is_exit_2(run: Any) -> None:
    assert run("tail", "--from", "yesterday").exit_code == 2
    assert run("tail", "--count", "0").exit_code == 2
    assert run("nonsense").exit_code == 2


def test_the_address_comes_from_the_environment(daemon: Any) -> None:
    result = CliRunner().invoke(app, ["status"], env={"SEGMENTCTL_ADDRESS": daemon.address})
    assert result.exit_code == 0
    assert daemon.address in result.stdout


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12 ms"), (4.25, "4.2 s"), (600, "10 min"), (90000, "1 d 1 h")]
)
def test_durations_have_a_sensible_unit(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_help_imports_nothing_heavy() -> None:
    heavy = {"grpc", "numpy", "google.protobuf", "tifffile", "zstandard", "scipy", "numba", "sklearn", "cv2"}
    script = "import sys, segmentctl, segmentctl.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
