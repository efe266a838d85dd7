"""Made-up work is what was asked for, and the same everywhere."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter

import pytest

from heddle.simulator.sources import read
from heddle.simulator.traces.synthetic import Load, make, parse


def test_a_description_is_a_load() -> None:
    assert parse("synthetic:jobs=10,gpus=1|2:3|0.5,load=0.9,duration=2h,seed=7,queues=a|b:2,longest=1d") == Load(
        jobs=10,
        gpus=(("1", 1.0), ("2", 3.0), ("0.5", 1.0)),
        load=0.9,
        duration=7200,
        seed=7,
        queues=(("a", 1.0), ("b", 2.0)),
        longest=86400,
    )
    assert parse("synthetic") == parse("synthetic:") == Load()


def told(text: str) -> str:
    jobs = read(text).jobs
    return repr([(j.name, j.submit, j.duration, j.tasks, j.gpu, j.queue, j.user, j.walltime) for j in jobs])


def test_the_same_seed_gives_the_same_jobs_anywhere() -> None:
    text = "synthetic:jobs=2000,gpus=1|2|4|16,load=0.8,capacity=64,queues=a|b,users=5,walltime=3,shape={},seed=3"
    shapes = ("lognormal", "pareto", "exponential", "constant")
    found = [hashlib.sha256(told(text.format(shape)).encode()).hexdigest()[:12] for shape in shapes]
    assert found == ["c748de76e4fd", "df85de739057", "cd5ce866b672", "aa2c75b47e3c"]
    assert read(text.format("pareto").replace("seed=3", "seed=4")) != read(text.format("pareto"))


def test_arrivals_bring_the_load_that_was_asked_for() -> None:
    trace = read(
        "synthetic:jobs=50000,gpus=1|8,small=0.8,load=0.7,duration=1h,sigma=1,queues=a:3|b,users=4", capacity=512
    )
    brought = sum(job.gpus * job.duration for job in trace.jobs) / trace.jobs[-1].submit / 512
    assert brought == pytest.approx(0.7, rel=0.05)
    assert statistics.fmean(job.duration for job in trace.jobs) == pytest.approx(3600, rel=0.05)
    assert Counter(job.gpus for job in trace.jobs)[1] == pytest.approx(40000, rel=0.02)
    assert Counter(job.queue for job in trace.jobs)["a"] == pytest.approx(37500, rel=0.02)
    assert {job.user for job in trace.jobs} == {"user-0", "user-1", "user-2", "user-3"}


@pytest.mark.parametrize("shape", ["lognormal", "pareto", "exponential", "constant"])
def test_durations_have_the_mean_that_was_asked_for(shape: str) -> None:
    trace = make(Load(jobs=50000, shape=shape, sigma=1, alpha=3, duration=5000, interval=1))
    assert statistics.fmean(job.duration for job in trace.jobs) == pytest.approx(5000, rel=0.05)
    assert min(job.duration for job in trace.jobs) >= 1


def test_large_jobs_are_gangs_and_walltimes_are_never_short() -> None:
    trace = read(
        "synthetic:jobs=500,gpus=16|0.5,interval=10,walltime=2,checkpoint=10m,restart=30,longest=3h", node_gpus=4
    )
    assert {(job.tasks, job.gpu) for job in trace.jobs} == {(4, 4000), (1, 500)}
    assert all(job.walltime is not None and job.duration <= job.walltime <= 2 * job.duration + 1 for job in trace.jobs)
    assert all((job.checkpoint, job.restart) == (600, 30) and job.duration <= 3 * 3600 for job in trace.jobs)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("synthetic:size=3", "'size=3' is not valid; write name=value with one of jobs, gpus"),
        ("synthetic:jobs", "'jobs' is not valid; write name=value"),
        ("synthetic:jobs=1,jobs=2", "jobs is said twice"),
        ("synthetic:jobs=some", "jobs: 'some' is not valid"),
        ("synthetic:duration=2x", "duration: '2x' is not valid: write a span of time"),
        ("synthetic:gpus=1:0", "gpus: '1:0' is not valid: write choices"),
        ("synthetic:gpus=1.5,interval=1", "gpus: '1.5' is not valid: give a whole number of GPUs"),
        ("synthetic:gpus=1,small=0.5,interval=1", "small: 0.5 is not valid; give gpus at least two sizes"),
        ("synthetic:load=0.9", "the load needs capacity=GPUs of the cluster; or give interval=30s"),
        ("synthetic:gpus=0,capacity=8", "jobs without GPUs make no load"),
        ("synthetic:load=1,interval=3", "give load or interval, not both"),
        ("synthetic:interval=3,shape=round", "shape: 'round' is not known; use one of lognormal"),
        ("synthetic:interval=3,shape=pareto,alpha=1", "alpha: 1 is not valid; above 1 there is a mean"),
        ("synthetic:walltime=0.5", "walltime: '0.5' is not valid: give a number from 1"),
    ],
)
def test_broken_descriptions_name_the_part(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(text)


def test_a_format_is_for_files() -> None:
    with pytest.raises(ValueError, match="format: 'itp' is for files"):
        read("synthetic:interval=1", form="itp")
