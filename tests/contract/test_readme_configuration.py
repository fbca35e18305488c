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
    shown = tomllib.loads(toml_blocks(repository)[-1])["watch"][0].keys()
    later = {"confidence", "postprocessing"}  # only their defaults are supported
    assert shown == WatchSettings.model_fields.keys() - later


def test_the_classes_file_is_valid(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text(next(block for block in toml_blocks(repository) if "[[class]]" in block))
    assert [entry.name for entry in read_classes(path)] == ["background", "nucleus"]
