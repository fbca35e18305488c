"""Stubs of the Open Inference Protocol, generated from `proto/segmentd/oip` when the package is built.

A process that has them cannot import `tritonclient` too, nor the other way round: both register the
messages of the protocol's own package, `inference`.
"""
