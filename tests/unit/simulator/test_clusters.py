"""Clusters from descriptions and files, in racks, in real networks, and in other sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from heddle.engine import NODE, NodeSpec, QueueSpec
from heddle.engine.model import MODEL
from heddle.simulator.clusters import Cluster, Racks, along, in_racks, parse, read
from heddle.simulator.jobs import Job, Trace
from heddle.simulator.tables import TableError


def saved(folder: Path, text: str, name: str = "nodes.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def models(cluster: Cluster) -> Counter[str]:
    return Counter(device.model for node in cluster.nodes for device in node.devices)


def test_a_description_makes_nodes() -> None:
    found = read("128x8xH100")
    assert (len(found.nodes), found.gpus, found.name) == (128, 1024, "128x8xH100")
    assert found.nodes[0].labels == {"nvidia.com/gpu.product": "H100"}
    assert found.nodes[0].resources == {"cpu": 192000, "memory": 2 << 40}
    assert (found.topology, found.queues) == ((), ())


def test_descriptions_join_and_say_cpus_and_memory() -> None:
    found = parse("2x8xH100:96c:1Ti+1x4xA100-40GB+3x0:32c:64Gi+1x2")
    assert [len(node.devices) for node in found.nodes] == [8, 8, 4, 0, 0, 0, 2]
    assert found.nodes[0].resources == {"cpu": 96000, "memory": 1 << 40}
    assert found.nodes[3].resources == {"cpu": 32000, "memory": 64 << 30}
    assert found.nodes[3].labels == found.nodes[6].labels == {}
    assert models(found) == {"H100": 16, "A100-40GB": 4, "": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("8x", "no such file; a cluster is a file, or nodes x GPUs x model as 128x8xH100"),
        ("0x8", "'0x8' is not valid; give 1 to 1000000 nodes"),
        ("1x9999", "'1x9999' is not valid; .* at most 1024 GPUs"),
        ("4x8+x", "'x' is not valid; write nodes x GPUs x model"),
        ("4x8:much", "'much' is not valid; write CPUs as 96c and memory as 1Ti"),
        ("4x8:mc", "'mc' is not valid; write CPUs"),
    ],
)
def test_broken_descriptions_say_how(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(text)


def test_racks_and_blocks_are_neighbours_in_the_list() -> None:
    found = in_racks(parse("10x8"), Racks(2, 3))
    assert found.topology == ("block", "rack")
    assert [node.labels["rack"] for node in found.nodes] == [f"r{at // 2}" for at in range(10)]
    assert [node.labels["block"] for node in found.nodes] == ["b0"] * 6 + ["b1"] * 4
    assert in_racks(parse("2x8"), Racks(2)).topology == ("rack",)
    assert in_racks(parse("20x8"), Racks(2, 3)).resized(10).nodes == found.nodes
    assert [n.labels["rack"] for n in in_racks(parse("3x8"), Racks(2)).resized(5).nodes] == [
        "r0",
        "r0",
        "r1",
        "r1",
        "r2",
    ]
    with pytest.raises(ValueError, match="racks: 0 is not valid"):
        Racks(0)
    with pytest.raises(ValueError, match="blocks: -1 is not valid"):
        Racks(1, -1)


def test_another_size_keeps_the_mix_of_nodes() -> None:
    found = parse("6x8xH100+2x4xA100")
    assert models(found.resized(4)) == {"H100": 24, "A100": 4}
    assert models(found.resized(20)) == {"H100": 120, "A100": 20}
    assert found.resized(8) is found
    for size in range(1, 40):
        assert len({node.name for node in found.resized(size).nodes}) == size
    with pytest.raises(ValueError, match="nodes: 0 is not valid"):
        found.resized(0)


def test_another_size_changes_quotas_with_it() -> None:
    amounts = {"gpu": 16000, "cpu": 3, MODEL + "H100": 8000, "counter:matlab": 5, "memory": None}
    found = Cluster("c", parse("4x8").nodes, queues=(QueueSpec("a", quota=amounts, lending_limit={"gpu": 8000}),))
    (queue,) = found.resized(6).queues
    assert queue.quota == {"gpu": 24000, "cpu": 5, MODEL + "H100": 12000, "counter:matlab": 5, "memory": None}
    assert queue.lending_limit == {"gpu": 12000}
    assert found.resized(2).queues[0].quota["gpu"] == 8000


def test_queues_that_only_the_trace_names_are_added() -> None:
    trace = Trace.of("t", [Job("1", 0, 1, queue="b"), Job("2", 0, 1, queue="a"), Job("3", 0, 1, queue="b")])
    assert parse("1x8").queues_of(trace) == (QueueSpec("a"), QueueSpec("b"))
    owner = QueueSpec("a", quota={"gpu": 8000})
    assert Cluster("c", parse("1x8").nodes, queues=(owner,)).queues_of(trace) == (
        owner,
        QueueSpec("b", quota={"gpu": 0}),
    )


def test_heddles_own_list_of_nodes(tmp_path: Path) -> None:
    text = "name,gpus,model,cpu,memory,labels\na,8,H100,96,1Ti,zone=z1;rack=r 1\nb,0,,500m,,\n"
    found = read(saved(tmp_path, text))
    assert found.name == "nodes"
    assert found.nodes[0].labels == {"nvidia.com/gpu.product": "H100", "zone": "z1", "rack": "r 1"}
    assert found.nodes[0].resources == {"cpu": 96000, "memory": 1 << 40}
    assert found.nodes[1] == NodeSpec("b", {"cpu": 500, "memory": 2 << 40})


def test_nodes_of_openb_and_philly(tmp_path: Path) -> None:
    openb = read(saved(tmp_path, "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,1024,2,P100\nn1,32000,1024,0,\n"))
    assert [len(node.devices) for node in openb.nodes] == [2, 0]
    sizes = read(saved(tmp_path, "vc,node num\na,2\nb,1\n"), node_gpus=4)
    assert (len(sizes.nodes), sizes.gpus) == (3, 12)
    assert [queue.quota for queue in sizes.queues] == [{"gpu": 8000}, {"gpu": 4000}]
    machines = read(saved(tmp_path, "machineId, number of GPUs, single GPU mem\nm0,2, 12GB\nm1,8, 24GB\n"))
    assert [node.devices[0].memory_mib for node in machines.nodes] == [12288, 24576]


def test_the_machine_of_a_log(tmp_path: Path) -> None:
    found = read(saved(tmp_path, "; MaxNodes: 4\n; MaxProcs: 30\n", "log.swf"))
    assert [len(node.devices) for node in found.nodes] == [8, 8, 8, 6]
    assert [len(node.devices) for node in read(saved(tmp_path, "; MaxProcs: 20\n"), node_gpus=8).nodes] == [8, 8, 4]
    assert read(saved(tmp_path, "; MaxNodes: 3\n")).gpus == 3
    halved = read(saved(tmp_path, "; MaxNodes: 4\n; MaxProcs: 30\n"), processors=2)
    assert [len(node.devices) for node in halved.nodes] == [4, 4, 4, 3]
    with pytest.raises(ValueError, match="processors: 0 is not valid"):
        read("4x8", processors=0)


def test_the_usual_size_of_a_node_is_that_of_most_gpus() -> None:
    assert [parse(text).node_gpus for text in ("2x8+9x2", "1x8+9x2", "3x0")] == [2, 2, 1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,gpus\na,some\n", "nodes.csv:2: gpus: 'some' is not valid"),
        ("name,gpus\na,2000\n", "nodes.csv:2: gpus: '2000' is not valid: give at most 1024 GPUs of one node"),
        ("vc,node num\na,9000000\n", "nodes.csv: nodes: 9000000 is not valid; give at most 1000000"),
        ("; MaxProcs: 99999999\n", "nodes.csv: nodes: 12500000 is not valid"),
        ("; MaxProcs: 9999\n; MaxNodes: 2\n", "nodes.csv: give at most 1024 GPUs of one node"),
        ("name,gpus\n,1\n", "nodes.csv:2: name is empty"),
        ("name,gpus\na,1\na,2\n", "nodes.csv: cluster nodes: two nodes have one name"),
        ("name,gpus\n", "nodes.csv: cluster nodes: it has no node"),
        (
            "name,gpus,labels\na,1,zone\n",
            "nodes.csv:2: labels: 'zone' is not valid: write labels as key=value;key=value",
        ),
        ("name,gpus,memory\na,1,x\n", "nodes.csv:2: memory: 'x' is not valid"),
        ("vc,node num\na,1\na,2\n", "nodes.csv:3: vc: 'a' was named before"),
        ("machineId, number of GPUs, single GPU mem\nm0,2, 12\n", "nodes.csv:2: single GPU mem: '12' is not valid"),
        ("colour\nred\n", "nodes.csv:1: 'colour' begins no list of nodes that is known: openb .sn, .*; swf; snapshot"),
        ("{}", "nodes.csv: kind: is no snapshot of heddle"),
    ],
)
def test_broken_lists_are_told_with_their_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TableError, match=says):
        read(saved(tmp_path, text))


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="format: 'xml' is not known; use one of nodes, openb, philly, philly-machines"
    ):
        read("4x8", form="xml")


TOPO = "ip,DSW,PSW,ASW\nh3,g1,p1,s2\nh1,g1,p1,s1\nh2,g1,p1,s2\nh4,g1,p2,s1\n"


def path_of(node: NodeSpec) -> str:
    return "/".join(node.labels[level] for level in ("DSW", "PSW", "ASW"))


def test_a_real_network_is_laid_over_the_nodes_neighbours_together(tmp_path: Path) -> None:
    found = along(parse("6x8"), saved(tmp_path, TOPO))
    assert found.topology == ("DSW", "PSW", "ASW")
    places = ["g1/p1/s1", "g1/p1/s2", "g1/p1/s2", "g1/p2/s1", "g1-copy1/p1/s1", "g1-copy1/p1/s2"]
    assert [path_of(node) for node in found.nodes] == places
    assert path_of(found.resized(9).nodes[6]) == "g1-copy1/p1/s1"


def test_hosts_of_the_network_get_their_own_places(tmp_path: Path) -> None:
    nodes = saved(tmp_path, "name,gpus,labels\nh3,8,kubernetes.io/hostname=h3\nh4,8,\n")
    found = along(read(nodes), saved(tmp_path, TOPO, "topo.csv"))
    assert [path_of(node) for node in found.nodes] == ["g1/p1/s2", "g1/p2/s1"]
    copy = found.resized(3).nodes[2]
    assert (copy.name, copy.labels[NODE], path_of(copy)) == ("h3-copy1", "h3-copy1", "g1-copy1/p1/s2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ip\nh1\n", "topo.csv:1: has only the column ip; give a column for each level"),
        ("ip,rack\n", "topo.csv: has no host"),
        ("ip,rack\nh1,\n", "topo.csv:2: rack is empty"),
        ("ip,rack\nh1,a\nh1,b\n", "topo.csv:3: ip: 'h1' was named before"),
    ],
)
def test_a_broken_network_is_told_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TableError, match=says):
        along(parse("2x8"), saved(tmp_path, text, "topo.csv"))


def test_more_nodes_are_copies_and_leave_quotas_as_they_are() -> None:
    queues = (QueueSpec("q", quota={"gpu": 8000}),)
    found = Cluster("mixed", parse("1x8xH100+2x4xA100").nodes, queues=queues)
    assert [len(node.devices) for node in found.grown(2).nodes] == [8, 4, 4, 8, 8]
    assert found.grown(2).grown(1).nodes[-1].name == "n000000-copy3"
    assert [len(node.devices) for node in found.grown(1, "n000001").nodes] == [8, 4, 4, 4]
    assert found.grown(2).queues == queues
    with pytest.raises(ValueError, match="'n9' is not one of the cluster; give one of n000000, n000001"):
        found.grown(1, "n9")
