"""What the controller may and may not do, asked of a real API server with kubectl."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from heddle.deploy import rights
from heddle.deploy.__main__ import DOCUMENTS
from heddle.deploy.rights import Question, Right

pytestmark = pytest.mark.kubernetes

ROOT = Path(__file__).parents[2]
FOREIGN = ("jobset.x-k8s.io", "kubeflow.org", "trainer.kubeflow.org", "ray.io", "leaderworkerset.x-k8s.io")
CONTROLLER = "system:serviceaccount:heddle-system:heddle-controller"


def can_i(plane: Any, question: Question, who: str = CONTROLLER) -> str:
    verb, resource, namespace = question
    where = ["-n", namespace] if namespace else ["--all-namespaces"]
    command = [str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig), "auth", "can-i", f"--as={who}", *where]
    parts = resource.split("/")
    asked = [verb, parts[0], *(["--subresource", parts[1]] if len(parts) > 1 else [])]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, check=False, timeout=60)
    # a misspelt resource would be refused too
    assert "doesn't have a resource type" not in done.stderr or resource == "users", done.stderr
    return done.stdout.split()[0]


def asked(given: Iterable[Right], namespace: str) -> list[Question]:
    """One question for each resource that the server has, with the last verb: the whole list is compared below."""
    found = []
    for right in given:
        if right.group in FOREIGN:
            continue
        for resource in right.resources:
            plural, _, subresource = resource.partition("/")
            named = f"{plural}.{right.group}" if right.group else plural
            found.append((right.verbs[-1], f"{named}/{subresource}" if subresource else named, namespace))
    return found


def test_the_controller_may_do_what_its_table_says(installed: Any) -> None:
    questions = asked(rights.CONTROLLER, "") + asked(rights.CONTROLLER_OWN, "heddle-system")
    assert [q for q in questions if can_i(installed, q) != "yes"] == []


def test_the_controller_is_refused_the_rest(installed: Any) -> None:
    assert [question for question, _ in rights.REFUSED if can_i(installed, question) != "no"] == []


def listed(plane: Any, namespace: str) -> set[tuple[str, str]]:
    """Every (resource, verb) that holds for the controller in a namespace, as `kubectl auth can-i --list` says."""
    command = [
        str(plane.kubectl),
        "--kubeconfig",
        str(plane.kubeconfig),
        "auth",
        "can-i",
        "--list",
        f"--as={CONTROLLER}",
    ]
    told = subprocess.run([*command, "-n", namespace], capture_output=True, text=True, check=True, timeout=60).stdout
    found = set()
    for line in told.splitlines()[1:]:
        resource, verbs = line.split()[0], re.search(r"\[([a-z ]*)\]\s*$", line)
        if verbs and not line.startswith(" "):  # lines that begin with a space are URLs, not resources
            found |= {(resource, verb) for verb in verbs[1].split()}
    return found


def described(*tables: Iterable[Right]) -> set[tuple[str, str]]:
    found = set()
    for table in tables:
        for right in table:
            for resource in right.resources:
                plural, _, subresource = resource.partition("/")
                named = (f"{plural}.{right.group}" if right.group else plural) + (
                    f"/{subresource}" if subresource else ""
                )
                found |= {(named, verb) for verb in right.verbs}
    return found


@pytest.mark.parametrize(
    ("namespace", "own"),
    [("default", ()), ("heddle-system", (*rights.CONTROLLER_OWN, *rights.ASKER))],
    ids=["elsewhere", "at-home"],
)
def test_the_controller_has_no_right_that_its_table_does_not_say(installed: Any, namespace: str, own: Any) -> None:
    # what every identity has: to ask who it is and what it may do
    everyone = {
        ("selfsubjectreviews.authentication.k8s.io", "create"),
        ("selfsubjectaccessreviews.authorization.k8s.io", "create"),
        ("selfsubjectrulesreviews.authorization.k8s.io", "create"),
    }
    assert listed(installed, namespace) - everyone == described(rights.CONTROLLER, own)


def test_no_right_is_a_wildcard_or_touches_secrets() -> None:
    for right in (
        *rights.CONTROLLER,
        *rights.CONTROLLER_OWN,
        *rights.VIEW,
        *rights.EDIT,
        *rights.QUEUE_READER,
        *rights.ASKER,
    ):
        assert not {"*"} & {right.group, *right.resources, *right.verbs}
        assert not [name for name in right.resources if name.startswith("secrets")]


def test_every_user_may_read_queues_and_write_none(installed: Any) -> None:
    assert can_i(installed, ("list", "queues.heddle.dev", ""), "carol") == "yes"
    assert can_i(installed, ("patch", "queues.heddle.dev", ""), "carol") == "no"
    assert can_i(installed, ("create", "services/proxy", "heddle-system"), "carol") == "no"  # of others than heddle's
    assert can_i(installed, ("create", "trainingjobs.heddle.dev", "default"), "carol") == "no"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_current(name: str) -> None:
    assert (ROOT / name).read_text() == DOCUMENTS[name](), "run `make chart`"
