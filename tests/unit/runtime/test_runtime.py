"""Pods as processes: phases, restarts, stops, adoption."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest
from pods import QUICK, World, alive, eventually, pod, python, shell, start, text

from heddle.api.core import ConfigMap
from heddle.api.meta import ObjectMeta
from heddle.api.pod import Container, EnvVar, EnvVarSource, KeySelector, Pod
from heddle.runtime import process
from heddle.runtime.container import RESTART_GENERATION
from heddle.runtime.runtime import LocalRuntime


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def runtime(tmp_path: Path, world: World) -> AsyncIterator[LocalRuntime]:
    made = start(tmp_path, world)
    await made.adopt()
    yield made
    for uid in list(made.pods):
        await made.remove(uid)
    await made.close()


def deleted(of: Pod, grace: int | None = None) -> Pod:
    meta = msgspec.structs.replace(
        of.metadata, deletion_timestamp="2026-01-01T00:00:00Z", deletion_grace_period_seconds=grace
    )
    return msgspec.structs.replace(of, metadata=meta)


def annotated(of: Pod, **annotations: str) -> Pod:
    meta = msgspec.structs.replace(of.metadata, annotations=annotations)
    return msgspec.structs.replace(of, metadata=meta)


def bumped(of: Pod, to: str) -> Pod:
    return annotated(of, **{RESTART_GENERATION: to})


async def test_a_pod_that_exits_zero_succeeds(runtime: LocalRuntime, world: World) -> None:
    await runtime.sync(shell("echo hello; echo oops >&2"))
    status = await world.phase("Succeeded")
    ended = status.container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (0, "Completed")
    assert sorted((await text(runtime)).split()) == ["hello", "oops"]
    assert any(s.phase == "Pending" for s in world.statuses["u1"])
    ready = next(c for c in status.conditions if c.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "PodCompleted")


async def test_a_pod_that_fails_keeps_its_code(runtime: LocalRuntime, world: World) -> None:
    await runtime.sync(shell("exit 7"))
    status = await world.phase("Failed")
    ended = status.container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (7, "Error")


async def test_a_command_that_does_not_exist_is_a_start_error(runtime: LocalRuntime, world: World) -> None:
    await runtime.sync(pod("no-such-program"))
    ended = (await world.phase("Failed")).container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert ended.message == 'exec "no-such-program": executable file not found in $PATH'


async def test_a_running_pod_is_ready_and_stops_gracefully(runtime: LocalRuntime, world: World) -> None:
    running = python(
        "import signal,sys,time\nsignal.signal(15,lambda *_:sys.exit(3))\nprint('up',flush=True)\nwhile 1:time.sleep(9)"
    )
    await runtime.sync(running)
    status = await world.phase("Running")
    assert status.container_statuses[0].ready
    assert next(c for c in status.conditions if c.type == "Ready").status == "True"
    async for line in runtime.read_logs("u1", follow=True):
        assert line == b"up\n"
        break
    await runtime.sync(deleted(running))
    await world.until(lambda: world.gone == ["u1"], "gone")
    ended = world.last().container_statuses[0].state.terminated
    assert ended is not None
    assert ended.exit_code == 3


async def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace(runtime: LocalRuntime, world: World) -> None:
    stubborn = shell("trap '' TERM; echo up; while :; do sleep 0.05; done")
    await runtime.sync(stubborn)
    async for _ in _follow(runtime, world):
        break
    await runtime.sync(deleted(stubborn, 1))
    await world.until(lambda: world.gone == ["u1"], "gone")
    ended = world.last().container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.signal) == (137, 9)


async def _follow(runtime: LocalRuntime, world: World, uid: str = "u1") -> AsyncIterator[bytes]:
    await world.phase("Running", uid)
    async for line in runtime.read_logs(uid, follow=True):
        yield line


async def test_failing_containers_back_off(runtime: LocalRuntime, world: World) -> None:
    await runtime.sync(shell("exit 1", policy="OnFailure"))
    await world.until(
        lambda: any(
            (w := s.container_statuses[0].state.waiting) is not None and w.reason == "CrashLoopBackOff"
            for s in world.statuses.get("u1", [])
        ),
        "back-off",
    )
    assert world.last().phase == "Running"
    await world.until(lambda: world.last().container_statuses[0].restart_count >= 2, "restarts")
    last = world.last().container_statuses[0].last_state.terminated
    assert last is not None
    assert last.exit_code == 1


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
@pytest.mark.parametrize("code", [0, 3])
async def test_a_new_restart_generation_is_no_failure(
    runtime: LocalRuntime, world: World, policy: str, code: int
) -> None:
    wanted = shell(f"trap 'exit {code}' TERM; echo run; while :; do sleep 0.02; done", policy=policy)
    await runtime.sync(wanted)
    await world.phase("Running")
    assert await anext(_follow(runtime, world)) == b"run\n"
    first = process.decode_json(runtime.root / "u1/main/started.0.json")["pid"]
    await runtime.sync(bumped(wanted, "2"))
    await eventually(lambda: (runtime.root / "u1/main/started.1.json").exists(), "second run")
    assert not alive(first)
    await world.until(lambda: world.last().container_statuses[0].state.running is not None, "running again")
    await eventually(lambda: (runtime.root / "u1/main/log.1.0").exists(), "second log")
    assert world.last().container_statuses[0].restart_count == 0
    assert (await text(runtime, previous=True)).startswith("run\n")
    assert not {status.phase for status in world.statuses["u1"]} & {"Failed", "Succeeded"}


async def test_a_new_restart_generation_cuts_the_back_off(tmp_path: Path, world: World) -> None:
    runtime = start(tmp_path, world, msgspec_free(back_off=1000.0))
    await runtime.adopt()
    wanted = shell(
        'test -e "$HEDDLE_FLAG" && exec sleep 60; exit 1',
        policy="OnFailure",
        env=[EnvVar(name="HEDDLE_FLAG", value=str(tmp_path / "flag"))],
    )
    await runtime.sync(wanted)
    await world.until(
        lambda: (
            world.last().container_statuses
            and (w := world.last().container_statuses[0].state.waiting) is not None
            and w.reason == "CrashLoopBackOff"
        ),
        "back-off",
    )
    (tmp_path / "flag").touch()
    before = world.last().container_statuses[0].restart_count
    await runtime.sync(bumped(wanted, "2"))
    await world.until(lambda: world.last().container_statuses[0].state.running is not None, "running")
    assert world.last().container_statuses[0].restart_count == before
    await runtime.remove("u1")


def msgspec_free(**changes: float):
    from dataclasses import replace

    return replace(QUICK, **changes)


async def test_a_missing_key_is_waited_for(runtime: LocalRuntime, world: World) -> None:
    source = EnvVarSource(config_map_key_ref=KeySelector(name="ranks", key="u1"))
    await runtime.sync(shell('echo "rank $RANK"', env=[EnvVar(name="RANK", value_from=source)]))
    await world.until(
        lambda: (
            world.last().container_statuses
            and world.last().container_statuses[0].state.waiting
            and world.last().container_statuses[0].state.waiting.reason == "CreateContainerConfigError"
        ),
        "waiting",
    )
    assert world.last().phase == "Pending"
    world.config_maps["ranks"] = ConfigMap(metadata=ObjectMeta(name="ranks"), data={"u1": "3"})
    runtime.references_changed("default")
    await world.phase("Succeeded")
    assert await text(runtime) == "rank 3\n"


async def test_init_containers_run_first_and_in_order(runtime: LocalRuntime, world: World, tmp_path: Path) -> None:
    wanted = shell(f"cat {tmp_path}/order")
    wanted.spec.init_containers = [
        Container(name=name, command=["/bin/sh", "-c", f"echo {name} >> {tmp_path}/order"]) for name in ("a", "b")
    ]
    await runtime.sync(wanted)
    await world.phase("Succeeded")
    assert await text(runtime, container="main") == "a\nb\n"


async def test_what_ends_while_heddle_is_down_keeps_its_code(tmp_path: Path, world: World) -> None:
    first = start(tmp_path, world)
    await first.adopt()
    await first.sync(shell(f"until test -e {tmp_path}/go; do sleep 0.02; done; exit 5"))
    await world.phase("Running")
    await first.close()
    (tmp_path / "go").touch()
    await eventually(lambda: (tmp_path / "pods/u1/main/exit.0.json").exists(), "exit record")
    later = World()
    second = start(tmp_path, later)
    assert [p.metadata.uid for p in await second.adopt()] == ["u1"]
    ended = (await later.phase("Failed")).container_statuses[0].state.terminated
    assert ended is not None
    assert ended.exit_code == 5
    await second.remove("u1")


async def test_a_running_pod_is_adopted_and_not_doubled(tmp_path: Path, world: World) -> None:
    wanted = shell("exec sleep 60")
    first = start(tmp_path, world)
    await first.adopt()
    await first.sync(wanted)
    await world.phase("Running")
    await first.close()
    pid = process.decode_json(tmp_path / "pods/u1/main/started.0.json")["pid"]
    later = World()
    second = start(tmp_path, later)
    await second.adopt()
    await second.sync(wanted)
    await later.phase("Running")
    assert process.decode_json(tmp_path / "pods/u1/main/started.0.json")["pid"] == pid
    assert not (tmp_path / "pods/u1/main/started.1.json").exists()
    await second.remove("u1")
    assert not alive(pid)
    assert not (tmp_path / "pods/u1").exists()


@pytest.mark.parametrize("down", [False, True])
async def test_a_killed_shim_is_told_and_leaves_nothing(tmp_path: Path, world: World, down: bool) -> None:
    runtime = start(tmp_path, world)
    await runtime.adopt()
    wanted = shell(f"sleep 61 & echo $! > {tmp_path}/sleeper.tmp; mv {tmp_path}/sleeper.tmp {tmp_path}/sleeper; wait")
    await runtime.sync(wanted)
    await world.phase("Running")
    await eventually(lambda: (tmp_path / "sleeper").exists(), "grandchild")
    started = process.decode_json(tmp_path / "pods/u1/main/started.0.json")
    if down:
        await runtime.close()
    os.kill(started["shimPid"], signal.SIGKILL)
    if down:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(started["shimPid"], 0)  # noqa: ASYNC222 - it was just killed
        world = World()
        runtime = start(tmp_path, world)
        await runtime.adopt()
    ended = (await world.phase("Failed")).container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (137, "ShimLost")
    grandchild = int((tmp_path / "sleeper").read_text())
    await eventually(lambda: not alive(started["pid"]) and not alive(grandchild), "all are gone")
    await runtime.remove("u1")


async def test_one_hundred_pods_leak_no_descriptors(runtime: LocalRuntime, world: World) -> None:
    me = psutil.Process()
    await runtime.sync(shell("true", uid="warm"))
    await world.phase("Succeeded", "warm")
    await runtime.remove("warm")
    before, children = me.num_fds(), {child.pid for child in me.children()}
    for number in range(100):
        uid = f"n{number}"
        await runtime.sync(shell("true", uid=uid))
        await world.phase("Succeeded", uid)
        await runtime.remove(uid)
    assert me.num_fds() == before
    assert {child.pid for child in me.children()} <= children


async def test_the_image_is_ignored_aloud(runtime: LocalRuntime, world: World) -> None:
    await runtime.sync(shell("true", image="pytorch/pytorch"))
    await world.phase("Succeeded")
    await world.until(lambda: world.events, "event")
    assert any(reason == "ImageIgnored" and "pytorch/pytorch" in message for _, reason, message in world.events)


async def test_pods_run_side_by_side(runtime: LocalRuntime, world: World) -> None:
    await asyncio.gather(*(runtime.sync(shell("true", uid=f"s{n}")) for n in range(10)))
    for n in range(10):
        await world.phase("Succeeded", f"s{n}")


async def test_a_full_disk_is_told_and_tried_again(
    runtime: LocalRuntime, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(process, "write_whole", full)
        wanted = shell("true")
        await runtime.sync(wanted)
        state = await world.until(
            lambda: (
                world.last().container_statuses
                and (w := world.last().container_statuses[0].state.waiting)
                and w.reason == "CreateContainerError"
                and w
            ),
            "told",
        )
        assert "No space left on device; free space" in state.message
    await runtime.sync(wanted)
    await world.phase("Succeeded")


async def test_a_pod_that_others_declared_over_is_stopped(runtime: LocalRuntime, world: World) -> None:
    wanted = shell("exec sleep 60")
    await runtime.sync(wanted)
    await world.phase("Running")
    pid = process.decode_json(runtime.root / "u1/main/started.0.json")["pid"]
    over = msgspec.structs.replace(wanted, status=msgspec.structs.replace(world.last(), phase="Failed"))
    await runtime.sync(over)
    await eventually(lambda: not alive(pid), "stopped")
    assert world.last().phase == "Running"  # the verdict of others is not overwritten


async def test_a_log_is_followed_to_the_end(runtime: LocalRuntime, world: World) -> None:
    await runtime.sync(shell("for i in 1 2 3 4 5; do echo $i; sleep 0.05; done"))
    await world.phase("Running")
    assert await text(runtime, follow=True) == "1\n2\n3\n4\n5\n"


async def test_restart_policy_always_starts_again_after_success(runtime: LocalRuntime, world: World) -> None:
    await runtime.sync(shell("exit 0", policy="Always"))
    await world.phase("Running")
    await world.until(lambda: world.last().container_statuses[0].restart_count >= 2, "restarts")
    assert world.last().phase == "Running"
