"""Model files: what is written comes back; whatever else is in the file is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, training
from segmentd.records import ClassInfo, PixelSize, PixelType

from .. import tiny_model


@pytest.fixture(scope="module")
def model() -> bundle.Model:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(80, 25)).astype(np.float32)
    labels = rng.integers(1, 3, 80).astype(np.uint8)
    trained = training.train(training.Samples(features, labels), 2, [f"f{i}" for i in range(25)])
    card = replace(
        tiny_model.CARD,
        classes=(ClassInfo(1, "background", "#000000"), ClassInfo(2, "cell", "#00FF00")),
        channels=("DAPI",),
        pixel_type=PixelType.UINT16,
        pixel_size=PixelSize(0.5, 0.5),
        created="2026-01-01T10:00:00+00:00",
        library_versions=trained.library_versions,
        scores=trained.scores,
    )
    return bundle.seal(card, trained.forest)


def test_a_saved_model_comes_back(model: bundle.Model, tmp_path: Path) -> None:
    path = tmp_path / "cells.segmodel"
    bundle.save(model, path)
    loaded = bundle.load(path)
    assert loaded.card == model.card
    for name in ("feature", "threshold", "left", "right", "value", "roots"):
        np.testing.assert_array_equal(getattr(loaded.forest, name), getattr(model.forest, name))
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells.segmodel"]


def test_the_digest_leaves_names_and_times_out(model: bundle.Model) -> None:
    renamed = replace(model.card, id="other", display_name="Other", created="2027-01-01T10:00:00+00:00")
    assert bundle.seal(renamed, model.forest).card.digest == model.card.digest
    retrained = replace(model.card, seed=1)
    assert bundle.seal(retrained, model.forest).card.digest != model.card.digest


def rewritten(model: bundle.Model, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    bundle.save(model, path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def with_card(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members["model.json"] = json.dumps(json.loads(members["model.json"]) | changes).encode()

    return change


def with_array(name: str, array: Any, allow_pickle: bool = False) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        out = io.BytesIO()
        np.save(out, array, allow_pickle=allow_pickle)
        members[f"forest/{name}.npy"] = out.getvalue()

    return change


def with_bytes(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: data})


HUGE_HEADER = (
    b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '<f8', 'fortran_order': False, 'shape': (900000000000, 2), }".ljust(117)
    + b"\n"
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_card(format_version=99), "format version 99"),
        (with_card(feature_set="basic99"), "feature_set must be one of basic25"),
        (with_card(normalization="gamma"), "normalization must be one of none, percentile"),
        (with_card(classes=[]), "classes must be 2 to 255"),
        (with_card(channel_count=2), "does not match its digest"),
        (with_card(seed=5), "does not match its digest"),
        (with_card(created="yesterday"), "ISO 8601"),
        (with_card(border_px="33"), "border_px"),
        (with_bytes("model.json", b'{"format": "segmodel", "format": "segmodel"}'), "names a key twice"),
        (with_bytes("model.json", b"[" * 100_000), "nested too deeply"),
        (with_bytes("model.json", b"not json"), "Expecting value"),
        (lambda members: members.pop("model.json"), "model.json is missing"),
        (lambda members: members.pop("forest/left.npy"), "lacks 'forest/left.npy'"),
        (with_array("feature", np.array([0], np.int64)), "feature.npy is int64"),
        (with_array("value", np.array([{}], object), allow_pickle=True), "value.npy"),
        (with_bytes("forest/value.npy", HUGE_HEADER), "does not hold what its header says"),
        (with_array("left", np.zeros(3, np.int32)), "differ in length"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(
    model: bundle.Model, tmp_path: Path, change: Callable[[dict[str, bytes]], None], words: str
) -> None:
    path = rewritten(model, tmp_path / "bad.segmodel", change)
    with pytest.raises(SegmentdError, match=words) as caught:
        bundle.load(path)
    assert caught.value.reason is Reason.MODEL_UNUSABLE
    assert str(path) in caught.value.message


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(SegmentdError, match="no such model file") as caught:
        bundle.load(tmp_path / "none.segmodel")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Nuclei", "nuclei"), ("  My Cells (v2) ", "my-cells-v2"), ("3D", "m-3d"), ("äö", "m")],
)
def test_slugs(name: str, expected: str) -> None:
    assert bundle.slug(name) == expected
    assert bundle.slug(expected) == expected
