"""What must hold of every plan, checked from outside: only public values and the node ledgers are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from heddle.engine import Bind, Budget, Evict, Neighbours, Plan, ReasonCode, Reserve, State, TaskState, schedule
from heddle.engine.nodes import TENANCY
from heddle.engine.queues import Queue, QueueTree
from heddle.engine.scheduler import advance
from heddle.engine.work import Task, Work


def check_state(state: State) -> None:
    """No device is booked beyond itself, no queue stands above its limit, every ledger adds up."""
    state.settle()
    nodes = state.nodes
    devices: dict[tuple[int, int], int] = {}
    used = np.zeros_like(nodes.capacity)
    running: dict[str, np.ndarray] = {name: np.zeros(len(state.resources), np.int64) for name in state.tree.queues}
    for work in state.works.values():
        for task in work.tasks.values():
            if task.state is TaskState.PENDING:
                continue
            cls = task.cls.at(task.row)
            used[task.row] += cls.need
            for device in task.devices:
                devices[task.row, device] = devices.get((task.row, device), 0) + cls.share
            if work.queue:
                for at in work.queue.path:
                    running[at.name] += np.array(cls.needs)
                    running[at.name][TENANCY] = 0
    for (row, device), held in devices.items():
        most = 1000 if nodes.dev_capacity[row, device] == 1000 else 1
        assert held <= most, f"device {device} of {nodes.names[row]} is booked beyond itself: {held}"
    assert (used <= nodes.capacity).all(), "a node is booked beyond its capacity"
    for queue in state.tree.queues.values():
        counted = [a + b for a, b in zip(queue.running, queue.releasing, strict=True)]
        assert counted == running[queue.name].tolist(), f"usage of {queue.name} does not add up"
        for user, (runs, leaves, held) in queue.submitters.counts.items() if queue.submitters else ():
            assert runs[0] + leaves[0] == used_by(state, queue.name, user, 0), f"usage of {user} does not add up"
            assert min(held) >= 0, f"promises to {user} do not add up"
    shares, quotas = state.tree.slack.own()
    for queue in state.tree.queues.values():
        for column in range(len(state.resources)):
            used_there = queue.used(column)
            assert shares[queue.number, column] == max(0, queue.share[column] - used_there), "what is left drifted"
            assert quotas[queue.number, column] == max(0, queue.quota[column] - used_there), "what is left drifted"
        assert state.tree.slack.lowest()[queue.number] == queue.live.lowest(2**61), "the lowest priority drifted"
    for row, tasks in state.on_row.items():
        if any(task.cls.key.exclusive for task in tasks):
            assert len(tasks) == 1, f"{nodes.names[row]} is exclusive, yet shared"
    counters = state.tree.counters
    for column in counters.cap:
        there = counters.running[column] + counters.releasing[column]
        tasks = [task for work in state.works.values() for task in work.tasks.values()]
        assert there == sum(t.cls.needs[column] for t in tasks if t.state is not TaskState.PENDING), "a counter drifted"
        assert counters.reserved[column] == sum(t.cls.needs[column] for t in tasks if t.hold), "a promise drifted"
    free = nodes.capacity - used
    rows = sorted(nodes.row.values())
    physical = nodes.land + nodes.reserved - nodes.releasing
    assert (physical[rows] == free[rows]).all(), "the ledger of the nodes does not add up"
    for cls in state.cache.classes.values():
        for land in (False, True):
            cached = state.cache.scores(cls, land=land)
            fresh = state.cache.rescore(cls, np.arange(nodes.open.size), land=land)
            assert (cached == fresh).all(), "a cached score differs from a full rescore"


def check_plan(state: State, plan: Plan, now: float, budget: Budget) -> None:
    """What one plan may do, given the state that it was made for."""
    gains = {a.placement.workload for a in plan.actions if isinstance(a, Bind)}
    gains |= {a.workload for a in plan.actions if isinstance(a, Reserve) and a.placements}
    gains |= set(state.holders) - {a.workload for a in plan.actions if isinstance(a, Reserve)}  # promised before
    for action in plan.actions:
        if isinstance(action, Bind):
            task = state.works[action.placement.workload].tasks[action.placement.task]
            spec = state.nodes.specs[state.nodes.row[action.placement.node]]
            assert task.cls.accepts(spec), f"{action.placement} is not admitted there"
        if isinstance(action, Evict):
            work = state.works[action.workload]
            if action.reason.code is not ReasonCode.GANG_BROKEN:
                assert work.spec.preemptible, f"{action.workload} is not preemptible, yet evicted"
            else:
                since, grace = work.spec.broken_since, work.spec.gang_grace
                assert since is not None, f"{action.workload} was evicted as broken, which nobody said"
                assert now - since >= (budget.gang_grace if grace is None else grace), (
                    f"{action.workload} was evicted within its grace"
                )
                assert work.torn() or not work.whole(), f"{action.workload} was evicted as broken, and is whole"
            if action.reason.code is ReasonCode.QUEUE_DRAINED:
                assert work.queue, f"{action.workload} has no queue, yet was drained"
                assert any(at.spec.stop_policy == "HoldAndDrain" for at in work.queue.path), "drained without order"
            elif action.reason.code is not ReasonCode.GANG_BROKEN:
                assert action.reason.beneficiary in gains, f"nobody gains from evicting {action.workload}"
        elif isinstance(action, Bind):
            work = state.works[action.placement.workload]
            assert work.unready(work.tasks[action.placement.task].part) is None, f"{work.name} starts out of order"
            queue = work.queue
            assert queue, f"{action.placement.workload} started without a queue"
            assert not any(at.spec.stop_policy != "None" for at in queue.path), f"{queue.name} is stopped"
    minimums_kept(state, plan, now)
    budgets_kept(state, plan)
    in_the_right(state, plan)
    assert plan.again_at is None or plan.again_at > now, "time alone may change a plan only later"
    verdicts = plan.verdicts
    assert {n for n, w in state.works.items() if any(w.pending)} == set(verdicts), "a waiting workload has no verdict"
    assert all(v.reasons for v in verdicts.values() if not v.admitted), "a verdict gives no reason"


def budgets_kept(state: State, plan: Plan) -> None:
    """Evictions for others, and moves, leave of each disruption budget as many tasks running as it says."""
    ordered = (ReasonCode.QUEUE_DRAINED, ReasonCode.GANG_BROKEN)
    for name, least in state.snapshot().disruption_budgets.items():
        counted = [
            task
            for work in state.works.values()
            for task in work.tasks.values()
            if name in work.spec.pod_sets[task.part].budgets
        ]
        runs = {(task.work.name, task.name) for task in counted if task.state is TaskState.BOUND}
        evicts = [a for a in plan.actions if isinstance(a, Evict) and (a.workload, a.task) in runs]
        drained = sum(a.reason.code is ReasonCode.QUEUE_DRAINED for a in evicts)
        taken = sum(a.reason.code not in ordered for a in evicts)
        assert not taken or len(runs) - drained - taken >= least, f"too few of disruption budget {name} keep running"


def in_the_right(state: State, plan: Plan) -> None:
    """Who leaves for another is of lower priority in the same queue, or below a queue that is above its own."""
    comes = [a.placement for a in plan.actions if isinstance(a, Bind)]
    comes += [place for a in plan.actions if isinstance(a, Reserve) for place in a.placements]
    for action in plan.actions:
        if not isinstance(action, Evict) or action.reason.code not in (ReasonCode.PREEMPTED, ReasonCode.RECLAIMED):
            continue
        victim, gainer = state.works[action.workload], state.works[action.reason.beneficiary]
        assert not gainer.spec.gentle, f"{victim.name} is evicted for {gainer.name}, for whom nobody is to stop"
        if action.reason.code is ReasonCode.PREEMPTED:
            assert victim.queue is gainer.queue, f"{gainer.name} preempts {victim.name} of another queue"
            assert victim.spec.priority < gainer.spec.priority, f"{victim.name} yields to no higher priority"
            continue
        assert victim.queue is not None, f"{victim.name} has no queue, yet was reclaimed"
        assert gainer.queue is not None, f"{gainer.name} has no queue, yet others leave for it"
        sides = QueueTree.sides(gainer.queue, victim.queue)
        assert sides is not None, f"{victim.name} is reclaimed for a queue above or below its own"
        used = [sides[1].used(column) for column in range(len(state.resources))]
        for place in comes:  # in this very cycle it may have come above it
            work = state.works[place.workload]
            task = work.tasks[place.task]
            if task.state is TaskState.PENDING and task.hold is None and work.queue and sides[1] in work.queue.path:
                cls = task.cls.at(state.nodes.row[place.node])
                for column in cls.charged:
                    used[column] += cls.needs[column]
        own = zip(used, sides[1].share, sides[1].quota, strict=True)
        assert any(n > min(share, quota) for n, share, quota in own), f"{sides[1].name} is within its own, yet loses"


def minimums_kept(state: State, plan: Plan, now: float) -> None:
    """Work within its minimum runtime keeps its minimum, whoever has a claim."""
    for code, field in ((ReasonCode.PREEMPTED, "preempt_min_runtime"), (ReasonCode.RECLAIMED, "reclaim_min_runtime")):
        gone: dict[str, list[str]] = {}
        for action in plan.actions:
            if isinstance(action, Evict) and action.reason.code is code:
                gone.setdefault(action.workload, []).append(action.task)
        for name, tasks in gone.items():
            work = state.works[name]
            said = [getattr(at.spec, field) for at in work.queue.path] if work.queue else []
            least = next((seconds for seconds in said if seconds is not None), 0.0)
            if min(t.since for t in work.tasks.values() if t.state is TaskState.BOUND) + least <= now:
                continue
            left = list(work.bound)
            for task in tasks:
                left[work.tasks[task].part] -= 1
            if work.groups is not None:
                assert work.groups.enough(left), f"{name} loses groups within its minimum runtime"
            else:
                kept = all(n >= pods.min for n, pods in zip(left, work.spec.pod_sets, strict=True))
                assert kept, f"{name} loses its minimum within its minimum runtime"


def arranged(state: State, plan: Plan) -> None:
    """After the plan: what it placed is as far apart, or as close together, as its pod set demands."""
    for name in {a.placement.workload for a in plan.actions if isinstance(a, Bind)}:
        work = state.works[name]
        for pod_set, order in zip(work.spec.pod_sets, work.order, strict=True):
            rule = pod_set.spread or pod_set.slices
            level = state.topology.level(rule.level) if rule else None
            if rule is None or level is None:
                continue
            placed = {a.placement.task for a in plan.actions if isinstance(a, Bind) and a.placement.workload == name}
            mine = [task for task in order if task.state is TaskState.BOUND]
            if any(task.name not in placed for task in mine):
                continue  # labels may have changed since the others were placed
            if any(task.hold for task in order):
                continue  # elastic tasks come one by one as the room promised to them becomes free
            counts: dict[int, int] = {}
            for task in mine:
                domain = int(level.domain[task.row])
                assert domain >= 0, f"{name}: {task.name} is in no {rule.level}"
                counts[domain] = counts.get(domain, 0) + 1
            if pod_set.spread and pod_set.spread.most:
                assert max(counts.values(), default=0) <= pod_set.spread.most, f"{name} is not apart: {counts}"
            if pod_set.slices:
                broken = sum(count % pod_set.slices.size > 0 for count in counts.values())
                assert broken <= len(mine) % pod_set.slices.size, f"slices of {name} are torn: {counts}"


def beside_the_right_ones(state: State, plan: Plan) -> None:
    """After the plan: what it started is beside those whom it needs, and beside nobody whom it, or who it, shuns."""
    placed = {(a.placement.workload, a.placement.task) for a in plan.actions if isinstance(a, Bind)}
    there = [task for work in state.works.values() for task in work.tasks.values() if task.row >= 0]
    wishes = {task: task.work.spec.pod_sets[task.part].neighbours or Neighbours() for task in there}

    def label(task: Task, level: str) -> str | None:
        spec = state.nodes.specs[task.row]
        return spec.labels.get(level, None if level else "") if spec is not None else None

    for task in there:
        if (task.work.name, task.name) not in placed:
            continue
        mine, where = wishes[task], f"{task.work.name}/{task.name} on {state.nodes.names[task.row]}"
        for other in there:
            for one, two, theirs in ((task, other, wishes[other]), (other, task, mine)):
                for rule in wishes[one].apart if one is not two else ():
                    shares = label(one, rule.level) is not None and label(one, rule.level) == label(two, rule.level)
                    assert not (rule.crowd in theirs.crowds and shares), f"{where} breaks {rule} with {other.name}"
        if mine.near is not None:
            members = [other for other in there if other is not task and mine.near.crowd in wishes[other].crowds]
            for level in mine.near.levels:
                assert label(task, level) is not None, f"{where} has no {level}"
                if any(label(m, level) for m in members for level in mine.near.levels):
                    met = any(label(m, level) == label(task, level) for m in members)
                    assert met, f"{where} is not near {mine.near}"
                else:
                    assert mine.near.crowd in mine.crowds, f"{where} is the first of {mine.near}, and not of it"


def evenly(state: State, plan: Plan) -> None:
    """After the plan: a crowd of which all rules are alike is as even as they say, where the plan placed all of it."""
    placed = {(a.placement.workload, a.placement.task) for a in plan.actions if isinstance(a, Bind)}
    members: dict[str, list[Task]] = {}
    rules: dict[str, set[object]] = {}
    for work in state.works.values():
        for task in work.tasks.values():
            wish = work.spec.pod_sets[task.part].neighbours
            for crowd in wish.crowds if wish is not None and task.row >= 0 else ():
                members.setdefault(crowd, []).append(task)
                rules.setdefault(crowd, set()).add((wish.even, task.cls.key.where))
    for crowd, tasks in members.items():
        if len(rules[crowd]) > 1 or any(
            (t.work.name, t.name) not in placed or t.state is not TaskState.BOUND for t in tasks
        ):
            continue
        for rule in next(iter(rules[crowd]))[0]:
            if rule.crowd != crowd:
                continue
            counts: dict[str, int] = {}
            for task in tasks:
                spec = state.nodes.specs[task.row]
                assert spec is not None
                counts[spec.labels[rule.level]] = counts.get(spec.labels[rule.level], 0) + 1
            values = set()
            for spec in state.nodes.specs:
                admitted = spec is not None and (
                    not rule.admitted or tasks[0].cls.key.where.matches(replace(spec, taints=()))
                )
                if spec is not None and admitted and not rule.tolerated and rule.level in spec.labels:
                    values.add(spec.labels[rule.level])
            least = min((counts.get(value, 0) for value in values), default=0) if len(values) >= rule.values else 0
            assert rule.tolerated or max(counts.values()) <= least + rule.skew, f"{crowd} is not even: {counts}"


def nobody_stops_for_the_gentle(state: State, plan: Plan) -> None:
    """No eviction of the plan is for a workload that says nobody is to stop for it."""
    gainers = {action.reason.beneficiary for action in plan.actions if isinstance(action, Evict)}
    for name in gainers & set(state.works):
        assert not state.works[name].spec.gentle, f"somebody stops for {name}"


def separate(state: State, plan: Plan) -> None:
    """After the plan: shares that must be on GPUs of their own are, where the plan placed all of them."""
    placed = {(a.placement.workload, a.placement.task) for a in plan.actions if isinstance(a, Bind)}
    for name in {name for name, _ in placed if state.works[name].spec.separate_gpus}:
        tasks = [t for t in state.works[name].tasks.values() if t.state is TaskState.BOUND and t.cls.key.separate]
        if all((name, task.name) in placed for task in tasks):
            places = [(task.row, task.devices) for task in tasks]
            assert len(set(places)) == len(places), f"shares of {name} are on the same GPU: {places}"


def one_model(state: State, plan: Plan) -> None:
    """After the plan: tasks of a pod set that may use several GPU models are on one, where the plan placed them all."""
    placed = {(a.placement.workload, a.placement.task) for a in plan.actions if isinstance(a, Bind)}
    for name in {name for name, _ in placed if state.works[name].chooses}:
        for order in state.works[name].order:
            tasks = [task for task in order if task.state is TaskState.BOUND]
            if all((name, task.name) in placed for task in tasks) and tasks and tasks[0].cls.key.models:
                models = {state.nodes.kinds[int(state.nodes.kind[task.row])].model for task in tasks}
                assert len(models) == 1, f"{name} is on GPUs of several models: {models}"
                assert models <= set(tasks[0].cls.key.models), f"{name} is on GPUs that it may not use: {models}"


def gangs_whole(state: State, plan: Plan) -> None:
    """After the plan: whatever it touched runs with its minimum, or not at all; what is moved, once it landed."""
    touched = {a.placement.workload for a in plan.actions if isinstance(a, Bind)}
    touched |= {a.workload for a in plan.actions if isinstance(a, Evict)}
    moved = {a.workload for a in plan.actions if isinstance(a, Evict) and a.reason.code is ReasonCode.MOVED}
    for name in touched:
        work = state.works[name]
        if name in moved:
            assert work.promised_whole(), f"{name} is moved, but not all of it lands again"
            continue
        reserved = work.after is not None and work.promised_whole()  # places for those that start later
        assert work.whole() or not any(work.bound) or reserved, f"{name} runs below its minimum"
        if work.groups is not None:  # a group that was torn before, and of which nothing was decided, is as it was
            decided = {work.groups.of[work.tasks[task].part] for task in tasks_of(plan, name)}
            counts = [
                runs + (work.after is not None) * held for runs, held in zip(work.bound, work.promised(), strict=True)
            ]
            assert not decided & set(work.groups.torn(counts)), f"a group of {name} runs below its minimum"


def steps_kept(state: State, plan: Plan) -> None:
    """After the plan: what it started or evicted beyond a minimum makes whole steps, but for what lacked before."""
    moved = {a.workload for a in plan.actions if isinstance(a, Evict) and a.reason.code is ReasonCode.MOVED}
    started = [a.placement for a in plan.actions if isinstance(a, Bind)]
    landed = {a.placement for a in plan.actions if isinstance(a, Bind) and a.reason.code is ReasonCode.PROMISE_KEPT}
    gone = [(a.workload, a.task) for a in plan.actions if isinstance(a, Evict)]
    for name in ({place.workload for place in started} | {name for name, _ in gone}) - moved:
        work = state.works[name]
        for part, pod_set in enumerate(work.spec.pod_sets):
            beyond = work.bound[part] - pod_set.min
            mine = [p for p in started if p.workload == name and work.tasks[p.task].part == part]
            joined = len(mine)
            left = sum(who == name and work.tasks[task].part == part for who, task in gone)
            before = beyond - joined + left
            if not pod_set.resizable and left:
                assert left == before + pod_set.min, f"{name} shrinks, though it is not resizable"
            elif not pod_set.resizable and before > 0 and not landed.issuperset(mine):
                assert beyond <= 0, f"{name} grows, though it is not resizable"
            if beyond > 0 and joined + left and before >= 0:
                assert beyond % pod_set.step in (0, before % pod_set.step), f"a step of {name} is torn"


def tasks_of(plan: Plan, name: str) -> list[str]:
    """The tasks of a workload that a plan starts or evicts."""
    binds = [a.placement.task for a in plan.actions if isinstance(a, Bind) and a.placement.workload == name]
    return binds + [a.task for a in plan.actions if isinstance(a, Evict) and a.workload == name]


def caps_kept(state: State, plan: Plan) -> None:
    """After the plan: no queue in which something started is above a cap, or uses what others keep back."""
    gpu = state.column["gpu"]
    places = [a.placement for a in plan.actions if isinstance(a, Bind)]
    started = [state.works[p.workload] for p in places if state.works[p.workload].tasks[p.task].cls.gpu]
    counters = state.tree.counters
    for column in {c for place in places for c in state.works[place.workload].tasks[place.task].cls.counted}:
        used = counters.running[column] + counters.releasing[column]
        assert used <= counters.cap[column], f"more {state.resources[column]} are in use than there are"
    for place in places:
        work = state.works[place.workload]
        for at in work.queue.path if work.queue else ():
            for column in work.tasks[place.task].cls.at(state.nodes.row[place.node]).charged:
                capped(state, work, at, column)
    borrowers = [w.queue for w in started if w.queue and all(at.running[gpu] > at.keep[gpu] for at in w.queue.path)]
    nodes = state.nodes  # a place that is promised on idle room is not in use yet
    free = int((nodes.land + nodes.reserved - nodes.releasing)[nodes.open, gpu].sum())
    if borrowers:
        kept = sum(kept_back(state, top.name) for top in state.tree.tops)
        assert free >= kept, f"{borrowers[0].name} uses what others do not lend"


def capped(state: State, work: Work, at: Queue, column: int) -> None:
    """A queue in which something of a workload started keeps its caps of a resource that it uses."""
    name = state.resources[column]
    used = at.running[column] + at.releasing[column]
    quota, limit, borrow = (caps.get(name) for caps in (at.spec.quota, at.spec.limit, at.spec.borrowing_limit))
    assert limit is None or used <= limit, f"{at.name} stands above its limit of {name}"
    if borrow is not None and quota is not None:
        assert used <= quota + borrow, f"{at.name} borrows more {name} than it may"
    if quota is not None and not work.spec.preemptible:
        assert at.fixed[column] <= quota, f"{at.name} has more {name} that is not preemptible than its quota"
    cap = at.spec.user_limit.get(name)
    user = work.spec.user
    assert cap is None or used_by(state, at.name, user, column) <= cap, f"{user} is above the user limit of {at.name}"


def lines_kept(state: State, plan: Plan, stood: dict[str, tuple[int, float, str]]) -> None:
    """After the plan: in a strict line nobody started behind one who waits without a promise, as they ``stood`` before
    it: a gang that had lost members went first.

    A promise that was made before is kept, whoever is ahead by now; and who ran when the others started, and lost its
    place later in the same plan, did not wait then.
    """
    evicted = {action.workload for action in plan.actions if isinstance(action, Evict)}
    for action in plan.actions:
        if isinstance(action, Bind) and action.reason.code is not ReasonCode.PROMISE_KEPT:
            work = state.works[action.placement.workload]
            if work.queue is None or work.queue.spec.ordering != "StrictFIFO":
                continue
            ahead = [key for key in work.queue.waiting if stood[key[2]] < stood[work.name]]
            waits = [state.works[key[2]] for key in ahead if key[2] not in evicted]
            assert all(w.whole() or w.promised_whole() for w in waits), f"{work.name} passed the head of its line"


def promises_fit(state: State, plan: Plan) -> None:
    """After the plan: there is room for what it promised, once all have left who leave."""
    nodes = state.nodes
    for place in (place for action in plan.actions if isinstance(action, Reserve) for place in action.placements):
        task = state.works[place.workload].tasks[place.task]
        assert task.hold is not None, f"{place} was promised, and is not kept"
        row, devices = task.hold
        cls = task.cls.at(row)
        if nodes.specs[row] is not None and cls.accepts(nodes.specs[row]):
            assert all(nodes.land[row, column] >= 0 for column in cls.fit), f"{place} is promised beyond capacity"
            least = cls.floor - cls.share
            assert all(nodes.dev_land[row, at] >= least for at in devices), f"{place} is promised beyond a device"


def nobody_is_withheld(state: State, now: float, budget: Budget | None = None) -> None:
    """Of a world at rest in which nothing is kept ahead of time: who waits would not start, or grow, by himself beside
    what runs, were nobody else waiting."""
    before = state.snapshot()
    lone = {name for name, work in state.works.items() if not (any(work.bound) or any(work.leaving) or work.held)}
    for name in state.waiting():
        queue = state.works[name].queue
        if queue is None or any(at.spec.ordering == "StrictFIFO" for at in state.tree.queues.values()):
            continue
        alone = State.rebuild(before)
        for other in lone - {name}:
            alone.remove_workload(other)
        actions = schedule(alone, now, budget).actions
        starts = any(isinstance(a, Bind) and a.placement.workload == name for a in actions)
        assert not starts or any(isinstance(a, Evict) for a in actions), f"idle room is withheld from {name}"


def priority_is_heeded(state: State, now: float, budget: Budget | None = None) -> None:
    """Of a world at rest: no single task waits, within its own, for room that lower priority of its queue has."""
    before = state.snapshot()
    for name in state.waiting():
        work = state.works[name]
        queue = work.queue
        if queue is None or work.social or work.arranged or work.held or any(work.bound) or any(work.leaving):
            continue
        spec = work.spec
        if len(spec.pod_sets) > 1 or spec.pod_sets[0].min != 1 or spec.topology_required or spec.gentle or work.groups:
            continue
        if queue.spec.ageing or queue.preempt_min or any(at.keeps for at in state.tree.queues.values()):
            continue
        if any(state.works[key[2]].spec.priority > spec.priority for key in queue.waiting):
            continue  # who might take it in turn
        lower = [
            other
            for other in queue.works.values()
            if other.spec.priority < spec.priority and other.spec.preemptible and (any(other.bound) or other.held)
        ]
        if not lower or any(pods.budgets for other in lower for pods in other.spec.pod_sets):
            continue
        alone = State.rebuild(before)
        for other in state.works.values():
            if other in lower or (other is not work and not (any(other.bound) or any(other.leaving) or other.held)):
                alone.remove_workload(other.name)
        actions = schedule(alone, now, budget).actions
        if not actions or any(not isinstance(a, Bind) or a.placement.workload != name for a in actions):
            continue
        for action in actions:
            alone.apply(action, now)
        path = alone.works[name].queue.path  # type: ignore[union-attr]
        own = all(at.used(c) <= min(at.share[c], at.quota[c]) for at in path for c in range(len(alone.resources)))
        assert not own, f"{name} waits, though lower priority in its queue has the room"


def used_by(state: State, name: str, user: str, column: int) -> int:
    """What a submitter's tasks occupy of a resource below a queue."""
    below = [w for w in state.works.values() if w.queue and w.spec.user == user]
    below = [w for w in below if w.queue and any(at.name == name for at in w.queue.path)]
    return sum(
        t.cls.at(t.row).needs[column] for w in below for t in w.tasks.values() if t.state is not TaskState.PENDING
    )


