"""As whom programs of a pod run, and what they may: the subset of core/v1 that heddle writes, and what a job says."""

from typing import Annotated

from msgspec import Meta, field

from heddle.api.meta import Struct

Id = Annotated[int, Meta(ge=0, le=2_147_483_647)]


class RunAs(Struct):
    """As whom the programs of a job run, on a cluster. Whoever is not root gets no way to become it, either."""

    run_as_user: Annotated[Id | None, Meta(description="User. Absent: the image's.")] = None
    run_as_group: Annotated[Id | None, Meta(description="Group. Absent: the image's.")] = None
    fs_group: Annotated[Id | None, Meta(description="Group that owns the volumes, where they can be owned.")] = None
    run_as_non_root: Annotated[
        bool | None, Meta(description="true: an image that would run as root is refused. Absent: as runAsUser says.")
    ] = None

    @property
    def root_is_out(self) -> bool:
        """Whether the programs cannot be root."""
        return self.run_as_non_root is True or bool(self.run_as_user)


class SeccompProfile(Struct):
    """Which system calls there are."""

    type: str = ""


class PodSecurityContext(Struct):
    """As whom all containers of a pod run."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    fs_group: int | None = None
    run_as_non_root: bool | None = None
    seccomp_profile: SeccompProfile | None = None


class Capabilities(Struct):
    """Rights of root, one by one."""

    drop: list[str] = []


class SecurityContext(Struct):
    """What a container may."""

    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities = field(default_factory=Capabilities)
