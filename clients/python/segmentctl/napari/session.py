"""What the plugin does: connect, follow, submit. No Qt: results are handed to the thread of the window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from segmentctl.client import Client
from segmentctl.errors import DaemonError
from segmentctl.napari.layers import LabelLayers, Viewer, current_plane

if TYPE_CHECKING:
    from segmentctl.subscription import Result, Subscription

InWindow = Callable[[Callable[[], None]], None]


class Session:
    """A viewer's connection to one daemon. Methods are called in the thread of the window.

    Parameters
    ----------
    viewer : napari.Viewer
        Where results are shown.
    in_window : callable
        Runs a function in the thread of the window, later; called from any thread.
    tell : callable
        Shows a sentence to the user; called in the thread of the window.
    """

    def __init__(self, viewer: Viewer, in_window: InWindow, tell: Callable[[str], None]) -> None:
        self.layers = LabelLayers(viewer)
        self._viewer, self._in_window, self._tell = viewer, in_window, tell
        self._client: Client | None = None
        self._feed: Subscription | None = None
        self._waiting: Result | None = None
        self._lock = threading.Lock()
        self._received = self._passed_over = 0

    def connect(self, address: str) -> tuple[list[str], list[str]]:
        """Connect, and give the ids of models and watches; both are empty if that fails, which is told."""
        self.close()
        try:
            client = Client(address, timeout=5.0)
            models = [model.name.rpartition("/")[2] for model in client.models()]
            watches = [watch.name.rpartition("/")[2] for watch in client.watches()]
        except DaemonError as error:
            self._tell(error.message)
            return [], []
        self._client = client
        self._tell(f"Connected to {address}: {len(models)} models, {len(watches)} folders.")
        return models, watches

    def close(self) -> None:
        """End the feed and the connection."""
        self.unfollow()
        if self._client is not None:
            self._client.close()
            self._client = None

    # ---------------------------------------------------------------- the live feed

    def follow(self, watch: str = "-", start: str = "new") -> None:
        """Show results of a watch (`-` for all) as they come; "oldest" begins with all that are kept."""
        self.unfollow()
        if self._client is None:
            self._tell("Connect first.")
            return
        self._received = self._passed_over = 0
        feed = self._client.subscribe(watch, start="oldest" if start == "oldest" else "new")
        self._feed = feed
        threading.Thread(target=self._read, args=(feed,), name="segmentd-feed", daemon=True).start()
        self._tell(f"Following {'all folders' if watch == '-' else watch}.")

    def unfollow(self) -> None:
        """End the live feed."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _read(self, feed: Subscription) -> None:
        try:
            for result in feed:
                self._offer(result)
        except DaemonError as error:
            message = error.message
            self._in_window(lambda: self._tell(message))

    def _offer(self, result: Result) -> None:
        """Hand a result to the window; planes of a stack wait for it, else only the newest image does."""
        with self._lock:
            self._received += 1
            if result.segmentation.plane_count > 1:
                self._in_window(lambda: self._show(result))
                return
            idle = self._waiting is None
            self._passed_over += not idle
            self._waiting = result
        if idle:
            self._in_window(self._show_newest)

    def _show_newest(self) -> None:
        with self._lock:
            result, self._waiting = self._waiting, None
        if result is not None:
            self._show(result)

    def _show(self, result: Result) -> None:
        self.layers.show_result(result)
        name = result.segmentation.source_display
        if result.labels is None and result.error is not None:
            self._tell(f"{name}: {result.error.message}")
            return
        with self._lock:
            passed = f", {self._passed_over} of them passed over" if self._passed_over else ""
            self._tell(f"{name}, result {self._received}{passed}")

    # ---------------------------------------------------------------- on request

    def submit(self, model: str) -> threading.Thread | None:
        """Segment what the selected image layers show; the labels come as a layer above them."""
        if self._client is None or not model:
            self._tell("Connect first." if self._client is None else "Choose a model first.")
            return None
        try:
            image, layers = current_plane(self._viewer)
        except ValueError as error:
            self._tell(str(error))
            return None
        name = f"{layers[0].name} {model}"
        self._tell(f"Segmenting {layers[0].name} ...")
        thread = threading.Thread(
            target=self._segment, args=(self._client, image, model, name, layers[0]), daemon=True
        )
        thread.start()
        return thread

    def _segment(self, client: Client, image: Any, model: str, name: str, like: Any) -> None:
        try:
            result = client.segment_plane(image, model)
        except (DaemonError, ValueError) as error:
            message = str(error)
            self._in_window(lambda: self._tell(message))
            return

        def show() -> None:
            summary = result.summary
            self.layers.show_plane(name, result.labels, result.confidence, summary.classes, like)
            seconds = summary.compute_duration.ToTimedelta().total_seconds()
            self._tell(
                f"{name}: confidence {summary.mean_confidence:.1f} %, {seconds:.2f} s, {summary.device}"
            )

        self._in_window(show)
