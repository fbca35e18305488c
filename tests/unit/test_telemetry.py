from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd import telemetry
from segmentd.errors import ConfigurationError
from segmentd.telemetry.meter import BOUNDS


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Leave logging as it was: `configure` is for a whole process."""
    root, ours = logging.getLogger(), logging.getLogger("segmentd")
    handlers, level = root.handlers[:], ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)
    logging.captureWarnings(False)


def fields_of(line: str) -> dict[str, str]:
    """Split a line of `key=value` pairs; quoted values keep their quotes."""
    return dict(re.findall(r'([^\s=]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)', line))


@pytest.mark.usefixtures("restored_logging")
def test_a_record_is_one_line_of_fields(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info")
    log = telemetry.get_logger("segmentd.ingest")
    log.info("image %s", "done", path=Path("/in/a b.tif"), seconds=1.25, planes=3)
    (line,) = capsys.readouterr().err.splitlines()
    fields = fields_of(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", fields.pop("time"))
    assert fields == {
        "level": "info",
        "logger": "segmentd.ingest",
        "msg": '"image done"',
        "path": '"/in/a b.tif"',
        "seconds": "1.25",
        "planes": "3",
    }


@pytest.mark.usefixtures("restored_logging")
def test_a_traceback_stays_on_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        telemetry.get_logger("segmentd").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert fields_of(line)["exception"].endswith(r'ValueError: two\nlines"')


@pytest.mark.usefixtures("restored_logging")
def test_configuring_twice_does_not_log_twice(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info")
    telemetry.configure("warning")
    telemetry.get_logger("segmentd.x").info("quiet")
    telemetry.get_logger("segmentd.x").warning("loud")
    assert [fields_of(line)["msg"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


@pytest.mark.usefixtures("restored_logging")
def test_the_level_comes_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTD_LOG", "Debug")
    telemetry.configure()
    assert logging.getLogger("segmentd").level == logging.DEBUG
    telemetry.configure("error")
    assert logging.getLogger("segmentd").level == logging.ERROR
    monkeypatch.delenv("SEGMENTD_LOG")
    telemetry.configure()
    assert logging.getLogger("segmentd").level == logging.INFO


def test_an_unknown_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTD_LOG", "loud")
    rule = r'SEGMENTD_LOG = "loud": must be one of debug, info, warning, error'
    with pytest.raises(ConfigurationError, match=rule):
        telemetry.configure()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain.tif", "plain.tif"),
        ("größe.tif", "größe.tif"),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("a\nlevel=error", r'"a\nlevel=error"'),
        ("\x1b[31mred", r'"\u001b[31mred"'),
        ("\u202egnp.exe", r'"\u202egnp.exe"'),
        (b"caf\xe9.tif", r'"caf\udce9.tif"'),
        (None, "None"),
        (0.1 + 0.2, "0.3"),
        (1_800_000_000.5, "1800000000.5"),
    ],
)
def test_values_are_safe_to_print(value: object, shown: str) -> None:
    assert telemetry.printable(value) == shown


@given(st.text() | st.binary())
def test_no_value_breaks_a_line(value: str | bytes) -> None:
    shown = telemetry.printable(value)
    assert shown.isprintable()
    assert fields_of(f"key={shown}") == {"key": shown}


def test_json_lines_hold_the_same_fields(capsys: pytest.CaptureFixture[str], restored_logging: None) -> None:
    telemetry.configure("info", "json")
    log = telemetry.get_logger("segmentd.ingest")
    log.info(
        "image %s", "done", path=Path("/in/größe.tif"), name=b"caf\xe9", seconds=1.25, stages={"read": 0.5}
    )
    (line,) = capsys.readouterr().err.splitlines()
    fields = json.loads(line)
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "level": "info",
        "logger": "segmentd.ingest",
        "msg": "image done",
        "path": "/in/größe.tif",
        "name": r"caf\xe9",
        "seconds": 1.25,
        "stages": {"read": 0.5},
    }


@pytest.mark.parametrize("form", ["text", "json"])
@given(value=st.text() | st.binary() | st.floats() | st.characters(categories=["Cs", "Cc", "Cf"]))
def test_nothing_breaks_out_of_a_line(form: str, value: object) -> None:
    record = logging.makeLogRecord({"msg": "m", "name": "n", "fields": {"value": value, "msg": "forged"}})
    line = (telemetry.logs.JsonFormatter() if form == "json" else telemetry.logs.LineFormatter()).format(
        record
    )
    assert line.isprintable()
    if form == "json":
        assert line.isascii()
        assert json.loads(line)["msg"] == "m"
    else:
        assert fields_of(line)["msg"] == "m"


@pytest.mark.usefixtures("restored_logging")
def test_lines_are_json_where_stderr_is_the_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for told_of_another in (False, True):
        with (tmp_path / "stderr").open("w+") as stderr:
            status = os.fstat(stderr.fileno())
            monkeypatch.setattr("sys.stderr", stderr)
            inode = status.st_ino + told_of_another
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{inode}")
            telemetry.configure("info")
            telemetry.get_logger("segmentd").info("here")
            stderr.seek(0)
            assert stderr.read().startswith("time=" if told_of_another else '{"time": ')
            monkeypatch.setenv("SEGMENTD_LOG_FORMAT", "text")
            telemetry.configure("info")
            telemetry.get_logger("segmentd").info("text")
            stderr.seek(0)
            assert stderr.read().splitlines()[-1].startswith("time=")
            monkeypatch.delenv("SEGMENTD_LOG_FORMAT")


def test_an_unknown_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTD_LOG_FORMAT", "xml")
    with pytest.raises(
        ConfigurationError, match=r'SEGMENTD_LOG_FORMAT = "xml": must be one of auto, text, json'
    ):
        telemetry.configure()


def test_a_stage_counts_also_when_it_fails() -> None:
    meter = telemetry.Meter()
    with meter.stage("read"):
        pass
    with pytest.raises(OSError, match="gone"), meter.stage("read"):
        raise OSError("gone")
    total = meter.stages()["read"]
    assert total.count == sum(total.buckets) == 2
    assert total.seconds > 0


def test_durations_fall_into_buckets() -> None:
    meter = telemetry.Meter()
    for seconds in (0.0001, 0.0005, 0.02, 1000.0):
        meter.observe("read", seconds)
    total = meter.stages()["read"]
    assert [i for i, number in enumerate(total.buckets) if number] == [0, 5, len(BOUNDS)]
    assert total.buckets[0] == 2
    assert total.seconds == pytest.approx(1000.0206)


def test_counters_lose_nothing_between_threads() -> None:
    meter = telemetry.Meter()

    def work() -> None:
        for _ in range(1000):
            meter.count("planes")
            with meter.stage("read"):
                meter.count("bytes", 3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.counts() == {"planes": 4000, "bytes": 12000}
    assert meter.stages()["read"].count == 4000


def test_the_last_minute_is_counted_and_forgotten() -> None:
    now = 100.0
    minute = telemetry.LastMinute(lambda: now)
    assert minute.totals() == (0, 0)
    for seconds, pixels in ((0.0, 10), (0.5, 20), (30.0, 0), (59.0, 5)):
        now = 100.0 + seconds
        minute.add(pixels)
    assert minute.totals() == (4, 35)
    now = 160.0
    assert minute.totals() == (2, 5)
    now = 1000.0
    assert minute.totals() == (0, 0)
