"""Files that are written slowly: nothing of them is published before it is complete, and all of it then."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from .daemon import DaemonProcess
from .images import blobs
from .writers import WAYS, write_at_once

pytestmark = pytest.mark.e2e

SETTLE_SECONDS = 0.4
POLLED = {"poll": "always", "poll_seconds": 0.1}


@pytest.mark.parametrize(
    ("each", "watch"),
    [
        pytest.param(1, {}, id="quick"),
        pytest.param(5, {}, id="long", marks=pytest.mark.slow),
        pytest.param(5, POLLED, id="polled", marks=pytest.mark.slow),
    ],
)
def test_only_complete_contents_are_published(
    place: Callable[..., DaemonProcess], each: int, watch: dict[str, Any]
) -> None:
    planes = {
        f"{way}-{number}.tif": [blobs(seed), blobs(seed + 50)]
        for way in WAYS
        for number, seed in enumerate(range(each))
    }
    daemon = place(settle_seconds=SETTLE_SECONDS, give_up_seconds=20.0, **watch)
    published: dict[str, list[str]] = {name: [] for name in planes}
    with (
        daemon,
        daemon.client() as client,
        client.subscribe("hot", start="oldest", timeout=90, metadata_only=True) as results,
    ):
        contents = write_at_once(daemon.hot, planes, SETTLE_SECONDS)
        wanted = {
            name: [hashlib.sha256(data).hexdigest() for data in versions]
            for name, versions in contents.items()
        }
        for result in results:
            segmentation = result.segmentation
            assert segmentation.state == segmentation.STATE_SUCCEEDED, result.error
            name = segmentation.source_display
            assert segmentation.content_digest in wanted[name], f"{name}: published before it was complete"
            if segmentation.plane.z == 0:  # each plane has an event
                published[name].append(segmentation.content_digest)
            if all(versions[-1:] == wanted[name][-1:] for name, versions in published.items()):
                break
    for name, versions in published.items():
        assert versions == sorted(set(versions), key=wanted[name].index), f"{name}: twice, or out of order"
