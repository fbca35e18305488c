"""Models over the API: taken in, given out, changed, taken back, while watches go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from segmentctl import Client, DaemonError
from segmentctl.cli import app
from segmentd.models import bundle

from .daemon import DaemonProcess, wait_until
from .images import blobs, write_blobs


@pytest.fixture(scope="module")
def busy(
    renamed: Callable[[Path, str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """A daemon with the models `blobs`, which its watch uses, and `spare`."""
    folder = tmp_path_factory.mktemp("changes")
    (folder / "models").mkdir()
    for identity in ("blobs", "spare"):
        renamed(folder / "models", identity, identity.title())
    watches = [{"id": "hot", "folder": "hot", "model": "blobs", "settle_seconds": 0.2}]
    with DaemonProcess(folder, folder / "models", watches) as daemon:
        yield daemon


@pytest.fixture
def client(busy: DaemonProcess) -> Iterator[Client]:
    with busy.client() as made:
        yield made


@pytest.fixture
def other(blobs_model: Path, tmp_path: Path) -> Path:
    """A file with the model `blobs`, made to be another one by its border."""
    model = bundle.load(blobs_model)
    path = tmp_path / "other.segmodel"
    bundle.save(bundle.seal(replace(model.card, border_px=3, original_border_px=None), model.forest), path)
    return path


def command(daemon: DaemonProcess, *arguments: str | Path, code: int = 0) -> str:
    """Run `segmentctl` in this process."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--address", daemon.address, *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


def reason(act: Callable[[], object]) -> str:
    with pytest.raises(DaemonError) as error:
        act()
    return error.value.reason


def test_versions_change_under_a_watch_and_no_image_is_lost(
    busy: DaemonProcess, client: Client, other: Path
) -> None:
    names = [f"{number:02}.tif" for number in range(9)]
    first = client.model("blobs")
    assert list(first.watches) == ["watches/hot"]
    with client.subscribe("hot", start="oldest", timeout=60) as stream:
        for name in names[:3]:
            write_blobs(busy.hot / name, 1, (600, 700))
        imported = client.import_model(other, model_id="blobs", overwrite=True)
        for name in names[3:6]:
            write_blobs(busy.hot / name, 1, (600, 700))
        back = client.rollback_model("blobs")
        for name in names[6:]:
            write_blobs(busy.hot / name, 1, (600, 700))
        results = {}
        while len(results) < len(names):
            result = next(stream)
            assert result.segmentation.source_display not in results
            results[result.segmentation.source_display] = result.segmentation
    assert sorted(results) == names
    assert {segmentation.state for segmentation in results.values()} == {1}
    assert (imported.version, back.version) == (first.version + 1, first.version + 2)
    assert imported.digest != first.digest == back.digest
    # What was written after an answer was done with the version of that answer.
    assert {results[name].model_digest for name in names[6:]} == {first.digest}
    assert {results[name].model_digest for name in names} <= {first.digest, imported.digest}
    assert [version.version for version in client.model_versions("blobs")] == [
        back.version,
        imported.version,
        first.version,
    ]


