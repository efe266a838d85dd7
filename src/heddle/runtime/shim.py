"""Runs one container of a pod as a process group and outlives heddle.

Started as ``python -I -S -E shim.py POD_DIR CONTAINER``; needs only the standard library and imports nothing of
heddle, since it must be quick and must not change when heddle is upgraded under it. In POD_DIR/CONTAINER it

1. takes an exclusive flock on ``lock`` before anything runs: no container of a pod UID ever runs twice at once;
2. reads ``run.json`` and refuses a run number that was already started;
3. starts the program in a process group of its own and writes ``started.RUN.json``;
4. copies stdout and stderr to ``log.RUN.SEQ``, one line each as ``<RFC3339Nano> <stream> <F|P> <text>``;
5. on SIGTERM stops the group, and kills it after the grace;
6. when the program ends, kills what it left behind and writes ``exit.RUN.json`` durably.

The lock is the proof of life: a free lock and no exit file mean that the shim itself was killed. On Linux the
program then dies with it (PDEATHSIG).

Exit codes: 0 the run is recorded; 75 the lock is held by another; 76 run.json cannot be used; 77 this run was
started before.
"""

# pathlib costs milliseconds at start
# ruff: noqa: PTH100, PTH104, PTH106, PTH108, PTH110, PTH112, PTH118, PTH120, PTH123, SIM117
import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # typing itself costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

BUSY, BAD_RUN, ALREADY_STARTED = 75, 76, 77
START_ERROR = 128  # what containerd reports where a program cannot be started
LINE_MAX = 16384
RESERVE = 2048  # room kept for the exit record, so that a full disk does not swallow it
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def rfc3339(ns: int) -> str:
    """The time with nanoseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def write_atomic(path: str, data: bytes, durable: bool = False) -> None:
    """Replaces a file whole, or leaves it as it was."""
    temporary = path + ".tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        view = data
        while view:
            view = view[os.write(fd, view) :]
        os.ftruncate(fd, len(data))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    if durable:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def load_prctl() -> "Callable[..., int] | None":
    """Linux's prctl, or None."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        return ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):
        return None


def start_ticks(pid: int) -> int | None:
    """Start time of a process in kernel ticks since boot (Linux), else None: with the pid it names one process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def boot_id() -> str:
    """Names this boot of the machine (Linux), else an empty string."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


