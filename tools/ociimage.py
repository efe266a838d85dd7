"""Container images as OCI archives, written without a container engine, for `ctr images import` and `podman load`.

    python tools/ociimage.py python digits.tar heddle.test/digits:1 jax scikit-learn

writes one with this interpreter, its standard library, the given distributions with all that they need, and the shared
libraries of the system that these load. Nothing else is in it: no shell, no tools. Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_BLOCK = 512


class _Hashing(io.RawIOBase):
    """Passes on what is written, counted and hashed."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self.digest, self.size = out, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self._out.write(data)
        self.size += len(data)
        return len(data)


def write(
    archive: Path, name: str, files: Mapping[str, Path], *, entrypoint: list[str], environment: Mapping[str, str]
) -> None:
    """Write an image of one layer.

    Args:
        archive: where to.
        name: of the image, with registry and tag.
        files: path inside the image → file of this machine; links are followed.
        entrypoint: what runs when nothing else is said.
        environment: variables that its programs find.
    """
    with archive.open("wb+") as out:
        layer = _layer(out, files)
        config = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": entrypoint, "Env": [f"{key}={value}" for key, value in environment.items()]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _blob(out, "application/vnd.oci.image.config.v1+json", config),
            "layers": [layer],
        }
        described = _blob(out, str(manifest["mediaType"]), manifest)
        described["annotations"] = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        }
        _entry(out, "index.json", _json({"schemaVersion": 2, "manifests": [described]}))
        _entry(out, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        out.write(bytes(2 * _BLOCK))


def _layer(out: BinaryIO, files: Mapping[str, Path]) -> dict[str, Any]:
    # the name of a blob is its hash: the header goes before it once it is written, so that each file is read once
    start = out.tell()
    out.write(bytes(_BLOCK))
    hashing = _Hashing(out)
    with tarfile.open(fileobj=hashing, mode="w|", dereference=True, format=tarfile.GNU_FORMAT) as tar:
        made: set[str] = set()
        for path, source in sorted(files.items()):
            for folder in reversed(Path(path).relative_to("/").parents[:-1]):
                if str(folder) not in made:
                    made.add(str(folder))
                    entry = tarfile.TarInfo(str(folder))
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            entry = tar.gettarinfo(str(source), arcname=path.lstrip("/"))
            entry.type, entry.linkname = tarfile.REGTYPE, ""  # hard links point outside
            entry.size = source.stat().st_size
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            with source.open("rb") as content:
                tar.addfile(entry, content)
    digest = hashing.digest.hexdigest()
    out.write(bytes(-hashing.size % _BLOCK))
    end = out.tell()
    out.seek(start)
    out.write(_header(f"blobs/sha256/{digest}", hashing.size))
    out.seek(end)
    return {
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{digest}", "size": hashing.size
    }  # fmt: skip


def _blob(out: BinaryIO, kind: str, value: Any) -> dict[str, Any]:
    content = _json(value)
    digest = hashlib.sha256(content).hexdigest()
    _entry(out, f"blobs/sha256/{digest}", content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def _entry(out: BinaryIO, name: str, content: bytes) -> None:
    out.write(_header(name, len(content)) + content + bytes(-len(content) % _BLOCK))


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


# an image with Python in it


def python(archive: Path, name: str, distributions: Iterable[str]) -> None:
    """Write an image in which `python` is this interpreter and can import the given distributions.

    Files are where they are on this machine, so that nothing has to be told where it is.
    """
    files: dict[str, Path] = {}
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_paths()["stdlib"])
    skip = {"__pycache__", "test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "ensurepip"}
    for path in _below(library, skip | {f"config-{sysconfig.get_python_version()}-x86_64-linux-gnu"}):
        files[str(path)] = path
    folders = set()
    for found in _closure(distributions):
        for listed in found.files or ():
            path = Path(str(found.locate_file(listed)))
            unwanted = {"__pycache__", "tests", "include"}.intersection(path.parts) or path.suffix in (".pyi", ".a")
            if path.is_file() and not unwanted and ".." not in listed.parts:
                files[str(path)] = path
                folders.add(str(found.locate_file("")))
    files |= {path: Path(path) for path in _shared_libraries([interpreter, *files.values()])}
    files[str(interpreter)] = files["/usr/bin/python"] = files["/usr/bin/python3"] = interpreter
    environment = {
        "PATH": "/usr/bin",
        "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
        "PYTHONPATH": ":".join(sorted(str(Path(folder)) for folder in folders)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/",
    }
    write(archive, name, files, entrypoint=[str(interpreter)], environment=environment)


def _below(folder: Path, skip: set[str]) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in skip:
            continue
        if path.is_dir():
            yield from _below(path, skip)
        elif path.is_file() and path.suffix != ".a" and not path.name.startswith("_tkinter"):
            yield path


def _closure(names: Iterable[str]) -> Iterator[importlib.metadata.Distribution]:
    """Distributions, and what they need on this machine; extras are left out."""
    seen, due = set[str](), list(names)
    while due:
        name = due.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        seen.add(key)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in names:
                raise
            continue  # for another system
        yield found
        due += [re.split(r"[\s;<>=!~\[(]", need)[0] for need in found.requires or () if "extra ==" not in need]


def _shared_libraries(files: Iterable[Path]) -> set[str]:
    """What the dynamic loader would load for these programs and libraries, itself included, under the names it uses."""
    binaries = [str(path) for path in files if _is_elf(path)]
    done = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False)
    # a library that is found beside the one that asks for it is named as a/../b
    return {os.path.normpath(path) for path in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", done.stdout, re.MULTILINE)}


def _is_elf(path: Path) -> bool:
    with path.open("rb") as content:
        return content.read(4) == b"\x7fELF"


def main() -> int:
    """Write one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kind", choices=["python"])
    parser.add_argument("archive", type=Path)
    parser.add_argument("name", help="of the image, such as heddle.test/digits:1")
    parser.add_argument("distributions", nargs="*", help="what can be imported in it")
    given = parser.parse_args()
    python(given.archive, given.name, given.distributions)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
