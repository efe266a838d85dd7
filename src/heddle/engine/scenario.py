"""Scenarios: a small cluster, what runs and waits, and what must become of it, as plain data.

:func:`run_scenario` turns the data into a state, runs rounds of :func:`heddle.engine.schedule` with
``now`` fixed, and compares. An evicted task is pending again, and its place free, in the next round.
Nothing is read from disk here. The format is described in ``docs/scenarios.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from heddle.engine.fairshare import UNBOUNDED, divide
from heddle.engine.forward import Forward, get_ready
from heddle.engine.model import (
    COUNTER,
    MODEL,
    WHOLE,
    Ageing,
    Apart,
    Device,
    Even,
    LabelMatch,
    Liked,
    Mig,
    Near,
    Neighbours,
    NodePreference,
    NodeSpec,
    Placement,
    PodSet,
    QueueSpec,
    Slices,
    Spread,
    Taint,
    Term,
    Toleration,
    WorkloadSpec,
)
from heddle.engine.plan import Bind, Budget, Evict
from heddle.engine.scheduler import schedule
from heddle.engine.state import State
from heddle.engine.usage import PastUsage
from heddle.engine.work import TaskState

Data = Mapping[str, Any]

NOW = 1_000_000.0
"""Seconds: everything that runs started long before."""

_PLENTY = 2**50
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that did not become what was expected."""

    subject: str
    what: str
    expected: object
    actual: object


class Outcome(StrEnum):
    """What came of a scenario."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNSUPPORTED = "unsupported"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one scenario.

    Attributes:
        name: the scenario's.
        necessary: whether every correct scheduler must agree.
        outcome: whether all became as expected.
        differences: what did not, when it differs.
        fault: what the engine lacks for it, or what is wrong with the data.
    """

    name: str
    necessary: bool
    outcome: Outcome
    differences: tuple[Difference, ...] = ()
    fault: str = ""


class UnsupportedScenarioError(ValueError):
    """The scenario uses something that the engine does not know (yet); the message names it."""


def run_scenario(data: Data) -> Result:
    """Runs one scenario; what is wrong with its data is told in the result."""
    name, necessary = str(data.get("name", "?")), data.get("strength") == "necessary"
    play: Callable[[], list[Difference]]
    try:
        if "total" in data:
            divided = _divided(data)
            play = lambda: divided  # noqa: E731
        elif "jobs" in data:
            play = partial(_planned, build_jobs(data), float(data["now"]), data)
        else:
            play = partial(
                _scheduled, build_state(data), int(data["rounds"]["reach"]), int(data["rounds"]["stay"]), data
            )
        _check_expected(data)
    except UnsupportedScenarioError as missing:
        return Result(name, necessary, Outcome.UNSUPPORTED, fault=str(missing))
    except KeyError as fault:
        return Result(name, necessary, Outcome.INVALID, fault=f"{fault} is missing or not known; see docs/scenarios.md")
    except (TypeError, AttributeError, IndexError, ValueError) as fault:
        return Result(name, necessary, Outcome.INVALID, fault=f"{fault}; see docs/scenarios.md")
    found = play()
    return Result(name, necessary, Outcome.DIFFERS if found else Outcome.AGREES, tuple(found))


def _check_expected(data: Data) -> None:
    if "workloads" in data:
        known = {workload["name"] for workload in data["workloads"]}
        for name, expected in data["expect"].items():
            if name not in known:
                raise ValueError(f"expect: {name!r} is no workload of the scenario")
            int(expected["running"])


# -- fair share alone ------------------------------------------------------------------------------


