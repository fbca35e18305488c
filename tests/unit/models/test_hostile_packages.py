"""Packages from anywhere: refused with a reason, before a runtime sees them, and nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.models import files, packages, trial
from segmentd.models.network_model import NetworkModel
from segmentd.models.onnx_schema import ELEMENTS, OPERATORS, SCHEMA
from segmentd.models.protobuf import Kind

from .. import tiny_networks as tiny
from . import hostile


@pytest.mark.parametrize("name", hostile.PACKAGES)
def test_a_hostile_package_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, words = hostile.PACKAGES[name]
    sent = tmp_path / "sent"
    sent.write_bytes(data)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("pickle.Unpickler", None)
    with pytest.raises(SegmentdError) as caught:
        packages.read(sent, "the package")
    assert caught.value.reason is Reason.MODEL_UNUSABLE
    assert words in caught.value.message
    assert ";" in caught.value.message, "it says what to do"
    assert list(tmp_path.iterdir()) == [sent]


def test_the_good_ones_beside_them_are_not_refused() -> None:
    for data in (tiny.czann(), tiny.czseg(), tiny.czann(Unheard={"of": [1]}, ModelDescription="d")):
        assert isinstance(files.parse(data, "x", "x"), NetworkModel)


def loaded(network: bytes) -> NetworkModel:
    model = files.parse(tiny.czann(network), "x", "x")
    assert isinstance(model, NetworkModel)
    return model


@pytest.mark.parametrize(
    ("network", "seconds", "words"),
    [
        (hostile.hungry(1 << 44), 60.0, "allocate|memory"),
        (hostile.endless(), 1.5, "was not done"),
        (
            hostile.network(hostile.helper.make_node("Conv", ["x", "w"], ["y"]), w=[1.0]),
            60.0,
            "refuses it|run",
        ),
    ],
    ids=["hungry", "endless", "nonsense"],
)
def test_a_network_that_fails_its_trial_is_refused(network: bytes, seconds: float, words: str) -> None:
    with pytest.raises(SegmentdError, match=words) as caught:
        trial.run(loaded(network), deadline_seconds=seconds)
    assert caught.value.reason is Reason.MODEL_UNUSABLE


def test_field_numbers_are_those_of_onnx() -> None:
    messages = onnx.onnx_ml_pb2.DESCRIPTOR.message_types_by_name
    numbers = (Kind.INTS, Kind.COUNT_VARINTS, Kind.COUNT_FIXED32, Kind.COUNT_FIXED64)
    kinds = {Kind.INT: {3, 5, 14}, Kind.TEXT: {9}, Kind.FLOAT: {2}, Kind.INTS: {3}}
    for name, fields in SCHEMA.items():
        outer, _, inner = name.partition(".")
        message = messages[outer].nested_types_by_name[inner] if inner else messages[outer]
        for number, rule in fields.items():
            theirs = message.fields_by_number[number]
            assert (theirs.name, theirs.is_repeated) == (rule.name, rule.repeated or rule.kind in numbers)
            if isinstance(rule.kind, str):
                assert theirs.message_type.full_name.removeprefix("onnx.") == rule.kind
            elif rule.kind in kinds:
                assert theirs.type in kinds[rule.kind]


def test_operators_and_elements_are_known_to_onnx() -> None:
    standard = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert standard >= OPERATORS
    assert not OPERATORS & {"RandomNormal", "ImageDecoder", "StringConcat", "Bernoulli", "Multinomial"}
    for kind, (size, _) in ELEMENTS.items():
        assert onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize == size
