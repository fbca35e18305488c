"""What README shows as configuration is what the daemon takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from segmentd.cli.classes_file import read_classes
from segmentd.settings import parse
from segmentd.settings.schema import WatchSettings


def toml_blocks(repository: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)


def test_every_configuration_is_valid(repository: Path, tmp_path: Path) -> None:
    configurations = [block for block in toml_blocks(repository) if "[[watch]]" in block]
    assert len(configurations) == 2
    for block in configurations:
        settings = parse(tomllib.loads(block), tmp_path)
        assert settings.watch_specs()[0].model == "nuclei"


def test_every_key_of_a_watch_that_can_be_set_is_shown(repository: Path) -> None:
    block = [block for block in toml_blocks(repository) if "[[watch]]" in block][-1]
    shown = tomllib.loads(block)["watch"][0].keys()
    assert shown == WatchSettings.model_fields.keys()


def test_the_configuration_for_a_network_is_valid(repository: Path, tmp_path: Path) -> None:
    (block,) = (block for block in toml_blocks(repository) if "token_file" in block)
    assert "client_ca" in block
    for text in (block, re.sub("^# ", "", block, flags=re.MULTILINE)):  # with what is shown as a comment, too
        settings = parse(tomllib.loads(text), tmp_path)
        assert settings.server.host == "0.0.0.0"


def test_the_classes_file_is_valid(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text(next(block for block in toml_blocks(repository) if "[[class]]" in block))
    assert [entry.name for entry in read_classes(path)] == ["background", "nucleus"]
