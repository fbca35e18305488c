"""Takes a model package into the model folder. Nothing in it is run before it has passed every check."""

from __future__ import annotations

import errno
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, files, trial
from segmentd.models.files import AnyModel
from segmentd.models.network_model import NetworkModel
from segmentd.records import ModelCard


def import_package(
    package: bytes | Path,
    folder: Path,
    *,
    name: str = "",
    sidecar: bytes | None = None,
    overwrite: bool = False,
) -> ModelCard:
    """Check a package, try it, and store it as a `.segmodel` file of its own; blocks.

    The same package gives a model of the same digest, under whatever name.

    Parameters
    ----------
    package : bytes or Path
        A `.segmodel`, `.czann`, `.czseg`, `.czmodel` or `.onnx` file; told apart by its content.
    folder : Path
        The model folder; made if it is missing.
    name : str
        Display name; by default the package's own, else the name of the file.
    sidecar : bytes, optional
        JSON metadata of a bare ONNX file; for a path by default the JSON file beside it.
    overwrite : bool
        Replace a model of the same id.

    Returns
    -------
    ModelCard
        Of the model, which lies at `folder / f"{card.id}.segmodel"`.

    Raises
    ------
    SegmentdError
        MODEL_UNUSABLE with the rule that is broken; MODEL_EXISTS; MISSING_EXTRA where the network cannot be
        tried because onnxruntime is not installed; DISK_FULL or RESULTS_NOT_WRITABLE.
    """
    model = _read(package, name, sidecar)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    card = replace(model.card, created=model.card.created or now)
    if name:
        card = replace(card, id=bundle.slug(name), display_name=name)
    path = folder / f"{card.id}{bundle.SUFFIX}"
    if path.exists() and not overwrite:
        raise SegmentdError(
            Reason.MODEL_EXISTS,
            f"there is a model '{card.id}' already; import it under another name, or overwrite it",
            resource=card.id,
        )
    if isinstance(model, NetworkModel):
        trial.run(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.save(replace(model, card=card), path)
    except OSError as error:
        reason = Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.RESULTS_NOT_WRITABLE
        raise SegmentdError(reason, f"{path}: the model cannot be written: {error.strerror}") from error
    return card


def _read(package: bytes | Path, name: str, sidecar: bytes | None) -> AnyModel:
    if isinstance(package, bytes):
        return files.parse(package, "the package", name or "imported", sidecar)
    if sidecar is None:
        return files.load(package)
    return files.parse(bundle.open_bytes(package), str(package), package.stem, sidecar)
