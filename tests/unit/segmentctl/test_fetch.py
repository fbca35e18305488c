"""Files over the network: from a real server on the loopback interface."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.request import Request

import pytest

from segmentctl.fetch import FetchError, Redirects, fetch

DATA = bytes(range(256)) * 9000  # more than one piece
SHA256 = hashlib.sha256(DATA).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    redirects: ClassVar[dict[str, str]] = {
        "/file": "file:///etc/hostname",
        "/ftp": "ftp://127.0.0.1/a",
        "/moved": "/models/a.czann",
    }

    def do_GET(self) -> None:
        target = self.redirects.get(self.path)
        if target is not None:
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
        elif self.path == "/models/a.czann":
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA)
        elif self.path == "/unsized":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(DATA)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Tests say nothing on stderr."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("path", ["/models/a.czann", "/moved", "/unsized"])
def test_the_right_file_comes(server: str, path: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = fetch(
        server + path, SHA256.upper(), tmp_path, allow_http=True, on_bytes=lambda *done: seen.append(done)
    )
    assert found.name == path.rpartition("/")[2]
    assert found.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))


@pytest.mark.parametrize(
    ("path", "sha256", "limit", "said"),
    [
        ("/models/a.czann", "0" * 64, 1 << 30, "not the one that was given"),
        ("/models/a.czann", SHA256[:-1], 1 << 30, "no SHA-256"),
        ("/models/a.czann", SHA256, len(DATA) - 1, "more than"),
        ("/unsized", SHA256, len(DATA) - 1, "more than"),
        ("/missing", SHA256, 1 << 30, "404"),
        ("/file", SHA256, 1 << 30, "not allowed"),
        ("/ftp", SHA256, 1 << 30, "only https and http"),
    ],
)
def test_nothing_is_left_of_another_file(
    server: str, path: str, sha256: str, limit: int, said: str, tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match=said):
        fetch(server + path, sha256, tmp_path, allow_http=True, max_bytes=limit)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a", "file:///etc/hostname", "ftp://127.0.0.1/a", "a.czann"]
)
def test_only_https_unless_asked_for(url: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="only https addresses"):
        fetch(url, SHA256, tmp_path)


def test_a_redirect_from_https_to_http_is_refused() -> None:
    source, target = Request("https://example.org/a.czann"), "http://example.org/a.czann"
    with pytest.raises(FetchError, match="only https addresses"):
        Redirects(("https",)).redirect_request(source, io.BytesIO(), 302, "", HTTPMessage(), target)
    followed = Redirects(("https", "http")).redirect_request(
        source, io.BytesIO(), 302, "", HTTPMessage(), target
    )
    assert followed is not None
    assert followed.full_url == target


@pytest.mark.parametrize("path", ["/..", "/%2e%2e", "/", "/a%2F..%2Fb%00", "/.hidden"])
def test_names_of_urls_do_not_lead_out_of_the_folder(server: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="404"):
        fetch(server + path, SHA256, tmp_path, allow_http=True)
    assert list(tmp_path.iterdir()) == []


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="cannot be fetched"):
        fetch("https://127.0.0.1:9/a.czann", SHA256, tmp_path, timeout=5)
