"""Planes to segmentations: who may compute when, on which device, and how a plane is computed."""
