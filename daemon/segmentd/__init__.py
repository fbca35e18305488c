"""segmentd: segments microscope images as they arrive. `daemon/README.md` is the map of the code."""

__version__ = "0.1.0"
