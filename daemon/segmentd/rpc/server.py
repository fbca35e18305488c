"""Builds and binds the gRPC server."""

from __future__ import annotations

import logging

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from segmentd.pipeline import Engine
from segmentd.results.feed import Feed
from segmentd.results.journal import Journal
from segmentd.rpc.access import AccessInterceptor, Gate
from segmentd.rpc.entrances import Entrances, limits
from segmentd.rpc.faults import FaultInterceptor
from segmentd.rpc.model_service import ModelService
from segmentd.rpc.segmentation_service import SegmentationService
from segmentd.rpc.server_service import ServerService
from segmentd.rpc.tokens import Tokens
from segmentd.rpc.training_files import TrainingFiles
from segmentd.rpc.training_service import TrainingService
from segmentd.rpc.watch_service import WatchService
from segmentd.settings import ServerSettings
from segmentd.training_jobs.trainings import Trainings
from segmentd.v1 import (
    model_service_pb2_grpc,
    segmentation_service_pb2_grpc,
    server_service_pb2_grpc,
    training_service_pb2_grpc,
    watch_service_pb2_grpc,
)
from segmentd.watches import Watches

SERVICES = ("Model", "Watch", "Segmentation", "Server", "Training")
SERVICE_NAMES = tuple(f"segmentd.v1.{name}Service" for name in SERVICES)


class _LostReceivers(logging.Filter):
    """Drops what gRPC logs, with a traceback, when the receiver of a message has died: that is no error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be kept."""
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or kind.__name__ != "ExecuteBatchError"


_LOST_RECEIVERS = _LostReceivers()


class Server:
    """The gRPC face of the daemon.

    Parameters
    ----------
    engine, watches, journal, feed, trainings
        What the services serve.
    settings : ServerSettings
        Ways in, who may call what, largest message, folders that callers may name, reflection.

    Raises
    ------
    ConfigurationError
        The certificate or the token file cannot be used.
    """

    def __init__(
        self,
        engine: Engine,
        watches: Watches,
        journal: Journal,
        feed: Feed,
        trainings: Trainings,
        settings: ServerSettings,
    ) -> None:
        logging.getLogger("grpc._cython.cygrpc").addFilter(_LOST_RECEIVERS)
        self._entrances = Entrances(settings)
        tokens = None if settings.token_file is None else Tokens(settings.token_file)
        gate = Gate(tokens, settings.admin_over_network)
        self._grpc = grpc.aio.server(
            interceptors=[FaultInterceptor(), AccessInterceptor(gate)], options=limits(settings)
        )
        self._health = health.aio.HealthServicer()
        self._segmentations = segmentations = SegmentationService(engine, watches, journal, feed)
        server = ServerService(engine, watches, journal, feed, lambda: segmentations.subscribers)
        models = ModelService(trainings.library, engine.lane, watches, trainings)
        files = TrainingFiles(trainings, settings.roots)
        training = TrainingService(trainings, files, models)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, self._grpc)
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(training, self._grpc)
        watch_service_pb2_grpc.add_WatchServiceServicer_to_server(WatchService(watches), self._grpc)
        segmentation_service_pb2_grpc.add_SegmentationServiceServicer_to_server(segmentations, self._grpc)
        server_service_pb2_grpc.add_ServerServiceServicer_to_server(server, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if settings.reflection:
            names = (*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._grpc)

    async def start(self) -> str:
        """Bind and serve; returns the address with the real port.

        Raises
        ------
        SegmentdError
            LOCKED where the address or the socket is taken.
        """
        address = self._entrances.open(self._grpc)
        await self._grpc.start()
        return address

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks."""
        for name in ("", *SERVICE_NAMES):
            await self._tell(name, serving)

    async def set_healthy(self, healthy: bool) -> None:
        """Tell health checks of the whole daemon whether it does its work; the services answer meanwhile."""
        await self._tell("", healthy)

    async def _tell(self, name: str, well: bool) -> None:
        states = health_pb2.HealthCheckResponse
        await self._health.set(name, states.SERVING if well else states.NOT_SERVING)

    async def refuse(self) -> None:
        """The daemon stops: take no more planes of callers, tell health checks."""
        self._segmentations.refuse()
        await self.set_serving(False)

    async def finish(self) -> None:
        """Wait for the planes of callers that are in work."""
        await self._segmentations.finish()

    async def stop(self, grace_seconds: float) -> None:
        """End: calls in work have `grace_seconds` to finish."""
        self._segmentations.close()
        await self._grpc.stop(grace_seconds)
        self._entrances.close()
