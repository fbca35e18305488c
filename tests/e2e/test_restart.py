"""Stops and crashes: nothing is lost, nothing comes twice, subscribers go on where they were."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable

import numpy as np
import pytest
import tifffile

from segmentctl import DaemonError

from .daemon import DaemonProcess, wait_until
from .following import Follower, assert_all_once, fill, temporaries, wait_for_events
from .images import blobs

pytestmark = pytest.mark.e2e


@pytest.mark.slow
def test_stops_in_a_backlog_lose_nothing(place: Callable[..., DaemonProcess]) -> None:
    """Also: a subscriber with a cursor of a journal that was lost is told so."""
    daemon = place()
    names = fill(daemon.hot, 50, 100)
    with daemon.start(), daemon.client() as client, Follower(client) as follower:
        for events, number in ((2, signal.SIGTERM), (7, signal.SIGINT)):
            wait_for_events(daemon, events)
            daemon.stop(number)
            assert len(list(daemon.results.glob("*.labels.ome.tif"))) < len(names), "there was no backlog"
            assert temporaries(daemon.results) == []
            daemon.start()
        follower.wait_for(len(names))
        assert follower.interruptions > 0
        assert wait_for_events(daemon, len(names)) == len(names)
        assert_all_once(follower.results, names)
        daemon.stop()
    shutil.rmtree(daemon.folder / "journal")
    with daemon.start(), daemon.client() as client:
        with pytest.raises(DaemonError) as refused:
            next(client.subscribe("hot", follower.results[0].cursor))
        assert (refused.value.reason, refused.value.code) == ("CURSOR_UNKNOWN", "FAILED_PRECONDITION")
        with client.subscribe("hot", start="oldest", timeout=60, metadata_only=True) as results:
            assert next(results).number == 1


@pytest.mark.slow
def test_a_large_image_in_work_does_not_delay_a_stop(place: Callable[..., DaemonProcess]) -> None:
    """It is finished, or given up and done by the next start; either way it comes once."""
    daemon, edge = place(), 16 * 350
    tifffile.imwrite(daemon.hot / "large.tif", np.tile(blobs(1, (350, 350)), (16, 16)))
    with daemon.start(), daemon.client() as client:
        wait_until(lambda: client.server().planes_in_flight > 0, "the image is in work")
        daemon.stop()
        assert temporaries(daemon.results) == []
        daemon.start()
        with client.subscribe("hot", start="oldest", timeout=100, metadata_only=True) as results:
            assert next(results).segmentation.height == edge
        assert client.server().last_event_number == 1
        assert temporaries(daemon.results) == []