def test_a_bad_package_changes_nothing(
    busy: DaemonProcess, client: Client, other: Path, tmp_path: Path
) -> None:
    before = client.model("blobs")
    data = other.read_bytes()
    damaged = tmp_path / "damaged.segmodel"
    damaged.write_bytes(data[: len(data) // 2])
    rubbish = tmp_path / "blobs.segmodel"
    rubbish.write_bytes(b"this is no model")
    for path in (damaged, rubbish):
        assert (
            reason(lambda path=path: client.import_model(path, model_id="blobs", overwrite=True))
            == "MODEL_UNUSABLE"
        )
    assert reason(lambda: client.import_model(other, model_id="blobs")) == "MODEL_EXISTS"
    assert reason(lambda: client.import_model(other, model_id="No id")) == "BAD_FIELD"
    assert client.model("blobs") == before
    left = [path.name for path in (busy.folder / "models").iterdir() if path.name.endswith(".part")]
    assert left == []
    assert "not the one that was given" in command(
        busy, "models", "import", other, "--sha256", "0" * 64, "--overwrite", code=1
    )


def test_names_classes_and_border_are_changed_and_set_back(client: Client) -> None:
    made = client.clone_model("spare", "To change")
    assert (made.name, made.version) == ("models/to-change", 1)
    told = client.update_model("to-change", display_name="Changed", description="For tests")
    assert (told.display_name, told.description, told.version) == ("Changed", "For tests", 1)
    assert told.digest == made.digest
    classes = [("ground", "#102030"), ("disc", "#AABBCC")]
    renamed = client.update_model("Changed", classes=classes)
    assert [(each.display_name, each.color) for each in renamed.classes] == classes
    assert renamed.version == 2
    smaller = client.update_model("to-change", border_pixels=8)
    assert (smaller.border_pixels, smaller.original_border_pixels) == (8, made.border_pixels)
    back = client.update_model("to-change", border_pixels=smaller.original_border_pixels)
    assert back.digest == renamed.digest != smaller.digest
    for change in (
        {"border_pixels": 5000},
        {"classes": [("Root", "#000000"), ("disc", "#AABBCC")]},
        {"classes": [("one", "#000000")]},
        {"classes": [("one", "black"), ("two", "#AABBCC")]},
        {"display_name": " "},
        {"postprocessing": "magic"},
        {},
    ):
        assert reason(lambda change=change: client.update_model("to-change", **change)) == "BAD_FIELD"
    assert client.model("to-change").version == back.version


def test_a_deleted_model_comes_back_and_one_in_use_stays(busy: DaemonProcess, client: Client) -> None:
    assert reason(lambda: client.delete_model("blobs")) == "MODEL_IN_USE"
    digest = client.clone_model("spare", "Gone").digest
    client.load_model("gone")
    client.delete_model("gone")
    assert reason(lambda: client.model("gone")) == "MODEL_NOT_FOUND"
    assert [version.current for version in client.model_versions("gone")] == [False]
    assert client.rollback_model("gone").digest == digest
    assert client.load_model("gone").digest == digest
    client.delete_model("gone", purge=True)
    assert reason(lambda: client.rollback_model("gone")) == "MODEL_NOT_FOUND"
    assert reason(lambda: client.rollback_model("spare", 7)) == "BAD_FIELD"
    assert reason(lambda: client.export_model("spare", busy.folder, with_images=True)) == "TRAINING_NOT_FOUND"


def test_the_command_line_does_it_all(busy: DaemonProcess, tmp_path: Path) -> None:
    command(busy, "models", "clone", "spare", "--name", "Mine")
    shown = command(busy, "models", "show", "mine")
    assert "Mine" in shown
    assert "out-of-bag accuracy" in shown
    assert "most useful features" in shown
    command(
        busy, "models", "update", "mine", "--class", "2=disc", "--color", "1=#001122", "--description", "x"
    )
    told = json.loads(command(busy, "models", "show", "mine", "--json"))
    assert [(each["display_name"], each["color"]) for each in told["classes"]] == [
        ("background", "#001122"),
        ("disc", told["classes"][1]["color"]),
    ]
    path = tmp_path / "mine.segmodel"
    command(busy, "models", "export", "mine", "--out", tmp_path)
    assert bundle.load(path).card.digest == told["digest"]
    assert "mine-too is imported" in command(busy, "models", "import", path, "--id", "mine-too")
    write_blobs(tmp_path / "image.tif", 3, (400, 500))
    tried = json.loads(
        command(
            busy,
            "models",
            "border",
            "mine",
            tmp_path / "image.tif",
            "--try",
            "0,16,64",
            "--tile",
            "64",
            "--json",
        )
    )
    assert [each["border_pixels"] for each in tried] == [0, 16, 64]
    assert tried[0]["differing_labels_percent"] > tried[1]["differing_labels_percent"] >= 0
    assert tried[2]["differing_labels_percent"] == 0
    assert "border px" in command(busy, "models", "border", "mine", tmp_path / "image.tif", "--try", "0")
    assert "border 8 px, made with" in command(busy, "models", "border", "mine", "--set", "8")
    command(busy, "models", "border", "mine", "--reset")
    versions = command(busy, "models", "versions", "mine")
    assert "4 (current)" in versions
    assert "version 5" in command(busy, "models", "rollback", "mine", "--to", "1")
    command(busy, "models", "delete", "mine")
    listed = command(busy, "models", "list")
    first_words = {line.split()[0] for line in listed.splitlines() if line.strip()}
    assert "mine-too" in first_words
    assert "mine" not in first_words


@pytest.mark.slow
def test_a_version_that_is_used_survives_two_newer_ones(client: Client) -> None:
    plane = blobs(7, (300, 300))
    before = client.segment(plane, "spare")[0]
    border = client.model("spare").border_pixels
    client.load_model("spare")
    for size in (1, 2, 3):
        client.update_model("spare", border_pixels=size)
    client.update_model("spare", border_pixels=border)
    assert np.array_equal(client.segment(plane, "spare")[0], before)
    wait_until(lambda: client.model("spare").version == 5, "four changes")
