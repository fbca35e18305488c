"""Sockets: what a dead daemon left goes, a living one stays."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.process.socket_file import check_socket_free, private_sockets


def test_the_folder_is_made_for_us_and_our_group(tmp_path: Path) -> None:
    check_socket_free(tmp_path / "run" / "api.sock")
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o750
    with private_sockets(), socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "run" / "api.sock"))
    assert stat.S_IMODE((tmp_path / "run" / "api.sock").stat().st_mode) == 0o660


def test_a_stale_socket_goes_and_a_living_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        with pytest.raises(SegmentdError, match=f"in use by process {os.getpid()}") as refused:
            check_socket_free(path)
        assert refused.value.reason is Reason.LOCKED
        assert path.exists()
    check_socket_free(path)
    assert not path.exists()


def test_anything_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="there is something else"):
        check_socket_free(path)
    assert path.read_text() == "precious"
    with pytest.raises(ConfigurationError, match="at most 107 bytes"):
        check_socket_free(tmp_path / ("x" * 108))
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(ConfigurationError, match="every user may change"):
        check_socket_free(open_to_all / "api.sock")
