"""What the daemon has: itself, its models and its watches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Self, Unpack

from google.protobuf.field_mask_pb2 import FieldMask

from segmentctl.access import Access
from segmentctl.calls import Calls, open_channel
from segmentctl.names import within
from segmentctl.watch_fields import WatchChanges, WatchFields, as_message
from segmentd.v1 import (
    model_service_pb2,
    model_service_pb2_grpc,
    server_service_pb2,
    server_service_pb2_grpc,
    watch_service_pb2,
    watch_service_pb2_grpc,
)

DEFAULT_ADDRESS = "127.0.0.1:50051"

_LOAD_SECONDS = 600.0


class ResourceClient:
    """The part of `Client` that looks after the daemon, its models and its watches."""

    def __init__(self, address: str, timeout: float, access: Access) -> None:
        self.address = address
        self._channel = open_channel(address, access)
        self._calls = Calls(address, timeout)
        self._server = server_service_pb2_grpc.ServerServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._watches = watch_service_pb2_grpc.WatchServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def server(self) -> server_service_pb2.Server:
        """Get the daemon: version, devices, how busy it is."""
        request = server_service_pb2.GetServerRequest(name="server")
        server: server_service_pb2.Server = self._calls.ask(self._server.GetServer, request)
        return server

    def models(self) -> Iterator[model_service_pb2.Model]:
        """Iterate over all models, by id."""
        request = model_service_pb2.ListModelsRequest()
        for page in self._calls.pages(self._models.ListModels, request):
            yield from page.models

    def model(self, model: str) -> model_service_pb2.Model:
        """Get a model by id, display name or resource name."""
        request = model_service_pb2.GetModelRequest(name=within("models", model))
        found: model_service_pb2.Model = self._calls.ask(self._models.GetModel, request)
        return found

    def load_model(self, model: str, *, timeout: float = _LOAD_SECONDS) -> model_service_pb2.Model:
        """Bring a model into the daemon's memory; returns when it is ready."""
        request = model_service_pb2.LoadModelRequest(name=within("models", model))
        loaded: model_service_pb2.Model = self._calls.ask(self._models.LoadModel, request, timeout)
        return loaded

    def unload_model(self, model: str) -> model_service_pb2.Model:
        """Let the daemon forget a model until it is needed again."""
        request = model_service_pb2.UnloadModelRequest(name=within("models", model))
        unloaded: model_service_pb2.Model = self._calls.ask(self._models.UnloadModel, request)
        return unloaded

    def watches(self) -> Iterator[watch_service_pb2.Watch]:
        """Iterate over all watches, by id."""
        request = watch_service_pb2.ListWatchesRequest()
        for page in self._calls.pages(self._watches.ListWatches, request):
            yield from page.watches

    def watch(self, watch: str) -> watch_service_pb2.Watch:
        """Get a watch by id or resource name."""
        request = watch_service_pb2.GetWatchRequest(name=within("watches", watch))
        found: watch_service_pb2.Watch = self._calls.ask(self._watches.GetWatch, request)
        return found

    def create_watch(
        self,
        watch_id: str,
        folder: str | bytes | os.PathLike[str],
        model: str,
        *,
        validate_only: bool = False,
        timeout: float = _LOAD_SECONDS,
        **fields: Unpack[WatchFields],
    ) -> watch_service_pb2.Watch:
        """Make a watch, which takes up images at once and survives restarts of the daemon.

        Parameters
        ----------
        watch_id : str
            Its id: lower-case letters, digits and hyphens.
        folder : path
            The folder to watch: absolute, on the daemon's machine.
        model : str
            Id, display name or resource name of the model.
        validate_only : bool
            Only check; the answer is what the watch would be.
        timeout : float
            Seconds that the call may take; the model may have to be loaded.
        **fields
            More of the watch; see `segmentctl.watch_fields.WatchFields`.
        """
        message, _ = as_message({**fields, "folder": folder, "model": model})
        request = watch_service_pb2.CreateWatchRequest(
            watch=message, watch_id=watch_id, validate_only=validate_only
        )
        made: watch_service_pb2.Watch = self._calls.ask(self._watches.CreateWatch, request, timeout)
        return made

    def update_watch(
        self,
        watch: str,
        *,
        etag: str = "",
        validate_only: bool = False,
        timeout: float = _LOAD_SECONDS,
        **fields: Unpack[WatchChanges],
    ) -> watch_service_pb2.Watch:
        """Change fields of a watch; images taken up from now on are done in the new way.

        Parameters
        ----------
        watch : str
            Id or resource name.
        etag : str
            That of the watch as it was read: fail if it has changed since (`WATCH_CHANGED`).
        validate_only, timeout
            As for `create_watch`.
        **fields
            What to change; None takes a field back to its default.
        """
        message, paths = as_message(fields)
        message.name, message.etag = within("watches", watch), etag
        request = watch_service_pb2.UpdateWatchRequest(
            watch=message, update_mask=FieldMask(paths=paths), validate_only=validate_only
        )
        changed: watch_service_pb2.Watch = self._calls.ask(self._watches.UpdateWatch, request, timeout)
        return changed

    def pause_watch(self, watch: str, *, etag: str = "") -> watch_service_pb2.Watch:
        """Have a watch take up nothing more until it is resumed; what is in work is finished."""
        request = watch_service_pb2.PauseWatchRequest(name=within("watches", watch), etag=etag)
        paused: watch_service_pb2.Watch = self._calls.ask(self._watches.PauseWatch, request)
        return paused

    def resume_watch(self, watch: str, *, etag: str = "") -> watch_service_pb2.Watch:
        """Have a paused watch go on."""
        request = watch_service_pb2.ResumeWatchRequest(name=within("watches", watch), etag=etag)
        resumed: watch_service_pb2.Watch = self._calls.ask(self._watches.ResumeWatch, request)
        return resumed

    def delete_watch(self, watch: str, *, etag: str = "") -> None:
        """Delete a watch; its images, results and history stay."""
        request = watch_service_pb2.DeleteWatchRequest(name=within("watches", watch), etag=etag)
        self._calls.ask(self._watches.DeleteWatch, request)
