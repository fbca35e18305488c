"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import distribution
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

settings.register_profile("segmentd", deadline=None, max_examples=60, derandomize="CI" in os.environ)
settings.load_profile("segmentd")

# About a hundred daemons are started, and without bytecode each of them would compile all modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images that are too large for the repository: the folder `../shared/data`."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the images in {folder}")
    return folder


@pytest.fixture(scope="session")
def proto_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our proto files, the common Google ones that they import, and `buf.yaml`, in one folder."""
    folder = tmp_path_factory.mktemp("proto")
    shutil.copy(REPOSITORY / "proto" / "buf.yaml", folder)
    shutil.copytree(REPOSITORY / "proto" / "segmentd", folder / "segmentd")
    google = Path(str(distribution("googleapis-common-protos").locate_file("google")))
    for name in ("api", "rpc"):
        shutil.copytree(
            google / name, folder / "google" / name, ignore=shutil.ignore_patterns("*.py*", "__*")
        )
    return folder
