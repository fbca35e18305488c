from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segmentd.errors import Reason, SegmentdError
from segmentd.results.names import SUFFIXES, is_temporary, result_name, source_parts, temporary_name

FILE_NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..")
)


def test_the_whole_name_is_kept() -> None:
    names = {kind: result_name(b"a.tif", kind) for kind in SUFFIXES}
    assert names == {
        "labels": b"a.tif.labels.ome.tif",
        "confidence": b"a.tif.confidence.ome.tif",
        "classes": b"a.tif.classes.ome.tif",
        "overlay": b"a.tif.overlay.png",
        "thumbnail": b"a.tif.thumbnail.png",
        "image": b"a.tif.network.ome.tif",
    }


@given(FILE_NAMES, st.sampled_from(sorted(SUFFIXES)))
@example(b"x" * 255, "confidence")
def test_names_fit_into_a_folder(name: bytes, kind: str) -> None:
    result = result_name(name, kind)
    assert len(result) <= 255
    assert b"/" not in result
    assert result.endswith(SUFFIXES[kind])
    temporary = temporary_name(result, b"0123abcd")
    assert len(temporary) <= 255
    assert is_temporary(temporary)
    assert not is_temporary(result)


@given(st.sets(FILE_NAMES, min_size=2, max_size=2))
def test_two_inputs_never_share_a_result(names: set[bytes]) -> None:
    assert len({result_name(name, kind) for name in names for kind in SUFFIXES}) == 2 * len(SUFFIXES)


def test_an_input_named_like_a_shortened_result_does_not_share_it() -> None:
    long = b"x" * 240
    stem = result_name(long, "labels").removesuffix(SUFFIXES["labels"])
    assert len(result_name(long, "labels")) < 255
    assert result_name(stem, "labels") != result_name(long, "labels")


def test_long_names_that_differ_at_the_end_differ() -> None:
    assert result_name(b"x" * 250 + b"a", "labels") != result_name(b"x" * 250 + b"b", "labels")


def test_characters_are_not_cut_in_half() -> None:
    for shift in range(4):
        name = b"x" * shift + "\N{MICROSCOPE}".encode() * 60
        result_name(name, "labels").decode()
        temporary_name(name, b"0123abcd").decode()


@pytest.mark.parametrize("source", [b"", b"/etc/a", b"../a", b"a/../b", b"./a", b"a//b", b"a/", b"a\0b"])
def test_paths_that_could_leave_the_folder_are_refused(source: bytes) -> None:
    with pytest.raises(SegmentdError) as caught:
        source_parts(source)
    assert caught.value.reason == Reason.BAD_FIELD


def test_other_paths_are_split() -> None:
    assert source_parts(b"sub/..a/b..\xff") == [b"sub", b"..a", b"b..\xff"]
