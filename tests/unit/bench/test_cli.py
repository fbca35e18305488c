from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from segmentd_bench import options, outcome
from segmentd_bench.cli import app
from segmentd_bench.errors import BenchmarkError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["latency", "--device", "cuda"], "measured by `segmentd-bench throughput` only"),
        (["throughput", "--device", "tpu"], "must be one of cpu, auto, cuda"),
        (["throughput", "--features", "basic25,basic26"], "'basic26' must be one of basic25, basic33"),
        (["throughput", "--tile", "128,small"], "'small' must be a whole number from 16 to 16384"),
        (["throughput", "--threads", "0"], "'0' must be"),
        (["throughput", "--classes", "3,"], "'' must be"),
        (["throughput", "--trees", "-1"], "'-1' must be"),
        (["throughput", "--image", "missing.tif"], "does not exist"),
        (["latency", "--rate", "0"], "'--rate'"),
        (["load", "--subscribers", "3", "--slow", "2", "--stopped", "1"], "must be more than"),
        (["wire", "--plot", "result.pdf"], "must end in .png"),
        (["wire", "--plot", "missing/result.png"], "does not exist"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def test_an_image_without_labels_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    result = CliRunner().invoke(app, ["compare", "--image", str(tmp_path / "a.tif")])
    assert result.exit_code == 2
    assert "give both or neither" in " ".join(result.stderr.split())


def test_comma_separated_values() -> None:
    assert options.tiles("128,256,auto") == [128, 256, None]
    assert options.numbers("--trees", "25,100", 1, 100) == [25, 100]
    assert options.choices("--features", "basic33,basic25", options.FEATURE_SETS) == ["basic33", "basic25"]
    assert options.threads("1,all")[0] == 1
    assert options.threads("1,all")[1] >= 1


def benchmark(shown: list[str]) -> ModuleType:
    module = ModuleType("benchmark")
    module.__dict__["show"] = lambda result: shown.append(f"table of {result}")
    module.__dict__["plot"] = lambda result, path: path.write_bytes(b"PNG")
    return module


def test_json_is_all_that_stdout_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    def run() -> outcome.Measured:
        print("a library talks")
        return benchmark(shown), {"mpx_per_s": 1.5}

    outcome.measured(run, as_json=True, plot=tmp_path / "result.png")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"mpx_per_s": 1.5}
    assert "a library talks" in err
    assert shown == []
    assert (tmp_path / "result.png").read_bytes() == b"PNG"


def test_without_json_a_table_is_shown() -> None:
    shown: list[str] = []
    outcome.measured(lambda: (benchmark(shown), {"x": 1}), as_json=False, plot=None)
    assert shown == ["table of {'x': 1}"]


def test_a_failure_is_a_message_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> Any:
        raise BenchmarkError("only 1 of 2 images came back")

    with pytest.raises(SystemExit) as ended:
        outcome.measured(run, as_json=True, plot=None)
    assert ended.value.code == 1
    assert capsys.readouterr() == ("", "segmentd-bench: only 1 of 2 images came back\n")