def _divided(data: Data) -> list[Difference]:
    found = []
    for resource, total in data["total"].items():
        queues = data["queues"]
        shares = divide(
            round(total * WHOLE),
            [round(queue["request"].get(resource, 0) * WHOLE) for queue in queues],
            [_scaled(queue["quota"].get(resource)) for queue in queues],
            [_scaled(queue["limit"].get(resource)) for queue in queues],
            [float(queue.get("weight", 1)) for queue in queues],
            [queue.get("priority", 0) for queue in queues],
        )
        for queue, share in zip(queues, shares, strict=True):
            expected = data["expect"][queue["name"]][resource]
            if abs(share - expected * WHOLE) > 1:
                found.append(Difference(queue["name"], f"share of {resource}", expected, share / WHOLE))
    return found


def _scaled(value: float | None) -> int:
    return UNBOUNDED if value is None else int(value * WHOLE + 0.5)


# -- whole cycles ----------------------------------------------------------------------------------


def build_state(data: Data) -> State:
    """The state that a scenario begins with."""
    state = State()
    state.set_topology(data.get("topology", {}).get("levels", ()))
    for node in data["nodes"]:
        devices = tuple(
            Device(f"g{at:03}", at, node.get("gpu_model", ""), node.get("gpu_memory_mib", 0), mig=_mig(node))
            for at in range(node["gpus"])
        )
        resources = {
            "cpu": node.get("cpu_milli", _PLENTY),
            "memory": node["memory_mib"] * _MIB if "memory_mib" in node else _PLENTY,
        }
        labels = {**node.get("domains", {}), **node.get("labels", {})}
        if model := node.get("gpu_model"):
            resources[MODEL + model] = node["gpus"] * WHOLE
            labels["model"] = model
        taints = tuple(Taint(*taint) for taint in node.get("taints", ()))
        state.set_node(NodeSpec(node["name"], resources, devices, labels=labels, taints=taints))
    state.set_counters(_counted(data.get("counters", {})))
    state.set_disruption_budgets(data.get("disruption_budgets", {}))
    for queue in data["queues"]:
        state.set_queue(
            QueueSpec(
                queue["name"],
                queue["parent"],
                quota=_amounts(queue["quota"]),
                limit=_amounts(queue["limit"]),
                weight=queue.get("weight", 1),
                priority=queue.get("priority", 0),
                borrowing_limit=_amounts(queue.get("borrowing_limit", {})),
                lending_limit=_amounts(queue.get("lending_limit", {})),
                stop_policy=queue.get("stop_policy", "None"),
                user_limit=_amounts(queue.get("user_limit", {})),
                ordering=queue.get("ordering", "BestEffort"),
                ageing=Ageing(**queue["ageing"]) if "ageing" in queue else None,
                usage_half_life=queue.get("usage_half_life"),
                preempt_min_runtime=queue.get("preempt_min_runtime_s"),
                reclaim_min_runtime=queue.get("reclaim_min_runtime_s"),
                drain_after=queue.get("drain_after_s"),
            )
        )
        if "past_usage" in queue:
            past = {name: float(value or 0) for name, value in _amounts(queue["past_usage"]).items()}
            state.set_past_usage(queue["name"], PastUsage(NOW, past))
    for workload in data["workloads"]:
        state.set_workload(_workload(workload))
    _start(state, data)
    return state


def _amounts(values: Data) -> dict[str, int | None]:
    scale = {"gpu": ("gpu", WHOLE), "cpu_milli": ("cpu", 1), "memory_mib": ("memory", _MIB)}
    found: dict[str, int | None] = {}
    for key, value in values.items():
        unit = WHOLE if key.startswith(MODEL) else 1
        name, unit = (key, unit) if key.startswith((MODEL, COUNTER)) else scale[key]
        found[name] = None if value is None else round(value * unit)
    return found


def _counted(values: Data) -> dict[str, int]:
    return {COUNTER + name: int(value) for name, value in values.items()}


def _mig(node: Data) -> Mig | None:
    if "mig" not in node:
        return None
    cut = node.get("mig_instances")
    return Mig(node["mig"], None if cut is None else tuple((str(profile), int(start)) for profile, start in cut))


Counts = tuple[tuple[str, int], ...]


