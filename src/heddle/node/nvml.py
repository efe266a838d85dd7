"""Real GPUs through NVML (nvidia-ml-py). No library or no driver means no GPUs, and `absence` says why.

NVLink groups are the connected components of "has an active NVLink to". A link's far end is another GPU (by its
PCI bus id) or an NVSwitch, which joins all GPUs that reach one.
"""

import contextlib
from types import ModuleType
from typing import Any

from heddle.node.devices import Device, MigInstance
from heddle.node.models import family


def _import() -> ModuleType:
    import pynvml

    return pynvml  # type: ignore[no-any-return, unused-ignore]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class NvmlLibrary:
    """The GPUs that the driver of this machine shows.

    They are read once; `nvml` may be a stand-in with the same calls.
    """

    def __init__(self, nvml: Any = None) -> None:
        self.driver_version = ""
        self.cuda_version = (0, 0)
        self.absence = ""
        self._devices: list[Device] = []
        if nvml is None:
            try:
                nvml = _import()
            except ImportError as error:
                self.absence = f"the Python package nvidia-ml-py cannot be imported: {error}"
                return
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self.absence = f"NVML cannot start: {error}; is the NVIDIA driver installed and loaded?"
            return
        try:
            self._read(nvml)
        except nvml.NVMLError as error:
            self.absence = f"NVML failed while the GPUs were read: {error}"
        finally:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlShutdown()

    def devices(self) -> list[Device]:
        """All GPUs, by index."""
        return list(self._devices)

    def _read(self, nvml: Any) -> None:
        self.driver_version = _text(nvml.nvmlSystemGetDriverVersion())
        with contextlib.suppress(nvml.NVMLError):
            version = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
            self.cuda_version = (version // 1000, version % 1000 // 10)
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        if not handles:
            self.absence = "the NVIDIA driver shows no GPU"
        links = nvlink_groups(nvml, handles)
        self._devices = [self._device(nvml, index, handle, links[index]) for index, handle in enumerate(handles)]

    def _device(self, nvml: Any, index: int, handle: Any, link: str) -> Device:
        capability, numa, mig = (0, 0), -1, False
        instances: tuple[MigInstance, ...] | None = None
        with contextlib.suppress(nvml.NVMLError):
            major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
            capability = (int(major), int(minor))
        with contextlib.suppress(nvml.NVMLError, AttributeError):
            numa = int(nvml.nvmlDeviceGetNumaNodeId(handle))
        with contextlib.suppress(nvml.NVMLError):
            mode, _ = nvml.nvmlDeviceGetMigMode(handle)
            mig = True
            instances = _instances(nvml, handle) if mode else None
        return Device(
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            index=index,
            product=_text(nvml.nvmlDeviceGetName(handle)),
            memory_mib=int(nvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20,
            numa=numa,
            link=link,
            compute_capability=capability,
            family=family(capability),
            mig_capable=mig,
            mig=instances,
        )


def _instances(nvml: Any, handle: Any) -> tuple[MigInstance, ...]:
    """The MIG devices of a GPU. Those that share an instance with others (`1c.3g.40gb`) are left out: they would take
    its memory from each other."""
    found = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with contextlib.suppress(nvml.NVMLError):  # there is none of this index
            one = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            profile = _text(nvml.nvmlDeviceGetName(one)).rpartition("MIG ")[2].strip()
            if "c." not in profile:
                found.append(MigInstance(_text(nvml.nvmlDeviceGetUUID(one)), profile))
    return tuple(found)


def _bus(info: Any) -> str:
    return _text(info.busId).rstrip("\0").upper()[-10:]  # domains are written with 4 or 8 digits


def nvlink_groups(nvml: Any, handles: list[Any]) -> list[str]:
    """For each GPU the name of its NVLink group, empty for one without links."""
    parent = list(range(len(handles) + 1))  # the last is the NVSwitch fabric

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    fabric = len(handles)
    buses = {}
    for index, handle in enumerate(handles):
        with contextlib.suppress(nvml.NVMLError):
            buses[_bus(nvml.nvmlDeviceGetPciInfo(handle))] = index
    for index, handle in enumerate(handles):
        for link in range(getattr(nvml, "NVML_NVLINK_MAX_LINKS", 18)):
            try:
                if not nvml.nvmlDeviceGetNvLinkState(handle, link):
                    continue
                far = buses.get(_bus(nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link)))
                if far is None and _is_switch(nvml, handle, link):
                    far = fabric
            except nvml.NVMLError:
                continue
            if far is not None:
                parent[root(index)] = root(far)
    roots = [root(index) for index in range(len(handles))]
    alone = {r for r in roots if roots.count(r) == 1}
    names: dict[int, str] = {}
    return ["" if r in alone else names.setdefault(r, str(len(names))) for r in roots]


def _is_switch(nvml: Any, handle: Any, link: int) -> bool:
    try:
        kind = nvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)
    except (nvml.NVMLError, AttributeError):
        return True  # an old library does not tell: what is no GPU is taken for a switch
    return bool(kind == getattr(nvml, "NVML_NVLINK_DEVICE_TYPE_SWITCH", 2))
