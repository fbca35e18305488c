"""The one exception that scripts catch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segmentctl.errors import DaemonError
from segmentd.imagefile import SegmentdError


class ApplicationException(Exception):  # noqa: N818 (the original's name)
    """Something could not be done.

    Attributes
    ----------
    Message : str
        What is wrong and what to do.
    Reason : str
        Stable name of the cause, such as `MODEL_NOT_FOUND`.
    """

    def __init__(self, message: str, reason: str = "BAD_FIELD") -> None:
        super().__init__(message)
        self.Message = message
        self.Reason = reason


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the daemon, files and values do wrong inside the block into `ApplicationException`."""
    try:
        yield
    except (DaemonError, SegmentdError) as error:
        raise ApplicationException(str(error), str(error.reason)) from error
    except (OSError, ValueError) as error:
        raise ApplicationException(str(error)) from error
