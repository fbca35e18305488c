"""Options of the commands: what several have in common, and comma separated values."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

FEATURE_SETS = ("basic25", "basic33")
DEEP_FEATURE_SETS = ("deep64", "deep128", "deep256", "deep50", "deep70")
DEVICES = ("cpu", "auto", "cuda")
MOST_THREADS = 1024
ALL, AUTO = "all", "auto"

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else; progress on stderr.")
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw the result as a picture.")]
Repeats = Annotated[int, typer.Option(min=1, max=1000, help="How often each figure is measured, warm.")]
OneFeatureSet = Annotated[str, typer.Option(help="Feature set of the model: basic25 or basic33.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=MOST_THREADS, help="Threads that compute; default: all cores.")
]
Device = Annotated[str, typer.Option(help="cpu or auto (cards are measured by `throughput` only).")]
AtOnce = Annotated[
    int,
    typer.Option(
        min=1, max=64, help="Planes in work at the same time; small ones share the batches of a device."
    ),
]
Limit = Annotated[float, typer.Option(min=1, max=86_400, help="Give up after so many seconds.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        exists=True,
        file_okay=False,
        writable=True,
        help="Put the daemon's temporary folders here: name the disk that your images go to.",
    ),
]


def file(metavar: str, text: str) -> Any:
    """An option that names a file which must exist."""
    return typer.Option(metavar=metavar, exists=True, dir_okay=False, help=text)


def refused(option: str, message: str) -> typer.BadParameter:
    """What a command raises when an option makes no sense: ends it with exit code 2."""
    return typer.BadParameter(message, param_hint=option)


def choices(option: str, text: str, allowed: Collection[str]) -> list[str]:
    """Comma separated words, each one of `allowed`."""
    words = text.split(",")
    for word in words:
        if word not in allowed:
            raise refused(option, f"'{word}' must be one of {', '.join(allowed)}")
    return words


def choice(option: str, text: str, allowed: Collection[str]) -> str:
    """One of `allowed`."""
    if text not in allowed:
        raise refused(option, f"'{text}' must be one of {', '.join(allowed)}")
    return text


def numbers(option: str, text: str, low: int, high: int) -> list[int]:
    """Comma separated whole numbers between `low` and `high`."""
    return [_number(option, word, low, high) for word in text.split(",")]


def tiles(text: str) -> list[int | None]:
    """Comma separated tile edges; None for `auto`."""
    return [None if word == AUTO else _number("--tile", word, 16, 16_384) for word in text.split(",")]


def threads(text: str) -> list[int]:
    """Comma separated numbers of threads, or `all` cores."""
    from segmentd.settings.values import usable_cores

    words = (str(usable_cores()) if word == ALL else word for word in text.split(","))
    return [_number("--threads", word, 1, MOST_THREADS) for word in words]


def check_device(device: str) -> None:
    """Cards are not measured under load."""
    if choice("--device", device, DEVICES) == "cuda":
        raise refused("--device", "cuda is measured by `segmentd-bench throughput` only; use cpu")


def check_plot(path: Path | None) -> None:
    """A picture that could not be written must not cost a whole run."""
    if path is not None and path.suffix.lower() != ".png":
        raise refused("--plot", f"{path} must end in .png")
    if path is not None and not path.absolute().parent.is_dir():
        raise refused("--plot", f"the folder of {path} does not exist")


def _number(option: str, word: str, low: int, high: int) -> int:
    if not (word.isascii() and word.isdigit() and low <= int(word) <= high):
        raise refused(option, f"'{word}' must be a whole number from {low} to {high}")
    return int(word)
