from __future__ import annotations

import pytest

from segmentd.cli import exits
from segmentd.errors import ConfigurationError, Reason, SegmentdError


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SegmentdError(Reason.LOCKED, "held by process 7"), 73, "segmentd: held by process 7\n"),
        (ConfigurationError(["a = 1: no", "b = 2: no"]), 78, "a = 1: no\nb = 2: no\n"),
        (SegmentdError(Reason.IMAGE_CORRUPT, "a.tif: cut short"), 1, "segmentd: a.tif: cut short\n"),
        (exits.UsageError("--out: must end in .segmodel"), 2, "segmentd: --out: must end in .segmodel\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.tif"),
            1,
            "segmentd: [Errno 2] No such file or directory: 'x.tif'\n",
        ),
    ],
)
def test_errors_end_with_a_message_and_a_code(
    error: Exception, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, exits.reported():
        raise error
    assert ended.value.code == code
    assert capsys.readouterr() == ("", message)


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), exits.reported():
        _ = 1 / 0


def test_a_choice_lists_what_there_is() -> None:
    exits.require_choice("--features", "basic25", ("basic25", "basic33"))
    with pytest.raises(exits.UsageError, match="--features deep: must be one of basic25, basic33"):
        exits.require_choice("--features", "deep", ("basic25", "basic33"))
