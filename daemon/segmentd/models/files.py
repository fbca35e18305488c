"""Reads a model file of any kind that the daemon knows, by its content. Nothing in it is ever run.

Our own container holds a forest or a network. `.czann`, `.czseg` and `.czmodel` hold a network with metadata
in JSON or XML, some old ones as a TensorFlow SavedModel; a bare `.onnx` has its metadata in a
JSON file beside it.
"""

from __future__ import annotations

import io
from pathlib import Path

from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, czann, czseg, foreign, network_model, tf_saved_model
from segmentd.models.archive import FOREIGN_NAME, read_archive
from segmentd.models.bundle import Model
from segmentd.models.description import Description
from segmentd.models.network_model import NetworkModel

AnyModel = Model | NetworkModel
_OWN_MANIFEST = "model.json"
_ADVICE = "correct the package, or export the network again"


def load(path: Path) -> AnyModel:
    """Read and check a model file; for `x.onnx` also its sidecar `x.json`.

    Raises
    ------
    SegmentdError
        MODEL_NOT_FOUND, or MODEL_UNUSABLE with the rule that the file breaks.
    """
    sidecar = sidecar_of(path)
    beside = bundle.open_bytes(sidecar) if sidecar and sidecar.is_file() else None
    return parse(bundle.open_bytes(path), str(path), path.stem, beside)


def save(model: AnyModel, path: Path) -> None:
    """Write a model as a `.segmodel` file so that it is either there whole or not at all."""
    if isinstance(model, NetworkModel):
        network_model.save(model, path)
    else:
        bundle.save(model, path)


def sidecar_of(path: Path) -> Path | None:
    """Where the metadata of a bare `.onnx` file lie; other kinds of file have none."""
    return path.with_suffix(".json") if path.suffix == ".onnx" else None


def parse(data: bytes, source: str, name: str, sidecar: bytes | None = None) -> AnyModel:
    """The model in the bytes of a file.

    Parameters
    ----------
    data : bytes
        The file.
    source : str
        What to call it in an error.
    name : str
        Name of the model where the file does not tell.
    sidecar : bytes, optional
        JSON metadata of a bare ONNX file.

    Raises
    ------
    SegmentdError
        MODEL_UNUSABLE with the rule that is broken and what to do.
    """
    with bundle.refusing(source, _ADVICE):
        kind = foreign.kind_of(data)
    if kind == foreign.ONNX:
        return _bare(data, source, name, sidecar)
    members = read_archive(io.BytesIO(data), source, FOREIGN_NAME, bundle.TRAINING_FOLDER)
    if b'"segmodel"' in members.get(_OWN_MANIFEST, b"")[: 1 << 20]:
        own = bundle.read_container(data, source)
        return (
            bundle.forest_model(own) if own.card.kind == bundle.FOREST else network_model.from_container(own)
        )
    with bundle.refusing(source, _ADVICE):
        return _package(members, name)


def _bare(data: bytes, source: str, name: str, sidecar: bytes | None) -> NetworkModel:
    if sidecar is None:
        raise SegmentdError(
            Reason.MODEL_UNUSABLE,
            f"{source}: an ONNX file says nothing of classes; put a file {name}.json with at least the key "
            "Classes beside it (the keys are those of model.json in a .czann file)",
        )
    with bundle.refusing(source, _ADVICE):
        description = czann.read_sidecar(sidecar)
        return network_model.build(description, data, name, {"sidecar.json": sidecar})


def _package(members: dict[str, bytes], name: str) -> NetworkModel:
    """A `.czann`, `.czseg` or `.czmodel`: metadata and network lie at the top, whatever they are called."""
    top = [member for member in members if "/" not in member]
    networks = [member for member in top if member.endswith(".model")]
    metadata = [member for member in top if member.endswith((".json", ".xml"))]
    if len(networks) != 1 or len(metadata) != 1:
        foreign.refuse_by_members(members)
        raise ValueError(
            f"it has {len(networks)} networks (.model) and {len(metadata)} metadata files (.json or .xml); a "
            "model package has one each"
        )
    network = members[networks[0]]
    description = _describe(metadata[0], members[metadata[0]])
    if foreign.kind_of(network) == foreign.ZIP:
        network = _saved_model(network, networks[0])
    kept = {f"metadata.{metadata[0].rpartition('.')[2]}": members[metadata[0]]}
    licence = next((member for member in top if member.endswith(".txt")), None)
    if licence:
        kept["license.txt"] = members[licence]
    return network_model.build(description, network, name, kept)


def _saved_model(data: bytes, name: str) -> bytes:
    """The graph of a TensorFlow SavedModel, as it lies in packages of the time before ONNX."""
    members = read_archive(io.BytesIO(data), name, FOREIGN_NAME)
    inside = [member for member in members if member.rpartition("/")[2] == tf_saved_model.FILE]
    if not inside:
        foreign.refuse_by_members(members)
    if len(inside) != 1:
        raise ValueError(f"its network is an archive of {len(inside)} TensorFlow SavedModels; export one")
    root = inside[0].removesuffix(tf_saved_model.FILE)
    try:
        return tf_saved_model.to_graph({name.removeprefix(root): part for name, part in members.items()})
    except ValueError as error:
        raise ValueError(f"its network is a TensorFlow SavedModel, and {error}") from error


def _describe(name: str, data: bytes) -> Description:
    return czann.read(data) if name.endswith(".json") else czseg.read(data)
