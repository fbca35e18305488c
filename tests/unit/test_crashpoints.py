from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segmentd import crashpoints
from segmentd.errors import ConfigurationError

PASSING = """
import sys
from segmentd import crashpoints
if sys.argv[1] == "armed":
    crashpoints.arm()
for number in range(1, 5):
    print(number, flush=True)
    crashpoints.reach("opened")
    crashpoints.reach("found")
"""


def passed(wanted: str, armed: str = "armed") -> tuple[int, int]:
    """Run through the points four times; return the exit code and how often it got there."""
    environment = {"SEGMENTD_CRASH_AT": wanted, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PASSING, armed], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, len(done.stdout.split())


def test_a_process_ends_at_the_point_that_is_asked_for() -> None:
    assert passed("found") == (-signal.SIGKILL, 1)
    assert passed("found:3") == (-signal.SIGKILL, 3)
    assert passed("computed") == (0, 4)
    assert passed("found", armed="not") == (0, 4)


@pytest.mark.parametrize("wanted", ["nowhere", "found:0", "found:", "FOUND", "found:x"])
def test_a_point_that_there_is_not_is_refused(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(crashpoints.VARIABLE, wanted)
    with pytest.raises(ConfigurationError, match=r"SEGMENTD_CRASH_AT = .*POINT:N with one of found, opened"):
        crashpoints.arm()


def test_every_point_is_in_the_code_and_documented(repository: Path) -> None:
    code = [path.read_text() for path in (repository / "daemon" / "segmentd").rglob("*.py")]
    readme = (repository / "daemon" / "README.md").read_text()
    for point in crashpoints.POINTS:
        assert sum(text.count(f'crashpoints.reach("{point}")') for text in code) >= 1, point
        assert f"`{point}`" in readme
