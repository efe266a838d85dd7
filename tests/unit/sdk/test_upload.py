"""What of a directory is sent along with a job, and volumes as they are written on a command line."""

import base64
import subprocess
from pathlib import Path

import pytest

from heddle.api.errors import BadRequest
from heddle.api.trainingjob import JobVolume
from heddle.sdk import mounted
from heddle.sdk.upload import MOST_BYTES, MOST_FILES, pack


def fill(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"this is {path}")


def test_files_keep_their_paths_their_bytes_and_whether_they_may_be_run(tmp_path: Path) -> None:
    fill(tmp_path, "train.py", "lib/model.py", "run.sh")
    (tmp_path / "weights").write_bytes(b"\0\xff")
    (tmp_path / "run.sh").chmod(0o755)
    packed = pack(tmp_path)
    found = {file.path: (base64.b64decode(packed.data[file.key]), file.executable) for file in packed.files}
    assert found == {
        "train.py": (b"this is train.py", False),
        "lib/model.py": (b"this is lib/model.py", False),
        "run.sh": (b"this is run.sh", True),
        "weights": (b"\0\xff", False),
    }
    volume = packed.volume("upload-1")
    assert (volume.mount_path, volume.config_map, volume.read_only) == ("/workspace", "upload-1", True)


def test_caches_and_environments_stay(tmp_path: Path) -> None:
    fill(tmp_path, "train.py", ".venv/bin/python", "lib/__pycache__/model.pyc", "node_modules/a.js")
    assert [file.path for file in pack(tmp_path).files] == ["train.py"]


def test_what_git_ignores_stays(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    fill(tmp_path, "train.py", "data/large.bin", "code/a.py")
    (tmp_path / ".gitignore").write_text("data/\n")
    assert [file.path for file in pack(tmp_path).files] == [".gitignore", "code/a.py", "train.py"]
    assert [file.path for file in pack(tmp_path / "code").files] == ["a.py"]


def test_too_much_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    fill(tmp_path, "train.py")
    (tmp_path / "data.bin").write_bytes(bytes(MOST_BYTES))
    with pytest.raises(BadRequest, match=r"largest: data.bin \(1,000,000 bytes\).*--volume CLAIM:/data"):
        pack(tmp_path)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{number}.txt" for number in range(MOST_FILES + 1)))
    with pytest.raises(BadRequest, match="1001 files"):
        pack(tmp_path)


def test_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no file in it"):
        pack(tmp_path)
    with pytest.raises(BadRequest, match="no such directory"):
        pack(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("data:/data", JobVolume(mount_path="/data", claim="data")),
        ("data:/data:ro", JobVolume(mount_path="/data", claim="data", read_only=True)),
        ("/mnt/data:/data", JobVolume(mount_path="/data", host_path="/mnt/data")),
    ],
)
def test_a_volume_is_a_claim_or_a_directory_of_the_node(text: str, volume: JobVolume) -> None:
    assert mounted.parsed(text) == volume


@pytest.mark.parametrize("text", ["", "data", "data:data", ":/data", "data:/data:wo"])
def test_what_is_no_volume_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="write CLAIM:/path"):
        mounted.parsed(text)


def test_a_checkpoint_is_kept_on_a_volume_or_is_a_url() -> None:
    volumes = [JobVolume(mount_path="/kept", claim="kept"), JobVolume(mount_path="/data", claim="data", read_only=True)]
    assert mounted.checkpoint("/kept/run-1", volumes) == "/kept/run-1"
    assert mounted.checkpoint("s3://bucket/run-1", volumes) == "s3://bucket/run-1"
    for path in ("/elsewhere", "/data/run-1", "kept", "/keptsake"):
        with pytest.raises(BadRequest, match="not on a volume is lost"):
            mounted.checkpoint(path, volumes)
