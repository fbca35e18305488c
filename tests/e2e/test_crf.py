"""The conditional random field on a real micrograph: by a watch, by `segmentd segment`, and by a caller."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from segmentctl import DaemonError
from segmentctl.cli import app

from .daemon import DaemonProcess, run_here

pytestmark = pytest.mark.e2e
SET = "nuclei_bbbc039"
CROP = (slice(100, 360), slice(200, 500))
CRF = ("--postprocessing", "crf", "--confidence", "marginal")


def test_three_ways_to_the_same_labels(
    shared_data: Path, trained: Callable[..., Path], tmp_path: Path
) -> None:
    model, image = trained(SET), tmp_path / "IXMtest_B02_s9.tif"
    pixels, truth = (
        tifffile.imread(shared_data / SET / kind / image.name)[CROP] for kind in ("images", "masks")
    )
    tifffile.imwrite(image, pixels)
    watch = {"postprocessing": "crf", "confidence": "marginal", "with_image": True}
    outputs = ["labels", "confidence", "classes"]
    daemon = DaemonProcess(tmp_path, model.parent, model=model.stem, outputs=outputs, **watch)
    with daemon, daemon.client() as client, client.subscribe("hot", start="oldest", timeout=90) as results:
        shutil.copy(image, daemon.hot)
        result = next(iter(results))
        sent = client.segment(pixels, model.stem, postprocessing="crf", confidence="marginal")
        sure = client.segment(pixels, model.stem, postprocessing="crf")
        plain = client.segment(pixels, model.stem)
        for wrong in ({"postprocessing": "x"}, {"confidence": "marginal"}):
            with pytest.raises(DaemonError, match="crf") as caught:
                client.segment(pixels, model.stem, **wrong)
            assert caught.value.reason == "BAD_FIELD"
        command = ["--address", daemon.address, "models", "postprocessings", "--json"]
        listed = json.loads(CliRunner().invoke(app, command).stdout)
        command = ["--address", daemon.address, "submit", str(image), "--model", model.stem, *CRF]
        ctl = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "submitted")])
        assert ctl.exit_code == 0, ctl.output
        daemon.stop()
    assert result.labels is not None and result.confidence is not None

    run_here("segment", image, "--model", model, "--out", tmp_path / "files", *CRF)
    pairs = zip((result.labels, result.confidence), sent, strict=True)
    for kind, (received, returned) in zip(("labels", "confidence"), pairs, strict=True):
        file = tifffile.imread(tmp_path / "files" / f"{image.name}.{kind}.ome.tif")
        np.testing.assert_array_equal(received, file)
        np.testing.assert_array_equal(returned, file)
        submitted = tmp_path / "submitted" / f"{image.name}.{kind}.ome.tif"
        np.testing.assert_array_equal(tifffile.imread(submitted), file)
    np.testing.assert_array_equal(sure[0], sent[0])
    assert (sure[1] == 100).all()
    assert sent[1].min() < 90

    assert (sent[0] == truth).mean() > (plain[0] == truth).mean()
    channels = tifffile.imread(daemon.results / f"{image.name}.classes.ome.tif")
    np.testing.assert_array_equal(channels, [pixels, (sent[0] == 1) * 255, (sent[0] == 2) * 255])
    assert [entry["name"] for entry in listed] == ["none", "crf"]
    assert listed[1]["implementation"] in ("pydensecrf", "built in")


def test_options_that_need_one_another(tmp_path: Path) -> None:
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, np.zeros((4, 4), np.uint8))
    plain = ("segment", image, "--model", tmp_path / "m.segmodel", "--out", tmp_path)
    assert "--postprocessing crf" in run_here(*plain, "--confidence", "marginal", code=2).stderr
    assert "--format multichannel" in run_here(*plain, "--with-image", code=2).stderr
    assert "none" in run_here(*plain, "--postprocessing", "median", code=2).stderr
