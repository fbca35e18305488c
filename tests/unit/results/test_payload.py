from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from segmentd.records import ClassInfo, Fault, PlaneIndex, Segmentation, SegmentationState
from segmentd.results.payload import decode_segmentation, encode_segmentation

TEXT = st.text(max_size=20)
COUNT = st.integers(0, 2**40)
SECONDS = st.floats(0, 1e12)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=3)

SEGMENTATIONS = st.builds(
    Segmentation,
    watch=TEXT,
    source=st.binary(max_size=30),
    source_path=st.binary(max_size=30),
    state=st.sampled_from(SegmentationState),
    version=COUNT,
    content_digest=TEXT,
    fault=st.none() | st.builds(Fault, reason=TEXT, message=TEXT, metadata=TEXTS),
    plane=st.builds(PlaneIndex, COUNT, COUNT, COUNT),
    plane_count=COUNT,
    height=COUNT,
    width=COUNT,
    model=TEXT,
    model_digest=TEXT,
    classes=st.lists(st.builds(ClassInfo, COUNT, TEXT, TEXT), max_size=3).map(tuple),
    label_pixel_counts=st.lists(COUNT, max_size=4).map(tuple),
    mean_confidence=SECONDS,
    masked_pixels=COUNT,
    files=TEXTS,
    digests=TEXTS,
    device=TEXT,
    device_reason=TEXT,
    source_time=SECONDS,
    create_time=SECONDS,
    compute_seconds=SECONDS,
    latency_seconds=SECONDS,
)


@given(SEGMENTATIONS)
def test_every_segmentation_comes_back(segmentation: Segmentation) -> None:
    text = encode_segmentation(segmentation)
    assert text.isascii()
    assert decode_segmentation(text) == segmentation


def test_every_field_is_written() -> None:
    minimal = Segmentation("w", b"a", b"/w/a", SegmentationState.FAILED)
    assert set(json.loads(encode_segmentation(minimal))) == {item.name for item in fields(Segmentation)}


def test_readable_paths_stay_readable_and_others_come_back() -> None:
    sources = (b"a b.tif", "\N{MICROSCOPE}.tif".encode(), b"\xff\xfe.tif", b"\xed\xa0\xbd\xed\xb2\x80")
    for source in sources:
        segmentation = Segmentation("w", source, b"/w/" + source, SegmentationState.FAILED)
        assert decode_segmentation(encode_segmentation(segmentation)).source == source
    assert '"source":"a b.tif"' in encode_segmentation(
        Segmentation("w", b"a b.tif", b"/", SegmentationState.FAILED)
    )


def test_fields_that_an_older_daemon_did_not_write_get_their_default() -> None:
    data = json.loads(encode_segmentation(Segmentation("w", b"a", b"/w/a", SegmentationState.SUCCEEDED)))
    del data["latency_seconds"], data["device_reason"]
    decoded = decode_segmentation(json.dumps(data))
    assert decoded.latency_seconds == 0.0
    assert decoded.device_reason == ""
