"""Files of VGG19 weights as Keras writes them, with random numbers; needs TensorFlow."""

from __future__ import annotations

import warnings
from pathlib import Path


def write(folder: Path) -> dict[str, Path]:
    """Save the same weights as weights alone (Keras 3) and as a whole model (the older form)."""
    import keras

    keras.utils.set_random_seed(5)
    network = keras.applications.VGG19(include_top=False, weights=None)
    for layer in network.layers:
        if layer.weights:  # so that layers neither fade nor die
            layer.kernel.assign(keras.initializers.HeNormal(seed=len(layer.name))(layer.kernel.shape))
    paths = {"weights": folder / "vgg19.weights.h5", "model": folder / "vgg19.h5"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras about numpy, and about its own older form
        network.save_weights(paths["weights"])
        network.save(paths["model"])
    return paths
