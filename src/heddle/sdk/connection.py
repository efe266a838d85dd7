"""Which heddle (or cluster) to talk to, and how."""

import os
import ssl
from pathlib import Path
from typing import Any

import yaml

from heddle.api.errors import Unavailable
from heddle.embedded.places import Places
from heddle.store.kubernetes import KubernetesStore


def connect(kubeconfig: Path | None = None, context: str | None = None) -> KubernetesStore:
    """A store of the server that is meant: an explicit kubeconfig, else the embedded heddle, else $KUBECONFIG.

    Raises:
        Unavailable: nothing is up and no kubeconfig is given.
    """
    if kubeconfig is None and context is None:
        places = Places.default()
        if places.find():
            return _simple(places.kubeconfig)
        if not os.environ.get("KUBECONFIG"):
            raise Unavailable(f"no heddle is up in {places.root}; start one with: heddle up")
        kubeconfig = Path(os.environ["KUBECONFIG"])
    if kubeconfig is not None and not kubeconfig.exists():
        raise Unavailable(f"{kubeconfig}: no such kubeconfig")
    return KubernetesStore.from_config(kubeconfig, context)


def _simple(path: Path) -> KubernetesStore:
    """Our own kubeconfig needs none of the official client's machinery, which takes a second to import."""
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
    return KubernetesStore(cluster["server"], token=user["token"], ssl_context=tls)
