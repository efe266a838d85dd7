"""Which server is meant."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from heddle.api.errors import Unavailable
from heddle.embedded.places import Places, Running
from heddle.sdk import connection

CONFIG = """
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1", certificate-authority: ca.crt}}]
users: [{name: u, user: {token: t}}]
"""


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """A data directory in which heddle seems to be up."""
    monkeypatch.setenv("HEDDLE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    places = Places.default()
    places.kubeconfig.write_text(CONFIG)
    places.running.write_bytes(msgspec.json.encode(Running(pid=os.getpid(), url="https://127.0.0.1:1", started=0)))
    monkeypatch.setattr(connection, "_simple", lambda path: f"embedded {path}")
    monkeypatch.setattr(connection.ClusterStore, "from_config", lambda path, context: f"{path} {context}")
    with places.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield places


def test_the_embedded_heddle_is_meant_where_nothing_is_said(up: Places) -> None:
    assert connection.connect() == f"embedded {up.kubeconfig}"


def test_an_exported_kubeconfig_wins_over_the_embedded_heddle(
    up: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.write_text(CONFIG)
    monkeypatch.setenv("KUBECONFIG", str(other))
    assert connection.connect() == f"{other} None"
    assert connection.connect(context="prod") == f"{other} prod"
    assert connection.connect(up.kubeconfig) == f"embedded {up.kubeconfig}"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}{os.pathsep}{other}")
    assert connection.connect() == f"{tmp_path / 'absent'}{os.pathsep}{other} None"


def test_a_kubeconfig_that_is_not_there_is_named(up: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    with pytest.raises(Unavailable, match=r"/nowhere/config: no such kubeconfig \(from \$KUBECONFIG\)"):
        connection.connect()


def test_a_heddle_that_was_killed_is_not_taken_for_up_though_somebody_has_its_pid_by_now(up: Places) -> None:
    assert up.find() is not None
    up.lock.unlink()  # the pid in running.json is this process's, which lives
    assert up.find() is None
    up.lock.touch()
    assert up.find() is None


def test_nothing_up_names_the_remedy(up: Places) -> None:
    up.running.unlink()
    with pytest.raises(Unavailable, match="start one with: heddle up"):
        connection.connect()
