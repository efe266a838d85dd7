"""Names of workloads that an asker may not read."""

import pytest

from heddle.control.grouping.groups import ALONE
from heddle.control.redaction import HIDDEN, namespaces, redacted, told_in
from heddle.engine import Reason, ReasonCode, render

HOLDERS = (("a/big", 8000), (f"b/{ALONE}train-0.x", 4000), ("c-1/job", 1000))


def test_names_of_other_namespaces_are_left_out_and_the_rest_of_the_sentence_stays() -> None:
    text = render(Reason(ReasonCode.OVER_LIMIT, queue="q", resource="nvidia.com/gpu", holders=HOLDERS, wanted=1000))
    assert namespaces({"reasons": [{"message": text}]}) == {"a", "b", "c-1"}
    told = redacted({"reasons": [{"message": text}]}, {"a"})["reasons"][0]["message"]
    assert told == text.replace("b/(pod) train-0.x", HIDDEN).replace("c-1/job", HIDDEN)
    assert "a/big" in told


@pytest.mark.parametrize("code", list(ReasonCode))
def test_no_sentence_of_the_engine_keeps_a_name(code: ReasonCode) -> None:
    reason = Reason(
        code, queue="q", resource="nvidia.com/gpu", level="example.com/rack", beneficiary="x/secret-1",
        holders=(("x/secret-2", 1000), (f"x/{ALONE}secret-3", 1000)), head="x/secret-4", budget="x/secret-5",
        wanted=1000, tasks=1, fits=1, needed=2,
    )  # fmt: skip
    text = render(reason)
    assert "secret" not in redacted(text, ())
    assert redacted(text, {"x"}) == text


@pytest.mark.parametrize(
    "text", ["nvidia.com/gpu", "no single topology.kubernetes.io/zone has room", "4 licenses.heddle.dev/matlab", ""]
)
def test_resources_and_levels_are_no_names(text: str) -> None:
    assert namespaces(text) == set()
    assert redacted(text, ()) == text


def test_names_in_lists_are_left_out_too() -> None:
    assert redacted({"started": ["a/x", "b/y"], "nodes": {"n": 1}}, {"b"}) == {
        "started": [HIDDEN, "b/y"], "nodes": {"n": 1}
    }  # fmt: skip


def test_what_everybody_in_a_namespace_reads_names_workloads_of_no_other() -> None:
    text = "no topology/rack has room; held by a/train (4 GPUs), b/(pod) serve (2 GPUs)"
    hidden = f"no topology/rack has room; held by a/train (4 GPUs), {HIDDEN} (2 GPUs)"
    assert told_in(text, "a", {"a", "b"}) == hidden
    assert told_in(text, "a", {"a"}) == text, "b is no namespace with workloads"
