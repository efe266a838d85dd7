"""Devices, labels and Node objects, from simulated GPUs and from NVML's calls."""

from itertools import combinations_with_replacement
from types import SimpleNamespace
from typing import Any

import pytest

from heddle.api.core import GPU_RESOURCE, Node
from heddle.control.scheduling import adapter
from heddle.engine import Mig
from heddle.engine.mig import GEOMETRIES
from heddle.node.inventory import decode_inventory, describe_node
from heddle.node.labels import gpu_labels, label_value
from heddle.node.mig import arranged, geometry_of
from heddle.node.models import MODELS, family
from heddle.node.nvml import NvmlLibrary
from heddle.node.simulated import SimulatedLibrary, parse


class NVMLError(Exception):
    pass


class FakeNvml:
    """NVML's calls over a list of GPUs; `links[i]` are bus ids, or "switch"."""

    NVML_NVLINK_MAX_LINKS = 4
    NVML_NVLINK_DEVICE_TYPE_SWITCH = 2
    NVMLError = NVMLError

    def __init__(self, links: list[list[str]], broken: bool = False, mig: dict[int, list[str]] | None = None) -> None:
        self.links, self.broken, self.open, self.mig = links, broken, 0, mig or {}

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlSystemGetDriverVersion": lambda: "570.86.15",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 12080,
            "nvmlDeviceGetCount": lambda: len(self.links),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda handle: (
                f"GPU-{handle}" if isinstance(handle, int) else f"MIG-{handle[0]}-{handle[1]}"
            ),
            "nvmlDeviceGetName": lambda handle: (
                b"NVIDIA H100 80GB HBM3"
                if isinstance(handle, int)
                else f"NVIDIA H100 80GB HBM3 MIG {self.mig[handle[0]][handle[1]]}".encode()
            ),
            "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": self._instance,
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=81559 << 20),
            "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
            "nvmlDeviceGetNumaNodeId": lambda handle: handle // 2,
            "nvmlDeviceGetMigMode": lambda handle: [int(handle in self.mig), 0],
            "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=f"00000000:{handle:02X}:00.0"),
            "nvmlDeviceGetNvLinkState": self._state,
            "nvmlDeviceGetNvLinkRemotePciInfo": lambda handle, link: SimpleNamespace(busId=self.links[handle][link]),
            "nvmlDeviceGetNvLinkRemoteDeviceType": lambda handle, link: (
                2 if self.links[handle][link].startswith("switch") else 1
            ),
        }
        if name not in answers:
            raise AttributeError(name)
        return answers[name]

    def _instance(self, handle: int, index: int) -> tuple[int, int]:
        if index >= len(self.mig[handle]) or not self.mig[handle][index]:
            raise NVMLError("Not Found")
        return (handle, index)

    def _state(self, handle: int, link: int) -> int:
        if link >= len(self.links[handle]):
            raise NVMLError("Not Supported")
        return 1


@pytest.mark.parametrize(
    ("links", "groups"),
    [
        ([[], []], ["", ""]),
        ([["0000:01:00.0"], ["0000:00:00.0"], []], ["0", "0", ""]),
        ([["switch-1"], ["switch-2"], ["switch-1"]], ["0", "0", "0"]),
        ([["0000:01:00.0"], ["0000:00:00.0"], ["0000:03:00.0"], ["0000:02:00.0"]], ["0", "0", "1", "1"]),
    ],
)
def test_nvlink_groups_are_what_reaches_each_other(links: list[list[str]], groups: list[str]) -> None:
    nvml = FakeNvml(links)
    library = NvmlLibrary(nvml)
    assert [device.link for device in library.devices()] == groups
    assert nvml.open == 0
    assert (library.driver_version, library.cuda_version, library.absence) == ("570.86.15", (12, 8), "")


