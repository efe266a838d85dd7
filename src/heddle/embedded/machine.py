"""The nodes of this machine: itself with its real GPUs, and simulated ones beside it."""

import os
import platform
from collections.abc import Sequence

import psutil

from heddle.api.core import Node
from heddle.node.inventory import describe_node
from heddle.node.nvml import NvmlLibrary
from heddle.node.simulated import SimulatedLibrary, Simulation


def this_node() -> tuple[Node, str]:
    """This machine as a node, and why it has no GPUs where it has none."""
    library = NvmlLibrary()
    name = (platform.node() or "localhost").split(".")[0].lower() or "localhost"
    node = describe_node(name, library, cpus=os.cpu_count() or 1, memory=psutil.virtual_memory().total)
    return node, library.absence


def simulated_nodes(simulations: Sequence[Simulation]) -> list[Node]:
    """Nodes sim-0, sim-1, ... with GPUs that only the scheduler sees."""
    nodes: list[Node] = []
    for simulation in simulations:
        for _ in range(simulation.nodes):
            name = f"sim-{len(nodes)}"
            library = SimulatedLibrary(name, simulation)
            nodes.append(describe_node(name, library, cpus=simulation.cpus, memory=simulation.memory_bytes))
    return nodes
