"""Files from the network, on request: over https, of limited size, and only with the right checksum."""

from __future__ import annotations

import hashlib
import re
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from segmentctl.transfer import CHUNK_BYTES, OnBytes

MAX_BYTES = 2 << 30
"""Largest file; the daemon takes no larger model."""

_NOT_IN_NAMES = re.compile(r"[^\w.-]")
_SHA256 = re.compile("[0-9a-fA-F]{64}")


class FetchError(Exception):
    """A file was not fetched; nothing of it is left."""


def fetch(
    url: str,
    sha256: str,
    folder: Path,
    *,
    allow_http: bool = False,
    max_bytes: int = MAX_BYTES,
    timeout: float = 60.0,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Download a file; it is there only when its checksum is right.

    Parameters
    ----------
    url : str
        Where it is; https, also after redirects.
    sha256 : str
        The SHA-256 that it must have, in hex.
    folder : Path
        Where to put it, under its name in the URL.
    allow_http : bool
        Also without encryption. The checksum still tells whether it is the right file.
    max_bytes : int
        Give up beyond this size.
    timeout : float
        Longest silence of the server in seconds.
    on_bytes : callable
        Called with the number of bytes that came and in all.

    Raises
    ------
    FetchError
        A URL or checksum that is none, no answer, a file that is too large or another one.
    """
    if not _SHA256.fullmatch(sha256):
        raise FetchError(f"'{sha256}' is no SHA-256: 64 digits 0 to 9, a to f")
    schemes = ("https", "http") if allow_http else ("https",)
    _check_scheme(url, schemes)
    path = folder / _file_name(url)
    try:
        with _opener(schemes).open(Request(url), timeout=timeout) as answer, path.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            digest = _copy(answer, file, total, max_bytes, on_bytes)
        if digest != sha256.lower():
            raise FetchError(
                f"{url}: its SHA-256 is {digest}, not the one that was given. Do not use it; look up the "
                "checksum where it is published"
            )
    except FetchError:
        path.unlink(missing_ok=True)
        raise
    except (OSError, HTTPException, ValueError) as error:
        path.unlink(missing_ok=True)
        raise FetchError(f"{url}: cannot be fetched: {error}") from error
    return path


def _copy(source: IO[bytes], target: IO[bytes], total: int, max_bytes: int, on_bytes: OnBytes | None) -> str:
    digest, done = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        done += len(chunk)
        if max(done, total) > max_bytes:
            raise FetchError(f"the file has more than {max_bytes:,} bytes; that is no model")
        target.write(chunk)
        digest.update(chunk)
        if on_bytes is not None:
            on_bytes(done, total or done)
    return digest.hexdigest()


def _file_name(url: str) -> str:
    last = unquote(urlsplit(url).path).rpartition("/")[2]
    return _NOT_IN_NAMES.sub("_", last).lstrip(".") or "model"


def _check_scheme(url: str, schemes: tuple[str, ...]) -> None:
    if urlsplit(url).scheme.lower() not in schemes:
        raise FetchError(f"{url}: only {' and '.join(schemes)} addresses are fetched (see --allow-http)")


class Redirects(HTTPRedirectHandler):
    """Follows redirects, but not to where the user would not have gone."""

    def __init__(self, schemes: tuple[str, ...]) -> None:
        self._schemes = schemes

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Give the request for the new place, or refuse it."""
        _check_scheme(newurl, self._schemes)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(schemes: tuple[str, ...]) -> OpenerDirector:
    return build_opener(Redirects(schemes))
