"""Images and labels of trainings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentctl import transfer
from segmentctl.access import Access
from segmentctl.assemble import UInt8Array, assemble
from segmentctl.errors import translated
from segmentctl.models import ModelClient
from segmentctl.names import within
from segmentctl.upload import as_plane
from segmentd.v1 import pixels_pb2, training_service_pb2_grpc
from segmentd.v1 import training_service_pb2 as messages

CHANGE_SECONDS = 600.0

Image = Path | str | PurePosixPath | npt.NDArray[np.generic]


class TrainingImagesClient(ModelClient):
    """The part of `Client` that looks after the images and labels of trainings."""

    def __init__(self, address: str, timeout: float, access: Access) -> None:
        super().__init__(address, timeout, access)
        self._trainings = training_service_pb2_grpc.TrainingServiceStub(self._channel)

    def add_training_image(
        self, training: str, image: Image, *, plane: tuple[int, int, int] = (0, 0, 0), name: str = ""
    ) -> messages.TrainingImage:
        """Add an image.

        Parameters
        ----------
        training : str
            Id or resource name.
        image : Path, PurePosixPath or array (Y, X) or (C, Y, X)
            A file from here, a file on the daemon's host (`PurePosixPath`), or pixels.
        plane : tuple of int
            Scene, time and z of the plane, for files with several.
        name : str
            What to call it; by default the name of the file.
        """
        scene, time, z = plane
        head = messages.AddTrainingImageRequest.Head(
            parent=within("trainings", training),
            plane=pixels_pb2.PlaneIndex(scene=scene, time=time, z=z),
            file_name=name,
        )
        added: messages.TrainingImage = self._send(
            self._trainings.AddTrainingImage, messages.AddTrainingImageRequest, head, image
        )
        return added

    def delete_training_image(self, image: str) -> None:
        """Delete an image, given by its resource name, and its labels."""
        self._calls.ask(self._trainings.DeleteTrainingImage, messages.DeleteTrainingImageRequest(name=image))

    def set_training_labels(
        self, image: str, labels: Image, *, merge: bool = False
    ) -> messages.TrainingImage:
        """Set the labels of an image: 0 is unlabelled, 1 to K are classes.

        Parameters
        ----------
        image : str
            Resource name of the image.
        labels : Path, PurePosixPath or array (Y, X)
            A file from here, one on the daemon's host, or values.
        merge : bool
            Draw what is not 0 over the labels that are there, rather than replace them.
        """
        modes = messages.ImportTrainingLabelsRequest
        mode = modes.MODE_MERGE if merge else modes.MODE_REPLACE
        head = messages.ImportTrainingLabelsRequest.Head(name=image, mode=mode)
        return self._label(head, labels)

    def set_training_mask(
        self, image: str, value: int, mask: Image, *, pixel_count: int = 0
    ) -> messages.TrainingImage:
        """Replace the labels of one class by a binary mask.

        Parameters
        ----------
        image : str
            Resource name of the image.
        value : int
            Label of the class.
        mask : Path, PurePosixPath or array (Y, X)
            Not 0 where the class is.
        pixel_count : int
            Take only so many of its pixels, drawn at random and always the same ones; 0 for all.
        """
        head = messages.ImportTrainingLabelsRequest.Head(
            name=image, mask_class=value, mask_pixel_count=pixel_count
        )
        return self._label(head, mask)

    def _label(
        self, head: messages.ImportTrainingLabelsRequest.Head, labels: Image
    ) -> messages.TrainingImage:
        send, request = self._trainings.ImportTrainingLabels, messages.ImportTrainingLabelsRequest
        labelled: messages.TrainingImage = self._send(send, request, head, labels)
        return labelled

    def training_labels(self, image: messages.TrainingImage) -> UInt8Array:
        """Read the labels of an image, uint8 (Y, X)."""
        request = messages.ReadTrainingLabelsRequest(name=image.name, encoding=pixels_pb2.ENCODING_ZSTD)
        with translated(self.address):
            answers = self._trainings.ReadTrainingLabels(request)
            return assemble((answer.block for answer in answers), image.height, image.width)[0]

    def segmentation_to_labels(
        self,
        image: str,
        value: int = 0,
        *,
        min_confidence: int = 0,
        region: tuple[int, int, int, int] | None = None,
    ) -> messages.TrainingImage:
        """Turn what the model in work makes of an image into labels where there are none.

        Parameters
        ----------
        image : str
            Resource name of the image.
        value : int
            Label of the class; 0 for all.
        min_confidence : int
            Only pixels of at least this confidence, in percent.
        region : tuple of int
            Only in this rectangle (y, x, height, width).
        """
        y, x, height, width = region or (0, 0, 0, 0)
        request = messages.ConvertSegmentationToLabelsRequest(
            name=image,
            value=value,
            min_confidence=min_confidence,
            region=pixels_pb2.Region(y=y, x=x, height=height, width=width) if region else None,
        )
        labelled: messages.TrainingImage = self._calls.ask(
            self._trainings.ConvertSegmentationToLabels, request, CHANGE_SECONDS
        )
        return labelled

    def _send(self, method: Callable[..., Any], kind: Any, head: Any, image: Image) -> Any:
        """Send a file or an array after its head."""
        if isinstance(image, np.ndarray):
            with TemporaryDirectory() as folder:
                path = Path(folder) / f"{head.file_name or 'array'}.tif"
                _write_tiff(path, image)
                return self._send(method, kind, head, path)
        if isinstance(image, PurePosixPath) and not isinstance(image, Path):
            head.path = os.fsencode(str(image))
            with translated(self.address):
                return method(iter([kind(head=head)]))
        path = Path(image)
        head.file_name = head.file_name or path.name

        def requests() -> Iterator[Any]:
            yield kind(head=head)
            for chunk in transfer.chunks(path):
                yield kind(data=chunk)

        with translated(self.address):
            return method(requests())


def _write_tiff(path: Path, image: npt.NDArray[np.generic]) -> None:
    import tifffile

    plane = as_plane(image.astype(np.uint8) if image.dtype == np.bool_ else image)
    tifffile.imwrite(path, plane, ome=True, photometric="minisblack", metadata={"axes": "CYX"})
