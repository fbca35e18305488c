"""The error table: every fault the daemon reports has a stable reason and says what to do.

Nothing here knows gRPC or exit codes; `segmentd.rpc.faults` maps reasons to status codes and
`segmentd.cli` maps them to exit codes.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Stable, machine-readable cause of a fault (`google.rpc.ErrorInfo.reason` on the wire)."""

    # an image file
    IMAGE_INCOMPLETE = "IMAGE_INCOMPLETE"
    IMAGE_CORRUPT = "IMAGE_CORRUPT"
    IMAGE_UNSUPPORTED = "IMAGE_UNSUPPORTED"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    IMAGE_CHANGED = "IMAGE_CHANGED"
    IMAGE_VANISHED = "IMAGE_VANISHED"
    IMAGE_UNREADABLE = "IMAGE_UNREADABLE"
    # an image and a model that do not fit
    PIXEL_TYPE_MISMATCH = "PIXEL_TYPE_MISMATCH"
    CHANNEL_COUNT_MISMATCH = "CHANNEL_COUNT_MISMATCH"
    PIXEL_SIZE_MISMATCH = "PIXEL_SIZE_MISMATCH"
    # a worker process
    WORKER_CRASHED = "WORKER_CRASHED"
    WORKER_DEADLINE = "WORKER_DEADLINE"
    WORKER_MEMORY = "WORKER_MEMORY"
    # resources of the API
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    MODEL_AMBIGUOUS = "MODEL_AMBIGUOUS"
    MODEL_UNUSABLE = "MODEL_UNUSABLE"
    MODEL_IN_USE = "MODEL_IN_USE"
    MODEL_EXISTS = "MODEL_EXISTS"
    MODEL_TOO_LARGE = "MODEL_TOO_LARGE"
    WATCH_NOT_FOUND = "WATCH_NOT_FOUND"
    WATCH_EXISTS = "WATCH_EXISTS"
    WATCH_READ_ONLY = "WATCH_READ_ONLY"
    WATCH_CHANGED = "WATCH_CHANGED"
    SEGMENTATION_NOT_FOUND = "SEGMENTATION_NOT_FOUND"
    RESULT_UNAVAILABLE = "RESULT_UNAVAILABLE"
    BAD_FIELD = "BAD_FIELD"
    FOLDER_OUTSIDE_ROOTS = "FOLDER_OUTSIDE_ROOTS"
    FOLDER_UNREACHABLE = "FOLDER_UNREACHABLE"
    PLANE_TOO_LARGE = "PLANE_TOO_LARGE"
    DEVICE_BUSY = "DEVICE_BUSY"
    DEVICE_UNAVAILABLE = "DEVICE_UNAVAILABLE"
    # subscriptions
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    CURSOR_UNKNOWN = "CURSOR_UNKNOWN"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    # who calls
    UNAUTHENTICATED = "UNAUTHENTICATED"
    NOT_ALLOWED = "NOT_ALLOWED"
    # the daemon's own state
    RESULTS_NOT_WRITABLE = "RESULTS_NOT_WRITABLE"
    DISK_FULL = "DISK_FULL"
    JOURNAL_DAMAGED = "JOURNAL_DAMAGED"
    JOURNAL_NEWER = "JOURNAL_NEWER"
    JOURNAL_NOT_WRITABLE = "JOURNAL_NOT_WRITABLE"
    LOCKED = "LOCKED"
    BAD_CONFIGURATION = "BAD_CONFIGURATION"
    # training and installation
    BAD_TRAINING_DATA = "BAD_TRAINING_DATA"
    TRAINING_NOT_FOUND = "TRAINING_NOT_FOUND"
    TRAINING_EXISTS = "TRAINING_EXISTS"
    TRAINING_RUNNING = "TRAINING_RUNNING"
    TRAINING_CANCELLED = "TRAINING_CANCELLED"
    NOT_TRAINED = "NOT_TRAINED"
    MISSING_EXTRA = "MISSING_EXTRA"
    INTERNAL = "INTERNAL"


class SegmentdError(Exception):
    """A fault with a stable reason and a sentence that says what is wrong and what to do.

    Parameters
    ----------
    reason : Reason
        The stable cause.
    message : str
        One or two sentences: what is wrong, with which file or field, and what to do.
    **metadata : str
        Whatever varies in the message, for programs (`ErrorInfo.metadata` on the wire). The key
        `field` names the request field or configuration key at fault.
    """

    def __init__(self, reason: Reason, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata

    def __str__(self) -> str:
        return self.message


class ConfigurationError(SegmentdError):
    """One or more faults of a configuration; `problems` has a line for each (key, value, rule)."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(Reason.BAD_CONFIGURATION, "\n".join(problems))
        self.problems = problems
