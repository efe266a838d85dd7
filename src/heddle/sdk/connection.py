"""Which heddle (or cluster) to talk to, and how."""

import os
import ssl
from pathlib import Path
from typing import Any

import yaml

from heddle.api.errors import Unavailable
from heddle.embedded.places import Places
from heddle.store.kubernetes import KubernetesStore


class ClusterStore(KubernetesStore):
    """The store of a kubeconfig's server, which also knows the token that it is sent."""

    def __init__(self, server: str, *, token: str = "", headers: dict[str, str] | None = None, **options: Any) -> None:
        """See `KubernetesStore`."""
        scheme, _, sent = (headers or {}).get("Authorization", "").partition(" ")
        self.token = token or (sent.strip() if scheme.lower() == "bearer" else "")
        """Empty where the user has a client certificate instead."""
        super().__init__(server, token=token, headers=headers, **options)


def connect(kubeconfig: Path | None = None, context: str | None = None) -> KubernetesStore:
    """A store of the server that is meant: an explicit kubeconfig, else $KUBECONFIG, else the embedded heddle.

    A context without a kubeconfig is one of $KUBECONFIG, or of ~/.kube/config.

    Raises:
        Unavailable: nothing is up and no kubeconfig is given, or it cannot be used.
    """
    places = Places.default()
    chosen = str(kubeconfig) if kubeconfig is not None else os.environ.get("KUBECONFIG", "")
    if not chosen and context is None:
        if not places.find():
            raise Unavailable(f"no heddle is up in {places.root}; start one with: heddle up")
        chosen = str(places.kubeconfig)
    files = [Path(part).expanduser() for part in chosen.split(os.pathsep) if part]
    if files and not any(file.exists() for file in files):
        source = "" if kubeconfig is not None or "KUBECONFIG" not in os.environ else " (from $KUBECONFIG)"
        raise Unavailable(f"{chosen}: no such kubeconfig{source}")
    if context is None and len(files) == 1 and _same(files[0], places.kubeconfig):
        return _simple(files[0])
    try:
        return ClusterStore.from_config(os.pathsep.join(map(str, files)) or None, context)
    except Exception as error:
        if type(error).__name__ == "ConfigException":  # of a library that only this path imports
            raise Unavailable(f"{chosen or '~/.kube/config'}: {error}") from None
        raise


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _simple(path: Path) -> KubernetesStore:
    """Our own kubeconfig needs none of the official client's machinery, which takes a second to import."""
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
    return KubernetesStore(cluster["server"], token=user["token"], ssl_context=tls)
