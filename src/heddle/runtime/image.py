"""What `image:` means in embedded mode: nothing, said aloud.

Embedded pods run as processes of this machine, with its programs and files. An image is ignored with a Warning
event, whether podman or docker is there or not: that the same manifest should run in a container on one laptop
and on the bare machine on the next would surprise more than it helps. Containers are what a cluster is for.
"""

from heddle.api.pod import Container


def image_warning(container: Container) -> str:
    """The warning that the container's image deserves, or an empty string."""
    if not container.image:
        return ""
    return (
        f"container {container.name}: image {container.image} is ignored: embedded heddle runs the command as a"
        " process of this machine; use a Kubernetes cluster to run images"
    )


def command_fault(container: Container) -> str:
    """Why the container cannot run as it is, or an empty string."""
    if container.command or container.args:
        return ""
    return f"container {container.name} has no command; embedded heddle ignores images, so set command"
