"""`ModelService`: which models there are, and which are loaded."""

from __future__ import annotations

from segmentd.models.registry import Registry
from segmentd.rpc.convert import model_message, model_reference, page_size, page_start
from segmentd.rpc.faults import Context
from segmentd.v1 import model_service_pb2 as pb
from segmentd.v1 import model_service_pb2_grpc


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Serves the registry; `device` names where loaded models are."""

    def __init__(self, registry: Registry, device: str) -> None:
        self._registry = registry
        self._device = device

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.Model:
        entry = await self._registry.find(model_reference(request.name))
        return model_message(entry, self._device)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        entries = await self._registry.list()
        start, size = page_start(request.page_token), page_size(request.page_size)
        more = start + size < len(entries)
        return pb.ListModelsResponse(
            models=[model_message(entry, self._device) for entry in entries[start : start + size]],
            next_page_token=str(start + size) if more else "",
        )

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.Model:
        entry = await self._registry.load(model_reference(request.name))
        return model_message(entry, self._device)

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.Model:
        entry = await self._registry.unload(model_reference(request.name))
        return model_message(entry, self._device)
