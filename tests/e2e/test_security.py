"""Who gets in: TLS, tokens, client certificates, the Unix socket, and what is too much."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import stat
import struct
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from segmentctl import Client, DaemonError

from .certificates import Authority, Pair
from .daemon import DaemonProcess, free_port, run, run_here, wait_until

pytestmark = pytest.mark.e2e

_MIB = 1 << 20


@dataclass(frozen=True)
class Guarded:
    """A daemon with TLS, tokens and a Unix socket."""

    daemon: DaemonProcess
    authority: Authority
    socket: Path
    tokens: dict[str, str]

    def client(self, scope: str = "", **more: str | Path) -> Client:
        token = self.tokens.get(scope)
        return Client(self.daemon.address, timeout=20, **{"ca": self.authority.ca, "token": token, **more})


@pytest.fixture(scope="module")
def guarded(blobs_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder / "pki", "ca")
    pair = authority.issue("server", "127.0.0.1")
    models = folder / "models"
    models.mkdir()
    shutil.copy(blobs_model, models)
    daemon = DaemonProcess(
        folder,
        models,
        watches=[],
        server={
            "tls_certificate": str(pair.certificate),
            "tls_key": str(pair.key),
            "token_file": "tokens.toml",
            "unix_socket": "run/api.sock",
        },
    )
    daemon.environment["SEGMENTD_LOG"] = "debug"
    with daemon:
        made = tomllib.loads((folder / "tokens.toml").read_text())
        tokens = {scope: tokens[0] for scope, tokens in made.items()}
        yield Guarded(daemon, authority, folder / "run" / "api.sock", tokens)
        log = daemon.log_path.read_text()
        assert not [token for token in tokens.values() if token in log]


def refusal(act: object) -> DaemonError:
    with pytest.raises(DaemonError) as caught:
        act()  # type: ignore[operator]
    return caught.value


# ---------------------------------------------------------------- tokens


def test_a_call_needs_a_token_and_health_does_not(guarded: Guarded) -> None:
    with guarded.client() as nobody, guarded.client(token="x" * 43) as stranger:
        for client, text in ((nobody, "a token is needed"), (stranger, "the token is not valid")):
            error = refusal(client.server)
            assert (error.code, error.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
            assert text in error.message and "--token-file" in error.message
            assert refusal(lambda: next(client.subscribe())).code == "UNAUTHENTICATED"  # noqa: B023
    with grpc.insecure_channel(f"unix:{guarded.socket}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_each_scope_does_what_it_is_for(guarded: Guarded) -> None:
    with (
        guarded.client("read") as reader,
        guarded.client("submit") as sender,
        guarded.client("admin") as admin,
    ):
        assert reader.server().version == sender.server().version
        error = refusal(lambda: reader.load_model("blobs"))
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "NOT_ALLOWED")
        assert "LoadModel needs a token of scope submit" in error.message
        sender.load_model("blobs")
        assert refusal(lambda: sender.unload_model("blobs")).code == "PERMISSION_DENIED"
        admin.unload_model("blobs")


@pytest.mark.slow
def test_segmentctl_takes_tokens_from_files(guarded: Guarded, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(guarded.tokens["read"] + "\n")
    address = ("--address", guarded.daemon.address, "--ca", guarded.authority.ca)
    run(*address, "--token-file", file, "status", module="segmentctl")
    refused = run(*address, "status", module="segmentctl", code=1)
    assert "a token is needed" in refused.stderr and "--token-file" in refused.stderr


# ---------------------------------------------------------------- TLS


def test_who_does_not_trust_the_daemon_or_speaks_plainly_is_told(guarded: Guarded, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    with guarded.client("read", ca=other.ca) as client:
        assert "No authority that you trust vouches" in refusal(client.server).message
    with Client(guarded.daemon.address, token=guarded.tokens["read"]) as client:
        assert "closes the connection at once. If it uses TLS" in refusal(client.server).message


@pytest.mark.parametrize("old", [False, True])
def test_tls_1_2_and_not_1_1(guarded: Guarded, old: bool) -> None:
    context = ssl.create_default_context(cafile=str(guarded.authority.ca))
    context.set_alpn_protocols(["h2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TLS 1.1, which is why we are here
        context.set_ciphers("ALL:@SECLEVEL=0")
        version = ssl.TLSVersion.TLSv1_1 if old else ssl.TLSVersion.TLSv1_2
        context.minimum_version = context.maximum_version = version
    host, port = guarded.daemon.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        if old:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_hostname=host)
            log = guarded.daemon.log_path
            wait_until(lambda: "UNSUPPORTED_PROTOCOL" in log.read_text(), "gRPC says why")
        else:
            with context.wrap_socket(plain, server_hostname=host) as secured:
                assert secured.version() == "TLSv1.2"


def test_client_certificates_and_a_renewal_without_restart(blobs_model: Path, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "theirs", "theirs")
    friend, stranger = ours.issue("friend"), theirs.issue("stranger")
    server = Pair(tmp_path / "server.pem", tmp_path / "server.key")
    _install(ours.issue("server", "127.0.0.1"), server)
    keys = {"tls_certificate": "../server.pem", "tls_key": "../server.key", "client_ca": str(ours.ca)}

    with DaemonProcess(tmp_path / "place", blobs_model.parent, watches=[], server=keys) as daemon:

        def call(pair: Pair | None, ca: Path) -> str:
            own = {} if pair is None else {"certificate": pair.certificate, "key": pair.key}
            with Client(daemon.address, ca=ca, timeout=20, **own) as client:
                return client.server().version

        assert call(friend, ours.ca)
        for pair in (stranger, None):
            message = refusal(lambda: call(pair, ours.ca)).message  # noqa: B023
            assert "if it asks for client certificates, one that it accepts" in message

        renewed = theirs.issue("renewed", "127.0.0.1")
        _install(Pair(renewed.certificate, server.key), server)  # half of it: not yet
        assert call(friend, ours.ca)
        _install(renewed, server)
        assert call(friend, theirs.ca)
        assert "No authority that you trust" in refusal(lambda: call(friend, ours.ca)).message


def _install(pair: Pair, at: Pair) -> None:
    for source, target in ((pair.certificate, at.certificate), (pair.key, at.key)):
        if source != target:
            shutil.copy(source, target)


def test_the_network_is_for_segmenting_and_this_machine_for_changes(
    blobs_model: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but tells which address we would send from
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]
    authority = Authority(tmp_path / "pki", "ca")
    pair = authority.issue("server", own)
    keys = {"tls_certificate": str(pair.certificate), "tls_key": str(pair.key), "token_file": "tokens.toml"}
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(blobs_model, models)

    with DaemonProcess(
        tmp_path / "place", models, [], {"listen": f"{own}:0", "unix_socket": "run/api.sock", **keys}
    ) as daemon:
        token = tomllib.loads((daemon.folder / "tokens.toml").read_text())["admin"][0]
        with (
            Client(daemon.address, ca=authority.ca, token=token) as far,
            Client(f"unix:{daemon.folder}/run/api.sock", token=token) as near,
        ):
            far.load_model("blobs")
            error = refusal(lambda: far.unload_model("blobs"))
            assert error.code == "PERMISSION_DENIED" and "admin_over_network" in error.message
            near.unload_model("blobs")


# ---------------------------------------------------------------- the Unix socket


def test_the_socket_is_for_us_and_our_group(guarded: Guarded) -> None:
    assert stat.S_IMODE(guarded.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE(guarded.socket.parent.stat().st_mode) == 0o750
    with Client(f"unix:{guarded.socket}", token=guarded.tokens["read"]) as client:
        assert client.server().version


@pytest.mark.slow  # stale and living sockets are tested without a daemon too
def test_a_socket_alone_outlives_a_crash_and_is_not_taken_from_the_living(
    blobs_model: Path, tmp_path: Path
) -> None:
    keys = {"listen": "", "unix_socket": "run/api.sock"}
    with DaemonProcess(tmp_path / "one", blobs_model.parent, watches=[], server=keys) as daemon:
        path = daemon.folder / "run" / "api.sock"
        assert daemon.address == f"unix:{path}"
        daemon.kill()
        assert path.exists()
        daemon.start()
        with daemon.client() as client:
            assert client.server().version
            other = DaemonProcess(
                tmp_path / "two", blobs_model.parent, [], {"listen": "", "unix_socket": str(path)}
            )
            refused = run("run", "--config", other.write_config(), code=73)
            assert f"in use by process {daemon.pid}" in refused.stderr
            assert client.server().version
        daemon.stop()
        assert not path.exists()


# ---------------------------------------------------------------- refusals at the start


def test_a_default_start_listens_on_loopback_only(blobs_model: Path, tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, blobs_model.parent, watches=[]) as daemon:
        own = {link.readlink().name for link in Path(f"/proc/{daemon.pid}/fd").iterdir() if link.is_symlink()}
        listening = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{daemon.pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and f"socket:[{inode}]" in own:
                    listening.add(local)
        port = int(daemon.address.rpartition(":")[2])
        mapped = f"0000000000000000FFFF00000100007F:{port:04X}"
        assert listening and listening <= {f"0100007F:{port:04X}", mapped}


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "HOSTNAME"])
def test_a_network_address_needs_tls_and_a_way_to_know_callers(
    tmp_path: Path, host: str, guarded: Guarded
) -> None:
    listen = f"{socket.gethostname() if host == 'HOSTNAME' else host}:{free_port()}"
    pair = guarded.authority.issue("unused", "127.0.0.1")
    tls = f'tls_certificate = "{pair.certificate}"\ntls_key = "{pair.key}"\n'
    for more, missing in (
        ("", "give tls_certificate and tls_key, and token_file or client_ca"),
        (tls, "give token_file or client_ca"),
        ('token_file = "tokens"\n', "give tls_certificate and tls_key"),
    ):
        config = tmp_path / "s.toml"
        config.write_text(f'[server]\nlisten = "{listen}"\n{more}[journal]\nfolder = "journal"\n')
        if host == "0.0.0.0" and not more:
            run("run", "--config", config, code=78)
        refused = run_here("check-config", config, code=78)
        assert f'server.listen = "{listen}": must be a loopback address' in refused.stderr
        assert refused.stderr.rstrip().endswith(missing)


def test_a_token_file_that_others_can_read_is_refused(blobs_model: Path, tmp_path: Path) -> None:
    place = DaemonProcess(tmp_path / "place", blobs_model.parent, [], {"token_file": "tokens.toml"})
    tokens = place.folder / "tokens.toml"
    tokens.write_text(f'admin = ["{"x" * 43}"]')
    tokens.chmod(0o644)
    refused = run("run", "--config", place.write_config(), code=78)
    assert "open to other users (mode 0644); run: chmod 600 FILE" in refused.stderr
    assert "xxx" not in refused.stderr


# ---------------------------------------------------------------- too much


def test_messages_and_metadata_beyond_the_limits_are_refused(guarded: Guarded) -> None:
    def code(size: int, *metadata: tuple[str, str]) -> grpc.StatusCode:
        request = health_pb2.HealthCheckRequest(service="x" * size)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(request, metadata=metadata, timeout=20)
        assert isinstance(caught.value, grpc.Call)
        found: grpc.StatusCode = caught.value.code()
        return found

    with grpc.insecure_channel(f"unix:{guarded.socket}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        overhead = 5  # bytes of the field's tag and length
        assert code(4 * _MIB - overhead) is grpc.StatusCode.NOT_FOUND  # taken, and no such service
        assert code(4 * _MIB - overhead + 1) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert code(1, ("x-large", "x" * 9000)) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_api_does_not_describe_itself_unless_asked_to(guarded: Guarded) -> None:
    with grpc.insecure_channel(f"unix:{guarded.socket}") as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ServerReflectionInfo(iter([request]), timeout=20))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_129th_stream_waits_and_others_live(guarded: Guarded) -> None:
    address = f"unix:{guarded.socket}"
    async with (
        grpc.aio.insecure_channel(address) as crowded,
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as other,
    ):
        request = health_pb2.HealthCheckRequest()
        stub = health_pb2_grpc.HealthStub(crowded)
        watching = [stub.Watch(request) for _ in range(128)]
        await asyncio.wait_for(asyncio.gather(*(watch.read() for watch in watching)), 30)
        waiting = asyncio.ensure_future(stub.Check(request, timeout=30))
        await health_pb2_grpc.HealthStub(other).Check(request, timeout=20)
        assert not waiting.done()
        watching[0].cancel()
        assert (await waiting).status == health_pb2.HealthCheckResponse.SERVING


def test_who_floods_with_pings_is_sent_away(guarded: Guarded) -> None:
    goaway, enhance_your_calm = 7, 11
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(guarded.socket))
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, b"") + _frame(6, bytes(8)) * 20)
        received = b""
        while True:
            more = sock.recv(65536)
            if not more:
                break
            received += more
    codes = [struct.unpack(">I", body[4:8])[0] for kind, body in _frames(received) if kind == goaway]
    assert enhance_your_calm in codes


def _frame(kind: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes([kind, 0]) + bytes(4) + body


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        yield data[3], data[9 : 9 + length]
        data = data[9 + length :]
