"""Log lines on stderr: `key=value` pairs for people, JSON for machines.

Whatever varies is a field, never part of the message, and no file name can break the line or the terminal:

    time=2026-01-31T12:00:00.000+00:00 level=warning logger=segmentd.ingest msg="folder unreachable" ...
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

from segmentd.errors import ConfigurationError

LEVELS = ("debug", "info", "warning", "error")
LEVEL_VARIABLE = "SEGMENTD_LOG"
FORMATS = ("auto", "text", "json")
FORMAT_VARIABLE = "SEGMENTD_LOG_FORMAT"
# systemd sets it to device and inode of what it connected stdout or stderr to.
JOURNAL_VARIABLE = "JOURNAL_STREAM"
_STANDARD_ARGUMENTS = {"exc_info", "stack_info", "stacklevel", "extra"}
_NEEDS_QUOTES = frozenset(' "=\\')


class Logger(logging.LoggerAdapter[logging.Logger]):
    """A standard logger whose calls take fields as keyword arguments."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Move what `logging` does not know from the call into the record's fields."""
        fields = {key: value for key, value in kwargs.items() if key not in _STANDARD_ARGUMENTS}
        standard = {key: value for key, value in kwargs.items() if key in _STANDARD_ARGUMENTS}
        standard["extra"] = {**(standard.get("extra") or {}), "fields": fields}
        return msg, standard


def get_logger(name: str) -> Logger:
    """Return the logger of a module; `name` is its `__name__`."""
    return Logger(logging.getLogger(name), {})


class LineFormatter(logging.Formatter):
    """One line of `key=value` pairs for each record, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line without an end."""
        return " ".join(f"{key}={printable(value)}" for key, value in self._pairs(record).items())

    def _pairs(self, record: logging.LogRecord) -> dict[str, object]:
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        pairs: dict[str, object] = {
            "time": stamp,
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        pairs = {**pairs, **getattr(record, "fields", {}), **pairs}  # a field never replaces one of these
        if record.exc_info:
            pairs["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            pairs["stack"] = record.stack_info
        return pairs


class JsonFormatter(LineFormatter):
    """One JSON object for each record, in ASCII: whatever is not, comes out as an escape."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line without an end."""
        return json.dumps({key: _plain(value) for key, value in self._pairs(record).items()})


def printable(value: object) -> str:
    """Return a value for a log line: quoted where needed, nothing in it that a terminal acts on.

    Bytes are taken as a file name. Control characters, bytes that are not UTF-8 and characters
    that change the direction of text come out as escapes.
    """
    if isinstance(value, float):
        return f"{round(value, 6)}"
    text = os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)
    if text.isprintable() and text and not _NEEDS_QUOTES.intersection(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)


def _plain(value: object) -> object:
    """Return a value as JSON has it; text is valid Unicode, with escapes for bytes that are not."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes | os.PathLike):
        return os.fsencode(value).decode("utf-8", "backslashreplace")
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


class _StderrHandler(logging.StreamHandler[Any]):
    """Ours, so that a second `configure` finds and replaces it."""


def configure(level: str | None = None, form: str | None = None) -> None:
    """Send log lines to stderr; may be called again.

    Parameters
    ----------
    level : str, optional
        `debug`, `info`, `warning` or `error`, for our own modules; of other packages only warnings
        and errors are shown. Without it the environment variable SEGMENTD_LOG counts, else `info`.
    form : str, optional
        `text`, `json`, or `auto`: JSON where stderr is the journal of systemd, else text. Without it the
        environment variable SEGMENTD_LOG_FORMAT counts, else `auto`.

    Raises
    ------
    ConfigurationError
        If level or form is none of these.
    """
    wanted = _chosen("log level", level, LEVEL_VARIABLE, "info", LEVELS)
    as_json = _chosen("log format", form, FORMAT_VARIABLE, "auto", FORMATS)
    if as_json == "auto":
        as_json = "json" if _is_journal(sys.stderr) else "text"
    handler = _StderrHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json == "json" else LineFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _StderrHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger("segmentd").setLevel(wanted.upper())
    logging.captureWarnings(True)


def _chosen(name: str, given: str | None, variable: str, default: str, allowed: tuple[str, ...]) -> str:
    wanted = given if given is not None else os.environ.get(variable) or default
    if wanted.lower() not in allowed:
        name = variable if given is None else name
        raise ConfigurationError([f"{name} = {json.dumps(wanted)}: must be one of {', '.join(allowed)}"])
    return wanted.lower()


def _is_journal(stream: TextIO) -> bool:
    """Return whether what is written to a stream goes to the journal of systemd."""
    told = os.environ.get(JOURNAL_VARIABLE, "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # not a file, or closed
        return False
    return told == f"{status.st_dev}:{status.st_ino}"
