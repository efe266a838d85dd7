"""Shares by memory, shares apart, models by preference, MIG: where what a task takes depends on the card."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from engine_invariants import check_state
from worlds import bound, codes, settle, world

from heddle.engine import (
    Device,
    Mig,
    NodeSpec,
    Placement,
    PodSet,
    QueueSpec,
    State,
    WorkloadSpec,
    explain,
    render,
    schedule,
)
from heddle.engine.plan import Bind


def cards(name: str, count: int, memory: int, **labels: str) -> NodeSpec:
    devices = tuple(Device(f"g{at}", at, memory_mib=memory) for at in range(count))
    return NodeSpec(name, {"cpu": 64_000}, devices, labels)


def by_memory(name: str, tasks: int, mib: int, least: int | None = None, **fields: object) -> WorkloadSpec:
    names = tuple(f"t{at}" for at in range(tasks))
    pods = PodSet("main", names, tasks if least is None else least, gpu_memory=mib)
    return WorkloadSpec(name, "a", (pods,), **fields)  # type: ignore[arg-type]


def used(state: State) -> int:
    return state.queue_usage()["a"]["gpu"]


def test_a_share_by_memory_is_charged_as_what_it_is_on_its_card_rounded_up() -> None:
    state = world(cards("n0", 1, 40_000), cards("n1", 1, 81_559), a=99)
    state.set_workload(by_memory("x/a", 2, 30_000))
    settle(state, schedule(state, 0))
    assert used(state) == 750 + 368  # 30000 of 81559 are 367.8 thousandths
    assert State.rebuild(state.snapshot()).queue_usage() == state.queue_usage()


def test_nothing_is_placed_where_memory_is_not_known_or_too_small_and_the_verdict_says_so() -> None:
    state = world(cards("n0", 8, 0), cards("n1", 8, 16_000), a=99)
    state.set_workload(by_memory("x/a", 1, 20_480))
    plan = schedule(state, 0)
    assert codes(plan, "x/a") == ["NoGpuMatches"]
    said = render(plan.verdicts["x/a"].reasons[0])
    assert said == "no schedulable node that it may use has GPUs known to have 20 GiB or more each"
    state.set_node(cards("n2", 1, 24_000))
    assert bound(schedule(state, 0)) == [("x/a", "n2", ("g0",))]


def test_of_cards_that_fit_the_one_of_which_least_is_left_is_taken() -> None:
    state = world(cards("n0", 1, 80_000), cards("n1", 1, 40_000), a=99)
    state.set_workload(by_memory("x/a", 1, 10_000))
    assert [place[1] for place in bound(schedule(state, 0))] == ["n1"]


def test_caps_are_asked_as_if_it_landed_on_the_smallest_card_that_could_hold_it() -> None:
    state = world(cards("n0", 4, 80_000), cards("n1", 1, 20_000), a=99)
    state.set_queue(QueueSpec("a", quota={"gpu": 0}, limit={"gpu": 900}))
    state.set_workload(by_memory("x/a", 1, 40_000))  # half of a large card; the small one could not hold it
    state.set_workload(by_memory("x/b", 1, 20_000))  # all of the small one
    plan = schedule(state, 0)
    assert [place[0] for place in bound(plan)] == ["x/a"]
    assert codes(plan, "x/b")[0] == "OverLimit"
    state.remove_node("n1")  # now nothing makes more than a quarter of it
    assert [place[0] for place in bound(schedule(state, 0))] == ["x/a", "x/b"]
    raised = {str(change.code) for change in explain(state, 0, "x/b").changes}
    assert raised == set()  # it starts now


def test_what_runs_is_counted_anew_when_cards_come_and_go() -> None:
    state = world(cards("n0", 2, 80_000), a=99)
    state.set_workload(by_memory("x/a", 2, 20_000))
    settle(state, schedule(state, 0))
    assert used(state) == 500
    state.set_node(cards("n1", 2, 20_000))
    assert used(state) == 500  # it has not moved
    state.set_node(cards("n0", 2, 40_000))  # described better
    assert used(state) == 1000
    assert State.rebuild(state.snapshot()).queue_usage() == state.queue_usage()


def test_the_field_is_checked() -> None:
    pods = PodSet("main", ("t",), 1, gpu_memory=1000)
    with pytest.raises(ValueError, match="give `gpu` or `gpu_memory`, not both"):
        replace(pods, gpu=500)
    with pytest.raises(ValueError, match=r"pod_set\.gpu_memory: -1"):
        replace(pods, gpu_memory=-1)


def shares(name: str, tasks: int, gpu: int = 500, **fields: object) -> WorkloadSpec:
    names = tuple(f"t{at}" for at in range(tasks))
    fields = {"separate_gpus": True, **fields}
    return WorkloadSpec(name, "a", (PodSet("main", names, tasks, gpu=gpu),), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["pack", "spread", "fragmentation"])
def test_separate_shares_are_on_gpus_of_their_own_beside_others(strategy: str) -> None:
    state = world(cards("n0", 3, 0), a=99)
    state.set_workload(shares("x/a", 3, 300, strategy=strategy))
    state.set_workload(shares("x/b", 3, 300, strategy=strategy, separate_gpus=False))
    plan = schedule(state, 0)
    assert sorted(place[2] for place in bound(plan) if place[0] == "x/a") == [("g0",), ("g1",), ("g2",)]
    assert len(bound(plan)) == 6


def test_the_verdict_says_that_shares_would_fit_together_only() -> None:
    state = world(cards("n0", 2, 0), cards("n1", 1, 0), a=99)
    state.set_workload(shares("x/a", 4, separate_gpus=False, preemptible=False))
    settle(state, schedule(state, 0))
    state.set_workload(shares("x/b", 2))
    plan = schedule(state, 0)
    assert codes(plan, "x/b")[0] == "NoSeparateGpus"
    said = render(plan.verdicts["x/b"].reasons[0])
    assert said == "its shares must be on separate GPUs: 1 of 2 find one that has room"
    assert "AnyArrangement" in {str(change.code) for change in explain(state, 0, "x/b").changes}
    state.set_workload(shares("x/c", 4))
    assert codes(schedule(state, 0), "x/c") == ["Impossible"]


def of_model(name: str, count: int, model: str, memory: int = 0) -> NodeSpec:
    devices = tuple(Device(f"g{at}", at, model, memory) for at in range(count))
    return NodeSpec(name, {"cpu": 64_000, f"gpu:{model}": 1000 * count}, devices)


def choosy(name: str, tasks: int, gpu: int = 1000, least: int | None = None, **fields: object) -> WorkloadSpec:
    names = tuple(f"t{at}" for at in range(tasks))
    models = fields.pop("models", ("H100", "A100"))
    pods = PodSet("main", names, tasks if least is None else least, gpu=gpu, gpu_models=models)  # type: ignore[arg-type]
    return WorkloadSpec(name, "a", (pods,), **fields)  # type: ignore[arg-type]


def places(state: State) -> list[str]:
    return sorted({node for _, node, _ in bound(schedule(state, 0))})


def test_what_comes_later_goes_to_the_model_that_runs_already() -> None:
    state = world(of_model("n0", 2, "A100"), a=99)
    state.set_workload(choosy("x/a", 4, least=1))
    settle(state, schedule(state, 0))
    state.set_node(of_model("n1", 4, "H100"))
    plan = schedule(state, 0)
    assert not bound(plan)  # two more would fit on H100s, beside two on A100s
    state.set_workload(choosy("x/b", 2))
    assert places(state) == ["n1"]
    state.set_node(of_model("n2", 1, "A100"))
    assert places(state) == ["n1", "n2"]


def test_usage_by_model_follows_the_place_and_survives_a_queue_that_begins_to_count() -> None:
    state = world(of_model("n0", 2, "A100"), of_model("n1", 1, "H100"), a=99)
    state.set_workload(choosy("x/a", 2))
    settle(state, schedule(state, 0))
    state.set_queue(QueueSpec("a", quota={"gpu": 9000}, limit={"gpu:A100": 2000}))
    assert state.queue_usage()["a"]["gpu:A100"] == 2000
    state.set_workload(choosy("x/b", 1, models=("A100",)))
    state.set_node(of_model("n2", 2, "A100"))
    plan = schedule(state, 0)
    assert codes(plan, "x/b")[0] == "OverLimit"
    assert State.rebuild(state.snapshot()).queue_usage() == state.queue_usage()
    raised = next(c for c in explain(state, 0, "x/b").changes if str(c.code) == "RaiseLimit")
    assert (raised.resource, raised.wanted) == ("gpu:A100", 3000)


def test_several_pod_sets_choose_each_for_themselves() -> None:
    state = world(of_model("n0", 2, "A100"), of_model("n1", 1, "H100"), a=99)
    sets = tuple(
        PodSet(name, tuple(f"{name}{at}" for at in range(count)), count, gpu=1000, gpu_models=("H100", "A100"))
        for name, count in (("one", 1), ("two", 2))
    )
    state.set_workload(WorkloadSpec("x/a", "a", sets))
    assert sorted(place[1] for place in bound(schedule(state, 0))) == ["n0", "n0", "n1"]


def test_a_share_by_memory_on_the_better_model() -> None:
    state = world(of_model("n0", 1, "A100", 40_000), of_model("n1", 1, "H100", 80_000), a=99)
    pods = PodSet("main", ("t0",), 1, gpu_memory=20_000, gpu_models=("H100", "A100"))
    state.set_queue(QueueSpec("a", quota={"gpu": 9000, "gpu:H100": 1000}))
    state.set_workload(WorkloadSpec("x/a", "a", (pods,)))
    settle(state, schedule(state, 0))
    assert (state.queue_usage()["a"]["gpu"], state.queue_usage()["a"]["gpu:H100"]) == (250, 250)


def test_the_verdict_names_the_models_that_are_not_there() -> None:
    state = world(of_model("n0", 2, "T4"), of_model("n1", 1, "L4"), a=99)
    state.set_workload(choosy("x/a", 1))
    said = render(schedule(state, 0).verdicts["x/a"].reasons[0])
    assert said == "no schedulable node that it may use has GPUs of model H100 or A100; the cluster has L4, T4"
    state.set_node(of_model("n1", 1, "A100"))
    state.set_workload(choosy("x/b", 2))
    assert codes(schedule(state, 0), "x/b") == ["Impossible"]


def cut(name: str, count: int = 1, geometry: str = "A100-40GB", **fields: object) -> NodeSpec:
    devices = tuple(Device(f"g{at}", at, mig=Mig(geometry, **fields)) for at in range(count))  # type: ignore[arg-type]
    return NodeSpec(name, {"cpu": 64_000}, devices)


def instance(name: str, profile: str, tasks: int = 1, **fields: object) -> WorkloadSpec:
    names = tuple(f"t{at}" for at in range(tasks))
    return WorkloadSpec(name, "a", (PodSet("main", names, tasks, mig=profile),), **fields)  # type: ignore[arg-type]


def instances(state: State) -> list[tuple[str, str, int]]:
    """Where the coming cycle puts MIG instances: node, device, start."""
    found = [a.placement for a in schedule(state, 0).actions if isinstance(a, Bind)]
    return [(place.node, place.devices[0], place.instance[1]) for place in found if place.instance]


def test_an_instance_goes_where_it_spoils_least() -> None:
    state = world(cut("n0"), cut("n1"), a=99)
    state.set_workload(instance("x/a", "1g.5gb"))
    assert instances(state) == [("n0", "g0", 6)]
    settle(state, schedule(state, 0))
    state.set_workload(instance("x/b", "2g.10gb"))
    state.set_workload(instance("x/c", "1g.5gb"))
    assert instances(state) == [("n0", "g0", 4), ("n0", "g0", 3)]  # 14 slices spoilt there, 16 on the empty one
    settle(state, schedule(state, 0))
    state.set_workload(instance("x/d", "7g.40gb"))
    state.set_workload(instance("x/e", "4g.20gb"))
    assert State.rebuild(state.snapshot()).snapshot() == state.snapshot()
    assert schedule(State.rebuild(state.snapshot()), 0) == schedule(state, 0)


def test_an_instance_counts_for_its_part_of_the_memory() -> None:
    state = world(cut("n0"), cut("n1", geometry="A30"), a=99)
    state.set_workload(instance("x/a", "3g.20gb"))
    state.set_workload(instance("x/b", "2g.12gb"))
    state.set_workload(instance("x/c", "1g.5gb"))
    settle(state, schedule(state, 0))
    assert used(state) == 500 + 500 + 125


def test_a_gpu_may_have_one_instance_with_media_engines() -> None:
    state = world(cut("n0"), a=99)
    state.set_workload(instance("x/a", "1g.5gb+me"))
    state.set_workload(instance("x/b", "1g.5gb+me"))
    settle(state, schedule(state, 0))
    assert codes(schedule(state, 0), "x/b")[0] == "NoRoom"
    state.set_workload(instance("x/c", "1g.5gb", 6))
    assert len(instances(state)) == 6


def test_the_place_of_an_instance_that_leaves_is_promised_and_then_taken() -> None:
    state = world(cut("n0"), a=99)
    state.set_workload(instance("x/a", "3g.20gb", priority=1))
    state.set_workload(instance("x/b", "3g.20gb", priority=1))
    settle(state, schedule(state, 0))
    state.set_workload(instance("x/c", "4g.20gb", priority=5))
    settle(state, schedule(state, 0), release=False)
    assert not bound(schedule(state, 0))
    assert codes(schedule(state, 0), "x/c") == ["WaitingForRelease"]
    rebuilt = State.rebuild(state.snapshot())
    assert schedule(rebuilt, 0) == schedule(state, 0)
    for work in state.works.values():
        for task in work.tasks.values():
            if task.state.name == "RELEASING":
                state.release_task(work.name, task.name)
    assert instances(state) == [("n0", "g0", 0)]


def test_the_verdict_says_that_no_gpu_is_cut_like_this() -> None:
    state = world(cards("n0", 4, 80_000), cut("n1", instances=(("3g.20gb", 0),)), a=99)
    state.set_workload(instance("x/a", "4g.20gb"))
    said = render(schedule(state, 0).verdicts["x/a"].reasons[0])
    assert said == "no schedulable node that it may use has GPUs in MIG mode with 4g.20gb; the cluster has 3g.20gb"
    state.set_workload(instance("x/b", "3g.20gb", 2))
    assert codes(schedule(state, 0), "x/b") == ["Impossible"]


def test_a_gpu_that_is_cut_anew_loses_the_instances_that_are_no_more() -> None:
    state = world(cut("n0"), a=99)
    state.set_workload(instance("x/a", "3g.20gb"))
    state.set_workload(instance("x/b", "3g.20gb"))
    settle(state, schedule(state, 0))
    assert state.set_node(cut("n0", instances=(("3g.20gb", 0), ("1g.5gb", 4)))) == (("x/a", "t0"),)
    assert state.set_node(cards("n0", 1, 40_000)) == (("x/b", "t0"),)
    assert used(state) == 0


def test_bad_instances_are_refused_with_a_remedy() -> None:
    state = world(cut("n0"), cards("n1", 1, 0), a=99)
    state.set_workload(instance("x/a", "3g.20gb"))
    for place, remedy in (
        (Placement("x/a", "main", "t0", "n0", ("g0",)), "give one device and"),
        (Placement("x/a", "main", "t0", "n0", ("g0",), ("4g.20gb", 0)), "give one device and"),
        (Placement("x/a", "main", "t0", "n0", ("g0",), ("3g.20gb", 2)), "a start at which it has or can have"),
        (Placement("x/a", "main", "t0", "n1", ("g0",), ("3g.20gb", 0)), "name a GPU in MIG mode"),
    ):
        with pytest.raises(ValueError, match=remedy):
            state.bind(place)
    state.bind(Placement("x/a", "main", "t0", "n0", ("g0",), ("3g.20gb", 4)))
    state.set_workload(instance("x/b", "1g.5gb"))
    with pytest.raises(ValueError, match="MIG slice of g0 on n0 is taken"):
        state.bind(Placement("x/b", "main", "t0", "n0", ("g0",), ("1g.5gb", 5)))
    state.set_workload(by_memory("x/c", 1, 100))
    with pytest.raises(ValueError, match="leave it out"):
        state.bind(Placement("x/c", "main", "t0", "n0", ("g0",), ("1g.5gb", 5)))
    with pytest.raises(ValueError, match="use one of A30, A100-40GB"):
        Mig("A100")
    with pytest.raises(ValueError, match="overlaps another"):
        Mig("A30", (("2g.12gb", 0), ("1g.6gb", 1)))
    with pytest.raises(ValueError, match="is not possible on A30"):
        Mig("A30", (("2g.12gb", 1),))
    with pytest.raises(ValueError, match="name a profile as NVIDIA does"):
        PodSet("main", ("t",), 1, mig="5g.20gb")


SHAPES = ("A30", "A100-40GB")


def tiny(draw: random.Random, at: int) -> NodeSpec:
    model, memory = draw.choice([("A", 40_000), ("B", 80_000), ("", 0)])
    devices = []
    for index in range(draw.randint(1, 3)):
        mig = Mig(draw.choice(SHAPES)) if draw.random() < 0.4 else None
        if mig is not None and draw.random() < 0.3:
            mig = Mig("A100-40GB", (("3g.20gb", 0), ("1g.5gb", 4), ("1g.5gb", 6)))
        devices.append(Device(f"g{index}", index, model, memory, mig=mig))
    return NodeSpec(f"n{at}", {"cpu": 64_000}, tuple(devices))


def room(spec: NodeSpec, pods: PodSet, *, separate: bool) -> int:
    """How many tasks an empty node holds, worked out by hand."""
    if pods.gpu_models and spec.devices[0].model not in pods.gpu_models:
        return 0
    if pods.mig:
        return sum(most_instances(device.mig, pods.mig) for device in spec.devices if device.mig)
    whole = [device for device in spec.devices if device.mig is None]
    if pods.gpu >= 1000:
        return len(whole) // (pods.gpu // 1000)
    for device in whole:
        if pods.gpu_memory and not 0 < pods.gpu_memory <= device.memory_mib:
            return 0
    shares = [pods.gpu or math.ceil(pods.gpu_memory * 1000 / device.memory_mib) for device in whole]
    return sum(1 if separate else 1000 // share for share in shares)


def most_instances(mig: Mig, profile: str) -> int:
    if mig.instances is not None:
        return sum(name == profile for name, _ in mig.instances)
    known = {"1g.5gb": 7, "2g.10gb": 3, "3g.20gb": 2, "4g.20gb": 1, "7g.40gb": 1, "1g.5gb+me": 1, "1g.10gb": 4}
    small = {"1g.6gb": 4, "2g.12gb": 2, "4g.24gb": 1}
    return (small if mig.geometry == "A30" else known).get(profile, 0)


@pytest.mark.parametrize("seed", range(300))
def test_a_job_alone_starts_just_when_there_is_room(seed: int) -> None:
    draw = random.Random(seed)
    nodes = [tiny(draw, at) for at in range(draw.randint(1, 3))]
    asked: dict[str, Any] = draw.choice(
        [{"gpu_memory": 10_000}, {"gpu_memory": 30_000}, {"gpu_memory": 50_000}, {"gpu": 400}, {"gpu": 2000}]
        + [{"mig": name} for name in ("1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb", "1g.10gb", "1g.6gb", "1g.5gb+me")]
    )
    models = draw.choice([(), (), ("A",), ("B", "A")])
    count, separate = draw.randint(1, 9), draw.random() < 0.3
    pods = PodSet("main", tuple(f"t{at}" for at in range(count)), count, gpu_models=models, **asked)
    state = world(*nodes, a=99)
    state.set_workload(WorkloadSpec("x/a", "a", (pods,), separate_gpus=separate))
    plan = schedule(state, 0)
    by_model: dict[str, int] = {}
    for spec in nodes:
        model = spec.devices[0].model if models else ""
        by_model[model] = by_model.get(model, 0) + room(spec, pods, separate=separate)
    fits = max(by_model.values()) >= count
    assert len(bound(plan)) == (count if fits else 0), f"{by_model}"
    assert fits or codes(plan, "x/a")[0] in ("Impossible", "NoGpuMatches")
    if fits:
        first = next(m for m in models or ("",) if by_model.get(m, 0) >= count)
        used_models = {state.nodes.specs[state.nodes.row[node]].devices[0].model for _, node, _ in bound(plan)}  # type: ignore[union-attr]
        assert not models or used_models == {first}
        settle(state, plan)
        check_state(state)
