"""What `clients/bridges.md` names is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import typer

from segmentctl.cli import app


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "clients" / "bridges.md").read_text(encoding="utf-8")


def test_imports(text: str) -> None:
    imports = re.findall(r"^from (segmentctl[\w.]*) import (\w+)", text, re.MULTILINE)
    assert len(imports) > 5
    for module, name in imports:
        assert hasattr(import_module(module), name), (module, name)


def test_options(text: str) -> None:
    command = typer.main.get_command(app).commands["zen-bridge"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    section = text[text.index("## ZEN") : text.index("## napari")]
    named = set(re.findall(r"(?<![\w-])--[a-z-]+", section))
    assert len(named) > 10
    assert named - known == set()


def test_links(text: str, repository: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    assert len(targets) > 1
    assert [target for target in targets if not (repository / "clients" / target).exists()] == []
