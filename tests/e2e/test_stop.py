"""Signals at any time of a daemon's life, and locks that go with the process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import grpc
import numpy as np
import pytest
import tifffile

from segmentd.v1 import segmentation_service_pb2 as pb

from .daemon import STOP_SECONDS, DaemonProcess, wait_until
from .following import Follower, assert_all_once, fill, temporaries
from .images import blobs
from .wire import connected, refusal

pytestmark = pytest.mark.e2e


def test_streams_end_with_a_status_that_says_to_resume(place: Callable[..., DaemonProcess]) -> None:
    with place() as daemon, connected(daemon.address) as wire:
        request = pb.SubscribeSegmentationsRequest(parent="watches/hot")
        parts = wire.segmentations.SubscribeSegmentations(request, timeout=60)
        assert next(parts).cursor.endswith("-0")
        daemon.signal(signal.SIGTERM)
        refused = refusal(lambda: parts)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert daemon.wait_for_exit(STOP_SECONDS) == 0


@pytest.mark.slow
def test_signals_during_the_start_do_no_damage(place: Callable[..., DaemonProcess]) -> None:
    """SIGTERM or SIGKILL at random moments of starts with a backlog; in the end all is done once."""
    daemon, random = place(), np.random.default_rng(3)
    names = fill(daemon.hot, 20, 100)
    for attempt in range(8):
        daemon.launch()
        # Not to wait for anything: the signal shall come at another point of the start each time.
        time.sleep(random.uniform(0, 2.0))
        number = signal.SIGTERM if attempt % 3 else signal.SIGKILL
        daemon.signal(number)
        code = daemon.wait_for_exit(STOP_SECONDS)
        # Before Python has handlers a signal ends the process as it ends any.
        assert code in (0, -number), daemon.log_end()
    with daemon.start(), daemon.client() as client, Follower(client) as follower:
        follower.wait_for(len(names))
        assert_all_once(follower.results, names)
        assert temporaries(daemon.results) == []


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_does_no_damage(place: Callable[..., DaemonProcess]) -> None:
    daemon = place()
    tifffile.imwrite(daemon.hot / "large.tif", np.tile(blobs(1, (350, 350)), (28, 28)))
    with daemon.start(), daemon.client() as client:
        wait_until(lambda: client.server().planes_in_flight > 0, "the image is in work")
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in daemon.log_end(), "the first signal is heard")
        daemon.signal(signal.SIGTERM)
        began = time.monotonic()
        assert daemon.wait_for_exit(STOP_SECONDS) == 0
        assert time.monotonic() - began < 5
        daemon.start()
        with client.subscribe("hot", start="oldest", timeout=100, metadata_only=True) as results:
            assert next(results).segmentation.state == pb.Segmentation.STATE_SUCCEEDED
        assert client.server().last_event_number == 1
        assert temporaries(daemon.results) == []
