"""A training of several roles: a parameter server, workers that send it gradients, and an evaluator that watches.

Softmax regression on scikit-learn's handwritten digits, asynchronous as parameter servers are: each worker takes the
present weights, computes a gradient on its own shard of the data, and sends it; nobody waits for the others. What role
a process has, its rank in it, and where the server listens, heddle says in the environment.
"""

import os
import secrets
import sys
import time
from multiprocessing.managers import BaseManager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

Array = np.ndarray[Any, np.dtype[np.float64]]

STEPS = 400  # of each worker
BATCH = 64
RATE = 0.5
KEY = os.environ.get("HEDDLE_JOB", "roles").encode()  # keeps strangers' mistakes out, not attackers


class Weights:
    """The model, which only its server changes."""

    def __init__(self, path: Path | None) -> None:
        self._lock, self._path, self._steps = Lock(), path, 0
        self._values = np.zeros((65, 10))
        if path is not None and path.exists():
            with np.load(path) as found:
                self._values, self._steps = found["values"], int(found["steps"])
            print(f"resumed at step {self._steps}", flush=True)

    def read(self) -> tuple[int, Array]:
        """How many steps they have seen, and the values."""
        with self._lock:
            return self._steps, self._values.copy()

    def descend(self, gradient: Array) -> None:
        """One step."""
        with self._lock:
            self._values -= RATE * gradient
            self._steps += 1
            if self._path is not None and self._steps % 100 == 0:
                part = self._path.with_name(f"{self._path.stem}-{secrets.token_hex(4)}.npz")
                np.savez(part, values=self._values, steps=self._steps)
                part.replace(self._path)


class Server(BaseManager):
    """Serves the weights at an address."""


def data(*, held_out: bool) -> tuple[Array, Any]:
    """Every fourth digit is held out."""
    digits = load_digits()
    pixels = np.hstack([digits.data / 16, np.ones((len(digits.data), 1))])
    pick = (np.arange(len(pixels)) % 4 == 0) == held_out
    return pixels[pick], digits.target[pick]


def guess(values: Array, pixels: Array) -> Array:
    """Probabilities of the ten digits."""
    scores = pixels @ values
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Array = grown / grown.sum(axis=1, keepdims=True)
    return result


def serve() -> None:
    """The parameter server: until heddle ends it, once the workers have succeeded."""
    folder = os.environ.get("HEDDLE_CHECKPOINT_DIR")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    weights = Weights(Path(folder, "weights.npz") if folder else None)
    Server.register("weights", callable=lambda: weights)
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    print(f"weights are served at {address[0]}:{address[1]}", flush=True)
    Server(address=address, authkey=KEY).get_server().serve_forever()


def found() -> Any:
    """The weights at their server; it started before, but may not listen yet."""
    host, _, port = os.environ["HEDDLE_ADDRESS_SERVER"].rpartition(":")
    Server.register("weights")
    server = Server(address=(host.strip("[]"), int(port)), authkey=KEY)
    for left in range(100, -1, -1):
        try:
            server.connect()
            return server.weights()  # type: ignore[attr-defined]
        except OSError:
            if not left:
                raise
            time.sleep(0.1)
    raise AssertionError("unreachable")


def work() -> None:
    """Send gradients of one's own shard."""
    rank, workers = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    pixels, digits = data(held_out=False)
    pixels, digits = pixels[rank::workers], digits[rank::workers]
    weights, random = found(), np.random.default_rng(rank)
    for step in range(1, STEPS + 1):
        pick = random.choice(len(digits), BATCH)
        _, values = weights.read()
        wrong = guess(values, pixels[pick])
        wrong[np.arange(BATCH), digits[pick]] -= 1
        weights.descend(pixels[pick].T @ wrong / BATCH)
        if step % 100 == 0:
            print(f"worker {rank} of {workers}: {step} steps", flush=True)


def evaluate() -> None:
    """Say how good the model is, again and again, on digits that no worker sees."""
    pixels, digits = data(held_out=True)
    weights, before = found(), -1
    while True:
        steps, values = weights.read()
        if steps != before:
            right = float((guess(values, pixels).argmax(axis=1) == digits).mean())
            print(f"after {steps} steps: held-out accuracy {right:.1%}", flush=True)
        before = steps
        time.sleep(0.2)


if __name__ == "__main__":
    parts = {"server": serve, "worker": work, "evaluator": evaluate}
    role = os.environ.get("HEDDLE_ROLE", "")
    if role not in parts:
        sys.exit(f"HEDDLE_ROLE is {role!r}: this is a job of the roles {', '.join(parts)}; see job.yaml")
    parts[role]()
