"""A real Kubernetes control plane for tests: built once from pinned sources, started on loopback.

    python tools/controlplane.py build            # print the folder with the binaries
    python tools/controlplane.py run              # start one, print how to reach it, stop on Ctrl-C
    python tools/controlplane.py kube             # with scheduler, controllers, fake GPU nodes and heddle's kinds
    python tools/controlplane.py kube --node      # and one real node (tools/node.py)

etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and kwok come out of `tools/go/go.mod`, helm out
of `tools/go-helm/go.mod`.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import http.client
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
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # tests load this file by its path

from certificates import Authority  # noqa: E402
from golang import Module, Unavailable  # noqa: E402

VERSION = "v1.36.3"
READY_SECONDS = 60


def _stamps() -> dict[str, str]:
    """The version, where Kubernetes' programs look for it: clients that parse it stumble over none."""
    major, minor = VERSION.removeprefix("v").split(".")[:2]
    stamps = {
        "gitVersion": VERSION,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{name}": value for package in packages for name, value in stamps.items()}


KUBERNETES = Module(
    HERE / "go",
    {
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
        "kwok": "sigs.k8s.io/kwok/cmd/kwok",
    },
    _stamps(),
)
KUBELET = Module(HERE / "go", {"kubelet": "k8s.io/kubernetes/cmd/kubelet"}, _stamps())
"""Apart: it is for Linux only."""
HELM = Module(
    HERE / "go-helm",
    {"helm": "helm.sh/helm/v3/cmd/helm"},
    {"helm.sh/helm/v3/internal/version.version": "v3.22.0"},
)


def build() -> Path:
    """Build what is missing of Kubernetes (about seven minutes on two cores the first time); return the folder."""
    return KUBERNETES.build()


def helm() -> Path:
    """The helm binary, built when it is missing (about a minute)."""
    return HELM.build() / "helm"


LEAN = "garbage-collector-controller,namespace-controller"
"""The controllers that most tests need."""

REALISTIC = ",".join(
    [
        LEAN,
        "cronjob-controller",
        "daemonset-controller",
        "deployment-controller",
        "disruption-controller",
        "endpointslice-controller",
        "job-controller",
        "node-lifecycle-controller",
        "persistentvolume-binder-controller",
        "replicaset-controller",
        "resourceclaim-controller",
        "root-ca-certificate-publisher-controller",
        "serviceaccount-controller",
        "serviceaccount-token-controller",
        "statefulset-controller",
        "taint-eviction-controller",
        "ttl-after-finished-controller",
        "validatingadmissionpolicy-status-controller",
    ]
)
"""The controllers of a cluster in which foreign work runs; `"*"` is every one that is on by default."""


@dataclass
class ControlPlane:
    """A running control plane: what a client needs to reach it."""

    url: str
    token: str
    ca: Path
    kubectl: Path
    kubeconfig: Path
    folder: Path
    authority: Authority
    """Whose certificates the API server trusts."""
    _watches_nodes: bool = False
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _commands: dict[str, tuple[list[str], Mapping[str, str] | None]] = field(default_factory=dict)

    def start_kwok(self, nodes: Iterable[dict[str, Any]] = (), *, workers: int = 2, renews: bool | None = None) -> None:
        """Play the kubelet of every node annotated `kwok.x-k8s.io/node: fake`, and create the given ones.

        Pods bound there run at once and are gone as soon as they are deleted; annotations end them or take a node down
        (tools/kwok.yaml). Nothing is written while nothing changes.

        Args:
            nodes: nodes to create, as `gpu_nodes` makes them.
            workers: how many objects are worked on at a time; more is faster and loads the API server more.
            renews: whether leases of nodes are renewed; by default where node-lifecycle-controller would miss them.
        """
        renews = self._watches_nodes if renews is None else renews
        command = [
            str(self.kubectl.with_name("kwok")),
            f"--kubeconfig={self.kubeconfig}",
            f"--config={self._kwok_configuration(workers)}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            f"--node-lease-duration-seconds={40 if renews else 0}",
            "--node-ip=10.1.0.1",
            "--server-address=",
        ]
        self._spawn(command, {"GOMAXPROCS": "1", "GOGC": "400"})
        self.create("/api/v1/nodes", nodes)

    def _kwok_configuration(self, workers: int) -> Path:
        keys = ("nodeLeaseParallelism", "nodePlayStageParallelism", "podPlayStageParallelism")
        options = "".join(f"  {key}: {workers}\n" for key in keys)
        path = self.folder / "kwok.yaml"
        path.write_text((HERE / "kwok.yaml").read_text().replace("options:\n", "options:\n" + options, 1))
        return path

    def start_scheduler(self) -> None:
        """Start the stock kube-scheduler, for pods that name no other."""
        command = [
            str(self.kubectl.with_name("kube-scheduler")),
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
        ]
        self._spawn(command)

    def kubelet(self) -> Path:
        """The kubelet of this release, built when it is missing."""
        return KUBELET.build() / "kubelet"

    def create(self, path: str, objects: Iterable[dict[str, Any]]) -> None:
        """POST objects to a collection such as `/api/v1/nodes`, over one connection."""
        context = ssl.create_default_context(cafile=str(self.ca))
        host = self.url.removeprefix("https://")
        with contextlib.closing(http.client.HTTPSConnection(host, context=context, timeout=30)) as connection:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            for one in objects:
                connection.request("POST", path, json.dumps(one), headers)
                answer = connection.getresponse()
                told = answer.read()
                if answer.status != 201:
                    raise RuntimeError(f"creating {one['metadata']} answered {answer.status}: {told.decode()}")

    def pid(self, name: str) -> int:
        """The process of a program, for tests that stop it for a while or kill it."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """kill -9 of a program; `again` starts it."""
        self._processes[name].kill()
        self._processes[name].wait()

    def again(self, name: str) -> None:
        """Start a program that was killed, as it was started before."""
        self._spawn(*self._commands[name])

    def logs(self, name: str) -> str:
        """What a program (`kube-apiserver`, `kwok` …) has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        """Stop what was started, last first, and remove its folder."""
        for process in reversed(self._processes.values()):
            end(process)
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        name = Path(command[0]).name
        self._commands[name] = (command, environment)
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
            )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to stop, and kill it where it does not."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def gpu_nodes(
    count: int,
    *,
    gpus: int = 8,
    product: str = "NVIDIA-H100-80GB-HBM3",
    memory_mib: int = 81559,
    prefix: str = "gpu",
    racks: int = 2,
    labels: Mapping[str, str] | None = None,
    taints: Iterable[dict[str, str]] = (),
) -> list[dict[str, Any]]:
    """Fake nodes for kwok, labelled as NVIDIA's GPU feature discovery does, spread over racks."""
    size = {"cpu": "128", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "110"}
    if gpus:
        size["nvidia.com/gpu"] = str(gpus)
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": f"{prefix}-{index}",
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {
                    "kubernetes.io/hostname": f"{prefix}-{index}",
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                    "topology.kubernetes.io/zone": "zone-0",
                    "topology.heddle.dev/rack": f"rack-{index * racks // count}",
                    **(
                        {
                            "nvidia.com/gpu.present": "true",
                            "nvidia.com/gpu.product": product,
                            "nvidia.com/gpu.count": str(gpus),
                            "nvidia.com/gpu.memory": str(memory_mib),
                        }
                        if gpus
                        else {}
                    ),
                    **(labels or {}),
                },
            },
            "spec": {"taints": list(taints)},
            "status": {"capacity": size, "allocatable": size},
        }
        for index in range(count)
    ]


