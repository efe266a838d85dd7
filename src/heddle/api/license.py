"""License: how many there are of something that no node has, such as a floating licence."""

from typing import Annotated

from msgspec import Meta, field

from heddle.api.meta import Kind, Struct
from heddle.api.queue import GROUP_VERSION

LICENSE_PREFIX = "licenses.heddle.dev/"
"""Before the name of a License it is the resource name with which pod sets and queues ask for it."""


class LicenseSpec(Struct):
    """How many may be in use at once."""

    count: Annotated[
        int, Meta(description="So many may be in use at once in the whole cluster.", ge=0, le=1_000_000_000)
    ] = 0


class License(Kind):
    """Something of which there is a number in the cluster and none on any node; pods hold it while they run."""

    API_VERSION = GROUP_VERSION
    KIND = "License"

    spec: LicenseSpec = field(default_factory=LicenseSpec)
