"""Elastic steps: how many tasks beyond the minimum join or leave at once. Counts only, of one pod set."""

from __future__ import annotations

from heddle.engine.model import PodSet


def to_grow(pod_set: PodSet, count: int) -> int:
    """How many tasks join next where so many run or have a place: a step, or what one lacks that lost some."""
    return pod_set.step - max(0, count - pod_set.min) % pod_set.step


def to_shrink(pod_set: PodSet, count: int) -> int:
    """How many tasks leave next where so many run, more than the minimum: what is left of a step, or a whole one."""
    return (count - pod_set.min) % pod_set.step or pod_set.step
