"""The shim by itself: one at a time, nothing left behind, nothing lost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pods import alive, eventually

from heddle.runtime import process, shim


def prepare(directory: Path, *argv: str, run: int = 0, **more: Any) -> Path:
    (directory / "main").mkdir(exist_ok=True)
    wanted = process.Run(run=run, argv=list(argv), env={"PATH": os.environ["PATH"]}, cwd=str(directory), **more)
    process.write_whole(directory / "main/run.json", msgspec.json.encode(wanted))
    return directory


def launch(directory: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-I", "-S", "-E", str(process.SHIM), str(directory), "main"])


def record(directory: Path, name: str) -> Any:
    return json.loads((directory / "main" / name).read_text())


async def test_a_second_shim_starts_nothing(tmp_path: Path) -> None:
    prepare(tmp_path, "/bin/sh", "-c", "echo x >> runs; exec sleep 60")
    with launch(tmp_path) as first:
        await eventually(lambda: (tmp_path / "runs").exists(), "first run")
        with launch(tmp_path) as second:
            assert second.wait(10) == shim.BUSY
        first.terminate()
        assert first.wait(10) == 0
    with launch(tmp_path) as late:
        assert late.wait(10) == shim.ALREADY_STARTED
    assert (tmp_path / "runs").read_text() == "x\n"


async def test_shims_racing_run_once(tmp_path: Path) -> None:
    prepare(tmp_path, "/bin/sh", "-c", "echo x >> runs; sleep 0.05")
    shims = [launch(tmp_path) for _ in range(6)]
    codes = sorted(one.wait(20) for one in shims)
    assert codes[0] == 0
    assert set(codes[1:]) <= {shim.BUSY, shim.ALREADY_STARTED}
    assert (tmp_path / "runs").read_text() == "x\n"


def test_an_unreadable_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    (tmp_path / "main/run.json").write_text("{")
    with launch(tmp_path) as one:
        assert one.wait(10) == shim.BAD_RUN


async def test_it_outlives_its_parent(tmp_path: Path) -> None:
    prepare(tmp_path, "/bin/sh", "-c", "until test -e go; do sleep 0.02; done; exit 9")
    code = (
        "import sys, time; from pathlib import Path; from heddle.runtime import process;"
        "process.spawn(Path(sys.argv[1]), 'main'); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])  # noqa: ASYNC220 - a test may wait
    await eventually(lambda: (tmp_path / "main/started.0.json").exists(), "start")
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    (tmp_path / "go").touch()
    await eventually(lambda: (tmp_path / "main/exit.0.json").exists(), "exit record")
    assert record(tmp_path, "exit.0.json")["exitCode"] == 9


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="adopting orphans needs Linux")
async def test_what_left_its_group_ends_with_the_program(tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "if os.fork():\n"
        "    while not os.path.exists('pid'): time.sleep(0.01)\n"
        "    raise SystemExit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "with open('daemon', 'w') as file: file.write(str(os.getpid()))\n"
        "os.rename('daemon', 'pid')\n"
        "time.sleep(60)\n"
    )
    prepare(tmp_path, sys.executable, "-c", code)
    with launch(tmp_path) as one:
        assert one.wait(10) == 0
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PDEATHSIG is Linux's")
async def test_a_killed_shim_takes_its_program_with_it(tmp_path: Path) -> None:
    prepare(tmp_path, "sleep", "60")
    with launch(tmp_path) as one:
        await eventually(lambda: (tmp_path / "main/started.0.json").exists(), "start")
        pid = record(tmp_path, "started.0.json")["pid"]
        one.kill()
    await eventually(lambda: not alive(pid), "the program is gone")
    assert not (tmp_path / "main/exit.0.json").exists()
    assert not process.locked(tmp_path / "main")


async def test_logs_rotate_and_keep_the_newest(tmp_path: Path) -> None:
    prepare(tmp_path, "/bin/sh", "-c", "for i in $(seq 500); do echo line-$i; done", log_max_bytes=2000, log_keep=3)
    with launch(tmp_path) as one:
        assert one.wait(10) == 0
    files = sorted((tmp_path / "main").glob("log.0.*"), key=lambda path: int(path.suffix[1:]))
    assert 1 <= len(files) <= 3
    assert all(path.stat().st_size <= 2000 for path in files)
    assert files[-1].read_text().endswith("line-500\n") or not files[-1].read_text()


def test_a_full_disk_loses_lines_and_says_so(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    (tmp_path / "log.0.0").symlink_to("/dev/full")
    log = shim.Log(str(tmp_path / "log.0"), 1000, 2)
    log.feed(b"stdout", b"hello\n")
    assert log.lost > 0
    assert log.error == "No space left on device"


def test_a_missing_working_directory_is_named(tmp_path: Path) -> None:
    prepare(tmp_path, "true")
    run = record(tmp_path, "run.json") | {"cwd": "/no/such/place"}
    (tmp_path / "main/run.json").write_text(json.dumps(run))
    with launch(tmp_path) as one:
        assert one.wait(10) == 0
    ended = record(tmp_path, "exit.0.json")
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert ended["message"] == "working directory /no/such/place: no such directory"
