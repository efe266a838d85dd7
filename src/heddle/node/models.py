"""GPU models that can be simulated, and the families of compute capabilities.

Sources: memory as `nvidia-smi` and NVML report it on these products (total less what the firmware keeps);
compute capabilities from https://developer.nvidia.com/cuda-gpus; NVLink, MIG and host sizes from NVIDIA's data
sheets and the DGX and HGX user guides.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """One GPU model and the server that it usually comes in (per 8 GPUs)."""

    name: str
    product: str
    memory_mib: int
    compute_capability: tuple[int, int]
    nvlink: bool
    mig: bool
    machine: str
    cpus: int
    memory_gib: int


def family(capability: tuple[int, int]) -> str:
    """Architecture family of a compute capability, as NVIDIA's labels name it; empty if unknown."""
    major, minor = capability
    if (major, minor) == (7, 5):
        return "turing"
    if (major, minor) == (8, 9):
        return "ada-lovelace"
    return {3: "kepler", 5: "maxwell", 6: "pascal", 7: "volta", 8: "ampere", 9: "hopper"}.get(
        major, "blackwell" if major in (10, 12) else ""
    )


MODELS = {
    model.name: model
    for model in (
        # name, product, MiB, capability, NVLink, MIG, machine, CPUs and GiB of a server with eight
        Model("V100", "Tesla V100-SXM2-32GB", 32768, (7, 0), True, False, "DGX-1", 80, 512),
        Model("T4", "Tesla T4", 15360, (7, 5), False, False, "Simulated-T4", 96, 384),
        Model("A10", "NVIDIA A10", 23028, (8, 6), False, False, "Simulated-A10", 128, 1024),
        Model("A100-40GB", "NVIDIA A100-SXM4-40GB", 40960, (8, 0), True, True, "DGXA100", 256, 1024),
        Model("A100-80GB", "NVIDIA A100-SXM4-80GB", 81920, (8, 0), True, True, "DGXA100", 256, 2048),
        Model("L4", "NVIDIA L4", 23034, (8, 9), False, False, "Simulated-L4", 96, 768),
        Model("L40S", "NVIDIA L40S", 46068, (8, 9), False, False, "Simulated-L40S", 128, 1024),
        Model("H100", "NVIDIA H100 80GB HBM3", 81559, (9, 0), True, True, "DGXH100", 192, 2048),
        Model("H200", "NVIDIA H200", 143771, (9, 0), True, True, "DGXH200", 192, 2048),
        Model("B200", "NVIDIA B200", 183359, (10, 0), True, True, "DGXB200", 224, 4096),
    )
}
"""By name, in order of appearance."""

ALIASES = {"A100": "A100-80GB"}
