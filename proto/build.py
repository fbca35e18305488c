"""Compile the proto files to the Python stubs `segmentd.v1` (hatch build hook, and by hand).

Beside our own API there are the few messages of others' that a bridge of the client speaks; their proto files
lie beside the bridge.

The stubs are made whenever the package is built or installed, editable or not, and never committed:
they cannot drift from the proto files. After a change of a proto file run `pip install -e .` again,
or `python proto/build.py` where the packages of `build-system.requires` are installed.

The compiler is pinned there: its stubs need protobuf 6.31.1 or newer, so that they run beside
packages that are still on protobuf 6 as well as on protobuf 7.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTO_FOLDER = Path(__file__).resolve().parent
PACKAGE_FOLDER = PROTO_FOLDER.parent / "daemon"
CLIENT_FOLDER = PROTO_FOLDER.parent / "clients" / "python"
STUB_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def compile_protos(
    proto_folder: Path = PROTO_FOLDER, package_folder: Path = PACKAGE_FOLDER, package: str = "segmentd"
) -> list[Path]:
    """Compile `proto_folder/package/**/*.proto` into the packages under `package_folder`.

    The path of a proto file is the path of its module: `segmentd/v1/model.proto` becomes
    `segmentd/v1/model_pb2.py`. Stubs of proto files that are gone are removed.

    Returns
    -------
    list of Path
        The proto files that were compiled, sorted.

    Raises
    ------
    RuntimeError
        If the compiler refuses a file; it has printed file, line and cause on stderr.
    """
    protos = sorted((proto_folder / package).rglob("*.proto"))
    if protos:
        _run_compiler(protos, proto_folder, package_folder)
    stems = [package_folder / proto.relative_to(proto_folder).with_suffix("") for proto in protos]
    wanted = {stem.with_name(stem.name + suffix) for stem in stems for suffix in STUB_SUFFIXES}
    for stub in (package_folder / package).rglob("*_pb2*"):
        if stub.name.endswith(STUB_SUFFIXES) and stub not in wanted:
            stub.unlink()
    return protos


def _run_compiler(protos: list[Path], proto_folder: Path, package_folder: Path) -> None:
    google_folder = Path(str(distribution("googleapis-common-protos").locate_file("")))
    with as_file(files("grpc_tools") / "_proto") as well_known_folder:
        status = protoc.main(
            [
                "protoc",
                f"--proto_path={proto_folder}",
                f"--proto_path={google_folder}",
                f"--proto_path={well_known_folder}",
                f"--python_out={package_folder}",
                f"--pyi_out={package_folder}",
                f"--grpc_python_out={package_folder}",
                *(str(proto) for proto in protos),
            ]
        )
    if status != 0:
        raise RuntimeError(
            f"protoc refused the files under {proto_folder} (exit {status}); see its message above"
        )


class StubBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatch before it collects the files of a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the stubs; `artifacts` of the wheel target takes them in although git ignores them."""
        root = Path(self.root)
        compile_protos(root / "proto", root / "daemon")
        client = root / "clients" / "python"
        compile_protos(client, client, "segmentctl")


if __name__ == "__main__":
    for compiled in [*compile_protos(), *compile_protos(CLIENT_FOLDER, CLIENT_FOLDER, "segmentctl")]:
        sys.stdout.write(f"{compiled.relative_to(PROTO_FOLDER.parent)}\n")
