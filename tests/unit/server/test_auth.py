"""Who is calling."""

import stat
from pathlib import Path

import pytest

from heddle.api.errors import Unauthorized
from heddle.server.auth import ADMINS, Tokens, ensure_token_file
from heddle.server.tls import ensure_certificate


def test_a_token_file_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    token = ensure_token_file(path, "admin")
    assert ensure_token_file(path, "admin") == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    user = Tokens.read(path).authenticate(f"Bearer {token}")
    assert (user.name, user.groups) == ("admin", (ADMINS,))


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic c2VjcmV0", "secret"])
def test_anything_but_a_known_token_is_refused(tmp_path: Path, header: str | None) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text('secret,ann,7,"a,b"\n\nother,bob,8\n')
    tokens = Tokens.read(path)
    assert tokens.authenticate("bearer secret").groups == ("a", "b")
    assert tokens.authenticate("Bearer other").groups == ()
    with pytest.raises(Unauthorized):
        tokens.authenticate(header)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text("secret,ann,7\njust-a-token\n")
    with pytest.raises(ValueError, match="line 2"):
        Tokens.read(path)


def test_the_key_of_the_certificate_is_its_owners(tmp_path: Path) -> None:
    certificate, key = ensure_certificate(tmp_path)
    before = certificate.read_bytes()
    assert ensure_certificate(tmp_path) == (certificate, key)
    assert certificate.read_bytes() == before
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
