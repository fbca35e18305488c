"""`ZenIntellesis`: models, feature sets and post-processings of the daemon."""

from __future__ import annotations

import secrets
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from segmentctl.errors import DaemonError
from segmentctl.oad import names
from segmentctl.oad.connection import client
from segmentctl.oad.errors import ApplicationException, translated
from segmentctl.oad.image import Pixels, ZenImage
from segmentctl.oad.segmentation import ZenSegmentationFormat, segmented
from segmentd.v1 import model_service_pb2 as messages

if TYPE_CHECKING:
    from segmentctl.client import Client


class ZenIntellesisModel:
    """A model of the daemon, as it was when it was asked for.

    Attributes
    ----------
    Name, Description : str
        For people.
    Id : str
        Its id at the daemon; unique, which `Name` need not be.
    """

    def __init__(self, model: messages.Model, *, copied_training: str = "") -> None:
        self._model = model
        self._copied_training = copied_training
        self.Id = model.name.rpartition("/")[2]
        self.Name = model.display_name
        self.Description = model.description

    def __repr__(self) -> str:
        return f"<ZenIntellesisModel {self.Name!r}: {self.Status}>"

    @property
    def Status(self) -> str:
        """`Trained`, or `Failed` with the reason."""
        if self._model.state == messages.Model.STATE_FAILED:
            return f"Failed: {self._model.state_reason}"
        return "Trained"

    @property
    def FeatureSet(self) -> str:
        """Name of the feature set; of a network `DeepNeuralNetwork`."""
        return names.shown_feature_set(self._model.feature_set) or "DeepNeuralNetwork"

    @property
    def PostProcessing(self) -> str:
        """Name of the post-processing."""
        return names.shown_postprocessing(self._model.postprocessing)

    @property
    def ClassNames(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        return [entry.display_name for entry in self._model.classes]

    @property
    def TrainingImages(self) -> list[str]:
        """File names of the images that it was trained on; empty where the daemon does not have them."""
        if not self._model.training:
            return []
        with translated():
            return [image.display_name for image in client().training(self._model.training).images]

    def TrainCopy(self, newName: str, featureSet: str = "", postProcessing: str = "") -> ZenIntellesisModel:
        """Train a new model from the same images and labels.

        Parameters
        ----------
        newName : str
            Its name.
        featureSet, postProcessing : str
            Of `GetAvailableFeatureSets` and `GetAvailablePostProcessings`; by default those of this model.

        Raises
        ------
        ApplicationException
            If there is a model of that name already, or the daemon has no images and labels of this one.
        """
        with translated():
            _refuse_taken(client(), newName)
            training = client().create_training(
                newName,
                training_id=f"copy-{secrets.token_hex(6)}",  # the daemon keeps those of deleted models
                source=self._model.name,
                feature_set=names.feature_set(featureSet),
                postprocessing=names.postprocessing(postProcessing),
            )
            try:
                client().run_training(training.name)
                model = client().save_training_model(training.name)
            except BaseException:
                client().delete_training(training.name)
                raise
        return ZenIntellesisModel(model, copied_training=training.name)

    def Segment(
        self,
        image: ZenImage | Pixels | str | PathLike[str],
        segmentationFormat: ZenSegmentationFormat = ZenSegmentationFormat.MultiChannel,
    ) -> list[ZenImage]:
        """Segment an image; gives the segmented image and the confidence map in percent."""
        return segmented(image, self, segmentationFormat)

    def Delete(self) -> None:
        """Take it out of the models; `segmentctl models rollback` brings it back.

        What `TrainCopy` made goes for good, with its copy of images and labels.
        """
        with translated():
            client().delete_model(self.Id, purge=bool(self._copied_training))
            if self._copied_training:
                client().delete_training(self._copied_training)


class ZenIntellesis:
    """Models, feature sets and post-processings."""

    @staticmethod
    def GetAvailableFeatureSets() -> list[str]:
        """Give the names of all feature sets, such as `Basic Features 25`."""
        with translated():
            return [names.shown_feature_set(entry.name) for entry in client().feature_sets()]

    @staticmethod
    def GetAvailablePostProcessings() -> list[str]:
        """Give the names of all post-processings: `No Postprocessing` and `Conditional Random Field`."""
        with translated():
            return [names.shown_postprocessing(entry.name) for entry in client().postprocessings()]

    @staticmethod
    def ImportModel(path: str | PathLike[str], allowOverwrite: bool = False) -> ZenIntellesisModel:
        """Take a model in: `.segmodel`, `.czann`, `.czseg`, `.czmodel`, or `.onnx` with a `.json` beside it.

        Parameters
        ----------
        path
            The file, on this machine.
        allowOverwrite : bool
            Make it a new version of the model that is there already. Otherwise that is refused.
        """
        with translated():
            return ZenIntellesisModel(client().import_model(Path(path), overwrite=allowOverwrite))

    @staticmethod
    def ListAvailableSegmentationModels() -> list[ZenIntellesisModel]:
        """Give all models."""
        with translated():
            return [ZenIntellesisModel(model) for model in client().models()]


def _refuse_taken(daemon: Client, name: str) -> None:
    """Names need not be unique for the daemon, but scripts find models by them."""
    try:
        daemon.model(name)
    except DaemonError as error:
        if error.reason == "MODEL_NOT_FOUND":
            return
        raise
    raise ApplicationException(
        f"there is a model '{name}' already; delete it or choose a name", "MODEL_EXISTS"
    )