def start(flags: tuple[str, ...] = (), *, controllers: str = LEAN, service_accounts: bool = False) -> ControlPlane:
    """Start etcd, kube-apiserver and controllers on free loopback ports; return when they serve.

    Args:
        flags: further flags for kube-apiserver.
        controllers: what kube-controller-manager runs: `LEAN`, `REALISTIC`, `"*"` or names.
        service_accounts: whether every pod needs a service account, as in a real cluster (the controllers that make
            `default` in each namespace are then needed too).

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
        authority=Authority(folder / "ca"),
        _watches_nodes=controllers == "*" or "node-lifecycle-controller" in controllers,
    )
    if not service_accounts:
        flags = ("--disable-admission-plugins=ServiceAccount", *flags)
    try:
        _start(plane, flags, controllers, (client, peer, secure))
    except BaseException:
        plane.stop()
        raise
    return plane


def _start(plane: ControlPlane, flags: tuple[str, ...], controllers: str, ports: tuple[int, int, int]) -> None:
    folder, binaries = plane.folder, plane.kubectl.parent
    (folder / "tokens.csv").write_text(f'{plane.token},admin,admin,"system:masters"\n')
    key, public = folder / "service-account.key", folder / "service-account.pub"
    _rsa_key(key, public)
    client, peer, secure = ports
    etcd = f"http://127.0.0.1:{client}"
    peer_url = f"http://127.0.0.1:{peer}"
    to_kubelets = plane.authority.issue("kube-apiserver")
    plane._spawn(
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
    plane._spawn(
        [
            str(binaries / "kube-apiserver"),
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={secure}",
            f"--cert-dir={folder / 'certs'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            f"--client-ca-file={plane.authority.certificate}",
            f"--kubelet-certificate-authority={plane.authority.certificate}",
            f"--kubelet-client-certificate={to_kubelets.certificate}",
            f"--kubelet-client-key={to_kubelets.key}",
            "--kubelet-preferred-address-types=InternalIP",
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
    plane._spawn(
        [
            str(binaries / "kube-controller-manager"),
            f"--kubeconfig={plane.kubeconfig}",
            f"--controllers={controllers}",
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={plane.ca}",
            "--leader-elect=false",
            "--secure-port=0",
        ],
    )


def _wait_ready(plane: ControlPlane) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        for name, process in plane._processes.items():
            if process.poll() is not None:
                raise Unavailable(f"{name} ended with status {process.returncode}:\n{plane.logs(name)[-2000:]}")
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
def running(
    flags: tuple[str, ...] = (), *, controllers: str = LEAN, service_accounts: bool = False
) -> Iterator[ControlPlane]:
    """A control plane for the length of a `with` block."""
    plane = start(flags, controllers=controllers, service_accounts=service_accounts)
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


@contextlib.contextmanager
def playground(*, with_node: bool = False) -> Iterator[ControlPlane]:
    """A cluster to play with: scheduler and controllers, four nodes of eight fake GPUs, heddle's kinds.

    Args:
        with_node: also one real node with two GPUs that are not there and the image `heddle.test/python:1`.
    """
    from heddle.api import crd

    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(running(controllers=REALISTIC, service_accounts=True))
        plane.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd.manifests())
        plane.start_kwok(gpu_nodes(4))
        plane.start_scheduler()
        if with_node:
            import node
            import ociimage

            real = stack.enter_context(node.running(plane, gpus=2))
            archive = plane.folder / "python.tar"
            ociimage.python(archive, "heddle.test/python:1", [])
            real.load(archive)
            archive.unlink()
        yield plane


def _build_all() -> None:
    import node

    print(build())
    helm()
    if not node.obstacle():
        KUBELET.build()
        node.build()


def _end(*_: object) -> None:
    """End, and once only: a second Ctrl-C must not cut the cleaning up short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(0)


def main() -> int:
    """Build or run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=["build", "run", "kube"])
    parser.add_argument("--node", action="store_true", help="kube: with one real node, on which pods really run")
    given = parser.parse_args()
    command = given.command
    try:
        if command == "build":
            _build_all()
            return 0
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGINT, _end)
        with playground(with_node=given.node) if command == "kube" else running() as plane:
            print(f"server:  {plane.url}\nkubectl: {plane.kubectl}\n\nexport KUBECONFIG={plane.kubeconfig}", flush=True)
            if command == "kube":
                print(f"{plane.kubectl} get nodes\n\nCtrl-C stops it and leaves nothing.", flush=True)
            signal.pause()
    except Unavailable as why:
        print(why, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
