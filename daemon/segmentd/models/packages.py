"""Model files of any kind: read with their images set apart, given another card, written again."""

from __future__ import annotations

from pathlib import Path

from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, files, network_model
from segmentd.models.files import AnyModel
from segmentd.records import ClassInfo, ModelCard

# Of a file that is sent; images that come with it count.
MAX_PACKAGE_BYTES = 2 << 30
# The analysis of images uses it for the whole image.
RESERVED_CLASS_NAMES = ("Root",)
MAX_TEXT = 10_000


def read(path: Path, name: str, sidecar: bytes | None = None) -> AnyModel:
    """The model in a file, whatever kind of package it is; its content decides.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Name of the file as its sender has it, for messages and for models that do not say their own.
    sidecar : bytes, optional
        JSON metadata of a bare ONNX file.

    Raises
    ------
    SegmentdError
        MODEL_UNUSABLE with the rule that the file breaks.
    """
    return files.parse(bundle.open_bytes(path), name, Path(name).stem, sidecar)


def with_card(model: AnyModel, card: ModelCard) -> AnyModel:
    """The model with another card and the digest that goes with it.

    Raises
    ------
    SegmentdError
        BAD_FIELD where the card breaks a rule of models.
    """
    _check(model.card, card)
    if isinstance(model, network_model.NetworkModel):
        try:
            network_model.check_border(card.border_px, model.spec)
        except ValueError as error:
            raise bad_field("border_pixels", str(error)) from error
        return network_model.seal(card, model.onnx, model.spec, model.source)
    return bundle.seal(card, model.forest, model.projection)


def check_class_name(name: str, others: list[str]) -> None:
    """BAD_FIELD unless it is a name that a class may have beside the others."""
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise bad_field("classes", f"'{name}' is no name for a class: give 1 to 200 printable characters")
    if name in RESERVED_CLASS_NAMES:
        raise bad_field("classes", f"'{name}' is reserved for the whole image; choose another name")
    if name in others:
        raise bad_field("classes", f"two classes are called '{name}'; names must differ")


def check_classes(classes: tuple[ClassInfo, ...]) -> None:
    """BAD_FIELD unless names and colours are right."""
    names: list[str] = []
    for entry in classes:
        check_class_name(entry.name, names)
        check_color(entry.color)
        names.append(entry.name)


def check_color(color: str) -> None:
    """BAD_FIELD unless it is `#RRGGBB`."""
    digits = color.removeprefix("#")
    if len(digits) != 6 or len(color) != 7 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        raise bad_field("classes", f"colour '{color}' must be #RRGGBB")


def bad_field(field: str, message: str) -> SegmentdError:
    """A value of a request that is wrong."""
    return SegmentdError(Reason.BAD_FIELD, f"{field}: {message}", field=field)


def too_large(size_bytes: int) -> SegmentdError:
    """A package that is larger than any that is taken."""
    return SegmentdError(
        Reason.MODEL_TOO_LARGE,
        f"the package has {size_bytes:,} bytes or more, at most {MAX_PACKAGE_BYTES:,} are taken; export it "
        "without its images",
    )


def _check(before: ModelCard, card: ModelCard) -> None:
    if not card.display_name.strip() or len(card.display_name) > 200 or not card.display_name.isprintable():
        raise bad_field("display_name", "must be 1 to 200 printable characters")
    if len(card.description) > MAX_TEXT:
        raise bad_field("description", f"must be at most {MAX_TEXT:,} characters")
    if not 0 <= card.border_px <= bundle.MAX_BORDER_PX:
        raise bad_field("border_pixels", f"{card.border_px} must be 0 to {bundle.MAX_BORDER_PX}")
    if card.postprocessing not in bundle.POSTPROCESSINGS:
        raise bad_field(
            "postprocessing",
            f"'{card.postprocessing}' must be one of {', '.join(bundle.POSTPROCESSINGS)}",
        )
    if card.classes != before.classes:
        if [entry.value for entry in card.classes] != [entry.value for entry in before.classes]:
            raise bad_field(
                "classes",
                f"must be the {len(before.classes)} classes of the model with values 1, 2, ...: names and "
                "colours can be changed, more or fewer classes need training",
            )
        check_classes(card.classes)
