"""A script as they are written for ZEN, with what had to change to run it against segmentd.

    segmentd run &                                   # or name another machine in SEGMENTD_ADDRESS
    python zen_script.py nuclei.segmodel Nuclei image.tif results

It imports a model if it is not there yet, lists what there is, segments an image in both formats, applies a
threshold to the confidence, adds a class to the image, and trains the model again with other features.
"""

from __future__ import annotations

import sys
from pathlib import Path

# CHANGED: ZEN defines these names for its scripts; here they are imported.
from segmentctl.oad import ApplicationException, Zen, ZenIntellesis, ZenSegmentationFormat

# CHANGED: Path is that of pathlib, not of .NET (`from System.IO import Path`).
modelfile, modelname, imagefile, resultfolder = sys.argv[1:]

Zen.Application.MacroEditor.ClearMessages()


def find_model(name):
    """Find a model by its name; None where there is none."""
    for model in ZenIntellesis.ListAvailableSegmentationModels():
        if model.Name == name:
            return model
    return None


def classify(image, model, threshold):
    """Segment an image; pixels that the model is less sure of than the threshold in percent become 0."""
    try:
        outputs = Zen.Processing.Segmentation.TrainableSegmentationWithProbabilityMap(
            image, model, ZenSegmentationFormat.MultiChannel
        )
        segmented = Zen.Processing.Segmentation.MinimumConfidence(outputs[0], outputs[1], threshold)
        outputs[1].Close()
        return segmented
    except ApplicationException as e:
        # CHANGED: print is a function in Python 3.
        print("Application Exception :", e.Message)
        raise SystemExit(1) from e


# Models: import, list, look at.
model = find_model(modelname)
if model is None:
    model = ZenIntellesis.ImportModel(modelfile, False)
print("Model      :", model.Name, "-", model.Status)
for training_image in model.TrainingImages:
    print("Trained on :", training_image)
for feature_set in ZenIntellesis.GetAvailableFeatureSets():
    print("Features   :", feature_set)
for post_processing in ZenIntellesis.GetAvailablePostProcessings():
    print("Afterwards :", post_processing)

# Load and segment. Nothing is shown on a screen: documents are a list here.
image = Zen.Application.LoadImage(imagefile, False)
Zen.Application.Documents.Add(image)
print("Image      :", image.Bounds.SizeX, "x", image.Bounds.SizeY, image.Metadata.PixelType)

labels = Zen.Processing.Segmentation.TrainableSegmentation(image, modelname, ZenSegmentationFormat.Labels)
labels.Name = "Labels"
Zen.Application.Documents.Add(labels)

# The second class of what the model is sure of, as another channel of the image.
sure = classify(image, modelname, 80)
second_class = Zen.Processing.Utilities.CreateSubset(sure, "C(2)", False)
second_class = Zen.Processing.Utilities.ChangePixelType(second_class, image.Metadata.PixelType)
both = Zen.Processing.Utilities.AddChannels(image, second_class)

# CHANGED: results are saved as OME-TIFF, not as CZI.
labels.Save(Path(resultfolder) / "labels.ome.tif")
Zen.Application.Save(sure, Path(resultfolder) / "sure.ome.tif", False)
Zen.Application.Save(both, Path(resultfolder) / "both.ome.tif", False)

# Train a copy with other features, look at what it does, and remove it again.
copy = model.TrainCopy(
    "(temp) Basic Features 33", featureSet="Basic Features 33", postProcessing="No Postprocessing"
)
try:
    result = copy.Segment(image, ZenSegmentationFormat.Labels)
    result[0].Save(Path(resultfolder) / "copy.ome.tif")
    result[0].Close()
    result[1].Close()
finally:
    copy.Delete()

print("Done.")
