"""One real node for a test control plane: kubelet, containerd, runc and CNI, on which pods really run.

Everything of it lives in a PID and a mount namespace of its own whose first process dies with whoever started it: the
kernel then ends every process and undoes every mount, also after a `kill -9`. What lies outside (a bridge, and a cgroup
in each hierarchy) is written down in the node's folder before it is made, and removed when the node stops or the next
one starts. Linux, as root; nothing is installed and no setting of the machine is changed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # tests load this file by its path

import ociimage  # noqa: E402
from golang import Module, Unavailable  # noqa: E402

if TYPE_CHECKING:
    from controlplane import ControlPlane

CONTAINERD = Module(
    HERE / "go-node",
    {
        "containerd": "github.com/containerd/containerd/v2/cmd/containerd",
        "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "ctr": "github.com/containerd/containerd/v2/cmd/ctr",
        "runc": "github.com/opencontainers/runc",
        "runc-plain": "./runtime",
        "bridge": "github.com/containernetworking/plugins/plugins/main/bridge",
        "host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
        "loopback": "github.com/containernetworking/plugins/plugins/main/loopback",
        "pause": "./pause",
    },
    tags=("no_btrfs", "no_devmapper", "no_zfs"),
    cgo=frozenset({"runc"}),
)

PREFIX = "heddle-node-"
READY_SECONDS = 60
_PAUSE = "heddle.test/pause:1"
_CGROUPS = Path("/sys/fs/cgroup")
_KUBELET_SETS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
                 "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")  # fmt: skip
"""Settings of the machine that a kubelet changes: this one finds files of its own in their place."""


def obstacle() -> str:
    """Why no node can run on this machine; empty: one can."""
    if sys.platform != "linux":
        return "a real node needs Linux"
    if os.geteuid() != 0:
        return "a real node needs root"
    for program in ("unshare", "setpriv", "mount"):
        if not shutil.which(program):
            return f"a real node needs the program {program} (util-linux)"
    apart = subprocess.run([*_APART, "true"], capture_output=True, text=True, check=False)
    if apart.returncode:
        return f"a real node needs namespaces of its own: {apart.stderr.strip()}"
    if not all(os.access(hierarchy, os.W_OK) for hierarchy in _hierarchies()):
        return f"a real node needs cgroups that it can write to, below {_CGROUPS}"
    if why := _overlay():
        return f"a real node needs overlayfs in {tempfile.gettempdir()}: {why}"
    try:
        with _bridge(f"hdl{secrets.token_hex(4)}", "127.255.255.254"):
            pass
    except OSError as error:
        return f"a real node needs a network bridge: {error}"
    return ""


def _overlay() -> str:
    """Why layers of images cannot be laid over each other below the folder of temporary files; empty: they can."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("lower", "upper", "work", "merged"):
            (Path(folder) / name).mkdir()
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/merged"]
        tried = subprocess.run(["unshare", "--mount", *mount], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


def build() -> Path:
    """Build what is missing of containerd, runc and CNI (about two minutes on two cores the first time)."""
    return CONTAINERD.build()


_APART = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--mount-proc",
]


