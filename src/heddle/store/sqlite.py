"""The Store of one machine: objects in a SQLite file.

How it stays correct. One thread writes. It takes all writes that wait, runs each in a savepoint of one
transaction, commits, and only then acknowledges them and wakes the watchers: so a write that was acknowledged is
on the disk (`synchronous=FULL`), a write that failed leaves nothing, and concurrent writers share one fsync.
Readers use connections of their own and see committed states only. What a write does to other objects (garbage
collection) is part of its transaction. Calls may come from any event loop.
"""

import asyncio
import base64
import contextlib
import contextvars
import logging
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from heddle.api.errors import (
    ApiError,
    BadRequest,
    Expired,
    InsufficientStorage,
    InternalError,
    MethodNotAllowed,
    Unavailable,
)
from heddle.api.registry import EVENTS, NAMESPACES, Resource
from heddle.store import objects, schema
from heddle.store.port import INITIAL_EVENTS_END, Object, Page, Patch, PatchType, Propagation, Watched
from heddle.store.transaction import Admit, Transaction, key, not_found
from heddle.store.watchers import Change, Filter, Hub, Waiter

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_MOST = 256
_HOUSEKEEPING = 30.0

_PAGE = """
SELECT namespace, name, object FROM (
    SELECT namespace, name, object FROM objects
    WHERE resource = :resource AND version <= :version
    UNION ALL
    SELECT namespace, name, previous FROM changes AS c
    WHERE resource = :resource AND version > :version AND previous IS NOT NULL AND version = (
        SELECT min(version) FROM changes
        WHERE resource = c.resource AND namespace = c.namespace AND name = c.name AND version > :version
    )
)
WHERE (:namespace = '' OR namespace = :namespace) AND (namespace, name) > (:after_namespace, :after_name)
ORDER BY namespace, name
"""
_FIRST = """
SELECT namespace, name, object FROM objects
WHERE resource = :resource AND (:namespace = '' OR namespace = :namespace) ORDER BY namespace, name
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept beside the objects, and for how long."""

    changes: int = 20_000
    """Newest changes kept for watches to resume from and for pages to be consistent."""
    events: float = 3600
    """Seconds that Event objects live, as in Kubernetes."""
    backup_every: float = 3600
    """Seconds between backups; 0 for none."""
    backups: int = schema.KEEP_BACKUPS


class _Token(msgspec.Struct):
    v: int
    ns: str
    n: str


@dataclass(slots=True)
class _Write:
    run: Callable[[Transaction], Any]
    dry: bool
    context: contextvars.Context
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


_Batch = list[_Write]
_Changes = list[Change]
_Outcomes = list[tuple[_Write, Any, BaseException | None]]
_Sleepers = list[Waiter]


