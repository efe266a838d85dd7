"""Where embedded heddle keeps things."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec


class Running(msgspec.Struct, kw_only=True):
    """What `heddle up` leaves for other commands to find it by."""

    pid: int
    url: str
    started: float


@dataclass(frozen=True, slots=True)
class Places:
    """The one data directory of an embedded heddle."""

    root: Path

    @staticmethod
    def default() -> "Places":
        """`$HEDDLE_HOME`, else `$XDG_DATA_HOME/heddle`, else `~/.local/share/heddle`."""
        if home := os.environ.get("HEDDLE_HOME"):
            return Places(Path(home).expanduser().resolve())
        data = os.environ.get("XDG_DATA_HOME")
        base = Path(data) if data else Path.home() / ".local" / "share"
        return Places(base / "heddle")

    @property
    def database(self) -> Path:
        """All objects."""
        return self.root / "heddle.db"

    @property
    def tokens(self) -> Path:
        """Who may call; readable by its owner only."""
        return self.root / "tokens.csv"

    @property
    def kubeconfig(self) -> Path:
        """For heddle, kubectl and every other client."""
        return self.root / "kubeconfig"

    @property
    def running(self) -> Path:
        """Present while heddle is up."""
        return self.root / "running.json"

    @property
    def lock(self) -> Path:
        """Held while heddle is up, so that two never share a directory."""
        return self.root / "lock"

    @property
    def log(self) -> Path:
        """What the process in the background says."""
        return self.root / "heddle.log"

    @property
    def runtime(self) -> Path:
        """Pods: logs, locks, exit codes."""
        return self.root / "runtime"

    def find(self) -> Running | None:
        """The heddle that is up here, or None."""
        try:
            found = msgspec.json.decode(self.running.read_bytes(), type=Running)
        except (OSError, msgspec.DecodeError):
            return None
        return found if self._held() else None

    def _held(self) -> bool:
        """Whether somebody has the lock: a killed heddle leaves its pid behind, which may be a stranger's by now."""
        try:
            with self.lock.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False
