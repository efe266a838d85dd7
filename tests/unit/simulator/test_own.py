"""heddle's own table of jobs says all that a job can be, and is read back as it was written."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heddle.simulator.jobs import Job, Trace
from heddle.simulator.sources import read
from heddle.simulator.tables import TableError
from heddle.simulator.traces import own
from heddle.simulator.traces.synthetic import Load

names = st.text("abcXYZ09_-./,;'\" é|#", min_size=1, max_size=12).map(str.strip).filter(bool)
models = st.text("ABC-100 ", min_size=1, max_size=6).map(str.strip).filter(bool)
times = st.one_of(st.integers(0, 10**9).map(float), st.floats(0, 1e12))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    jobs = []
    paces = st.tuples(models.filter(lambda name: "=" not in name), st.floats(1e-3, 1e3))
    for name in draw(st.lists(names, max_size=6, unique=True)):
        tasks = draw(st.integers(1, 2000))
        submit = draw(times)
        gpu = draw(st.one_of(st.integers(0, 1000), st.integers(1, 16).map(lambda whole: whole * 1000)))
        accepted = tuple(draw(st.lists(models, max_size=3)))
        jobs.append(
            Job(
                name,
                submit,
                draw(st.one_of(times, st.just(math.inf))),
                tasks=tasks,
                gpu=gpu,
                cpu=draw(st.integers(0, 10**7)),
                memory=draw(st.one_of(st.integers(0, 2**45), st.integers(0, 512).map(lambda gib: gib << 30))),
                queue=draw(names),
                user=draw(st.one_of(st.just(""), names)),
                priority=draw(st.integers(-1000, 1000)),
                preemptible=draw(st.booleans()),
                walltime=draw(st.one_of(st.none(), st.floats(1e-3, 1e9))),
                models=accepted,
                speeds=tuple(draw(st.lists(paces, max_size=2))) if gpu and not accepted else (),
                least=draw(st.one_of(st.none(), st.integers(1, tasks))),
                checkpoint=draw(st.one_of(st.none(), st.floats(1e-3, 1e9))),
                restart=draw(times),
                speedup=draw(st.floats(0, 2)),
                cancel=draw(st.one_of(st.none(), st.floats(submit, 1e13))),
                topology=draw(st.one_of(st.none(), names)),
                required=draw(st.booleans()),
            )
        )
    return Trace.of("own", jobs)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trace=traces(), ending=st.sampled_from(["csv", "csv.gz", "csv.bz2", "csv.xz"]))
def test_what_is_written_is_read_back_the_same(tmp_path: Path, trace: Trace, ending: str) -> None:
    path = tmp_path / f"own.{ending}"
    own.write(trace, path)
    assert read(path, form="heddle") == trace


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trace=traces())
def test_parquet_is_read_back_the_same(tmp_path: Path, trace: Trace) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: heddle[parquet]")
    path = tmp_path / "own.parquet"
    own.write(trace, path)
    assert read(path) == trace


def test_parquet_of_other_tools_has_typed_columns(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: heddle[parquet]")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "own.parquet"
    columns = {"submit_s": [0.5, 1.0], "duration_s": [60, 70], "gpus": [16, 1], "preemptible": [True, None]}
    parquet.write_table(arrow.table(columns), path)
    assert read(path).jobs == (Job("0000002", 0.5, 60, tasks=2, gpu=8000), Job("0000003", 1, 70))
    parquet.write_table(arrow.table({"submit_s": [1], "duration_s": ["soon"], "gpus": [1]}), path)
    with pytest.raises(TableError, match=r"own.parquet:2: duration_s: 'soon' is not valid"):
        read(path)
    parquet.write_table(arrow.table({"submit_s": [1]}), path)
    with pytest.raises(TableError, match="has no column duration_s; it has: submit_s"):
        read(path)
    path.write_text("no parquet")
    with pytest.raises(TableError, match="cannot be read"):
        read(path)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"Parquet needs pyarrow; pip install 'heddle\[parquet\]', or give CSV"):
        read(tmp_path / "own.parquet")
    with pytest.raises(TableError, match="Parquet needs pyarrow"):
        own.write(Trace.of("own", []), tmp_path / "own.parquet")


def test_little_needs_to_be_told(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("submit_s,duration_s,gpus\n0,60,16\n1,never,0.5\n2,5,0\n")
    assert read(path, node_gpus=8).jobs == (
        Job("0000002", 0, 60, tasks=2, gpu=8000),
        Job("0000003", 1, math.inf, gpu=500),
        Job("0000004", 2, 5, gpu=0),
    )


def test_quantities_are_written_as_in_kubernetes(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        "name,submit_s,duration_s,gpus_per_task,tasks,cpu,memory,models,preemptible,least\n"
        "a,0,60,0.25,1,500m,16Gi,,no,\nb,0,60,8,4,96,1.5Ti,H100|A100,,2\n"
    )
    assert read(path).jobs == (
        Job("a", 0, 60, gpu=250, cpu=500, memory=16 << 30, preemptible=False),
        Job("b", 0, 60, tasks=4, gpu=8000, cpu=96000, memory=3 << 39, models=("H100", "A100"), least=2),
    )


HEAD = "name,submit_s,duration_s,tasks,gpus_per_task"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{HEAD},colour\na,0,1,1,1,red\n", "column colour is not known; use: name, submit_s"),
        (f"{HEAD},gpus\na,0,1,1,1,1\n", "give either the column gpus, or gpus_per_task with tasks"),
        ("submit_s,duration_s\n0,1\n", "give either the column gpus, or gpus_per_task"),
        ("submit_s,duration_s,tasks,gpus\n0,1,2,1\n", "give either the column gpus, or gpus_per_task"),
        (f"{HEAD}\na,,1,1,1\n", "own.csv:2: submit_s is empty"),
        (f"{HEAD}\na,0,1,1,\n", "own.csv:2: gpus_per_task is empty"),
        (
            f"{HEAD}\na,0,1,1,1.5\n",
            "own.csv:2: gpus_per_task: '1.5' is not valid: give a whole number of GPUs",
        ),
        (f"{HEAD}\na,0,1,1,inf\n", "own.csv:2: gpus_per_task: 'inf' is not valid"),
        (f"{HEAD}\na,0,1,0,1\n", "own.csv:2: job a: tasks 0 is not valid; give 1 to 1000000"),
        (f"{HEAD},memory\na,0,1,1,1,lots\n", "own.csv:2: memory: 'lots' is not valid: 'lots' is not a quantity"),
        (f"{HEAD},memory\na,0,1,1,1,1e999999999\n", "own.csv:2: memory: '1e999999999' is not valid"),
        (f"{HEAD},cpu\na,0,1,1,1,-1\n", "own.csv:2: cpu: '-1' is not valid: give 0 or more, below"),
        (f"{HEAD},preemptible\na,0,1,1,1,perhaps\n", "preemptible: 'perhaps' is not valid: write true or false"),
        (f"{HEAD},priority\na,0,1,1,1,inf\n", "priority: 'inf' is not valid: give a whole number"),
        (f"{HEAD},walltime_s\na,0,1,1,1,0\n", "own.csv:2: job a: walltime 0.0 is not valid; give more than 0 seconds"),
        (f"{HEAD},cancel_s\na,5,1,1,1,4\n", "own.csv:2: job a: cancel 4.0 is not valid; give 5 s or later"),
        (f"{HEAD},least\na,0,1,2,1,3\n", "own.csv:2: job a: least 3 is not valid; give 1 to 2 tasks"),
    ],
)
def test_broken_tables_are_told_with_line_and_column(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=says):
        read(path)


def test_the_docs_name_every_column_and_part() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "traces.md").read_text()
    names = ["gpus", *(column.name for column in own.COLUMNS), *(field.name for field in fields(Load))]
    assert [name for name in names if f"`{name}" not in docs] == []
    assert {column.field for column in own.COLUMNS} == {field.name for field in fields(Job)} - {"told"}  # by a snapshot


@pytest.mark.parametrize("job", [Job("a", 0, 1, models=("A|B",)), Job(" a", 0, 1), Job("a", 0, 1, topology="")])
def test_what_no_cell_can_hold_is_refused(tmp_path: Path, job: Job) -> None:
    with pytest.raises(ValueError, match="cannot be written to a table"):
        own.write(Trace.of("own", [job]), tmp_path / "own.csv")