def _gpu(task: Data) -> tuple[int, int, str]:
    """GPUs in thousandths, MiB of one, and MIG profile, of which a task asks for one."""
    wanted = task.get("gpu_memory_mib", 0)
    if task["gpu"] or not wanted:
        return int(task["gpu"] * WHOLE + 0.5), 0, task.get("mig", "")
    return 0, int(wanted), ""


def _workload(workload: Data) -> WorkloadSpec:
    groups: dict[
        tuple[tuple[int, int, str], int, int, tuple[tuple[str, int], ...], str, str, tuple[str, ...]], list[str]
    ] = {}
    for task in workload["tasks"]:
        counters = tuple(_counted(task.get("counters", {})).items())
        key = (
            _gpu(task),
            task.get("cpu_milli", 0),
            task.get("memory_mib", 0) * _MIB,
            counters,
            task.get("group", ""),
            task.get("set", ""),
            tuple(task.get("budgets", ())),
        )
        groups.setdefault(key, []).append(task["name"])
    left = workload["min_members"]
    pod_sets = []
    wishes = _wishes(workload)
    for at, (((gpu, share, mig), cpu, memory, counters, group, name, budgets), tasks) in enumerate(groups.items()):
        least = len(tasks) if group else min(left, len(tasks))
        left -= 0 if group else least
        request = {"cpu": cpu, "memory": memory, **dict(counters)}
        asked = dict(wishes)
        if model := workload.get("gpu_model"):
            request[MODEL + model] = gpu
            asked["node_selector"] = {**asked.get("node_selector", {}), "model": model}
        after = tuple(workload.get("after", {}).get(name, ()))
        if gpu or share or mig:
            asked["gpu_models"] = tuple(workload.get("gpu_models", ()))
            asked["gpu_speeds"] = workload.get("gpu_speeds", {})
        asked |= {"group": group, "after": after, "gpu_memory": share, "mig": mig, "budgets": budgets}
        pod_sets.append(PodSet(name or f"p{at}", tuple(tasks), least, request, gpu, **asked))
    runs = {task["name"] for task in workload["tasks"] if task["state"] == "running"}
    running = sum(len(runs.intersection(p.tasks)) for p in pod_sets if not p.group)
    grouped = {p.group: {t for other in pod_sets if other.group == p.group for t in other.tasks} for p in pod_sets}
    torn = any(runs & tasks and not runs >= tasks for group, tasks in grouped.items() if group)
    wish = workload.get("topology", {})
    return WorkloadSpec(
        workload["name"],
        workload["queue"],
        tuple(pod_sets),
        priority=workload["priority"],
        preemptible=workload["preemptible"],
        created=float(workload["created"]),
        topology_required=wish.get("required"),
        topology_preferred=wish.get("preferred"),
        user=workload.get("user", ""),
        strategy=workload.get("strategy", "pack"),
        broken_since=0.0 if 0 < running < workload["min_members"] or torn else None,
        min_groups=workload.get("min_groups"),
        gang_grace=workload.get("gang_grace_s"),
        walltime=workload.get("walltime_s"),
        separate_gpus=workload.get("separate_gpus", False),
        gentle=workload.get("gentle", False),
        checkpointed=NOW - workload["checkpoint_age_s"] if "checkpoint_age_s" in workload else None,
        saves_every=workload.get("saves_every_s"),
    )


def _wishes(workload: Data) -> dict[str, Any]:
    """Where the pods of a workload may go: the fields that all its pod sets share."""
    return {
        "node_selector": workload.get("node_selector", {}),
        "tolerations": tuple(Toleration(*toleration) for toleration in workload.get("tolerations", ())),
        "node_affinity": tuple(_term(term) for term in workload.get("node_affinity", ())),
        "exclusive": workload.get("exclusive", False),
        "step": workload.get("step", 1),
        "resizable": workload.get("resizable", True),
        "spread": Spread(**workload["spread"]) if "spread" in workload else None,
        "slices": Slices(**workload["slices"]) if "slices" in workload else None,
        "neighbours": _neighbours(workload["neighbours"]) if "neighbours" in workload else None,
        "node_preferences": tuple(
            NodePreference(weight, _term(term)) for weight, term in workload.get("node_preferences", ())
        ),
    }


