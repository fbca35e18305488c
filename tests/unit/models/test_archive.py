"""Zip containers of models are read without trusting a word of them."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.models import archive


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return out.getvalue()


def linked() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    return out.getvalue()


def overlapping() -> bytes:
    """Two directory entries that name the same bytes."""
    data = bytearray(zipped(("a", b"x" * 40), ("b", b"y" * 40), compression=zipfile.ZIP_STORED))
    directory = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, directory + 42, 0)
    return bytes(data)


def damaged() -> bytes:
    data = bytearray(zipped(("a", bytes(range(256)) * 9)))
    data[60] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK nothing", "not a zip"),
        (zipped(("../up", b"")), "unsafe name"),
        (zipped(("/root", b"")), "unsafe name"),
        (zipped(("a/b/c/d/e", b"")), "unsafe name"),
        (zipped(("A.json", b""), ("a.json", b"")), "two members of one name"),
        (zipped(*((f"m{i}", b"") for i in range(257))), "257 members"),
        (zipped(("bomb", bytes(64 << 20))), "inflates"),
        (zipped(("packed", b"x" * 99), compression=zipfile.ZIP_BZIP2), "packed in an unknown way"),
        (linked(), "link"),
        (overlapping(), "overlapping"),
        (damaged(), "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hostile_archive_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(SegmentdError, match=words) as caught:
        archive.read_archive(io.BytesIO(data), "model.segmodel")
    assert caught.value.reason is Reason.MODEL_UNUSABLE
    assert "model.segmodel" in caught.value.message


def test_members_come_back_and_bytes_are_deterministic() -> None:
    members = {"b/two.npy": bytes(range(200)), "a.json": b"{}"}
    first, second = io.BytesIO(), io.BytesIO()
    archive.write_archive(first, members)
    archive.write_archive(second, dict(reversed(members.items())))
    assert archive.read_archive(first, "x") == members
    assert first.getvalue() == second.getvalue()
