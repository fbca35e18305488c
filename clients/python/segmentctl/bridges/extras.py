"""Packages that only one bridge needs: imported when it is used, with an error that says how to get them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def need(module: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Raises
    ------
    ImportError
        If it is not installed; it names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        message = f'{module} cannot be imported ({error}). Install it with: pip install "segmentd[{extra}]"'
        raise ImportError(message, name=module) from error
