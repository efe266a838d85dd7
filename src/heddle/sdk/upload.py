"""A small directory as a ConfigMap, so that a cluster's pods see it as files without any tool in their image."""

import base64
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from heddle.api.errors import BadRequest
from heddle.api.trainingjob import JobVolume, VolumeFile

MOUNT = "/workspace"
"""Where a job's pods see an uploaded directory; their command runs there."""
MOST_BYTES, MOST_FILES = 1_000_000, 1000
"""A ConfigMap holds 1 MiB; every pod names each file."""
SKIPPED = frozenset({".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache",
                     ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Upload:
    """What a ConfigMap holds, and which file is which key."""

    data: dict[str, str]
    """Base64 by key, as `binaryData` has it."""
    files: list[VolumeFile]

    def volume(self, name: str) -> JobVolume:
        """The volume that shows the ConfigMap of this name as the directory."""
        return JobVolume(mount_path=MOUNT, config_map=name, files=self.files, read_only=True)


def pack(directory: str | Path) -> Upload:
    """Read a directory.

    In a work tree of git, what git does not ignore; elsewhere all files. Never version control's own, virtual
    environments and caches.

    Raises:
        BadRequest: it is none, is empty, or is too large; says what to do instead.
    """
    root = Path(directory)
    if not root.is_dir():
        raise BadRequest(f"--upload {directory}: there is no such directory")
    found = sorted(_files(root))
    if not found:
        raise BadRequest(f"--upload {directory}: there is no file in it (git's ignored files do not count)")
    sizes = {path: (root / path).stat().st_size for path in found}
    if len(found) > MOST_FILES or sum(sizes.values()) > MOST_BYTES:
        largest = ", ".join(f"{path} ({sizes[path]:,} bytes)" for path in sorted(found, key=lambda p: -sizes[p])[:3])
        total = sum(sizes.values())
        raise BadRequest(
            f"--upload {directory}: {len(found)} files of {total:,} bytes are too many: {MOST_FILES} files and "
            f"{MOST_BYTES:,} bytes can be sent along with a job. The largest: {largest}. Put data on a volume "
            "(--volume CLAIM:/data) and large code into the image, or name what is not needed in .gitignore"
        )
    data, files = {}, []
    for index, path in enumerate(found):
        key = f"f{index}"
        data[key] = base64.b64encode((root / path).read_bytes()).decode()
        files.append(VolumeFile(key=key, path=path, executable=os.access(root / path, os.X_OK)))
    return Upload(data, files)


def _files(root: Path) -> list[str]:
    """Paths of files, relative to the directory, with `/`."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        told = subprocess.run(command, capture_output=True, check=False)
    except OSError:  # no git
        told = None
    if told is not None and told.returncode == 0:
        listed = [os.fsdecode(path) for path in told.stdout.split(b"\0") if path]
    else:
        listed = []
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in SKIPPED]  # not looked into
            listed += [str((Path(folder) / name).relative_to(root)) for name in names]
    return [
        path
        for path in dict.fromkeys(listed)
        if not SKIPPED.intersection(Path(path).parts) and not path.endswith(".pyc") and (root / path).is_file()
    ]
