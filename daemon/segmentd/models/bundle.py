"""The model file `.segmodel`: a zip of plain arrays, or a network, and one `model.json`.

Loading runs no code. What the two kinds of model have in common is here, and forests; networks are in
`segmentd.models.network_model`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from segmentd.compute.features import feature_sets
from segmentd.compute.forest import ForestArrays
from segmentd.compute.normalize import METHODS
from segmentd.errors import Reason, SegmentdError
from segmentd.models import forest_members, json_text
from segmentd.models.archive import MAX_INFLATED_BYTES, read_archive, write_archive
from segmentd.models.forest_members import Projection
from segmentd.records import ClassInfo, ModelCard, PixelSize, PixelType
from segmentd.settings.values import MODEL_SUFFIXES

SUFFIX = ".segmodel"
FORMAT_VERSION = 1
FOREST = "forest"
NETWORK = "network"
REGRESSION = "regression"
MAX_BORDER_PX = 4096
# Kept with a network as it came, and never read again.
SOURCE_FOLDER = "source/"
# Images and labels that a model was trained on, where it was exported with them.
TRAINING_FOLDER = "training/"
# What a model may ask for by default: what the lanes do.
POSTPROCESSINGS = ("none", "crf")
_KINDS = (FOREST, NETWORK, REGRESSION)
MANIFEST = "model.json"
_ADVICE = "train the model again or import it from its source"
# What a person may change without making it another model.
_NOT_IN_DIGEST = (
    *("id", "display_name", "description", "created", "digest", "original_border_px", "verification"),
)
# Keys that came later: left out where they say nothing, so that digests of older files stay.
_LATER: dict[str, Any] = {
    "pixel_types": (),
    "bgr": False,
    "original_border_px": None,
    "volume": False,
    "postprocessing": "none",
    "verification": {},
    "weights_sha256": "",
}


@dataclass(frozen=True)
class Model:
    """A model in memory: its card, its forest, and the projection that its features went through, if any.

    `projection` is float32 (features, outputs of the network's layer).
    """

    card: ModelCard
    forest: ForestArrays
    projection: Projection = None


@dataclass(frozen=True)
class Container:
    """A model file that was read: card, other members, where it came from, digest of what is there."""

    card: ModelCard
    members: Mapping[str, bytes]
    source: str
    digest: str

    def check_digest(self) -> None:
        """MODEL_UNUSABLE where the content is not what the card was made for."""
        if self.digest != self.card.digest:
            raise SegmentdError(
                Reason.MODEL_UNUSABLE,
                f"{self.source}: the content does not match its digest; the file was damaged or changed, "
                "copy it again",
            )


def slug(name: str) -> str:
    """The id of a model called `name`: lower case letters, digits and hyphens, starting with a letter."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not text or not text[0].isalpha():
        text = f"m-{text}".rstrip("-")
    return text[:63].rstrip("-")


def reference_id(reference: str) -> str:
    """The id that a reference to a model (id, display name or file) stands for, as far as it can be told."""
    path = Path(reference)
    return slug(path.stem if path.suffix in MODEL_SUFFIXES else path.name)


def seal(card: ModelCard, forest: ForestArrays, projection: Projection = None) -> Model:
    """The model with its digest filled in; ValueError where its features need a projection and have none."""
    forest_members.check_projection(projection, card)
    return Model(sealed(card, forest_members.write(forest, projection)), forest, projection)


def save(model: Model, path: Path) -> None:
    """Write a model file so that it is either there whole or not at all."""
    write_container(model.card, forest_members.write(model.forest, model.projection), path)


def load(path: Path) -> Model:
    """Read and check the model file of a forest.

    Raises
    ------
    SegmentdError
        MODEL_NOT_FOUND, or MODEL_UNUSABLE with the rule that the file breaks.
    """
    return forest_model(read_container(open_bytes(path), str(path)))


def forest_model(container: Container) -> Model:
    """The forest in a container; MODEL_UNUSABLE where there is none."""
    card = container.card
    with refusing(container.source, _ADVICE):
        if card.kind != FOREST:
            raise ValueError(f"it holds a {card.kind}, not a forest")
        forest = forest_members.read_forest(container.members, card)
        projection = forest_members.read_projection(container.members, card)
    container.check_digest()
    return Model(card, forest, projection)


def open_bytes(path: Path) -> bytes:
    """The bytes of a model file; MODEL_NOT_FOUND or MODEL_UNUSABLE."""
    try:
        if path.stat().st_size > MAX_INFLATED_BYTES:
            raise SegmentdError(Reason.MODEL_UNUSABLE, f"{path}: is far too large for a model; remove it")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SegmentdError(Reason.MODEL_NOT_FOUND, f"{path}: there is no such model file") from error
    except OSError as error:
        raise SegmentdError(Reason.MODEL_UNUSABLE, f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def refusing(source: str, advice: str) -> Iterator[None]:
    """Turn what is raised over nonsense in a file into MODEL_UNUSABLE about `source`."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        if ";" not in what:  # else it says itself what to do
            what = f"{what}; {advice}"
        raise SegmentdError(Reason.MODEL_UNUSABLE, f"{source}: {what}") from error


def sealed(card: ModelCard, members: Mapping[str, bytes]) -> ModelCard:
    """The card with the digest of the model filled in."""
    return replace(card, digest=_digest(_manifest(card), members))


def write_container(card: ModelCard, members: Mapping[str, bytes], path: Path) -> None:
    """Write a model file so that it is either there whole or not at all."""
    manifest = json.dumps(_manifest(card), indent=1, sort_keys=True).encode()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write_archive(file, {**members, MANIFEST: manifest})
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_container(data: bytes, source: str) -> Container:
    """Card and members of a model file; MODEL_UNUSABLE with the rule that it breaks."""
    members = read_archive(io.BytesIO(data), source, leave_out=TRAINING_FOLDER)
    with refusing(source, _ADVICE):
        manifest = _read_manifest(members.pop(MANIFEST, b""))
        return Container(_card(manifest), members, source, _digest(manifest, members))


def _manifest(card: ModelCard) -> dict[str, Any]:
    fields = {key: value for key, value in asdict(card).items() if value != _LATER.get(key, ...)}
    return {"format": "segmodel", "format_version": FORMAT_VERSION, **fields}


def _digest(manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    kept = {key: value for key, value in manifest.items() if key not in _NOT_IN_DIGEST}
    digest.update(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(name for name in members if not name.startswith((SOURCE_FOLDER, TRAINING_FOLDER))):
        digest.update(f"\0{name}\0{len(members[name])}\0".encode())
        digest.update(members[name])
    return digest.hexdigest()


def _read_manifest(data: bytes) -> dict[str, Any]:
    manifest = json_text.parse(data, MANIFEST)
    if manifest.get("format") != "segmodel":
        raise ValueError(f"{MANIFEST} does not describe a segmodel")
    if manifest["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"format version {manifest['format_version']} is not {FORMAT_VERSION}, the one this version reads"
        )
    return manifest


def _card(manifest: dict[str, Any]) -> ModelCard:
    fields = {key: manifest[key] for key in ModelCard.__dataclass_fields__ if key not in _LATER}
    fields.update({key: manifest[key] for key in _LATER if key in manifest})
    fields["classes"] = tuple(ClassInfo(**entry) for entry in fields["classes"])
    fields["pixel_size"] = PixelSize(**fields["pixel_size"])
    fields["pixel_type"] = PixelType(fields["pixel_type"])
    fields["channels"] = tuple(fields["channels"])
    fields["pixel_types"] = tuple(PixelType(value) for value in fields.get("pixel_types", ()))
    card = ModelCard(**fields)
    fewest, most = (0, 0) if card.kind == REGRESSION else (2, 255)
    rules = {
        f"kind must be one of {', '.join(_KINDS)}": card.kind in _KINDS,
        f"feature_set must be one of {', '.join(feature_sets())}": card.kind != FOREST
        or card.feature_set in feature_sets(),
        f"normalization must be one of {', '.join(METHODS)}": card.normalization in METHODS,
        f"classes must be {fewest} to {most} with values 1, 2, ...": fewest <= len(card.classes) <= most
        and [entry.value for entry in card.classes] == list(range(1, len(card.classes) + 1)),
        "colours must be #RRGGBB": all(
            re.fullmatch("#[0-9A-Fa-f]{6}", entry.color) for entry in card.classes
        ),
        f"border_px must be a whole number from 0 to {MAX_BORDER_PX}": all(
            type(border) is int and 0 <= border <= MAX_BORDER_PX
            for border in (card.border_px, card.original_border_px or 0)
        ),
        f"postprocessing must be one of {', '.join(POSTPROCESSINGS)}": card.postprocessing in POSTPROCESSINGS,
        "verification must be an object": isinstance(card.verification, dict),
        "channel_count must be at least 1": type(card.channel_count) is int and card.channel_count >= 1,
        "id must be a slug": card.id == slug(card.id),
        "created must be an ISO 8601 time with its zone": _is_time(card.created),
    }
    for rule, kept in rules.items():
        if not kept:
            raise ValueError(f"{MANIFEST}: {rule}")
    return card


def _is_time(text: str) -> bool:
    try:
        return not text or datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
