"""How many free volumes each node has for claims of a form, where volumes are made beforehand and lie on a node.

A plan counts them: nodes have as many as there are, those that are not free are held there by nobody's pod, and a pod
asks for one for each claim that has none yet. Volumes that fit claims of several forms count for each of them, so that
a plan may still promise one twice; it is then seen when volumes are given (`heddle.control.scheduling.claims`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from heddle.api.core import Node
from heddle.api.volumes import PersistentVolume, PersistentVolumeClaim
from heddle.control.grouping import matching

HOSTNAME = "kubernetes.io/hostname"
RESOURCE = "free volumes of "
"""Before a class and a form it is a resource of a node (no resource of Kubernetes can have this name)."""
_MOST_FORMS = 64
"""Forms of claims that are counted, each costs a number for each node."""


class Disks:
    """The volumes of a cluster that lie on a node each."""

    def __init__(self, nodes: Mapping[str, Node] | None = None) -> None:
        """Know nodes by name; the mapping is followed. Of changes this must be told, too."""
        self._nodes = nodes if nodes is not None else {}
        self._at: dict[str, dict[str, PersistentVolume]] = defaultdict(dict)  # by the value of HOSTNAME
        self._named: dict[str, set[str]] = defaultdict(set)  # nodes by their value of HOSTNAME
        self._elsewhere: Counter[str] = Counter()  # class -> free volumes that do not lie on one node
        self._forms: dict[str, PersistentVolumeClaim] = {}

    # -- what changes ------------------------------------------------------------------------------

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """A node came, changed or went."""
        before, after = (node.metadata.labels.get(HOSTNAME, "") if node is not None else "" for node in (old, new))
        if before != after:
            if old is not None:
                self._named[before].discard(old.metadata.name)
            if new is not None:
                self._named[after].add(new.metadata.name)

    def volume_changed(self, old: PersistentVolume | None, new: PersistentVolume | None) -> set[str]:
        """A volume came, changed or went; returns the nodes that have others now."""
        touched: set[str] = set()
        for volume, sign in ((old, -1), (new, 1)):
            if volume is None:
                continue
            if host := _host(volume):
                touched.update(self._named.get(host, ()))
                if sign > 0:
                    self._at[host][volume.metadata.name] = volume
                else:
                    self._at[host].pop(volume.metadata.name, None)
            elif _is_free(volume):
                self._elsewhere[volume.storage_class] += sign
        return touched

    def learn(self, claim: PersistentVolumeClaim) -> set[str]:
        """There is a claim that asks for such a volume; returns the nodes of which more is to be told by that."""
        name = _form(claim)
        if name in self._forms or len(self._forms) >= _MOST_FORMS:
            return set()
        self._forms[name] = claim
        hosts = (host for host, here in self._at.items() if any(matching.suits(v, claim) for v in here.values()))
        return {node for host in hosts for node in self._named.get(host, ())}

    # -- what is planned with ----------------------------------------------------------------------

    def asked(self, claims: Iterable[PersistentVolumeClaim]) -> dict[str, int]:
        """What claims without a volume ask of a node, as resources."""
        forms = Counter(_form(claim) for claim in claims if not self._elsewhere[claim.storage_class])
        return {name: count for name, count in forms.items() if name in self._forms}

    def there(self, node: str) -> dict[str, int]:
        """How many volumes lie on a node, free or not, as resources."""
        return self._count(node, free=True) | self._count(node)

    def held(self, node: str) -> dict[str, int]:
        """How many of them are not free."""
        free = self._count(node, free=True)
        return {name: rest for name, count in self._count(node).items() if (rest := count - free.get(name, 0))}

    def _count(self, node: str, *, free: bool = False) -> dict[str, int]:
        found = self._nodes.get(node)
        host = found.metadata.labels.get(HOSTNAME, "") if found is not None and self._forms else ""
        here = [volume for volume in self._at.get(host, {}).values() if not free or _is_free(volume)] if host else []
        counts = {name: sum(matching.suits(volume, claim) for volume in here) for name, claim in self._forms.items()}
        return {name: count for name, count in counts.items() if count}


def _form(claim: PersistentVolumeClaim) -> str:
    """What decides which volumes fit, as the name of a resource."""
    spec = claim.spec
    parts = [str(matching.size_of(claim)), spec.volume_mode, *sorted(spec.access_modes)]
    parts += [spec.volume_attributes_class_name] if spec.volume_attributes_class_name else []
    parts += [repr(spec.selector)] if spec.selector is not None else []
    return f"{RESOURCE}{claim.storage_class} ({' '.join(parts)})"


def _is_free(volume: PersistentVolume) -> bool:
    return volume.spec.claim_ref is None and volume.status.phase == "Available"


def _host(volume: PersistentVolume) -> str:
    """The value of HOSTNAME of the nodes that reach a volume; "" where it is not just that which says it."""
    terms = matching.reached_from(volume)
    if terms is None or len(terms) != 1 or terms[0].match_fields or len(terms[0].match_expressions) != 1:
        return ""
    (demand,) = terms[0].match_expressions
    return demand.values[0] if (demand.key, demand.operator) == (HOSTNAME, "In") and len(demand.values) == 1 else ""
