"""Logs of a job as they come."""

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from heddle.api.errors import BadRequest, Unavailable
from heddle.api.meta import ObjectMeta
from heddle.api.pod import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStatus,
    Pod,
    PodStatus,
)
from heddle.api.trainingjob import TrainingJob
from heddle.cli.follow import PodLog, Printer, joined, run_of
from heddle.cli.jobs import _follow


def stamp(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000000001Z"


class Logs:
    """A pod's log, as the server gives it: of the newest run, or the one before."""

    def __init__(self, *runs: list[tuple[int, str]]) -> None:
        self.runs = list(runs)

    def logs(self, pod: str, *, previous: bool, **options: Any) -> Iterator[bytes]:
        if previous and len(self.runs) < 2:
            raise BadRequest("no run before")
        for second, text in self.runs[-2 if previous else -1]:
            yield f"{stamp(second)} {text}\n".encode()


def printed(server: Logs, *steps: Any, **options: Any) -> list[str]:
    out = io.BytesIO()
    reader = PodLog(server, "p", Printer(out), "", **{"earlier": True, "tail": None, "timestamps": False} | options)
    for number, step in enumerate(steps):
        step()
        reader._run = f"uid/{number}"
        reader._finished = True
        reader.run()
    return out.getvalue().decode().splitlines()


def test_each_line_of_each_run_is_printed_once() -> None:
    server = Logs([(1, "one"), (1, "one, in the same moment")])
    second = lambda: server.runs.append([(2, "two"), (3, "two"), (3, "two")])  # noqa: E731
    assert printed(server, lambda: None, lambda: None, second, lambda: None) == [
        "one", "one, in the same moment", "two", "two", "two",
    ]  # fmt: skip


def test_a_run_that_nobody_saw_is_read_afterwards() -> None:
    server = Logs([(1, "one")])
    more = lambda: server.runs.extend([[(2, "unseen")], [(3, "three")]])  # noqa: E731
    assert printed(server, lambda: None, more) == ["one", "unseen", "three"]


def test_who_comes_later_sees_no_earlier_runs() -> None:
    server = Logs([(1, "one")], [(2, "two")])
    assert printed(server, lambda: None, earlier=False) == ["two"]


def test_what_a_kubelet_says_in_place_of_a_log_that_is_gone_is_no_line_of_it() -> None:
    class Gone(Logs):
        def logs(self, pod: str, *, previous: bool, **options: Any) -> Iterator[bytes]:
            yield b"unable to retrieve container logs for containerd://0123"

    assert printed(Gone(), lambda: None) == []


def test_a_clock_that_was_set_back_loses_no_line() -> None:
    server = Logs([(5, "before"), (3, "after"), (5, "again")])
    assert printed(server, lambda: None) == ["before", "after", "again"]


def test_a_long_line_is_put_together_without_the_times_of_its_parts() -> None:
    part, time = b"x" * 16384, stamp(1).encode() + b" "
    assert joined(part + time + part + time + b"end") == part + part + b"end"
    assert joined(part + b"end") == part + b"end"


def test_lines_of_several_pods_never_run_into_each_other() -> None:
    class Slow(io.BytesIO):
        """Takes what it is given byte by byte."""

        def write(self, data: Any) -> int:
            for at in range(len(data)):
                super().write(data[at : at + 1])
            return len(data)

    out = Slow()
    printer = Printer(out)
    writers = [
        threading.Thread(target=lambda n=n: [printer.lines(b"p%d: " % n, [b"%d" % n * 20]) for _ in range(100)])
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(out.getvalue().splitlines()) == {b"p%d: " % n + b"%d" % n * 20 for n in range(4)}


def pod(state: ContainerState, last: ContainerStateTerminated | None = None) -> Pod:
    status = ContainerStatus(name="main", state=state, last_state=ContainerState(terminated=last))
    return Pod(metadata=ObjectMeta(name="p", uid="u"), status=PodStatus(container_statuses=[status]))


def test_a_run_keeps_its_name_when_it_ends() -> None:
    running = ContainerState(running=ContainerStateRunning(started_at=stamp(1)))
    ended = ContainerStateTerminated(container_id="heddle://2/0")
    assert run_of(pod(running)) == run_of(pod(ContainerState(terminated=ended))) == "u/0"
    again = ContainerState(terminated=ContainerStateTerminated(container_id="heddle://3/1"))
    assert run_of(pod(running, ended)) == run_of(pod(again, ended)) == "u/1"
    assert run_of(pod(ContainerState())) == ""


class Killed:
    """A client whose server ends while a job is followed."""

    def follow(self, kind: str, name: str) -> Iterator[TrainingJob]:
        raise Unavailable("https://127.0.0.1:1: the connection broke in the middle of an answer")
        yield


def test_who_follows_a_job_is_told_that_it_does_not_end_with_heddle(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unavailable):
        _follow(Killed(), "train")
    assert "once heddle answers, follow it with: heddle logs -f train" in capsys.readouterr().err
