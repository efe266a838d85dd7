"""The database file: layout, version, integrity, backups.

A file carries its schema version in `PRAGMA user_version`. An older file is copied aside, then upgraded in one
transaction; a newer one is refused. Every object row has a checksum, because SQLite's own check sees a broken
B-tree but not a flipped bit inside a value.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

VERSION = 1
APPLICATION_ID = 0x68656464  # "hedd"
KEEP_BACKUPS = 2
RESTORED_JUMP = 1_000_000
"""After a restore resourceVersions go on this far ahead, so that none that a client may remember is used twice."""

LAYOUT = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('resource_version', 1), ('compacted', 1);
CREATE TABLE objects (
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    version INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    object BLOB NOT NULL
);
CREATE UNIQUE INDEX objects_by_name ON objects (resource, namespace, name);
CREATE UNIQUE INDEX objects_by_uid ON objects (uid);
CREATE INDEX objects_by_namespace ON objects (namespace);
CREATE TABLE owners (
    owner TEXT NOT NULL,
    dependant TEXT NOT NULL,
    PRIMARY KEY (owner, dependant)
) WITHOUT ROWID;
CREATE INDEX owners_by_dependant ON owners (dependant);
CREATE TABLE changes (
    version INTEGER PRIMARY KEY,
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    object BLOB NOT NULL,
    previous BLOB
);
CREATE INDEX changes_by_name ON changes (resource, namespace, name, version);
"""

UPGRADES: dict[int, Callable[[sqlite3.Connection], None]] = {}
"""From version N to N + 1; each runs inside the upgrade's transaction."""


class StoreFileError(Exception):
    """The database file cannot be used; the message says why and what to do."""


class NewerSchema(StoreFileError):
    """The file was written by a newer heddle."""


class CorruptDatabase(StoreFileError):
    """The file is damaged."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought back and what it cost."""

    backup: Path
    taken_at: float
    resource_version: int
    last_resource_version: int | None
    damaged: Path | None

    def __str__(self) -> str:
        """One sentence for people."""
        taken = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.taken_at))
        if self.last_resource_version is None:
            lost = f"an unknown number of changes made since {taken} (after resourceVersion {self.resource_version})"
        else:
            count = self.last_resource_version - self.resource_version
            lost = f"{count} changes made since {taken} (resourceVersions {self.resource_version + 1} to "
            lost += f"{self.last_resource_version})" if count else ""
            lost = lost if count else f"nothing (no change since {taken})"
        kept = f"; the damaged file is kept as {self.damaged}" if self.damaged else ""
        return f"restored {self.backup}; lost: {lost}{kept}"


def connect(path: Path, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open a connection in WAL mode that leaves transactions to its caller."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA cache_size = -8000")
    return connection


