"""Changes of models: taken in, given out, renamed, copied, deleted, taken back to an earlier version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.field_mask_pb2 import FieldMask

from segmentctl import transfer
from segmentctl.errors import StreamError, translated
from segmentctl.names import within
from segmentctl.resources import ResourceClient
from segmentd.v1 import model_service_pb2 as messages
from segmentd.v1 import pixels_pb2

_CHANGE_SECONDS = 600.0


class ModelClient(ResourceClient):
    """The part of `Client` that changes models."""

    def import_model(
        self,
        path: Path | str,
        *,
        model_id: str = "",
        display_name: str = "",
        overwrite: bool = False,
        on_bytes: transfer.OnBytes | None = None,
    ) -> messages.Model:
        """Send a model file, or a package of a network, to the daemon.

        Parameters
        ----------
        path : Path
            The file. Images and labels in it become a training. A bare `.onnx` needs a `.json` beside it.
        model_id, display_name : str
            Id and name that the model gets; by default its own.
        overwrite : bool
            Make it a new version of the model with that id, if there is one.
        on_bytes : callable
            Called with the number of bytes sent and in all.
        """
        path = Path(path)
        head = messages.ImportModelRequest.Head(
            file_name=path.name,
            size_bytes=path.stat().st_size,
            sha256=transfer.sha256_of(path),
            model_id=model_id,
            display_name=display_name,
            allow_overwrite=overwrite,
        )
        sidecar = path.with_suffix(".json")
        if path.suffix == ".onnx" and sidecar.is_file():
            head.sidecar = sidecar.read_bytes()

        def requests() -> Iterator[messages.ImportModelRequest]:
            yield messages.ImportModelRequest(head=head)
            for chunk in transfer.chunks(path, on_bytes):
                yield messages.ImportModelRequest(data=chunk)

        with translated(self.address):
            imported: messages.Model = self._models.ImportModel(requests())
        return imported

    def export_model(
        self,
        model: str,
        path: Path | str,
        *,
        version: int = 0,
        with_images: bool = False,
        on_bytes: transfer.OnBytes | None = None,
    ) -> Path:
        """Write a model to a file; into a folder under the name that the daemon gives.

        Parameters
        ----------
        model : str
            Id, display name or resource name.
        path : Path
            File or folder.
        version : int
            0 for the current one.
        with_images : bool
            Put the images and labels that it was trained on into the file.
        on_bytes : callable
            Called with the number of bytes that came and in all.
        """
        request = messages.ExportModelRequest(
            name=within("models", model), version=version, with_images=with_images
        )
        with translated(self.address):
            call = self._models.ExportModel(request)
            try:
                first = next(call, None)
                if first is None or first.WhichOneof("part") != "head":
                    raise StreamError("the daemon sent no head before the file")
                head, target = first.head, Path(path)
                if target.is_dir():
                    target /= Path(head.file_name).name
                return transfer.save(call, head.size_bytes, head.sha256, target, on_bytes)
            finally:
                call.cancel()

    def update_model(
        self,
        model: str,
        *,
        display_name: str | None = None,
        description: str | None = None,
        classes: Sequence[tuple[str, str]] | None = None,
        border_pixels: int | None = None,
        postprocessing: str | None = None,
    ) -> messages.Model:
        """Change what a model is called, says of itself, or does by default; None leaves it as it is.

        Parameters
        ----------
        model : str
            Id, display name or resource name.
        display_name, description : str
            For people.
        classes : sequence of (name, colour)
            All classes in the order of their labels; colours are `#RRGGBB`.
        border_pixels : int
            Default border of a tile.
        postprocessing : str
            What is done to labels by default, as `none`.
        """
        changed = messages.Model(name=within("models", model))
        paths = []
        for field, value in (
            ("display_name", display_name),
            ("description", description),
            ("border_pixels", border_pixels),
            ("postprocessing", postprocessing),
        ):
            if value is not None:
                setattr(changed, field, value)
                paths.append(field)
        if classes is not None:
            changed.classes.extend(
                pixels_pb2.PixelClass(value=value, display_name=name, color=color)
                for value, (name, color) in enumerate(classes, 1)
            )
            paths.append("classes")
        request = messages.UpdateModelRequest(model=changed, update_mask=FieldMask(paths=paths))
        updated: messages.Model = self._calls.ask(self._models.UpdateModel, request, _CHANGE_SECONDS)
        return updated

    def delete_model(self, model: str, *, force: bool = False, purge: bool = False) -> None:
        """Delete a model; `rollback_model` brings it back, unless `purge`.

        Parameters
        ----------
        model : str
            Id, display name or resource name.
        force : bool
            Also if watches use it.
        purge : bool
            Delete its versions, too.
        """
        request = messages.DeleteModelRequest(name=within("models", model), force=force, purge=purge)
        self._calls.ask(self._models.DeleteModel, request)

    def clone_model(self, model: str, display_name: str = "", *, model_id: str = "") -> messages.Model:
        """Make a second model with the same content, and a copy of its images and labels if there are any."""
        request = messages.CloneModelRequest(
            name=within("models", model), display_name=display_name, model_id=model_id
        )
        cloned: messages.Model = self._calls.ask(self._models.CloneModel, request, _CHANGE_SECONDS)
        return cloned

    def model_versions(self, model: str) -> list[messages.ModelVersion]:
        """List the versions of a model that are kept, the current one first."""
        request = messages.ListModelVersionsRequest(parent=within("models", model))
        return list(self._calls.ask(self._models.ListModelVersions, request).versions)

    def rollback_model(self, model: str, version: int = 0) -> messages.Model:
        """Make an older version the current one, as a new version; 0 for the one before.

        Brings back a model that was deleted.
        """
        request = messages.RollbackModelRequest(name=within("models", model), version=version)
        current: messages.Model = self._calls.ask(self._models.RollbackModel, request, _CHANGE_SECONDS)
        return current
