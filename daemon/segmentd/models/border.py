"""The border of a model: how far around a tile it looks. Can be changed, and set back."""

from __future__ import annotations

from dataclasses import replace

from segmentd.records import ModelCard


def original_border(card: ModelCard) -> int:
    """The border in pixels that the model was made with."""
    return card.border_px if card.original_border_px is None else card.original_border_px


def with_border(card: ModelCard, border_px: int | None) -> ModelCard:
    """The card with another border, or with the original one for None, which stays on record.

    `packages.with_card` checks it and makes a model of it.
    """
    original = original_border(card)
    border = original if border_px is None else border_px
    return replace(card, border_px=border, original_border_px=None if border == original else original)
