"""The client: everything the daemon offers, as plain Python calls."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from segmentctl import upload
from segmentctl.access import Access
from segmentctl.assemble import Planes, UInt8Array, assemble
from segmentctl.errors import translated
from segmentctl.names import within
from segmentctl.resources import DEFAULT_ADDRESS
from segmentctl.subscription import Interrupted, Subscription
from segmentctl.training import TrainingClient
from segmentd.v1 import pixels_pb2, segmentation_service_pb2_grpc
from segmentd.v1 import segmentation_service_pb2 as messages

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

Encoding = Literal["raw", "zstd"]
Start = Literal["new", "oldest"]
Confidence = Literal["map", "marginal"]

_ENCODINGS = {"raw": pixels_pb2.ENCODING_RAW, "zstd": pixels_pb2.ENCODING_ZSTD}
_STARTS = {
    "new": messages.SubscribeSegmentationsRequest.START_NEW,
    "oldest": messages.SubscribeSegmentationsRequest.START_OLDEST,
}


class Client(TrainingClient):
    """A connection to one daemon.

    Nothing is sent before the first call. All calls raise `DaemonError` when the daemon refuses,
    fails or cannot be reached. One client may be used from several threads.

    Parameters
    ----------
    address : str
        `HOST:PORT`, or `unix:PATH` for a Unix socket.
    timeout : float
        Seconds that short calls may take.
    token : str
        Token to send; by default that of SEGMENTD_TOKEN or of the file SEGMENTD_TOKEN_FILE.
    ca : Path or str
        PEM file of the authorities that may vouch for the daemon, by default SEGMENTD_CA, else those that
        gRPC comes with. TLS is used where this or a certificate is given, and always beyond this machine.
    certificate, key : Path or str
        PEM files of a client certificate; by default SEGMENTD_CERTIFICATE and SEGMENTD_KEY.

    Examples
    --------
    >>> with Client() as client:                                    # doctest: +SKIP
    ...     for result in client.subscribe("watches/plate-1"):
    ...         print(result.segmentation.source_display, result.segmentation.mean_confidence)
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = 30.0,
        token: str | None = None,
        ca: Path | str | None = None,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
    ) -> None:
        super().__init__(address, timeout, Access(token, ca, certificate, key))
        self._segmentations = segmentation_service_pb2_grpc.SegmentationServiceStub(self._channel)
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()

    def close(self) -> None:
        """End all subscriptions and the connection."""
        for subscription in list(self._subscriptions):
            subscription.close()
        super().close()

    # ---------------------------------------------------------------- results

    def segmentations(
        self, parent: str = "watches/-", *, page_size: int = 100
    ) -> Iterator[messages.Segmentation]:
        """Iterate over the segmentations that the journal keeps, oldest first, without pixels.

        Parameters
        ----------
        parent : str
            A watch by id or resource name; `watches/-` for all.
        page_size : int
            How many to fetch at once.
        """
        request = messages.ListSegmentationsRequest(parent=within("watches", parent), page_size=page_size)
        for page in self._calls.pages(self._segmentations.ListSegmentations, request):
            yield from page.segmentations

    def segmentation(self, name: str) -> messages.Segmentation:
        """Get one segmentation, without pixels, by its resource name."""
        request = messages.GetSegmentationRequest(name=name)
        found: messages.Segmentation = self._calls.ask(self._segmentations.GetSegmentation, request)
        return found

    def read(
        self,
        segmentation: messages.Segmentation | str,
        region: tuple[int, int, int, int] | None = None,
        *,
        encoding: Encoding = "raw",
    ) -> Planes:
        """Read labels and confidence of a segmentation.

        Parameters
        ----------
        segmentation
            The segmentation or its resource name.
        region : tuple of int
            The rectangle to read as (y, x, height, width) in pixels; the whole plane by default.
        encoding : {"raw", "zstd"}
            How pixels travel; `zstd` pays on slow links.

        Returns
        -------
        labels, confidence : ndarray of uint8 (height, width)
            Labels 0 (unlabelled) to K, and percent; None for confidence that the watch does not write.
        """
        if isinstance(segmentation, str):
            segmentation = self.segmentation(segmentation)
        y, x, height, width = region or (0, 0, segmentation.height, segmentation.width)
        request = messages.ReadSegmentationRequest(
            name=segmentation.name,
            region=None if region is None else pixels_pb2.Region(y=y, x=x, height=height, width=width),
            encoding=_ENCODINGS[encoding],
        )
        with translated(self.address):
            call = self._segmentations.ReadSegmentation(request)
            try:
                return assemble((answer.block for answer in call), height, width, y=y, x=x)
            finally:
                call.cancel()

    def subscribe(
        self,
        parent: str = "watches/-",
        cursor: str | None = None,
        start: Start = "new",
        *,
        metadata_only: bool = False,
        previews: bool = False,
        encoding: Encoding = "raw",
        timeout: float | None = None,
        idle_seconds: float = 60.0,
        on_interruption: Interrupted | None = None,
    ) -> Subscription:
        """Follow segmentations as they become durable: in order, each once, without a gap.

        The subscription goes on by itself when the daemon restarts or the connection breaks. It raises
        `DaemonError` when the first connection fails, and when it cannot go on: the journal no longer keeps
        what follows the cursor (`CURSOR_EXPIRED`, metadata `oldest_cursor`) or is another (`CURSOR_UNKNOWN`).

        Parameters
        ----------
        parent : str
            A watch by id or resource name; `watches/-` for all.
        cursor : str
            Go on after the result with this cursor.
        start : {"new", "oldest"}
            Where to start without a cursor: with the next result, or the oldest that is kept.
        metadata_only : bool
            Leave out the pixels.
        previews : bool
            Give planes of images in work, too, as far as possible: without number and cursor, `preview` set.
        encoding : {"raw", "zstd"}
            How pixels travel; `zstd` pays on slow links.
        timeout : float
            End the iteration after this many seconds; by default it does not end.
        idle_seconds : float
            Connect again when nothing was heard for so long. The daemon says something every 10 s.
        on_interruption : callable
            Called with the `DaemonError` and the seconds until the next attempt when the stream broke.
        """
        request = messages.SubscribeSegmentationsRequest(
            parent=within("watches", parent),
            cursor=cursor or "",
            start=_STARTS[start],
            metadata_only=metadata_only,
            previews=previews,
            encoding=_ENCODINGS[encoding],
        )
        subscription = Subscription(
            self._segmentations.SubscribeSegmentations,
            request,
            address=self.address,
            timeout=timeout,
            idle_seconds=idle_seconds,
            on_interruption=on_interruption,
        )
        self._subscriptions.add(subscription)
        return subscription

    # ---------------------------------------------------------------- segmenting

    def postprocessings(self) -> list[messages.Postprocessing]:
        """List what can be done to class probabilities before labels are decided, `none` first."""
        request = messages.ListPostprocessingsRequest()
        answer = self._calls.ask(self._segmentations.ListPostprocessings, request)
        return list(answer.postprocessings)

    def segment(
        self,
        image: npt.ArrayLike,
        model: str,
        *,
        min_confidence: int = 0,
        postprocessing: str = "",
        confidence: Confidence = "map",
    ) -> tuple[UInt8Array, UInt8Array]:
        """Segment an image that is in memory.

        Parameters
        ----------
        image : array (Y, X) or (C, Y, X)
            Of type uint8, uint16, int16, uint32 or float32, as the model wants it.
        model : str
            Id, display name or resource name.
        min_confidence : int
            Labels below this confidence in percent become 0.
        postprocessing : str
            A name of `postprocessings`: `none`, or `crf` for a random field; empty for the model's own.
        confidence : {"map", "marginal"}
            With `crf`: 100 everywhere, or the probability after the field.

        Returns
        -------
        labels, confidence : ndarray of uint8 (Y, X)
            Labels 0 (unlabelled) to K, and percent.
        """
        result = self.segment_plane(
            image,
            model,
            min_confidence=min_confidence,
            postprocessing=postprocessing,
            confidence=confidence,
        )
        return result.labels, result.confidence

    def segment_plane(
        self,
        image: npt.ArrayLike,
        model: str,
        *,
        min_confidence: int = 0,
        postprocessing: str = "",
        confidence: Confidence = "map",
        border_pixels: int | None = None,
        tile_pixels: int | None = None,
        encoding: Encoding = "raw",
        priority: int = 0,
        deadline: float | None = None,
        timeout: float | None = None,
        on_progress: upload.OnProgress | None = None,
    ) -> upload.PlaneResult:
        """Segment an image that is in memory, and say how; as `segment`, with more to choose.

        Parameters
        ----------
        image, model, min_confidence, postprocessing, confidence
            As for `segment`.
        border_pixels, tile_pixels : int
            Border around each tile and edge of a tile without it; by default the daemon chooses.
        encoding : {"raw", "zstd"}
            How labels and confidence travel.
        priority, deadline : int, float
            Higher goes first, -1000 to 1000; seconds until `DEADLINE_EXPIRED`.
        timeout : float
            Seconds that the call may take; by default as long as it takes.
        on_progress : callable
            Called with the number of pixels done and in all; what it raises gives the plane up.
        """
        plane = upload.as_plane(image)
        head = messages.SegmentPlaneRequest.Head(
            model=within("models", model),
            min_confidence=min_confidence,
            postprocessing=postprocessing,
            marginal_confidence=confidence == "marginal",
            border_pixels=border_pixels,
            tile_pixels=tile_pixels,
            encoding=_ENCODINGS[encoding],
            priority=priority,
        )
        upload.fill_head(head, plane, deadline)
        with translated(self.address):
            call = self._segmentations.SegmentPlane(upload.requests(head, plane), timeout=timeout)
            try:
                return upload.receive(call, head.height, head.width, on_progress)
            finally:
                call.cancel()
