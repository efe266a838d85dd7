"""Which GPUs a program sees.

As with NVIDIA's container runtime a pod sees its devices and no others; one without GPUs sees none. Unlike a
container this is an agreement, not a wall: a program that clears CUDA_VISIBLE_DEVICES sees all GPUs again.
"""

from heddle.api.pod import Pod
from heddle.api.workload import DEVICES_ANNOTATION, GPU_MEMORY_ANNOTATION, GPU_SHARE_ANNOTATION


def device_ids(pod: Pod) -> list[str]:
    """Ids of the pod's devices, as the scheduler wrote them."""
    text = pod.metadata.annotations.get(DEVICES_ANNOTATION, "")
    return [word.strip() for word in text.split(",") if word.strip()]


def gpu_environment(pod: Pod) -> dict[str, str]:
    """Variables that make the pod's devices, and only those, visible."""
    devices = device_ids(pod)
    if not devices:
        return {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
    visible = ",".join(devices)
    env = {"CUDA_VISIBLE_DEVICES": visible, "NVIDIA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if share := pod.metadata.annotations.get(GPU_SHARE_ANNOTATION):
        env["HEDDLE_GPU_SHARE"] = share
    if memory := pod.metadata.annotations.get(GPU_MEMORY_ANNOTATION):
        env["HEDDLE_GPU_MEMORY"] = memory
    return env
