"""CUDA source of the features and the forest; see `source`."""
