"""Bearer tokens: who is calling.

The file has the form of Kubernetes' static token file, one line a user: `token,user,uid,"group1,group2"`
(https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file).
"""

import csv
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from heddle.api.errors import Unauthorized

ADMINS = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    """Name and groups of a caller."""

    name: str
    groups: tuple[str, ...] = ()


class Tokens:
    """The tokens of one file, read once."""

    def __init__(self, users: dict[str, User]) -> None:
        self._users = users

    @staticmethod
    def read(path: Path) -> "Tokens":
        """Read a token file.

        Raises:
            ValueError: names the line that is not `token,user,uid[,"groups"]`.
        """
        users = {}
        with path.open(newline="") as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                if not row:
                    continue
                if len(row) < 3 or not row[0] or not row[1]:
                    raise ValueError(f'{path}, line {number}: write token,user,uid,"group1,group2"')
                groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
                users[row[0]] = User(row[1], groups)
        return Tokens(users)

    def authenticate(self, header: str | None) -> User:
        """The user of an Authorization header.

        Raises:
            Unauthorized: there is no header, or its token is not known.
        """
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() == "bearer":
            for known, user in self._users.items():
                if hmac.compare_digest(known.encode(), token.strip().encode()):
                    return user
        raise Unauthorized("Unauthorized: send 'Authorization: Bearer TOKEN' with a token of this heddle")


def ensure_token_file(path: Path, user: str) -> str:
    """The first token of the file, which is made (readable by its owner only) where it is missing."""
    if path.exists():
        with path.open(newline="") as lines:
            for row in csv.reader(lines):
                if row:
                    return row[0]
    token = secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="") as out:
        csv.writer(out).writerow([token, user, "1", ADMINS])
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    return token
