"""What the daemon has: itself, its models and its watches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from segmentctl.calls import Calls, open_channel
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
    """The part of `Client` that looks things up and says which models stay in memory."""

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self._channel = open_channel(address)
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


def within(collection: str, name: str) -> str:
    """Give the resource name for an id; a resource name stays as it is."""
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"
