"""Networks as models: read from each container, kept in our own, imported, with a border that can change."""

from __future__ import annotations

import json
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from segmentd.compute.features import feature_sets
from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, czann, czseg, files, network_model, packages
from segmentd.models.border import original_border, with_border
from segmentd.models.library import Library
from segmentd.models.network_model import NetworkModel
from segmentd.models.registry import ModelState, Registry
from segmentd.records import ModelCard, PixelSize, PixelType

from .. import tiny_model
from .. import tiny_networks as tiny


def parsed(data: bytes, sidecar: bytes | None = None) -> NetworkModel:
    model = files.parse(data, "the file", "fallback", sidecar)
    assert isinstance(model, NetworkModel)
    return model


def refusal(data: bytes, sidecar: bytes | None = None) -> str:
    with pytest.raises(SegmentdError) as caught:
        files.parse(data, "the file", "fallback", sidecar)
    assert caught.value.reason is Reason.MODEL_UNUSABLE
    return caught.value.message


# ------------------------------------------------------------ metadata


def test_a_czann_tells_all_about_its_network() -> None:
    model = parsed(tiny.czann(Scaling=[1e-7, 2e-7], Strange={"key": 1}))
    card, spec = model.card, model.spec
    assert (card.id, card.display_name, card.kind, card.border_px) == ("levels", "Levels", "network", 4)
    assert [(entry.value, entry.name) for entry in card.classes] == [(1, "low"), (2, "middle"), (3, "high")]
    assert card.pixel_size == PixelSize(y_um=0.2, x_um=0.1)
    assert card.pixel_types == (PixelType.UINT8, PixelType.UINT16, PixelType.FLOAT32)
    assert (spec.tile_height, spec.tile_width, spec.channels, spec.outputs) == (32, 48, 1, 3)
    assert (spec.batch_free, spec.size_free, spec.scale_by_bit_depth) == (True, False, True)
    assert json.loads(model.source["metadata.json"])["Strange"] == {"key": 1}


def test_what_a_czann_leaves_out_has_defaults() -> None:
    changes = {"MinOverlap": None, "Classes": None, "ModelName": None, "Scaling": [1.0, 1.0]}
    card = parsed(tiny.czann(**changes)).card
    assert (card.display_name, card.border_px) == ("fallback", 4)
    assert [entry.name for entry in card.classes] == ["class 1", "class 2", "class 3"]
    assert card.pixel_size == PixelSize()


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0", "2.1.0", None])
def test_versions_of_the_format(version: str | None) -> None:
    assert parsed(tiny.czann(FormatVersion=version)).spec.source == f"czann {version or ''}".strip()


def test_a_czseg_has_colours_and_pixel_types() -> None:
    model = parsed(tiny.czseg(ScaleInputsByBitdepth="false", Status="Trained", Unheard="x"))
    card = model.card
    assert [entry.color for entry in card.classes] == ["#0A01FF", "#1401FF", "#1E01FF"]
    assert card.pixel_types == (PixelType.UINT8, PixelType.UINT16)
    assert (card.border_px, model.spec.scale_by_bit_depth) == (4, False)


def test_post_processing_of_a_czseg_is_the_default_and_what_is_not_used_is_told() -> None:
    card = parsed(tiny.czseg(Postprocessing="Conditional Random Field", ColorHandling="SplitRgb")).card
    assert (card.postprocessing, card.description) == ("crf", "")
    plain = parsed(tiny.czseg(Postprocessing="None")).card
    assert (plain.postprocessing, plain.description) == ("none", "")
    assert plain.digest == parsed(tiny.czseg()).card.digest != card.digest
    odd = {
        "Postprocessing": "Magic",
        "ColorHandling": "ConvertToMonochrome",
        "Unheard": "x",
        "Status": "Trained",
    }
    card = parsed(tiny.czseg(Description="Cells.", **odd)).card
    assert card.postprocessing == "none"
    assert card.description == (
        "Cells. (Not used of its package: Postprocessing Magic, ColorHandling ConvertToMonochrome, Unheard.)"
    )
    many = {f"Key{number}": number for number in range(30)}
    told = parsed(tiny.czann(ModelDescription="d", **many)).card.description
    assert told.startswith("d (Not used of its package: Key0, Key1, ") and told.endswith("Key9 and more.)")


