"""Ctrl-C, and commands that would destroy something while nobody can be asked."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Heddle = Callable[..., Any]
TICKING = ("--", "sh", "-c", "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done")


def environment(home: Path) -> dict[str, str]:
    own = {**os.environ, "HEDDLE_HOME": str(home)}
    own.pop("KUBECONFIG", None)
    return own


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, home: Path, *arguments: str) -> None:
        main, side = pty.openpty()
        self.main = main
        self.process = subprocess.Popen(
            [sys.executable, "-m", "heddle.cli", *arguments],
            env=environment(home), stdin=side, stdout=side, stderr=side, start_new_session=True,
        )  # fmt: skip
        os.close(side)
        self.text = ""

    def until(self, words: str, *, after: int = 0, within: float = 30) -> None:
        deadline = time.monotonic() + within
        while words not in self.text[after:]:
            assert time.monotonic() < deadline, self.text
            self._read(0.1)

    def _read(self, patience: float) -> bool:
        if not select.select([self.main], [], [], patience)[0]:
            return False
        try:
            data = os.read(self.main, 4096)
        except OSError:  # the other side is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def end(self) -> int:
        while self._read(0.2) or self.process.poll() is None:
            pass
        os.close(self.main)
        return self.process.wait(timeout=10)


@contextmanager
def ticking(heddle: Heddle, name: str) -> Iterator[None]:
    """What runs under this name is away afterwards."""
    try:
        yield
    finally:
        heddle("delete", "trainingjob", name, "--yes")


def phase(heddle: Heddle, name: str) -> str:
    return str(json.loads(heddle("get", "trainingjob", name, "-o", "json").stdout)["status"]["phase"])


def test_ctrl_c_off_a_terminal_leaves_the_job_running(heddle: Heddle, home: Path) -> None:
    with ticking(heddle, "off"):
        running = subprocess.Popen(
            [sys.executable, "-m", "heddle.cli", "run", "--name", "off", *TICKING],
            env=environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert running.stdout is not None
        assert "tick" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=20)
        assert running.returncode == 130
        assert "job off goes on; follow it with: heddle logs -f off; stop it with: heddle delete" in said
        assert phase(heddle, "off") == "Running"


def test_ctrl_c_ends_following_logs_quietly(heddle: Heddle, home: Path) -> None:
    with ticking(heddle, "read"):
        assert heddle("run", "--detach", "--name", "read", *TICKING).returncode == 0
        for end in ("interrupt", "close"):  # by Ctrl-C, or as `head` does
            reading = subprocess.Popen(
                [sys.executable, "-m", "heddle.cli", "logs", "-f", "read"],
                env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert reading.stdout is not None
            assert reading.stderr is not None
            assert "tick" in reading.stdout.readline()
            if end == "interrupt":
                reading.send_signal(signal.SIGINT)
            else:
                reading.stdout.close()
            assert reading.wait(timeout=20) == (130 if end == "interrupt" else 0)
            assert reading.stderr.read() == ""
            reading.stderr.close()
            reading.stdout.close()


@pytest.mark.parametrize("answer", ["interrupt", "\x04", "n\n"])
def test_ctrl_c_asks_and_no_answer_leaves_the_job_running(heddle: Heddle, home: Path, answer: str) -> None:
    with ticking(heddle, "asked"):
        terminal = Terminal(home, "run", "--name", "asked", *TICKING)
        terminal.until("tick")
        terminal.interrupt()
        terminal.until("Stop job asked? [y/N]")
        quiet = len(terminal.text)
        time.sleep(0.3)
        while terminal._read(0):
            pass
        assert "tick" not in terminal.text[quiet:]  # the log waits for the answer
        if answer == "interrupt":
            terminal.interrupt()
        else:
            terminal.type(answer)
        assert terminal.end() == 130
        assert "job asked goes on" in terminal.text
        assert "Aborted" not in terminal.text
        assert "Traceback" not in terminal.text
        assert phase(heddle, "asked") == "Running"


def test_ctrl_c_and_yes_stops_the_job(heddle: Heddle, home: Path) -> None:
    terminal = Terminal(home, "run", "--name", "stopped", *TICKING)
    terminal.until("tick")
    terminal.interrupt()
    terminal.until("[y/N]")
    terminal.type("y\n")
    assert terminal.end() == 130
    assert "job stopped stopped" in terminal.text
    assert heddle("get", "trainingjob", "stopped").returncode == 4


def test_a_job_that_waits_says_so_on_a_terminal(heddle: Heddle, home: Path) -> None:
    with ticking(heddle, "vast"):
        terminal = Terminal(home, "run", "--name", "vast", "--gpus", "8", "--nodes", "9", *TICKING)
        terminal.until("job vast waits; why: heddle explain vast")
        terminal.interrupt()
        terminal.until("[y/N]")
        asked = terminal.text.index("[y/N]")
        time.sleep(0.3)
        while terminal._read(0):
            pass
        assert "waits" not in terminal.text[asked:]
        terminal.interrupt()
        assert terminal.end() == 130


def test_running_pods_are_not_stopped_unasked(heddle: Heddle) -> None:
    with ticking(heddle, "kept"):
        assert heddle("run", "--detach", "--name", "kept", *TICKING).returncode == 0
        while phase(heddle, "kept") != "Running":
            pass
        down = heddle("down")
        assert down.returncode == 2
        assert "1 running pods would be stopped" in down.stderr
        assert "--yes" in down.stderr
        gone = heddle("delete", "trainingjob", "kept")
        assert gone.returncode == 2
        assert "--yes" in gone.stderr
        assert phase(heddle, "kept") == "Running"


def test_ctrl_c_while_heddle_starts_leaves_nothing_running(command: Heddle, tmp_path: Path) -> None:
    starting = subprocess.Popen(
        [sys.executable, "-m", "heddle.cli", "up"],
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = tmp_path / "heddle.log"
    while not log.exists():  # its child is about to start
        assert starting.poll() is None
        time.sleep(0.005)
    time.sleep(0.02)
    starting.send_signal(signal.SIGINT)
    _, said = starting.communicate(timeout=20)
    if starting.returncode == 130:
        assert "Traceback" not in said
        assert command(tmp_path, "status").returncode == 3
    else:  # it was up before the signal came
        assert command(tmp_path, "down", "--yes").returncode == 0
    assert not (tmp_path / "running.json").exists()


def test_a_heddle_that_was_killed_is_said_to_be_away(command: Heddle, tmp_path: Path) -> None:
    assert command(tmp_path, "up").returncode == 0
    running = json.loads((tmp_path / "running.json").read_text())
    os.kill(running["pid"], signal.SIGKILL)
    listed = command(tmp_path, "--kubeconfig", str(tmp_path / "kubeconfig"), "ps")
    assert listed.returncode == 3
    assert listed.stderr.strip() == f"heddle: no heddle answers at {running['url']}; start it with: heddle up"
