"""The stubs in use are those of the proto files in this tree, and run wherever we say they run."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet


def stub_modules(repository: Path) -> dict[str, ModuleType]:
    """Import the messages of every proto file; a proto file without stubs fails here."""
    names = [str(path.relative_to(repository / "proto")) for path in (repository / "proto").rglob("*.proto")]
    return {name: import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2") for name in names}


def described(proto_workspace: Path) -> dict[str, FileDescriptorProto]:
    """Compile the proto files anew, without the compiler that made the stubs."""
    buf = Path(sysconfig.get_path("scripts")) / "buf"
    image = proto_workspace / "image.binpb"
    build = [
        buf,
        "build",
        "--path",
        "segmentd",
        "--exclude-source-info",
        "--as-file-descriptor-set",
        "-o",
        image,
    ]
    done = subprocess.run(build, cwd=proto_workspace, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = FileDescriptorSet.FromString(image.read_bytes()).file
    return {file.name: file for file in files if file.name.startswith("segmentd/")}


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """Drop what only some compilers fill in."""
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        pending.extend(message.nested_type)
        for entry in message.field:
            entry.ClearField("json_name")
    return file


def test_stubs_match_the_proto_files(repository: Path, proto_workspace: Path) -> None:
    # Imported first: they register the options that the fresh descriptors are read with.
    modules = stub_modules(repository)
    files = described(proto_workspace)
    assert "segmentd/v1/segmentation_service.proto" in files
    assert set(modules) == set(files)
    for name, file in files.items():
        built = FileDescriptorProto.FromString(modules[name].DESCRIPTOR.serialized_pb)
        stale = f"{name} has changed since its stubs were made: run `pip install -e .` again"
        assert without_json_names(built) == without_json_names(file), stale


def test_stubs_run_on_the_oldest_protobuf_that_we_allow(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (requirement,) = [each for each in project["dependencies"] if each.startswith("protobuf>=")]
    oldest = tuple(int(part) for part in re.findall(r"\d+", requirement)[:3])
    for name, module in stub_modules(repository).items():
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        made_by = re.search(r"Protobuf Python Version: (\d+)\.(\d+)\.(\d+)", source)
        assert made_by is not None, name
        assert tuple(map(int, made_by.groups())) <= oldest, name
