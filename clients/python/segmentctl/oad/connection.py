"""The daemon that a script talks to."""

from __future__ import annotations

import os

from segmentctl.client import Client
from segmentctl.resources import DEFAULT_ADDRESS

ADDRESS_VARIABLES = ("SEGMENTD_ADDRESS", "SEGMENTCTL_ADDRESS")

_current: Client | None = None


def connect(address: str = "") -> None:
    """Choose the daemon; the connection before is closed.

    Parameters
    ----------
    address : str
        `HOST:PORT`, or `unix:PATH` for a Unix socket; by default what the environment says in
        SEGMENTD_ADDRESS or SEGMENTCTL_ADDRESS, else 127.0.0.1:50051.
    """
    global _current
    if _current is not None:
        _current.close()
    named = (os.environ.get(variable, "") for variable in ADDRESS_VARIABLES)
    _current = Client(address or next(filter(None, named), DEFAULT_ADDRESS))


def client() -> Client:
    """Give the connection; made with the address of the environment where there is none yet."""
    if _current is None:
        connect()
    assert _current is not None
    return _current