def test_nvml_devices_are_described() -> None:
    device = NvmlLibrary(FakeNvml([[], []])).devices()[1]
    assert (device.uuid, device.index, device.product, device.memory_mib) == (
        "GPU-1", 1, "NVIDIA H100 80GB HBM3", 81559,
    )  # fmt: skip
    assert (device.compute_capability, device.family, device.mig_capable, device.numa) == ((9, 0), "hopper", True, 0)


def test_a_gpu_in_mig_mode_lists_its_instances_and_is_no_whole_one() -> None:
    library = NvmlLibrary(FakeNvml([[], [], []], mig={1: ["3g.40gb", "", "1c.2g.20gb", "1g.10gb+me"], 2: []}))
    whole, cut, empty = library.devices()
    assert (whole.mig, empty.mig) == (None, ())
    assert [(one.uuid, one.profile) for one in cut.mig or ()] == [("MIG-1-0", "3g.40gb"), ("MIG-1-3", "1g.10gb+me")]
    node = describe_node("n", library, cpus=8, memory=1 << 30)
    counts = {name: value for name, value in node.status.allocatable.items() if name.startswith("nvidia.com/")}
    assert counts == {GPU_RESOURCE: "1", "nvidia.com/mig-3g.40gb": "1", "nvidia.com/mig-1g.10gb.me": "1"}
    assert node.metadata.labels["nvidia.com/mig.strategy"] == "mixed"
    assert node.metadata.labels["nvidia.com/mig-1g.10gb.me.count"] == "1"
    found = adapter.node_spec(node)
    assert [device.mig for device in found.devices] == [
        None, Mig("H100-80GB", (("3g.40gb", 0), ("1g.10gb+me", 4))), Mig("H100-80GB", ()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("product", "memory_mib", "geometry"),
    [
        ("NVIDIA A100-SXM4-40GB", 40960, "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", 81920, "A100-80GB"),
        ("NVIDIA A30", 24576, "A30"),
        ("NVIDIA H100 PCIe", 81559, "H100-80GB"),
        ("NVIDIA H100 NVL", 95830, ""),
        ("NVIDIA H200", 143771, "H200-141GB"),
        ("NVIDIA L4", 23034, ""),
    ],
)
def test_the_geometry_of_a_product_is_known_or_nothing_is_said(product: str, memory_mib: int, geometry: str) -> None:
    assert geometry_of(product, memory_mib) == geometry


def test_instances_are_arranged_wherever_the_tables_let_them_be() -> None:
    for geometry, known in GEOMETRIES.items():
        plain = [profile.name for profile in known.profiles if not profile.media]
        for count in range(1, 8):
            for profiles in combinations_with_replacement(plain, count):
                starts = arranged(geometry, profiles)
                if starts is not None:
                    Mig(geometry, tuple(zip(profiles, starts, strict=True)))  # refuses what overlaps
    assert arranged("H100-80GB", ["1g.10gb"] * 7) is not None
    assert arranged("H100-80GB", ["1g.10gb"] * 8) is None
    assert arranged("H100-80GB", ["1g.10gb", "3g.40gb", "3g.40gb"]) is None
    assert arranged("H100-80GB", ["1g.10gb", "3g.40gb", "2g.20gb", "1g.10gb"]) is not None
    assert arranged("H100-80GB", ["1g.5gb"]) is None
    assert arranged("", []) is None


def test_a_gpu_that_is_cut_in_an_unknown_way_is_not_offered() -> None:
    node = describe_node("n", NvmlLibrary(FakeNvml([[]], mig={0: ["9g.99gb"]})), cpus=8, memory=1 << 30)
    assert node.status.allocatable[GPU_RESOURCE] == "0"
    assert adapter.node_spec(node).devices == ()


def test_a_simulation_says_how_its_gpus_are_cut() -> None:
    simulation = parse("1x2xH100:2x1g.10gb+me,3g.40gb".replace("2x1g.10gb+me", "1g.10gb+me,2x1g.10gb"))
    assert simulation.mig == ("1g.10gb+me", "1g.10gb", "1g.10gb", "3g.40gb")
    first, second = SimulatedLibrary("sim-0", simulation).devices()
    assert len({one.uuid for device in (first, second) for one in device.mig or ()}) == 8
    assert all(one.uuid.startswith("MIG-") for one in first.mig or ())
    for text, says in (
        ("1x1xL4:1g.6gb", "has no MIG"), ("1x1xH100:3x3g.40gb", "do not fit"), ("1x1xH100:1g.5gb", "1g.10gb, "),
        ("1x1xH100:three", "is no MIG instance"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            parse(text)


def test_without_a_driver_there_are_no_gpus_and_it_says_why() -> None:
    library = NvmlLibrary(FakeNvml([], broken=True))
    assert library.devices() == []
    assert "Driver Not Loaded" in library.absence


def test_a_simulation_is_nodes_by_gpus_by_model() -> None:
    simulation = parse("2x8xh100")
    assert (simulation.nodes, simulation.gpus, simulation.model.name) == (2, 8, "H100")
    assert (simulation.cpus, simulation.memory_bytes) == (192, 2 << 40)
    assert parse("1x1xA100").model.name == "A100-80GB"


@pytest.mark.parametrize("text", ["", "8xH100", "2x8xH900", "0x8xH100", "2x99xH100", "-1x8xH100", "2x8x"])
def test_a_bad_simulation_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=r"models: |from 1 to"):
        parse(text)


def test_simulated_devices_keep_their_ids() -> None:
    simulation = parse("2x8xH100")
    first = SimulatedLibrary("sim-0", simulation).devices()
    assert first == SimulatedLibrary("sim-0", simulation).devices()
    other = SimulatedLibrary("sim-1", simulation).devices()
    assert not {d.uuid for d in first} & {d.uuid for d in other}
    assert [d.numa for d in first] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {d.link for d in first} == {"0"}


def test_labels_are_nvidias() -> None:
    labels = gpu_labels(SimulatedLibrary("n", parse("1x8xH100")), machine="DGXH100")
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert labels["nvidia.com/gpu.count"] == "8"
    assert labels["nvidia.com/gpu.memory"] == "81559"
    assert labels["nvidia.com/gpu.family"] == "hopper"
    assert labels["nvidia.com/cuda.driver-version.major"] == "580"
    assert labels["nvidia.com/mig.capable"] == "true"
    assert gpu_labels(NvmlLibrary(FakeNvml([]))) == {}
    assert all(value == label_value(value) for value in labels.values())


def test_a_node_says_what_it_has() -> None:
    node = describe_node("sim-0", SimulatedLibrary("sim-0", parse("1x2xL4")), cpus=24, memory=192 << 30)
    assert isinstance(node, Node)
    assert node.status.capacity == {"cpu": "24", "memory": "192Gi", "pods": "1000", GPU_RESOURCE: "2"}
    assert node.status.allocatable == node.status.capacity
    assert [(c.type, c.status) for c in node.status.conditions] == [("Ready", "True")]
    devices = decode_inventory(node)
    assert [(d.index, d.model, d.memory_mib, d.link) for d in devices] == [
        (0, "NVIDIA-L4", 23034, ""), (1, "NVIDIA-L4", 23034, ""),
    ]  # fmt: skip
    assert node.metadata.labels["kubernetes.io/hostname"] == "sim-0"


def test_a_node_without_gpus_has_no_gpu_resource() -> None:
    node = describe_node("here", NvmlLibrary(FakeNvml([])), cpus=4, memory=8 << 30)
    assert GPU_RESOURCE not in node.status.capacity
    assert decode_inventory(node) == []
    assert "no GPU" in node.status.conditions[0].message


def test_a_broken_inventory_is_named() -> None:
    node = describe_node("n", SimulatedLibrary("n", parse("1x1xT4")), cpus=1, memory=1 << 30)
    node.metadata.annotations["heddle.dev/device-inventory"] = '[{"id": 3}]'
    with pytest.raises(ValueError, match="node n"):
        decode_inventory(node)


def test_every_model_has_a_family() -> None:
    assert all(family(model.compute_capability) for model in MODELS.values())
