"""`[open_inference]`: the face of the API for clients of Triton, and what it means for `[server]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from segmentd.settings import problems
from segmentd.settings.schema import OpenInferenceSettings, ServerSettings

# Pixels of a plane come in one message there.
RECEIVE_MIB = 64
_NEEDS_FACE = "needs open_inference.enabled = true"


def contradictions(data: Mapping[str, object]) -> Iterator[str]:
    """Find keys that mean nothing while the face is off, as `key = value: rule`; `data` is the file."""
    face = data.get("open_inference", {})
    server = data.get("server", {})
    if not isinstance(face, Mapping) or face.get("enabled") is True:
        return
    if face.get("echo_model") is True:
        yield problems.line("open_inference.echo_model", True, _NEEDS_FACE)
    if isinstance(server, Mapping) and server.get("allow_shared_memory") is True:
        yield problems.line("server.allow_shared_memory", True, _NEEDS_FACE)


def with_room(server: ServerSettings, face: OpenInferenceSettings) -> ServerSettings:
    """The settings of the server, with the largest message that the face needs unless one was given."""
    if face.enabled and "max_receive_mib" not in server.model_fields_set:
        return server.model_copy(update={"max_receive_mib": RECEIVE_MIB})
    return server
