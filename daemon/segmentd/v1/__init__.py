"""Stubs of the API `segmentd.v1`, generated from `proto/segmentd/v1` when the package is built."""
