"""Why not now: the verdict on every workload that was waiting when the cycle began."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import replace
from typing import Any

import numpy as np

from heddle.engine.choices import first_choice
from heddle.engine.crowds import KeptAway
from heddle.engine.cycle import Cycle
from heddle.engine.model import GPU, Apart, Even, Near, Neighbours
from heddle.engine.nodes import TENANCY, Bools, Ints
from heddle.engine.placement import Need, arrangement
from heddle.engine.plan import Verdict
from heddle.engine.protection import protections
from heddle.engine.queues import Cap, CapKind, Queue
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.scores import ClassKey
from heddle.engine.work import TaskState, Work

Key = tuple[int, float, str]

_CAPS = {
    CapKind.LIMIT: ReasonCode.OVER_LIMIT,
    CapKind.QUOTA: ReasonCode.OVER_QUOTA,
    CapKind.BORROWING: ReasonCode.OVER_BORROWING_LIMIT,
    CapKind.LENDING: ReasonCode.NOT_LENT,
    CapKind.USER: ReasonCode.OVER_USER_LIMIT,
    CapKind.COUNTER: ReasonCode.OVER_COUNTER,
}


_NEVER = (ReasonCode.IMPOSSIBLE, ReasonCode.NO_NODE_MATCHES, ReasonCode.NO_GPU_MATCHES)


def _models(work: Work) -> tuple[str, ...]:
    return next((pod_set.gpu_models for pod_set in work.spec.pod_sets if pod_set.gpu_models), ())


def _alike(work: Work, need: Need) -> Need:
    """A need in which pod sets that ask for the same are one: they share what room there is."""
    total: dict[ClassKey, tuple[int, int]] = {}
    for part, count in need:
        first, others = total.get(work.parts[part].key, (part, 0))
        total[work.parts[part].key] = (first, others + count)
    return tuple(total.values())


def _below(queue: Queue) -> Iterator[Work]:
    yield from queue.works.values()
    for child in queue.children:
        yield from _below(child)


def _runs(work: Work, column: int) -> int:
    if not work.fixed:
        runs = (task for task in work.tasks.values() if task.state is TaskState.BOUND)
        return sum(task.cls.at(task.row).needs[column] for task in runs)
    return sum(n * cls.needs[column] for n, cls in zip(work.bound, work.parts, strict=True))


def _has(work: Work, column: int) -> int:
    """What a workload has, of what it was told to leave too."""
    there = (task for task in work.tasks.values() if task.state is TaskState.RELEASING)
    return _runs(work, column) + sum(task.cls.at(task.row).needs[column] for task in there)


def _largest(held: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((item for item in held if item[1]), key=lambda item: (-item[1], item[0]))[:3])


class Verdicts:
    """Gives verdicts at the end of a cycle. Workloads that ask for the same in the same queue share
    their reasons."""

    def __init__(self, cycle: Cycle) -> None:
        self.cycle = cycle
        self.state = cycle.state
        self._shared: dict[tuple[object, ...], tuple[Reason, ...]] = {}
        self._possible: dict[tuple[object, ...], Reason | None] = {}
        self._heads: dict[str, tuple[Work | None, Reason | None]] = {}  # of strict lines

    def all(self) -> dict[str, Verdict]:
        """A verdict per workload that had pending tasks."""
        return self.of(None)

    def of(self, names: Set[str] | None) -> dict[str, Verdict]:
        """The same for those named (None = all)."""
        verdicts: dict[str, Verdict] = {}
        for name in sorted(self.state.lines.orphans if names is None else names & self.state.lines.orphans.keys()):
            reason = self.cycle.reason(ReasonCode.QUEUE_NOT_FOUND, self.state.works[name].spec.queue)
            verdicts[name] = Verdict(name, False, (reason,))
        for _, queue in sorted(self.state.tree.queues.items()):
            ahead = self._admitted(queue)
            for at, (key, work) in self._waiting(queue, names):
                if any(work.bound) and work.whole():
                    verdicts[work.name] = Verdict(work.name, True, self._started(work))
                else:
                    position = at - bisect_left(ahead, key)
                    verdicts[work.name] = Verdict(work.name, False, self.why(work), position)
        return verdicts

    def _waiting(self, queue: Queue, names: Set[str] | None) -> Iterator[tuple[int, tuple[Key, Work]]]:
        """Those of a queue (``names``: of these) who waited when the cycle began, with their places in its line."""
        works = self.state.works
        if names is None:
            yield from ((at, (key, works[key[2]])) for at, key in enumerate(queue.waiting))
            return
        mine = (works[name] for name in names if name in queue.works)
        for key, work in sorted((work.key, work) for work in mine if work.key is not None):
            yield bisect_left(queue.waiting, key), (key, work)

    def _admitted(self, queue: Queue) -> list[Key]:
        """The places in a line of those whose minimum runs: nobody waits behind them."""
        begun = {work.name: work for work in (task.work for task in self.cycle.bind_reason) if work.queue is queue}
        some = {**queue.growing, **begun}.values()
        return sorted(work.key for work in some if work.key is not None and any(work.bound) and work.whole())

    def _started(self, work: Work) -> tuple[Reason, ...]:
        if sum(work.bound) == 1 and len(work.tasks) == 1:
            for task in work.tasks.values():
                found = self.cycle.bind_reason.get(task)
                return (found,) if found else ()
        reasons = self.cycle.bind_reason
        bound = [task for task in work.tasks.values() if task.state is TaskState.BOUND]
        found_all = dict.fromkeys(reasons[task] for task in bound if task in reasons)
        need = self.cycle.growth(work)
        behind = self._passed_over(work) if need else None
        return (*found_all, *((behind,) if behind else self._blocked(work, need) if need else ()))

    def _passed_over(self, work: Work) -> Reason | None:
        """The reason of those behind the head of a strict line."""
        queue = work.queue
        if queue is None or queue.spec.ordering != "StrictFIFO":
            return None
        if queue.name not in self._heads:
            head = self.cycle.head(queue)
            told = Reason(ReasonCode.BEHIND_HEAD, queue=queue.name, head=head.name) if head else None
            self._heads[queue.name] = (head, told)
        head, told = self._heads[queue.name]
        return told if head and self.state.lines.key_of(head) < self.state.lines.key_of(work) else None

    def why(self, work: Work) -> tuple[Reason, ...]:
        """Why a workload's minimum does not start now."""
        queue = work.queue
        name = work.spec.queue
        if queue is None:
            return (self.cycle.reason(ReasonCode.QUEUE_NOT_FOUND, name),)
        if not queue.active:
            return (self.cycle.reason(ReasonCode.QUEUE_INACTIVE, name),)
        if queue.children:
            return (self.cycle.reason(ReasonCode.QUEUE_HAS_CHILDREN, name),)
        if queue.stopped:
            return (self.cycle.reason(ReasonCode.QUEUE_STOPPED, queue.stopped.name),)
        if work.held and work.waits_in_order():
            return (self._in_order(work),)
        if work.held:
            rows = {task.hold[0] for task in work.tasks.values() if task.hold}
            counted = {column for task in work.tasks.values() if task.hold for column in task.cls.counted}
            leaving = sum(
                task.state is TaskState.RELEASING and (row in rows or not counted.isdisjoint(task.cls.counted))
                for row in (self.state.on_row if counted else rows)
                for task in self.state.on_row.get(row, ())
            )
            return (Reason(ReasonCode.WAITING_FOR_RELEASE, queue=name, tasks=leaving),)
        if behind := self._passed_over(work):
            return (behind,)
        need = self.cycle.minimum(work) or self.cycle.growth(work)
        if need is None:
            floor = work.floor()
            there = sum(min(p + b, least) for p, b, least in zip(work.pending, work.bound, floor, strict=True))
            return (Reason(ReasonCode.MEMBERS_MISSING, queue=name, fits=there, needed=sum(floor)),)
        return self._blocked(work, need)

    @staticmethod
    def _in_order(work: Work) -> Reason:
        part = next(part for part, count in enumerate(work.missing()) if count)
        before = work.unready(part) or 0
        sets = work.spec.pod_sets
        return Reason(
            ReasonCode.WAITING_FOR_READY,
            queue=work.spec.queue,
            pod_set=sets[part].name,
            awaits=sets[before].name,
            fits=work.readied(before),
            needed=sets[before].min,
        )

    def _blocked(self, work: Work, need: Need) -> tuple[Reason, ...]:
        spec = work.spec
        key = (
            spec.queue,
            tuple((work.parts[part].key, count) for part, count in need),
            spec.topology_required,
            work.name if spec.topology_required and any(work.bound) else "",
            spec.preemptible,
            spec.priority,
            spec.user if self.state.tree.counts_users else "",
            work.name in self.cycle.unsearched or (spec.queue, work.kind) in self.cycle.unsearched_kinds,
            tuple(shadow.work.name for shadow in self.cycle.outlasts(work)),
            work.name if work.name in self.cycle.shadows else "",
            arrangement(work, need),
        )
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = tuple(self._reasons(work, need))
        return found

    def _reasons(self, work: Work, need: Need) -> list[Reason]:
        """Those of the best GPU model with which a cap, or the cluster, does not rule it out; else of the best."""
        told: list[list[Reason]] = []

        def tell() -> bool:
            told.append(self._reasons_as_chosen(work, need))
            return False

        first_choice(work, need, tell)
        if not told:  # what runs of it is on a model that it may not use
            models = _models(work)
            return [
                Reason(ReasonCode.NO_GPU_MATCHES, queue=work.spec.queue, models=models, known=self._offered(models, ""))
            ]
        possible = [each for each in told if each and each[0].code not in _NEVER]
        if not possible:
            return min(
                told, key=lambda each: (each[0].code is not ReasonCode.IMPOSSIBLE, -each[0].fits) if each else ()
            )
        return next((each for each in possible if each and each[0].code not in _CAPS.values()), possible[0])

    def _reasons_as_chosen(self, work: Work, need: Need) -> list[Reason]:
        queue = work.queue
        if queue is None:
            return []
        impossible = self.impossible(work, need)
        if impossible:
            return [impossible]
        demand = self.cycle.demand(work, need)
        reasons = []
        cap = self.state.tree.stopped_by(
            queue, demand, fixed=not work.spec.preemptible, user=work.spec.user, land=False
        )
        if cap:
            reasons.append(self.capped(cap, queue))
        kept = self.cycle.outlasts(work)
        if not self._fits_now(work, need):
            reasons.append(self._no_room(work, need))
        elif not reasons and kept:
            first = min(kept, key=lambda shadow: (shadow.at, shadow.work.name))
            return [Reason(ReasonCode.KEPT_FOR_OTHERS, queue=queue.name, beneficiary=first.work.name, at=first.at)]
        elif not reasons:
            reasons.append(self._no_room(work, need))
        shadow = self.cycle.shadows.get(work.name)
        if shadow is not None and shadow.drains:
            names = sorted(self.state.nodes.names[row] for row in shadow.spare)
            held = tuple((name, 0) for name in names)
            reasons.append(Reason(ReasonCode.DRAINING, queue=queue.name, at=work.spec.created, holders=held))
        elif shadow is not None:
            after = tuple((name, 0) for name in shadow.after)
            reasons.append(Reason(ReasonCode.ROOM_KEPT, queue=queue.name, at=shadow.at, holders=after))
        if work.spec.gentle:
            reasons.append(Reason(ReasonCode.TAKES_FROM_NOBODY, queue=queue.name))
        elif work.name in self.cycle.unsearched or (queue.name, work.kind) in self.cycle.unsearched_kinds:
            reasons.append(self.cycle.reason(ReasonCode.BUDGET_SPENT, queue.name))
        elif protected := protections(self.cycle, work, queue, need):
            reasons += protected
        elif not cap:
            reasons.append(self._nothing_to_take(queue, demand))
        return reasons

    def _fits_now(self, work: Work, need: Need) -> bool:
        point = self.state.checkpoint()
        fits = self.cycle.placer.place(work, need) is not None
        self.state.rollback(point)
        return fits

    def impossible(self, work: Work, need: Need) -> Reason | None:
        """Said only when it is true: not even the empty cluster, with every node uncordoned, has room."""
        spec = work.spec
        total_need = tuple((part, max(count, spec.pod_sets[part].min)) for part, count in need)
        kinds = tuple((work.parts[part].key, count) for part, count in total_need)
        key = (kinds, spec.topology_required, arrangement(work, total_need))
        known = self._possible
        if not work.arranged and not work.social:  # it rests on what nodes there are, whoever is on them
            nodes = self.state.nodes
            known = self.state.impossible.of((nodes.spec_version, len(nodes.spec_log), self.state.topology.labels))
        if key not in known:
            known[key] = self._impossible(work, total_need)
        found: Reason | None = known[key]
        return found if found is None else replace(found, queue=spec.queue)

    def _impossible(self, work: Work, whole: Need) -> Reason | None:
        nodes, need = self.state.nodes, _alike(work, whole)
        label = work.spec.topology_required
        level = self.state.topology.level(label) if label else None
        if label and level is None:
            return self._no_level(work, label)
        for pod_set in work.spec.pod_sets:
            for rule in (pod_set.spread, pod_set.slices):
                if rule and self.state.topology.level(rule.level) is None:
                    return self._no_level(work, rule.level)
        everywhere = nodes.rows()
        fits = []
        for part, _ in need:
            cls = work.parts[part]
            room = self.state.cache.count(cls, everywhere, land=False, empty=True, cordoned=True)
            per_node = np.minimum(room, 1 << 20)
            if level is not None:
                domain = level.domain[everywhere]
                inside = domain >= 0
                sums = np.bincount(domain[inside], weights=per_node[inside], minlength=len(level.paths))
                fits.append(sums.astype(np.int64))
            else:
                fits.append(np.array([per_node.sum()], np.int64))
        enough = np.all([f >= n for f, (_, n) in zip(fits, need, strict=True)], axis=0) if fits else np.array([True])
        if enough.any():
            for part, _ in need:
                if not work.parts[part].eligible.any():
                    return self._nowhere(work, part)
            return self._never_arranged(work, whole)
        part, count = min(
            zip(fits, need, strict=True), key=lambda item: int(item[0].max(initial=0)) - item[1][1]
        )[1]  # fmt: skip
        cls = work.parts[part]
        if not any(cls.accepts(spec) for spec in nodes.specs):
            return self._nowhere(work, part)
        fit = int(fits[[p for p, _ in need].index(part)].max(initial=0))
        return Reason(
            ReasonCode.IMPOSSIBLE,
            queue=work.spec.queue,
            level=label or "",
            resource=self.state.resources[cls.used[0]] if cls.used else "",
            wanted=cls.needs[cls.used[0]] if cls.used else 0,
            fits=fit,
            needed=count,
            profile=work.spec.pod_sets[part].mig,
        )

    def _nowhere(self, work: Work, part: int) -> Reason:
        """No open node admits a pod set: its labels and taints are not as wished, or else its GPUs."""
        cls, pod_set = work.parts[part], work.spec.pod_sets[part]
        if cls.fixed or not any(cls.key.where.accepts(spec) for spec in self.state.nodes.specs):
            return Reason(ReasonCode.NO_NODE_MATCHES, queue=work.spec.queue)
        return Reason(
            ReasonCode.NO_GPU_MATCHES,
            queue=work.spec.queue,
            wanted=pod_set.gpu_memory * 2**20,
            models=pod_set.gpu_models,
            profile=pod_set.mig,
            known=self._offered(pod_set.gpu_models, pod_set.mig),
        )

    def _no_level(self, work: Work, label: str) -> Reason:
        known = self.state.topology.labels
        return Reason(ReasonCode.TOPOLOGY_UNKNOWN, queue=work.spec.queue, level=label, known=known)

    def _offered(self, models: tuple[str, ...], profile: str) -> tuple[str, ...]:
        """The GPU models that there are, where none of these is among them; else the profiles that they have."""
        nodes = self.state.nodes
        kinds = [nodes.kinds[kind] for kind in nodes.known_kinds()]
        there = {hardware.model for hardware in kinds if hardware.model}
        if models and not there & set(models):
            return tuple(sorted(there))
        if not profile:
            return ()
        cut = {geometry for hardware in kinds for _, geometry in hardware.cut}
        return tuple(sorted({each.name for geometry in cut for each in geometry.profiles if geometry.starts(each)}))

    def _arranged(self, work: Work, part: int, *, empty: bool) -> int:
        """How many tasks of a pod set its spread or slices would leave room for, never too few."""
        cls, pod_set = work.parts[part], work.spec.pod_sets[part]
        rule = pod_set.spread or pod_set.slices
        level = self.state.topology.level(rule.level) if rule else None
        if level is None:
            return 0
        rows = np.arange(self.state.nodes.open.size)
        fit = np.minimum(self.state.cache.count(cls, rows, land=False, empty=empty, cordoned=empty), 1 << 20)
        if pod_set.spread is not None:
            outer = self.state.topology.level(work.spec.topology_required) if work.spec.topology_required else None
            found = [
                self.cycle.placer.spreading(work, part, rows, land=False, cordoned=cordoned)
                for rows in (outer.rows if outer else (None,))
                for cordoned in (False, True)[: 1 + empty]  # a cordoned domain counts for the skew, room or not
            ]
            return max((spreading.capacity(fit) for spreading in found if spreading), default=0)
        if not empty:
            return self.cycle.placer.sliced(work, part, work.pending[part])
        size = pod_set.slices.size if pod_set.slices else 1
        inside = level.rows_in_domains()
        tasks = np.bincount(level.domain[inside], weights=fit[inside]).astype(np.int64)
        return int((tasks // size * size).sum())

    def _never_arranged(self, work: Work, need: Need) -> Reason | None:
        """The spread or slices of a pod set for which not even the empty cluster has room."""
        if any(work.bound) or any(work.leaving) or work.held:
            return None
        for part, count in need:
            pod_set = work.spec.pod_sets[part]
            size = pod_set.slices.size if pod_set.slices else 1
            if pod_set.spread or pod_set.slices:
                fits = self._arranged(work, part, empty=True)
                if fits < count // size * size:
                    return self._apart_or_together(work, part, count, fits, even_empty=True)
        return None

    def _apart_or_together(self, work: Work, part: int, count: int, fits: int, *, even_empty: bool = False) -> Reason:
        pod_set = work.spec.pod_sets[part]
        spread, slices = pod_set.spread, pod_set.slices
        if spread is not None:
            code = ReasonCode.IMPOSSIBLE_SPREAD if even_empty else ReasonCode.NO_SPREAD
        else:
            code = ReasonCode.IMPOSSIBLE_SLICES if even_empty else ReasonCode.NO_SLICES
        return Reason(
            code,
            queue=work.spec.queue,
            level=spread.level if spread else slices.level if slices else "",
            cap=(spread.most or 0) if spread else 0,
            used=(spread.skew or 0) if spread else 0,
            tasks=slices.size if slices else 0,
            fits=fits,
            needed=count,
        )

    def capped(self, cap: Cap, asker: Queue) -> Reason:
        """The reason for a cap that stops the asker, with those who hold what is used or kept back."""
        holders = self._holders(cap.queue, cap.column)
        if cap.kind is CapKind.LENDING:
            kept = self.state.tree.lending.keepers(cap.column, asker)
            holders = tuple((queue.name, idle) for queue, idle in kept[:3])
        elif cap.kind is CapKind.USER:
            holders = self._holders(cap.queue, cap.column, user=cap.user)
        elif cap.kind is CapKind.COUNTER:
            held = ((work.name, _has(work, cap.column)) for work in self.state.works.values())
            holders = _largest(held)
        return Reason(
            _CAPS[cap.kind],
            queue="" if cap.kind is CapKind.COUNTER else cap.queue.name,
            resource=self.state.resources[cap.column],
            cap=cap.cap,
            used=cap.used,
            wanted=cap.wanted,
            free=max(0, cap.cap - cap.used) if cap.kind is CapKind.LENDING else 0,
            holders=holders,
            user=cap.user,
        )

    def _holders(self, queue: Queue, column: int, user: str | None = None) -> tuple[tuple[str, int], ...]:
        if user is not None:
            held = [(work.name, _runs(work, column)) for work in _below(queue) if work.spec.user == user]
        elif queue.children:
            held = [(child.name, child.used(column)) for child in queue.children]
        else:
            held = [(work.name, _runs(work, column)) for work in queue.works.values()]
        return _largest(held)

    def _no_room(self, work: Work, need: Need) -> Reason:
        state = self.state
        if work.social and (shut_out := self._shut_out(work, need)):
            return shut_out
        part, count = _alike(work, need)[0]
        cls = work.parts[part]
        rows = state.nodes.rows()
        column = cls.used[0] if cls.used else 0
        label = work.spec.topology_required
        common = {
            "queue": work.spec.queue,
            "resource": state.resources[column] if cls.used else GPU,
            "wanted": cls.needs[column] * count if cls.used else 0,
            "free": int(np.maximum(state.nodes.bind[:, column], 0).sum()),
            "needed": count,
            "profile": work.spec.pod_sets[part].mig,
        }
        if label:
            level = state.topology.level(label)
            fits = self.cycle.placer.counts(level, work, ((part, count),), land=False)[0] if level else np.zeros(1)
            if fits.max(initial=0) >= count and (crowded := self._crowded(work, need)):
                return crowded
            return Reason(ReasonCode.NO_DOMAIN, level=label, fits=int(fits.max(initial=0)), **common)  # type: ignore[arg-type]
        fitting = np.flatnonzero(state.cache.scores(cls, land=False) >= 0)
        counts = np.minimum(state.cache.count(cls, fitting, land=False), count)
        if counts.sum() < count and state.cache.exclusive:
            common["free"] = self._free_for_others(rows, column)
            if cls.key.exclusive and state.cache.count(cls, rows, land=False, shared=True).sum() >= count:
                return Reason(ReasonCode.NO_EMPTY_NODE, fits=int(counts.sum()), **common)  # type: ignore[arg-type]
        if cls.key.separate and self._would_fit_together(work, part, count):
            alone = self.cycle.placer.room_apart(work, cls)
            return Reason(ReasonCode.NO_SEPARATE_GPUS, fits=min(alone, count), **common)  # type: ignore[arg-type]
        if counts.sum() < count and not cls.eligible[state.nodes.open].all():
            elsewhere = state.cache.count(cls, rows, land=False, anywhere=True)
            if elsewhere.sum() >= count:
                admitted = rows[cls.eligible[rows]]
                common["free"] = int(np.maximum(state.nodes.bind[admitted, column], 0).sum())
                return Reason(
                    ReasonCode.NO_MATCHING_ROOM,
                    fits=int(counts.sum()),
                    tasks=admitted.size,
                    **common,  # type: ignore[arg-type]
                )
        elif counts.sum() >= count and (crowded := self._crowded(work, need)):
            return crowded
        return Reason(ReasonCode.NO_ROOM, fits=int(min(counts.sum(), count)), **common)  # type: ignore[arg-type]

    def _shut_out(self, work: Work, need: Need) -> Reason | None:
        """There is room, but not beside those who are there: the rule that leaves fewest nodes with room."""
        state, placer = self.state, self.cycle.placer
        alone = tuple(replace(pod_set, neighbours=None) for pod_set in work.spec.pod_sets)
        point = state.checkpoint()
        try:
            if placer.place(state.stand_in(replace(work.spec, pod_sets=alone)), need) is None:
                return None
            state.rollback(point)
            for part, count in need:
                for fits in range(count):
                    if placer.place(work, ((part, 1),)) is None:
                        return self._by_rule(work, part, fits, count)
        finally:
            state.rollback(point)
        return None

    def _by_rule(self, work: Work, part: int, fits: int, count: int) -> Reason | None:
        wish, cls = work.spec.pod_sets[part].neighbours, work.parts[part]
        room = self.state.cache.scores(cls, land=False) >= 0
        left = self.state.crowds.rules(work, part, wish, land=False) if wish is not None else ()
        rule, rows = min(left, key=lambda item: int((item[1] & room).sum()), default=(None, room))
        common: dict[str, Any] = {"queue": work.spec.queue, "fits": fits, "needed": count}
        match rule:
            case Near():
                levels, tasks = " and ".join(rule.levels), self.state.crowds.running(rule.crowd)
                return Reason(ReasonCode.NO_MATCHING_NEIGHBOUR, level=levels, crowd=rule.crowd, tasks=tasks, **common)
            case Apart():
                holders = self._with(lambda other: rule.crowd in other.crowds, ~rows)
                return Reason(ReasonCode.ANTI_AFFINITY, level=rule.level, crowd=rule.crowd, holders=holders, **common)
            case Even():
                return Reason(ReasonCode.TOO_UNEVEN, level=rule.level, crowd=rule.crowd, used=rule.skew, **common)
            case KeptAway():
                kept = Apart(rule.level, rule.crowd)
                holders = self._with(lambda other: kept in other.apart, ~rows)
                return Reason(ReasonCode.KEPT_AWAY, level=rule.level, crowd=rule.crowd, holders=holders, **common)
        return None

    def _with(self, of: Callable[[Neighbours], bool], rows: Bools) -> tuple[tuple[str, int], ...]:
        """Workloads with tasks of some kind on some rows, those with most first."""
        held = (
            (
                work.name,
                sum(
                    task.row >= 0
                    and bool(rows[task.row])
                    and (wish := work.spec.pod_sets[task.part].neighbours) is not None
                    and of(wish)
                    for task in work.tasks.values()
                ),
            )
            for work in self.state.works.values()
            if work.social
        )
        return _largest(held)

    def _would_fit_together(self, work: Work, part: int, count: int) -> bool:
        """Whether as many tasks of a pod set would fit if several could be on one GPU."""
        cls = self.state.cache.of(work.spec.pod_sets[part], replace(work.spec, separate_gpus=False))
        return bool(self.state.cache.count(cls, self.state.nodes.rows(), land=False).sum() >= count)

    def _free_for_others(self, rows: Ints, column: int) -> int:
        """What is free, but on nodes that somebody has to himself."""
        bind = self.state.nodes.bind[rows]
        return int(np.maximum(bind[bind[:, TENANCY] > 0, column], 0).sum())

    def _crowded(self, work: Work, need: Need) -> Reason | None:
        """There is room, but not as spread or slices want it: the pod set for which that shows, else the first."""
        found = []
        for part, count in need:
            if work.spec.pod_sets[part].spread or work.spec.pod_sets[part].slices:
                fits = self._arranged(work, part, empty=False)
                found.append(self._apart_or_together(work, part, count, fits))
        return min(found, key=lambda reason: reason.fits - reason.needed, default=None)

    def _nothing_to_take(self, queue: Queue, demand: list[int]) -> Reason:
        column = next((c for c in self.state.tree.columns if demand[c]), 0)
        others = sorted(
            ((q.name, q.used(column)) for q in self.state.tree.queues.values() if not q.children and q is not queue),
            key=lambda item: (-item[1], item[0]),
        )
        return Reason(
            ReasonCode.NOTHING_TO_TAKE,
            queue=queue.name,
            resource=self.state.resources[column],
            cap=queue.share[column],
            used=queue.used(column),
            holders=tuple(item for item in others[:3] if item[1]),
        )