def test_a_czseg_without_colours_gets_some() -> None:
    items = "".join(f'<Item LabelValue="{value}" Name="c{value}" />' for value in (1, 2, 3))
    classes = parsed(tiny.czseg(TrainingClasses=items)).card.classes
    assert len({entry.color for entry in classes}) == 3


def test_a_czseg_without_a_tile_takes_it_from_the_network() -> None:
    spec = parsed(tiny.czseg(TotalTileHeight="", TotalTileWidth="")).spec
    assert (spec.tile_height, spec.tile_width) == (32, 48)


def test_colour_channels_of_a_czseg_count_three() -> None:
    network = tiny.classifier(weights=(1.0, 0.0, 0.0))
    for items in ('<Item PixelType="Bgr24 Bgr48" />', '<Item PixelType="Gray8" />' * 3):
        card = parsed(tiny.czseg(network, Channels=items)).card
        assert (card.channel_count, card.bgr) == (3, True)


def test_a_package_of_a_mac_or_of_zen_has_other_separators() -> None:
    members = {"model.json": json.dumps(tiny.metadata()).encode(), "model.model": tiny.classifier()}
    assert parsed(tiny.zipped({**members, "more\\notes (1).txt": b"x"})).card.id == "levels"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Type": "Telepathy"}, "Type 'Telepathy' is not known"),
        ({"Type": "ObjectDetection"}, "boxes around objects"),
        ({"Type": None}, "lacks Type"),
        ({"InputShape": None}, "lacks InputShape"),
        ({"InputShape": [32, 48, 2]}, "InputShape [32, 48, 2], but the network takes [32, 48, 1]"),
        ({"InputShape": [48, 32, 1]}, "InputShape [48, 32, 1]"),
        ({"InputShape": [8, 32, 48, 1]}, "MinOverlap must be"),
        ({"InputShape": [32, 48]}, "InputShape must be"),
        ({"InputShape": "32"}, "InputShape must be"),
        ({"OutputShape": [32, 48, 4]}, "OutputShape [32, 48, 4], but the network makes [32, 48, 3]"),
        ({"Classes": ["a", "b"]}, "2 classes are named, but the network tells 3 apart"),
        ({"Classes": ["a", "a", "b"]}, "names that differ"),
        ({"MinOverlap": [7, 8]}, "even number"),
        ({"MinOverlap": [8]}, "each of y and x"),
        ({"Scaling": ["x", 1]}, "Scaling must hold numbers"),
        ({"FormatVersion": "3.0"}, "FormatVersion '3.0' is not known"),
        ({"ModelName": 5}, "ModelName must be a text"),
    ],
)
def test_nonsense_in_a_czann_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(tiny.czann(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"BorderSize": "16"}, "leaves nothing"),
        ({"BorderSize": "-1"}, "BorderSize must be"),
        ({"BorderSize": "1</BorderSize><BorderSize>2"}, "given twice"),
        ({"TotalTileWidth": ""}, "both be there"),
        ({"TotalTileWidth": "64"}, "InputShape [32, 64, 1]"),
        ({"Channels": '<Item PixelType="Bgra32" />'}, "Bgra32 is not supported"),
        ({"Channels": '<Item PixelType="Gray8 Bgr24" />'}, "both grey and colour"),
        ({"Channels": '<Item PixelType="Gray8" />' * 2}, "InputShape"),
        ({"Channels": '<Item PixelType="Gray8" /><Item PixelType="Gray16" />'}, "common to all"),
        ({"TrainingClasses": '<Item colR="1" colG="1" colB="1" LabelValue="2" Name="a" />'}, "1, 2, ..."),
        ({"TrainingClasses": '<Item colR="900" colG="1" colB="1" LabelValue="1" Name="a" />'}, "0 to 255"),
        ({"ScaleInputsByBitdepth": "perhaps"}, "true or false"),
        ({"FeatureExtractor": "DeepFeatures"}, "train the forest again"),
        ({"ModelName": "<open>"}, "damaged"),
    ],
)
def test_nonsense_in_a_czseg_is_refused(changes: dict[str, str], words: str) -> None:
    assert words in refusal(tiny.czseg(**changes))