@dataclass
class Node:
    """A running node."""

    name: str
    address: str
    """At which the kubelet listens; pods have addresses beside it."""
    folder: Path
    _plane: ControlPlane
    _process: subprocess.Popen[bytes]

    def load(self, archive: Path) -> None:
        """Load the images of an OCI archive; pods that name one of them need no registry."""
        # fetched by nobody, so that an interrupted one leaves nothing that counts as whole
        self._ctr("images", "import", "--snapshotter=overlayfs", str(archive))

    def trust(self, registry: str) -> None:
        """Pull from a registry (HOST:PORT) without TLS."""
        folder = self.folder / "registries" / registry
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'server = "http://{registry}"\n')

    def images(self) -> list[str]:
        """Names of what was loaded."""
        return self._ctr("images", "list", "-q").split()

    def offer(self, resources: Mapping[str, str]) -> None:
        """Say on the node that it has extended resources, such as `nvidia.com/gpu`."""
        patch = {"status": {"capacity": dict(resources), "allocatable": dict(resources)}}
        self._kubectl("patch", "node", self.name, "--subresource=status", "--type=merge", "-p", json.dumps(patch))

    def processes(self, pod: str, namespace: str = "default") -> list[int]:
        """Processes of a pod's containers (not its pause), as this machine numbers them."""
        told = json.loads(self._kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
        ids = [one.get("containerID", "").rpartition("/")[2] for one in told["status"].get("containerStatuses", [])]
        found: set[int] = set()
        for group in _groups(self._cgroup):
            if group.name in ids:
                with contextlib.suppress(OSError):
                    found |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
        return sorted(found)

    def logs(self, name: str) -> str:
        """What `kubelet` or `containerd` has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        """End every process of the node, and remove all that it made on this machine."""
        self._process.kill()
        self._process.wait()
        _clean(self.folder)

    @property
    def _cgroup(self) -> str:
        return str(json.loads((self.folder / "made.json").read_text())["cgroup"])

    def _ctr(self, *arguments: str) -> str:
        command = [str(build() / "ctr"), "-a", str(self.folder / "containerd.sock"), "-n", "k8s.io", *arguments]
        return _done(command)

    def _kubectl(self, *arguments: str) -> str:
        return _done([str(self._plane.kubectl), "--kubeconfig", str(self._plane.kubeconfig), *arguments])

    def ready(self) -> bool:
        """Whether the API server knows the node as Ready."""
        form = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        with contextlib.suppress(RuntimeError):
            return self._kubectl("get", "node", self.name, "-o", form) == "True"
        return False


@contextlib.contextmanager
def running(plane: ControlPlane, name: str = "real", *, gpus: int = 0) -> Iterator[Node]:
    """A node of a control plane for the length of a `with` block, Ready, with so many GPUs that are not there.

    Raises:
        Unavailable: it cannot run on this machine, or does not become ready.
    """
    node = start(plane, name)
    try:
        if gpus:
            node.offer({"nvidia.com/gpu": str(gpus)})
        yield node
    finally:
        node.stop()


def start(plane: ControlPlane, name: str = "real") -> Node:
    """Start a node and wait until it is Ready.

    Raises:
        Unavailable: it cannot run on this machine, or does not become ready.
    """
    if why := obstacle():
        raise Unavailable(why)
    binaries, kubelet = build(), plane.kubelet()
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with _locked(folder, create=True) as lock:
            return _start(plane, name, folder, binaries, kubelet, lock)
    except BaseException:
        _clean(folder)
        raise


def sweep() -> None:
    """Remove what nodes left whose starter was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _locked(folder):
            _clean(folder)


def _start(plane: ControlPlane, name: str, folder: Path, binaries: Path, kubelet: Path, lock: int) -> Node:
    made = {"bridge": f"hdl{secrets.token_hex(4)}", "cgroup": folder.name}
    (folder / "made.json").write_text(json.dumps(made))
    for hierarchy in _hierarchies():
        (hierarchy / made["cgroup"]).mkdir()
    network = _free_network()
    address = f"{network}.1"
    _make_bridge(made["bridge"], address)
    _configure(plane, name, folder, binaries, address, made)
    ociimage.write(folder / "pause.tar", _PAUSE, {"/pause": binaries / "pause"}, entrypoint=["/pause"], environment={})
    command = [*_APART, sys.executable, str(Path(__file__).resolve()), "inside", str(folder), str(binaries)]
    command += [str(kubelet), name, address]
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, pass_fds=(lock,)
        )
    node = Node(name, address, folder, plane, process)
    try:
        _until(lambda: bool(node.images()), node, "containerd has no image")
        _until(node.ready, node, "the node is not Ready")
    except BaseException:
        process.kill()
        process.wait()
        raise
    return node


