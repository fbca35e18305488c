"""Scores of a training as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from segmentd.v1.model_service_pb2 import TrainingScores
    from segmentd.v1.pixels_pb2 import PixelClass

SHOWN_FEATURES = 5


def show_scores(scores: TrainingScores, classes: Sequence[PixelClass]) -> None:
    """Show what labelled pixels were taken for by trees that did not see them, and what mattered."""
    from segmentctl.cli.connection import printable
    from segmentctl.cli.tables import show

    rows = []
    for entry, row, count in zip(classes, scores.confusion, scores.labelled_pixel_counts, strict=False):
        right = row.counts[entry.value - 1] / sum(row.counts) if sum(row.counts) else 0
        shown = [f"{number:,}" for number in row.counts]
        rows.append((str(entry.value), entry.display_name, f"{count:,}", f"{100 * right:.1f} %", *shown))
    typer.echo("\nLabelled pixels (rows) and what they were taken for by trees that did not see them:")
    show(("label", "class", "labelled", "right", *(entry.display_name for entry in classes)), rows)
    if scores.HasField("accuracy"):
        typer.echo(f"out-of-bag accuracy: {100 * scores.accuracy:.2f} %")
    best = [f"{entry.feature} ({100 * entry.share:.0f} %)" for entry in scores.features[:SHOWN_FEATURES]]
    typer.echo(f"most useful features: {printable(', '.join(best))}")
