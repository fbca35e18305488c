"""Names of inputs, results and files that are being written."""

from __future__ import annotations

import doctest

import pytest

from segmentd.ingest import names


def test_examples_hold() -> None:
    assert doctest.testmod(names).failed == 0


@pytest.mark.parametrize(
    "name",
    [b"a.tif.part", b"a.tif.PARTIAL", b"a.tif.filepart", b"a.tif.crdownload", b"a.tif.tmp", b"a.tmp"]
    + [b"~$a.tif", b".a.tif.x7Kq2a", b".hidden.tif", b".syncthing.a.tif.tmp", b"a.tif~", b"~tmp1.tif"],
)
def test_temporary_names_are_never_taken(name: bytes) -> None:
    assert names.is_temporary(name)
    assert not names.input_filter(["*"])(name)
    assert not names.input_filter(["*"])(b"sub/" + name)


@pytest.mark.parametrize("name", [b"tmp.tif", b"part.tif", b"a.part.tif", b"a~1.tif", b"~a.tif", b"$a.tif"])
def test_names_that_only_look_temporary_are_taken(name: bytes) -> None:
    assert names.input_filter(["*"])(name)


@pytest.mark.parametrize(
    ("name", "taken"),
    [(b"a.tif", True), (b"A.TIFF", True), (b"a.ome.tif", True), (b"a.btf", True), (b"a.PNG", True)]
    + [(b"a.jpeg", True), (b"a.tif.labels.ome.tif", False), (b"a.tif.confidence.ome.tif", False)]
    + [(b"a.tif.classes.ome.tif", False), (b"a.tif.overlay.png", False), (b"Thumbs.db", False)]
    + [(b"metadata.xml", False), (b"notes.txt", False), (b"tif", False), (b"a.companion.ome", False)]
    + [(b"\xff\xfe.tif", True), (b"a\nb.tif", True), (b".hidden/a.tif", False), (b"a/.b/c.tif", False)],
)
def test_inputs_are_images_that_are_not_ours(name: bytes, taken: bool) -> None:
    assert names.input_filter(["*"])(name) is taken


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
