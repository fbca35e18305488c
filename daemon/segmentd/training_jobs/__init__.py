"""Training: of folders of files at once, or step by step with images and labels that the daemon keeps."""

from __future__ import annotations

from segmentd.training_jobs.from_files import (
    Trained,
    TrainingPair,
    TrainingRequest,
    image_stem,
    match_pairs,
    train_model,
)

__all__ = ["Trained", "TrainingPair", "TrainingRequest", "image_stem", "match_pairs", "train_model"]
