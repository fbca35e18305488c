"""napari plugin: follow the live feed as label layers, segment the layer that one looks at (extra `napari`).

`layers` and `session` know nothing of Qt and need no napari; `widget` does.
"""