def test_a_bare_network_needs_a_sidecar(tmp_path: Path) -> None:
    assert "fallback.json" in refusal(tiny.classifier())
    (tmp_path / "net.onnx").write_bytes(tiny.classifier())
    with pytest.raises(SegmentdError, match=r"net\.json"):
        files.load(tmp_path / "net.onnx")
    (tmp_path / "net.json").write_text(
        '{"Classes": ["a", "b", "c"], "Colors": ["#010203", "#111111", "#222222"]}'
    )
    model = files.load(tmp_path / "net.onnx")
    assert isinstance(model, NetworkModel)
    assert (model.card.id, model.card.classes[0].color) == ("net", "#010203")
    assert (model.spec.tile_height, model.spec.tile_width, model.card.bgr) == (32, 48, False)


def test_a_sidecar_must_say_what_the_network_does_not() -> None:
    free = tiny.classifier(shape=("h", "w"))
    assert "InputShape must say how many y" in refusal(free, b"{}")
    spec = parsed(free, b'{"InputShape": [64, 64, 1]}').spec
    assert (spec.tile_height, spec.size_free, spec.outputs) == (64, True, 3)
    assert "Layout must be one of" in refusal(free, b'{"Layout": "HWC"}')
    assert "PixelTypes must be of" in refusal(free, b'{"PixelTypes": ["int64"]}')


def test_readers_take_the_samples_of_the_makers(shared_data: Path) -> None:
    real = (shared_data / "zeiss" / "real" / "PGC_20X_nucleus_detector.czseg.xml").read_bytes()
    described = czseg.read(real)
    assert (described.input_shape, described.border_px) == ((1024, 1024, 1), 64)
    assert described.class_names == ("background", "nuc")
    sample = czann.read(json.dumps(tiny.metadata(FormatVersion="2.1.0")).encode())
    assert sample.border_px == 4


# ------------------------------------------------------------ our container


def test_a_network_comes_back_from_our_container(tmp_path: Path) -> None:
    model = parsed(tiny.czann())
    path = tmp_path / "levels.segmodel"
    files.save(model, path)
    assert files.load(path) == model
    with pytest.raises(SegmentdError, match="not a forest"):
        bundle.load(path)


def test_the_digest_is_that_of_what_computes() -> None:
    model = parsed(tiny.czann())
    assert parsed(tiny.czann(ModelName="Other", Id="x")).card.digest == model.card.digest
    for other in (
        tiny.czann(tiny.classifier(levels=(0.3, 0.6))),
        tiny.czann(MinOverlap=[10, 10]),
        tiny.czann(Classes=["a", "b", "c"]),
    ):
        assert parsed(other).card.digest != model.card.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tile_height": 64}, "network takes"),
        ({"tile_height": -32}, "impossible sizes"),
        ({"outputs": 4}, "network makes"),
        ({"task": "regression"}, "the card 'network'"),
        ({"task": "magic"}, "the card 'network'"),
        ({"batch_free": "yes"}, "neither true nor false"),
        ({"batch_free": False}, "does not fit"),
        ({"shell": "true"}, "unexpected keyword"),
    ],
)
def test_a_container_from_outside_is_checked_like_a_package(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    model = parsed(tiny.czann())
    path = tmp_path / "m.segmodel"
    members = network_model._members(model.network, model.spec, {})
    spec = {**json.loads(members["network/spec.json"]), **change}
    members["network/spec.json"] = json.dumps(spec).encode()
    bundle.write_container(bundle.sealed(model.card, members), members, path)
    with pytest.raises(SegmentdError, match=words):
        files.load(path)


def test_digests_of_forests_stay(tmp_path: Path) -> None:
    path = tiny_model.save(tmp_path / "f.segmodel")
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("model.json"))
    assert not {"pixel_types", "bgr", "original_border_px"} & set(manifest)
    assert files.load(path).card.digest == tiny_model.model().card.digest


# ------------------------------------------------------------ import and border


def library_of(folder: Path) -> Library:
    folder.mkdir(exist_ok=True)
    return Library(Registry(folder, lambda path: files.load(path).card, lambda path: None))


