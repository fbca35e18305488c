"""What can be done to class probabilities before labels are decided."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

CRF = "crf"
PYDENSECRF = "pydensecrf"
BUILT_IN = "built in"


@dataclass(frozen=True)
class Postprocessing:
    """A post-processing: its name in settings, its name and purpose for people, and what computes it."""

    name: str
    display_name: str
    description: str
    implementation: str = ""


def postprocessings() -> tuple[Postprocessing, ...]:
    """All that there are, `none` first."""
    return (
        Postprocessing("none", "No Postprocessing", "Each pixel has the class that the model says."),
        Postprocessing(
            CRF,
            "Conditional Random Field",
            "Each pixel asks all others, those near and those of like grey level most: specks vanish and "
            "borders move to the edges of the image. The confidence is 100 everywhere, unless marginals are "
            "asked for.",
            crf_implementation(),
        ),
    )


@cache
def crf_implementation() -> str:
    """`pydensecrf` where the extra `crf` is installed, else our own, which gives the same labels."""
    return PYDENSECRF if find_spec(PYDENSECRF) is not None else BUILT_IN
