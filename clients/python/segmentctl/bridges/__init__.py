"""Bridges: pixels of a running acquisition go to segmentd, labels come back while it runs.

`segmentctl.bridges.submitter` sends frames of any program, `segmentctl.bridges.pymmcore` those of
pymmcore-plus, `segmentctl.bridges.zen` those of ZEN.
"""
