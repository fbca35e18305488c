"""The border of a model: how far around a tile it looks. Can be changed, and set back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, files, network_model
from segmentd.models.bundle import MAX_BORDER_PX
from segmentd.models.files import AnyModel
from segmentd.models.network_model import NetworkModel
from segmentd.records import ModelCard


def original_border(card: ModelCard) -> int:
    """The border in pixels that the model was made with."""
    return card.border_px if card.original_border_px is None else card.original_border_px


def with_border(model: AnyModel, border_px: int | None) -> AnyModel:
    """The model with another border, or with its original one for None. Its digest changes with the border.

    Raises
    ------
    SegmentdError
        BAD_FIELD for a border that is impossible, or leaves nothing of a network's tiles.
    """
    original = original_border(model.card)
    border = original if border_px is None else border_px
    try:
        if not 0 <= border <= MAX_BORDER_PX:
            raise ValueError(f"a border of {border} px is not 0 to {MAX_BORDER_PX}")
        if isinstance(model, NetworkModel):
            network_model.check_border(border, model.spec)
    except ValueError as error:
        raise SegmentdError(
            Reason.BAD_FIELD, f"model '{model.card.display_name}': {error}", field="border_pixels"
        ) from error
    kept = None if border == original else original
    card = replace(model.card, border_px=border, original_border_px=kept)
    if isinstance(model, NetworkModel):
        return network_model.seal(card, model.onnx, model.spec, model.source)
    return bundle.seal(card, model.forest, model.projection)


def change_border(path: Path, border_px: int | None) -> ModelCard:
    """Change the border of a model file, or set it back for None; returns the new card.

    Raises
    ------
    SegmentdError
        Those of `with_border`; MODEL_UNUSABLE for packages of others, which stay as they are.
    """
    if path.suffix != bundle.SUFFIX:
        raise SegmentdError(
            Reason.MODEL_UNUSABLE,
            f"{path}: the border of a package of this kind cannot be changed; import it as a model first",
        )
    model = with_border(files.load(path), border_px)
    files.save(model, path)
    return model.card
