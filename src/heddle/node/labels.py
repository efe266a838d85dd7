"""Labels of a node, named and written as NVIDIA's GPU feature discovery does, so that selectors carry over."""

import platform
import re
from collections import Counter
from typing import Any

from heddle.api.mig import resource_of
from heddle.node.devices import DeviceLibrary

_BAD = re.compile(r"[^A-Za-z0-9._-]+")
_ARCHITECTURE = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def label_value(text: str) -> str:
    """Text as a label value: blanks and what is not allowed become one dash, at most 63 characters."""
    return _BAD.sub("-", text.strip())[:63].strip("-_.")


def architecture() -> str:
    """As Kubernetes names it."""
    machine = platform.machine().lower()
    return _ARCHITECTURE.get(machine, machine)


def host_labels(name: str) -> dict[str, str]:
    """Labels that every node has."""
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": architecture(),
        "kubernetes.io/os": platform.system().lower(),
    }


def gpu_labels(library: DeviceLibrary, *, machine: str = "") -> dict[str, str]:
    """The `nvidia.com/` labels; none without GPUs.

    With GPUs of several products those of the most frequent are told (ties: the first by index), as one label can
    hold one value.
    """
    devices = library.devices()
    if not devices:
        return {}
    products = [device.product for device in devices]
    main = max(devices, key=lambda device: (products.count(device.product), -device.index))
    labels: dict[str, Any] = {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": len(devices),
        "nvidia.com/gpu.product": label_value(main.product),
        "nvidia.com/gpu.memory": main.memory_mib,
        "nvidia.com/gpu.replicas": 1,
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.compute.major": main.compute_capability[0],
        "nvidia.com/gpu.compute.minor": main.compute_capability[1],
        "nvidia.com/mig.capable": str(main.mig_capable).lower(),
        "nvidia.com/mig.strategy": "none" if all(device.mig is None for device in devices) else "mixed",
    }
    cut = Counter(resource_of(one.profile) for device in devices for one in device.mig or ())
    labels |= {f"{name}.count": count for name, count in sorted(cut.items())}
    if main.family:
        labels["nvidia.com/gpu.family"] = main.family
    if machine:
        labels["nvidia.com/gpu.machine"] = label_value(machine)
    if library.driver_version:
        parts = [*library.driver_version.split("."), "", ""]
        labels["nvidia.com/cuda.driver-version.full"] = label_value(library.driver_version)
        for what, part in zip(("major", "minor", "revision"), parts, strict=False):
            labels[f"nvidia.com/cuda.driver-version.{what}"] = label_value(part)
    major, minor = library.cuda_version
    if major:
        labels["nvidia.com/cuda.runtime-version.full"] = f"{major}.{minor}"
        labels["nvidia.com/cuda.runtime-version.major"] = major
        labels["nvidia.com/cuda.runtime-version.minor"] = minor
    return {key: str(value) for key, value in labels.items()}