async def test_a_package_becomes_a_model_of_the_folder(tmp_path: Path) -> None:
    sent, folder = tmp_path / "p.czann", tmp_path / "models"
    sent.write_bytes(tiny.czann())
    package, library = packages.read(sent, "p.czann"), library_of(folder)
    card = (await library.take_in(package)).card
    assert card is not None
    assert [path.name for path in folder.iterdir()] == ["levels.segmodel"]
    assert card.created
    assert files.load(folder / "levels.segmodel").card == card
    with pytest.raises(SegmentdError, match="'levels' already") as caught:
        await library.take_in(package)
    assert caught.value.reason is Reason.MODEL_EXISTS
    again = (await library.take_in(package, overwrite=True)).card
    named = (await library.take_in(package, display_name="My levels")).card
    assert again is not None and named is not None
    assert (named.id, named.display_name) == ("my-levels", "My levels")
    assert named.digest == again.digest == card.digest


async def test_a_forest_is_imported_too(tmp_path: Path) -> None:
    source = tiny_model.save(tmp_path / "from" / "x.segmodel")
    card = (await library_of(tmp_path / "models").take_in(packages.read(source, "x.segmodel"))).card
    assert card is not None
    assert card.digest == tiny_model.model().card.digest
    assert files.load(tmp_path / "models" / "cells.segmodel").card.id == "cells"


async def test_a_border_is_changed_and_set_back(tmp_path: Path) -> None:
    library = library_of(tmp_path / "models")
    for source in (parsed(tiny.czann()), tiny_model.model()):
        first = (await library.take_in(source)).card
        assert first is not None
        path = tmp_path / "models" / f"{first.id}.segmodel"
        for border in (2, 0, 3):
            card = (await library.update(first.id, partial(with_border, border_px=border))).card
            assert card is not None
            assert (card.border_px, card.original_border_px) == (border, first.border_px)
            assert card.digest != first.digest
            assert files.load(path).card == card
        assert (await library.update(first.id, partial(with_border, border_px=None))).card == first


async def test_an_impossible_border_is_refused(tmp_path: Path) -> None:
    model = parsed(tiny.czann())
    for border in (16, -1, 5000):
        with pytest.raises(SegmentdError) as caught:
            packages.with_card(model, with_border(model.card, border))
        assert caught.value.reason is Reason.BAD_FIELD
    assert original_border(with_border(model.card, 1)) == 4
    assert original_border(tiny_model.model().card) == feature_sets()["basic25"].reach_px
    (tmp_path / "p.czann").write_bytes(tiny.czann())
    with pytest.raises(SegmentdError, match="import it with") as caught:
        await library_of(tmp_path).update("levels", partial(with_border, border_px=2))
    assert caught.value.reason is Reason.MODEL_UNUSABLE


async def test_packages_in_the_folder_are_models(tmp_path: Path) -> None:
    def load(path: Path) -> ModelCard:
        return files.load(path).card

    registry = Registry(tmp_path, load, lambda path: None)
    (tmp_path / "a.czann").write_bytes(tiny.czann(ModelName="First"))
    (tmp_path / "b.czseg").write_bytes(tiny.czseg(ModelName="Second"))
    (tmp_path / "c.onnx").write_bytes(tiny.classifier())
    (tmp_path / "d.czann").write_bytes(b"nothing")
    states = {entry.id: entry.state for entry in await registry.list()}
    assert states == {
        "first": ModelState.UNLOADED,
        "second": ModelState.UNLOADED,
        "c": ModelState.FAILED,
        "d": ModelState.FAILED,
    }
    (tmp_path / "c.json").write_text('{"Classes": ["a", "b", "c"]}')
    assert (await registry.find("c")).state is ModelState.UNLOADED
    for reference in ("First", "first", str(tmp_path / "a.czann")):
        assert (await registry.load(reference)).state is ModelState.ACTIVE


def test_a_reference_may_have_any_suffix() -> None:
    for name in ("Levels.czann", "levels.onnx", "levels.segmodel", "levels"):
        assert bundle.reference_id(name) == "levels"
    assert bundle.reference_id("v1.2") == "v1-2"
