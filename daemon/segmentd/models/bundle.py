"""The model file `.segmodel`: a zip of plain `.npy` arrays and one `model.json`. Loading runs no code."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute.features import feature_sets
from segmentd.compute.forest import ForestArrays
from segmentd.compute.normalize import METHODS
from segmentd.errors import Reason, SegmentdError
from segmentd.models.archive import read_archive, write_archive
from segmentd.records import ClassInfo, ModelCard, PixelSize, PixelType

SUFFIX = ".segmodel"
FORMAT_VERSION = 1
MAX_JSON_BYTES = 1 << 20
_MANIFEST = "model.json"
_ARRAYS = ("feature", "threshold", "left", "right", "value", "roots")
# What a person may change without making it another model.
_NOT_IN_DIGEST = ("id", "display_name", "description", "created", "digest")


@dataclass(frozen=True)
class Model:
    """A model in memory: its card and its forest."""

    card: ModelCard
    forest: ForestArrays


def slug(name: str) -> str:
    """The id of a model called `name`: lower case letters, digits and hyphens, starting with a letter."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not text or not text[0].isalpha():
        text = f"m-{text}".rstrip("-")
    return text[:63].rstrip("-")


def reference_id(reference: str) -> str:
    """The id that a reference to a model (id, display name or file) stands for, as far as it can be told."""
    return slug(Path(reference).name.removesuffix(SUFFIX))


def seal(card: ModelCard, forest: ForestArrays) -> Model:
    """The model with its digest filled in."""
    return Model(replace(card, digest=_digest(_manifest(card), _members(forest))), forest)


def save(model: Model, path: Path) -> None:
    """Write a model file so that it is either there whole or not at all."""
    members = _members(model.forest)
    members[_MANIFEST] = json.dumps(_manifest(model.card), indent=1, sort_keys=True).encode()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write_archive(file, members)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> Model:
    """Read and check a model file.

    Raises
    ------
    SegmentdError
        MODEL_NOT_FOUND, or MODEL_UNUSABLE with the rule that the file breaks.
    """
    try:
        with path.open("rb") as file:
            members = read_archive(file, str(path))
    except FileNotFoundError as error:
        raise SegmentdError(Reason.MODEL_NOT_FOUND, f"{path}: there is no such model file") from error
    except OSError as error:
        raise SegmentdError(Reason.MODEL_UNUSABLE, f"{path}: cannot be read: {error.strerror}") from error
    try:
        manifest = _read_manifest(members.pop(_MANIFEST, b""))
        card = _card(manifest)
        forest = _forest(members, card)
    except (ValueError, KeyError, TypeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise SegmentdError(
            Reason.MODEL_UNUSABLE, f"{path}: {what}; train the model again or import it from its source"
        ) from error
    if _digest(manifest, members) != card.digest:
        raise SegmentdError(
            Reason.MODEL_UNUSABLE,
            f"{path}: the content does not match its digest; the file was damaged or changed, copy it again",
        )
    return Model(card, forest)


def _manifest(card: ModelCard) -> dict[str, Any]:
    return {"format": "segmodel", "format_version": FORMAT_VERSION, **asdict(card)}


def _members(forest: ForestArrays) -> dict[str, bytes]:
    members = {}
    for name in _ARRAYS:
        out = io.BytesIO()
        np.lib.format.write_array(out, getattr(forest, name), allow_pickle=False)
        members[f"forest/{name}.npy"] = out.getvalue()
    return members


def _digest(manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    kept = {key: value for key, value in manifest.items() if key not in _NOT_IN_DIGEST}
    digest.update(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(members):
        digest.update(f"\0{name}\0{len(members[name])}\0".encode())
        digest.update(members[name])
    return digest.hexdigest()


def _read_manifest(data: bytes) -> dict[str, Any]:
    if not data or len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{_MANIFEST} is missing or larger than {MAX_JSON_BYTES} bytes")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError(f"{_MANIFEST} names a key twice")
        return dict(pairs)

    try:
        manifest = json.loads(data, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError(f"{_MANIFEST} is nested too deeply") from error
    if not isinstance(manifest, dict) or manifest.get("format") != "segmodel":
        raise ValueError(f"{_MANIFEST} does not describe a segmodel")
    if manifest["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"format version {manifest['format_version']} is not {FORMAT_VERSION}, the one this version reads"
        )
    return manifest


def _card(manifest: dict[str, Any]) -> ModelCard:
    fields = {key: manifest[key] for key in ModelCard.__dataclass_fields__}
    fields["classes"] = tuple(ClassInfo(**entry) for entry in fields["classes"])
    fields["pixel_size"] = PixelSize(**fields["pixel_size"])
    fields["pixel_type"] = PixelType(fields["pixel_type"])
    fields["channels"] = tuple(fields["channels"])
    card = ModelCard(**fields)
    rules = {
        "kind must be 'forest'": card.kind == "forest",
        f"feature_set must be one of {', '.join(feature_sets())}": card.feature_set in feature_sets(),
        f"normalization must be one of {', '.join(METHODS)}": card.normalization in METHODS,
        "classes must be 2 to 255 with values 1, 2, ...": 2 <= len(card.classes) <= 255
        and [entry.value for entry in card.classes] == list(range(1, len(card.classes) + 1)),
        "colours must be #RRGGBB": all(
            re.fullmatch("#[0-9A-Fa-f]{6}", entry.color) for entry in card.classes
        ),
        "border_px must be a whole number from 0 to 4096": type(card.border_px) is int
        and 0 <= card.border_px <= 4096,
        "channel_count must be at least 1": type(card.channel_count) is int and card.channel_count >= 1,
        "id must be a slug": card.id == slug(card.id),
        "created must be an ISO 8601 time with its zone": _is_time(card.created),
    }
    for rule, kept in rules.items():
        if not kept:
            raise ValueError(f"{_MANIFEST}: {rule}")
    return card


def _is_time(text: str) -> bool:
    try:
        return not text or datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _forest(members: Mapping[str, bytes], card: ModelCard) -> ForestArrays:
    types = {"threshold": np.float64, "value": np.float64}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in _ARRAYS:
        array = _array(name, members[f"forest/{name}.npy"])
        if array.dtype != types.get(name, np.int32) or array.ndim != (2 if name == "value" else 1):
            raise ValueError(f"forest/{name}.npy is {array.dtype} with {array.ndim} axes")
        arrays[name] = np.ascontiguousarray(array)
    planes = card.channel_count * len(feature_sets()[card.feature_set])
    forest = ForestArrays(**arrays, feature_count=planes)
    forest.check()
    if forest.class_count != len(card.classes):
        raise ValueError(f"the forest has {forest.class_count} classes, the card {len(card.classes)}")
    return forest


def _array(name: str, data: bytes) -> npt.NDArray[Any]:
    """An array from `.npy` bytes whose declared size is the size that is there."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"forest/{name}.npy is not in npy format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"forest/{name}.npy does not hold what its header says")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)
