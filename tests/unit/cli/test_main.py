from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import segmentd
from segmentd.cli.main import app, main

GOOD = '[device]\nthreads = 3\n[[watch]]\nid = "left"\nfolder = "in"\nmodel = "m"\n'


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"segmentd {segmentd.__version__}\n")


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["frobnicate"]).exit_code == 2


def test_check_config_shows_what_a_file_means(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(GOOD, encoding="utf-8")
    result = CliRunner().invoke(app, ["check-config", str(tmp_path / "s.toml")])
    assert result.exit_code == 0
    rows = [line.split()[:2] for line in result.stdout.splitlines() if line]
    assert ["threads", "3"] in rows
    assert ["results", f'"{tmp_path}/in/segmented"'] in rows
    assert ["give_up_seconds", "10.0"] in rows
    assert "allow_shared_memory" not in result.stdout


def test_check_config_tells_every_fault_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.toml").write_text("[device]\nthreads = 0\n[sever]\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["segmentd", "check-config", str(tmp_path / "s.toml")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 78
    problems = "sever = {}: unknown key; did you mean server?\ndevice.threads = 0: must be >= 1\n"
    assert capsys.readouterr() == ("", problems)