def kept_back(state: State, name: str) -> int:
    """Idle GPUs that a queue and those below keep for themselves."""
    queue, gpu = state.tree.queues[name], state.column["gpu"]
    lent, quota = queue.spec.lending_limit.get("gpu"), queue.spec.quota.get("gpu")
    keep = max(0, min(quota, queue.most[gpu]) - lent) if queue.active and lent is not None and quota is not None else 0
    used = queue.running[gpu] + max(queue.reserved[gpu], queue.releasing[gpu])
    return max(keep - used, sum(kept_back(state, child.name) for child in queue.children))


def plan_checked(state: State, now: float, budget: Budget | None = None) -> Plan:
    """A plan, after checking that it is pure and repeatable and that a rebuilt state gives the same."""
    before = state.snapshot()
    plan = schedule(state, now, budget)
    assert state.snapshot() == before, "schedule() changed the state"
    check_state(state)
    if len(before.workloads) % 3 == 0:
        applied, advanced = State.rebuild(before), state.copy()
        assert advanced.snapshot() == before
        for action in plan.actions:
            applied.apply(action, now)
        advance(advanced, now, budget)
        applied.age(now)  # as every cycle does first
        check_state(advanced)
        assert advanced.snapshot() == applied.snapshot(), "to advance is not to carry the plan out"
        assert advanced.waiting() == applied.waiting()
    assert schedule(state, now, budget) == plan, "equal inputs gave different plans"
    assert schedule(State.rebuild(before), now, budget) == plan, "a state rebuilt from scratch gave another plan"
    check_plan(state, plan, now, budget or Budget())
    return plan


def carry_out(state: State, plan: Plan, now: float, *, release: bool) -> None:
    """Applies a plan; with ``release`` the evicted are gone at once."""
    stood = {name: state.lines.key_of(work) for name, work in state.works.items()}
    for action in plan.actions:
        state.apply(action, now)
    gangs_whole(state, plan)
    steps_kept(state, plan)
    caps_kept(state, plan)
    lines_kept(state, plan, stood)
    promises_fit(state, plan)
    arranged(state, plan)
    beside_the_right_ones(state, plan)
    evenly(state, plan)
    nobody_stops_for_the_gentle(state, plan)
    separate(state, plan)
    one_model(state, plan)
    if release:
        for action in plan.actions:
            if isinstance(action, Evict):
                state.release_task(action.workload, action.task)
