"""The environment of a container, resolved as the kubelet does it.

Order, later wins: what is inherited from heddle, `envFrom`, `env`, GPU visibility. `$(VAR)` in values and in the
command refers to variables set before it; `$$(VAR)` is the literal text; an unknown reference stays as it is.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping

from heddle.api.pod import Container, EnvVar, EnvVarSource, KeySelector, Pod
from heddle.runtime.gpus import gpu_environment
from heddle.runtime.ports import References

INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "CONDA_PREFIX", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE",
)  # fmt: skip
"""What a program takes over from heddle's own environment; everything else stays out."""

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['([^']*)'\]$")


class NotReady(Exception):
    """The environment cannot be made yet: CreateContainerConfigError. Tried again when references change."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """Text with `$(VAR)` replaced from `env`."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return env.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def field(pod: Pod, path: str) -> str:
    """The pod's field that a fieldRef names.

    Raises:
        NotReady: no such field is offered.
    """
    if match := _SUBSCRIPT.match(path):
        source = pod.metadata.labels if match[1] == "labels" else pod.metadata.annotations
        return source.get(match[2], "")
    known = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
        "spec.nodeName": pod.spec.node_name,
        "status.podIP": pod.status.pod_ip or "127.0.0.1",
        "status.hostIP": pod.status.host_ip or "127.0.0.1",
    }
    if path not in known:
        raise NotReady(f'unsupported fieldPath "{path}"; use one of {", ".join(known)}')
    return known[path]


async def _config_data(references: References, namespace: str, name: str) -> dict[str, str] | None:
    found = await references.config_map(namespace, name)
    return None if found is None else found.data


async def _secret_data(references: References, namespace: str, name: str) -> dict[str, str] | None:
    found = await references.secret(namespace, name)
    if found is None:
        return None
    try:
        decoded = {key: base64.b64decode(text).decode() for key, text in found.data.items()}
    except (binascii.Error, UnicodeDecodeError) as error:
        raise NotReady(f'secret "{name}" holds a value that is no text in base64: {error}') from None
    return decoded | found.string_data


def _pick(data: dict[str, str] | None, what: str, selector: KeySelector) -> str | None:
    if data is None:
        if selector.optional:
            return None
        raise NotReady(f'{what} "{selector.name}" not found')
    if selector.key not in data:
        if selector.optional:
            return None
        raise NotReady(f'key "{selector.key}" not found in {what} "{selector.name}"')
    return data[selector.key]


async def _from_source(pod: Pod, source: EnvVarSource, references: References) -> str | None:
    namespace = pod.metadata.namespace
    if (key := source.config_map_key_ref) is not None:
        return _pick(await _config_data(references, namespace, key.name), "configmap", key)
    if (key := source.secret_key_ref) is not None:
        return _pick(await _secret_data(references, namespace, key.name), "secret", key)
    if source.field_ref is not None:
        return field(pod, source.field_ref.field_path)
    return ""


async def _value(pod: Pod, variable: EnvVar, env: Mapping[str, str], references: References) -> str | None:
    if variable.value_from is not None:
        return await _from_source(pod, variable.value_from, references)
    return expand(variable.value, env)


async def resolve(
    pod: Pod, container: Container, references: References, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a container.

    Args:
        pod: Whose container it is.
        container: Names the variables.
        references: Looks up ConfigMaps and Secrets.
        inherited: Where INHERITED is taken from; heddle's own environment by default.

    Raises:
        NotReady: something that is not optional is missing.
    """
    base = os.environ if inherited is None else inherited
    env = {name: base[name] for name in INHERITED if name in base}
    namespace = pod.metadata.namespace
    for source in container.env_from:
        if source.config_map_ref is not None:
            what, name = "configmap", source.config_map_ref.name
            data = await _config_data(references, namespace, name)
        elif source.secret_ref is not None:
            what, name = "secret", source.secret_ref.name
            data = await _secret_data(references, namespace, name)
        else:
            continue
        if data is None:
            raise NotReady(f'{what} "{name}" not found')
        env.update({source.prefix + key: text for key, text in data.items()})
    for variable in container.env:
        value = await _value(pod, variable, env, references)
        if value is not None:
            env[variable.name] = value
    env.update(gpu_environment(pod))
    return env
