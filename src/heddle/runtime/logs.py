"""Reads the logs that shims write.

A run's log lies in `log.RUN.0`, `log.RUN.1`, ...: a rotated file keeps its name, so that a reader only ever goes
on to the next number. Each line is `<RFC3339Nano> <stream> <F|P> <text>`; P is a part without its newline.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from heddle.runtime.process import locked

POLL = 0.05
PIECE = 64 * 1024


class NoLogs(Exception):
    """There is no such log: the container has not started, or there was no previous run."""


def _runs(directory: Path) -> list[int]:
    found = set()
    for pattern in ("log.*", "started.*.json", "exit.*.json"):
        for path in directory.glob(pattern):
            word = path.name.split(".")[1]
            if word.isdigit():
                found.add(int(word))
    return sorted(found)


def _files(directory: Path, run: int) -> list[int]:
    return sorted(int(path.name.split(".")[2]) for path in directory.glob(f"log.{run}.*"))


def _text(line: bytes, since: str, timestamps: bool) -> bytes | None:
    stamp, _, rest = line.partition(b" ")
    _, _, rest = rest.partition(b" ")
    tag, _, text = rest.partition(b" ")
    if since and stamp.decode(errors="replace") < since:
        return None
    if tag == b"P":
        text = text[:-1]
    return stamp + b" " + text if timestamps else text


def _stored(directory: Path, run: int) -> Iterator[bytes]:
    for sequence in _files(directory, run):
        with (directory / f"log.{run}.{sequence}").open("rb") as file:
            yield from file


class _Tail:
    """Goes on reading where the last read ended, over rotated files."""

    def __init__(self, directory: Path, run: int) -> None:
        self.directory, self.run = directory, run
        self.sequence = -1
        self.file: BinaryIO | None = None
        self.held = b""

    def lines(self) -> Iterator[bytes]:
        while True:
            if self.file is None:
                later = [number for number in _files(self.directory, self.run) if number > self.sequence]
                if not later:
                    return
                try:
                    self.file = (self.directory / f"log.{self.run}.{later[0]}").open("rb")
                except FileNotFoundError:
                    continue
                self.sequence = later[0]
            data = self.file.read(1 << 16)
            if data:
                *whole, self.held = (self.held + data).split(b"\n")
                for line in whole:
                    yield line + b"\n"
            elif any(number > self.sequence for number in _files(self.directory, self.run)):
                if rest := self.file.read():  # written between the read above and the rotation
                    *whole, self.held = (self.held + rest).split(b"\n")
                    for line in whole:
                        yield line + b"\n"
                self.close()
            else:
                return

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def choose(pod_dir: Path, container: str, *, previous: bool = False) -> int:
    """The run whose log is meant: the newest, or the one before.

    Raises:
        NoLogs: there is no such run.
    """
    runs = _runs(pod_dir / container)
    if not container or not runs:
        raise NoLogs(f'container "{container}" is waiting to start')
    if previous and len(runs) < 2:
        raise NoLogs(f'previous terminated container "{container}" not found')
    return runs[-2] if previous else runs[-1]


async def read(
    pod_dir: Path,
    container: str,
    *,
    follow: bool = False,
    tail: int | None = None,
    previous: bool = False,
    since: float | None = None,
    timestamps: bool = False,
    limit_bytes: int | None = None,
) -> AsyncIterator[bytes]:
    """Yields the log of a container's newest run, in pieces of whole lines.

    Args:
        pod_dir: Directory of the pod.
        container: Its container.
        follow: Go on until the run has ended.
        tail: Only so many of the last lines that are there now.
        previous: The run before the newest.
        since: Only lines written at or after this Unix time.
        timestamps: Put the time before each line.
        limit_bytes: End after so many bytes.

    Raises:
        NoLogs: there is no such run.
    """
    run = choose(pod_dir, container, previous=previous)
    follow = follow and not previous
    directory = pod_dir / container
    earliest = "" if since is None else _stamp(since)
    left = limit_bytes
    reader = _Tail(directory, run)
    try:
        ended = not follow or _ended(directory, run)
        last = tail  # applies to what is there now
        while True:
            texts = (_text(line, earliest, timestamps) for line in reader.lines())
            lines: Iterable[bytes] = (text for text in texts if text is not None)
            if last is not None:
                lines = deque(lines, maxlen=last)
                last = None
            for piece in _pieces(lines):
                yield piece if left is None else piece[:left]
                if left is not None and (left := left - len(piece)) <= 0:
                    return
            if ended:
                return
            await asyncio.sleep(POLL)
            ended = _ended(directory, run)  # looked at before the last read, so that nothing is missed
    finally:
        reader.close()


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines in pieces of about `PIECE` bytes: one chunk of an answer each."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= PIECE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _ended(directory: Path, run: int) -> bool:
    return (directory / f"exit.{run}.json").exists() or not locked(directory)


def _stamp(since: float) -> str:
    whole = int(since)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((since - whole) * 1e9):09d}Z"


def parse_since(text: str) -> float:
    """Unix time of an RFC 3339 time.

    Raises:
        ValueError: it is none.
    """
    return datetime.fromisoformat(text).timestamp()
