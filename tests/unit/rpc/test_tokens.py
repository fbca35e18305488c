"""The token file: made once, ours alone, and read again when it changes."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from segmentd.errors import ConfigurationError
from segmentd.rpc.tokens import Scope, Tokens

OLD, NEW = "o" * 43, "n" * 43


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_the_first_start_makes_a_token_of_256_bits_for_each_scope(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokens.toml"
    tokens = Tokens(path)

    made = tomllib.loads(path.read_text(encoding="ascii"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {*made} == {"read", "submit", "admin"}
    assert len({token for (token,) in made.values()}) == 3
    for name, (token,) in made.items():
        assert len(token) * 6 >= 256
        assert tokens.scope_of(token) is Scope[name.upper()]
        assert Tokens(path).scope_of(token) is Scope[name.upper()]  # the second start keeps it
    assert tokens.scope_of("") is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "tokens", f'admin = ["{OLD}"]', mode)
    with pytest.raises(ConfigurationError, match=r"open to other users .*chmod 600 FILE") as refused:
        Tokens(path)
    assert f'server.token_file = "{path}"' in str(refused.value)


def test_a_credential_of_systemd_may_be_open_to_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "tokens", f'admin = ["{OLD}"]', 0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Tokens(path).scope_of(OLD) is Scope.ADMIN
    path.chmod(0o444)
    with pytest.raises(ConfigurationError, match="open to other users"):
        Tokens(path)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "has no token"),
        ("admin = []", "has no token"),
        (OLD, "must be TOML"),
        (f'admin = "{OLD}"', "list of one or two"),
        (f'admin = ["{OLD}", "{NEW}", "{OLD[1:]}x"]', "list of one or two"),
        (f'root = ["{OLD}"]', "no keys but"),
        ('admin = ["short"]', "32 to 512"),
        (f'admin = ["{OLD}\\n"]', "32 to 512"),
        (f'admin = ["{OLD}"]\nread = ["{OLD}"]', "same token twice"),
        ('admin = ["é"]', "must be TOML"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused_without_its_tokens(
    tmp_path: Path, text: str, rule: str
) -> None:
    with pytest.raises(ConfigurationError, match=rule) as refused:
        Tokens(write(tmp_path / "tokens", text))
    assert OLD[:20] not in str(refused.value)


def test_two_tokens_are_valid_during_a_rotation_and_no_restart_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens", f'read = ["{OLD}"]')
    tokens = Tokens(path)
    assert [tokens.scope_of(token) for token in (OLD, NEW)] == [Scope.READ, None]

    write(path, f'read = ["{OLD}", "{NEW}"]')
    assert [tokens.scope_of(token) for token in (OLD, NEW)] == [Scope.READ, Scope.READ]

    write(path, f'read = ["{NEW}"]', 0o644)  # no good: what was valid stays so
    assert [tokens.scope_of(token) for token in (OLD, NEW)] == [Scope.READ, Scope.READ]

    path.chmod(0o600)
    assert [tokens.scope_of(token) for token in (OLD, NEW)] == [None, Scope.READ]

    path.unlink()
    assert tokens.scope_of(NEW) is Scope.READ


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    with pytest.raises(ConfigurationError, match=r"server\.token_file = .*cannot be made"):
        Tokens(tmp_path / "file" / "tokens")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Tokens(tmp_path / "link")
