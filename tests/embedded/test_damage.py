"""A damaged or foreign database stops the start with one clear line; nothing is overwritten."""

import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

Heddle = Callable[..., subprocess.CompletedProcess[str]]


def test_a_corrupt_page_stops_the_start_and_a_backup_can_be_put_back(tmp_path: Path, command: Heddle) -> None:
    assert command(tmp_path, "up").returncode == 0
    assert command(tmp_path, "down", "--yes").returncode == 0
    database = tmp_path / "heddle.db"
    content = bytearray(database.read_bytes())
    content[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    database.write_bytes(content)
    up = command(tmp_path, "up")
    assert up.returncode == 1
    assert "heddle.db" in up.stderr
    assert "--restore-backup" in up.stderr
    assert "Traceback" not in up.stderr
    assert database.read_bytes() == bytes(content)


def test_a_database_of_a_newer_heddle_is_refused(tmp_path: Path, command: Heddle) -> None:
    assert command(tmp_path, "up").returncode == 0
    assert command(tmp_path, "down", "--yes").returncode == 0
    with sqlite3.connect(tmp_path / "heddle.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    up = command(tmp_path, "up")
    assert up.returncode == 1
    assert "999" in up.stderr
    assert "Traceback" not in up.stderr


def test_a_second_heddle_in_the_same_directory_is_told(tmp_path: Path, command: Heddle) -> None:
    assert command(tmp_path, "up").returncode == 0
    try:
        again = command(tmp_path, "up")
        assert again.returncode == 0
        assert "already up" in again.stdout
    finally:
        assert command(tmp_path, "down", "--yes").returncode == 0


def test_without_a_heddle_commands_say_how_to_start_one(tmp_path: Path, command: Heddle) -> None:
    for arguments in (("ps",), ("status",), ("run", "--", "true")):
        done = command(tmp_path, *arguments)
        assert done.returncode == 3
        assert "heddle up" in done.stderr + done.stdout
