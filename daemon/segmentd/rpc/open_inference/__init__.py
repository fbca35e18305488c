"""The Open Inference Protocol, a second face of the same segmentation."""
