"""Where on NVIDIA cards the libraries of networks may compute. Nothing of theirs is imported here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OnCard:
    """A card by its number, and the bytes of it that a library may take."""

    number: int
    limit_bytes: int