def _neighbours(wish: Data) -> Neighbours:
    near = wish.get("near")
    return Neighbours(
        tuple(wish.get("crowds", ())),
        Near(tuple(near["levels"]), near["crowd"]) if near else None,
        tuple(Apart(**rule) for rule in wish.get("apart", ())),
        tuple(Even(**rule) for rule in wish.get("even", ())),
        tuple(Liked(**rule) for rule in wish.get("liked", ())),
        tuple(Even(**rule) for rule in wish.get("evened", ())),
    )


def _term(term: Sequence[Any]) -> Term:
    return tuple(LabelMatch(label, operator, tuple(values)) for label, operator, *values in term)


def _start(state: State, data: Data) -> None:
    """Binds what runs: tasks of one ``gpu_index`` share a device, whole devices are others."""
    shared: dict[tuple[str, int], str] = {}
    taken: dict[str, set[str]] = {node["name"]: set() for node in data["nodes"]}
    running = [(w, t) for w in data["workloads"] for t in w["tasks"] if t["state"] == "running"]
    for workload, task in sorted(running, key=lambda item: "gpu_index" not in item[1]):
        work = state.works[workload["name"]]
        found = work.tasks[task["name"]]
        cls = found.cls.at(state.nodes.row[task["node"]])
        count = cls.width
        used = taken[task["node"]]
        idle = [f"g{at:03}" for at in range(WHOLE) if f"g{at:03}" not in used]
        if "gpu_index" in task and not cls.count and count:
            devices: tuple[str, ...] = (shared.setdefault((task["node"], task["gpu_index"]), idle[0]),)
        else:
            devices = tuple(idle[:count])
        used.update(devices)
        pod_set = work.spec.pod_sets[found.part].name
        instance = None
        if "mig" in task:
            devices, instance = (f"g{task['gpu_index']:03}",), (task["mig"], int(task["mig_start"]))
        since = NOW - workload["running_for_s"] if "running_for_s" in workload else float(workload["created"])
        state.bind(Placement(work.name, pod_set, task["name"], task["node"], devices, instance), since)


def _get_ready(state: State, data: Data) -> None:
    """What runs is ready, but for tasks of which the scenario says that they never are."""
    never = {(w["name"], t["name"]) for w in data["workloads"] for t in w["tasks"] if not t.get("ready", True)}
    get_ready(state)
    for workload, task in never:
        if state.works[workload].tasks[task].state is TaskState.BOUND:
            state.mark_ready(workload, task, ready=False)


def play_round(state: State) -> tuple[set[str], bool]:
    """One round: plan, carry it out, let the evicted go. Returns the workloads that lost tasks, and
    whether anything was done."""
    plan = schedule(state, NOW, Budget())
    evicted = [action for action in plan.actions if isinstance(action, Evict)]
    for action in plan.actions:
        state.apply(action, NOW)
    for action in evicted:
        state.release_task(action.workload, action.task)
    moved = any(isinstance(action, Bind | Evict) for action in plan.actions)
    return {action.workload for action in evicted}, moved


def _scheduled(state: State, reach: int, stay: int, data: Data) -> list[Difference]:
    evicted: set[str] = set()
    for _ in range(reach):
        _get_ready(state, data)
        evicted |= play_round(state)[0]
    found = _compare(state, data, evicted)
    for late in range(stay):
        before = len(found)
        _get_ready(state, data)
        lost, _moved = play_round(state)
        evicted |= lost
        if not before and (found := _compare(state, data, evicted)):
            found.append(Difference("rounds", "settled", f"within {reach}", f"moved in {late + 1} after"))
            break
    return found


