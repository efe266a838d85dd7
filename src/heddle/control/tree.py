"""The queue tree as objects state it: which queues are in order, and why the others are not."""

from collections.abc import Mapping


def faults(parents: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Condition reason and message of every queue that cannot work; queues in order are absent.

    Args:
        parents: queue name to the name of its parent ("" at a root).
    """
    found: dict[str, tuple[str, str]] = {}
    for name in parents:
        path = [name]
        while parent := parents[path[-1]]:
            if parent not in parents:
                text = f"parent queue {parent!r} does not exist; create it, or change spec.parent"
                if path[-1] != name:
                    text = f"parent queue {parent!r} of {path[-1]!r} above does not exist"
                found[name] = ("ParentNotFound", text)
                break
            if parent in path:
                loop = " -> ".join([*path[path.index(parent) :], parent])
                found[name] = ("Cycle", f"parents form a cycle: {loop}; change spec.parent of one of them")
                break
            path.append(parent)
    return found
