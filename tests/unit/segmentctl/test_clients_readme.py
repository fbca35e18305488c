"""What `clients/README.md` names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from segmentctl import Client
from segmentctl.cli import app
from segmentctl.cli.batch_file import read_jobs

_COMMAND = re.compile(r"segmentctl ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "clients" / "README.md").read_text(encoding="utf-8")


def test_commands(text: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    named = [match for code in re.findall(r"`([^`\n]+)`", text) for match in [_COMMAND.match(code)] if match]
    assert len(named) > 20
    for match in named:
        assert match[1] in commands, match[0]
        below = getattr(commands[match[1]], "commands", {})
        if match[2] and below:
            assert match[2] in below, match[0]


def test_methods(text: str) -> None:
    named = set(re.findall(r"`Client\.([a-z_]+)`", text))
    assert len(named) > 15
    assert [name for name in named if not hasattr(Client, name)] == []


def test_links(text: str, repository: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    assert len(targets) > 5
    assert [target for target in targets if not (repository / "clients" / target).exists()] == []


def test_the_examples_of_batches_are_read_as_they_stand(text: str, tmp_path: Path) -> None:
    (tmp_path / "plate-1").mkdir()
    (tmp_path / "plate-1" / "a.tif").touch()
    for kind in ("csv", "toml"):
        (example,) = re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        (tmp_path / f"list.{kind}").write_text(example)
        jobs = read_jobs(tmp_path / f"list.{kind}")
        assert [(job.image.name, job.model) for job in jobs] == [
            ("a.tif", "nuclei"),
            ("rock.tif", "Sandstone"),
        ]
        assert (jobs[1].min_confidence, jobs[1].postprocessing) == (60, "crf")
