"""Devices, labels and Node objects, from simulated GPUs and from NVML's calls."""

from types import SimpleNamespace
from typing import Any

import pytest

from heddle.api.core import GPU_RESOURCE, Node
from heddle.node.inventory import decode_inventory, describe_node
from heddle.node.labels import gpu_labels, label_value
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

    def __init__(self, links: list[list[str]], broken: bool = False) -> None:
        self.links, self.broken, self.open = links, broken, 0

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
            "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
            "nvmlDeviceGetName": lambda handle: b"NVIDIA H100 80GB HBM3",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=81559 << 20),
            "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
            "nvmlDeviceGetNumaNodeId": lambda handle: handle // 2,
            "nvmlDeviceGetMigMode": lambda handle: [0, 0],
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
