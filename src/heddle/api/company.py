"""Which other pods a set of pods must, or must not, run beside: Kubernetes' terms of pod affinity."""

from typing import Annotated

from msgspec import Meta

from heddle.api.meta import Struct
from heddle.api.selectors import Selector


class PodTerm(Struct):
    """Pods, and the label of nodes of which the value is to be theirs too, or is not: a term as Kubernetes has it."""

    topology_key: Annotated[
        str, Meta(description="Label of nodes; kubernetes.io/hostname: single nodes.", min_length=1, max_length=317)
    ]
    label_selector: Annotated[
        Selector | None, Meta(description="The pods, by their labels. Empty: all; absent: nobody.")
    ] = None
    namespaces: Annotated[
        list[str], Meta(description="Where they are. None, and no namespaceSelector: in its own.", max_length=64)
    ] = []
    namespace_selector: Annotated[
        Selector | None, Meta(description="Namespaces by their labels, beside those named. Empty: all.")
    ] = None
    match_label_keys: Annotated[
        list[str], Meta(description="Labels of which they have the same value as the pod itself.", max_length=16)
    ] = []
    mismatch_label_keys: Annotated[
        list[str], Meta(description="Labels of which they have another value.", max_length=16)
    ] = []


class Company(Struct):
    """What is demanded of the pods around."""

    required: Annotated[list[PodTerm], Meta(description="All of these must hold.", max_length=16)] = []
