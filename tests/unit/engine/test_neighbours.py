"""Tasks near to, apart from, and even among others, of whatever workload."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest
from worlds import FUZZ, bound, node, runs, settle, victims, work, world

from heddle.engine import (
    Apart,
    Even,
    LabelMatch,
    Near,
    Neighbours,
    NodeSpec,
    PodSet,
    QueueSpec,
    Reason,
    Spread,
    State,
    Taint,
    Toleration,
    WorkloadSpec,
    explain,
    render,
    schedule,
)

WEB = Neighbours(("web",))
ALONE = Neighbours(("web",), apart=(Apart("host", "web"),))
TOGETHER = Neighbours(("web",), Near(("rack",), "web"))


def racks(*sizes: int, gpus: int = 2) -> list[NodeSpec]:
    """Nodes in racks of so many, two racks to a zone."""
    return [
        node(f"n{rack}{at}", gpus, rack=f"r{rack}", zone=f"z{rack // 2}", host=f"n{rack}{at}")
        for rack, size in enumerate(sizes)
        for at in range(size)
    ]


def with_neighbours(spec: WorkloadSpec, wish: Neighbours, **more: object) -> WorkloadSpec:
    sets = tuple(replace(pods, neighbours=wish, **more) for pods in spec.pod_sets)  # type: ignore[arg-type]
    return replace(spec, pod_sets=sets)


def submit(state: State, name: str, wish: Neighbours, tasks: int = 1, gpus: float = 1, **more: object) -> None:
    fields = {key: more.pop(key) for key in ("node_selector", "tolerations") if key in more}
    state.set_workload(with_neighbours(work(name, "a", tasks, gpus, **more), wish, **fields))


def where(state: State, name: str) -> list[str]:
    return sorted(state.nodes.names[task.row] for task in state.works[name].tasks.values() if task.row >= 0)


def go(state: State) -> None:
    settle(state, schedule(state, 0))


def why(state: State, name: str) -> Reason:
    reason = schedule(state, 0).verdicts[name].reasons[0]
    assert render(reason)
    return reason


def test_those_who_shun_each_other_have_a_node_each() -> None:
    state = world(*racks(1, 1, 1), a=99)
    for at in range(4):
        submit(state, f"x/w{at}", ALONE)
    go(state)
    assert [where(state, f"x/w{at}") for at in range(4)] == [["n00"], ["n10"], ["n20"], []]
    assert why(state, "x/w3").code == "AntiAffinity"
    assert [name for name, _ in why(state, "x/w3").holders] == ["x/w0", "x/w1", "x/w2"]
    (change,) = explain(state, 0, "x/w3").changes  # without its own rule the others would still shun it
    assert change.code == "OthersLeave"


def test_who_is_shunned_by_those_that_run_keeps_away_though_it_demands_nothing() -> None:
    state = world(*racks(1, 1), a=99)
    submit(state, "x/first", Neighbours(apart=(Apart("zone", "web"),)))
    go(state)
    submit(state, "x/web", WEB)
    assert bound(schedule(state, 0)) == []
    assert (why(state, "x/web").code, why(state, "x/web").holders) == ("KeptAway", (("x/first", 1),))
    submit(state, "x/other", Neighbours(("db",)))
    go(state)
    assert where(state, "x/other")
    state.remove_workload("x/first")
    go(state)
    assert where(state, "x/web")


def test_nobody_is_near_to_those_who_are_nowhere() -> None:
    state = world(*racks(1, 2), a=99)
    submit(state, "x/w", Neighbours((), Near(("rack",), "db")))
    assert bound(schedule(state, 0)) == []
    assert (why(state, "x/w").code, why(state, "x/w").tasks) == ("NoMatchingNeighbour", 0)
    (change,) = explain(state, 0, "x/w").changes
    assert (change.code, bool(render(change))) == ("AnyNeighbours", True)
    submit(state, "x/db", Neighbours(("db",)), gpus=2, node_selector={"host": "n11"})
    go(state)  # in the very cycle in which they come
    assert where(state, "x/w") == ["n10"]


def test_those_who_wait_for_company_follow_it_whatever_their_order() -> None:
    state = world(*racks(1, 1, 1), a=99)
    names = [f"x/w{at}" for at in range(6)]
    for at, name in enumerate(names):
        near = Near(("rack",), f"c{at + 1}") if at < 5 else None
        submit(state, name, Neighbours((f"c{at}",), near), gpus=0, created=float(at))
    go(state)
    assert len({place for name in names for place in where(state, name)}) == 1
    assert all(where(state, name) for name in names)


def test_who_came_while_nobody_sought_them_is_found() -> None:
    state = world(*racks(1, 1), a=99)
    seeks = Neighbours((), Near(("host",), "web"))
    submit(state, "x/one", seeks)
    go(state)
    state.remove_workload("x/one")
    submit(state, "x/web", WEB)
    go(state)
    submit(state, "x/one", seeks)
    go(state)
    assert where(state, "x/one") == where(state, "x/web")


def test_the_first_of_a_crowd_seeks_nobody_and_the_others_follow() -> None:
    state = world(*racks(1, 2), a=99)
    submit(state, "x/a", TOGETHER, gpus=2)
    go(state)
    submit(state, "x/b", TOGETHER, gpus=2)
    submit(state, "x/c", TOGETHER, gpus=2)
    go(state)
    homes = {
        state.nodes.specs[state.nodes.row[n]].labels["rack"]
        for name in ("a", "b", "c")
        for n in where(state, f"x/{name}")
    }  # type: ignore[union-attr]
    assert len(homes) == 1
    waits = [name for name in ("x/b", "x/c") if not where(state, name)]
    assert all(why(state, name).code == "NoMatchingNeighbour" for name in waits)
    assert waits


def test_a_gang_that_seeks_its_own_company_goes_where_all_of_it_fits() -> None:
    state = world(*racks(1, 3, 2), a=99)
    submit(state, "x/w", TOGETHER, tasks=6)
    go(state)
    assert where(state, "x/w") == ["n10", "n10", "n11", "n11", "n12", "n12"]
    submit(state, "x/v", Neighbours(("db",), Near(("zone",), "db"), (Apart("host", "db"),)), tasks=3)
    assert bound(schedule(state, 0)) == []
    assert (why(state, "x/v").code, why(state, "x/v").needed) == ("NoMatchingNeighbour", 3)


def test_those_who_never_run_at_the_same_time_take_turns() -> None:
    state = world(*racks(1, 1), a=99)
    turns = Neighbours(("disk",), apart=(Apart("", "disk"),))
    submit(state, "x/one", turns)
    submit(state, "x/two", turns)
    go(state)
    assert (len(where(state, "x/one")), len(where(state, "x/two"))) == (1, 0)
    assert "run at the same time" in render(why(state, "x/two"))
    state.remove_workload("x/one")
    go(state)
    assert len(where(state, "x/two")) == 1


def test_members_of_a_gang_that_shun_each_other() -> None:
    state = world(*racks(2, 2), a=99)
    submit(state, "x/w", Neighbours(("web",), apart=(Apart("rack", "web"),)), tasks=3)
    assert bound(schedule(state, 0)) == []
    assert (why(state, "x/w").code, why(state, "x/w").fits, why(state, "x/w").needed) == ("AntiAffinity", 2, 3)
    submit(state, "x/v", Neighbours(("web",), apart=(Apart("rack", "web"),)), tasks=2)
    go(state)
    assert where(state, "x/v") == ["n00", "n10"]


def test_nobody_starts_for_evenness_with_who_leaves_in_the_same_cycle() -> None:
    state = world(*racks(1, 1, gpus=2), a=8)
    submit(state, "x/leaves", WEB, gpus=2, selector={"host": "n10"})
    go(state)
    even = Neighbours(("web",), even=(Even("rack", "web", 1),))
    submit(state, "x/even", even, tasks=2, created=1)
    state.set_workload(work("x/high", "a", 1, 2, priority=1, selector={"host": "n10"}))
    plan = schedule(state, 0)
    assert victims(plan) == ["x/leaves"]
    assert not bound(plan), "two in one rack and none in the other"
    settle(state, plan)
    go(state)
    assert where(state, "x/high") == ["n10"]
    assert not runs(state, "x/even")
    state.remove_workload("x/high")
    go(state)
    assert where(state, "x/leaves") == ["n10"], "it is back"
    assert where(state, "x/even") == ["n00", "n00"]


def test_all_pods_of_a_namespace_count_for_evenness() -> None:
    state = world(*racks(1, 1, 1, gpus=8), a=99)
    for at, rack in enumerate((0, 0, 1)):
        submit(state, f"x/there{at}", WEB, node_selector={"rack": f"r{rack}"})
    go(state)
    even = Neighbours(("web",), even=(Even("rack", "web", 1),))
    submit(state, "x/w", even, tasks=3)
    go(state)
    assert where(state, "x/w") == ["n10", "n20", "n20"]
    submit(state, "x/v", even, node_selector={"host": "n00"})  # of the racks that admit it, this has fewest
    go(state)
    assert where(state, "x/v") == ["n00"]
    stranger = Neighbours(("web",), even=(Even("rack", "web", 1, admitted=False),))
    submit(state, "x/u", stranger, node_selector={"host": "n00"})
    assert why(state, "x/u").code == "TooUneven"


def test_too_few_values_count_as_one_that_is_empty() -> None:
    state = world(*racks(1, 1, gpus=8), a=99)
    submit(state, "x/w", Neighbours(("web",), even=(Even("rack", "web", 2, values=3),)), tasks=5, least=0)
    for _ in range(3):
        go(state)
    assert where(state, "x/w") == ["n00", "n00", "n10", "n10"]


def test_nodes_that_a_pod_does_not_tolerate_count_unless_the_rule_says_otherwise() -> None:
    nodes = racks(1, 1, gpus=8)
    nodes[1] = replace(nodes[1], taints=(Taint("t"),))
    for tolerated, expected in ((False, 1), (True, 3)):
        state = world(*nodes, a=99)
        rule = Even("rack", "web", 1, tolerated=tolerated)
        submit(state, "x/w", Neighbours(("web",), even=(rule,)), tasks=3, least=0)
        for _ in range(3):
            go(state)
        assert runs(state) == expected
        submit(state, "x/v", Neighbours(("web",), even=(rule,)), tolerations=(Toleration("t"),))
        go(state)
        assert where(state, "x/v") == ["n10"]


def test_room_is_made_by_evicting_whom_one_shuns() -> None:
    state = world(*racks(1), a=99)
    submit(state, "x/low", WEB, priority=0)
    go(state)
    submit(state, "x/high", Neighbours(apart=(Apart("host", "web"),)), priority=5)
    plan = schedule(state, 0)
    assert victims(plan) == ["x/low"]
    settle(state, plan, release=False)
    assert not where(state, "x/high")  # as long as the other is there
    state.release_task("x/low", "t0")
    go(state)
    assert where(state, "x/high") == ["n00"]
    assert why(state, "x/low").code == "KeptAway"


def test_nobody_is_evicted_in_vain_for_want_of_company() -> None:
    state = world(*racks(1, 1), a=99)
    submit(state, "x/low", WEB, tasks=4, least=0, priority=0)
    for _ in range(4):
        go(state)
    assert runs(state, "x/low") == 4
    submit(state, "x/high", Neighbours((), Near(("host",), "db")), priority=5)
    assert victims(schedule(state, 0)) == []


def test_whoever_makes_room_may_be_the_company_that_is_sought() -> None:
    state = world(*racks(1), a=99)
    submit(state, "x/low", WEB, gpus=2, priority=0)
    go(state)
    submit(state, "x/high", Neighbours((), Near(("host",), "web")), priority=5)
    assert victims(schedule(state, 0)) == []


def test_a_rule_of_others_is_known_of_a_state_made_anew() -> None:
    state = world(*racks(1, 1), a=99)
    submit(state, "x/first", Neighbours(("web",), apart=(Apart("host", "web"),)))
    go(state)
    state.set_workload(with_neighbours(work("x/w", "a", 1), WEB))
    again = State.rebuild(state.snapshot())
    assert schedule(again, 0) == schedule(state, 0)
    assert [place[1] for place in bound(schedule(again, 0))] == ["n10"]


def test_faults_of_rules_name_the_field() -> None:
    for make, field in (
        (lambda: Near((), "x"), "near.levels"),
        (lambda: Near(("a",), ""), "near.crowd"),
        (lambda: Apart("host", ""), "apart.crowd"),
        (lambda: Even("rack", "x", 0), "even.skew"),
        (lambda: Even("rack", "x", 1, 0), "even.values"),
        (lambda: Neighbours(("b", "a")), "neighbours.crowds"),
    ):
        with pytest.raises(ValueError, match=field):
            make()


RULES = (
    Neighbours(("c",), Near(("rack",), "c")),
    Neighbours(("c",), Near(("zone", "rack"), "c")),
    Neighbours(("c",), apart=(Apart("host", "c"),)),
    Neighbours(("c",), apart=(Apart("rack", "c"),)),
    Neighbours((), Near(("rack",), "c")),
    Neighbours(("c",), even=(Even("host", "c", 1),)),
    Neighbours(("c",), even=(Even("rack", "c", 1, 2),)),
    Neighbours(("c",), Near(("zone",), "c"), (Apart("host", "c"),)),
    Neighbours(("d",), apart=(Apart("rack", "c"),), even=(Even("host", "d", 1),)),
)
"""Rules for which placing one task after the other finds a place for a gang wherever there is one."""


def tiny_world(draw: random.Random) -> tuple[State, list[NodeSpec]]:
    nodes = []
    for at in range(draw.randint(1, 4)):
        labels = {"rack": f"r{draw.randint(0, 1)}", "zone": f"z{draw.randint(0, 1)}", "host": f"n{at}"}
        if draw.random() < 0.15:
            del labels[draw.choice(["rack", "zone"])]
        nodes.append(node(f"n{at}", draw.randint(0, 3), **labels))
    state = world(*nodes, a=None)
    for at in range(draw.randint(0, 2)):
        wish = draw.choice((Neighbours(("c",)), Neighbours((), apart=(Apart("rack", "c"),)), Neighbours(("d",))))
        submit(state, f"x/there{at}", wish, node_selector={"host": draw.choice(nodes).name})
        go(state)
    return state, nodes


def possible(spec: PodSet, state: State, nodes: list[NodeSpec]) -> bool:
    """Whether some choice of nodes for all tasks keeps every rule, in some order."""
    wish = spec.neighbours or Neighbours()
    by_name = {each.name: each for each in nodes}
    free = {each.name: len(each.devices) for each in nodes}
    there: list[tuple[str, Neighbours]] = []
    for work_ in state.works.values():
        for task in work_.tasks.values():
            if task.row >= 0:
                name = state.nodes.names[task.row]
                free[name] -= 1
                there.append((name, work_.spec.pod_sets[task.part].neighbours or Neighbours()))
    admitted = [each for each in nodes if all(m.holds(each.labels) for term in spec.node_affinity for m in term)]
    count = len(spec.tasks)
    for choice in product([each.name for each in admitted], repeat=count):
        if any(choice.count(name) > free[name] for name in set(choice)):
            continue
        if in_turn(list(choice), wish, there, by_name, admitted):
            return True
    return False


def in_turn(
    choice: list[str],
    wish: Neighbours,
    there: list[tuple[str, Neighbours]],
    nodes: dict[str, NodeSpec],
    admitted: list[NodeSpec],
) -> bool:
    if not choice:
        return True
    for at in sorted(set(choice)):
        rest = list(choice)
        rest.remove(at)
        if may_join(at, wish, there, nodes, admitted) and in_turn(rest, wish, [*there, (at, wish)], nodes, admitted):
            return True
    return False


def may_join(
    at: str, wish: Neighbours, there: list[tuple[str, Neighbours]], nodes: dict[str, NodeSpec], admitted: list[NodeSpec]
) -> bool:
    def value(name: str, level: str) -> str | None:
        return nodes[name].labels.get(level)

    for name, other in there:
        for rules, crowds in ((wish.apart, other.crowds), (other.apart, wish.crowds)):
            for rule in rules:
                if (
                    rule.crowd in crowds
                    and value(at, rule.level) is not None
                    and value(at, rule.level) == value(name, rule.level)
                ):
                    return False
    if wish.near:
        near = wish.near
        if any(value(at, level) is None for level in near.levels):
            return False
        members = [name for name, other in there if near.crowd in other.crowds]
        if any(value(name, level) is not None for name in members for level in near.levels):
            if not all(any(value(name, level) == value(at, level) for name in members) for level in near.levels):
                return False
        elif near.crowd not in wish.crowds:
            return False
    for rule in wish.even:
        if value(at, rule.level) is None:
            return False
        counted = [n for n in admitted if all(other.level in n.labels for other in wish.even)]
        held = {n.labels[rule.level]: 0 for n in counted}
        for name, other in there:
            if rule.crowd in other.crowds and nodes[name] in counted:
                held[nodes[name].labels[rule.level]] += 1
        low = min(held.values(), default=0) if len(held) >= rule.values else 0
        if held.get(str(value(at, rule.level)), 0) + (rule.crowd in wish.crowds) - low > rule.skew:
            return False
    return True


@pytest.mark.parametrize("seed", range(FUZZ * 10))
def test_a_gang_starts_where_and_only_where_its_rules_leave_it_a_place(seed: int) -> None:
    draw = random.Random(seed)
    state, nodes = tiny_world(draw)
    affinity = ((LabelMatch("rack", "In", ("r0",)),),) if draw.random() < 0.2 else ()
    wish = draw.choice(RULES)
    spec = with_neighbours(work("x/w", "a", draw.randint(1, 4)), wish, node_affinity=affinity)
    state.set_workload(spec)
    plan = schedule(state, 0)
    expected = possible(spec.pod_sets[0], state, nodes)
    started = plan.verdicts["x/w"].admitted
    assert started == expected, f"{wish}: {plan.verdicts['x/w'].reasons}"


def test_spread_tasks_that_shun_each_other_everywhere_are_not_placed_together() -> None:
    lone = Neighbours(crowds=("u",), apart=(Apart("", "u"),))
    pods = PodSet("p", ("t0", "t1"), 2, {}, 1000, neighbours=lone, spread=Spread("kubernetes.io/hostname", most=1))
    state = world(*(node(f"n{at}", **{"kubernetes.io/hostname": f"n{at}"}) for at in range(3)))
    state.set_topology(["kubernetes.io/hostname"])
    state.set_queue(QueueSpec("q", quota={"gpu": 8000}))
    state.set_workload(WorkloadSpec("x/w", "q", (pods,)))
    assert not schedule(state, 0.0).actions


def test_where_the_emptiest_node_goes_others_may_be_taken_at_once() -> None:
    """Nobody was on it, and so no room became free by it: who waited for evenness was not heard again."""
    even = Neighbours(("x",), even=(Even("host", "x", 1),))
    state = world(node("n0", 4, host="n0"), node("n1", 1, host="n1"), a=99)
    for name in ("x/one", "x/two"):
        pods = PodSet("p", ("t0",), 1, {}, 2000, neighbours=even)
        state.set_workload(WorkloadSpec(name, "a", (pods,), preemptible=False))
        settle(state, schedule(state, 0))
    assert not bound(schedule(state, 0))
    state.remove_node("n1")
    assert [place[:2] for place in bound(schedule(state, 0))] == [("x/two", "n0")]
