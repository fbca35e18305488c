"""Whether the images of a watch still look like those before. Pure: told numbers of images in their order.

Lamps fade, focus drifts, stains vary: the model goes on giving labels, but is less sure of them, or finds
other shares of classes. For each image that is the mean confidence and the share of each label. The median
of the last few images is compared with the images before them, by a robust score: the distance of the
medians, divided by the spread of single images. The spread is the larger one of two that are the standard
deviation where values are normally distributed: 1.4826 times the median absolute deviation (Hampel, J. Am.
Stat. Assoc. 69, 383 (1974)), and the way from the median to the 5th or 95th percentile, on the side in
question, divided by 1.645, since shares of classes are often skewed or of several kinds. One odd image, or
three, change nothing. What is slower than the history is long goes unnoticed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from segmentd.records import DriftChange, DriftMeasure, Segmentation, SegmentationState

RECENT = 8
MINIMUM_HISTORY = 32
HISTORY = 200
# An alarm begins and ends here; in between it stays as it is.
BEGIN_SCORE = 3.0
END_SCORE = 1.5
# What differs for so many images is the new normal.
ADOPTED_AFTER = 100
CONFIDENCE = "confidence"
# Smaller spreads count as these: in percent of confidence, and of pixels.
LEAST_SPREAD_OF_CONFIDENCE = 0.1
LEAST_SPREAD_OF_SHARES = 0.5
_DEVIATIONS = 1.4826
_TAIL = 0.05
_TAIL_DEVIATIONS = 1.645


@dataclass(frozen=True, slots=True)
class Look:
    """What one image looked like to a model: mean confidence and share of each label, all in percent."""

    model_digest: str
    values: Mapping[str, float]


def look_of(planes: Sequence[Segmentation]) -> Look | None:
    """Add up the planes of an image; None where there are no labels."""
    made = [one for one in planes if one.state is SegmentationState.SUCCEEDED and any(one.label_pixel_counts)]
    if not made:
        return None
    counts = [sum(column) for column in zip(*(one.label_pixel_counts for one in made), strict=True)]
    pixels = sum(counts)
    confidence = sum(one.mean_confidence * sum(one.label_pixel_counts) for one in made) / pixels
    names = ["unlabelled", *(entry.name for entry in made[0].classes)]
    shares = {name: 100 * count / pixels for name, count in zip(names, counts, strict=True)}
    return Look(made[0].model_digest, {**shares, CONFIDENCE: confidence})


class Drift:
    """Compares the last images of a watch with those before.

    Attributes
    ----------
    alarm : bool
        Whether the last images differ.
    measures : tuple of DriftMeasure
        What is measured, the largest score first; empty until there is enough to compare with.
    """

    def __init__(self) -> None:
        self.alarm = False
        self.measures: tuple[DriftMeasure, ...] = ()
        self._model = ""
        self._recent: deque[Look] = deque()
        self._history: deque[Look] = deque(maxlen=HISTORY)
        self._unusual: deque[Look] = deque(maxlen=ADOPTED_AFTER)

    def add(self, look: Look) -> DriftChange | None:
        """Take the next image; returns what has changed, if an alarm begins or ends with it."""
        if look.model_digest != self._model:
            ended = self._changed(False, adopted=True) if self.alarm else None
            self._forget(look.model_digest)
            self._recent.append(look)
            return ended
        self._recent.append(look)
        if len(self._recent) > RECENT:
            (self._unusual if self.alarm else self._history).append(self._recent.popleft())
        if len(self._history) < MINIMUM_HISTORY:
            return None
        self.measures = self._measured()
        score = abs(self.measures[0].score)
        if self.alarm and len(self._unusual) >= ADOPTED_AFTER:
            self._history.clear()
            self._history.extend(self._unusual)
            return self._changed(False, adopted=True)
        if not self.alarm and score >= BEGIN_SCORE:
            return self._changed(True)
        if self.alarm and score < END_SCORE:
            return self._changed(False)
        return None

    def _forget(self, model: str) -> None:
        """Begin anew, with another model."""
        self.alarm, self.measures, self._model = False, (), model
        for looks in (self._recent, self._history, self._unusual):
            looks.clear()

    def _changed(self, alarm: bool, *, adopted: bool = False) -> DriftChange:
        self.alarm = alarm
        self._unusual.clear()
        return DriftChange(alarm, adopted, self.measures)

    def _measured(self) -> tuple[DriftMeasure, ...]:
        found = []
        for name in self._recent[-1].values:
            before = sorted(look.values[name] for look in self._history)
            now = median(look.values[name] for look in self._recent)
            usual = median(before)
            found.append(DriftMeasure(name, now, usual, (now - usual) / _spread(name, before, usual, now)))
        return tuple(sorted(found, key=lambda measure: -abs(measure.score)))


def _spread(name: str, before: Sequence[float], usual: float, now: float) -> float:
    """How far single images lie from their median, on the side of `now`; `before` is sorted."""
    least = LEAST_SPREAD_OF_CONFIDENCE if name == CONFIDENCE else LEAST_SPREAD_OF_SHARES
    tail = round(_TAIL * (len(before) - 1))
    end = before[-1 - tail] if now > usual else before[tail]
    deviation = median(abs(value - usual) for value in before)
    return max(_DEVIATIONS * deviation, abs(end - usual) / _TAIL_DEVIATIONS, least)


def describe(measures: Sequence[DriftMeasure]) -> str:
    """Say in words what differs, and what to do."""
    unusual = [measure for measure in measures if abs(measure.score) >= END_SCORE] or list(measures[:1])
    told = ", ".join(f"{one.name} {one.value:.1f} % (before {one.usual:.1f} %)" for one in unusual)
    return f"the last images differ from those before: {told}; check lamp, focus and stain"
