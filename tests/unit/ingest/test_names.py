"""Names of inputs, results and files that are being written."""

from __future__ import annotations

import doctest

import pytest

from segmentd.ingest import names


def test_examples_hold() -> None:
    assert doctest.testmod(names).failed == 0


@pytest.mark.parametrize(
    "name",
    b"a.tif.part a.tif.PARTIAL a.tif.filepart a.tif.crdownload a.tif.tmp a.tmp ~$a.tif .a.tif.x7Kq2a "
    b".hidden.tif .syncthing.a.tif.tmp a.tif~ ~tmp1.tif".split(),
)
def test_temporary_names_are_never_taken(name: bytes) -> None:
    assert names.is_temporary(name)
    assert not names.input_filter(["*"])(name)
    assert not names.input_filter(["*"])(b"sub/" + name)


@pytest.mark.parametrize("name", [b"tmp.tif", b"part.tif", b"a.part.tif", b"a~1.tif", b"~a.tif", b"$a.tif"])
def test_names_that_only_look_temporary_are_taken(name: bytes) -> None:
    assert names.input_filter(["*"])(name)


@pytest.mark.parametrize(
    "name", b"a.tif A.TIFF a.ome.tif a.btf a.PNG a.jpeg a.companion.ome \xff\xfe.tif sub/a.tif".split()
)
def test_images_are_inputs(name: bytes) -> None:
    assert names.input_filter(["*"])(name)
    assert names.input_filter(["*"])(b"a\nb" + name)


@pytest.mark.parametrize(
    "name",
    b"a.tif.labels.ome.tif a.tif.confidence.ome.tif a.tif.classes.ome.tif a.tif.overlay.png Thumbs.db "
    b"metadata.xml notes.txt tif a.ome .hidden/a.tif a/.b/c.tif".split(),
)
def test_other_files_and_our_own_are_no_inputs(name: bytes) -> None:
    assert not names.input_filter(["*"])(name)


@pytest.mark.parametrize(
    ("include", "path", "taken"),
    [
        (["*.tif"], b"a/b.tif", True),
        (["*.tif"], b"a/b.TIF", True),
        (["*.TIF"], b"b.tif", True),
        (["*.tif"], b"b.tiff", False),
        (["raw/*"], b"raw/b.tif", True),
        (["raw/*"], b"raw/c/b.tif", True),
        (["raw/*"], b"b.tif", False),
        (["pos?_*.tif", "x*"], b"pos1_a.tif", True),
        (["pos?_*.tif", "x*"], b"pos12_a.tif", False),
        (["[!b]*"], b"b.tif", False),
        (["\udcff*"], b"\xff.tif", True),
        ([], b"b.tif", False),
    ],
)
def test_patterns_match_the_name_or_the_path(include: list[str], path: bytes, taken: bool) -> None:
    assert names.input_filter(include)(path) is taken
