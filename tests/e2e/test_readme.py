"""README's first commands: what they are, and that the demo does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from .daemon import run

pytestmark = pytest.mark.e2e


def shell_blocks(repository: Path) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return [
        block.strip() for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def test_the_first_two_blocks_set_everything_up(repository: Path) -> None:
    demo, tests = shell_blocks(repository)[:2]
    assert demo == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/segmentd demo"
    assert tests == 'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]" && .venv/bin/pytest'


def test_the_demo(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shown = run("demo", "--out", out, folder=tmp_path).stdout
    results = out / "hot" / "segmented"
    images = sorted(path.name for path in (out / "hot").glob("*.tif"))
    assert len(images) >= 4
    for name in images:
        pixels = tifffile.imread(out / "hot" / name)
        labels = tifffile.imread(results / f"{name}.labels.ome.tif")
        confidence = tifffile.imread(results / f"{name}.confidence.ome.tif")
        overlay = imagecodecs.png_decode((results / f"{name}.overlay.png").read_bytes())
        assert labels.shape == confidence.shape == pixels.shape == overlay.shape[:2]
        assert set(np.unique(labels)) == {1, 2}
        assert 50 < confidence.mean() <= 100
        assert name in shown
    sheet = imagecodecs.png_decode((out / "demo.png").read_bytes())
    assert sheet.ndim == 3
    assert sheet.std() > 0
    assert str(out / "demo.png") in shown


def test_a_demo_may_be_repeated_but_spares_folders_of_others(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    assert "name another folder" in run("demo", "--out", tmp_path, code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
