"""What `segmentd verify` found about a model, kept in the card of its file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segmentd.models import bundle
from segmentd.models.archive import read_archive


def store(path: Path, verification: Mapping[str, Any]) -> None:
    """Put a verdict into the card of a model file; its digest and all else in it stay as they are.

    Raises
    ------
    SegmentdError
        MODEL_UNUSABLE where the file is none of ours.
    OSError
        It cannot be written.
    """
    data = bundle.open_bytes(path)
    card = bundle.read_container(data, str(path)).card
    members = read_archive(io.BytesIO(data), str(path))
    del members[bundle.MANIFEST]
    bundle.write_container(replace(card, verification=verification), members, path)
