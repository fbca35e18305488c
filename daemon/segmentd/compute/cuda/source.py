"""The text of the CUDA kernels, and how it is compiled."""

from __future__ import annotations

from importlib.resources import files

KERNELS = ("prepare", "along_x", "along_y", "along_y_onto", "sobel", "classify", "score")
# No multiply and add in one rounding but where the text says so; sums keep their order.
OPTIONS = ("--std=c++17", "--fmad=false", "--prec-sqrt=true", "--prec-div=true")


def source() -> str:
    """Arithmetic and kernels as one text, which includes nothing when it is compiled for a device."""
    folder = files("segmentd.compute.cuda")
    names = ("arithmetic.h", "kernels.cu")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