class SQLiteStore:
    """A `Store` over one SQLite file. Open it with `SQLiteStore.open`, and close it."""

    def __init__(
        self, path: Path, admit: Admit | None, retention: Retention, bookmark_every: float, synchronous: str
    ) -> None:
        self.path = path
        self._admit = admit
        self._retention = retention
        self._bookmark_every = bookmark_every
        self._writer = schema.connect(path, synchronous=synchronous)
        self._reader = schema.connect(path, synchronous=synchronous)
        self._reader.execute("PRAGMA query_only = ON")
        self._lister = ThreadPoolExecutor(1, thread_name_prefix="heddle-store-read")
        self._list_connection = schema.connect(path, synchronous=synchronous)
        self._list_connection.execute("PRAGMA query_only = ON")
        self._version = self._meta("resource_version")
        self._hub = Hub(self._version)
        self._closed = threading.Event()
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._reading = threading.Lock()
        self._threads = [
            threading.Thread(target=self._write_forever, name="heddle-store-write", daemon=True),
            threading.Thread(target=self._keep_house, name="heddle-store-house", daemon=True),
        ]

    @classmethod
    def open(
        cls,
        path: str | Path,
        admit: Admit | None = None,
        *,
        retention: Retention | None = None,
        bookmark_every: float = 60,
        synchronous: str = "FULL",
    ) -> "SQLiteStore":
        """Open a database, creating it (with the namespace `default`) where there is none.

        Args:
            path: the file; its folder also holds the write-ahead log and the backups.
            admit: defaults and validates each write inside its transaction, in the writer thread; it may raise
                an ApiError. Called with (resource, old or None, new, "CREATE" | "UPDATE" | "STATUS").
            retention: what is kept, and how long.
            bookmark_every: seconds between the bookmarks of a watch.
            synchronous: SQLite's setting. With NORMAL a power cut (not a crash) may lose the last writes.

        Raises:
            NewerSchema: a newer heddle wrote the file.
            CorruptDatabase: it is damaged; `heddle.store.schema.restore_last_backup` puts a backup back.
        """
        path = Path(path)
        schema.prepare(path)
        store = cls(path, admit, retention or Retention(), bookmark_every, synchronous)
        store._bootstrap()
        for thread in store._threads:
            thread.start()
        return store

    # reads

    async def get(self, r: Resource, name: str, namespace: str = "") -> bytes:
        """See `Store.get`. One indexed read on the calling thread: tens of microseconds."""
        self._check_open()
        with self._reading, _explained(self.path):
            row = self._reader.execute(
                "SELECT object FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
                (key(r), namespace if r.namespaced else "", name),
            ).fetchone()
        if row is None:
            raise not_found(r, name)
        return bytes(row[0])

    async def list(
        self,
        r: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
    ) -> Page:
        """See `Store.list`. Read and filtered in a thread of its own."""
        self._check_open()
        selected = Filter.parse(r, namespace, label_selector, field_selector)
        token = _parse_token(continue_) if continue_ else None
        return await asyncio.get_running_loop().run_in_executor(self._lister, self._list, r, selected, limit, token)

    def _list(self, r: Resource, selected: Filter, limit: int, token: _Token | None) -> Page:
        connection = self._list_connection
        with _explained(self.path), _reading(connection):
            version = _meta(connection, "resource_version")
            if token is None:
                rows = connection.execute(_FIRST, {"resource": key(r), "namespace": selected.namespace})
            else:
                version = token.v
                if version < _meta(connection, "compacted"):
                    raise Expired("The provided continue parameter is too old: start the list again without it")
                rows = connection.execute(
                    _PAGE,
                    {
                        "resource": key(r),
                        "namespace": selected.namespace,
                        "version": version,
                        "after_namespace": token.ns,
                        "after_name": token.n,
                    },
                )
            items: list[bytes] = []
            last = ("", "")
            for namespace, name, blob in rows:
                if limit and len(items) == limit:
                    if not selected.everything:
                        if not selected.selects(blob):
                            continue
                        return Page(tuple(items), str(version), _token(version, last))
                    return Page(tuple(items), str(version), _token(version, last), 1 + sum(1 for _ in rows))
                if selected.everything or selected.selects(blob):
                    items.append(blob)
                    last = (namespace, name)
            return Page(tuple(items), str(version))

    async def watch(
        self,
        r: Resource,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = False,
        send_initial_events: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Watched]:
        """See `Store.watch`."""
        self._check_open()
        selected = Filter.parse(r, namespace, label_selector, field_selector)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        resource = key(r)
        waiter = self._hub.join(resource)
        try:
            if resource_version in ("", "0") or send_initial_events:
                page = await loop.run_in_executor(self._lister, self._list, r, selected, 0, None)
                for blob in page.items:
                    yield Watched("ADDED", _version_of(blob), blob)
                position = int(page.resource_version)
                if send_initial_events and bookmarks:
                    yield _bookmark(r, position, {INITIAL_EVENTS_END: "true"})
            else:
                position = _parse_version(resource_version)
            bookmark_at = loop.time() + self._bookmark_every
            final = bookmarks and deadline is not None
            while not self._closed.is_set():
                waiter.event.clear()
                recent, reached = self._hub.since(resource, position)
                if recent is not None:
                    changes = recent
                else:
                    changes, reached = await loop.run_in_executor(
                        self._lister, self._logged, resource, position, reached
                    )
                for change in changes:
                    if (event := selected.event(change)) is not None:
                        yield event
                position = max(position, reached)
                now = loop.time()
                if deadline is not None and now >= deadline:
                    return
                if bookmarks and now >= bookmark_at:
                    yield _bookmark(r, position)
                    bookmark_at = now + self._bookmark_every
                wake = min((t for t in (deadline, bookmark_at if bookmarks else None) if t is not None), default=None)
                if final and deadline is not None and now < deadline - 0.2:
                    wake = min(wake or deadline, deadline - 0.2)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(wake):
                        await waiter.event.wait()
                if final and deadline is not None and loop.time() >= deadline - 0.2 and not waiter.event.is_set():
                    yield _bookmark(r, position)  # so that the next watch resumes from here
                    final = False
        finally:
            self._hub.leave(resource, waiter)

    def _logged(self, resource: str, version: int, reached: int) -> tuple[_Changes, int]:
        connection = self._list_connection
        with _explained(self.path), _reading(connection):
            compacted = _meta(connection, "compacted")
            if version < compacted:
                raise Expired(f"too old resource version: {version} ({compacted})")
            rows = connection.execute(
                "SELECT version, namespace, type, object, previous FROM changes "
                "WHERE version > ? AND version <= ? AND resource = ? ORDER BY version LIMIT 1000",
                (version, reached, resource),
            ).fetchall()
        changes = [Change(v, resource, ns, type_, blob, previous) for v, ns, type_, blob, previous in rows]
        return changes, changes[-1].version if len(changes) == 1000 else reached

    # writes

    async def create(
        self, r: Resource, obj: Object, namespace: str = "", *, subresource: str = "", dry_run: bool = False
    ) -> bytes:
        """See `Store.create`."""
        obj = _copy(obj)
        if subresource == "binding" and subresource in r.subresources:
            return await self._write(lambda tx: tx.bind(obj, r, namespace), dry_run)
        if subresource:
            raise MethodNotAllowed(f"{r.plural}/{subresource} cannot be created")
        return await self._write(lambda tx: tx.create(r, _copy(obj), namespace), dry_run)

    async def replace(self, r: Resource, obj: Object, *, subresource: str = "", dry_run: bool = False) -> bytes:
        """See `Store.replace`."""
        obj = _copy(obj)
        return await self._write(lambda tx: tx.replace(r, _copy(obj), subresource), dry_run)

    async def patch(
        self,
        r: Resource,
        name: str,
        patch: Patch,
        *,
        namespace: str = "",
        type: PatchType = PatchType.MERGE,  # noqa: A002
        subresource: str = "",
        dry_run: bool = False,
    ) -> bytes:
        """See `Store.patch`."""
        return await self._write(lambda tx: tx.patch(r, name, _copy(patch), namespace, type, subresource), dry_run)

    async def delete(
        self,
        r: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: Propagation = "Background",
        grace_period: int | None = None,
    ) -> bytes:
        """See `Store.delete`."""
        return await self._write(
            lambda tx: tx.delete(
                r,
                name,
                namespace,
                uid=uid,
                resource_version=resource_version,
                propagation=propagation,
                grace_period=grace_period,
            )
        )

    async def compact(self, keep: int = 0) -> None:
        """Forget all but the newest `keep` changes; watches that stand before them get Expired."""
        await self._write(lambda tx: _compact(tx, keep))
        self._hub.forget(self._compacted())

    async def backup(self) -> Path:
        """Take a backup now."""
        self._check_open()
        return await asyncio.to_thread(schema.backup, self.path, keep=self._retention.backups)

    async def close(self) -> None:
        """End all watches, finish the writes that wait, close the file."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._wake(self._hub.everyone(), [])
        self._writes.put(None)
        for thread in self._threads:
            thread.join()
        while not self._writes.empty():
            write = self._writes.get_nowait()
            if write is not None:
                self._wake(set(), [(write, None, Unavailable("the store is closed"))])
        self._lister.shutdown()
        for connection in (self._reader, self._list_connection, self._writer):
            connection.close()

    async def _write(self, run: Callable[[Transaction], _T], dry: bool = False) -> _T:
        self._check_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._writes.put(_Write(run, dry, contextvars.copy_context(), loop, future))
        return await future

    # the writer thread

    def _write_forever(self) -> None:
        while True:
            first = self._writes.get()
            if first is None:
                return
            batch = [first]
            ending = False
            while len(batch) < _MOST:
                try:
                    following = self._writes.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ending = True
                    break
                batch.append(following)
            self._commit(batch)
            if ending:
                return

    def _commit(self, batch: _Batch) -> None:
        """Run a batch in one transaction; where the database itself fails, each write on its own."""
        try:
            outcomes, changes, version = self._attempt(batch)
        except Exception as error:
            if self._writer.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
            if len(batch) > 1:
                for write in batch:
                    self._commit([write])
                return
            self._wake(set(), [(batch[0], None, _translate(error, self.path))])
            return
        self._version = version
        woken = self._hub.publish(changes, version)
        self._wake(woken, outcomes)

    def _attempt(self, batch: _Batch) -> tuple[_Outcomes, _Changes, int]:
        outcomes: _Outcomes = []
        changes: _Changes = []
        version = self._version
        execute = self._writer.execute
        execute("BEGIN IMMEDIATE")
        for write in batch:
            tx = Transaction(self._writer, version, self._admit)
            execute("SAVEPOINT one")
            try:
                result = write.context.run(write.run, tx)
            except sqlite3.Error:
                raise
            except Exception as error:
                execute("ROLLBACK TO one")
                outcomes.append((write, None, _translate(error, self.path)))
            else:
                if write.dry:
                    execute("ROLLBACK TO one")
                else:
                    version = tx.version
                    changes += tx.changes
                outcomes.append((write, result, None))
            execute("RELEASE one")
        if version != self._version:
            execute("UPDATE meta SET value = ? WHERE key = 'resource_version'", (version,))
        execute("COMMIT")
        return outcomes, changes, version

    def _wake(self, waiters: set[Waiter], outcomes: _Outcomes) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, tuple[_Outcomes, _Sleepers]] = defaultdict(lambda: ([], []))
        for outcome in outcomes:
            by_loop[outcome[0].loop][0].append(outcome)
        for waiter in waiters:
            by_loop[waiter.loop][1].append(waiter)
        for loop, (answers, sleepers) in by_loop.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(_deliver, answers, sleepers)

    # the housekeeping thread

    def _keep_house(self) -> None:
        first = self._retention.backup_every if schema.backups(self.path) else min(60, self._retention.backup_every)
        next_backup = time.monotonic() + first
        while not self._closed.wait(_HOUSEKEEPING):
            try:
                self._submit(lambda tx: _compact(tx, self._retention.changes))
                self._submit(lambda tx: _expire_events(tx, self._retention.events))
                if self._retention.backup_every and time.monotonic() >= next_backup:
                    schema.backup(self.path, keep=self._retention.backups)
                    next_backup = time.monotonic() + self._retention.backup_every
            except Exception:
                log.exception("housekeeping of %s failed; it is tried again", self.path)

    def _submit(self, run: Callable[[Transaction], Any]) -> None:
        """A write that nobody waits for."""
        loop = _Nobody()
        self._writes.put(_Write(run, False, contextvars.copy_context(), loop, None))  # type: ignore[arg-type]

    # small things

    def _bootstrap(self) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        tx = Transaction(self._writer, self._version, None)
        if tx.find(NAMESPACES, "", "default") is None:
            tx.create(NAMESPACES, {"metadata": {"name": "default"}}, "")
            self._writer.execute("UPDATE meta SET value = ? WHERE key = 'resource_version'", (tx.version,))
        self._writer.execute("COMMIT")
        self._version = tx.version
        self._hub = Hub(self._version)

    def _meta(self, name: str) -> int:
        return _meta(self._reader, name)

    def _compacted(self) -> int:
        with self._reading:
            return self._meta("compacted")

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Unavailable("the store is closed")


class _Nobody:
    """In the place of an event loop where nobody waits for the outcome."""

    def call_soon_threadsafe(self, _deliver: Any, answers: list[Any], _sleepers: list[Any]) -> None:
        for _, _, error in answers:
            if error is not None:
                log.warning("housekeeping: %s", error)


def _deliver(answers: _Outcomes, sleepers: list[Waiter]) -> None:
    for write, result, error in answers:
        if write.future.done():
            continue
        if error is None:
            write.future.set_result(result)
        else:
            write.future.set_exception(error)
    for waiter in sleepers:
        waiter.event.set()


@contextlib.contextmanager
def _reading(connection: sqlite3.Connection) -> Any:
    """Several reads of one state."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


