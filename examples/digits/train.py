"""Elastic data-parallel training of a small network on scikit-learn's handwritten digits.

Real data, real gradients, real collectives: every process holds a shard of each batch, and gradients are summed over
all processes (JAX on CPU, gloo). The world may be of any size from one to as many as the batch divides into, and it may
change: on SIGTERM all processes stop after the same step, the first one saves, and the next world goes on from there.
Batches depend on the step alone, so the size of the world changes the speed of the training, not its course.

heddle sets JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID, HEDDLE_GENERATION and HEDDLE_CHECKPOINT_DIR;
without them this is an ordinary training in one process.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

Params = dict[str, Any]

BATCH = 240  # divides among 1, 2, 3, 4, 5, 6 and 8 processes
HIDDEN = 128
RATE = 1e-3
KEPT = 3
LEAVE_PATIENCE = 60.0


class Checkpoints:
    """Files `step-N.npz` in a directory; a reader never sees half a file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.origin = ""
        directory.mkdir(parents=True, exist_ok=True)

    def newest(self) -> Path | None:
        """The checkpoint of the highest step."""
        return max(self.directory.glob("step-*.npz"), default=None)

    def save(self, step: int, state: Params, generation: int) -> None:
        """Write one, and drop the oldest (but not the one that this world began with)."""
        path = self.directory / f"step-{step:08d}.npz"
        with tempfile.NamedTemporaryFile(dir=self.directory, suffix=".part", delete=False) as out:
            np.savez(out, step=step, generation=generation, **{k: np.asarray(v) for k, v in state.items()})
            out.flush()
            os.fsync(out.fileno())
        Path(out.name).replace(path)
        for old in sorted(self.directory.glob("step-*.npz"))[:-KEPT]:
            if old.name != self.origin:
                old.unlink()

    def load(self, path: Path) -> tuple[int, Params]:
        """Step and state of one."""
        with np.load(path) as found:
            state = {k: found[k] for k in found.files if k not in ("step", "generation")}
            step = int(found["step"])
        self.origin = path.name
        return step, state


def fresh(seed: int) -> Params:
    """Weights, and the two moments of Adam."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, (2 / 64) ** 0.5, (64, HIDDEN)),
        "b1": np.zeros(HIDDEN),
        "w2": rng.normal(0, (2 / HIDDEN) ** 0.5, (HIDDEN, 10)),
        "b2": np.zeros(10),
    }
    state = {k: v.astype(np.float32) for k, v in weights.items()}
    return state | {f"{moment}.{k}": np.zeros_like(v) for moment in "mv" for k, v in state.items()}


def logits(state: Params, x: Any) -> Any:
    """Two layers."""
    return jax.nn.relu(x @ state["w1"] + state["b1"]) @ state["w2"] + state["b2"]


def make_step(mesh: Mesh) -> Any:
    """One step of all processes: their gradients and their flags are summed over the world."""

    def step(state: Params, t: Any, x: Any, y: Any, flags: Any) -> tuple[Params, Any, Any]:
        weights = {k: state[k] for k in ("w1", "b1", "w2", "b2")}

        def loss_of(weights: Params) -> Any:
            picked = jnp.take_along_axis(jax.nn.log_softmax(logits(weights, x)), y[:, None], axis=1)
            return -picked.sum() / BATCH

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        loss, gradients, flags = jax.lax.psum((loss, gradients, flags[0]), "data")  # the collective
        new = {}
        for k, g in gradients.items():
            new[f"m.{k}"] = m = 0.9 * state[f"m.{k}"] + 0.1 * g
            new[f"v.{k}"] = v = 0.999 * state[f"v.{k}"] + 0.001 * g * g
            new[k] = state[k] - RATE * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return new, loss, flags

    shards = P("data")
    return jax.jit(
        jax.shard_map(
            step, mesh=mesh, in_specs=(P(), P(), shards, shards, shards), out_specs=(P(), P(), P()), check_vma=False
        )
    )


def data() -> tuple[Any, Any, Any, Any]:
    """Training and held-out digits: every fourth is held out."""
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target.astype(np.int32)
    held = np.arange(len(y)) % 4 == 0
    return x[~held], y[~held], x[held], y[held]


def join(processes: int, rank: int) -> None:
    """Become one world with the other processes."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours
    jax.distributed.initialize(
        coordinator_address=os.environ["JAX_COORDINATOR_ADDRESS"],
        num_processes=processes,
        process_id=rank,
        initialization_timeout=60,
    )


def main() -> int:
    """Train until the target is met; 0 then, 143 when told to leave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="train at least so many steps (default 600)")
    parser.add_argument("--until-file", type=Path, help="and until this file exists")
    parser.add_argument("--checkpoint-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    processes = int(os.environ.get("JAX_NUM_PROCESSES", "1"))
    rank = int(os.environ.get("JAX_PROCESS_ID", "0"))
    generation = int(os.environ.get("HEDDLE_GENERATION", "1"))
    checkpoints = Checkpoints(Path(os.environ.get("HEDDLE_CHECKPOINT_DIR", "checkpoints")))

    def say(text: str) -> None:
        if rank == 0:
            print(text, flush=True)

    if BATCH % processes:
        sys.exit(f"a batch of {BATCH} does not divide among {processes} processes")
    if processes > 1:
        join(processes, rank)
    leave = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leave.set())

    say(f"world {generation}: {processes} processes, {BATCH // processes} digits of each batch per process")
    mesh = Mesh(np.array(jax.devices()), ("data",))
    shard = NamedSharding(mesh, P("data"))
    step, state = 0, fresh(args.seed)
    if newest := checkpoints.newest():
        step, state = checkpoints.load(newest)
        say(f"resumed at step {step}")
    x, y, x_held, y_held = data()
    advance = make_step(mesh)
    part = slice(rank * BATCH // processes, (rank + 1) * BATCH // processes)
    local = partial(jax.make_array_from_process_local_data, shard)

    def accuracy() -> float:
        weights = {k: np.asarray(state[k]) for k in ("w1", "b1", "w2", "b2")}
        guess = np.maximum(x_held @ weights["w1"] + weights["b1"], 0) @ weights["w2"] + weights["b2"]
        return float((guess.argmax(1) == y_held).mean())

    while True:
        pick = np.random.default_rng((args.seed, step)).choice(len(y), BATCH, replace=False)[part]
        done = step + 1 >= args.steps and (args.until_file is None or args.until_file.exists())
        flags = np.array([[leave.is_set(), done and rank == 0]], dtype=np.float32)
        state, loss, flags = advance(state, np.float32(step + 1), local(x[pick]), local(y[pick]), local(flags))
        step += 1
        leaving, finished = (bool(v) for v in np.asarray(flags))  # the same in every process
        if rank == 0 and (leaving or finished or step % args.checkpoint_every == 0):
            checkpoints.save(step, state, generation)
            say(f"checkpoint at step {step}, loss {float(loss):.4f}, held-out accuracy {accuracy():.2%}")
        if leaving or finished:
            break
    if processes > 1:
        jax.distributed.shutdown()  # waits for all, so that nobody sees another one die
    if finished:
        say(f"finished at step {step}: held-out accuracy {accuracy():.2%}")
        return 0
    if not leave.wait(LEAVE_PATIENCE):  # another process was told to leave: we are told soon, and start again
        print("another process left, but no new world came", file=sys.stderr)
        return 1
    return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main())
