"""Who may call what: every call has a scope, and the gate asks for it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import segmentd
from segmentd.errors import Reason, SegmentdError
from segmentd.rpc.access import SCOPES, Gate, is_local
from segmentd.rpc.tokens import Scope, Tokens

LOCAL = "ipv4:127.0.0.1:41000"
REMOTE = "ipv4:192.0.2.7:41000"
GET, SUBMIT, DELETE = (
    "/segmentd.v1.ModelService/GetModel",
    "/segmentd.v1.SegmentationService/SegmentPlane",
    "/segmentd.v1.ModelService/DeleteModel",
)
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def test_every_call_of_every_service_has_a_scope_and_no_other_has() -> None:
    calls = set()
    package = Path(segmentd.__file__).parent
    for stub in package.rglob("*_pb2.py"):
        name = ".".join(["segmentd", *stub.relative_to(package).with_suffix("").parts])
        for service in importlib.import_module(name).DESCRIPTOR.services_by_name.values():
            calls |= {f"/{service.full_name}/{method.name}" for method in service.methods}

    assert len(calls) > 30
    assert {*SCOPES} == calls | {REFLECTION}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.write_text("".join(f'{scope.name.lower()} = ["{token(scope)}"]\n' for scope in Scope))
    path.chmod(0o600)
    return Tokens(path)


def token(scope: Scope) -> str:
    return f"{scope.name:x<43}"


def sent(scope: Scope) -> list[tuple[str, str]]:
    return [("user-agent", "x"), ("authorization", f"Bearer {token(scope)}")]


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_includes_the_smaller_ones_only(tokens: Tokens, scope: Scope) -> None:
    gate = Gate(tokens, admin_over_network=False)
    for method, needed in SCOPES.items():
        if scope >= needed:
            gate.check(method, sent(scope), LOCAL)
        else:
            with pytest.raises(SegmentdError) as refused:
                gate.check(method, sent(scope), LOCAL)
            assert refused.value.reason is Reason.NOT_ALLOWED
            assert f"needs a token of scope {needed.name.lower()}" in refused.value.message


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", token(Scope.ADMIN))],
        [("authorization", f"Basic {token(Scope.ADMIN)}")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {token(Scope.ADMIN)}x")],
        [("authorization", f"Bearer {token(Scope.ADMIN)[:-1]}")],
        [*sent(Scope.READ), *sent(Scope.ADMIN)],
    ],
)
def test_no_valid_token_no_call_but_health(tokens: Tokens, metadata: list[tuple[str, str]]) -> None:
    gate = Gate(tokens, admin_over_network=False)
    for method in (GET, "/segmentd.v1.New/Call"):
        with pytest.raises(SegmentdError) as refused:
            gate.check(method, metadata, LOCAL)
        assert refused.value.reason is Reason.UNAUTHENTICATED
        assert token(Scope.ADMIN)[:-1] not in refused.value.message
    gate.check("/grpc.health.v1.Health/Check", metadata, REMOTE)


def test_a_call_without_an_entry_is_open_to_nobody(tokens: Tokens) -> None:
    for gate in (Gate(None, admin_over_network=True), Gate(tokens, admin_over_network=True)):
        with pytest.raises(SegmentdError, match="Call is open to nobody"):
            gate.check("/segmentd.v1.New/Call", sent(Scope.ADMIN), LOCAL)


def test_the_daemon_is_not_changed_from_other_machines_unless_allowed(tokens: Tokens) -> None:
    gate = Gate(tokens, admin_over_network=False)
    gate.check(SUBMIT, sent(Scope.ADMIN), REMOTE)
    gate.check(DELETE, sent(Scope.ADMIN), LOCAL)
    with pytest.raises(SegmentdError, match="admin_over_network") as refused:
        gate.check(DELETE, sent(Scope.ADMIN), REMOTE)
    assert refused.value.reason is Reason.NOT_ALLOWED
    Gate(tokens, admin_over_network=True).check(DELETE, sent(Scope.ADMIN), REMOTE)


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("unix:", True),
        ("unix:/run/segmentd/api.sock", True),
        (LOCAL, True),
        ("ipv4:127.9.9.9:1", True),
        ("ipv6:%5B::1%5D:1", True),
        ("ipv6:[::1]:1", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:1", True),
        ("ipv6:%5B::ffff:192.0.2.7%5D:1", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", False),
        (REMOTE, False),
        ("", False),
        ("localhost:1", False),
    ],
)
def test_who_is_on_this_machine(peer: str, local: bool) -> None:
    assert is_local(peer) is local
