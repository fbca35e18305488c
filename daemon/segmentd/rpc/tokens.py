"""The token file: who may read, submit and administer.

A TOML file with a list of tokens for each scope, made at the first start:

    read = ["..."]
    submit = ["..."]
    admin = ["..."]

A scope includes those before it. Two tokens of a scope may be valid at once: to rotate, add the new one,
tell the clients, then delete the old one. The file is read again when it changes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import tomllib
from enum import IntEnum
from pathlib import Path

from segmentd import telemetry
from segmentd.errors import ConfigurationError
from segmentd.settings.problems import line

TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{32,512}=*")
_MOST_TOKENS = 2
_LARGEST_FILE = 64 << 10
_KEY = "server.token_file"
_HEAD = """\
# Tokens that clients of segmentd must send; keep this file to yourself (mode 0600).
# A scope includes those before it. To rotate, put a second token beside the first, tell the clients, delete
# the first; no restart is needed.
"""
_log = telemetry.get_logger(__name__)


class Scope(IntEnum):
    """What a token is good for; a scope includes the smaller ones."""

    READ = 1
    SUBMIT = 2
    ADMIN = 3


class Tokens:
    """The tokens of a file, and of what it holds after each change.

    Parameters
    ----------
    path : Path
        The file; made, with new tokens, if it is missing.

    Raises
    ------
    ConfigurationError
        The file cannot be made or read, is not ours alone, or is not as described above.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not os.path.lexists(path):
            _create(path)
        self._stamp = _stamp(path)
        self._digests = _read(path)

    def scope_of(self, token: str) -> Scope | None:
        """Return what a token is good for; None if it is none of ours.

        It is compared with every token in full, so that the time it takes tells nothing.
        """
        self._renew()
        digest = _digest(token)
        found = None
        for known, scope in self._digests:
            if hmac.compare_digest(known, digest):
                found = scope
        return found

    def _renew(self) -> None:
        """Read a file that has changed; while it is no good, the tokens before count."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._digests = _read(self._path)
        except ConfigurationError as error:
            _log.warning("tokens stay as they were", why=error.message)
        else:
            _log.info("tokens read again")


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _create(path: Path) -> None:
    lines = [f'{scope.name.lower()} = ["{secrets.token_urlsafe(TOKEN_BYTES)}"]\n' for scope in Scope]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(_HEAD + "".join(lines))
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise _unusable(path, f"cannot be made ({error.strerror}); name a file in a folder of ours") from None
    _log.info("tokens made", file=str(path))


def _read(path: Path) -> list[tuple[bytes, Scope]]:
    try:
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            raw = file.read(_LARGEST_FILE)
        table = tomllib.loads(raw.decode("ascii"))
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):  # whose texts may hold a part of a token
        raise _unusable(path, "must be TOML with lists of tokens: read, submit, admin") from None
    names = {scope.name.lower(): scope for scope in Scope}
    digests = []
    for name, tokens in table.items():
        if name not in names:
            raise _unusable(path, "must have no keys but read, submit and admin")
        if not isinstance(tokens, list) or len(tokens) > _MOST_TOKENS:
            raise _unusable(path, f"{name} must be a list of one or two tokens")
        for token in tokens:
            if not isinstance(token, str) or not _TOKEN.fullmatch(token):
                raise _unusable(path, f"{name}: a token must be 32 to 512 letters, digits or any of ._~+/-")
            digests.append((_digest(token), names[name]))
    if not digests:
        raise _unusable(path, "has no token; delete it, and the next start makes a new one")
    if len({digest for digest, _ in digests}) != len(digests):
        raise _unusable(path, "must not have the same token twice")
    return digests


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _unusable(path, "must be a file")
    # systemd lets its service read a credential through the group's bits
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    shared = 0o037 if credentials and path.parent == Path(credentials) else 0o077
    if status.st_mode & shared:
        rule = f"is open to other users (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 FILE,"
        raise _unusable(path, f"{rule} and replace its tokens if somebody may have read them")
    if status.st_uid not in (0, os.geteuid()):
        raise _unusable(path, "must belong to the user that segmentd runs as")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _unusable(path: Path, rule: str) -> ConfigurationError:
    return ConfigurationError([line(_KEY, path, rule)])
