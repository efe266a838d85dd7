"""Whom pods must, should, or must not, run beside: affinity, spread constraints and claims, as the engine takes them.

A crowd is the pods that one rule of some pod selects, by namespace and labels. Crowds are known for as long as some pod
has a rule about them; without any, pods are not looked at.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

from heddle.api.company import PodTerm
from heddle.api.core import Namespace
from heddle.api.pod import Pod, PodAffinityTerm, TopologySpreadConstraint
from heddle.api.selectors import LabelSelector, Selector
from heddle.control.grouping.requests import claims_of
from heddle.engine import Apart, Even, Liked, Near, Neighbours

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""Label that every namespace has: its name."""


@dataclass(frozen=True)
class _Part:
    """Pods with some labels in some namespaces."""

    selector: LabelSelector
    namespaces: frozenset[str]
    spaces: LabelSelector | None
    """Namespaces by their labels, beside those named."""

    @property
    def text(self) -> str:
        pods = f"pods with {self.selector.text}" if self.selector.terms else "pods"
        where = [f"namespace {name}" for name in sorted(self.namespaces)]
        if self.spaces is not None:
            where.append(f"namespaces with {self.spaces.text}" if self.spaces.terms else "any namespace")
        return f"{pods} of {' or '.join(where)}"

    @property
    def places(self) -> list[tuple[str, str, str]]:
        spaces = sorted(self.namespaces) if self.spaces is None else [""]
        return [(space, *anchor) for space in spaces for anchor in self.selector.anchors or [("", "")]]

    def matches(self, pod: Pod, spaces: Mapping[str, Namespace]) -> bool:
        name = pod.metadata.namespace
        if name not in self.namespaces:
            if self.spaces is None:
                return False
            space = spaces.get(name)
            if not self.spaces.matches(space.metadata.labels if space else {NAMESPACE_NAME: name}):
                return False
        return self.selector.matches(pod.metadata.labels)


@dataclass(frozen=True)
class _Users:
    """Pods that use a volume."""

    claim: str
    """`namespace/name`."""
    spaces = None

    @property
    def text(self) -> str:
        space, _, name = self.claim.partition("/")
        return f"pods that use claim {name} of namespace {space}"

    @property
    def places(self) -> list[tuple[str, str, str]]:
        space, _, name = self.claim.partition("/")
        return [(space, _CLAIM, name)]

    def matches(self, pod: Pod, spaces: Mapping[str, Namespace]) -> bool:
        return any(claim == self.claim for _, claim in claims_of(pod))


_CLAIM = "/claim"
"""Stands for a label under which pods are looked up; no label can have this name."""


@dataclass(frozen=True)
class Crowd:
    """The pods that all of some demands select."""

    parts: tuple[_Part, ...] | tuple[_Users]

    @cached_property
    def name(self) -> str:
        """In words; equal for crowds of equal demands."""
        return " and ".join(sorted({part.text for part in self.parts}))

    def matches(self, pod: Pod, spaces: Mapping[str, Namespace]) -> bool:
        """Whether a pod is of it."""
        return all(part.matches(pod, spaces) for part in self.parts)

    @property
    def places(self) -> list[tuple[str, str, str]]:
        """(namespace, label, value) under which it is looked up; "" = any."""
        return self.parts[0].places


@dataclass(frozen=True)
class _Rules:
    """What one pod demands, and the crowds that this is about, by name."""

    near: Near | None
    apart: tuple[Apart, ...]
    even: tuple[Even, ...]
    liked: tuple[Liked, ...]
    evened: tuple[Even, ...]
    crowds: dict[str, Crowd]


_NONE = _Rules(None, (), (), (), (), {})


