"""Policies of others: their scores, worked out one node at a time from their definitions."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from heddle.engine.model import STRATEGIES
from heddle.engine.rankings import RANKINGS, draw


def by_hand(name: str, gpu: int, cpu: int, left: list[int], cpu_left: int, tenants: list[int]) -> int:
    free = sum(left)
    if name == "best-fit":
        return math.floor(100 * (1 - 0.5 * (cpu_left - cpu) / 128_000 - 0.5 * (free - gpu) / 8000))
    if name == "dot-product":
        return math.floor(100 * (1 - 0.5 * (cpu / 128_000 * cpu_left / 128_000 + gpu / 8000 * free / 8000)))
    if not gpu:
        return 0
    if name == "gpu-packing":
        idle = sum(amount == 1000 for amount in left)
        if idle == len(left):
            return max(33 - idle, idle)
        if gpu >= 1000:
            return max(50 - gpu // 1000, 33)
        best = min(amount for amount in left if amount >= gpu)
        return max(49, 33) if best == 1000 else max(100 - best // 10 // 10, 50)
    kinds = {size // 1000 for size in tenants if size}
    used = 25 * (8000 - free) // 8000
    if gpu // 1000 in kinds:
        return used + (75 if len(kinds) == 1 else 50)
    return used + (0 if kinds else 25)


@pytest.mark.parametrize("name", ["best-fit", "dot-product", "gpu-packing", "gpu-clustering"])
def test_scores_are_those_of_the_definition(name: str) -> None:
    dice = random.Random(name)
    for _ in range(300):
        count = dice.choice([1, 2, 4, 8])
        left = [dice.choice([0, 190, 350, 500, 1000, 1000]) for _ in range(count)]
        tenants = [dice.choice([0, 250, 1000, 2000]) for _ in range(dice.randrange(4))]
        gpu, cpu = dice.choice([0, 190, 350, 1000, 2000]), dice.randrange(0, 32_001, 500)
        cpu_left = cpu + dice.randrange(0, 90_001, 500)
        if sum(amount >= min(gpu, 1000) for amount in left) < max(gpu // 1000, gpu > 0):
            continue
        ranking = RANKINGS[name](lambda _, tenants=tenants: tenants)
        devices = np.array([left + [-1] * (8 - count)])
        found = ranking.rank((gpu, cpu), np.array([0]), np.array([[sum(left), cpu_left]]), devices)
        assert abs(int(found[0]) - by_hand(name, gpu, cpu, left, cpu_left, tenants)) <= (
            name in ("best-fit", "dot-product")
        )


def test_what_looks_like_chance_is_the_name() -> None:
    fits = np.array([False, True, True, False, True])
    drawn = [draw(f"x/{at}", fits) for at in range(600)]
    assert drawn == [draw(f"x/{at}", fits) for at in range(600)]
    assert all(150 < drawn.count(row) < 250 for row in (1, 2, 4))
    assert draw("x", np.zeros(3, np.bool_)) == -1


def test_every_ranking_is_a_strategy() -> None:
    assert set(RANKINGS) < set(STRATEGIES)
