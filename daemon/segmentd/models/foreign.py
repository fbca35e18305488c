"""Tells files of other makers apart by their content, and refuses those that could run code when loaded."""

from __future__ import annotations

from collections.abc import Mapping

ONNX = "onnx"
ZIP = "zip"
_RETRAIN = "train a forest here from the same images and labels"
_CONVERT = "convert the network to ONNX and import that"
# First bytes, what the file is, what to do instead.
_MAGIC = (
    (b"\x80", "is a pickle (joblib, PyTorch or scikit-learn), which runs code when it is loaded", _RETRAIN),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file (Keras or ilastik)", f"{_CONVERT}; of ilastik: {_RETRAIN}"),
    (b"\x1f\x8b", "is compressed with gzip", "unpack it and import what is in it"),
    (b"\x78\x9c", "is compressed by joblib, which runs code when it is loaded", _RETRAIN),
    (b"ORTM", "was compiled for one version of onnxruntime", "import the ONNX file that it was made of"),
    (b"TFL3", "is a TensorFlow Lite model", _CONVERT),
    (b"\x7fELF", "is a program", "import a model file"),
    (b"MZ", "is a program", "import a model file"),
    (b"#!", "is a program", "import a model file"),
)
# Members of an archive, by their end.
_INSIDE = (
    ("saved_model.pb", "holds a TensorFlow SavedModel", _CONVERT),
    (".pkl", "holds pickles (PyTorch or skops), which run code when they are loaded", _CONVERT),
    (".h5", "holds a Keras model, which can run code when it is loaded", _CONVERT),
    ("schema.json", "is a skops file, whose loader can be made to run code", _RETRAIN),
    ("MAR-INF/MANIFEST.json", "is a TorchServe archive, which holds code", _CONVERT),
    (".py", "holds Python code", "import a model file"),
)


def kind_of(data: bytes) -> str:
    """`ZIP` or `ONNX`, by the first bytes.

    Raises
    ------
    ValueError
        Saying what the file is instead and what to do.
    """
    if data.startswith(b"PK\x03\x04"):
        return ZIP
    for magic, what, advice in _MAGIC:
        if data.startswith(magic):
            raise ValueError(f"it {what}; {advice}")
    if data[257:262] == b"ustar":
        raise ValueError("it is a tar archive; unpack it and import what is in it")
    if data[:1] == b"\x08":  # ir_version, the first field of every ONNX file
        return ONNX
    if _is_text(data[:4096]):
        raise ValueError("it is text (a program, or settings); import a model file")
    raise ValueError("it is no kind of model file that is known; import .segmodel, .czann, .czseg or .onnx")


def refuse_by_members(names: Mapping[str, bytes]) -> None:
    """ValueError for an archive of a kind that is not read, saying what to do."""
    for ending, what, advice in _INSIDE:
        if any(name.endswith(ending) for name in names):
            raise ValueError(f"it {what}; {advice}")


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and error.start > 0
    return bool(text) and all(char.isprintable() or char.isspace() for char in text)
