"""Environment, GPU visibility, limits, logs: the parts by themselves."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pods import World, pod

from heddle.api.core import ConfigMap, Secret
from heddle.api.meta import LocalObjectReference, ObjectMeta
from heddle.api.pod import (
    Container,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    FieldRef,
    KeySelector,
    ResourceRequirements,
)
from heddle.api.workload import DEVICES_ANNOTATION
from heddle.runtime import environment, limits, logs
from heddle.runtime.environment import NotReady, expand, resolve
from heddle.runtime.gpus import gpu_environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a$(B)c", "a1c"),
        ("$(NO)", "$(NO)"),
        ("$$(B)", "$(B)"),
        ("$B", "$B"),
        ("$(B)$(B)", "11"),
        ("$(B", "$(B"),
        ("cost $$5", "cost $5"),
    ],
)
def test_references_expand_as_in_kubernetes(text: str, expected: str) -> None:
    assert expand(text, {"B": "1"}) == expected


async def test_an_environment_is_put_together_in_order() -> None:
    world = World()
    world.config_maps["c"] = ConfigMap(metadata=ObjectMeta(name="c"), data={"X": "from", "RANK": "2"})
    world.secrets["s"] = Secret(metadata=ObjectMeta(name="s"), data={"k": base64.b64encode(b"hush").decode()})
    of = pod("true")
    of.metadata.labels = {"app": "train"}
    container = Container(
        name="main",
        env_from=[EnvFromSource(prefix="P_", config_map_ref=LocalObjectReference(name="c"))],
        env=[
            EnvVar(name="RANK", value_from=EnvVarSource(config_map_key_ref=KeySelector(name="c", key="RANK"))),
            EnvVar(name="SECRET", value_from=EnvVarSource(secret_key_ref=KeySelector(name="s", key="k"))),
            EnvVar(name="NAME", value_from=EnvVarSource(field_ref=FieldRef(field_path="metadata.name"))),
            EnvVar(name="APP", value_from=EnvVarSource(field_ref=FieldRef(field_path="metadata.labels['app']"))),
            EnvVar(name="MADE", value="$(RANK)-$(P_X)-$(LATER)"),
            EnvVar(name="LATER", value="x"),
            EnvVar(
                name="NONE",
                value_from=EnvVarSource(config_map_key_ref=KeySelector(name="c", key="no", optional=True)),
            ),
        ],
    )  # fmt: skip
    env = await resolve(of, container, world, {"PATH": "/bin", "AWS_SECRET": "no"})
    assert env == {
        "PATH": "/bin", "P_X": "from", "P_RANK": "2", "RANK": "2", "SECRET": "hush", "NAME": "p-u1", "APP": "train",
        "MADE": "2-from-$(LATER)", "LATER": "x", "CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (EnvVarSource(config_map_key_ref=KeySelector(name="no", key="k")), 'configmap "no" not found'),
        (EnvVarSource(config_map_key_ref=KeySelector(name="c", key="k")), 'key "k" not found in configmap "c"'),
        (EnvVarSource(secret_key_ref=KeySelector(name="no", key="k")), 'secret "no" not found'),
        (EnvVarSource(field_ref=FieldRef(field_path="spec.nope")), 'unsupported fieldPath "spec.nope"'),
    ],
)
async def test_what_is_missing_is_named(source: EnvVarSource, message: str) -> None:
    world = World()
    world.config_maps["c"] = ConfigMap(metadata=ObjectMeta(name="c"))
    with pytest.raises(NotReady) as error:
        await resolve(pod("x"), Container(name="m", env=[EnvVar(name="A", value_from=source)]), world, {})
    assert message in str(error.value)


def test_a_pod_sees_its_gpus_and_no_others() -> None:
    env = gpu_environment(pod("x", annotations={DEVICES_ANNOTATION: "GPU-a, GPU-b"}))
    assert env["CUDA_VISIBLE_DEVICES"] == env["NVIDIA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert gpu_environment(pod("x")) == {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}


def limited(**values: Any) -> Container:
    return Container(name="main", resources=ResourceRequirements(limits=values))


def test_a_cgroup_is_used_where_one_may_be_made(tmp_path: Path) -> None:
    held = limits.plan(limited(memory="1Gi", cpu="500m"), "u-main", base=tmp_path)
    assert held.cgroup == str(tmp_path / "heddle-u-main")
    assert (tmp_path / "heddle-u-main/memory.max").read_text() == str(1 << 30)
    assert (tmp_path / "heddle-u-main/cpu.max").read_text() == "50000 100000"
    assert "cgroup" in held.told


def test_without_a_cgroup_rlimits_hold_memory_roughly_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_base", lambda: None)
    held = limits.plan(limited(memory="1Gi", cpu=1), "u")
    assert held.rlimits == {"RLIMIT_DATA": 2 << 30}
    assert "RLIMIT_DATA" in held.told
    assert "CPU not at all" in held.told
    assert limits.plan(limited(), "u") == limits.Limits()


def test_a_delegated_cgroup_is_found(tmp_path: Path) -> None:
    base = tmp_path / "cg/user/app"
    (base / "scope").mkdir(parents=True)
    (tmp_path / "cg/cgroup.controllers").touch()
    (base / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (base / "cgroup.procs").touch()
    (tmp_path / "own").write_text("0::/user/app/scope\n")
    assert limits.writable_cgroup(tmp_path / "cg", tmp_path / "own") == base
    (base / "cgroup.subtree_control").write_text("pids\n")
    assert limits.writable_cgroup(tmp_path / "cg", tmp_path / "own") is None


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "main"
    directory.mkdir()
    (directory / "log.0.0").write_text("2026-01-01T00:00:00.000000000Z stdout F old\n")
    lines = [f"2026-01-01T00:00:0{n}.000000000Z stdout F line {n}\n" for n in range(6)]
    (directory / "log.1.3").write_text("".join(lines[:3]))
    (directory / "log.1.4").write_text("".join(lines[3:]) + "2026-01-01T00:00:06.000000000Z stderr P half\n")
    (directory / "exit.1.json").write_text("{}")
    return tmp_path


async def joined(lines: AsyncIterator[bytes]) -> str:
    return b"".join([line async for line in lines]).decode()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nhalf"),
        ({"follow": True}, "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nhalf"),
        ({"tail": 2}, "line 5\nhalf"),
        ({"tail": 0}, ""),
        ({"previous": True}, "old\n"),
        ({"limit_bytes": 10}, "line 0\nlin"),
        ({"since": 1767225605.0}, "line 5\nhalf"),
        ({"since": 1767225605.0, "timestamps": True},
         "2026-01-01T00:00:05.000000000Z line 5\n2026-01-01T00:00:06.000000000Z half"),
    ],
)  # fmt: skip
async def test_logs_are_read_over_rotated_files(log_dir: Path, options: dict[str, Any], expected: str) -> None:
    assert await joined(logs.read(log_dir, "main", **options)) == expected


async def test_logs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(logs.NoLogs, match="waiting to start"):
        await joined(logs.read(tmp_path, "main"))


def test_only_listed_variables_are_inherited() -> None:
    assert "PATH" in environment.INHERITED
    assert "CUDA_VISIBLE_DEVICES" not in environment.INHERITED
