"""Errors on the wire name files, not where they lie."""

from __future__ import annotations

import pytest

from segmentd.errors import Reason
from segmentd.records import Fault
from segmentd.rpc.faults import status_of
from segmentd.rpc.host_paths import without_folders


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "/srv/models/my cells.segmodel: cannot be read: Denied",
            "my cells.segmodel: cannot be read: Denied",
        ),
        (
            "no results can be written to /srv/My Results: full",
            "no results can be written to My Results: full",
        ),
        ("/srv/A, B/x.tif is bad; use models/cells", "A, B/x.tif is bad; use models/cells"),
        (
            "[Errno 2] No such file or directory: '/a/b c/d.tif'",
            "[Errno 2] No such file or directory: 'd.tif'",
        ),
        ("choose: a (/p/q/a.segmodel), b (/r s/b.segmodel)", "choose: a (a.segmodel), b (b.segmodel)"),
        ("cannot move /a/b c/d.tif to /e/f/g.tif", "cannot move d.tif to g.tif"),
        ("'/a/b' and '/c/d' differ", "'b' and 'd' differ"),
        ("/srv/John's images/x.tif: bad", "x.tif: bad"),
        ("unix:/run/segmentd/a.sock, file:///a/b", "unix:a.sock, file://b"),
        ("/mnt\n/a/b\n", "mnt\nb\n"),
        ("ask https://example.org/x/y: models/a, 3/4, 12 / 13, img/s", None),
        ("sub/x.tif and ./x/y and ../x/y", None),
        ("", None),
    ],
)
def test_of_a_path_the_name_is_told(text: str, told: str | None) -> None:
    assert without_folders(text) == (text if told is None else told)


def test_folders_that_a_client_knows_stay() -> None:
    text = "/a/b/x.tif is not /a/bc/x.tif. Look at /a/b."
    assert without_folders(text, "/a/b", "/z") == "/a/b/x.tif is not x.tif. Look at /a/b."


def test_a_long_text_takes_no_time() -> None:
    for text in ("/" * 100_000, "/a" * 50_000 + " ", "/a b" * 25_000 + ": x", "/a " * 30_000):
        assert len(without_folders(text)) <= len(text)


@pytest.mark.parametrize("reason", Reason)
def test_a_status_tells_folders_only_where_they_are_the_callers_own(reason: Reason) -> None:
    fault = Fault(reason, "/srv/data/x.tif: no", {"path": "/srv/data/x.tif"})
    told = str(status_of(fault))
    assert ("/srv" in told) is (reason in (Reason.BAD_FIELD, Reason.FOLDER_OUTSIDE_ROOTS, Reason.LOCKED))
    assert "x.tif: no" in told