# -- walltimes -------------------------------------------------------------------------------------


def _planned(state: State, now: float, data: Data) -> list[Difference]:
    """Jobs with walltimes, run forward in time from ``now``."""
    starts = {job["name"]: now for job in data["jobs"] if job["state"] == "running"}
    for step in Forward(state, now).steps():
        for name in step.started:
            starts.setdefault(name, step.at)
    found = []
    for name, expected in data["expect"].items():
        start = starts.get(name)
        if "start_at" in expected and start != expected["start_at"]:
            found.append(Difference(name, "start_at", expected["start_at"], start))
        if "running" in expected and expected["running"] != (start == now):
            found.append(Difference(name, "running", expected["running"], start == now))
        if "planned" in expected and expected["planned"] != (start is not None):
            found.append(Difference(name, "planned", expected["planned"], start is not None))
    for earlier, later in data.get("order", ()):
        if later in starts and not starts.get(earlier, float("inf")) <= starts[later]:
            found.append(Difference(earlier, f"starts no later than {later}", starts[later], starts.get(earlier)))
    for one, other in data.get("same_start", ()):
        if starts.get(one) != starts.get(other):
            found.append(Difference(one, f"starts with {other}", starts.get(other), starts.get(one)))
    return found


def build_jobs(data: Data) -> State:
    """The state that a scenario with walltimes begins with: one queue, whole nodes or CPUs."""
    state = State()
    state.set_queue(QueueSpec("all"))
    cpus = {node["cpus"] for node in data["nodes"]}
    for node in data["nodes"]:
        state.set_node(NodeSpec(node["name"], {"cpu": node["cpus"] * WHOLE, "memory": _PLENTY}))
    if len(cpus) != 1 and any(job.get("exclusive") for job in data["jobs"]):
        raise UnsupportedScenarioError("whole nodes of several sizes are not supported yet")
    state.set_counters(_counted(data.get("licenses", {})))
    for job in data["jobs"]:
        each = max(cpus) if job.get("exclusive") else job.get("cpus_per_node", 1)
        tasks = tuple(f"t{at}" for at in range(job["nodes"]))
        # a job's licences are its own, not those of each node: its first task holds them
        first = PodSet("p0", tasks[:1], 1, {"cpu": each * WHOLE, **_counted(job.get("licenses", {}))})
        rest = PodSet("p1", tasks[1:], len(tasks) - 1, {"cpu": each * WHOLE})
        pod_sets = (first, rest) if job.get("licenses") else (PodSet("p0", tasks, len(tasks), first.request),)
        state.set_workload(
            WorkloadSpec(
                job["name"],
                "all",
                pod_sets,
                priority=job["priority"],
                preemptible=False,
                created=float(job["submitted"]),
                walltime=job.get("walltime_s"),
            )
        )
        if job["state"] == "running":
            since = float(job.get("started", data["now"]))
            for task, node in zip(tasks, job["node"], strict=True):
                part = pod_sets[state.works[job["name"]].tasks[task].part].name
                state.bind(Placement(job["name"], part, task, node), since)
    return state


def _compare(state: State, data: Data, evicted: set[str]) -> list[Difference]:
    found = []
    check_nodes = data.get("strength") == "necessary" or "policy_expect" not in data
    for name, expected in data["expect"].items():
        tasks: Sequence[Any] = [t for t in state.works[name].tasks.values() if t.state is TaskState.BOUND]
        if len(tasks) != expected["running"]:
            found.append(Difference(name, "running", expected["running"], len(tasks)))
            continue
        if "was_evicted" in expected and expected["was_evicted"] != (name in evicted):
            found.append(Difference(name, "was_evicted", expected["was_evicted"], name in evicted))
        nodes = sorted(state.nodes.names[task.row] for task in tasks)
        if check_nodes and "node" in expected and nodes != sorted(expected["node"]):
            found.append(Difference(name, "node", expected["node"], nodes))
    return found
