"""Why something was, or was not, done: a code and typed fields. :func:`render` is the only place with
sentences."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from heddle.engine.model import COUNTER, CPU, GPU, MEMORY, MODEL, WHOLE


class ReasonCode(StrEnum):
    """Every reason that the engine can give."""

    # a task got its place
    WITHIN_SHARE = "WithinShare"
    IDLE_ROOM = "IdleRoom"
    GROWN = "Grown"
    PROMISE_KEPT = "PromiseKept"
    GROUP_GROWN = "GroupGrown"
    # a task lost its place
    PREEMPTED = "Preempted"
    RECLAIMED = "Reclaimed"
    GANG_BROKEN = "GangBroken"
    MOVED = "Moved"
    QUEUE_DRAINED = "QueueDrained"
    # why not now
    QUEUE_NOT_FOUND = "QueueNotFound"
    QUEUE_INACTIVE = "QueueInactive"
    QUEUE_HAS_CHILDREN = "QueueHasChildren"
    MEMBERS_MISSING = "MembersMissing"
    IMPOSSIBLE = "Impossible"
    TOPOLOGY_UNKNOWN = "TopologyUnknown"
    NO_NODE_MATCHES = "NoNodeMatches"
    NO_ROOM = "NoRoom"
    NO_DOMAIN = "NoDomain"
    OVER_LIMIT = "OverLimit"
    OVER_QUOTA = "OverQuota"
    WAITING_FOR_RELEASE = "WaitingForRelease"
    BUDGET_SPENT = "BudgetSpent"
    NOTHING_TO_TAKE = "NothingToTake"
    TAKES_FROM_NOBODY = "TakesFromNobody"
    KEPT_FOR_OTHERS = "KeptForOthers"
    ROOM_KEPT = "RoomKept"
    DRAINING = "Draining"
    OVER_BORROWING_LIMIT = "OverBorrowingLimit"
    NOT_LENT = "NotLent"
    QUEUE_STOPPED = "QueueStopped"
    OVER_USER_LIMIT = "OverUserLimit"
    BEHIND_HEAD = "BehindHead"
    NO_MATCHING_ROOM = "NoMatchingRoom"
    NO_EMPTY_NODE = "NoEmptyNode"
    NO_SPREAD = "NoSpread"
    NO_SLICES = "NoSlices"
    IMPOSSIBLE_SPREAD = "ImpossibleSpread"
    IMPOSSIBLE_SLICES = "ImpossibleSlices"
    OVER_COUNTER = "OverCounter"
    WAITING_FOR_READY = "WaitingForReady"
    NO_GPU_MATCHES = "NoGpuMatches"
    NO_SEPARATE_GPUS = "NoSeparateGpus"
    WITHIN_MIN_RUNTIME = "WithinMinRuntime"
    DISRUPTION_BUDGET = "DisruptionBudget"
    NO_MATCHING_NEIGHBOUR = "NoMatchingNeighbour"
    ANTI_AFFINITY = "AntiAffinity"
    KEPT_AWAY = "KeptAway"
    TOO_UNEVEN = "TooUneven"
    # the smallest change that would admit it
    FEWER_MEMBERS = "FewerMembers"
    FEWER_GPUS = "FewerGpus"
    RELAX_TOPOLOGY = "RelaxTopology"
    RAISE_LIMIT = "RaiseLimit"
    RAISE_QUOTA = "RaiseQuota"
    OTHERS_LEAVE = "OthersLeave"
    # when it is expected to start, and what that rests on
    EXPECTED_START = "ExpectedStart"
    NO_KNOWN_START = "NoKnownStart"
    ASSUMES_NO_ARRIVALS = "AssumesNoArrivals"
    ASSUMES_WALLTIMES = "AssumesWalltimes"
    ASSUMES_SPEEDS = "AssumesSpeeds"
    ASSUMES_ENDLESS = "AssumesEndless"
    ASSUMES_STARTS_OVER = "AssumesStartsOver"
    RAISE_BORROWING_LIMIT = "RaiseBorrowingLimit"
    RAISE_LENDING_LIMIT = "RaiseLendingLimit"
    RESUME_QUEUE = "ResumeQueue"
    RAISE_USER_LIMIT = "RaiseUserLimit"
    RELAX_ORDERING = "RelaxOrdering"
    ANY_NODE = "AnyNode"
    ANY_ARRANGEMENT = "AnyArrangement"
    RAISE_COUNTER = "RaiseCounter"
    FEWER_GROUPS = "FewerGroups"
    ANY_NEIGHBOURS = "AnyNeighbours"
    NODES_BACK = "NodesBack"
    ALLOW_PREEMPTION = "AllowPreemption"


@dataclass(frozen=True, slots=True)
class Reason:
    """A typed reason. Fields that a code does not use keep their defaults; :func:`render` shows which it
    uses.

    Attributes:
        code: what kind of reason.
        queue: the queue it is about (for ``Preempted``/``Reclaimed``: the beneficiary's).
        resource: the resource it is about.
        level: topology level.
        beneficiary: workload for which room was made.
        holders: queues or workloads that hold what is missing, largest first, with their milli-units or
            bytes.
        wanted: amount asked for, in the resource's units (or members).
        free: amount free now, same units.
        cap: the quota or limit in question (``NoSpread``: tasks at most in one domain, 0 = no such rule;
            ``DisruptionBudget``: tasks that must run).
        used: usage counted against the cap (``NoSpread``: the greatest skew, 0 = no such rule; ``TooUneven``: the
            greatest skew).
        fits: how many tasks would fit now.
        needed: how many tasks must start together.
        tasks: number of tasks concerned (``NoMatchingRoom``: of nodes; ``NoSlices``: tasks of one slice).
        node: the node concerned.
        at: a moment, in seconds on the caller's clock.
        user: the submitter concerned.
        head: workload at the head of the line.
        pod_set: the pod set that waits, or that a change is about; "" = there is but one.
        awaits: the pod set for which it waits.
        models: GPU models that it may use.
        profile: MIG profile that it asks for.
        budget: the disruption budget concerned.
        crowd: the tasks, of whatever workload, that a rule about neighbours speaks of.
        known: what the cluster has of the kind that is asked for and missing.
    """

    code: ReasonCode
    queue: str = ""
    resource: str = ""
    level: str = ""
    beneficiary: str = ""
    holders: tuple[tuple[str, int], ...] = ()
    wanted: int = 0
    free: int = 0
    cap: int = 0
    used: int = 0
    fits: int = 0
    needed: int = 0
    tasks: int = 0
    node: str = ""
    at: float = 0.0
    user: str = ""
    head: str = ""
    pod_set: str = ""
    awaits: str = ""
    models: tuple[str, ...] = ()
    profile: str = ""
    budget: str = ""
    crowd: str = ""
    known: tuple[str, ...] = ()


def moment(at: float) -> str:
    """A moment as people write it: UTC where the clock counts from 1970, else plain seconds."""
    if at < 1e9:
        return f"{at:g} s"
    days, second = divmod(round(at), 86400)
    # the Gregorian calendar in years that begin in March, so that leap days come last
    era, day = divmod(days + 719468, 146097)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month, year = (month + 3, year) if month < 10 else (month - 9, year + 1)
    hours, rest = divmod(second, 3600)
    return f"{year + era * 400:04}-{month:02}-{day:02} {hours:02}:{rest // 60:02}:{rest % 60:02} UTC"


def amount(resource: str, value: int) -> str:
    """An amount as people write it: GPUs and CPUs in units, memory in GiB or MiB."""
    if resource == GPU:
        text = f"{value / WHOLE:g}"
        return f"{text} GPU" if text == "1" else f"{text} GPUs"
    if resource.startswith(MODEL):
        return f"{amount(GPU, value)} ({resource.removeprefix(MODEL)})"
    if resource == CPU:
        return f"{value / 1000:g} CPUs"
    if resource == MEMORY:
        return f"{value / 2**30:.4g} GiB" if value >= 2**30 else f"{value / 2**20:.4g} MiB"
    return f"{value} {resource.removeprefix(COUNTER)}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _of(reason: Reason) -> str:
    return f" of {reason.pod_set}" if reason.pod_set else ""


def _holders(reason: Reason) -> str:
    if not reason.holders:
        return ""
    return "; held by " + ", ".join(f"{name} ({amount(reason.resource, held)})" for name, held in reason.holders)


def _names(holders: tuple[tuple[str, int], ...]) -> str:
    names = [name for name, _ in holders]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _so_many(reason: Reason) -> str:
    if reason.fits >= reason.needed:  # each rule by itself has room
        return f"no place for all {reason.needed} tasks"
    return f"{reason.fits} of {reason.needed} tasks fit"


def _there(reason: Reason) -> str:
    return f"; there are {_names(reason.holders)}" if reason.holders else ""


def _spread(reason: Reason) -> str:
    rules = [f"{reason.cap} at most in one {reason.level}"] if reason.cap else []
    if reason.used:
        rules.append(f"{reason.used} at most more in a {reason.level} than in the emptiest")
    return " and ".join(rules)


def _wanted_gpu(reason: Reason) -> str:
    models = f"GPUs of model {' or '.join(reason.models)}" if reason.models else "GPUs"
    if reason.profile:
        return f"{models} in MIG mode with {reason.profile}"
    return f"{models} known to have {amount(MEMORY, reason.wanted)} or more each" if reason.wanted else models


def render(reason: Reason) -> str:
    """The sentence for a reason."""
    r = reason
    asked, free, cap, used = (amount(r.resource, v) for v in (r.wanted, r.free, r.cap, r.used))
    match r.code:
        case ReasonCode.WITHIN_SHARE:
            return f"placed within the fair share of queue {r.queue}"
        case ReasonCode.IDLE_ROOM:
            return f"placed on room that is idle; queue {r.queue} is beyond its fair share and may lose it"
        case ReasonCode.GROWN:
            more = f"{r.tasks} tasks" if r.tasks > 1 else "one task"
            return f"grown by {more} beyond its minimum in queue {r.queue}"
        case ReasonCode.GROUP_GROWN:
            return f"grown by one group beyond its minimum in queue {r.queue}"
        case ReasonCode.PROMISE_KEPT:
            return "placed on the room that was made for it"
        case ReasonCode.PREEMPTED:
            return f"preempted by {r.beneficiary}, which has higher priority in queue {r.queue}"
        case ReasonCode.RECLAIMED:
            return f"reclaimed for {r.beneficiary}: queue {r.queue} is owed the room"
        case ReasonCode.GANG_BROKEN:
            return f"evicted: {r.fits} of at least {r.needed} members were left, and the grace has passed"
        case ReasonCode.MOVED:
            return f"moved to another place, which is kept for it, so that {r.beneficiary} of queue {r.queue} fits"
        case ReasonCode.QUEUE_NOT_FOUND:
            return f"queue {r.queue} does not exist"
        case ReasonCode.QUEUE_INACTIVE:
            return f"queue {r.queue} is inactive: a parent is missing, or its parents form a cycle"
        case ReasonCode.QUEUE_HAS_CHILDREN:
            return f"queue {r.queue} has queues below it; submit to one of those"
        case ReasonCode.MEMBERS_MISSING:
            return f"{r.fits} of {r.needed} members exist so far"
        case ReasonCode.IMPOSSIBLE:
            return (
                f"impossible on this cluster even when empty: {r.fits} of {r.needed} tasks would fit"
                + (f" in one {r.level}" if r.level else "")
                + (f"; a task asks for {f'a MIG instance {r.profile}' if r.profile else asked}" if r.resource else "")
            )
        case ReasonCode.TOPOLOGY_UNKNOWN:
            levels = f"it has {', '.join(r.known)}" if r.known else "it has none"
            return f"{r.level} is not a level of the cluster's topology: {levels}"
        case ReasonCode.NO_NODE_MATCHES:
            return "no schedulable node matches its node selector, affinity and tolerations"
        case ReasonCode.NO_GPU_MATCHES:
            there = f"; the cluster has {', '.join(r.known)}" if r.known else ""
            return f"no schedulable node that it may use has {_wanted_gpu(r)}{there}"
        case ReasonCode.NO_ROOM:
            if r.profile:
                return f"{r.fits} of {r.needed} tasks fit now; each asks for a MIG instance {r.profile}"
            return f"{r.fits} of {r.needed} tasks fit now; it asks for {asked}, {free} are free"
        case ReasonCode.NO_MATCHING_ROOM:
            return (
                f"{r.fits} of {r.needed} tasks fit now on the {_count(r.tasks, 'node', 'nodes')} that its node "
                f"selector, affinity and tolerations admit; {free} are free there, and others would have room"
            )
        case ReasonCode.NO_EMPTY_NODE:
            return (
                f"each task asks for a node to itself: {r.fits} of {r.needed} find one that is empty and large enough"
            )
        case ReasonCode.NO_SEPARATE_GPUS:
            return f"its shares must be on separate GPUs: {r.fits} of {r.needed} find one that has room"
        case ReasonCode.NO_MATCHING_NEIGHBOUR:
            return f"{_so_many(r)}: it must have {r.crowd} in its {r.level}, " + (
                "which run nowhere" if not r.tasks else "and there is no room beside those that run"
            )
        case ReasonCode.ANTI_AFFINITY:
            where = f"share its {r.level}" if r.level else "run at the same time"
            return f"{_so_many(r)}: it may not {where} with {r.crowd}{_there(r)}"
        case ReasonCode.KEPT_AWAY:
            where = f"share their {r.level}" if r.level else "run at the same time"
            return f"{_so_many(r)}: others do not let it {where}{_there(r)}"
        case ReasonCode.TOO_UNEVEN:
            return (
                f"{_so_many(r)}: a {r.level} that takes one may have {r.used} at most more of {r.crowd} than that "
                "with fewest"
            )
        case ReasonCode.ANY_NEIGHBOURS:
            return "without its affinity, anti-affinity and spread constraints it would start now"
        case ReasonCode.NO_SPREAD:
            return f"not enough domains apart have room now: {_so_many(r)}, {_spread(r)}"
        case ReasonCode.NO_SLICES:
            return f"there is room, but not together: {_so_many(r)}, every {r.tasks} in one {r.level}"
        case ReasonCode.IMPOSSIBLE_SPREAD:
            return f"impossible on this cluster even when empty: {_so_many(r)}, {_spread(r)}"
        case ReasonCode.IMPOSSIBLE_SLICES:
            return f"impossible on this cluster even when empty: {_so_many(r)}, every {r.tasks} in one {r.level}"
        case ReasonCode.ANY_ARRANGEMENT:
            return "without its spread, slices, separate GPUs and nodes of its own it would start now"
        case ReasonCode.ANY_NODE:
            return "without its node selector and affinity it would start now"
        case ReasonCode.NO_DOMAIN:
            return f"no single {r.level} has room: the best fits {r.fits} of {r.needed} tasks now"
        case ReasonCode.OVER_LIMIT:
            return f"queue {r.queue} is limited to {cap}: {used} in use, {asked} more asked for{_holders(r)}"
        case ReasonCode.OVER_QUOTA:
            return (
                f"work that is not preemptible must stay within quota: queue {r.queue} has {cap}, "
                f"{used} in use by such work, {asked} more asked for"
            )
        case ReasonCode.OVER_BORROWING_LIMIT:
            return (
                f"queue {r.queue} may use {cap}, its quota and what it may borrow: {used} in use, "
                f"{asked} more asked for{_holders(r)}"
            )
        case ReasonCode.NOT_LENT:
            kept = ", ".join(f"{name} ({amount(r.resource, held)})" for name, held in r.holders)
            return f"queue {r.queue} would have to borrow {asked} where {free} may still be used by borrowers" + (
                f"; kept back by {kept}" if kept else ""
            )
        case ReasonCode.QUEUE_STOPPED:
            return f"queue {r.queue} is stopped: nothing new starts in it or below"
        case ReasonCode.QUEUE_DRAINED:
            return f"evicted: queue {r.queue} is being drained"
        case ReasonCode.OVER_USER_LIMIT:
            who = f"user {r.user}" if r.user else "work of no known user"
            return (
                f"queue {r.queue} lets one user use {cap}: {who} has {used} in use, {asked} more asked for{_holders(r)}"
            )
        case ReasonCode.WAITING_FOR_READY:
            return (
                f"its room is reserved; {r.pod_set} starts once {r.awaits} is ready: {r.fits} of {r.needed} "
                f"{'task is' if r.needed == 1 else 'tasks are'}"
            )
        case ReasonCode.OVER_COUNTER:
            return f"the cluster has {cap}: {used} in use, {asked} more asked for{_holders(r)}"
        case ReasonCode.BEHIND_HEAD:
            return f"queue {r.queue} starts in strict order: {r.head} is ahead and cannot start yet"
        case ReasonCode.WAITING_FOR_RELEASE:
            return f"its room is reserved; {_count(r.tasks, 'evicted task is', 'evicted tasks are')} still leaving"
        case ReasonCode.BUDGET_SPENT:
            return "not tried in this cycle: its budget of work was spent"
        case ReasonCode.WITHIN_MIN_RUNTIME:
            return (
                f"it may take the room of {_names(r.holders)}, but not before {moment(r.at)}: until then the minimum "
                "runtime of their queue protects them"
            )
        case ReasonCode.DISRUPTION_BUDGET:
            return (
                f"it may take the room of {_names(r.holders)}, but disruption budget {r.budget} keeps "
                f"{_count(r.cap, 'task', 'tasks')} running: {r.used} run, {r.tasks} would stop"
            )
        case ReasonCode.TAKES_FROM_NOBODY:
            return "it says itself that nobody is to be evicted or moved for it"
        case ReasonCode.NOTHING_TO_TAKE:
            return (
                f"no running work may be evicted for it: queue {r.queue} uses {used} of a fair share of {cap}"
                + _holders(r)
            )
        case ReasonCode.KEPT_FOR_OTHERS:
            return (
                f"it fits, but would delay {r.beneficiary}, for which room is kept from {moment(r.at)} on; "
                "with a walltime that ends by then it would start now"
            )
        case ReasonCode.ROOM_KEPT:
            return f"room is kept for it from {moment(r.at)} on, when {_names(r.holders)} should have ended"
        case ReasonCode.FEWER_MEMBERS:
            return f"{_count(r.fits, 'member', 'members')}{_of(r)} instead of {r.needed} would start now"
        case ReasonCode.FEWER_GROUPS:
            return f"{_count(r.fits, 'group', 'groups')} instead of {r.needed} would start now"
        case ReasonCode.FEWER_GPUS:
            return f"{free} a task{_of(r)} instead of {asked} would start now"
        case ReasonCode.RELAX_TOPOLOGY:
            return (
                f"without the required {r.level} it would start now"
                if not r.queue
                else f"a required {r.queue} instead of {r.level} would start now"
            )
        case ReasonCode.NODES_BACK:
            names = ", ".join(name for name, _ in r.holders)
            nodes = "this node" if len(r.holders) == 1 else f"these {len(r.holders)} nodes"
            return f"it would start if {nodes}, cordoned or not ready now, came back: {names}"
        case ReasonCode.RAISE_LIMIT:
            return f"a limit of {asked} instead of {cap} for queue {r.queue} would admit it"
        case ReasonCode.RAISE_QUOTA:
            return f"a quota of {asked} instead of {cap} for queue {r.queue} would admit it"
        case ReasonCode.DRAINING:
            nodes = _names(r.holders)
            return f"it waits since {moment(r.at)}, so nothing new starts on {nodes} that would be in its way"
        case ReasonCode.EXPECTED_START:
            return f"expected to start at {moment(r.at)}" + (f", after {_names(r.holders)}" if r.holders else "")
        case ReasonCode.NO_KNOWN_START:
            endless = _count(r.tasks, "running workload has no walltime", "running workloads have no walltime")
            return "nobody can say when it starts: no known end makes room for it" + (f"; {endless}" if r.tasks else "")
        case ReasonCode.ASSUMES_NO_ARRIVALS:
            return "nothing else is submitted, and no node fails"
        case ReasonCode.ASSUMES_WALLTIMES:
            return "work ends when its walltime is over, not earlier"
        case ReasonCode.ASSUMES_SPEEDS:
            return "on other GPU models work runs longer or shorter by the speeds that jobs give them"
        case ReasonCode.ASSUMES_ENDLESS:
            return (
                _count(r.tasks, "workload without a walltime keeps", "workloads without a walltime keep") + " running"
            )
        case ReasonCode.ASSUMES_STARTS_OVER:
            return _count(r.tasks, "workload is", "workloads are") + " evicted on the way and start over"
        case ReasonCode.OTHERS_LEAVE:
            names = ", ".join(name for name, _ in r.holders)
            return f"it would start if {_count(r.tasks, 'task', 'tasks')} left: {names}"
        case ReasonCode.RAISE_BORROWING_LIMIT:
            return f"a borrowing limit of {asked} instead of {cap} for queue {r.queue} would admit it"
        case ReasonCode.RAISE_LENDING_LIMIT:
            return f"a lending limit of {asked} instead of {cap} for queue {r.queue} would admit it"
        case ReasonCode.RESUME_QUEUE:
            return f"without the stop of queue {r.queue} it would start now"
        case ReasonCode.RAISE_USER_LIMIT:
            return f"a user limit of {asked} instead of {cap} for queue {r.queue} would admit it"
        case ReasonCode.ALLOW_PREEMPTION:
            return (
                f"were it preemptible, it would be admitted: such work may use more than the quota of queue {r.queue}"
            )
        case ReasonCode.RAISE_COUNTER:
            return f"{asked} in the cluster instead of {cap} would admit it"
        case ReasonCode.RELAX_ORDERING:
            return f"were queue {r.queue} not in strict order, it would start now"