def _until(holds: Callable[[], bool], node: Node, otherwise: str) -> None:
    end = time.monotonic() + READY_SECONDS
    while True:
        with contextlib.suppress(RuntimeError):
            if holds():
                return
        if node._process.poll() is not None or time.monotonic() > end:
            told = "".join(
                f"\n{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in sorted(node.folder.glob("*.log"))
            )
            raise Unavailable(f"{otherwise}{told}")
        time.sleep(0.1)


def _configure(
    plane: ControlPlane, name: str, folder: Path, binaries: Path, address: str, made: Mapping[str, str]
) -> None:
    serving = plane.authority.issue(f"kubelet-{name}", addresses=(address,))
    client = plane.authority.issue(f"system:node:{name}", ("system:nodes",))
    user = {"client-certificate": str(client.certificate), "client-key": str(client.key)}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "node",
        "clusters": [{"name": "node", "cluster": {"server": plane.url, "certificate-authority": str(plane.ca)}}],
        "users": [{"name": "node", "user": user}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": "node"}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    signals = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree",
               "pid.available")  # fmt: skip
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "healthzBindAddress": address,
        "readOnlyPort": 0,
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(plane.authority.certificate)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{folder / 'containerd.sock'}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{made['cgroup']}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "makeIPTablesUtilChains": False,
        "resolvConf": "",
        "podLogsDir": str(folder / "logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "evictionHard": dict.fromkeys(signals, "0%"),
        "imageGCHighThresholdPercent": 100,
    }
    (folder / "kubelet.json").write_text(json.dumps(kubelet))
    cni = folder / "cni"
    cni.mkdir()
    network = {
        "cniVersion": "1.0.0",
        "name": "heddle",
        "plugins": [
            {
                "type": "bridge",
                "bridge": made["bridge"],
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(folder / "addresses"),
                    "ranges": [[{"subnet": f"{address.rpartition('.')[0]}.0/24"}]],
                },
            }
        ],
    }
    (cni / "10-heddle.conflist").write_text(json.dumps(network))
    (folder / "containerd.toml").write_text(
        f"""version = 3
root = "{folder}/containerd"
state = "{folder}/state"

[grpc]
address = "{folder}/containerd.sock"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
pinned_images = {{ sandbox = "{_PAUSE}" }}
registry = {{ config_path = "{folder}/registries" }}

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
enable_cdi = true
netns_mounts_under_state_dir = true
cni = {{ bin_dirs = ["{binaries}"], conf_dir = "{cni}" }}

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options = {{ BinaryName = "{binaries}/runc-plain", SystemdCgroup = false }}

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
"""
    )


