"""Kinds of values in the configuration that have a rule of their own."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

# Model files: our own form, and packages of networks that are read as they are.
MODEL_SUFFIXES = (".segmodel", ".czann", ".czseg", ".czmodel", ".onnx")
MOVE = "move:"
UNLIMITED = 1 << 62
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MEMORY = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,3})?) ?(?P<unit>%|KiB|MiB|GiB)", re.ASCII)
_SLUG = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_LISTEN = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:\[\]\s]+)):(?P<port>\d{1,5})", re.ASCII)


def broken(rule: str) -> PydanticCustomError:
    """Make the error that says which rule a value breaks."""
    return PydanticCustomError("rule", "{rule}", {"rule": rule})


def _check_slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise broken(
            "must be 1 to 63 lower-case letters, digits and hyphens, "
            "start with a letter and not end with a hyphen"
        )
    return value


def _resolve_after(value: Any, info: ValidationInfo) -> Any:
    """The folder in `move:DIR` is meant from the configuration's folder."""
    if value == "keep":
        return value
    if not isinstance(value, str) or not value.startswith(MOVE):
        raise broken('must be "keep" or "move:DIR"')
    return f"{MOVE}{_make_absolute(value.removeprefix(MOVE), info)}"


def _check_relative(value: str) -> str:
    parts = value.split("/")
    if "\0" in value or not all(parts) or {".", ".."} & {*parts}:
        raise broken("must be the path of a file in the watched folder, relative to it")
    return value


def check_confidence(value: str, info: ValidationInfo) -> str:
    """Marginals are what a conditional random field gives; the model's own confidence has another name."""
    if value == "marginal" and info.data.get("postprocessing", "crf") != "crf":
        raise broken('needs postprocessing = "crf"')
    return value


def check_with_image(value: bool, info: ValidationInfo) -> bool:
    """The image goes into the file of the classes."""
    if value and "classes" not in info.data.get("outputs", ("classes",)):
        raise broken('needs "classes" among the outputs')
    return value


_FORMAT_PACKAGES = {"ome-zarr": ("zarr", "zarr"), "czi": ("czi", "pylibCZIrw")}


def check_results_format(value: str) -> str:
    """What writes a format must be installed; nothing is imported for that."""
    extra, package = _FORMAT_PACKAGES.get(value, ("", ""))
    if package and importlib.util.find_spec(package) is None:
        raise broken(f'needs the package {package}, which is not installed: pip install "segmentd[{extra}]"')
    return value


def check_compression(value: str | None, info: ValidationInfo) -> str | None:
    """Not every format has every compression."""
    if value == "deflate" and info.data.get("results_format") == "czi":
        raise broken('must be "zstd" where results_format is "czi"')
    return value


def split_listen(listen: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[IPV6]:PORT` into host and port."""
    match = _LISTEN.fullmatch(listen)
    if match is None or int(match["port"]) > 65_535:
        raise broken("must be HOST:PORT, with a port from 0 to 65535 (0 lets the system choose)")
    return match["v6"] or match["host"], int(match["port"])


def _check_listen(value: str) -> str:
    if value:
        split_listen(value)
    return value


def _make_absolute(value: Any, info: ValidationInfo) -> Path:
    """Expand `~` and resolve against the context's `base`; symbolic links stay as written.

    A base of None takes absolute paths only: what `~` or a relative path means is the caller's, not ours.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise broken("must be a path: a text that is not empty")
    base = (info.context or {}).get("base", Path.cwd())
    if base is None:
        if not value.startswith("/"):
            raise broken("must be an absolute path")
        return Path(os.path.normpath(value))
    try:
        return Path(os.path.normpath(base / Path(value).expanduser()))
    except RuntimeError:
        raise broken("must not start with ~ and the name of a user without a home folder") from None


def _resolve_model(value: Any, info: ValidationInfo) -> Any:
    """A model named by its file is meant from the configuration's folder; a name stays a name."""
    if isinstance(value, str) and value.endswith(MODEL_SUFFIXES):
        return str(_make_absolute(value, info))
    return value


def _check_require_gpu(value: bool, info: ValidationInfo) -> bool:
    if value and info.data.get("prefer") == "cpu":
        raise broken('must be false where prefer is "cpu"')
    return value


def memory_bytes(text: str, free: int | None) -> int:
    """What a memory budget comes to, in bytes.

    Parameters
    ----------
    text : str
        A size (`512MiB`, `4GiB`, `1.5GiB`), or a share of what is free (`50%`).
    free : int or None
        What is free; a share of what nobody knows is no limit.
    """
    match = _MEMORY.fullmatch(text)
    number, unit = (float(match["number"]), match["unit"]) if match else (0.0, "")
    if not number or (unit == "%" and number > 100):
        raise broken('must be a size such as "512MiB" or "4GiB", or a share of what is free such as "50%"')
    if unit != "%":
        return int(number * _UNITS[unit])
    return UNLIMITED if free is None else max(0, int(number / 100 * free))


def _check_memory(value: str) -> str:
    memory_bytes(value, None)
    return value


def data_home() -> Path:
    """Return the daemon's folder in the user's data folder (XDG base directories)."""
    named = Path(os.environ.get("XDG_DATA_HOME", ""))
    home = named if named.is_absolute() else Path.home() / ".local" / "share"
    return home / "segmentd"


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


Memory = Annotated[str, AfterValidator(_check_memory)]
Slug = Annotated[str, AfterValidator(_check_slug)]
RelativePath = Annotated[str, AfterValidator(_check_relative)]
After = Annotated[str, BeforeValidator(_resolve_after)]
Listen = Annotated[str, AfterValidator(_check_listen)]
RequireGpu = Annotated[bool, AfterValidator(_check_require_gpu)]
ModelReference = Annotated[str, Field(min_length=1), BeforeValidator(_resolve_model)]
AbsolutePath = Annotated[Path, BeforeValidator(_make_absolute)]