@contextlib.contextmanager
def _explained(path: Path) -> Any:
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, path) from error


def _translate(error: BaseException, path: Path) -> BaseException:
    if isinstance(error, ApiError) or not isinstance(error, Exception):
        return error
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and "disk" in str(error)):
            return InsufficientStorage(f"disk full at {path}: nothing was written; free some space and try again")
        return InternalError(f"{path}: {error}")
    log.error("a write failed unexpectedly", exc_info=error)
    return InternalError(f"{type(error).__name__}: {error}")


def _meta(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE key = ?", (name,)).fetchone()[0])


def _compact(tx: Transaction, keep: int) -> None:
    newest = tx.connection.execute("SELECT version FROM changes ORDER BY version DESC LIMIT 1 OFFSET ?", (keep,))
    row = newest.fetchone()
    if row:
        tx.connection.execute("DELETE FROM changes WHERE version <= ?", (row[0],))
        tx.connection.execute("UPDATE meta SET value = ? WHERE key = 'compacted'", (row[0],))


def _expire_events(tx: Transaction, seconds: float) -> None:
    before = objects.now(-seconds)
    rows = tx.connection.execute("SELECT namespace, name FROM objects WHERE resource = ?", (key(EVENTS),)).fetchall()
    for namespace, name in rows:
        found = tx.find(EVENTS, namespace, name)
        if found and found[0]["metadata"]["creationTimestamp"] < before:
            tx.delete(EVENTS, name, namespace)


class _Seen(msgspec.Struct):
    resource_version: str = msgspec.field(name="resourceVersion")


class _Versioned(msgspec.Struct):
    metadata: _Seen


_VERSIONED = msgspec.json.Decoder(_Versioned)


def _version_of(blob: bytes) -> str:
    return _VERSIONED.decode(blob).metadata.resource_version


def _bookmark(r: Resource, version: int, annotations: dict[str, str] | None = None) -> Watched:
    m: dict[str, Any] = {"resourceVersion": str(version)}
    if annotations:
        m["annotations"] = annotations
    blob = msgspec.json.encode({"kind": r.kind, "apiVersion": r.api_version, "metadata": m})
    return Watched("BOOKMARK", str(version), blob)


def _parse_version(text: str) -> int:
    if not text.isdecimal():
        raise BadRequest(f"resourceVersion {text!r} is not one that this server gave out")
    return int(text)


def _token(version: int, last: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Token(version, *last))).decode()


def _parse_token(text: str) -> _Token:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Token)
    except (ValueError, msgspec.DecodeError) as error:
        raise BadRequest("the continue token is not one that this server gave out") from error


def _copy(value: Any) -> Any:
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise BadRequest(f"not an object that JSON can hold: {error}") from error
