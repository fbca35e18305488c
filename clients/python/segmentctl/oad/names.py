"""Names of feature sets and post-processings, as the original shows them and as the daemon has them."""

from __future__ import annotations

import re

_OURS = re.compile("(basic|deep)([0-9]+)")
_SHOWN = re.compile("(basic|deep) features ([0-9]+)")

POSTPROCESSINGS = {"none": "No Postprocessing", "crf": "Conditional Random Field"}


def shown_feature_set(name: str) -> str:
    """Give the original's name of a feature set: `basic25` is `Basic Features 25`."""
    match = _OURS.fullmatch(name)
    return f"{match[1].title()} Features {match[2]}" if match else name


def feature_set(shown: str) -> str:
    """Give the daemon's name of a feature set; either name is taken."""
    match = _SHOWN.fullmatch(shown.strip().lower())
    return match[1] + match[2] if match else shown


def shown_postprocessing(name: str) -> str:
    """Give the original's name of a post-processing: `crf` is `Conditional Random Field`."""
    return POSTPROCESSINGS.get(name or "none", name)


def postprocessing(shown: str) -> str:
    """Give the daemon's name of a post-processing; either name is taken."""
    wanted = shown.strip().lower()
    return next((name for name, title in POSTPROCESSINGS.items() if title.lower() == wanted), shown)