class Log:
    """Numbered log files of one run; the oldest go when there are more than `keep`."""

    def __init__(self, prefix: str, max_bytes: int, keep: int) -> None:
        self.prefix, self.max_bytes, self.keep = prefix, max(1, max_bytes), max(1, keep)
        self.sequence, self.size, self.fd, self.lost = 0, 0, -1, 0
        self.error = ""
        self.partial: dict[bytes, bytes] = {}

    def feed(self, stream: bytes, data: bytes) -> None:
        """Takes bytes of a stream and writes the lines that are whole."""
        held = self.partial.get(stream, b"") + data
        lines = held.split(b"\n")
        self.partial[stream] = lines.pop()
        out = [self.form(stream, line) for line in lines]
        while len(self.partial[stream]) >= LINE_MAX:
            out.append(self.record(stream, b"P", self.partial[stream][:LINE_MAX]))
            self.partial[stream] = self.partial[stream][LINE_MAX:]
        if out:
            self.write(b"".join(out))

    def form(self, stream: bytes, line: bytes) -> bytes:
        """Records of one line; a long one is cut into parts."""
        out = b""
        while len(line) > LINE_MAX:
            out += self.record(stream, b"P", line[:LINE_MAX])
            line = line[LINE_MAX:]
        return out + self.record(stream, b"F", line)

    def record(self, stream: bytes, tag: bytes, text: bytes) -> bytes:
        """One record."""
        return rfc3339(time.time_ns()).encode() + b" " + stream + b" " + tag + b" " + text + b"\n"

    def finish(self) -> None:
        """Writes what had no newline at its end."""
        for stream, rest in self.partial.items():
            if rest:
                self.write(self.record(stream, b"P", rest))
        self.partial = {}

    def write(self, data: bytes) -> None:
        """Appends records, rotating; a full disk loses lines, never the program."""
        chunk = b""
        try:
            if self.fd < 0:
                self.fd = os.open(f"{self.prefix}.{self.sequence}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            while data:
                room = self.max_bytes - self.size
                cut = data.rfind(b"\n", 0, room) + 1 or (data.find(b"\n") + 1 if self.size == 0 else 0)
                chunk, data = data[:cut], data[cut:]
                while chunk:
                    done = os.write(self.fd, chunk)
                    self.size += done
                    chunk = chunk[done:]
                if data or self.size >= self.max_bytes:
                    self.rotate()
        except OSError as error:
            self.lost += len(chunk) + len(data)
            self.error = error.strerror or str(error)

    def rotate(self) -> None:
        """Goes on in the next file."""
        following = os.open(f"{self.prefix}.{self.sequence + 1}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.close(self.fd)
        self.fd, self.sequence, self.size = following, self.sequence + 1, 0
        with contextlib.suppress(OSError):
            os.unlink(f"{self.prefix}.{self.sequence - self.keep}")


def child(
    run: "dict[str, Any]",
    streams: tuple[int, int],
    error_fd: int,
    parent: int,
    prctl: "Callable[..., int] | None",
) -> "NoReturn":
    """In the forked child: becomes the program. Tells why not through `error_fd`, which exec closes."""
    try:
        os.setpgid(0, 0)
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(START_ERROR)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if run.get("cgroup"):
            with contextlib.suppress(OSError):  # better without its limits than not at all
                with open(os.path.join(run["cgroup"], "cgroup.procs"), "w") as file:
                    file.write("0")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(streams[0], 1)
        os.dup2(streams[1], 2)
        if run.get("rlimits"):
            import resource

            for name, value in run["rlimits"].items():
                limit = getattr(resource, name, None)
                if limit is not None:
                    hard = resource.getrlimit(limit)[1]
                    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
                    resource.setrlimit(limit, (value, value))
        os.umask(run.get("umask", 0o022))
        os.chdir(run["cwd"])
        os.execvpe(run["argv"][0], run["argv"], run["env"])  # noqa: S606
    except FileNotFoundError as error:
        if error.filename == run["cwd"] and not os.path.isdir(run["cwd"]):
            text = f"working directory {run['cwd']}: no such directory"
        elif "/" in run["argv"][0]:
            text = f"exec {run['argv'][0]}: no such file or directory"
        else:
            text = f'exec "{run["argv"][0]}": executable file not found in $PATH'
        os.write(error_fd, text.encode())
    except BaseException as error:
        os.write(error_fd, f"exec {run['argv'][0]}: {error}"[:1000].encode(errors="replace"))
    os._exit(START_ERROR)


def descendants() -> list[int]:
    """Children of this process, adopted orphans included (Linux; elsewhere empty)."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def signal_group(pgid: int, number: int) -> None:
    """Signals a process group; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, number)


class Shim:
    """One run of one container."""

    def __init__(self, directory: str, run: "dict[str, Any]", ready_fd: int) -> None:
        self.directory, self.run, self.ready_fd = directory, run, ready_fd
        self.number: int = run["run"]
        self.stopping = False
        self.deadline: float | None = None
        self.status: int | None = None
        self.pgid = 0
        self.started = 0

    def path(self, what: str) -> str:
        """A file of this run."""
        return os.path.join(self.directory, f"{what}.{self.number}.json")

    def ready(self, text: bytes) -> None:
        """Tells who started us, if it still listens, and closes that line."""
        if self.ready_fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self.ready_fd, text)
            with contextlib.suppress(OSError):
                os.close(self.ready_fd)
            self.ready_fd = -1

    def main(self) -> int:
        """Runs the program to its end and records it."""
        reserve = os.open(self.path("exit") + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(reserve, b" " * RESERVE)
        os.close(reserve)
        prctl = load_prctl()
        if prctl is not None:
            prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        fail_read, fail_write = os.pipe()
        shim_pid = os.getpid()
        self.started = time.time_ns()
        pid = os.fork()
        if pid == 0:
            child(self.run, (out_write, err_write), fail_write, shim_pid, prctl)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        self.pgid = pid
        for fd in (out_write, err_write, fail_write):
            os.close(fd)
        with contextlib.suppress(OSError):  # a full disk: adoption then goes by the lock alone
            record = {
                "shimPid": shim_pid,
                "shimTicks": start_ticks(shim_pid),
                "pid": pid,
                "pgid": pid,
                "ticks": start_ticks(pid),
                "createTime": self.started / 1e9,
                "startedAt": rfc3339(self.started),
                "bootId": boot_id(),
            }
            write_atomic(self.path("started"), json.dumps(record).encode())
        failure = b""
        while part := os.read(fail_read, 4096):
            failure += part
        os.close(fail_read)
        if not failure:
            self.ready(b"started %d\n" % pid)
        log = Log(os.path.join(self.directory, f"log.{self.number}"), self.run["logMaxBytes"], self.run["logKeep"])
        self.copy(pid, wake_read, {out_read: b"stdout", err_read: b"stderr"}, log)
        log.finish()
        self.record(failure.decode(errors="replace"), log)
        self.ready(b"failed\n")
        return 0

    def copy(self, pid: int, wake: int, streams: dict[int, bytes], log: Log) -> None:
        """Copies output and obeys signals until the program has ended; then ends what it left behind."""
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        for fd in streams:
            os.set_blocking(fd, False)
            poller.register(fd, select.POLLIN)
        open_streams = dict(streams)
        while self.status is None:
            wait = None if self.deadline is None else max(0, int((self.deadline - time.monotonic()) * 1000) + 1)
            for fd, _ in poller.poll(wait):
                if fd == wake:
                    self.wakened(wake)
                elif not self.drain(fd, open_streams[fd], log):
                    poller.unregister(fd)
                    del open_streams[fd]
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.kill_all()
                self.deadline = None
            self.reap(pid)
        self.clean_up(pid)
        for fd, stream in open_streams.items():
            self.drain(fd, stream, log)
        for fd in streams:
            os.close(fd)

    def drain(self, fd: int, stream: bytes, log: Log) -> bool:
        """Reads what is there; false at the end of the stream. Bounded, so that signals get their turn."""
        for _ in range(64):
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            log.feed(stream, data)
        return True

    def wakened(self, wake: int) -> None:
        """Obeys the signals that came."""
        try:
            came = os.read(wake, 512)
        except BlockingIOError:
            return
        if signal.SIGTERM in came or signal.SIGINT in came:
            grace = self.run["graceSeconds"]
            with contextlib.suppress(OSError, ValueError):
                with open(os.path.join(self.directory, f"stop.{self.number}")) as file:
                    grace = float(file.read())
            deadline = time.monotonic() + grace
            self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)
            if not self.stopping and grace > 0:
                signal_group(self.pgid, signal.SIGTERM)
            self.stopping = True

    def reap(self, pid: int) -> None:
        """Collects ended children; notes how the program itself ended."""
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if ended == 0:
                return
            if ended == pid:
                self.status = status

    def kill_all(self) -> None:
        """SIGKILL to the group, and to orphans that left it."""
        signal_group(self.pgid, signal.SIGKILL)
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def clean_up(self, pid: int) -> None:
        """Kills what the program left behind; orphans come to us one generation at a time."""
        for _ in range(1000):
            self.kill_all()
            self.reap(pid)
            if not descendants():
                return
            time.sleep(0.001)

    def record(self, failure: str, log: Log) -> None:
        """Writes the exit record, waiting for disk space where it must."""
        code, number = os.waitstatus_to_exitcode(self.status or 0), 0
        if code < 0:
            code, number = 128 - code, -code
        reason = "Completed" if code == 0 else "Error"
        message = failure
        if failure:
            code, number, reason = START_ERROR, 0, "StartError"
        elif self.out_of_memory():
            reason = "OOMKilled"
        if log.lost:
            message = (message + "; " if message else "") + f"{log.lost} bytes of log lost: {log.error}"
        record = {
            "exitCode": code,
            "signal": number,
            "startedAt": rfc3339(self.started),
            "finishedAt": rfc3339(time.time_ns()),
            "reason": reason,
            "message": message,
            "stopRequested": self.stopping,
        }
        data = json.dumps(record).encode()
        while True:
            try:
                write_atomic(self.path("exit"), data, durable=True)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                time.sleep(1)

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process of our cgroup; the group is removed."""
        group = self.run.get("cgroup")
        if not group:
            return False
        killed = False
        with contextlib.suppress(OSError):
            with open(os.path.join(group, "memory.events")) as file:
                killed = any(line.startswith("oom_kill ") and int(line.split()[1]) > 0 for line in file)
        with contextlib.suppress(OSError):
            os.rmdir(group)
        return killed


def main(pod_dir: str, container: str, ready_fd: int = -1) -> int:
    """Locks, reads run.json, runs. Returns the exit code."""
    with contextlib.suppress(PermissionError):  # a session leader already
        os.setsid()
    directory = os.path.join(os.path.abspath(pod_dir), container)
    try:
        lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return BAD_RUN
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return BUSY
    try:
        with open(os.path.join(directory, "run.json"), "rb") as file:
            run = json.load(file)
        shim = Shim(directory, run, ready_fd)
        if os.path.exists(shim.path("started")) or os.path.exists(shim.path("exit")):
            return ALREADY_STARTED
    except (OSError, ValueError, KeyError, TypeError):
        return BAD_RUN
    return shim.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else -1))
