"""Logs as they come: of every pod of a job, through its restarts, each line once."""

import math
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from heddle.api.clock import to_seconds
from heddle.api.errors import ApiError, BadRequest, Expired, NotFound
from heddle.api.trainingjob import TrainingJob
from heddle.cli.show import Waiting

_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\S* ")
_PART = 16384  # a longer line is kept in parts of so many bytes, each with its own time
_GONE = b"unable to retrieve container logs for "
"""A kubelet's word, in the place of a log, for a container that is gone."""
_SLACK = 5  # seconds; lines that come twice are recognised by their time

ENDED = ("Succeeded", "Failed")


class Printer:
    """The one place that writes: whole lines, from any thread, and nothing while it is held."""

    def __init__(self, out: BinaryIO | None = None) -> None:
        self._out = out or sys.stdout.buffer
        self._lock = threading.RLock()
        self._waiting: Waiting | None = None
        self.broken = threading.Event()
        """Set once nobody reads what is printed."""

    def lines(self, prefix: bytes, lines: list[bytes]) -> None:
        """Print lines (without their newlines) of one source."""
        if not lines or self.broken.is_set():
            return
        with self.held():
            try:
                self._out.write(b"".join(prefix + line + b"\n" for line in lines))
                self._out.flush()
            except BrokenPipeError:
                self.broken.set()

    def say(self, text: str, *, waiting: str = "") -> None:
        """A line of news on standard error, and a spinner with `waiting` until the next line of any kind."""
        with self.held():
            print(text, file=sys.stderr, flush=True)
            if waiting:
                self._waiting = Waiting(waiting)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else prints meanwhile."""
        with self._lock:
            if self._waiting is not None:
                self._waiting.end()
                self._waiting = None
            yield


class PodLog(threading.Thread):
    """Prints the log of one pod, run after run, until `finish`."""

    def __init__(
        self, client: Any, pod: str, printer: Printer, prefix: str, *, earlier: bool, tail: int | None, timestamps: bool
    ) -> None:
        """Follow a pod.

        Args:
            client: a `heddle.Client`.
            pod: its name.
            printer: where lines go.
            prefix: before each line.
            earlier: also what is kept of the run before the first one that is seen.
            tail: of that first run, only so many lines.
            timestamps: print the time of each line.
        """
        super().__init__(name=f"log of {pod}", daemon=True)
        self._client, self._pod, self._printer, self._prefix = client, pod, printer, prefix.encode()
        self._earlier, self._tail, self._timestamps = earlier, tail, timestamps
        self._news = threading.Condition()
        self._run = ""
        self._finished = False
        self._last, self._times = b"", 0  # the newest time that was printed, and on how many lines
        self.fault = ""

    def tell(self, run: str) -> None:
        """The pod is, or was last, in this run."""
        with self._news:
            self._run = run
            self._news.notify()

    def finish(self) -> None:
        """No further run will come."""
        with self._news:
            self._finished = True
            self._news.notify()

    def run(self) -> None:
        """Print run after run."""
        done = ""
        while True:
            with self._news:
                while self._run == done and not self._finished:
                    self._news.wait()
                if self._run == done:
                    return
                present = self._run
            try:
                if self._earlier:  # a run may have come and gone before anybody saw it
                    self._read(previous=True)
                self._read()
            except ApiError as error:
                self.fault = str(error)
                return
            done, self._earlier, self._tail = present, True, None

    def _read(self, *, previous: bool = False) -> None:
        since = None
        if self._last:
            since = math.ceil(max(0.0, time.time() - to_seconds(self._last.decode()))) + _SLACK
        reading, rest = _Reading(fresh=not self._last), b""
        options = {"tail": None if previous else self._tail, "since": since, "timestamps": True}
        try:
            for chunk in self._client.logs(self._pod, follow=not previous, previous=previous, **options):
                *whole, rest = (rest + chunk).split(b"\n")
                self._print(whole, reading)
        except (BadRequest, NotFound):
            return  # has not started or is gone
        if rest:
            self._print([rest], reading)

    def _print(self, lines: list[bytes], reading: "_Reading") -> None:
        new = []
        for line in lines:
            if not _STAMP.match(line):
                if not line.startswith(_GONE):
                    new.append(line)
                continue
            stamp, _, text = line.partition(b" ")
            if not reading.fresh:
                if stamp == self._last:
                    reading.same += 1
                reading.fresh = stamp > self._last or reading.same > self._times
                if not reading.fresh:
                    continue
            self._times = self._times + 1 if stamp == self._last else 1
            self._last = stamp
            text = joined(text)
            new.append(stamp + b" " + text if self._timestamps else text)
        self._printer.lines(self._prefix, new)


@dataclass
class _Reading:
    """How far one reading of a log has come."""

    fresh: bool
    """It is past what was printed before."""
    same: int = 0
    """Lines with the time that was printed last."""


def joined(text: bytes) -> bytes:
    """A line without the times that stand between its parts."""
    if len(text) <= _PART:
        return text
    parts, at = [text[:_PART]], _PART
    while at < len(text):
        if stamp := _STAMP.match(text, at):
            at = stamp.end()
        parts.append(text[at : at + _PART])
        at += _PART
    return b"".join(parts)


def run_of(pod: Any) -> str:
    """What tells the present run of a pod from its others; empty before its first."""
    for status in pod.status.container_statuses:
        state, before = status.state, status.last_state.terminated
        if state.terminated is not None:
            number = _number(state.terminated.container_id)
        elif state.running is None:
            return ""
        elif before is None:
            number = "0"
        else:
            known = _number(before.container_id)
            number = str(int(known) + 1) if known.isdigit() else ""
        if not number:
            number = f"{status.restart_count}@{(state.running or state.terminated).started_at}"
        return f"{pod.metadata.uid}/{number}"
    return ""


def _number(container_id: str) -> str:
    return container_id.rpartition("/")[2] if container_id.startswith("heddle://") else ""


class JobLogs:
    """The logs of all pods of a job, those that come later included."""

    def __init__(
        self, client: Any, job: TrainingJob, printer: Printer, *, earlier: bool, prefixed: bool, role: str = "",
        tail: int | None = None, timestamps: bool = False,
    ) -> None:  # fmt: skip
        """Begin to print; the arguments are those of `PodLog`, `prefixed`: with the pod's name before each line.

        With `role` only the logs of its pods.
        """
        self._client, self._job, self._role, self._printer = client, job.metadata.name, role, printer
        self._prefixed = prefixed
        self._options: dict[str, Any] = {"earlier": earlier, "tail": tail, "timestamps": timestamps}
        self._pods: dict[str, PodLog] = {}
        self._lock = threading.Lock()
        self._finished = False
        threading.Thread(target=self._watch, name="pods", daemon=True).start()

    def _watch(self) -> None:
        while not self._finished:
            try:
                for event in self._client.watch(
                    "pods", label_selector=self._client.pod_selector(self._job, self._role)
                ):
                    if event.object is not None and event.type != "DELETED":
                        self._see(event.object)
            except Expired:
                continue
            except ApiError:
                return  # whoever follows the job hears of it too

    def _see(self, pod: Any) -> None:
        run = run_of(pod)
        if not run:
            return
        name = pod.metadata.name
        with self._lock:
            reader = self._pods.get(name)
            if reader is None:
                prefix = f"{name}: " if self._prefixed else ""
                reader = PodLog(self._client, name, self._printer, prefix, **self._options)
                self._pods[name] = reader
                reader.start()
        reader.tell(run)

    def finish(self) -> None:
        """The job has ended: print what is left of its logs."""
        self._finished = True
        for pod in self._client.pods(self._job, role=self._role):
            self._see(pod)
        readers = list(self._pods.values())
        for reader in readers:
            reader.finish()
        for reader in readers:
            reader.join()
            if reader.fault:
                self._printer.say(f"heddle: the log of pod {reader.name.rpartition(' ')[2]} is cut: {reader.fault}")