def prepare(path: Path) -> None:
    """Make the file ready for use: create it, or check it and upgrade it.

    Raises:
        NewerSchema: a newer heddle wrote it.
        CorruptDatabase: it is damaged; names the page or object and the newest backup.
        StoreFileError: it cannot be opened.
    """
    if not path.exists() or path.stat().st_size == 0:
        _create(path)
        return
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > VERSION:
                raise NewerSchema(
                    f"{path} has schema version {version}, written by a newer heddle; this heddle knows version "
                    f"{VERSION}: upgrade heddle, or start with another data directory"
                )
            findings = _check(connection)
    except sqlite3.DatabaseError as error:
        findings = [str(error)]
        version = VERSION
        if isinstance(error, sqlite3.OperationalError) and "unable to open" in str(error):
            raise StoreFileError(f"cannot open {path}: {error}") from error
    if findings:
        raise CorruptDatabase(_corrupt(path, findings))
    if version < VERSION:
        _upgrade(path, version)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    os.close(descriptor)
    with contextlib.closing(connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.executescript(f"BEGIN; {LAYOUT} PRAGMA user_version = {VERSION}; COMMIT;")


def _check(connection: sqlite3.Connection) -> list[str]:
    findings = [row[0] for row in connection.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
    if findings:
        tables = {
            int(root): name
            for name, root in connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage")
        }
        return [_named(line, tables) for finding in findings for line in finding.splitlines() if "***" not in line]
    has_objects = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'objects'").fetchone()
    if not has_objects:
        return ["table objects is missing"]
    return [
        f"object {resource.lstrip('/')} {namespace}/{name} does not match its checksum"
        for resource, namespace, name, checksum, blob in connection.execute(
            "SELECT resource, namespace, name, checksum, object FROM objects"
        )
        if zlib.crc32(blob) != checksum
    ][:5]


def _named(line: str, tables: dict[int, str]) -> str:
    tree = re.search(r"(?:Tree|On tree page) (\d+)", line)
    table = tables.get(int(tree[1])) if tree else None
    return f"{line} (in {table})" if table else line


def _corrupt(path: Path, findings: list[str]) -> str:
    newest = next(iter(backups(path)), None)
    remedy = (
        f"the newest backup is {newest}: heddle up --restore-backup puts it back"
        if newest
        else "there is no backup: move the file away to start empty"
    )
    return f"{path} is damaged: {'; '.join(findings)}; {remedy}"


def _upgrade(path: Path, version: int) -> None:
    backup(path, label=f"v{version}")
    with contextlib.closing(connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for step in range(version, VERSION):
            UPGRADES[step](connection)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")


def backups(path: Path) -> list[Path]:
    """Backups of a database, newest first."""
    found = [p for p in path.parent.glob(f"{path.name}.backup-*") if not p.name.endswith(("-wal", "-shm", ".partial"))]
    return sorted(found, key=lambda p: p.name.split(".backup-")[1], reverse=True)


def backup_age(path: Path) -> float:
    """Seconds since the newest backup was taken; infinite where there is none."""
    newest = next(iter(backups(path)), None)
    return time.time() - newest.stat().st_mtime if newest else float("inf")


def backup(path: Path, *, label: str = "", keep: int = KEEP_BACKUPS) -> Path:
    """Copy the database as it is now, while it is in use, and drop all but the newest `keep` backups."""
    stamp = f"{time.time():017.6f}"
    target = path.with_name(f"{path.name}.backup-{stamp}{'-' + label if label else ''}")
    partial = target.with_name(target.name + ".partial")
    try:
        with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
        partial.chmod(0o600)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    for old in backups(path)[keep:]:
        old.unlink(missing_ok=True)
    return target


def restore_last_backup(path: Path) -> Restored:
    """Put the newest sound backup in the place of a damaged database; nothing may have it open.

    The damaged file is kept. What the result says is lost is lost: every change after the backup.

    Raises:
        StoreFileError: there is no sound backup.
    """
    for candidate in backups(path):
        try:
            with contextlib.closing(sqlite3.connect(candidate)) as connection:
                if _check(connection):
                    continue
                at = _resource_version(connection)
        except sqlite3.DatabaseError:
            continue
        last = _last_version(path)
        damaged = _set_aside(path)
        partial = path.with_name(path.name + ".partial")
        shutil.copyfile(candidate, partial)
        ahead = max(at, last or 0) + RESTORED_JUMP
        with contextlib.closing(sqlite3.connect(partial)) as connection, connection:
            connection.execute("UPDATE meta SET value = ? WHERE key IN ('resource_version', 'compacted')", (ahead,))
            connection.execute("DELETE FROM changes")
        partial.chmod(0o600)
        partial.replace(path)
        taken = float(re.match(r"[\d.]+", candidate.name.split(".backup-")[1])[0])  # type: ignore[index]
        return Restored(candidate, taken, at, last, damaged)
    raise StoreFileError(f"there is no sound backup of {path}")


def _resource_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE key = 'resource_version'").fetchone()[0])


def _last_version(path: Path) -> int | None:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return _resource_version(connection)
    except sqlite3.Error:
        return None


def _set_aside(path: Path) -> Path | None:
    if not path.exists():
        return None
    damaged = path.with_name(f"{path.name}.damaged-{int(time.time())}")
    for suffix in ("-wal", "-shm"):
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.replace(damaged.with_name(damaged.name + suffix))
    return path.replace(damaged)
