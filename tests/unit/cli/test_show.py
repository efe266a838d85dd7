"""What the terminal shows of nodes and queues."""

import pytest

from heddle.api.meta import ObjectMeta
from heddle.api.pod import Container, Pod, PodSpec, ResourceRequirements
from heddle.api.queue import Queue, QueueSpec
from heddle.api.workload import DEVICES_ANNOTATION
from heddle.cli.show import gpus_in_use, queue_tree


def pod(asked: int | str, devices: str = "") -> Pod:
    annotations = {DEVICES_ANNOTATION: devices} if devices else {}
    resources = ResourceRequirements(limits={"nvidia.com/gpu": asked})
    return Pod(
        metadata=ObjectMeta(name="p", annotations=annotations),
        spec=PodSpec(containers=[Container(name="main", resources=resources)]),
    )


def test_gpus_in_use_are_devices_where_they_are_named_and_else_what_is_asked_for() -> None:
    assert gpus_in_use([]) == 0
    assert gpus_in_use([pod(2), pod(4), pod(0)]) == 6
    assert gpus_in_use([pod("500m", "a"), pod("500m", "a")]) == 1  # shares of one device
    assert gpus_in_use([pod(2, "a,b"), pod(1)]) == 3


def test_a_queue_tree_is_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    limit = {"nvidia.com/gpu": 16}
    queue_tree([Queue(metadata=ObjectMeta(name="q" * 60), spec=QueueSpec(quota=limit, limit=limit))])
    assert capsys.readouterr().out.splitlines()[1].rstrip().endswith("0 pending")