class Neighbourhood:
    """The crowds of a cluster."""

    def __init__(
        self,
        scheduler: str,
        spaces: Mapping[str, Namespace] | None = None,
        single: Callable[[str], bool] = lambda claim: False,
    ) -> None:
        """Know nobody yet.

        Args:
            scheduler: name by which pods ask for heddle; others only keep those away whom they may not be with.
            spaces: the cluster's namespaces, by name.
            single: whether one pod at a time may use a claim (`namespace/name`) to a volume.
        """
        self._scheduler, self._single = scheduler, single
        self._spaces = spaces if spaces is not None else {}
        self._rules: dict[tuple[str, str], _Rules] = {}
        self._users: Counter[str] = Counter()
        self._crowds: dict[tuple[str, str, str], dict[str, Crowd]] = {}
        self._fresh: set[str] = set()
        self._by_space_labels = 0

    @property
    def by_labels(self) -> bool:
        """Whether anybody goes by the labels of namespaces."""
        return self._by_space_labels > 0

    def news(self) -> set[str]:
        """Crowds that there were not when this was last asked: pods may be of more than they were."""
        fresh, self._fresh = self._fresh, set()
        return fresh

    def within(self, crowds: Set[str], pod: Pod) -> bool:
        """Whether a pod is of one of these crowds."""
        return not crowds.isdisjoint(self._of(pod))

    def learn(self, pod: Pod, near: Sequence[PodTerm] = (), apart: Sequence[PodTerm] = ()) -> None:
        """A pod is there, or has changed; `near` and `apart` are demanded for it beside what it says itself."""
        identity = (pod.metadata.namespace, pod.metadata.name)
        rules = _NONE if pod.finished else self._read(pod, near, apart)
        if rules is _NONE and identity not in self._rules:
            return
        for name, crowd in rules.crowds.items():
            self._users[name] += 1
            if self._users[name] == 1:
                self._fresh.add(name)
                self._by_space_labels += any(part.spaces is not None for part in crowd.parts)
                for place in crowd.places:
                    self._crowds.setdefault(place, {})[name] = crowd
        self.forget(pod)
        if rules is not _NONE:
            self._rules[identity] = rules

    def forget(self, pod: Pod) -> None:
        """A pod is gone."""
        for name, crowd in self._rules.pop((pod.metadata.namespace, pod.metadata.name), _NONE).crowds.items():
            self._users[name] -= 1
            if self._users[name]:
                continue
            del self._users[name]
            self._by_space_labels -= any(part.spaces is not None for part in crowd.parts)
            for place in crowd.places:
                del self._crowds[place][name]
                if not self._crowds[place]:
                    del self._crowds[place]

    def of(self, pod: Pod) -> Neighbours | None:
        """Whom a pod must, or must not, run beside, and of which crowds it is itself; None = none of this."""
        rules = self._rules.get((pod.metadata.namespace, pod.metadata.name), _NONE)
        crowds = self._of(pod) if self._crowds else ()
        if rules is _NONE and not crowds:
            return None
        return Neighbours(crowds, rules.near, rules.apart, rules.even, rules.liked, rules.evened)

    def _of(self, pod: Pod) -> tuple[str, ...]:
        found: dict[str, Crowd] = {}
        claims = [(_CLAIM, claim.partition("/")[2]) for _, claim in claims_of(pod)]
        for space in (pod.metadata.namespace, ""):
            for label in (("", ""), *pod.metadata.labels.items(), *claims):
                found |= self._crowds.get((space, *label), {})
        return tuple(sorted(name for name, crowd in found.items() if crowd.matches(pod, self._spaces)))

    # -- what a pod says ---------------------------------------------------------------------------

    def _read(self, pod: Pod, beside: Sequence[PodTerm], away: Sequence[PodTerm]) -> _Rules:
        spec = pod.spec
        ours = spec.scheduler_name == self._scheduler
        single = dict.fromkeys(claim for _, claim in claims_of(pod) if self._single(claim))
        silent = not (spec.affinity or spec.topology_spread_constraints or single or beside or away)
        if silent or not (ours or spec.node_name):
            return _NONE
        crowds: dict[str, Crowd] = {}

        def known(crowd: Crowd) -> str:
            crowds[crowd.name] = crowd
            return crowd.name

        wish = spec.affinity
        shunned = wish.pod_anti_affinity if wish else None
        apart = tuple(
            Apart(term.topology_key, known(Crowd((part,))))
            for term in (*(shunned.required_during_scheduling_ignored_during_execution if shunned else ()), *away)
            if (part := _part(pod, term)) is not None
        )
        apart += tuple(Apart("", known(Crowd((_Users(claim),)))) for claim in single)
        near: Near | None = None
        sought = wish.pod_affinity if wish else None
        terms = (*(sought.required_during_scheduling_ignored_during_execution if sought else ()), *beside)
        if ours and terms:
            parts = [_part(pod, term) for term in terms]
            # a pod counts if it is what all terms ask for; a term without a selector selects nobody
            selected = tuple(part for part in parts if part is not None)
            crowd = known(Crowd(selected)) if len(selected) == len(parts) else NOBODY
            near = Near(tuple(dict.fromkeys(term.topology_key for term in terms)), crowd)
        wishes = [(sought, 1), (shunned, -1)] if ours else []
        liked = tuple(
            Liked(better.pod_affinity_term.topology_key, known(Crowd((part,))), sign * better.weight)
            for side, sign in wishes
            for better in (side.preferred_during_scheduling_ignored_during_execution if side else ())
            if (part := _part(pod, better.pod_affinity_term)) is not None
        )
        even: list[Even] = []
        evened: list[Even] = []
        for rule in spec.topology_spread_constraints if ours else ():
            part = _spread(pod, rule)
            soft = rule.when_unsatisfiable == "ScheduleAnyway"
            if soft and part is None:
                continue
            (evened if soft else even).append(
                Even(
                    rule.topology_key,
                    known(Crowd((part,))) if part is not None else "",
                    rule.max_skew,
                    rule.min_domains or 1,
                    admitted=rule.node_affinity_policy != "Ignore",
                    tolerated=rule.node_taints_policy == "Honor",
                )
            )
        if not (near or apart or even or liked or evened):
            return _NONE
        return _Rules(near, apart, tuple(even), liked, tuple(evened), crowds)


NOBODY = "pods that no selector names"
"""The crowd of a term without a selector."""


def _part(pod: Pod, term: PodAffinityTerm | PodTerm) -> _Part | None:
    """The pods of a term of affinity; None = nobody."""
    if term.label_selector is None:
        return None
    keys = [(key, "In") for key in term.match_label_keys] + [(key, "NotIn") for key in term.mismatch_label_keys]
    selector = _with_own(term.label_selector, pod, keys)
    named = frozenset(term.namespaces)
    spaces = term.namespace_selector.parsed() if term.namespace_selector is not None else None
    if spaces is None and not named:
        named = frozenset({pod.metadata.namespace})
    return _Part(selector, named, spaces)


def _spread(pod: Pod, rule: TopologySpreadConstraint) -> _Part | None:
    """The pods that a spread constraint counts; None = nobody: a selector without demands counts none, unlike one of
    affinity."""
    if rule.label_selector is None:
        return None
    selector = _with_own(rule.label_selector, pod, [(key, "In") for key in rule.match_label_keys])
    return _Part(selector, frozenset({pod.metadata.namespace}), None) if selector.terms else None


def _with_own(selector: Selector, pod: Pod, keys: Iterable[tuple[str, str]]) -> LabelSelector:
    """A selector that also asks for (or shuns) the pod's own values of some labels, those that it has."""
    labels = pod.metadata.labels
    own = LabelSelector.of((key, operator, [labels[key]]) for key, operator in keys if key in labels)
    return LabelSelector((*selector.parsed().terms, *own.terms))