def inside(folder: Path, binaries: Path, kubelet: Path, name: str, address: str) -> int:
    """The first process of the node's namespaces: it starts the others and buries them."""
    for place in ("/run", "/var/lib", "/var/log"):  # nobody else sees what is written there
        _done(["mount", "-t", "tmpfs", "tmpfs", place])
    for number, setting in enumerate(_KUBELET_SETS):
        if (Path("/proc/sys") / setting).exists():
            own = folder / f"setting-{number}"
            own.write_text((Path("/proc/sys") / setting).read_text())
            _done(["mount", "--bind", str(own), f"/proc/sys/{setting}"])
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "GOGC": "200"}

    def begin(program: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with (folder / f"{program.name}.log").open("wb") as log:
            return subprocess.Popen(
                [str(program), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    begin(binaries / "containerd", "--config", str(folder / "containerd.toml"))
    endpoint = folder / "containerd.sock"
    ctr = [str(binaries / "ctr"), "-a", str(endpoint), "-n", "k8s.io"]
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            _done([*ctr, "images", "import", str(folder / "pause.tar")])
            break
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    begin(
        kubelet, f"--config={folder / 'kubelet.json'}", f"--kubeconfig={folder / 'kubeconfig'}",
        f"--root-dir={folder / 'kubelet'}", f"--cert-dir={folder / 'pki'}", f"--hostname-override={name}",
        f"--node-ip={address}",
    )  # fmt: skip
    while True:
        with contextlib.suppress(ChildProcessError):
            os.wait()
            continue
        time.sleep(1)


# what lies outside the namespaces


def _hierarchies() -> list[Path]:
    """Roots of the machine's cgroups: one for each controller (v1), or one in all (v2)."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return sorted({path.resolve() for path in _CGROUPS.iterdir() if (path / "cgroup.procs").exists()})


def _groups(name: str) -> Iterator[Path]:
    """A node's cgroups, children first."""
    for hierarchy in _hierarchies():
        for path, _, _ in os.walk(hierarchy / name, topdown=False):
            yield Path(path)


def _clean(folder: Path) -> None:
    """Remove a node whose processes have been killed, and what its folder says that it made."""
    made = folder / "made.json"
    if made.exists():
        names = json.loads(made.read_text())
        end = time.monotonic() + 20
        while left := [group for group in _groups(names["cgroup"]) if not _removed(group)]:
            if time.monotonic() > end:
                raise RuntimeError(f"{left[0]} could not be removed: what runs in it does not end")
            time.sleep(0.05)
        _remove_bridge(names["bridge"])
    shutil.rmtree(folder)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


@contextlib.contextmanager
def _locked(folder: Path, *, create: bool = False) -> Iterator[int]:
    """Hold a node's folder; the node's first process inherits the lock, so that it is free once the node is gone.

    Raises:
        OSError: somebody holds it, or there is none.
    """
    path = folder / "lock"
    if not create and not path.exists() and time.time() - folder.stat().st_mtime < 60:
        raise FileNotFoundError(path)  # somebody begins at this moment
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


# linux/sockios.h
_SIOCSIFFLAGS, _SIOCGIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8913, 0x8916, 0x891C
_SIOCBRADDBR, _SIOCBRDELBR = 0x89A0, 0x89A1
_UP = 1


def _make_bridge(name: str, address: str) -> None:
    """A bridge that is up, with an address of a network of 254."""
    label = name.encode()

    def with_address(text: str) -> bytes:
        return struct.pack("16sHH4s8x", label, socket.AF_INET, 0, socket.inet_aton(text))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCBRADDBR, label + b"\0")
        fcntl.ioctl(control, _SIOCSIFADDR, with_address(address))
        fcntl.ioctl(control, _SIOCSIFNETMASK, with_address("255.255.255.0"))
        _set_up(control, label, up=True)


def _set_up(control: socket.socket, label: bytes, *, up: bool) -> None:
    (flags,) = struct.unpack("16xH", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH", label, 0)))
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH", label, flags | _UP if up else flags & ~_UP))


def _remove_bridge(name: str) -> None:
    """Remove one; done twice it changes nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            _set_up(control, name.encode(), up=False)
            fcntl.ioctl(control, _SIOCBRDELBR, name.encode() + b"\0")
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENXIO):
                raise


@contextlib.contextmanager
def _bridge(name: str, address: str) -> Iterator[None]:
    try:
        _make_bridge(name, address)
        yield
    finally:
        _remove_bridge(name)


def _free_network() -> str:
    """The first three numbers of a network that this machine has no route to."""
    taken = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, _, _, _, _, _, mask = line.split()[:8]
        if int(mask, 16):
            taken.append((socket.ntohl(int(destination, 16)), socket.ntohl(int(mask, 16))))
    while True:
        network = f"10.{128 + secrets.randbelow(127)}.{secrets.randbelow(256)}"
        (number,) = struct.unpack("!I", socket.inet_aton(f"{network}.0"))
        if not any(number & mask == destination for destination, mask in taken):
            return network


def _done(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} ...: {done.stderr.strip()[-1000:]}")
    return done.stdout


if __name__ == "__main__" and sys.argv[1:2] == ["inside"]:
    sys.exit(inside(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5], sys.argv[6]))
